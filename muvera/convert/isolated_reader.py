"""The child process of :mod:`muvera.convert.isolation`: open a file and send its token vectors.

It is started as ``python -m muvera.convert.isolated_reader`` and reads a request from its input.
"""

from __future__ import annotations

import math
import os
import pickle
import resource
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from .isolation import encode_header
from .registry import open_source

__all__: list[str] = []

# Error classes that the parent can raise, subclasses before their bases.
_KINDS = (
    pickle.UnpicklingError, FileNotFoundError, PermissionError, BlockingIOError, OSError, ImportError,
    MemoryError, TypeError, ValueError,
)  # fmt: skip


def main() -> None:
    """Answer one request: open the source, wait for the batch size, send the batches."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text that a library prints must not mix with the answers
    # The request is the parent's own pickle; nothing is unpickled in the other direction.
    size = int.from_bytes(sys.stdin.buffer.read(8), "little")
    request = pickle.loads(sys.stdin.buffer.read(size))
    sys.path[:] = [str(Path(entry).absolute()) for entry in sys.path]  # before the folder changes
    os.chdir(request["folder"])
    _limit(request["seconds"], request["memory_bytes"])
    try:
        _answer(request, answers)
    except Exception as error:
        kind = next((kind.__name__ for kind in _KINDS if isinstance(error, kind)), type(error).__name__)
        number = error.errno if isinstance(error, OSError) else None
        answers.write(encode_header("error", kind=kind, text=str(error), errno=number))
    answers.flush()


def _limit(seconds: float, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    spent = resource.getrusage(resource.RUSAGE_SELF)  # by the imports
    _lower(resource.RLIMIT_CPU, math.ceil(spent.ru_utime + spent.ru_stime + seconds))
    # Own memory only, so that a file of any size can be mapped.
    _lower(resource.RLIMIT_DATA, memory_bytes)


def _lower(limit: int, value: int) -> None:
    """Set a limit unless it is lower already."""
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _answer(request: dict[str, Any], answers: IO[bytes]) -> None:
    source = open_source(request["path"], request["format"], **request["options"])
    names = ("name", "dimension", "num_documents", "num_tokens", "lossy", "nbits")
    answers.write(encode_header("source", **{name: getattr(source, name) for name in names}))
    answers.flush()
    line = sys.stdin.buffer.readline()
    if not line:  # the parent needed only the header
        return
    for batch in source.batches(int(line)):
        ids = batch.ids.tolist() if batch.has_ids else None
        dtype = batch.tokens.dtype.name
        answers.write(
            encode_header("batch", documents=len(batch), rows=batch.num_tokens, dtype=dtype, ids=ids)
        )
        answers.write(np.ascontiguousarray(batch.lengths, np.int64).data)
        answers.write(np.ascontiguousarray(batch.tokens).data)
        answers.flush()
    answers.write(encode_header("end", dropped_rows=source.dropped_rows, note=source.note))


if __name__ == "__main__":
    main()
