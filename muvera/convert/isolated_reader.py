"""The child process of :mod:`muvera.convert.isolation`: opens a file and sends its token vectors.

It is started as ``python -m muvera.convert.isolated_reader`` and gets a request on its input.
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

from .isolation_headers import BatchHeader, EndHeader, ErrorHeader, SourceHeader, encoded
from .registry import open_source

__all__: list[str] = []


def main() -> None:
    """Answer one request: open the source, wait for the batches' size, send them."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    # The parent's own request; nothing is ever unpickled in the other direction.
    size = int.from_bytes(sys.stdin.buffer.read(8), "little")
    request = pickle.loads(sys.stdin.buffer.read(size))
    sys.path[:] = [str(Path(entry).absolute()) for entry in sys.path]  # not from the user's folder
    os.chdir(request["folder"])
    _limit(request["seconds"], request["memory_bytes"])
    try:
        _answer(request, answers)
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        answers.write(encoded(ErrorHeader(_kind(error), str(error), number)))
    answers.flush()


def _limit(seconds: float, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    spent = resource.getrusage(resource.RUSAGE_SELF)  # until here, for imports
    _lower(resource.RLIMIT_CPU, math.ceil(spent.ru_utime + spent.ru_stime + seconds))
    # Memory of its own alone, so that a file of any size can be mapped.
    _lower(resource.RLIMIT_DATA, memory_bytes)


def _lower(limit: int, value: int) -> None:
    """Set a limit, unless there is a lower one already."""
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _answer(request: dict[str, Any], answers: IO[bytes]) -> None:
    source = open_source(request["path"], request["format"], **request["options"])
    answers.write(
        encoded(
            SourceHeader(
                name=source.name,
                dimension=source.dimension,
                num_documents=source.num_documents,
                num_tokens=source.num_tokens,
                lossy=bool(source.lossy),
                nbits=source.nbits,
            )
        )
    )
    answers.flush()
    line = sys.stdin.buffer.readline()
    if not line:  # the parent only wanted to know what there is
        return
    for batch in source.batches(int(line)):
        ids = batch.ids.tolist() if batch.has_ids else None
        answers.write(encoded(BatchHeader(len(batch), batch.num_tokens, batch.tokens.dtype.name, ids)))
        answers.write(np.ascontiguousarray(batch.lengths, np.int64).data)
        answers.write(np.ascontiguousarray(batch.tokens).data)
        answers.flush()
    dropped, note = int(getattr(source, "dropped_rows", 0)), getattr(source, "note", None)
    answers.write(encoded(EndHeader(dropped, note)))


def _kind(error: Exception) -> str:
    """Return the name of the error's nearest class that the parent knows, or of its own."""
    known = (
        pickle.UnpicklingError,
        FileNotFoundError,
        PermissionError,
        BlockingIOError,
        OSError,
        ImportError,
    )
    return next((kind.__name__ for kind in known if isinstance(error, kind)), type(error).__name__)


if __name__ == "__main__":
    main()
