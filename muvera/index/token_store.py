"""Token vectors, or their codes, by row number, in memory or in mapped files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.batches import CodedSource, token_batches
from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..data.validation import running_total
from ..kernels.tile import LANES
from ..reranking.codecs import CODECS, FLOATS, ResidualCodec, TokenCodec
from ..reranking.coded_vectors import CodedVectors, rank_decoded, score_coded
from ..reranking.pruning import (
    ALL,
    DocumentRun,
    PackedQueries,
    RerankOptions,
    estimate_candidates,
    estimate_together,
    rank_candidates,
    ranked,
    score_candidates,
    score_packed,
)
from ..reranking.table_codec import TableCodec
from ..reranking.table_search import NO_LOOKUPS, Lookups, best_texts, look_up, score_all, score_exact
from ..utils.arrays import load_npy
from ..utils.hints import Argument, Message
from ..utils.parallel import run_in_ranges, share_done, split_by_count, stage
from .page_cache import MappedTokens, PageCache, release
from .settings import IndexSettings

# Segments in memory are merged until each has over _GROWTH times the tokens of its
# successor.
_GROWTH = 2

# Larger segments are not merged: copying them would take too long.
_MERGED_BYTES = 64 << 20

# At the end of a build all segments of up to this size are merged: ranking in order is
# slower with several segments.
_JOINED_BYTES = 2 << 30

# Bytes of tokens in memory before they are written to the staging file.
_STAGING_BYTES = 64 << 20

# Maximum number of texts per batch.
_BATCH = 4096

# Maximum number of tokens per batch: 128 MiB of floats at 128 dimensions.
_BATCH_TOKENS = 1 << 18

# Tokens written to a file at a time.
_ROWS = 1 << 16

_Texts = TypeVar("_Texts", MultiVectors, CodedVectors)

#: Row numbers, and rows with their scores.
Rows = NDArray[np.int64]
Ranked = tuple[Rows, NDArray[np.float32]]

#: Function that makes texts from an array with one row per token and the texts'
#: lengths.
Make = Callable[[NDArray[Any], NDArray[np.int64]], _Texts]

#: Tokens per batch of a PLAID index: 64 MiB of decoded floats at 128 dimensions.
PLAID_BATCH_TOKENS = 1 << 17

#: A codec is fitted on a sample of this many tokens once they exist, or on fewer at the
#: end of a build.
FIT_TOKENS = 50_000

# Seed of this sample.
_SEED = 0x70

# Best candidates by codes to rerank: 2 k + _MORE by exact tokens, or k + _MORE by
# decoded ones.
_MORE = 10

# Prefixes of files with means, and with their codes.
_MEANS, _MEAN_CODES = "means", "mean_codes"

# The codec of means of tokens.  Means take most of the memory that a search reads.
_MEANS_CODEC = "int8"

# Bounds are used for more than this many times k candidates: for few, all close to the
# k best, they cost more than they save.
_BOUNDED = 4

# Texts of the fine level that are read before their pages may be released.
_READ = 256

# Texts that are rounded for several queries before their pages may be released.
_READ_TOGETHER = 1 << 15

# A query of at most LANES tokens ranks up to this many candidates by floats: rounding
# them to bytes first would save little.
_SHORT_RANKED = 4096


@dataclass(frozen=True)
class Segment(Generic[_Texts]):
    """Consecutive rows of a store from row `first` on.

    `path` is the ``.npy`` file that `vectors` maps, if any.
    """

    first: int
    vectors: _Texts
    path: Path | None = None


class TokenStore(Generic[_Texts]):
    """Texts by row number 0, 1, 2, ...; a row is never used twice.

    The list of segments is copied on write, so changing a copy (:func:`copy.copy`) does
    not change the original. `make` makes texts, MultiVectors or CodedVectors, from an
    array and lengths; file names begin with `prefix`.
    """

    def __init__(self, make: Make[_Texts], prefix: str) -> None:
        self.make: Make[_Texts] = make
        self.prefix = prefix
        self.segments: list[Segment[_Texts]] = []
        self.pages = PageCache()

    def __len__(self) -> int:
        return self.segments[-1].first + len(self.segments[-1].vectors) if self.segments else 0

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 (n,)."""
        return np.concatenate(
            [np.empty(0, np.int64), *(segment.vectors.lengths for segment in self.segments)]
        )

    def append(self, vectors: _Texts, staging: Path | None = None) -> None:
        """Add texts, at least one, under the next row numbers.

        Move many tokens from memory to `staging`.
        """
        last = Segment(len(self), self._join([vectors]))
        segments = list(self.segments)
        while (
            segments
            and segments[-1].path is None
            and segments[-1].vectors.num_tokens <= _GROWTH * last.vectors.num_tokens
            and last.vectors.tokens.nbytes <= _MERGED_BYTES
        ):
            before = segments.pop()
            last = Segment(before.first, self._join([before.vectors, last.vectors]))
        segments.append(last)
        memory = sum(segment.vectors.tokens.nbytes for segment in segments if segment.path is None)
        if staging is not None and memory >= _STAGING_BYTES:
            segments = self._staged(segments, staging)
        self.segments = segments

    def flush(self, staging: Path | None) -> None:
        """Move the tokens in memory to the folder `staging`.

        Without one, merge all segments if none is mapped.
        """
        memory = [segment.vectors for segment in self.segments if segment.path is None]
        if staging is not None:
            self.segments = self._staged(self.segments, staging) if memory else self.segments
        elif (
            len(memory) == len(self.segments) > 1
            and sum(each.tokens.nbytes for each in memory) <= _JOINED_BYTES
        ):
            self.segments = [Segment(0, self._join(memory))]

    def _staged(self, segments: list[Segment[_Texts]], staging: Path) -> list[Segment[_Texts]]:
        """Return segments without any in memory.

        Their tokens are written to the end of the last file, or to a new one.
        """
        memory = [segment for segment in segments if segment.path is None]
        files = segments[: len(segments) - len(memory)]
        texts = [segment.vectors for segment in memory]
        first = memory[0].first
        path = staging / f"{self.prefix}-{first:012d}.npy"
        before: list[_Texts] = []
        if files and files[-1].vectors.tokens.dtype == _dtype(texts):
            last = files.pop()
            first = last.first
            path = last.path or path
            before = [last.vectors]
        write_tokens(path, texts, *before)
        lengths = np.concatenate([each.lengths for each in before + texts])
        files.append(Segment(first, self.make(load_npy(path), lengths), path))
        return files

    def batches(self, rows: Rows) -> Iterator[tuple[Rows, _Texts]]:
        """Yield (rows, texts) for ascending `rows`, in batches of limited size.

        The pages of a batch in mapped files are released after it.
        """
        lengths = self.lengths
        for start in range(0, len(rows), _BATCH):
            block = rows[start : start + _BATCH]
            for first, stop in token_batches(running_total(lengths[block]), _BATCH_TOKENS):
                yield block[first:stop], self.rows(block[first:stop])
                self.release(block[first:stop])

    def rows(self, rows: Rows) -> _Texts:
        """Return the texts at distinct `rows`, at least one, in this order."""
        ascending = np.sort(rows)
        texts = self._join([texts[positions] for texts, positions in self.runs(ascending)])
        return texts if np.array_equal(ascending, rows) else texts[np.searchsorted(ascending, rows)]

    def _owners(self, rows: Rows) -> NDArray[np.int64]:
        """Return the number of the segment of each row."""
        return np.searchsorted([segment.first for segment in self.segments], rows, side="right") - 1

    def grouped(self, rows: Rows) -> Rows:
        """Return `rows` one segment after another, otherwise in the same order."""
        return rows if len(self.segments) == 1 else rows[np.argsort(self._owners(rows), kind="stable")]

    def runs(self, rows: Rows) -> list[tuple[_Texts, Rows]]:
        """Split `rows`, in any order, wherever the segment changes.

        Return each segment's texts, and positions in them.
        """
        segments = self.segments
        if len(segments) == 1:
            return [(segments[0].vectors, rows)]
        owners = self._owners(rows)
        runs = []
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        for start, run in zip(starts, np.split(rows, starts[1:]), strict=False):
            segment = segments[owners[start]]
            runs.append((segment.vectors, run - segment.first))
        return runs

    def ascending_runs(self, rows: Rows) -> list[tuple[_Texts, Rows]]:
        """Split ascending `rows` as :meth:`runs` does, in less time."""
        bounds = np.searchsorted(rows, [segment.first for segment in self.segments[1:]])
        return [
            (segment.vectors, run - segment.first if segment.first else run)
            for segment, run in zip(self.segments, np.split(rows, bounds), strict=True)
            if len(run)
        ]

    def _join(self, texts: list[_Texts]) -> _Texts:
        """Concatenate texts, without ids."""
        if len(texts) == 1:
            return self.make(texts[0].tokens, texts[0].lengths)
        tokens = np.concatenate([each.tokens for each in texts])
        return self.make(tokens, np.concatenate([each.lengths for each in texts]))

    def _mapped(self) -> list[MappedTokens]:
        return [
            MappedTokens(segment.first, segment.vectors.offsets, segment.vectors.tokens)
            for segment in self.segments
            if segment.path is not None
        ]

    def read_ahead(self, rows: Rows) -> int:
        """Prefetch `rows` from mapped files; see :meth:`.PageCache.read_ahead`."""
        return self.pages.read_ahead(self._mapped(), rows)

    def release(self, rows: Rows) -> None:
        """Release the pages of mapped files from the first to the last of `rows`."""
        release(self._mapped(), rows)

    def let_go(self, rows: Rows) -> None:
        """Count `rows` of mapped files as read; see :meth:`.PageCache.let_go`."""
        self.pages.let_go(self._mapped(), rows)


