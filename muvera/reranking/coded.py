"""Chamfer similarities of queries with coded texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.validation import read_only_view
from ..kernels.code_scores import score_codes
from ..utils.parallel import run_in_ranges, thread_count
from .codecs.base import CodedVectors, TokenCodec

__all__ = ["CodedSlice", "score_coded"]

#: Coded texts, positions of candidates in them, and the places of their scores in the result.
CodedSlice = tuple[CodedVectors, NDArray[np.int64], NDArray[np.int64]]


def score_coded(
    query: NDArray[np.float32],
    codec: TokenCodec,
    slices: Sequence[CodedSlice],
    size: int,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the scores of one query's candidates, float32 (size,), -inf for those without tokens.

    They are Chamfer similarities of the tokens that the codes stand for with the query, both rounded to
    bytes: near enough to choose the best few, which are then to be scored without that rounding.

    Parameters
    ----------
    query : float32 (m, dimension)
        Tokens of the query, at least one.
    codec : TokenCodec
        Of all slices.
    slices : sequence of CodedSlice
    size : int
        Number of candidates in all slices.
    threads : int, optional
        Default: all usable cores.  No score depends on it.
    """
    rounded, layout = codec.query(query), codec.layout
    out = np.empty(size, np.float32)
    workers = thread_count(threads)

    def work(start: int, stop: int) -> None:
        for worker in range(start, stop):
            for texts, positions, places in slices:
                # Contiguous, or the kernel is compiled once more for steps.
                own = np.ascontiguousarray(positions[worker::workers])
                scores = np.empty(len(own), np.float32)
                score_codes(
                    read_only_view(texts.tokens).reshape(-1), texts.offsets, own,
                    codec.bytes_per_token, codec.dimension, layout.id_bytes, layout.centers, layout.table,
                    layout.nibbles, layout.words, rounded.packed, rounded.biases, rounded.units,
                    rounded.constants, False, scores,
                )  # fmt: skip
                out[places[worker::workers]] = scores

    run_in_ranges(work, [(worker, worker + 1) for worker in range(workers)], threads)
    return out
