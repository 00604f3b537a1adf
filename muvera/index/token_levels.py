"""TokenLevels: tokens of an index as floats, as codes, or as codes before floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..reranking.codecs import CODECS, FLOATS, fit_codec
from ..reranking.codecs.base import CodedVectors, TokenCodec, score_coded
from ..reranking.pruning import RerankOptions, rank_candidates
from .settings import IndexSettings
from .token_store import Segment, TokenStore

__all__ = ["CodeStore", "LevelsState", "TokenLevels"]

#: Codecs are fitted on at most this many tokens, and earlier only when an index is complete.
FIT_TOKENS = 50_000

# The stream that draws the tokens of a fit.
_SEED = 0x70

# Candidates by codes that exact tokens order, unless a search says otherwise: 2 k + _MORE; without exact
# tokens, k + _MORE are ordered by decoded ones.
_MORE = 10

# So many candidates by codes for each that is wanted pay for bounds.
_BOUNDED = 4


class CodeStore(TokenStore[CodedVectors]):
    """Store of one codec's codes."""

    def __init__(self, codec: TokenCodec) -> None:
        super().__init__(partial(CodedVectors.from_lengths, codec), "codes")
        self.codec = codec


_Pair = tuple[TokenStore[MultiVectors] | None, CodeStore | None]


class LevelsState(NamedTuple):
    """What can be gone back to: the two levels and their segments."""

    floats: TokenStore[MultiVectors] | None
    float_segments: list[Segment[MultiVectors]]
    codes: CodeStore | None
    code_segments: list[Segment[CodedVectors]]


