"""A folder of shards: indexes of consecutive documents that share one encoder.

``shards.json`` says how the documents are divided.  A shard's folder gets its name only
when it is complete, so what exists need not be built again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..convert.readers.arrow import FileRows, parquet_rows, parquet_source
from ..data.multivectors import MultiVectors
from ..fde.encoder import FDEEncoder
from ..fde.files import load_encoder
from ..index.contents import IndexContents
from ..index.generations import MANIFEST as INDEX_MANIFEST
from ..index.generations import Destination, IndexFolderError, staging_beside
from ..index.muvera_index import MuveraIndex
from ..index.settings import IndexSettings
from ..index.token_store import FIT_TOKENS
from ..reranking.codec_files import read_codec, write_codec
from ..reranking.codecs import CODECS, TokenCodec
from ..utils.atomic_files import (
    atomic_folder,
    content_checksum,
    read_json,
    remove_folder,
    remove_stale_siblings,
    write_json,
)
from ..utils.checks import as_path, counted, given, import_extra, require_int, require_number

if TYPE_CHECKING:
    import ray

MANIFEST = "shards.json"
_FORMAT = {"format": "muvera-shards", "format_version": 1}

# Folders beside the shards: the encoder, the codec of the token codes, and the
# documents of a Ray dataset while the shards are built.
_ENCODER = "encoder"
_CODEC = "codec"
_DOCUMENTS = "documents"

# Seconds that canceled tasks have to remove their unfinished files.
_CANCELED = 10

# Parts of a Parquet file whose bytes show that it was replaced, and bytes of a part.
_PARTS, _PART_BYTES = 16, 1 << 16

# Tokens that a shard reads at a time: 64 MiB of 128 columns.
_BATCH_TOKENS = 131_072


class ShardCounts(NamedTuple):
    """What :func:`build_shards` did.

    Parameters
    ----------
    documents : int
        Number of documents in all shards; each part counts.
    built : int
        Number of shards that were built.
    kept : int
        Number of shards that an earlier call had built.
    """

    documents: int
    built: int
    kept: int


class Shards(NamedTuple):
    """The folder of shards: its place and what its manifest says."""

    root: Path
    plan: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Names of the shards, in the order of their documents."""
        return [f"shard-{number:04d}" for number in range(len(self.plan["bounds"]) - 1)]

    @property
    def missing(self) -> list[str]:
        """Names of the shards that are not complete."""
        return [name for name in self.names if not (self.root / name / INDEX_MANIFEST).is_file()]


def open_shards(path: str | os.PathLike[str]) -> Shards:
    """Return the shards in a folder, which must be complete.

    Raise FileNotFoundError or IndexFolderError.
    """
    root = as_path(path).absolute()
    if (root / INDEX_MANIFEST).is_file():
        raise FileNotFoundError(
            f"{root} contains an index, not shards. Write its token vectors to Parquet with muvera convert, "
            "and build shards with build_shards; or search folders of texts with open_text_shards."
        )
    if not (root / MANIFEST).is_file():
        raise FileNotFoundError(f"{root} has no {MANIFEST}. Give the folder of muvera's build_shards.")
    shards = Shards(root, _read_plan(root))
    if shards.missing:
        raise IndexFolderError(
            f"{len(shards.missing)} of {counted(len(shards.names), 'shard')} in {root} are not complete, "
            f"such as {shards.missing[0]!r}. Call build_shards with the same arguments again: it builds "
            "only these."
        )
    return shards


def build_shards(
    dataset: str | os.PathLike[str] | ray.data.Dataset,
    encoder: str | os.PathLike[str] | FDEEncoder,
    path: str | os.PathLike[str],
    *,
    shards: int,
    settings: IndexSettings | None = None,
    cores: float = 1.0,
    **changes: Any,
) -> ShardCounts:
    """Build indexes of consecutive documents on the machines of a Ray cluster.

    Each task reads its rows of the Parquet files and writes one finished index.  All
    shards have the same encoder and, with token codes, the same codec.  So exact scores
    equal the scores of one index of all documents.  Call it again with the same
    arguments after an interruption: finished shards are kept.  Ray builds a shard again
    if its machine fails.

    Parameters
    ----------
    dataset : path or ray.data.Dataset
        A Parquet file, or a folder of Parquet files, with a column of token vectors as
        :meth:`muvera.MultiVectors.to_arrow` makes them, and perhaps a column "id".
        Without ids, these are the numbers of the rows.  Rows that follow each other and
        have the same id are parts of one document, which are in one shard.  A dataset,
        such as one that :class:`EncodeTexts` made, is first written to a folder in
        `path`, which is removed at the end.
    encoder : path or FDEEncoder
        A fitted encoder, or the folder of one.
    path : path
        The folder to create, which all machines see under this name.
    shards : int
        Number of indexes; at most the number of documents.
    settings : IndexSettings, optional
        As for :class:`muvera.MuveraIndex`.
    cores : float
        Cores that Ray reserves for each task.
    **changes
        As for :class:`muvera.MuveraIndex`.

    Returns
    -------
    ShardCounts

    Raises
    ------
    FileNotFoundError
        If there is no encoder or no Parquet file.
    FileExistsError
        If `path` contains shards that were built otherwise or of files that were
        replaced since, or anything else.
    TypeError, ValueError
        For wrong documents, a wrong encoder or a wrong setting.
    """
    ray = import_extra("ray", "ray", "Building shards")
    count = require_int("shards", shards, 1)
    reserved = require_number("cores", cores, 0.01)
    chosen = IndexSettings.of(settings, **changes)
    fitted = load_encoder(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder
    if not isinstance(fitted, FDEEncoder):
        raise TypeError(f"encoder must be a fitted FDEEncoder or its folder, got {given(encoder)}.")
    if fitted.needs_fit:
        raise ValueError("The encoder is not fitted. Call its fit before building shards.")
    root = as_path(path).absolute()
    target = prepare(dataset, fitted, root, count, chosen)
    missing = target.missing
    task = ray.remote(write_shard).options(num_cpus=reserved, max_retries=-1)
    running = [task.remote(str(root), name, max(1, int(reserved))) for name in missing]
    try:
        while running:
            (done,), running = ray.wait(running, num_returns=1)
            ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from None
    finally:
        # Not by force: Ray 2.60 aborts this process if the task has just ended.
        for reference in running:
            ray.cancel(reference)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_CANCELED)
    remove_folder(root / _DOCUMENTS)
    return ShardCounts(target.plan["bounds"][-1], len(missing), len(target.names) - len(missing))


