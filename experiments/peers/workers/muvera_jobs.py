"""Jobs of this checkout."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from muvera import FDEEncoder, MultiVectors, chamfer_matrix
from muvera.reranking.codecs import Int8Codec
from muvera.reranking.coded_vectors import CodedVectors, score_coded

Inputs = Mapping[str, Any]
Work = Callable[[], Any]


def _encoder(documents: MultiVectors) -> FDEEncoder:
    encoder = FDEEncoder.preset("simhash", documents.dimension)
    encoder.fit(documents)
    return encoder


def documents_batch(inputs: Inputs) -> Work:
    """Encode the whole batch at once."""
    documents = MultiVectors.from_arrays(inputs["documents"])
    encoder = _encoder(documents)
    return lambda: encoder.encode_documents(documents, threads=1)


def documents_paper(inputs: Inputs) -> Work:
    """Encode the whole batch with the preset paper.

    Its FDEs have the peers' 10,240 floats.
    """
    documents = MultiVectors.from_arrays(inputs["documents"])
    encoder = FDEEncoder.preset("paper", documents.dimension)
    return lambda: encoder.encode_documents(documents, threads=1)


def documents_list(inputs: Inputs) -> Work:
    """Encode the whole batch as a list of arrays, which includes joining them."""
    documents = inputs["documents"]
    encoder = _encoder(MultiVectors.from_arrays(documents))
    return lambda: encoder.encode_documents(documents, threads=1)


def documents_single(inputs: Inputs) -> Work:
    """Encode one document per call."""
    documents = inputs["documents"]
    encoder = _encoder(MultiVectors.from_arrays(documents))
    return lambda: [encoder.encode_documents(document, threads=1) for document in documents]


def query(inputs: Inputs) -> Work:
    """Encode one query."""
    encoder, tokens = _encoder(MultiVectors.from_arrays(inputs["documents"])), inputs["query"]
    return lambda: encoder.encode_queries(tokens, threads=1)


def chamfer(inputs: Inputs) -> Work:
    """Score one query with documents of equal lengths."""
    tokens, documents = inputs["query"], MultiVectors.from_arrays(inputs["equal_documents"])
    return lambda: chamfer_matrix(tokens, documents, threads=1)[0]


def candidates_float32(inputs: Inputs) -> Work:
    """Score a search's candidates."""
    tokens, documents = inputs["query"], MultiVectors.from_arrays(inputs["candidates"])
    return lambda: chamfer_matrix(tokens, documents, threads=1)[0]


def candidates_float16(inputs: Inputs) -> Work:
    """Score a search's candidates, whose tokens are float16."""
    tokens, documents = inputs["query"], MultiVectors.from_arrays(inputs["candidates"])
    halves = MultiVectors(documents.tokens.astype(np.float16), documents.offsets)
    return lambda: chamfer_matrix(tokens, halves, threads=1)[0]


def candidates_int8(inputs: Inputs) -> Work:
    """Score a search's candidates by products of int8 codes."""
    tokens, documents = inputs["query"], MultiVectors.from_arrays(inputs["candidates"])
    codec = Int8Codec.fit(np.asarray(documents.tokens, np.float32))
    codes, positions = CodedVectors.of(codec, documents), np.arange(len(documents))
    return lambda: score_coded(tokens, codec, [(codes, positions)], threads=1)
