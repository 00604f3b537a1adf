"""Readers of the ColBERT family's indexes.

They are PLAID, fast-plaid and next-plaid, PyLate, WARP, and byaldi.  Vectors are
decoded from 1, 2, 4 or 8 bits per coordinate, so they are lossy.  A reader normalizes
them if the engine of its format does.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.validation import as_integers, as_lengths, offsets_from_lengths, read_only_view, running_total
from ...kernels.token_codes import byte_table, decode_residuals
from ...utils.arrays import load_npy
from ...utils.checks import counted, require_int
from ...utils.parallel import run_in_ranges, split_by_count
from ..parsing import (
    load_npy_safely,
    load_plain,
    open_table,
    read_array,
    read_json,
    read_json_object,
    read_torch,
)  # fmt: skip
from ..sources import Document, FlatSource, LazyRows, PlaidFacts, Reader, ReadError, RowArray, RowSource

_TOKENS_PER_TASK = 4096


class Codec:
    """Decoder of codes and packed residuals into float32 vectors.

    Parameters
    ----------
    centroids : float (c, dimension)
        Centroids of the tokens.
    weights : float (2 ** nbits,)
        Value that each residual bucket adds to a coordinate.
    nbits : {1, 2, 4, 8}
        Bits per coordinate, as read from a file.
    normalize : bool
        Scale vectors to norm 1, as PLAID does.
    table : float32 (256, 8 // nbits), optional
        Values of each byte's coordinates, if its bits are not laid out as in PLAID.

    Raises
    ------
    ValueError
        If `nbits` is another number, or an array has another shape.
    """

    def __init__(
        self,
        centroids: NDArray[Any],
        weights: NDArray[Any],
        nbits: Any,
        *,
        normalize: bool = True,
        table: NDArray[np.float32] | None = None,
    ) -> None:
        known = type(nbits) is int and nbits in (1, 2, 4, 8) and weights.shape == (2**nbits,)
        if not known or centroids.ndim != 2 or not centroids.size or centroids.shape[1] * nbits % 8:
            raise ValueError(
                "nbits must be 1, 2, 4 or 8, with 2 ** nbits weights and centroids whose codes fill "
                f"whole bytes, got nbits={nbits!r}, {weights.size} weights and centroids of shape "
                f"{centroids.shape}"
            )
        self.nbits = nbits
        self.dimension = int(centroids.shape[1])
        self.centroids = read_only_view(np.ascontiguousarray(centroids, np.float32))
        self.weights = np.asarray(weights, np.float32)
        self._table = read_only_view(byte_table(self.weights, self.nbits) if table is None else table)
        self._normalize = normalize

    def rows(self, count: int, codes: RowArray | _ChunkedRows, packed: RowArray | _ChunkedRows) -> LazyRows:
        """Return `count` vectors that :meth:`decode` decodes when they are used."""
        return LazyRows((count, self.dimension), lambda key: self.decode(codes[key], packed[key]))

    def decode(self, codes: NDArray[Any], packed: NDArray[Any]) -> NDArray[np.float32]:
        """Return the vectors (n, dimension) of codes and residuals.

        Codes (n,) are centroid numbers; residuals are uint8 (n, dimension * nbits //
        8).  Raise ValueError if the arrays have other shapes or dtypes, or a centroid
        does not exist.
        """
        shapes = codes.shape[:1], (len(codes), self.dimension * self.nbits // 8)
        typed = codes.dtype.kind in "iu" and packed.dtype == np.uint8
        if not typed or (codes.shape, packed.shape) != shapes:
            raise ValueError(
                f"codes must be integers {shapes[0]} and residuals uint8 {shapes[1]}, but got {codes.dtype} "
                f"{codes.shape} and {packed.dtype} {packed.shape}"
            )
        wrong = (codes < 0) | (codes >= len(self.centroids))
        if wrong.any():
            raise ValueError(f"code {codes[wrong][0]}, but there are {len(self.centroids)} centroids")
        codes = read_only_view(codes if codes.dtype in (np.int32, np.int64) else codes.astype(np.int64))
        packed = read_only_view(np.ascontiguousarray(packed))
        out = np.empty((len(codes), self.dimension), np.float32)

        def work(start: int, stop: int) -> None:
            rows = slice(start, stop)
            decode_residuals(
                codes[rows], packed[rows], self.centroids, self._table, self._normalize, out[rows]
            )

        run_in_ranges(work, split_by_count(len(codes), _TOKENS_PER_TASK))
        return out


class _ChunkedRows:
    """RowArray of several arrays, read in ascending order.

    `load` returns array i, which has ``counts[i]`` rows.
    """

    def __init__(self, counts: list[int], load: Callable[[int], NDArray[Any]]) -> None:
        self.bounds = running_total(counts)
        self.load = lru_cache(maxsize=1)(load)

    def __getitem__(self, key: slice | NDArray[np.int64]) -> NDArray[Any]:
        rows = np.arange(*key.indices(int(self.bounds[-1]))) if isinstance(key, slice) else key
        chunks = np.searchsorted(self.bounds, rows, side="right") - 1
        parts = []
        # For no rows, an empty slice of the first array has the right columns.
        for i in np.unique(chunks).tolist() if len(rows) else [0]:
            array = self.load(i)
            start, stop = self.bounds[i : i + 2]
            if len(array) != stop - start:
                raise ValueError(
                    f"chunk {i} has {len(array)} codes or residuals, but its lengths add up to {stop - start}"
                )
            parts.append(array[rows[chunks == i] - start])
        return np.concatenate(parts)


class _QuantizedSource(FlatSource):
    """Source over an index in chunks with PLAID codes.

    ``load(kind, i)`` returns the "codes" or "residuals" of chunk i.  `lengths` has the
    lengths of the documents of each chunk.
    """

    lossy = True

    def __init__(
        self,
        codec: Codec,
        lengths: list[NDArray[np.int64]],
        load: Callable[[str, int], NDArray[Any]],
        ids: list[str] | None = None,
        *,
        name: str,
    ) -> None:
        counts = [int(chunk.sum()) for chunk in lengths]
        offsets = running_total(np.concatenate(lengths))
        self.codec = codec
        self.nbits = codec.nbits
        self.centroids = codec.centroids
        self.bucket_weights = codec.weights
        self.codes = _ChunkedRows(counts, partial(load, "codes"))
        self.packed = _ChunkedRows(counts, partial(load, "residuals"))
        super().__init__(codec.rows(int(offsets[-1]), self.codes, self.packed), offsets, ids, name=name)

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents with their codes, see :class:`CodedSource`."""
        for rows, offsets, ids in self._split(max_tokens):
            codes, packed = self.codes[rows], self.packed[rows]
            yield MultiVectors(self.codec.decode(codes, packed), offsets, ids), codes, packed


# -- PLAID ------------------------------------------------------------------------


def _open_plaid(path: Path, *, ids: bool = True, parents: str | None = None) -> FlatSource:
    """Open metadata.json with centroids.pt (a ColBERT or RAGatouille index).

    RAGatouille's ``pid_docid_map.json`` has the ids; a document of several passages
    gets ``"id#0"``, ``"id#1"``, ...  With ``ids=False``, passages are numbered.  With
    `parents`, passages are parts of documents, see :func:`_parent_ids`.
    """
    metadata = read_json_object(path / "metadata.json")
    cutoffs, weights = read_torch(path / "buckets.pt")
    nbits = metadata.get("config", {}).get("nbits", weights.size.bit_length() - 1)
    codec = Codec(read_array(path / "centroids.pt"), weights, nbits)
    lengths = _lengths(path, metadata)
    names = path / "pid_docid_map.json"
    count = sum(map(len, lengths))
    named = _ragatouille_ids(names, count) if ids and names.is_file() else None
    named = named if parents is None else _parent_ids(Path(parents), count)
    source = _QuantizedSource(
        codec, lengths, lambda kind, i: read_array(path / f"{i}.{kind}.pt"), named, name="plaid"
    )
    average = path / "avg_residual.pt"
    if average.is_file() and cutoffs.shape == (len(weights) - 1,):
        source.plaid = PlaidFacts(metadata.get("config", {}), cutoffs, weights, read_array(average))
    return source


def _lengths(path: Path, metadata: dict[str, Any]) -> list[NDArray[np.int64]]:
    """Return the lengths of the documents of each chunk."""
    chunks = require_int("num_chunks", metadata.get("num_chunks"), 1)
    return [as_lengths(read_json(path / f"doclens.{i}.json"), f"doclens.{i}.json") for i in range(chunks)]


def _ragatouille_ids(file: Path, count: int) -> list[str]:
    names = read_json_object(file)
    if len(names) != count:
        raise ReadError(f"{file} names {len(names)} of {count} passages. Remove the file to number them.")
    # After a deletion, the map keeps the old numbers, but passages are numbered without
    # gaps.
    ordered = [str(names[pid]) for pid in sorted(names, key=int)]
    totals, seen = Counter(ordered), Counter[str]()
    ids = []
    for name in ordered:
        ids.append(f"{name}#{seen[name]}" if totals[name] > 1 else name)
        seen[name] += 1
    return ids


def _parent_ids(file: Path, count: int) -> list[str]:
    """Return the document of each of `count` passages, as its id.

    The file has a line ``passage<TAB>document`` for each passage, or is a JSON object
    such as RAGatouille's ``pid_docid_map.json``.  Passages are numbered from 0.
    """
    if file.suffix == ".json":
        pairs = [(key, str(value)) for key, value in read_json_object(file).items()]
    else:
        lines = file.read_text(encoding="utf-8").splitlines()
        cells = [line.split("\t") for line in lines]
        wrong = next((i for i, row in enumerate(cells) if len(row) != 2), None)
        if wrong is not None:
            raise ReadError(
                f"{file}: line {wrong + 1} must be a passage and its document with a tab between, got "
                f"{lines[wrong]!r:.80}."
            )
        pairs = [(number, document) for number, document in cells]
    documents = dict(pairs)
    missing = next((i for i in range(count) if str(i) not in documents), None)
    if missing is not None or not len(pairs) == len(documents) == count:
        absent = "" if missing is None else f"; passage {missing} is missing"
        raise ReadError(
            f"{file} must name the document of each of the {count} passages once, but has "
            f"{counted(len(pairs), 'entry', 'entries')}{absent}."
        )
    return [documents[str(i)] for i in range(count)]


# -- fast-plaid and next-plaid ----------------------------------------------------


def _open_fast_plaid(path: Path, *, parents: str | None = None) -> FlatSource:
    """Open a fast-plaid or next-plaid index.

    Each chunk has separate files, or since fast-plaid 1.7 a part of merged files.  A
    small index keeps exact vectors in ``embeddings.npy``, which are preferred if their
    lengths equal the index's lengths.  `parents` is as for :func:`_open_plaid`.
    """
    metadata = read_json_object(path / "metadata.json")
    lengths = _lengths(path, metadata)
    named = None if parents is None else _parent_ids(Path(parents), sum(map(len, lengths)))
    exact = _exact_vectors(path) if (path / "embeddings.npy").is_file() else None
    if exact is not None and np.array_equal(exact.lengths, np.concatenate(lengths)):
        return FlatSource.of(exact if named is None else exact.with_ids(named), "fast_plaid")
    centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
    codec = Codec(centroids, weights, metadata.get("nbits"))
    bounds = {kind: _merged_bounds(path, kind, lengths) for kind in ("codes", "residuals")}

    def load(kind: str, i: int) -> NDArray[Any]:
        single, merged = path / f"{i}.{kind}.npy", path / f"merged_{kind}.npy"
        # The file of a chunk is newer than the merged file.
        if single.is_file() or not merged.is_file():
            return load_npy(single)
        return load_npy(merged)[slice(*bounds[kind][i : i + 2])]

    return _QuantizedSource(codec, lengths, load, named, name="fast_plaid")


def _exact_vectors(path: Path) -> MultiVectors | None:
    """Return the exact vectors; None if they are not arrays with lengths."""
    arrays = load_npy_safely(path / "embeddings.npy")
    beside = path / "embeddings_lengths.json"
    if beside.is_file():  # next-plaid: one flat array
        lengths = as_lengths(read_json(beside), beside.name)
        fits = arrays.ndim == 2 and len(arrays) == lengths.sum()
        return MultiVectors.from_flat(arrays, lengths) if fits else None
    # fast-plaid: a pickle of arrays
    plain = arrays.ndim == 1 and all(isinstance(array, np.ndarray) for array in arrays)
    return MultiVectors.from_arrays(arrays) if plain else None


def _merged_bounds(path: Path, kind: str, lengths: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return where each chunk begins in the merged file, int64 (chunks + 1,)."""
    file = path / f"merged_{kind}.manifest.json"
    manifest = read_json_object(file) if file.is_file() else {}
    rows = [
        manifest.get(f"{i}.{kind}.npy", {"rows": int(chunk.sum())})["rows"] for i, chunk in enumerate(lengths)
    ]
    return running_total(as_lengths(rows, file.name))


# -- PyLate -----------------------------------------------------------------------
#
# Documents have the ids that were given to PyLate.  Removed documents are skipped, even
# if their vectors still exist.

#: Maps of an index: of positions to ids (of fast-plaid in a subfolder, or of ColBERT's
#: files), of ids to the numbers of their tokens (Voyager), and of ids to the first row
#: and the number of rows (ScaNN; since PyLate 1.7 as a table).
_PLAID_MAP = "plaid_ids_to_documents_ids"
_VOYAGER_MAP = "document_ids_to_embeddings"
_SCANN_MAP = "doc_id_to_embedding_range"


def _map(folder: Path, stem: str) -> Path:
    """Return the file of a map.

    It is a pickle of a dict, or up to PyLate 1.4 a database of sqlitedict.
    """
    pickled, database = folder / f"{stem}.pkl", folder / f"{stem}.sqlite"
    return database if database.is_file() and not pickled.is_file() else pickled


def _pylate_root(path: Path) -> Path:
    """Return the folder with the maps of an index, which may be inside it."""
    inside = path.name == "fast_plaid_index" and _map(path.parent, _PLAID_MAP).is_file()
    return path.parent if inside else path


def _is_pylate(path: Path) -> bool:
    files = (path / "index.voyager", path / "flattened_embeddings.npy", _map(_pylate_root(path), _PLAID_MAP))
    return any(map(Path.is_file, files))


def _open_pylate(path: Path) -> FlatSource:
    """Open an index of PyLate, on fast-plaid, ColBERT's files, Voyager or ScaNN."""
    path = _pylate_root(path)
    names = _map(path, _PLAID_MAP)
    if names.is_file():
        fast = path / "fast_plaid_index"
        inner = _open_fast_plaid(fast) if fast.is_dir() else _open_plaid(path)
        _choose_named(inner, _read_map(names))
        return inner
    if (path / "index.voyager").is_file():
        return _looked_up(*_voyager_vectors(path / "index.voyager"), _read_map(_map(path, _VOYAGER_MAP)))
    tokens = load_npy(path / "flattened_embeddings.npy")
    table = path / f"{_SCANN_MAP}.tsv"
    if table.is_file():
        lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
        ranges = {name: (int(first), int(count)) for name, first, count in lines}
    else:
        ranges = _read_map(_map(path, _SCANN_MAP))
    rows = {name: range(first, first + count) for name, (first, count) in ranges.items()}
    return _looked_up(tokens, np.arange(len(tokens)), rows)


def _choose_named(index: FlatSource, names: dict[Any, Any]) -> None:
    """Name the documents of an index, and skip the others.

    The names are a map of positions to ids.
    """
    keys = [int(key) if isinstance(key, str) else key for key in names]  # sqlitedict has texts
    positions = as_integers(keys, "The map's positions")
    kept = np.isin(np.arange(index.num_documents or 0), positions)
    if kept.sum() != len(positions):
        raise ValueError(
            f"the map must have positions from 0 to {len(kept) - 1}, each at most once, got {len(positions)} "
            f"from {positions.min()} to {positions.max()}"
        )
    ids = list(names.values())
    lengths = np.diff(index.offsets)
    if not kept.all():
        index.rows = np.flatnonzero(np.repeat(kept, lengths))
    index.set_documents(running_total(lengths[kept]), [ids[i] for i in np.argsort(positions)])
    index.name = "pylate"


def _looked_up(
    tokens: NDArray[Any], rows: NDArray[np.int64], documents: Mapping[Any, Sequence[int]]
) -> FlatSource:
    """Return the source of documents of numbered tokens, in the order of the map.

    Token i is in row ``rows[i]``.
    """
    lengths = [len(numbers) for numbers in documents.values()]
    count = sum(lengths)
    # Checked before any array is made: a small map of shared lists or long ranges can
    # name any number of tokens.
    numbers = np.fromiter(chain.from_iterable(documents.values()), np.int64, min(count, len(rows)))
    if count > len(rows) or ((numbers < 0) | (numbers >= len(rows))).any():
        raise ValueError(f"the map names {count} tokens, not all among the {len(rows)} of the index")
    return FlatSource(tokens, running_total(lengths), list(documents), name="pylate", rows=rows[numbers])


def _read_map(file: Path) -> dict[Any, Any]:
    if file.suffix == ".sqlite":
        with closing(open_table(file, "unnamed", ("key", "value"), "sqlitedict")) as connection:
            rows = connection.execute("SELECT key, value FROM unnamed ORDER BY rowid")
            return {key: load_plain(value, file.name) for key, value in rows}
    value = load_plain(file.read_bytes(), file.name)
    if not isinstance(value, dict):
        raise ReadError(f"{file.name} must contain a dict, got {type(value).__name__}. Copy it again.")
    return value


#: "VOYA", version, dimension, space, kind of numbers, norm, flag; then hnswlib's
#: header: offset of the links, capacity, count, bytes of a record, offsets of the id
#: and of the numbers in it, and nine numbers about the graph.
_VOYAGER_HEAD = struct.Struct("<4siiBBfB QQQQQQ iIQQQdQ")
_VOYAGER_FLOAT32 = 0x20


def _voyager_vectors(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the vectors of a Voyager index, memory-mapped, and the row of each label.

    The graph is not read.
    """
    with path.open("rb") as stream:
        head = _VOYAGER_HEAD.unpack(stream.read(_VOYAGER_HEAD.size))
    magic, version, dimension, _, kind, _, transformed, _, _, count, size, label_at, numbers_at, *_ = head
    if magic != b"VOYA" or version != 1 or kind != _VOYAGER_FLOAT32 or transformed:
        raise ValueError("index.voyager is not of version 1 with float32")
    record = np.dtype(
        {
            "names": ["numbers", "label"],
            "formats": [("<f4", (dimension,)), "<i8"],
            "offsets": [numbers_at, label_at],
            "itemsize": size,
        }
    )
    file = np.memmap(path, record, "r", _VOYAGER_HEAD.size, (count,))
    rows = np.argsort(file["label"], kind="stable")
    if not np.array_equal(file["label"][rows], np.arange(count)):
        raise ValueError("its labels must be the numbers of its vectors")
    return file["numbers"], rows


# -- WARP -------------------------------------------------------------------------

# Documents may have no tokens, but a damaged number must not cause a huge allocation:
# there are at most this many documents per token,
_MAX_DOCUMENTS_PER_TOKEN = 100

# or this many in an index of few tokens.
_MIN_MAX_DOCUMENTS = 1 << 20


def _open_warp(path: Path) -> FlatSource:
    """Open sizes.compacted.pt with codes.compacted.pt (a WARP index).

    WARP groups tokens by centroid.  ``codes.compacted.pt`` contains the *document* of
    each token, and ``sizes.compacted.pt`` the number of tokens of each centroid.  The
    order of the tokens in a document and documents after the last one with a token are
    lost.  Like WARP, this reader does not normalize.
    """
    centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
    sizes, documents = read_array(path / "sizes.compacted.pt"), read_array(path / "codes.compacted.pt")
    offsets_from_lengths(sizes, len(documents), "sizes.compacted.pt")  # checks them
    numbers = as_integers(documents, "codes.compacted.pt")
    limit = max(_MIN_MAX_DOCUMENTS, _MAX_DOCUMENTS_PER_TOKEN * len(numbers))
    first, last = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    if not 0 <= first <= last < limit:
        raise ValueError(f"document numbers must be from 0 to {limit - 1}, got {first} to {last}")
    nbits = len(weights).bit_length() - 1
    repacked = not (path / "residuals.compacted.pt").is_file()
    table = None
    if repacked and nbits in (2, 4):  # bucket numbers with the highest bits first
        shifts = 8 - nbits * np.arange(1, 8 // nbits + 1)
        buckets = (np.arange(256)[:, None] >> shifts) & (2**nbits - 1)
        table = np.ascontiguousarray(np.asarray(weights, np.float32)[buckets])
    packed = read_array(path / f"residuals.{'repacked.' if repacked else ''}compacted.pt")
    if len(sizes) != len(centroids) or len(packed) != len(numbers):
        raise ValueError(
            f"it must have one size per centroid and one residual per token, got {len(sizes)} for "
            f"{len(centroids)} and {len(packed)} for {len(numbers)}"
        )
    codec = Codec(centroids, weights, nbits, normalize=False, table=table)
    codes = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    tokens = codec.rows(len(codes), codes, packed)
    order = np.argsort(numbers, kind="stable")
    source = FlatSource(tokens, running_total(np.bincount(numbers)), None, name="warp", rows=order)
    source.lossy, source.nbits = True, nbits
    return source


# -- byaldi -----------------------------------------------------------------------


def _open_byaldi(path: Path) -> RowSource:
    """Open index_config.json.gz with a folder embeddings (a byaldi index).

    Documents are pages.  ``embeddings/embeddings_{i}.pt`` has the bfloat16 tensors of
    at most 500 pages from page i on.  A page's id is ``"document:page"``.  RowArray of
    zeros are padding of the model: `drop_zero_rows` removes them.
    """
    files = (path / "embeddings").glob("embeddings_*.pt")
    ordered = sorted(files, key=lambda file: int(file.stem.removeprefix("embeddings_")))
    names_file = path / "embed_id_to_doc_id.json.gz"
    names = read_json_object(names_file) if names_file.is_file() else None

    def documents() -> Iterator[Document]:
        position = 0
        for file in ordered:
            pages = read_torch(file)
            if not isinstance(pages, list) or not all(isinstance(page, np.ndarray) for page in pages):
                raise ValueError(f"{file.name} must contain a list of tensors, one per page")
            for page in pages:
                name = None if names is None else "{doc_id}:{page_id}".format(**names[str(position)])
                yield Document(page, file.name, name)
                position += 1

    return RowSource(documents, name="byaldi", num_documents=None if names is None else len(names))


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda path: all((path / name).exists() for name in names)


READERS = (
    # PyLate's folders contain the files of PLAID.
    Reader(
        "pylate",
        _is_pylate,
        _open_pylate,
        "pylate-index/index",
        "plaid_ids_to_documents_ids.pkl, index.voyager or doc_id_to_embedding_range.pkl (an index of PyLate)",
    ),
    # A folder can contain a PLAID index and the WARP index made from it.  PLAID comes
    # first: it keeps the token order.
    Reader("plaid", _has("metadata.json", "centroids.pt"), _open_plaid, "my-colbert-index"),
    Reader("warp", _has("sizes.compacted.pt", "codes.compacted.pt"), _open_warp, "my-warp-index"),
    Reader(
        "fast_plaid",
        _has("metadata.json", "centroids.npy", "bucket_weights.npy"),
        _open_fast_plaid,
        "my-fast-plaid",
        "metadata.json with centroids.npy and bucket_weights.npy (a fast-plaid or next-plaid index)",
    ),
    Reader("byaldi", _has("index_config.json.gz", "embeddings"), _open_byaldi, ".byaldi/my_index"),
)
