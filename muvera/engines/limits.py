"""Limits of the engines on the dimension of a vector."""

from __future__ import annotations

__all__ = ["check_dimension"]

# Engine, then the limits for float32 and float16.  pgvector: HNSW_MAX_DIM of src/hnsw.h, doubled for
# halfvec.  Qdrant: its FAQ.  Milvus: its page of limits.  LanceDB documents none.
_LIMITS = {
    "pgvector": ("pgvector's HNSW index", 2_000, 4_000),
    "qdrant": ("Qdrant", 65_535, 65_535),
    "milvus": ("Milvus", 32_768, 32_768),
}


def check_dimension(dimension: int, kind: str, *, half: bool = False) -> None:
    """Raise ValueError if an engine does not accept vectors of this dimension.

    Parameters
    ----------
    dimension : int
    kind : str
        Kind of the engine.
    half : bool
        Store the vectors as float16.
    """
    if kind not in _LIMITS:
        return
    owner, single, double = _LIMITS[kind]
    limit = double if half else single
    if dimension > limit:
        precision = "" if single == double else f" in {'half' if half else 'single'} precision"
        raise ValueError(
            f"{owner} accepts at most {limit} dimensions{precision}, but these vectors have {dimension}. "
            "Use an encoder with smaller vectors, such as encoder='moments'."
        )
