"""Provenance of results: the machine, versions of libraries, the checkout's commit."""

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

_PACKAGES = ("numpy", "numba", "scipy", "hnswlib", "bm25s", "ir-measures", "PyYAML")


def machine() -> dict[str, Any]:
    """Return the facts that times depend on.

    They are the processor, its load, Python and the numerical libraries.
    """
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    kernels = [
        str(library.get("architecture"))
        for library in threadpool_info()
        if library["user_api"] == "blas" and "numpy" in library["filepath"]
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "scipy")},
        "blas_kernel": kernels[0] if kernels else None,
    }


def machine_text(on: dict[str, Any]) -> str:
    """Describe the machine and the versions that results were measured with."""
    return (
        f"{on['processor']}, {on['cores']} cores (load {on['load']} at the start), Python {on['python']}, "
        f"NumPy {on['numpy']}, numba {on['numba']}"
    )


def provenance() -> dict[str, Any]:
    """Return versions of libraries and peers, and the checkout's commit."""
    versions: dict[str, Any] = {"muvera": muvera.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions |= {name: library.requirement for name, library in PEERS.items()}
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short=8", "HEAD")
        # A command that stores results changes only these files.
        changed = _git(here, "status", "--porcelain", "-uno", "--", ":/", ":!/experiments/results")
        versions["commit"] = (commit + ("-dirty" if changed else "")) or None
    except OSError:  # no git
        versions["commit"] = None
    return versions


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip()
