"""Estimate the size of an index of token vectors, and the time to build it."""

from __future__ import annotations

from ..data.batches import MAX_FIT_DOCUMENTS
from ..fde.config import FDEConfig
from ..utils.parallel import thread_count
from .candidates import SCAN_FROM
from .settings import IndexSettings

# Bytes of a coordinate of a token.
_COORDINATES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "4bit": 0.5, "2bit": 0.25, "1bit": 0.125}

# Bytes of a token beside its coordinates, and of a document beside tokens and vector.
_FACTOR, _DOCUMENT = 3, 24

# Bytes of a vector's float in a scan: a byte, and a code of 4 bits for two floats.
_SCANNED = 1.3

# Seconds of one core at 3 GHz: to fit an encoder to a document of the sample; to encode
# a token; and to measure the recall with a document.  More documents than _MEASURED are
# not measured.
_FIT, _TOKEN, _MEASURE, _MEASURED = 6e-3, 1e-5, 3e-3, 6000


def expected_bytes(
    config: FDEConfig,
    settings: IndexSettings,
    documents: int,
    tokens: int,
    dtype: str = "float32",
    keeps_tokens: bool = True,
) -> float:
    """Return about how many bytes an index takes on disk.

    `dtype` is the type of the tokens, and `config` is sized for the documents.
    """
    stored = [settings.tokens or dtype, *([dtype] if settings.tokens and settings.keep_exact else [])]
    token = sum(_COORDINATES[kind] * config.dimension + _FACTOR for kind in stored)
    size = keeps_tokens * tokens * token + documents * _DOCUMENT
    if tokens > settings.exact_tokens:
        size += documents * _vector_bytes(config, settings.backend, documents)
        if config.needs_fit_sample:
            size += 2 * config.long_dimension * config.vector_dimension
    return size


def expected_seconds(config: FDEConfig, documents: int, tokens: int, threads: int | None = None) -> float:
    """Return about how long it takes to fit an encoder, and to encode and measure."""
    fitted = min(documents, MAX_FIT_DOCUMENTS) if config.needs_fit_sample else 0
    work = _FIT * fitted + _TOKEN * tokens + _MEASURE * min(documents, _MEASURED)
    return work / thread_count(threads)


def _vector_bytes(config: FDEConfig, backend: str, documents: int) -> float:
    width = config.vector_dimension
    scans = backend == "scan" or (backend == "auto" and documents * width >= SCAN_FROM)
    if scans:
        return _SCANNED * width
    return 4 * width + (200 if backend == "hnsw" else 0)
