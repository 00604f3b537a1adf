"""Readers of the ColBERT family: PLAID, fast-plaid and next-plaid, WARP, and byaldi.

Vectors are decoded from 1, 2, 4 or 8 bits per coordinate, so they are lossy.  A reader normalizes them if the
engine of its format does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.validation import as_integers, as_lengths, offsets_from_lengths, read_only_view, running_total
from ...kernels.token_codes import byte_table, decode_residuals
from ...utils.arrays import load_npy
from ...utils.checks import require_int
from ...utils.parallel import run_in_ranges, split_by_count
from ..parsing import load_npy_safely, read_array, read_json, read_json_object, read_torch
from ..sources import Document, FlatSource, LazyRows, Reader, ReadError, Rows, RowSource

_TOKENS_PER_TASK = 4096


class Codec:
    """Decoder of codes and packed residuals into float32 vectors.

    `weights` (2 ** nbits,) are the values that the buckets add to a coordinate.  `table` (256, 8 // nbits)
    contains the values for each byte of residuals; give it if the bits are not laid out as in PLAID.  With
    `normalize`, vectors have norm 1, as PLAID scores them.
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
        if nbits not in (1, 2, 4, 8) or isinstance(nbits, bool):
            raise ValueError(f"nbits={nbits!r}, but must be 1, 2, 4 or 8")
        if centroids.ndim != 2 or not centroids.size or centroids.shape[1] * nbits % 8:
            raise ValueError(
                f"centroids must be rows whose codes at nbits={nbits} fill whole bytes, got shape {centroids.shape}"
            )
        if weights.shape != (2**nbits,):
            raise ValueError(f"{weights.size} bucket weights, but nbits={nbits} needs {2**nbits}")
        self.nbits = int(nbits)
        self.dimension = int(centroids.shape[1])
        self.centroids = read_only_view(np.ascontiguousarray(centroids, np.float32))
        self.weights = np.asarray(weights, np.float32)
        self._table = read_only_view(byte_table(self.weights, self.nbits) if table is None else table)
        self._normalize = normalize

    def rows(self, count: int, codes: Rows, packed: Rows) -> LazyRows:
        """Return the vectors of codes and residuals, decoded when they are used."""
        return LazyRows((count, self.dimension), lambda key: self.decode(codes[key], packed[key]))

    def decode(self, codes: NDArray[Any], packed: NDArray[Any]) -> NDArray[np.float32]:
        """Return the vectors (n, dimension) of codes (n,) and residuals uint8 (n, dimension * nbits // 8)."""
        shapes = codes.shape[:1], (len(codes), self.dimension * self.nbits // 8)
        fits = (codes.shape, packed.shape) == shapes
        if not fits or codes.dtype.kind not in "iu" or packed.dtype != np.uint8:
            raise ValueError(
                f"codes must be integers {shapes[0]} and residuals uint8 {shapes[1]}, but got {codes.dtype} "
                f"{codes.shape} and {packed.dtype} {packed.shape}"
            )
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(self.centroids):
            wrong = int(codes.min() if codes.min() < 0 else codes.max())
            raise ValueError(f"code {wrong}, but there are {len(self.centroids)} centroids")
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
    """Rows of several arrays, read in ascending order; `load` returns array i, which has ``counts[i]`` rows."""

    def __init__(self, counts: list[int], load: Callable[[int], NDArray[Any]]) -> None:
        self.bounds = running_total(counts)
        self.load = load
        self._last: tuple[int, NDArray[Any]] | None = None

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows = np.arange(*key.indices(int(self.bounds[-1]))) if isinstance(key, slice) else key
        chunks = np.searchsorted(self.bounds, rows, side="right") - 1
        # For no rows, an empty slice of the first array has the right columns.
        numbers = np.unique(chunks) if len(rows) else [0]
        return np.concatenate([self._chunk(i)[rows[chunks == i] - self.bounds[i]] for i in numbers])

    def _chunk(self, i: int) -> NDArray[Any]:
        if self._last is None or self._last[0] != i:
            array, count = self.load(int(i)), int(self.bounds[i + 1] - self.bounds[i])
            if len(array) != count:
                raise ValueError(
                    f"chunk {i} has {len(array)} codes or residuals, but its lengths add up to {count}"
                )
            self._last = i, array
        return self._last[1]


class _QuantizedSource(FlatSource):
    """Source over a quantized index, decoded batch by batch; a CodedSource of :mod:`muvera.data.batches`.

    `lengths` has the lengths of the documents of each chunk, and ``load(kind, i)`` returns the "codes" or
    "residuals" of chunk i.
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
        self.codec, self.nbits = codec, codec.nbits
        self.centroids, self.bucket_weights = codec.centroids, codec.weights
        self.codes = _ChunkedRows(counts, partial(load, "codes"))
        self.packed = _ChunkedRows(counts, partial(load, "residuals"))
        super().__init__(codec.rows(int(offsets[-1]), self.codes, self.packed), offsets, ids, name=name)

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents, their tokens' centroids (n_tokens,) and packed residuals (n_tokens, bytes)."""
        for rows, offsets, ids in self._split(max_tokens):
            codes, packed = self.codes[rows], self.packed[rows]
            yield MultiVectors(self.codec.decode(codes, packed), offsets, ids), codes, packed


# -- PLAID ------------------------------------------------------------------------


def open_plaid(path: Path, *, ids: bool = True) -> FlatSource:
    """Open an index of ColBERT or RAGatouille, without torch.

    Passages without tokens keep their position.  RAGatouille's ``pid_docid_map.json`` contains the ids; a
    document of several passages gets ``"id#0"``, ``"id#1"``, ... because ids are unique.  With ``ids=False``,
    passages are numbered.
    """
    metadata = read_json_object(path / "metadata.json")
    config = metadata.get("config", {})
    centroids = read_array(path / "centroids.pt")
    if centroids.ndim == 2 and config.get("dim", centroids.shape[1]) != centroids.shape[1]:
        raise ValueError(
            f"centroids.pt has {centroids.shape[1]} columns, but metadata.json has dim={config['dim']}"
        )
    _, weights = read_torch(path / "buckets.pt")
    codec = Codec(centroids, weights, config.get("nbits", weights.size.bit_length() - 1))
    lengths, names = _lengths(path, metadata), path / "pid_docid_map.json"
    named = _ragatouille_ids(names, sum(map(len, lengths))) if ids and names.is_file() else None

    def load(kind: str, i: int) -> NDArray[Any]:
        return read_array(path / f"{i}.{kind}.pt")

    return _QuantizedSource(codec, lengths, load, named, name="plaid")


def _lengths(path: Path, metadata: dict[str, Any]) -> list[NDArray[np.int64]]:
    """Return the lengths of the documents of each chunk."""
    chunks = require_int("num_chunks", metadata.get("num_chunks"), 1)
    return [as_lengths(read_json(path / f"doclens.{i}.json"), f"doclens.{i}.json") for i in range(chunks)]


def _ragatouille_ids(file: Path, count: int) -> list[str]:
    names = read_json_object(file)
    missing = next((pid for pid in range(count) if str(pid) not in names), None)
    if missing is not None:
        raise ReadError(
            f"{file} names {len(names)} passages, but not passage {missing} of {count}. Remove the file to number them."
        )
    ordered = [str(names[str(pid)]) for pid in range(count)]
    totals, seen = Counter(ordered), Counter[str]()
    ids = []
    for name in ordered:
        ids.append(f"{name}#{seen[name]}" if totals[name] > 1 else name)
        seen[name] += 1
    return ids


# -- fast-plaid and next-plaid ----------------------------------------------------


def open_fast_plaid(path: Path, *, exact: bool = True) -> FlatSource:
    """Open an index of fast-plaid or next-plaid.

    Up to fast-plaid 1.6 each chunk has files of its own; since 1.7 all are in ``merged_codes.npy`` and
    ``merged_residuals.npy``.  The documents of ``buffer.npy`` are also in the chunks.  A small index
    keeps exact vectors in ``embeddings.npy``, which are preferred unless ``exact=False``.
    """
    metadata = read_json_object(path / "metadata.json")
    lengths = _lengths(path, metadata)
    stored = exact and (path / "embeddings.npy").is_file()
    collection = _exact_vectors(path) if stored else None
    if collection is not None and np.array_equal(collection.lengths, np.concatenate(lengths)):
        return FlatSource.of(collection, "fast_plaid")
    centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
    codec = Codec(centroids, weights, metadata.get("nbits"))
    bounds = {kind: _merged_bounds(path, kind, lengths) for kind in ("codes", "residuals")}

    def load(kind: str, i: int) -> NDArray[Any]:
        own, merged = path / f"{i}.{kind}.npy", path / f"merged_{kind}.npy"
        # A chunk's own file is newer than the merged one.
        if own.is_file() or not merged.is_file():
            return load_npy(own)
        return load_npy(merged)[slice(*bounds[kind][i : i + 2])]

    source = _QuantizedSource(codec, lengths, load, name="fast_plaid")
    if stored:
        source.note = "embeddings.npy does not match the index and was ignored; the residuals were decoded."
    return source


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


# -- WARP -------------------------------------------------------------------------

# Documents may have no tokens, but a damaged number must not cause a huge allocation.
_MAX_DOCUMENTS_PER_TOKEN, _MIN_MAX_DOCUMENTS = 100, 1 << 20


def _open_warp(path: Path) -> FlatSource:
    """Open an index of WARP (xtr-warp), with 20 bytes of memory per token.

    WARP groups tokens by centroid.  ``codes.compacted.pt`` contains the *document* of each token, and
    ``sizes.compacted.pt`` the number of tokens of each centroid.  The order of the tokens in a document is lost, but
    MaxSim does not depend on it.  Documents after the last one with a token are lost, too.  Like WARP, this reader
    does not normalize.
    """
    centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
    sizes, documents = read_array(path / "sizes.compacted.pt"), read_array(path / "codes.compacted.pt")
    offsets_from_lengths(sizes, len(documents), "sizes.compacted.pt")  # checks them
    numbers = as_integers(documents, "codes.compacted.pt")
    limit = max(_MIN_MAX_DOCUMENTS, _MAX_DOCUMENTS_PER_TOKEN * len(numbers))
    if len(sizes) != len(centroids):
        raise ValueError(
            f"it must have one size per centroid, got {len(sizes)} for {len(centroids)} centroids"
        )
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
    if len(packed) != len(numbers):
        raise ValueError(f"it must have one residual per token, got {len(packed)} for {len(numbers)} tokens")
    codec = Codec(centroids, weights, nbits, normalize=False, table=table)
    codes = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    tokens, order = codec.rows(len(codes), codes, packed), np.argsort(numbers, kind="stable")
    source = FlatSource(tokens, running_total(np.bincount(numbers)), None, name="warp", rows=order)
    source.lossy, source.nbits = True, nbits
    return source


# -- byaldi -----------------------------------------------------------------------


def _open_byaldi(path: Path) -> RowSource:
    """Open an index of byaldi, whose documents are pages that models like ColPali embed.

    ``embeddings/embeddings_{i}.pt`` contains at most 500 pages from page i on, as a list of bfloat16 tensors.  They
    become float32.  A page's id is ``"document:page"``.  Rows of zeros are padding of the model:
    ``drop_zero_rows`` removes them.
    """
    files = (path / "embeddings").glob("embeddings_*.pt")
    ordered = sorted(files, key=lambda file: int(file.stem.removeprefix("embeddings_")))
    names_file = path / "embed_id_to_doc_id.json.gz"
    names = read_json_object(names_file) if names_file.is_file() else None

    def documents() -> Iterator[Document]:
        position = 0
        for file in ordered:
            pages = read_torch(file)
            if not isinstance(pages, (list, tuple)) or not all(
                isinstance(page, np.ndarray) for page in pages
            ):
                raise ValueError(f"{file.name} must contain a list of tensors, one per page")
            for page in pages:
                name = None if names is None else "{doc_id}:{page_id}".format(**names[str(position)])
                yield Document(page, file.name, name)
                position += 1

    return RowSource(documents, name="byaldi", num_documents=None if names is None else len(names))


def _has(*names: str) -> Any:
    return lambda path: all((path / name).exists() for name in names)


READERS = (
    # A folder can contain a PLAID index and the WARP index made from it.  PLAID comes first: it keeps the token order.
    Reader(
        "plaid",
        "metadata.json with centroids.pt (a ColBERT or RAGatouille index)",
        _has("metadata.json", "centroids.pt"),
        open_plaid,
    ),
    Reader(
        "warp",
        "sizes.compacted.pt with codes.compacted.pt (a WARP index)",
        _has("sizes.compacted.pt", "codes.compacted.pt"),
        _open_warp,
    ),
    Reader(
        "fast_plaid",
        "metadata.json with centroids.npy and bucket_weights.npy (a fast-plaid or next-plaid index)",
        _has("metadata.json", "centroids.npy", "bucket_weights.npy"),
        open_fast_plaid,
    ),
    Reader(
        "byaldi",
        "index_config.json.gz with a folder embeddings (a byaldi index)",
        _has("index_config.json.gz", "embeddings"),
        _open_byaldi,
    ),
)
