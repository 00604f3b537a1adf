"""How an index's contents become files and contents again; generations.py makes a folder of the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..encoders.base import write_encoder_arrays
from ..encoders.registry import config_from_dict, read_encoder
from ..utils.atomic_files import save_array
from ..utils.growable_array import GrowingArray
from ..utils.npy_files import load_npy
from ..utils.sibling_folders import recover_folder
from .candidates import CandidateSearch
from .contents import IndexContents
from .generations import Generation, commit
from .id_map import IdMap
from .manifest import IndexFolderError, read_manifest, verify
from .settings import IndexSettings
from .token_store import Segment, mapped, write_tokens

__all__ = ["read_contents", "write_contents"]

LENGTHS = "lengths.npy"

# Times that a folder is read again because a writer replaced it meanwhile.
_ATTEMPTS = 5

# A segment that is not this many times the new tokens is written again together with them:
# many small files would slow every search down, and a large one is written seldom.
_GROWTH = 2


def write_contents(
    contents: IndexContents,
    target: Path,
    expected_generation: Generation | None,
    overwrite: bool = False,
    attachments: Mapping[str, Callable[[Path], object]] | None = None,
) -> Generation:
    """Write an index's contents to a folder, and read its tokens from there from now on.

    Parameters
    ----------
    contents : IndexContents
    target : Path
    expected_generation, overwrite
        See :func:`muvera.index.generations.commit`.
    attachments : mapping of str to callable, optional
        Files to keep with the index, by name; each callable writes the file of the path that it is given.

    Raises
    ------
    IndexFolderError, FileExistsError, OSError
        As :meth:`muvera.MuveraIndex.save` says.
    """
    segments: list[Segment] = []

    def fill(folder: Path, name: str, old: set[str]) -> tuple[dict[str, Any], list[str]]:
        kept, rest = _divide(contents.store.segments, target, old)
        segments.extend(kept)
        if rest:
            file = f"tokens-{rest[0].first:012d}.npy"
            _write_segments(folder / file, rest, contents.store.staging)
            lengths = np.concatenate([part.vectors.lengths for part in rest])
            segments.append(Segment(rest[0].first, mapped(folder / file, lengths), target / name / file))
        save_array(folder / LENGTHS, contents.lengths.values)
        contents.ids.save(folder)
        for attached, write in (attachments or {}).items():
            write(folder / attached)
        encoder = contents.encoder
        fitted = encoder is not None and not encoder.needs_fit
        if encoder is not None and fitted:
            write_encoder_arrays(encoder.to_arrays(), folder)
        files = [_relative(part, target) for part in segments]
        entries = {
            "config": contents.config.to_dict(),
            "config_hash": contents.config.hash,
            "settings": contents.settings.to_dict(),
            "segments": [
                {"first": part.first, "file": file} for part, file in zip(segments, files, strict=True)
            ],
            "encoder": fitted,
            "candidates": None if contents.candidates is None else contents.candidates.save(folder),
        }
        return entries, files[: len(kept)]

    generation = commit(target, fill, expected_generation, overwrite)
    contents.store.segments, contents.store.staging = segments, None
    return generation


def _relative(part: Segment, target: Path) -> str:
    assert part.path is not None
    return part.path.relative_to(target).as_posix()


def _divide(segments: list[Segment], target: Path, old: set[str]) -> tuple[list[Segment], list[Segment]]:
    """Return the segments that stay in the folder as they are, and those to write."""
    kept: list[Segment] = []
    for part in segments:
        if part.path is None or target not in part.path.parents or _relative(part, target) not in old:
            break
        kept.append(part)
    rest = segments[len(kept) :]
    while rest and kept and kept[-1].num_tokens <= _GROWTH * sum(part.num_tokens for part in rest):
        rest.insert(0, kept.pop())
    return kept, rest


def _write_segments(path: Path, parts: list[Segment], staging: Path | None) -> None:
    source = parts[0].path
    if len(parts) == 1 and source is not None and staging is not None and source.parent == staging:
        shutil.move(source, path)
    else:
        # From what is mapped, not from the file: another process may have removed that.
        write_tokens(path, [part.vectors for part in parts])


def read_contents(folder: Path, verify_files: bool | None) -> tuple[IndexContents, Generation]:
    """Read what :func:`write_contents` wrote.

    Raises
    ------
    FileNotFoundError, IndexFolderError
        As :meth:`muvera.MuveraIndex.load` says.
    """
    recover_folder(folder)
    manifest = read_manifest(folder)
    for _ in range(_ATTEMPTS - 1):
        try:
            return _read(folder, manifest, verify_files)
        except IndexFolderError:
            latest = read_manifest(folder)
            if latest.get("stamp") == manifest.get("stamp"):
                raise
            manifest = latest  # a writer was faster and removed old files: what it wrote is whole
    return _read(folder, manifest, verify_files)


def _read(
    folder: Path, manifest: dict[str, Any], verify_files: bool | None
) -> tuple[IndexContents, Generation]:
    try:
        verify(folder, manifest["files"], verify_files)
        return _contents(folder, manifest), Generation.of(manifest)
    except IndexFolderError:
        raise
    except (MemoryError, ImportError):
        raise
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexFolderError(
            f"{folder} has an incomplete manifest: {error!r} is missing or wrong. Restore it from a copy."
        ) from error
    except Exception as error:
        raise IndexFolderError(f"{folder} is damaged: {error} Restore it from a copy.") from error


def _contents(folder: Path, manifest: dict[str, Any]) -> IndexContents:
    config = config_from_dict(manifest["config"])
    if config.hash != manifest["config_hash"]:
        raise IndexFolderError(
            f"{folder} was built with configuration {manifest['config_hash']}, but its manifest "
            f"describes {config.hash}: the manifest was changed. Restore it from a copy."
        )
    files = folder / manifest["folder"]
    settings = IndexSettings.from_dict(manifest["settings"])
    encoder = read_encoder(files, config) if manifest["encoder"] else None
    loaded = IndexContents(config, settings, encoder=encoder)
    lengths = load_npy(files / LENGTHS, mmap=False)
    loaded.lengths = GrowingArray(lengths)
    loaded.ids = IdMap.load(files)
    entries = manifest["segments"]
    ends = [entry["first"] for entry in entries[1:]] + [len(lengths)] * bool(entries)
    for entry, end in zip(entries, ends, strict=True):
        file = folder / entry["file"]
        vectors = mapped(file, lengths[entry["first"] : end])
        vectors.require_dimension(config.dimension, f"The tokens in {file}", "its index")
        loaded.store.segments.append(Segment(entry["first"], vectors, file))
    rows = (loaded.ids.num_rows, len(lengths), len(loaded.store))
    if len(set(rows)) > 1:
        raise IndexFolderError(f"{folder} has {rows[0]} ids, {rows[1]} lengths and {rows[2]} token sets.")
    if manifest["candidates"] is not None:
        if encoder is None:
            raise IndexFolderError(f"{folder} has FDEs without the matrices that made them.")
        loaded.candidates = CandidateSearch.load(
            files, encoder, settings, manifest["candidates"], loaded.ids.deleted_rows
        )
        found, wanted = loaded.candidates.search.labels(), loaded.searchable[0]
        if not np.array_equal(found, wanted):
            raise IndexFolderError(
                f"{folder} has FDEs of {len(found)} documents, but {len(wanted)} with tokens. "
                "Build the index again."
            )
    return loaded
