"""Batches of documents with the codes that their source keeps, as those of PLAID indexes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data.batches import CodedSource, coded_source
from ..data.multivectors import MultiVectors
from ..data.sampling import as_batches
from ..reranking.codecs.base import CodedVectors
from ..reranking.codecs.residual import ResidualCodec
from .settings import SOURCE_CODES, TokenSettings

__all__ = ["batches_with_codes"]

# Tokens of a batch: 64 MiB of decoded floats at 128 dimensions.
_TOKENS = 1 << 17


def batches_with_codes(
    documents: Any, settings: TokenSettings
) -> Iterator[tuple[MultiVectors, CodedVectors | None]]:
    """Return batches of documents, with their codes where the settings say that the source has them.

    Raises
    ------
    TypeError
        Where the source has none.
    """
    if settings.codec != SOURCE_CODES:
        return ((batch, None) for batch in as_batches(documents))
    source = coded_source(documents)
    if source is None:
        raise TypeError(
            f"tokens='{SOURCE_CODES}' keeps the codes of a PLAID index, as muvera.convert.open_source opens it, but "
            f"the documents are {type(documents).__name__}. Give such a source, or choose another codec."
        )
    return _batches(source)


def _batches(source: CodedSource) -> Iterator[tuple[MultiVectors, CodedVectors]]:
    codec = ResidualCodec.of_plaid(source.centroids, source.bucket_weights)
    for documents, numbers, packed in source.coded_batches(_TOKENS):
        codes = codec.plaid_codes(np.asarray(numbers), np.ascontiguousarray(packed))
        yield documents, CodedVectors(codec, codes, documents.offsets)
