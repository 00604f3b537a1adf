"""How an index's contents become files and contents again; generations.py makes a folder of the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..encoders.base import write_encoder_arrays
from ..encoders.registry import config_from_dict, read_encoder
from ..mips import VectorSearch
from ..reranking.codecs import read_codec, write_codec
from ..reranking.codecs.base import CodedVectors
from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy
from ..utils.sibling_folders import recover_folder
from .candidates import CandidateSearch
from .generations import Generation, commit
from .id_map import GrowingArray, IdMap
from .manifest import IndexFolderError, read_manifest, verify
from .settings import IndexSettings
from .token_store import Segment, TokenStore, mapped, write_tokens
from .two_stage_search import IndexContents

__all__ = ["read_contents", "write_contents"]

LENGTHS = "lengths.npy"

_Texts = TypeVar("_Texts", MultiVectors, CodedVectors)

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
    written: list[tuple[TokenStore[Any], list[Segment[Any]]]] = []
    searches: list[VectorSearch] = []  # those that were written whole

    def fill(folder: Path, name: str, old: set[str]) -> tuple[dict[str, Any], list[str]]:
        entries_of: dict[str, list[dict[str, Any]]] = {"tokens": [], "codes": []}
        kept_files: list[str] = []
        for level in contents.store.levels:
            segments, kept = _write_level(level, folder, target, target / name, old)
            written.append((level, segments))
            files = [_relative(part, target) for part in segments]
            entries_of[level.prefix] = [
                {"first": part.first, "file": file} for part, file in zip(segments, files, strict=True)
            ]
            kept_files += files[:kept]
        codec = contents.store.codec
        codes = None
        if codec is not None:
            codes = {"codec": write_codec(codec, folder), "segments": entries_of["codes"]}
        save_array(folder / LENGTHS, contents.lengths.values)
        contents.ids.save(folder)
        for attached, write in (attachments or {}).items():
            write(folder / attached)
        encoder = contents.encoder
        fitted = encoder is not None and not encoder.needs_fit
        if encoder is not None and fitted:
            write_encoder_arrays(encoder.to_arrays(), folder)
        entries = {
            "config": contents.config.to_dict(),
            "config_hash": contents.config.hash,
            "settings": contents.settings.to_dict(),
            "segments": entries_of["tokens"],
            "codes": codes,
            "encoder": fitted,
            "candidates": None,
        }
        if contents.candidates is not None:
            saved = contents.candidates.search.saved
            graph = None if saved is None else _name_in(saved.path, target, old)
            entries["candidates"] = contents.candidates.save(folder, graph)
            if graph is None:
                searches.append(contents.candidates.search)
            else:
                kept_files.append(graph)
        return entries, kept_files

    generation = commit(target, fill, expected_generation, overwrite)
    for search in searches:
        search.saved_in(target / generation.folder)
    for level, segments in written:
        level.segments = segments
    contents.store.staging = None
    return generation


def _write_level(
    level: TokenStore[Any], folder: Path, target: Path, later: Path, old: set[str]
) -> tuple[list[Segment[Any]], int]:
    """Write what is new of a level; return its segments, and how many of them stay where they are."""
    kept, rest = _divide(level.segments, target, old)
    segments = list(kept)
    if rest:
        file = f"{level.prefix}-{rest[0].first:012d}.npy"
        _write_segments(folder / file, rest, level.staging)
        lengths = np.concatenate([part.vectors.lengths for part in rest])
        segments.append(Segment(rest[0].first, mapped(folder / file, lengths, level.make), later / file))
    return segments, len(kept)


def _relative(part: Segment[Any], target: Path) -> str:
    assert part.path is not None
    return part.path.relative_to(target).as_posix()


def _name_in(path: Path | None, target: Path, names: set[str]) -> str | None:
    """Return what a file is called in `target`, or None where it is not among the files there."""
    if path is None or target not in path.parents:
        return None
    name = path.relative_to(target).as_posix()
    return name if name in names else None


def _divide(
    segments: list[Segment[Any]], target: Path, old: set[str]
) -> tuple[list[Segment[Any]], list[Segment[Any]]]:
    """Return the segments that stay in the folder as they are, and those to write."""
    kept: list[Segment[Any]] = []
    for part in segments:
        if _name_in(part.path, target, old) is None:
            break
        kept.append(part)
    rest = segments[len(kept) :]
    while rest and kept and kept[-1].num_tokens <= _GROWTH * sum(part.num_tokens for part in rest):
        rest.insert(0, kept.pop())
    return kept, rest


def _write_segments(path: Path, parts: list[Segment[Any]], staging: Path | None) -> None:
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
    settings = IndexSettings.of(**manifest["settings"])
    encoder = read_encoder(files, config) if manifest["encoder"] else None
    coded = manifest.get("codes")
    codec = None if coded is None else read_codec(files, coded["codec"], config.dimension)
    loaded = IndexContents(config, settings, encoder=encoder, codec=codec)
    lengths = load_npy(files / LENGTHS, mmap=False)
    loaded.lengths = GrowingArray(lengths)
    loaded.ids = IdMap.load(files)
    floats, codes = loaded.store.floats, loaded.store.codes
    if floats is not None:
        floats.segments = _read_segments(floats, folder, manifest["segments"], lengths)
        for part in floats.segments:
            part.vectors.require_dimension(config.dimension, f"The tokens in {part.path}", "its index")
    if codes is not None and coded is not None:
        codes.segments = _read_segments(codes, folder, coded["segments"], lengths)
    for level in loaded.store.levels:
        rows = (loaded.ids.num_rows, len(lengths), len(level))
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


def _read_segments(
    level: TokenStore[_Texts], folder: Path, entries: list[dict[str, Any]], lengths: NDArray[np.int64]
) -> list[Segment[_Texts]]:
    """Map the files of a level."""
    ends = [entry["first"] for entry in entries[1:]] + [len(lengths)] * bool(entries)
    found = []
    for entry, end in zip(entries, ends, strict=True):
        file = folder / entry["file"]
        try:
            texts = mapped(file, lengths[entry["first"] : end], level.make)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        found.append(Segment(entry["first"], texts, file))
    return found
