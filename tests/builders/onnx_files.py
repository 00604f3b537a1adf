"""Encoders as ONNX files, run by ONNX Runtime on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from muvera import FDEEncoder, MultiVectors
from muvera.fde.encoder import onnx_model

from .fdes import Side


def session(model: str | bytes) -> Any:
    """Return a session of an ONNX file, or of its bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def session_of(encoder: FDEEncoder, side: Side) -> Any:
    """Return a session of one side of an encoder."""
    return session(onnx_model(encoder, side).SerializeToString())


def padded(texts: MultiVectors, room: int = 0, filling: float = 0) -> dict[str, NDArray[Any]]:
    """Return the inputs of texts, with `room` more rows than the longest text has.

    Rows that are not tokens have the value `filling`.
    """
    rows = int(texts.lengths.max(initial=0)) + room
    present = np.arange(rows) < texts.lengths[:, np.newaxis]
    tokens = np.full((len(texts), rows, texts.dimension), filling, np.float32)
    tokens[present] = texts.tokens
    return {"tokens": tokens, "mask": present.astype(np.int64)}


def run(session: Any, texts: MultiVectors, room: int = 0, filling: float = 0) -> NDArray[np.float32]:
    """Return the vectors of texts in one batch."""
    vectors: NDArray[np.float32] = session.run(["fde"], padded(texts, room, filling))[0]
    return vectors


def largest_error(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the largest error of a text, in shares of its largest entry."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    errors, sizes = np.abs(found - wanted).max(axis=1), np.abs(wanted).max(axis=1)
    return float(np.divide(errors, sizes, out=errors.copy(), where=sizes > 0).max(initial=0))
