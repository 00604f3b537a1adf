"""The numba flags of all kernels.

Kernels release the interpreter lock and use none of numba's threads, which abort if two Python threads enter them.
No fastmath: signs determine cells, and every sum keeps its written order on every machine.
"""

import os
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

#: True if compiled kernels are cached on disk.  numba's cache ignores edits in other modules.
CACHE = os.environ.get("MUVERA_KERNEL_CACHE", "1") != "0"

# numba's type stubs lack some flags.
_njit: Any = numba.njit
_FLAGS: dict[str, Any] = {"nogil": True, "cache": CACHE, "error_model": "numpy", "no_cfunc_wrapper": True}


def kernel(function: Any) -> Any:
    """Compile `function` with the project's flags."""
    return _njit(**_FLAGS)(function)


def helper(function: Any) -> Any:
    """Compile `function` for other kernels only: without the wrapper for calls from Python."""
    return _njit(**_FLAGS, no_cpython_wrapper=True)(function)


# If a process forks while another thread compiles, the child would wait for the compiler lock forever.
_compiling: Any = global_compiler_lock._lock
_held: list[bool] = []

# Seconds that a fork waits for the compiler.
_PATIENCE = 30


def _before_fork() -> None:
    _held.append(_compiling.acquire(timeout=_PATIENCE))


def _after_fork_in_parent() -> None:
    if _held.pop():
        _compiling.release()


def _after_fork_in_child() -> None:
    _held.clear()
    _compiling._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