class TokenLevels:
    """Texts by row number 0, 1, 2, ..., as floats until there are enough to fit a codec.

    Afterwards codes rank candidates, and the best few are ordered by floats: exact ones where these are
    kept, else those that the codes stand for.  A codec is fitted once and then frozen.

    Parameters
    ----------
    settings : IndexSettings
    dimension : int
        Columns of a token vector.
    codec : TokenCodec, optional
        A fitted codec to use from the start.
    """

    def __init__(self, settings: IndexSettings, dimension: int, codec: TokenCodec | None = None) -> None:
        self.settings, self.dimension = settings, dimension
        self._staging: Path | None = None
        kept = codec is None or settings.keep_exact
        # One tuple, which searches read once: they are not disturbed while a codec is fitted.
        self._pair: _Pair = (
            TokenStore(MultiVectors.from_flat, "tokens") if kept else None,
            None if codec is None else CodeStore(codec),
        )

    @property
    def floats(self) -> TokenStore[MultiVectors] | None:
        """Tokens as floats, where they are kept."""
        return self._pair[0]

    @property
    def codes(self) -> CodeStore | None:
        """Tokens as codes, once a codec is fitted."""
        return self._pair[1]

    @property
    def codec(self) -> TokenCodec | None:
        """The codec, once it is fitted."""
        return None if self.codes is None else self.codes.codec

    @property
    def kind(self) -> str:
        """Name of how tokens are stored, such as "float32" or "2bit"."""
        if self.settings.tokens is not None:
            return self.settings.tokens
        if self.codec is not None:
            return self.codec.name
        segments = self.levels[0].segments
        return str(segments[0].vectors.tokens.dtype) if segments else "float32"

    @property
    def levels(self) -> list[TokenStore[Any]]:
        """What holds tokens."""
        return [level for level in (self.floats, self.codes) if level is not None]

    @property
    def staging(self) -> Path | None:
        """A folder for tokens once there are many."""
        return self._staging

    @staging.setter
    def staging(self, folder: Path | None) -> None:
        self._staging = folder
        for level in self.levels:
            level.staging = folder

    @property
    def state(self) -> LevelsState:
        """What :attr:`state` may be set to again, which undoes all since."""
        return LevelsState(
            self.floats,
            [] if self.floats is None else self.floats.segments,
            self.codes,
            [] if self.codes is None else self.codes.segments,
        )

    @state.setter
    def state(self, before: LevelsState) -> None:
        self._pair = before.floats, before.codes
        if before.floats is not None:
            before.floats.segments = before.float_segments
        if before.codes is not None:
            before.codes.segments = before.code_segments

    def __len__(self) -> int:
        return len(self.levels[0])

    def __repr__(self) -> str:
        return f"TokenLevels({len(self)} texts, {self.kind})"

    # -- changing -------------------------------------------------------------

    def append(
        self, texts: MultiVectors, threads: int | None = None, codes: CodedVectors | None = None
    ) -> None:
        """Add texts under the next row numbers; `codes`: theirs, where they are known."""
        before = self.state
        try:
            if self.floats is not None:
                self.floats.append(self._as_kept(texts))
            if self.codes is not None:
                self.codes.append(
                    CodedVectors.of(self.codes.codec, texts, threads) if codes is None else codes
                )
        except BaseException:
            self.state = before
            raise

    def append_empty(self, count: int) -> None:
        """Add texts without tokens."""
        lengths = np.zeros(count, np.int64)
        for level in self.levels:
            like = level.segments[-1].vectors.tokens
            level.append(level.make(np.empty((0, like.shape[1]), like.dtype), lengths))

    def _as_kept(self, texts: MultiVectors) -> MultiVectors:
        """Return texts in the type of float that is kept."""
        kind = FLOATS.get(self.settings.tokens or "")
        if kind is None or texts.tokens.dtype == kind:
            return texts
        with np.errstate(over="ignore"):
            tokens = texts.tokens.astype(kind)
        if not np.isfinite(tokens).all():
            row = int(np.argmin(np.isfinite(tokens).all(axis=1)))
            raise ValueError(
                f"{texts.text_name(texts.text_of(row)[0])} has a number above 65504, which float16 cannot hold. "
                "Keep tokens as float32, or scale them."
            )
        return MultiVectors.from_flat(tokens, offsets=texts.offsets)

    def fit_if_ready(self, threads: int | None, tokens: int = FIT_TOKENS) -> None:
        """Fit the codec where there are so many tokens, and make codes of all texts."""
        floats = self.floats
        if self.codes is not None or floats is None or self.settings.tokens not in CODECS:
            return
        total = sum(part.num_tokens for part in floats.segments)
        if total < tokens:
            return
        codec = fit_codec(self.settings.tokens, _sample(floats, total), threads=threads)
        codes = CodeStore(codec)
        codes.staging = self.staging
        for _, texts in floats.batches(np.arange(len(floats))):
            codes.append(CodedVectors.of(codec, texts, threads))
        self._pair = floats if self.settings.keep_exact else None, codes

    def flush(self) -> None:
        """Write what is in memory to the staging folder, where there is one."""
        for level in self.levels:
            level.flush()

    # -- looking --------------------------------------------------------------

    def rows(self, positions: NDArray[np.int64]) -> MultiVectors:
        """Return the texts at these row numbers, ascending, at least one, as exactly as they are kept."""
        if self.floats is not None:
            return self.floats.rows(positions)
        assert self.codes is not None
        return self.codes.rows(positions).decoded()

    def batches(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], MultiVectors]]:
        """Yield (rows, texts) for ascending `rows`, some thousand at a time."""
        for part, texts, _ in self.coded_batches(rows):
            yield part, texts

    def coded_batches(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], MultiVectors, CodedVectors | None]]:
        """Yield rows, texts and, where there are, their codes."""
        if self.codes is None:
            assert self.floats is not None
            for part, texts in self.floats.batches(rows):
                yield part, texts, None
            return
        for part, coded in self.codes.batches(rows):
            yield part, coded.decoded() if self.floats is None else self.floats.rows(part), coded

    @property
    def exact(self) -> bool:
        """Whether scores are of the tokens as they were given."""
        return self.floats is not None

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a search reads of every candidate's token."""
        if self.codec is not None:
            return self.codec.bytes_per_token
        segments = self.levels[0].segments
        return self.dimension * (segments[0].vectors.tokens.itemsize if segments else 4)

    def info(self) -> dict[str, Any]:
        """Return how tokens are kept, and their bytes."""
        floats = self.floats.segments if self.floats is not None and self.codes is not None else []
        exact = self.dimension * floats[0].vectors.tokens.itemsize if floats else 0
        return {
            "codec": self.kind,
            "keep_exact": self.settings.keep_exact,
            "fitted": self.codec is not None,
            "bytes_per_token": self.bytes_per_token,
            "exact_bytes_per_token": exact,
        }

    # -- ranking --------------------------------------------------------------

    def require_rescore(self, rescore: int | None) -> None:
        """Raise ValueError where no exact tokens can order the best by codes."""
        if rescore is None or (self.codes is not None and self.floats is not None):
            return
        if self.codes is None:
            raise ValueError(
                f"rescore={rescore} is for codes, but this index ranks every candidate by its tokens. Leave it out."
            )
        raise ValueError(
            f"rescore={rescore} needs exact tokens, but this index keeps only codes ({self.kind}). Build it "
            "with keep_exact=True, or drop rescore."
        )

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Let the system read what :meth:`rank` will read first of these rows, where it is on the disk."""
        floats, codes = self._pair
        if codes is not None:
            codes.read_ahead(rows)
        elif floats is not None:
            floats.read_ahead(rows)

    def rank(
        self,
        query: NDArray[Any],
        rows: NDArray[np.int64],
        options: RerankOptions,
        threads: int | None,
        *,
        rescore: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the k best rows, best first, and their scores; ties go to the lower row."""
        floats, codes = self._pair
        if codes is None:
            assert floats is not None
            return rank_candidates(query, rows, floats.slices, options, threads)
        if (
            rescore is None
        ):  # decoding takes longer than scoring, and codes differ little from what they stand for
            rescore = (options.k if floats is None else 2 * options.k) + _MORE
        count = max(options.k, rescore)
        best = np.sort(rows)
        if len(best) > count:
            tokens = np.asarray(query, np.float32)
            scores = score_coded(tokens, codes.codec, codes.slices(best, False), len(best), threads=threads)
            order = best_first(scores, count)
            best = best[order]
            options = replace(options, estimates=scores[order])
        # The best by codes are near the k best: bounds leave few of them out, and take longer than these.
        options = replace(
            options, patience=None, early_exit=options.early_exit and len(best) > _BOUNDED * options.k
        )
        if floats is not None:
            floats.read_ahead(best)
            ranked = rank_candidates(query, best, floats.slices, options, threads)
            floats.let_go(best)  # of so many texts, later queries hardly ever read the same
            return ranked
        ascending = np.sort(best)
        if len(ascending) == 0:
            return ascending, np.empty(0, np.float32)
        decoded = codes.rows(ascending).decoded(threads)
        found, scores = rank_candidates(
            query, np.searchsorted(ascending, best),
            lambda at, _: [(decoded, at, np.arange(len(at)))], options, threads,
        )  # fmt: skip
        return ascending[found], scores


def _sample(store: TokenStore[MultiVectors], total: int) -> NDArray[np.float32]:
    """Return a uniform sample of the tokens, float32."""
    picked = np.sort(np.random.default_rng(_SEED).permutation(total)[:FIT_TOKENS])
    parts, start = [], 0
    for part in store.segments:
        lo, hi = np.searchsorted(picked, [start, start + part.num_tokens])
        parts.append(np.asarray(part.vectors.tokens[picked[lo:hi] - start], np.float32))
        start += part.num_tokens
    return np.concatenate(parts)
