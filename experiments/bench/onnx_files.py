"""ONNX files of encoders: their errors, sizes and times beside the encoders'."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import FDEEncoder
from muvera.data.demo_sample import load_demo_sample
from muvera.fde.config import PRESETS
from muvera.fde.encoder import onnx_model
from muvera.fde.tasks import Side
from muvera.utils.checks import import_extra

from ..report.table import Column, Table
from .plumbing import Rounds, Save, finish, interleaved, measured_on, progress, timed

_SIDES: tuple[Side, Side] = ("queries", "documents")


def measure(preset: str, side: Side, count: int, rounds: int) -> dict[str, Any]:
    """Return a row: the first texts of the demo's sample, one at a time, one thread."""
    runtime = import_extra("onnxruntime", "test", "This bench")
    sample = load_demo_sample()
    encoder = FDEEncoder.preset(preset, sample.documents.dimension).fit(sample.documents)
    texts = (sample.queries if side == "queries" else sample.documents)[:count]
    model = onnx_model(encoder, side).SerializeToString()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    encode = encoder.encode_queries if side == "queries" else encoder.encode_documents
    single = [np.ascontiguousarray(text, np.float32) for text in texts]
    inputs = [{"tokens": text[None], "mask": np.ones((1, len(text)), np.int64)} for text in single]

    def ours() -> list[NDArray[np.float32]]:
        return [encode(text, threads=1)[0] for text in single]

    def theirs() -> list[NDArray[np.float32]]:
        return [session.run(None, each)[0][0] for each in inputs]

    pairs = list(zip(theirs(), ours(), strict=True))
    seconds = interleaved({"onnx": timed(theirs), "muvera": timed(ours)}, rounds)
    times = {name: float(np.median(each[0])) / len(single) for name, each in seconds.items()}
    return {
        "preset": preset,
        "side": side,
        "bytes": len(model),
        "error": max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs),
        "muvera": 1e3 * times["muvera"],
        "onnx": 1e3 * times["onnx"],
        "ratio": times["onnx"] / times["muvera"],
    }


def onnx(rounds: Rounds = 7, save: Save = False) -> None:
    """Measure encoders as ONNX files: errors, sizes and times."""
    rows = []
    for preset in PRESETS:
        progress(preset)
        rows += [measure(preset, side, 24, rounds) for side in _SIDES]
    columns = [
        *(Column("preset"), Column("side"), Column("file", lambda row: row["bytes"] / 1e6, "{:.2f}", "MB")),
        Column("largest error", "error", "{:.0e}"),
        *(Column("muvera", "muvera", "{:.3f}", "ms"), Column("ONNX Runtime", "onnx", "{:.3f}", "ms")),
        Column("ratio", "ratio", "{:.1f}x"),
    ]
    caption = (
        "Encoders of 128 columns, as ONNX files and as they are: the first 24 queries or documents of the "
        "demo's sample, one text at a time on one thread, wall time per text, median of "
        f"{rounds} interleaved rounds. Errors are shares of a vector's largest entry. {measured_on()}"
    )
    finish("onnx", "The encoder in another language", [Table.of("ONNX files", columns, rows, caption)], save)