def write_tokens(path: Path, texts: list[_Texts], after: _Texts | None = None) -> None:
    """Write the tokens of `texts`, one after another, to a ``.npy`` file.

    There is at least one text.  With `after`, the file already contains the tokens of
    these texts, and the new tokens are appended to it; otherwise the file is a new one.
    """
    dtype = _dtype(texts)
    rows = sum(each.num_tokens for each in texts) + (0 if after is None else after.num_tokens)
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (rows, texts[0].dimension),
    }
    with path.open("wb" if after is None else "r+b") as stream:
        np.lib.format.write_array_header_1_0(stream, header)  # NumPy pads it so that more rows fit in
        stream.seek(0, os.SEEK_END)
        for each in texts:
            for start in range(0, len(each.tokens), _ROWS):
                stream.write(np.ascontiguousarray(each.tokens[start : start + _ROWS], dtype).data)


def _dtype(texts: list[_Texts]) -> np.dtype[Any]:
    return np.result_type(*(each.tokens.dtype for each in texts))


def plaid_codes(source: CodedSource, codec: ResidualCodec) -> Iterator[tuple[MultiVectors, CodedVectors]]:
    """Yield the documents of a PLAID index with their codes."""
    for documents, numbers, packed in source.coded_batches(PLAID_BATCH_TOKENS):
        codes = codec.plaid_codes(np.asarray(numbers), np.ascontiguousarray(packed))
        yield documents, CodedVectors(codec, codes, documents.offsets)


