"""Print as JSON the seconds of ``import muvera`` and of the first two calls of one function."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def calls(muvera: Any) -> dict[str, Callable[[], Any]]:
    """Return the functions to time, with a few small documents as input."""
    from muvera.encoders.moment_blocks import default_blocks

    stream = np.random.default_rng(0)
    documents = [stream.normal(size=(20, 128)).astype(np.float32) for _ in range(8)]
    # Instead of fitting, whose time is not the question.
    fitted: dict[str, Any] = {"center": np.zeros(128, np.float32), "blocks": default_blocks(128, False)}
    encoder = muvera.FDEEncoder(muvera.FDEConfig(dimension=128), **fitted)
    return {
        "nothing": lambda: None,
        "encode_documents": lambda: encoder.encode_documents(documents),
        "encode_queries": lambda: encoder.encode_queries(documents),
        "chamfer": lambda: muvera.chamfer_matrix(documents[:1], documents),
    }


def main() -> None:
    """Measure in this process, which is new."""
    start = time.perf_counter()
    import muvera

    found = {"import": time.perf_counter() - start}
    work = calls(muvera)[sys.argv[1]]
    for name in ("first", "second"):
        start = time.perf_counter()
        work()
        found[name] = time.perf_counter() - start
    print(json.dumps(found))


if __name__ == "__main__":
    main()
