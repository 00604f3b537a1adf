"""Limits of the stores on dimensions, and the sizes of FDEs that fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["LIMITS", "Limit", "check_dimension", "fitting_sizes"]


class Limit(NamedTuple):
    """Largest vector that a store takes."""

    #: What has the limit, as the beginning of a sentence.
    owner: str
    #: Dimensions of float32, or None where there is no limit.
    single: int | None
    #: Dimensions of float16, where the store has them.
    half: int | None = None


#: pgvector: src/hnsw.h (HNSW_MAX_DIM 2000, doubled for halfvec) and its README.  Qdrant: its
#: FAQ.  Milvus: its page of limits.  OpenSearch: its page of the type knn_vector.  LanceDB and FAISS document none.
LIMITS = {
    "pgvector": Limit("pgvector's HNSW index", 2_000, 4_000),
    "qdrant": Limit("Qdrant", 65_535),
    "milvus": Limit("Milvus", 32_768),
    "opensearch": Limit("OpenSearch", 16_000),
    "lancedb": Limit("LanceDB", None),
    "faiss": Limit("FAISS", None),
    "npy": Limit("A .npy file", None),
    "parquet": Limit("Parquet", None),
}

#: Sizes to propose: (num_simhash_projections, projection_dimension), large ones first.
_SHAPES = ((5, 16), (4, 16), (3, 16), (3, 8), (2, 8))

#: Fewer repetitions than this cost much recall: not proposed.
_FEWEST_REPETITIONS = 10


def fitting_sizes(limit: int, token_dimension: int, count: int = 3) -> list[tuple[int, int, int, int]]:
    """Return FDE sizes that fit into `limit` dimensions, those with larger repetitions first.

    An FDE has ``num_repetitions * 2**num_simhash_projections * projection_dimension`` dimensions, and
    ``token_dimension + 1`` of the documents' means.

    Returns
    -------
    list of (num_repetitions, num_simhash_projections, projection_dimension, dimension)
        At most `count`.

    Examples
    --------
    >>> fitting_sizes(2000, 128, count=1)
    [(14, 3, 16, 1921)]
    """
    sizes = []
    means = token_dimension + 1
    for bits, width in _SHAPES:
        block = width << bits
        repetitions = (limit - means) // block
        if repetitions >= _FEWEST_REPETITIONS:
            sizes.append((repetitions, bits, width, repetitions * block + means))
    return sizes[:count]


def check_dimension(
    dimension: int,
    target: str,
    *,
    half: bool = False,
    presets: Mapping[str, int] | None = None,
    token_dimension: int | None = None,
) -> None:
    """Raise ValueError where vectors of `dimension` do not fit into `target`.

    Parameters
    ----------
    dimension : int
        Of the FDEs.
    target : str
        A key of :data:`LIMITS`.
    half : bool
        Whether they are stored in half precision, where the target has that.
    presets : mapping of str to int, optional
        Presets and their vectors' dimensions, of which the message proposes those that fit.
    token_dimension : int, optional
        Columns of a token vector; where it is known, the message proposes sizes of FDEs.

    Raises
    ------
    ValueError
        With the limit, and what fits.
    """
    limit = LIMITS[target]
    if half and limit.half is None:
        raise ValueError(f"{limit.owner} has no half precision here: half=True is for pgvector's halfvec.")
    largest = limit.half if half else limit.single
    if largest is None or dimension <= largest:
        return
    kind = ""
    if limit.half is not None:
        kind = " in half precision" if half else " in single precision"
    fitting = [f"{name} ({size})" for name, size in (presets or {}).items() if size <= largest]
    proposed = f"Presets that fit: {', '.join(fitting)}. Or encode" if fitting else "Encode"
    smaller = "smaller num_repetitions, num_simhash_projections or projection_dimension."
    if token_dimension is not None:
        sizes = "; ".join(
            f"num_repetitions={r}, num_simhash_projections={k}, projection_dimension={p} ({size} dimensions)"
            for r, k, p, size in fitting_sizes(largest, token_dimension)
        )
        smaller = (
            f"{sizes}; or any size with final_projection='rademacher' and "
            f"final_projection_dimension={largest - token_dimension - 1} or less."
        )
    raised = ""
    if not half and limit.half is not None:
        raised = f" half=True takes {limit.half}" + (", enough here." if dimension <= limit.half else ".")
    raise ValueError(
        f"{limit.owner} takes at most {largest} dimensions{kind}, but these FDEs have {dimension}. "
        f"{proposed} with {smaller}{raised}"
    )