class FloatStore(TokenStore[MultiVectors]):
    """TokenStore of floats."""

    def __init__(self, prefix: str = "tokens") -> None:
        super().__init__(MultiVectors.from_flat, prefix)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a token; float32 while there are none."""
        tokens = self.segments[0].vectors.tokens if self.segments else np.empty((0, 0), np.float32)
        return int(tokens.shape[1]) * tokens.itemsize

    def estimate(
        self, query: NDArray[np.float32], rows: Rows, options: RerankOptions, threads: int | None
    ) -> NDArray[np.float32]:
        """Return estimates of the scores of rows, by floats rounded to bytes."""
        return estimate_candidates(query, self.runs(rows), options, threads)

    def scores(self, query: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        """Return the scores of rows."""
        options = RerankOptions(len(rows), early_exit=False)
        return score_candidates(query, self.runs(rows), options, 1)


class CodeStore(TokenStore[CodedVectors]):
    """TokenStore of one codec's codes."""

    def __init__(self, codec: TokenCodec, prefix: str = "codes") -> None:
        super().__init__(partial(CodedVectors.from_lengths, codec), prefix)
        self.codec = codec

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a token."""
        return self.codec.bytes_per_token

    def estimate(
        self, query: NDArray[np.float32], rows: Rows, options: RerankOptions, threads: int | None
    ) -> NDArray[np.float32]:
        """Return estimates of the scores of rows, by products of bytes."""
        return score_coded(query, self.codec, self.runs(rows), threads, options.k, options.stop)

    def scores(self, query: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        """Return the scores of rows by products of bytes."""
        return score_coded(query, self.codec, self.runs(rows), threads=1)

    def append_coded(
        self, texts: MultiVectors, codes: CodedVectors | None, threads: int | None, staging: Path | None
    ) -> None:
        """Encode texts unless their `codes` are known, and append them."""
        codes = CodedVectors.of(self.codec, texts, threads) if codes is None else codes
        self.append(codes, staging)


#: Tokens of all documents in one representation.
Level = FloatStore | CodeStore


class Means(NamedTuple):
    """Means of groups of tokens of documents, and their codes if they are known."""

    texts: MultiVectors
    codes: CodedVectors | None = None


class DocumentTokens:
    """The documents' tokens by row number 0, 1, 2, ..., in one or two levels.

    The coarse level ranks the candidates, and the fine level finishes the best of them:

    - Floats until there are enough tokens to fit a codec: one level.
    - Codes, or rows of a table: one level, whose best are decoded to finish them.
    - Codes, and then the floats that were added, if the settings have `keep_exact`.
    - Means of groups of tokens, and then all tokens, if the settings have `pool`.  Both
      are floats until there are enough to fit a codec for each.

    Changing a copy (:func:`copy.copy`) does not change the original.

    Parameters
    ----------
    settings : IndexSettings
        Which levels there are, and the format of each.
    dimension : int
        Columns of a token.
    codec, means_codec : TokenCodec, optional
        Fitted codecs of the tokens and of their means.
    """

    def __init__(
        self,
        settings: IndexSettings,
        dimension: int,
        codec: TokenCodec | None = None,
        means_codec: TokenCodec | None = None,
    ) -> None:
        self.settings = settings
        self.dimension = dimension
        #: Floats and codes of all tokens.
        self.floats = FloatStore() if codec is None or settings.keep_exact else None
        self.codes = None if codec is None else CodeStore(codec)
        #: Means of groups of tokens.
        self.means: Level | None = None
        if settings.pool > 1:
            self.means = FloatStore(_MEANS) if means_codec is None else CodeStore(means_codec, _MEAN_CODES)
        self._lengths: NDArray[np.int64] | None = None
        self._coarse_lengths: NDArray[np.int64] | None = None

    def __copy__(self) -> DocumentTokens:
        copied = DocumentTokens.__new__(DocumentTokens)
        vars(copied).update(
            vars(self), floats=copy(self.floats), codes=copy(self.codes), means=copy(self.means)
        )
        return copied

    def emptied(self) -> DocumentTokens:
        """Return a store without texts, with the same settings and codecs."""
        means_codec = self.means.codec if isinstance(self.means, CodeStore) else None
        return DocumentTokens(self.settings, self.dimension, self.codec, means_codec)

    @property
    def coarse(self) -> Level:
        """The level that ranks the candidates."""
        levels = (self.means, self.codes, self.floats)
        return next(level for level in levels if level is not None)

    @property
    def fine(self) -> Level:
        """The level that finishes the best candidates; the only one if there is one."""
        levels = (self.floats, self.codes)
        return next(level for level in levels if level is not None)

    @property
    def has_estimates(self) -> bool:
        """True if scores of the coarse level take less time than final ones."""
        return self.coarse is not self.floats

    @property
    def codec(self) -> TokenCodec | None:
        """The fitted codec of all tokens."""
        return None if self.codes is None else self.codes.codec

    @property
    def table(self) -> TableCodec | None:
        """The codec, if tokens are rows of a table."""
        return self.codec if isinstance(self.codec, TableCodec) else None

    @property
    def has_exact_scores(self) -> bool:
        """True if scores are computed from the tokens that were added."""
        return self.floats is not None or self.table is not None

    @property
    def kind(self) -> str:
        """Name of the token format, such as "float32" or "2bit"."""
        if self.settings.tokens is not None:
            return self.settings.tokens
        if self.codec is not None:
            return self.codec.name
        segments = self.fine.segments
        return str(segments[0].vectors.tokens.dtype) if segments else "float32"

    @property
    def ranked_by(self) -> str:
        """Name of the codes that rank candidates first, or "floats"."""
        coarse = self.coarse
        name = "floats" if isinstance(coarse, FloatStore) else coarse.codec.name
        return name if self.means is None else f"means of {self.settings.pool:g}, {name}"

    @property
    def stores(self) -> list[TokenStore[Any]]:
        """The stores that contain all tokens: floats, then codes."""
        return [store for store in (self.floats, self.codes) if store is not None]

    def __len__(self) -> int:
        return len(self.fine)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 (n,); cached until the next :meth:`append`."""
        if self._lengths is None:
            self._lengths = self.fine.lengths
        return self._lengths

    @property
    def coarse_lengths(self) -> NDArray[np.int64]:
        """Tokens or means that the coarse level has of each text, int64 (n,)."""
        if self.means is None:
            return self.lengths
        if self._coarse_lengths is None:
            self._coarse_lengths = self.means.lengths
        return self._coarse_lengths

    def append(
        self,
        texts: MultiVectors | CodedVectors,
        codes: CodedVectors | None = None,
        threads: int | None = None,
        staging: Path | None = None,
        means: Means | None = None,
    ) -> None:
        """Add texts, at least one, under the next row numbers.

        The texts are codes if tokens are rows of a table.  Other texts are encoded
        unless their `codes` are known, and pooled unless their `means` are known.
        `staging` is a folder for tokens that do not fit in the memory buffer.
        """
        if isinstance(texts, CodedVectors):
            assert self.codes is not None
            self.codes.append(texts, staging)
        else:
            if self.floats is not None:
                self.floats.append(self._converted(texts), staging)
            if self.codes is not None:
                self.codes.append_coded(texts, codes, threads, staging)
            if self.means is not None:
                means = self.pooled(texts) if means is None else means
                if isinstance(self.means, CodeStore):
                    self.means.append_coded(means.texts, means.codes, threads, staging)
                else:
                    self.means.append(means.texts, staging)
        self._lengths = self._coarse_lengths = None

    def pooled(self, texts: MultiVectors) -> Means:
        """Return the means of groups of tokens; the settings have the group size."""
        from ..convert.transforms import pool_tokens  # few indexes need it

        return Means(pool_tokens(texts, self.settings.pool))

    def _converted(self, texts: MultiVectors) -> MultiVectors:
        """Return texts in the float type of the settings."""
        dtype = FLOATS.get(self.settings.tokens or "")
        if dtype is None or texts.tokens.dtype == dtype:
            return texts
        with np.errstate(over="ignore"):
            tokens = texts.tokens.astype(dtype)
        if not np.isfinite(tokens).all():
            row = int(np.argmin(np.isfinite(tokens).all(axis=1)))
            raise ValueError(
                Message(
                    f"{texts.text_name(texts.text_of(row)[0])} has a number above 65504, which float16 "
                    "cannot represent. Use ",
                    Argument("tokens", "'float32'"),
                    ", or scale the tokens.",
                )
            )
        return MultiVectors(tokens, texts.offsets)

    def can_fit_codec(self, at_end: bool = False) -> bool:
        """Return True if a level needs a codec that can be fitted now.

        It needs FIT_TOKENS tokens.  One token is enough `at_end` of a build.
        """
        return self._can_fit_tokens(at_end) or self._can_fit_means(at_end)

    def _can_fit_tokens(self, at_end: bool) -> bool:
        if self.codes is not None or self.floats is None or self.settings.tokens not in CODECS:
            return False
        return int(self.lengths.sum()) >= (1 if at_end else FIT_TOKENS)

    def _can_fit_means(self, at_end: bool) -> bool:
        if not isinstance(self.means, FloatStore):
            return False
        return int(self.coarse_lengths.sum()) >= (1 if at_end else FIT_TOKENS)

    def fit_codec(self, threads: int | None, staging: Path | None = None, at_end: bool = False) -> None:
        """Fit the codecs that can be fitted on a sample, and encode all texts.

        The floats are kept only if the settings say so.  `staging`: see :meth:`append`.
        """
        fits_tokens = self._can_fit_tokens(at_end)
        if self._can_fit_means(at_end):
            assert isinstance(self.means, FloatStore)
            self.means = _coded(self.means, _MEANS_CODEC, _MEAN_CODES, threads, staging)
        if fits_tokens:
            assert self.floats is not None and self.settings.tokens is not None
            self.codes = _coded(self.floats, self.settings.tokens, "codes", threads, staging)
            if not self.settings.keep_exact:
                self.floats = None

    def flush(self, staging: Path | None) -> None:
        """Write the tokens in memory to `staging`; without it, merge them."""
        for store in self.stores:
            store.flush(staging)
        if self.means is not None:
            self.means.flush(staging)

    def rows(self, rows: Rows) -> MultiVectors:
        """Return the texts at distinct `rows`, in this order.

        Decoded if only codes are stored.
        """
        if not len(rows):
            return MultiVectors.from_arrays([], dimension=self.dimension)
        if self.floats is not None:
            return self.floats.rows(rows)
        assert self.codes is not None
        return self.codes.rows(rows).decoded()

    def batches(self, rows: Rows) -> Iterator[tuple[Rows, MultiVectors, CodedVectors | None]]:
        """Yield (rows, texts, codes) for ascending `rows`.

        Codes are None if none are stored.
        """
        for batch, texts in self.stores[-1].batches(rows):
            if self.codes is None:
                yield batch, texts, None
            elif self.floats is None:
                yield batch, texts.decoded(), texts
            else:
                yield batch, self.floats.rows(batch), texts
                self.floats.release(batch)

    def means_of(self, rows: Rows) -> Means | None:
        """Return the means of the texts at `rows`, at least one, if they are stored."""
        if self.means is None:
            return None
        if isinstance(self.means, FloatStore):
            return Means(self.means.rows(rows))
        codes = self.means.rows(rows)
        return Means(codes.decoded(), codes)

    def coarse_batches(self, rows: Rows) -> Iterator[tuple[Rows, MultiVectors]]:
        """Yield (rows, texts) for ascending `rows`, with means if they are stored.

        FDEs are made of these.
        """
        if self.means is None:
            for batch, documents, _ in self.batches(rows):
                yield batch, documents
            return
        for batch, texts in self.means.batches(rows):
            yield batch, texts if isinstance(texts, MultiVectors) else texts.decoded()

    def info(self) -> dict[str, Any]:
        """Return how tokens are stored, and their bytes."""
        coarse, fine = self.coarse, self.fine
        info = {
            "codec": self.kind,
            "keep_exact": self.settings.keep_exact,
            "fitted": isinstance(coarse, CodeStore),
            "bytes_per_token": coarse.bytes_per_token or 4 * self.dimension,
            "exact_bytes_per_token": fine.bytes_per_token if coarse is not fine else 0,
        }
        return info if self.means is None else {**info, "pool": self.settings.pool}

    def require_rescore(self, rescore: int | None) -> None:
        """Raise ValueError if `rescore` is given, but there is one level."""
        if rescore is not None and self.coarse is self.fine:
            raise ValueError(
                f"rescore={rescore} needs codes and exact tokens, but this index stores only one of them "
                f"({self.kind}). Build it with keep_exact=True, or omit rescore."
            )

    def num_rescored(self, k: int) -> int:
        """Return the number of best rows by codes to score by floats for `k` hits."""
        # Decoding takes longer than reading exact tokens and changes the order less.
        return (2 * k if self.has_exact_scores or self.means is not None else k) + _MORE

    def read_ahead(self, rows: Rows, k: int = 0, rescore: int | None = None) -> None:
        """Prefetch from disk what :meth:`rank` reads of these rows.

        It reads the coarse level of all rows.  It also reads the fine level of the best
        rows by the coarse one, which are not known yet.  Most of them are among the
        most promising rows (ESPN, arXiv 2312.05417), whose fine level arrives while the
        coarse one is scored: `python -m experiments cold`.

        `rows`, int64 (n,), have the most promising row first.  Ascending rows are not
        in such an order: for them, or with `k` 0, only the coarse level is prefetched.
        """
        if self.table is not None:
            return  # the texts are read one after another, which the system predicts
        coarse, fine = self.coarse, self.fine
        coarse.read_ahead(rows)
        if k and fine is not coarse and (np.diff(rows) < 0).any():
            fine.read_ahead(rows[: self._reranked(k, rescore)])

    def _reranked(self, k: int, rescore: int | None) -> int:
        """Return the number of rows that the fine level ranks."""
        return self.num_rescored(k) if rescore is None else max(k, rescore)

    def scores(self, query: NDArray[Any], rows: Rows) -> NDArray[np.float32]:
        """Return the scores of rows by the coarse level."""
        tokens = np.asarray(query, np.float32)
        if self.table is not None:
            lookups = self.look_up(tokens, rows)
            return score_all(lookups).scores if len(lookups) else np.full(len(rows), -np.inf, np.float32)
        # In ascending order, each segment is one run.
        order = np.argsort(rows, kind="stable")
        scores = np.empty(len(rows), np.float32)
        scores[order] = self.coarse.scores(tokens, rows[order])
        return scores

    @contextmanager
    def read_briefly(self) -> Iterator[None]:
        """Hold few pages of mapped files in a block that reads most texts once."""
        pages = [level.pages for level in (self.floats, self.codes) if level is not None]
        try:
            for each in pages:
                each.is_brief = True
            yield
        finally:
            for each in pages:
                each.is_brief = False

    def pair_scores(self, queries: PackedQueries, numbers: Rows, rows: Rows) -> NDArray[np.float32]:
        """Return the scores of pairs of a query and a row by the coarse level.

        They are those of :meth:`scores`, but floats are read once for all pairs of a
        row.  `numbers` and `rows`, both int64 (n,), are the pairs; `rows` ascend.
        """
        coarse = self.coarse
        if isinstance(coarse, FloatStore):
            return score_packed(queries, numbers, coarse.ascending_runs(rows))
        scores = np.empty(len(rows), np.float32)
        order = np.argsort(numbers, kind="stable")
        if not len(order):
            return scores
        for own in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            scores[own] = self.scores(queries.queries[int(numbers[own[0]])], rows[own])
        return scores

    def look_up(
        self, query: NDArray[Any], rows: Rows, *, passage: int | None = None, threads: int | None = 1
    ) -> Lookups:
        """Return what scores ascending `rows`, whose tokens are rows of a table.

        `query` is (tokens, dimension), and `rows` are int64 (n,).  Texts of more than
        `passage` tokens have the score of their best passage.
        """
        table, codes = self.table, self.codes
        assert table is not None and codes is not None
        tokens = np.ascontiguousarray(query, np.float32)
        if not len(tokens) or not len(rows):
            return NO_LOOKUPS
        return look_up(tokens, table, codes.ascending_runs(rows), passage, threads)

    def exact_scores(
        self, query: NDArray[Any], rows: Rows, passage: int | None = None
    ) -> NDArray[np.float32]:
        """Return the scores of a few ascending `rows`, computed from floats.

        :meth:`look_up` describes the arguments.
        """
        table, codes = self.table, self.codes
        assert table is not None and codes is not None
        tokens = np.ascontiguousarray(query, np.float32)
        if not len(tokens) or not len(rows):
            return np.full(len(rows), -np.inf, np.float32)
        return score_exact(tokens, table, codes.ascending_runs(rows), passage).scores

    def rank_rows(
        self, query: NDArray[Any], rows: Rows, k: int, passage: int | None = None, threads: int | None = 1
    ) -> Ranked:
        """Return the k best of ascending `rows`, whose tokens are rows of a table.

        :meth:`look_up` describes the other arguments.
        """
        count = self.num_rescored(k)
        best = rows
        if len(rows) > count:
            lookups = self.look_up(query, rows, passage=passage, threads=threads)
            best = np.sort(rows[best_texts(lookups, count, threads)[0]])
        return ranked(best, self.exact_scores(query, best, passage), k)

    def float_runs(self, rows: Rows) -> list[DocumentRun]:
        """Return the texts at `rows` as floats, and positions in them.

        Prefetch them from disk.
        """
        assert self.floats is not None
        self.floats.read_ahead(rows)
        return self.floats.runs(rows)

    @staticmethod
    def ranks_short(query: NDArray[Any], rows: Rows) -> bool:
        """Return True if a short query ranks these floats without rounding them."""
        return len(query) <= LANES and len(rows) <= _SHORT_RANKED

    def ranks_together(self, rows: Rows, k: int, rescore: int | None) -> bool:
        """Return True if :meth:`rank` would round the floats of these rows."""
        return not self.has_estimates and len(rows) > max(_SHORT_RANKED, self._reranked(k, rescore))

    def rank(
        self,
        query: NDArray[Any],
        rows: Rows,
        options: RerankOptions,
        threads: int | None,
        *,
        rescore: int | None = None,
    ) -> Ranked:
        """Return the k best rows, int64 (k,), and their scores, float32 (k,).

        Scores are computed from floats, or from decoded tokens if no floats are stored.
        Many candidates are first scored by the coarse level; if it is floats, by floats
        rounded to bytes unless :meth:`ranks_short`.  The fine level then ranks the
        candidates that can still be among the k best, up to an error of five standard
        deviations; see :class:`RerankOptions`.  The best row comes first; ties go to
        the lower row.

        `query` is (tokens, dimension).  `rows`, int64 (n,), are the candidates, the
        most promising first if `options` say when to stop.

        `rescore` is the number of the best rows by the coarse level that the fine one
        ranks.  More raise recall and read more.  Default: a few more than k by decoded
        tokens, 2 k by exact ones or after means.
        """
        tokens = np.asarray(query, np.float32)
        if self.table is not None:
            return self.rank_rows(tokens, rows, options.k, threads=threads)
        coarse = self.coarse
        count = self._reranked(options.k, rescore)
        if coarse is self.floats and (len(rows) <= count or self.ranks_short(tokens, rows)):
            rows = rows if options.in_order else coarse.grouped(rows)
            return rank_candidates(tokens, rows, coarse.runs(rows), options, threads)
        best = np.sort(rows) if options.stop is ALL else rows
        estimates = coarse.estimate(tokens, best, options, threads) if len(best) > count else None
        return self._rank_finely(tokens, best, estimates, count, options, threads)

    def rank_together(
        self, queries: MultiVectors, rows: Rows, k: int, threads: int | None, rescore: int | None = None
    ) -> list[Ranked]:
        """Return the k best of the same `rows` for each query, as :meth:`rank` does.

        All queries have tokens, and :meth:`ranks_together` is true.  Each row is read
        and rounded once for all queries.
        """
        assert self.coarse is self.floats
        best, count = np.sort(rows), self._reranked(k, rescore)
        parts = np.split(best, range(_READ_TOGETHER, len(best), _READ_TOGETHER))
        estimates = np.concatenate([self._estimates(queries, part, threads) for part in parts], axis=1)
        found: dict[int, Ranked] = {}

        def work(q: int, _: int) -> None:
            tokens = np.asarray(queries[q], np.float32)
            found[q] = self._rank_finely(tokens, best, estimates[q], count, RerankOptions(k), 1)

        run_in_ranges(work, split_by_count(len(queries), 1), threads)
        return [found[q] for q in range(len(queries))]

    def _estimates(self, queries: MultiVectors, rows: Rows, threads: int | None) -> NDArray[np.float32]:
        """Return estimates of the scores of ascending `rows`, float32 (queries, n)."""
        estimates = estimate_together(queries, self.float_runs(rows), threads)
        if self.coarse.pages.is_brief:
            self.coarse.release(rows)
        return estimates

    def _rank_finely(
        self,
        tokens: NDArray[np.float32],
        best: Rows,
        estimates: NDArray[np.float32] | None,
        count: int,
        options: RerankOptions,
        threads: int | None,
    ) -> Ranked:
        """Rank the `count` best rows by `estimates`, or all, by the fine level."""
        coarse, fine = self.coarse, self.fine
        if estimates is not None:
            order = best_first(estimates, count)
            # Scores of means are too far from scores of all tokens to bound them.
            best, estimates = best[order], None if coarse is self.means else estimates[order]

        def let_go(first: int, stop: int) -> None:
            # Later queries rarely read the same texts of the fine level.
            if fine is not coarse or fine.pages.is_brief:
                fine.let_go(best[first:stop])

        if isinstance(fine, CodeStore):
            if fine is not coarse:
                fine.read_ahead(best)
            decoded = rank_decoded(tokens, fine.codec, fine.runs(best), options.k, estimates)
            let_go(0, len(best))
            return ranked(best, decoded, options.k)
        bounded = options.early_exit and len(best) > _BOUNDED * options.k
        how = RerankOptions(options.k, bounded, estimates=estimates)
        runs = [
            (texts, positions[start : start + _READ])
            for texts, positions in self.float_runs(best)
            for start in range(0, len(positions), _READ)
        ]
        return rank_candidates(tokens, best, runs, how, threads, let_go)


def _coded(
    floats: FloatStore, kind: str, prefix: str, threads: int | None, staging: Path | None
) -> CodeStore:
    """Fit a codec on a sample of the tokens, and return the codes of all texts."""
    codec = CODECS[kind](_sample(floats), threads=threads)
    codes = CodeStore(codec, prefix)
    with stage("making codes of tokens"):
        for rows, texts in floats.batches(np.arange(len(floats))):
            codes.append_coded(texts, None, threads, staging)
            share_done((int(rows[-1]) + 1) / len(floats))
    return codes


def _sample(store: TokenStore[MultiVectors]) -> NDArray[np.float32]:
    """Return a uniform sample of the tokens."""
    total = int(store.lengths.sum())
    picked = np.sort(np.random.default_rng(_SEED).permutation(total)[:FIT_TOKENS])
    samples = []
    start = 0
    for segment in store.segments:
        stop = start + segment.vectors.num_tokens
        inside = picked[(picked >= start) & (picked < stop)] - start
        samples.append(np.asarray(segment.vectors.tokens[inside], np.float32))
        start = stop
    return np.concatenate(samples)
