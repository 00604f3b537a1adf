"""The child process of :mod:`muvera.convert.isolation`: open a file and send its token vectors.

It is started as ``python -m muvera.convert.isolated_reader DESCRIPTOR``, the end of a connection.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from .isolation import DESCRIBED, ERRORS
from .registry import open_source

__all__: list[str] = []


def main() -> None:
    """Answer one request: open the source, wait for the batch size, send the batches."""
    connection = Connection(int(sys.argv[1]))
    # The request is the parent's own pickle; nothing is unpickled in the other direction.
    request = connection.recv()
    sys.path[:] = [str(Path(entry).absolute()) for entry in sys.path]  # before the folder changes
    os.chdir(request["folder"])
    _limit(request["seconds"], request["memory_bytes"])
    try:
        _answer(request, connection)
    except EOFError:  # the parent needed only the description
        return
    except Exception as error:
        kind = next((kind.__name__ for kind in ERRORS if isinstance(error, kind)), "")
        _send(connection, error=kind, text=str(error), errno=getattr(error, "errno", None))


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


def _answer(request: dict[str, Any], connection: Connection) -> None:
    source = open_source(request["path"], request["format"], **request["options"])
    _send(connection, **{name: getattr(source, name) for name in DESCRIBED})
    for batch in source.batches(connection.recv()):
        ids = batch.ids.tolist() if batch.has_ids else None
        _send(connection, ids=ids, dtype=batch.tokens.dtype.name)
        connection.send_bytes(batch.lengths.tobytes())
        tokens = np.ascontiguousarray(batch.tokens).view(np.uint8).reshape(-1).data
        while tokens:
            tokens = tokens[os.write(connection.fileno(), tokens) :]
    _send(connection, dropped_rows=source.dropped_rows, note=source.note)


def _send(connection: Connection, **fields: Any) -> None:
    connection.send_bytes(json.dumps(fields).encode())


if __name__ == "__main__":
    main()
