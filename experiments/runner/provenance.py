"""What measured: the machine, versions of libraries, the checkout's commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

import muvera

from ..peers.environments import PEERS

__all__ = ["machine", "provenance"]

_PACKAGES = ("numpy", "numba", "scipy", "hnswlib", "bm25s", "ir-measures", "PyYAML")


def machine() -> dict[str, Any]:
    """Return what times depend on: the processor, its load, Python and the numerical libraries."""
    information = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (information.read_text(encoding="utf-8").splitlines() if information.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "scipy")},
        "blas_kernel": _blas_kernel(),
    }


def _blas_kernel() -> str | None:
    """Return which kernel NumPy's BLAS takes on this processor, such as "SkylakeX"."""
    for library in threadpool_info():
        if library["user_api"] == "blas" and "numpy" in library["filepath"]:
            return str(library.get("architecture"))
    return None


def provenance() -> dict[str, Any]:
    """Return versions of what measures, and the checkout's commit."""
    versions: dict[str, Any] = {"muvera": muvera.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions |= {name: library.requirement for name, library in PEERS.items()}
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        versions["commit"] = done.stdout.strip() or None
    except OSError:  # no git
        versions["commit"] = None
    return versions