def prepare(
    dataset: str | os.PathLike[str] | ray.data.Dataset,
    encoder: FDEEncoder,
    root: Path,
    count: int,
    settings: IndexSettings,
) -> Shards:
    """Write everything in the folder `root` but its `count` shards, and return them.

    The encoder is fitted, and each shard has `settings`.  :func:`build_shards`
    describes `dataset`.
    """
    from_path = isinstance(dataset, (str, os.PathLike))
    if not (from_path or hasattr(dataset, "write_parquet")):
        raise TypeError(
            f"dataset must be a path of Parquet files or a ray.data.Dataset, got {given(dataset)}."
        )
    earlier = _earlier(root)
    if earlier is not None and not from_path and not earlier.missing:
        documents = int(earlier.plan["bounds"][-1])
        rows: list[FileRows] = []
    else:
        if earlier is None:  # documents of a call that failed before it had a plan
            remove_folder(root / _DOCUMENTS)
        rows = parquet_rows(_parquet(dataset, root))
        documents = sum(part.stop for part in rows)
    plan = {
        **_FORMAT,
        "bounds": _bounds(documents, count, rows, earlier),
        "files": [[str(part.file.absolute()), part.stop] for part in rows] if from_path else None,
        "contents": [_file_checksum(part.file) for part in rows] if from_path else None,
        "encoder": _encoder_checksum(encoder),
        "settings": settings.to_dict(),
    }
    if earlier is not None:
        # Older plans have no "contents".
        changed = sorted(key for key in plan if plan[key] != earlier.plan.get(key, plan[key]))
        if changed:
            raise FileExistsError(
                f"{root} contains shards that were built otherwise: {', '.join(changed)} differ. Give the "
                "same arguments as then, or another folder."
            )
        _remove_leftovers(earlier)
        return earlier
    encoder.save(root / _ENCODER, overwrite=True)
    if settings.tokens in CODECS:
        with atomic_folder(root / _CODEC, overwrite=True) as folder:
            codec = write_codec(_codec(rows, str(settings.tokens)), folder)
        plan["codec"] = codec
    for partial in root.glob(f".{MANIFEST}.partial-*"):  # of a killed call
        partial.unlink(missing_ok=True)
    write_json(root / MANIFEST, {**plan, "sha256": content_checksum(plan)})
    return Shards(root, plan)


