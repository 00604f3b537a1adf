"""Write an index's contents to files, and read them back.

generations.py manages the folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.validation import as_lengths
from ..fde.arrays import write_encoder_arrays
from ..fde.config import FDEConfig
from ..fde.files import read_encoder
from ..reranking.codec_files import read_codec, write_codec
from ..utils.arrays import load_npy, save_array
from ..utils.atomic_files import named_errors, recover_folder
from ..utils.checks import counted
from ..utils.parallel import share_done
from .candidates import CandidateSearch
from .contents import IndexContents
from .generations import (
    MANIFEST,
    TEXTS,
    Destination,
    Generation,
    IndexFolderError,
    Save,
    commit,
    read_manifest,
    texts_file,
    verify,
)
from .id_map import IDS, IdMap
from .settings import IndexSettings
from .token_store import CodeStore, DocumentTokens, FloatStore, Level, Segment, TokenStore, write_tokens

LENGTHS = "lengths.npy"
_MEAN_LENGTHS = "mean_lengths.npy"

# Prefix of the files of the codec of means.
_MEAN_CODEC = "mean_codec"

_Read = TypeVar("_Read")

# Attempts to read a folder while writers replace it; each save can make one fail.
_ATTEMPTS = 20

# A saved segment of at most this many times the new tokens is merged into their file:
# many files slow down searches.
_GROWTH = 2


def write_contents(
    contents: IndexContents,
    destination: Destination,
    attempted: set[Generation],
    staging: Path | None = None,
) -> IndexContents:
    """Write contents to a folder, see :meth:`muvera.MuveraIndex.save`.

    Return the same contents, which read their tokens from the folder.  `attempted` are
    generations that interrupted saves may have written there.  The token files of
    `staging`, a temporary folder, can be moved.
    """
    target = destination.path
    loses_texts = contents.write_texts is None and not destination.overwrite
    if loses_texts and (target / MANIFEST).exists() and texts_file(target):
        raise IndexFolderError(
            f"{target} contains texts, which would be lost: this index has only token vectors. Load the "
            "folder with TextIndex.load, or save elsewhere."
        )
    candidates = contents.candidates
    if candidates is not None:
        candidates = replace(candidates, search=copy(candidates.search))
    saved = replace(contents, tokens=copy(contents.tokens), candidates=candidates)
    write = partial(_write_files, saved, staging)
    with named_errors(f"{target} could not be saved, and is unchanged"):
        generation = commit(destination, write, contents.generations.get(target), attempted)
    if candidates is not None:
        candidates.search.saved_in(target / generation.folder)
    return replace(saved, generations={**contents.generations, target: generation})


def _write_files(contents: IndexContents, staging: Path | None, save: Save) -> dict[str, Any]:
    """Write the files of contents.

    Their token stores then read the tokens from there.  Return the manifest's entries.
    """
    tokens = contents.tokens
    segments = {store.prefix: _write_store(store, save, staging) for store in tokens.stores}
    share_done(0.2)
    codes = None
    if tokens.codec is not None:
        codes = {"codec": write_codec(tokens.codec, save.folder), "segments": segments["codes"]}
    means = {} if tokens.means is None else {"means": _write_means(tokens.means, save, staging)}
    save_array(save.folder / LENGTHS, contents.lengths)
    contents.ids.save(save.folder)
    if contents.write_texts is not None:
        contents.write_texts(contents.ids, save.folder / TEXTS)
    share_done(0.4)
    encoder = contents.encoder
    fitted = encoder is not None and not encoder.needs_fit
    if encoder is not None and fitted:
        write_encoder_arrays(encoder.to_arrays(), save.folder)
    candidates = None
    if contents.candidates is not None:
        candidates, vectors = contents.candidates.save(save.folder, save.old_names.get)
        save.kept += vectors
    _require_consistent(contents, save.target, "Build the index again.")
    return {
        "config": contents.config.to_dict(),
        "config_hash": contents.config.hash,
        "settings": contents.settings.to_dict(),
        "segments": segments.get("tokens", []),
        "codes": codes,
        **means,
        "encoder": fitted,
        "candidates": candidates,
    }


def _write_means(means: Level, save: Save, staging: Path | None) -> dict[str, Any]:
    """Write the means of tokens, and return their entry of the manifest."""
    save_array(save.folder / _MEAN_LENGTHS, means.lengths)
    codec = write_codec(means.codec, save.folder, _MEAN_CODEC) if isinstance(means, CodeStore) else None
    return {"codec": codec, "segments": _write_store(means, save, staging)}


def _require_consistent(contents: IndexContents, folder: Path, advice: str) -> None:
    """Raise IndexFolderError unless ids, tokens and vectors are of the same documents.

    `advice` is the end of the message: what to do.
    """
    ids = contents.ids
    for store in contents.tokens.stores:
        if ids.num_rows != len(store):
            sizes = f"{counted(ids.num_rows, 'id')} and {counted(len(store), 'token set')}"
            raise IndexFolderError(f"{folder} has {sizes}. {advice}")
        if not np.array_equal(store.lengths, contents.lengths):
            raise IndexFolderError(f"{folder} has {store.prefix} that do not match {LENGTHS}. {advice}")
    means = contents.tokens.means
    if means is not None and not np.array_equal(means.lengths > 0, contents.lengths > 0):
        raise IndexFolderError(f"{folder} has means that do not match {LENGTHS}. {advice}")
    ids.require_different(folder / IDS)
    if contents.candidates is not None:
        labels = contents.candidates.search.labels()
        wanted = contents.searchable[0]
        if not np.array_equal(labels, wanted):
            sizes = f"{counted(len(labels), 'vector')} for {counted(len(wanted), 'document')} with tokens"
            raise IndexFolderError(f"{folder} has {sizes}. {advice}")


def _write_store(store: TokenStore[Any], save: Save, staging: Path | None) -> list[dict[str, Any]]:
    """Write the tokens of a store that no old file contains.

    The store then reads them from there.  Return where each segment begins, and its
    file.
    """
    kept = list(takewhile(lambda segment: segment.path in save.old_names, store.segments))
    rest = store.segments[len(kept) :]
    while rest and kept and kept[-1].vectors.num_tokens <= _GROWTH * sum(s.vectors.num_tokens for s in rest):
        rest.insert(0, kept.pop())
    entries = [{"first": segment.first, "file": save.old_names[segment.path]} for segment in kept]
    save.kept += [save.old_names[segment.path] for segment in kept]
    if rest:
        first = rest[0].first
        source = rest[0].path
        name = f"{store.prefix}-{first:012d}.npy"
        file = save.folder / name
        if len(rest) == 1 and source is not None and source.parent == staging:
            shutil.move(source, file)
        else:
            # From the mapping, because another process may have removed the file.
            write_tokens(file, [segment.vectors for segment in rest])
        lengths = np.concatenate([segment.vectors.lengths for segment in rest])
        kept.append(Segment(first, store.make(load_npy(file), lengths), save.final / name))
        entries.append({"first": first, "file": f"{save.final.name}/{name}"})
    store.segments = kept
    return entries


def read_current(folder: Path, read: Callable[[dict[str, Any]], _Read]) -> _Read:
    """Return ``read(manifest)`` of a folder.

    If it fails after a writer has replaced the manifest, read the new one.
    """
    recover_folder(folder)
    manifest = read_manifest(folder)
    for _ in range(_ATTEMPTS - 1):
        try:
            return read(manifest)
        except (IndexFolderError, FileNotFoundError):
            latest = read_manifest(folder)
            if latest.get("stamp") == manifest.get("stamp"):
                raise
            manifest = latest
    return read(manifest)


def read_generation(
    folder: Path, manifest: dict[str, Any], verify_files: bool | None = None
) -> IndexContents:
    """Load the files of :func:`write_contents`, described by a manifest.

    `verify_files` is described at :meth:`muvera.MuveraIndex.load`.
    """
    try:
        verify(folder, manifest["files"], verify_files)
        contents = _contents(folder, manifest)
    except (IndexFolderError, ImportError):
        raise
    except MemoryError as error:
        raise MemoryError(f"{folder} needs more memory than is free, or is damaged: {error}.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexFolderError(
            f"{folder} has an incomplete manifest: {error!r} is missing or wrong. Restore it from a copy."
        ) from error
    except Exception as error:
        raise IndexFolderError(f"{folder} is damaged: {error} Restore it from a copy.") from error
    return contents


def _contents(folder: Path, manifest: dict[str, Any]) -> IndexContents:
    try:
        config = FDEConfig.from_dict(manifest["config"])
    except ValueError as error:  # the manifest matches its checksum
        raise IndexFolderError(
            f"{folder} has the configuration of another version: {error} Use the muvera that wrote it, "
            "or build the index again."
        ) from error
    if config.hash != manifest["config_hash"]:
        raise IndexFolderError(
            f"{folder} was built with configuration {manifest['config_hash']}, but its manifest "
            f"describes {config.hash}: the manifest was changed. Restore it from a copy."
        )
    files = folder / manifest["folder"]
    settings = IndexSettings.of(**manifest["settings"])
    encoder = read_encoder(files, config) if manifest["encoder"] else None
    coded = manifest["codes"]
    codec = None if coded is None else read_codec(files, coded["codec"], config.dimension)
    lengths = as_lengths(load_npy(files / LENGTHS, mmap=False), str(files / LENGTHS))
    ids = IdMap.load(files)
    pooled = manifest["means"] if settings.pool > 1 else None
    kind = None if pooled is None else pooled["codec"]
    means_codec = None if kind is None else read_codec(files, kind, config.dimension, _MEAN_CODEC)
    tokens = DocumentTokens(settings, config.dimension, codec, means_codec)
    if pooled is not None and tokens.means is not None:
        counts = as_lengths(load_npy(files / _MEAN_LENGTHS, mmap=False), str(files / _MEAN_LENGTHS))
        tokens.means.segments = _read_segments(tokens.means, folder, pooled["segments"], counts)
    for store in tokens.stores:
        entries = manifest["segments"] if store is tokens.floats else coded["segments"]
        store.segments = _read_segments(store, folder, entries, lengths)
    for segment in _float_segments(tokens):
        columns = segment.vectors.dimension
        if columns != config.dimension:
            raise ValueError(
                f"{segment.path} has {columns} columns, but the manifest has dimension={config.dimension}."
            )
    candidates: CandidateSearch | None = None
    if manifest["candidates"] is not None:
        if encoder is None:
            raise IndexFolderError(
                f"{folder} has vectors, but not the encoder that made them. Restore the folder from a copy."
            )
        candidates = CandidateSearch.load(files, encoder, settings, manifest["candidates"], ids.live)
    loaded = IndexContents(
        config, settings, ids, tokens, encoder, candidates, generations={folder: Generation.of(manifest)}
    )
    _require_consistent(loaded, folder, "Restore the folder from a copy.")
    return loaded


def _float_segments(tokens: DocumentTokens) -> list[Segment[Any]]:
    """Return the segments of floats, whose columns the manifest must name."""
    levels = (tokens.floats, tokens.means)
    return [segment for level in levels if isinstance(level, FloatStore) for segment in level.segments]


def _read_segments(
    store: TokenStore[Any], folder: Path, entries: list[dict[str, Any]], lengths: NDArray[np.int64]
) -> list[Segment[Any]]:
    """Map the files of a token store."""
    starts = [entry["first"] for entry in entries]
    stops = starts[1:]
    if entries:
        stops.append(len(lengths))
    whole = all(type(start) is int for start in starts) and starts[:1] in ([], [0])
    if not whole or any(start > stop for start, stop in zip(starts, stops, strict=True)):
        raise ValueError(
            f"the {store.prefix} begin at rows {starts}, which must ascend from 0 to at most {len(lengths)}."
        )
    segments = []
    for entry, stop in zip(entries, stops, strict=True):
        file = folder / entry["file"]
        try:
            texts = store.make(load_npy(file), lengths[entry["first"] : stop])
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        segments.append(Segment(entry["first"], texts, file))
    return segments
