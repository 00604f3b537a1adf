"""One folder of compiled kernels for a test run and for every process that it starts.

numba finds a compiled kernel by the kernel's own file.  It sees neither edits in another module that
the kernel calls nor other settings, so the folder's name is a hash of all that a kernel depends on.
Each worker of pytest-xdist has a folder of its own: two processes that write different overloads of one
kernel at the same time may leave an index that names the wrong one.
"""

import hashlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from llvmlite import binding

#: Environment variables of numba that change the location of kernels, but not their code.
_WHERE = {"NUMBA_CACHE_DIR"}


def kernel_cache_folder(root: Path) -> str:
    """Return the folder below `root`'s pytest cache for today's kernels, settings and processor.

    If NUMBA_CACHE_DIR is set, its folder is used unchanged, but not by several workers.
    """
    if "NUMBA_CACHE_DIR" in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
        return os.environ["NUMBA_CACHE_DIR"]
    parts = [sys.version, platform.machine(), binding.get_host_cpu_name()]
    parts.append(binding.get_host_cpu_features().flatten())
    parts += [f"{name} {version(name)}" for name in ("numba", "llvmlite", "numpy")]
    parts += sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name not in _WHERE
    )
    digest = hashlib.sha256("\n".join(parts).encode())
    for path in sorted((root / "muvera" / "kernels").rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return str(root / ".pytest_cache" / "d" / "kernels" / digest.hexdigest()[:16] / worker)
