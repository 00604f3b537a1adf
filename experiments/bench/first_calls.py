"""What a new process pays: the import, and each first call without and with the disk cache."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ..peers.environments import MUVERA, WORKERS, process_environment

__all__ = ["first_calls"]


def first_calls(repeat: int = 3) -> list[dict[str, Any]]:
    """Time what a new process pays: the import, and first calls without and with the disk cache.

    Returns
    -------
    list of dict
        ``name`` and ``seconds``, the median of `repeat` processes (compiling: of one).
    """
    found = [{"name": "import muvera", "seconds": _median(_new_process("nothing", {}), "import", repeat)}]
    for name in ("encode_documents", "encode_queries", "chamfer"):
        with tempfile.TemporaryDirectory() as folder:
            variables = {"NUMBA_CACHE_DIR": folder}
            compiling = _new_process(name, variables)()
            cached = _median(_new_process(name, variables), "first", repeat)
        found.append({"name": f"{name}, first call, compiling", "seconds": _rounded(compiling["first"])})
        found.append({"name": f"{name}, first call, from the disk cache", "seconds": cached})
    return found


def _median(measure: Callable[[], dict[str, float]], key: str, repeat: int) -> float:
    return _rounded(np.median([measure()[key] for _ in range(repeat)]))


def _new_process(name: str, variables: dict[str, str]) -> Callable[[], dict[str, float]]:
    def measure() -> dict[str, float]:
        command = [sys.executable, str(WORKERS / "first_call.py"), name]
        environment = process_environment(MUVERA, **variables)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    return measure


def _rounded(value: Any) -> float:
    return float(f"{float(value):.3g}")