def _bounds(documents: int, count: int, rows: list[FileRows], earlier: Shards | None) -> list[int]:
    """Return the first document of each of `count` shards, then the count of documents.

    A shard begins with the first part of a document.  Without `rows`, the bounds of an
    `earlier` plan tell where documents begin.
    """
    if not 1 <= count <= documents:
        raise ValueError(
            f"shards must be from 1 to the number of documents, got {count} for "
            f"{counted(documents, 'document')}. Give fewer shards, or more documents."
        )
    bounds = [documents * number // count for number in range(count + 1)]
    if rows:
        bounds[1:-1] = [_document_start(rows, row) for row in bounds[1:-1]]
    elif earlier is not None and len(earlier.plan["bounds"]) == count + 1:
        bounds = earlier.plan["bounds"]
    if any(start == stop for start, stop in pairwise(bounds)):
        raise ValueError(
            f"shards={count} would leave a shard without documents, because one document has the parts of "
            "several shards. Give fewer shards."
        )
    return bounds


def _remove_leftovers(shards: Shards) -> None:
    """Remove what killed tasks left beside complete shards.

    Tasks that build the other shards remove the rest.
    """
    for name in set(shards.names).difference(shards.missing):
        remove_stale_siblings(shards.root / name)


def write_shard(root: str, name: str, threads: int) -> None:
    """Write a shard, unless it is complete: the task of a worker."""
    shards = Shards(Path(root), _read_plan(Path(root)))
    if name not in shards.missing:
        return
    plan = shards.plan
    number = shards.names.index(name)
    start, stop = plan["bounds"][number : number + 2]
    encoder = load_encoder(shards.root / _ENCODER)
    dimension = encoder.config.dimension
    codec = None if "codec" not in plan else read_codec(shards.root / _CODEC, plan["codec"], dimension)
    contents = IndexContents.empty(encoder.config, IndexSettings.of(**plan["settings"]), encoder, codec)
    files = plan["files"]
    if files is None:
        rows = parquet_rows(shards.root / _DOCUMENTS)
    else:
        rows = [FileRows(Path(file), 0, length) for file, length in files]
        for part, content in zip(rows, plan.get("contents", ()), strict=False):
            if _file_checksum(part.file) != content:
                raise ValueError(
                    f"{part.file} has changed since the first shard was built. Restore it, or build all "
                    "shards in another folder."
                )
    target = shards.root / name
    with staging_beside(target) as staging, MuveraIndex.of(contents).change() as change:
        change.staging = staging
        change.build(((batch, None) for batch in _batches(rows, start, stop)), threads)
        change.save(Destination(target))


def _document_start(rows: list[FileRows], row: int) -> int:
    """Return the first row from `row` on that begins a document."""
    last: Any = None
    at = row - 1
    for batch in _batches(rows, at, sum(part.stop for part in rows)):
        for id in batch.ids.tolist():
            if last is not None and id != last:
                return at
            last = id
            at += 1
    return at


def _batches(rows: list[FileRows], start: int, stop: int) -> Iterator[MultiVectors]:
    """Yield the documents from `start` up to `stop`, numbered if they have no ids."""
    at = 0
    parts = []
    for part in rows:
        first, last = max(start - at, 0), min(stop - at, part.stop)
        if first < last:
            parts.append(FileRows(part.file, first, last))
        at += part.stop
    for batch in parquet_source(parts).batches(_BATCH_TOKENS):
        yield batch if batch.has_ids else batch.with_ids(np.arange(start, start + len(batch)))
        start += len(batch)


def _parquet(dataset: str | os.PathLike[str] | ray.data.Dataset, root: Path) -> Path:
    """Return a path of Parquet files; a dataset is written to a folder, once."""
    if isinstance(dataset, (str, os.PathLike)):
        path = as_path(dataset, "dataset")
        if not path.exists() or (path.is_dir() and not any(path.glob("*.parquet"))):
            raise FileNotFoundError(f"{path} is not a Parquet file or a folder of Parquet files.")
        return path
    folder = root / _DOCUMENTS
    if not folder.is_dir():
        with atomic_folder(folder) as beside:
            dataset.write_parquet(str(beside))
    return folder


def _earlier(root: Path) -> Shards | None:
    """Return the shards of an earlier call, if there are some."""
    if (root / MANIFEST).is_file():
        return Shards(root, _read_plan(root))
    ours = {_ENCODER, _CODEC, _DOCUMENTS}
    foreign = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
    foreign = [name for name in foreign if name not in ours and not name.startswith(".")]
    if foreign:
        raise FileExistsError(
            f"{root} contains {foreign[0]}, which does not belong to shards. Give another folder."
        )
    return None


def _read_plan(root: Path) -> dict[str, Any]:
    """Return the content of the manifest, checked.  Raise IndexFolderError."""
    file = root / MANIFEST
    plan = read_json(file)
    if not isinstance(plan, dict) or not _FORMAT.items() <= plan.items():
        raise IndexFolderError(f"{file} does not describe shards that this version of muvera reads.")
    if plan.pop("sha256", None) != content_checksum(plan):
        raise IndexFolderError(
            f"{file} does not match its checksum: it was changed or damaged. Restore the folder from a copy."
        )
    return plan


def _file_checksum(file: Path) -> str:
    """Return a checksum of a file's size, its end, and parts that are spread over it.

    A file of up to 1 MiB is read as a whole; more would read terabytes once more.
    """
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        for start in np.linspace(0, max(0, size - _PART_BYTES), _PARTS, dtype=np.int64).tolist():
            stream.seek(start)
            digest.update(stream.read(_PART_BYTES))
    return digest.hexdigest()


def _encoder_checksum(encoder: FDEEncoder) -> str:
    """Return a checksum of an encoder's configuration and arrays."""
    arrays = {
        name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        for name, array in encoder.to_arrays().items()
    }
    return content_checksum({"config": encoder.config.to_dict(), "arrays": arrays})


def _codec(rows: list[FileRows], kind: str) -> TokenCodec:
    """Fit the codec of all shards on the first documents."""
    samples: list[Any] = []
    for batch in parquet_source(rows).batches(FIT_TOKENS):
        samples.append(np.asarray(batch.tokens, np.float32))
        if sum(map(len, samples)) >= FIT_TOKENS:
            break
    return CODECS[kind](np.concatenate(samples), threads=None)
