"""Token vectors, or their codes, by row number, in memory or in mapped files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

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
    RerankOptions,
    estimate_candidates,
    rank_candidates,
    ranked,
    score_candidates,
)
from ..reranking.table_codec import TableCodec
from ..reranking.table_search import NO_LOOKUPS, Lookups, best_texts, look_up, score_all, score_exact
from ..utils.arrays import load_npy
from ..utils.hints import Argument, Message
from .page_cache import MappedTokens, PageCache
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

# Bounds are used for more than this many times k candidates: for few, all close to the
# k best, they cost more than they save.
_BOUNDED = 4


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
        """Yield (rows, texts) for ascending `rows`, in batches of limited size."""
        lengths = self.lengths
        for start in range(0, len(rows), _BATCH):
            block = rows[start : start + _BATCH]
            for first, stop in token_batches(running_total(lengths[block]), _BATCH_TOKENS):
                yield block[first:stop], self.rows(block[first:stop])

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


class CodeStore(TokenStore[CodedVectors]):
    """TokenStore of one codec's codes."""

    def __init__(self, codec: TokenCodec) -> None:
        super().__init__(partial(CodedVectors.from_lengths, codec), "codes")
        self.codec = codec


class DocumentTokens:
    """The documents' tokens by row number 0, 1, 2, ...

    They are floats until there are enough to fit a codec.  After that, codes rank the
    candidates, and floats rerank the best ones: exact floats if they are stored,
    otherwise decoded ones.  Changing a copy (:func:`copy.copy`) does not change the
    original.
    """

    def __init__(self, settings: IndexSettings, dimension: int, codec: TokenCodec | None = None) -> None:
        self.settings = settings
        self.dimension = dimension
        has_floats = codec is None or settings.keep_exact
        self.floats = TokenStore(MultiVectors.from_flat, "tokens") if has_floats else None
        self.codes = None if codec is None else CodeStore(codec)
        self._lengths: NDArray[np.int64] | None = None

    def __copy__(self) -> DocumentTokens:
        copied = DocumentTokens.__new__(DocumentTokens)
        vars(copied).update(vars(self), floats=copy(self.floats), codes=copy(self.codes))
        return copied

    @property
    def codec(self) -> TokenCodec | None:
        """The fitted codec."""
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
        segments = self.stores[0].segments
        return str(segments[0].vectors.tokens.dtype) if segments else "float32"

    @property
    def ranked_by(self) -> str:
        """Name of the codes that rank candidates first, or "floats"."""
        return "floats" if self.codec is None else self.codec.name

    @property
    def stores(self) -> list[TokenStore[Any]]:
        """The stores that contain tokens: floats, then codes."""
        return [store for store in (self.floats, self.codes) if store is not None]

    def __len__(self) -> int:
        return len(self.stores[0])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 (n,); cached until the next :meth:`append`."""
        if self._lengths is None:
            self._lengths = self.stores[0].lengths
        return self._lengths

    def append(
        self,
        texts: MultiVectors | CodedVectors,
        codes: CodedVectors | None = None,
        threads: int | None = None,
        staging: Path | None = None,
    ) -> None:
        """Add texts, at least one, under the next row numbers.

        The texts are codes if tokens are rows of a table.  Other texts are encoded
        unless their `codes` are known.  `staging` is a folder for tokens that do not
        fit in the memory buffer.
        """
        if isinstance(texts, CodedVectors):
            codes = texts
        elif self.floats is not None:
            self.floats.append(self._converted(texts), staging)
        if self.codes is not None:
            if codes is None:
                assert isinstance(texts, MultiVectors)
                codes = CodedVectors.of(self.codes.codec, texts, threads)
            self.codes.append(codes, staging)
        self._lengths = None

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
        """Return True if the settings need a codec that can be fitted now.

        It needs FIT_TOKENS tokens.  One token is enough `at_end` of a build.
        """
        if self.codes is not None or self.floats is None or self.settings.tokens not in CODECS:
            return False
        return int(self.lengths.sum()) >= (1 if at_end else FIT_TOKENS)

    def fit_codec(self, threads: int | None, staging: Path | None = None) -> None:
        """Fit the codec of the settings on a sample, and encode all texts.

        The floats are kept only if the settings say so.  `staging`: see :meth:`append`.
        """
        floats = self.floats
        kind = self.settings.tokens
        assert floats is not None and kind is not None
        codec = CODECS[kind](_sample(floats), threads=threads)
        codes = CodeStore(codec)
        for _, texts in floats.batches(np.arange(len(floats))):
            codes.append(CodedVectors.of(codec, texts, threads), staging)
        self.codes = codes
        if not self.settings.keep_exact:
            self.floats = None

    def flush(self, staging: Path | None) -> None:
        """Write the tokens in memory to `staging`; without it, merge them."""
        for store in self.stores:
            store.flush(staging)

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

    def info(self) -> dict[str, Any]:
        """Return how tokens are stored, and their bytes."""
        codec = self.codec
        segments = [] if self.floats is None else self.floats.segments
        float_bytes = self.dimension * (segments[0].vectors.tokens.itemsize if segments else 4)
        return {
            "codec": self.kind,
            "keep_exact": self.settings.keep_exact,
            "fitted": codec is not None,
            "bytes_per_token": float_bytes if codec is None else codec.bytes_per_token,
            "exact_bytes_per_token": float_bytes if segments and codec is not None else 0,
        }

    def require_rescore(self, rescore: int | None) -> None:
        """Raise ValueError if `rescore` is given without exact tokens beside codes."""
        if rescore is not None and (self.codes is None or self.floats is None):
            raise ValueError(
                f"rescore={rescore} needs codes and exact tokens, but this index stores only one of them "
                f"({self.kind}). Build it with keep_exact=True, or omit rescore."
            )

    def num_rescored(self, k: int) -> int:
        """Return the number of best rows by codes to score by floats for `k` hits."""
        # Decoding takes longer than reading exact tokens and changes the order less.
        return (2 * k if self.has_exact_scores else k) + _MORE

    def read_ahead(self, rows: Rows, k: int = 0, rescore: int | None = None) -> None:
        """Prefetch from disk what :meth:`rank` reads of these rows.

        It reads the codes of all rows, or their floats if there are no codes.  It also
        reads the exact floats of the best rows by codes, which are not known yet.  Most
        of them are among the most promising rows (ESPN, arXiv 2312.05417), whose floats
        arrive while codes are scored: `python -m experiments cold`.

        `rows`, int64 (n,), have the most promising row first.  If they are ascending,
        none is more promising.  Then, or with `k` 0, no exact floats are prefetched
        beside codes.
        """
        if self.table is not None:
            return  # the texts are read one after another, which the system predicts
        self.stores[-1].read_ahead(rows)
        if k and self.floats is not None and self.codes is not None and (np.diff(rows) < 0).any():
            self.floats.read_ahead(rows[: self._reranked(k, rescore)])

    def _reranked(self, k: int, rescore: int | None) -> int:
        """Return the number of rows that floats rank after codes."""
        return self.num_rescored(k) if rescore is None else max(k, rescore)

    def scores(self, query: NDArray[Any], rows: Rows) -> NDArray[np.float32]:
        """Return the scores of rows by codes, or by floats if there are none."""
        floats = self.floats
        codes = self.codes
        tokens = np.asarray(query, np.float32)
        if self.table is not None:
            lookups = self.look_up(tokens, rows)
            return score_all(lookups).scores if len(lookups) else np.full(len(rows), -np.inf, np.float32)
        if codes is not None:
            return score_coded(tokens, codes.codec, codes.runs(rows), threads=1)
        assert floats is not None
        return score_candidates(tokens, floats.runs(rows), RerankOptions(len(rows), early_exit=False), 1)

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

        Scores are of floats.  Many candidates are first scored by codes, or by floats
        rounded to bytes if there are no codes and the query has more than LANES tokens.
        Floats then rank the candidates that can still be among the k best, up to an
        error of five standard deviations; see :class:`RerankOptions`.  The best row
        comes first; ties go to the lower row.

        `query` is (tokens, dimension).  `rows`, int64 (n,), are the candidates, the
        most promising first if `options` say when to stop.

        `rescore` is the number of the best rows by codes to rerank by floats.  More
        raise recall and read more.  Default: a few more than k by decoded tokens, 2 k
        by exact ones.
        """
        floats = self.floats
        codes = self.codes
        tokens = np.asarray(query, np.float32)
        if self.table is not None:
            return self.rank_rows(tokens, rows, options.k, threads=threads)
        count = self._reranked(options.k, rescore)
        # Short queries are ranked exactly, as in `rank_short`.
        if codes is None and (len(rows) <= count or len(tokens) <= LANES):
            assert floats is not None
            rows = rows if options.in_order else floats.grouped(rows)
            return rank_candidates(tokens, rows, floats.runs(rows), options, threads)
        best = np.sort(rows) if options.stop is ALL else rows
        estimates: NDArray[np.float32] | None = None
        if len(best) > count:
            if codes is not None:
                scores = score_coded(tokens, codes.codec, codes.runs(best), threads, options.k, options.stop)
            else:
                assert floats is not None
                scores = estimate_candidates(tokens, floats.runs(best), options, threads)
            order = best_first(scores, count)
            best = best[order]
            estimates = scores[order]
        if floats is None:
            assert codes is not None
            scores = rank_decoded(tokens, codes.codec, codes.runs(best), options.k, estimates)
            return ranked(best, scores, options.k)
        bounded = options.early_exit and len(best) > _BOUNDED * options.k
        how = RerankOptions(options.k, bounded, estimates=estimates)
        result = rank_candidates(tokens, best, self.float_runs(best), how, threads)
        if codes is not None:
            floats.let_go(best)  # later queries rarely read the same texts
        return result


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
