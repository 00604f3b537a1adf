"""The child process of :mod:`muvera.convert.isolation`: convert a file to a folder, and report on it."""

from __future__ import annotations

import json
import math
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from .isolation import ERRORS
from .pipeline import convert

__all__: list[str] = []


def main() -> None:
    """Answer the request in the arguments."""
    request = json.loads(sys.argv[1])
    folder = Path(request["folder"])
    _limit(request["seconds"], request["memory_bytes"], shutil.disk_usage(folder).free // 2)
    try:
        done = convert(request["path"], folder / "tokens", format=request["format"], **request["options"])
        reported = ("format", "lossy", "nbits", "dropped_rows", "notes")
        report: dict[str, Any] = {name: getattr(done, name) for name in reported}
    except Exception as error:
        kind = next((kind.__name__ for kind in ERRORS if isinstance(error, kind)), "")
        report = {"error": kind, "text": str(error), "errno": getattr(error, "errno", None)}
    Path(folder, "report.json").write_text(json.dumps(report))


def _limit(seconds: float, memory_bytes: int, file_bytes: int) -> None:
    _lower(resource.RLIMIT_CORE, 0)
    spent = resource.getrusage(resource.RUSAGE_SELF)  # by the imports
    _lower(resource.RLIMIT_CPU, math.ceil(spent.ru_utime + spent.ru_stime + seconds))
    # Own memory only, so that a file of any size can be mapped.
    _lower(resource.RLIMIT_DATA, memory_bytes)
    # A hostile file may contain few bytes and many tokens, which must not fill the disk.
    _lower(resource.RLIMIT_FSIZE, file_bytes)


def _lower(limit: int, value: int) -> None:
    """Set a limit unless it is lower already."""
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    main()
