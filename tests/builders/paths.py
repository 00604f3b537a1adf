"""Paths: checkout, golden files, real collections and compiled kernels."""

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

#: Real collections beside the checkout; tests that need them are skipped if they are
#: absent.
SHARED = ROOT.parent / "shared" / "data"


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of a process that imports this checkout and builders."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **variables}


def kernel_cache() -> str:
    """Return the folder of compiled kernels for this run.

    Every process that the run starts uses it, too.

    numba finds a compiled kernel by the kernel's own file.  It sees neither edits in
    another module that the kernel calls nor other settings.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return os.environ["NUMBA_CACHE_DIR"]
    names = sorted(name for name in os.environ if name.startswith("NUMBA_") and name != "NUMBA_CACHE_DIR")
    digest = hashlib.sha256(repr([(name, os.environ[name]) for name in names]).encode())
    for path in sorted((ROOT / "muvera" / "kernels").glob("*.py")):
        digest.update(path.read_bytes())
    return str(ROOT / ".pytest_cache" / "d" / "kernels" / digest.hexdigest()[:16])
