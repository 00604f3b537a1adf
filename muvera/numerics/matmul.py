"""Products of large matrices whose bits do not depend on the number of threads or cores.

BLAS splits a product by the number of its threads, which changes the order of its sums: maps that are
learned on two cores would differ from those that are learned on four.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from ..kernels.final_projections import PRODUCT_DEPTH, add_product, pack_map
from ..utils.parallel import run_in_ranges

__all__ = ["one_blas_thread", "product"]

# Number of rows in a task; each task reads the whole right matrix once.
_TASK_ROWS = 192


def product(
    left: NDArray[np.float32], right: NDArray[np.float32], threads: int | None = None
) -> NDArray[np.float32]:
    """Return ``left @ right``, float32 (n, m), by the library's own kernel.

    Parameters
    ----------
    left : float32 (n, k)
    right : float32 (k, m)
        The factors.
    threads : int, optional
        Default: all usable cores.
    """
    left = np.ascontiguousarray(left, np.float32)
    out = np.zeros((len(left), right.shape[1]), np.float32)
    packed = pack_map(np.asarray(right, np.float32))

    def work(start: int, stop: int) -> None:
        add_product(left[start:stop], packed, PRODUCT_DEPTH, out[start:stop])

    starts = range(0, len(left), _TASK_ROWS)
    run_in_ranges(work, [(start, min(start + _TASK_ROWS, len(left))) for start in starts], threads)
    return out


class _BlasLimit:
    """One limit for all threads of the process: the last to leave restores what the first found."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._limits: Any = None

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._limits = _controller().limit(limits=1, user_api="blas")
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limits.restore_original_limits()


_BLAS_LIMIT = _BlasLimit()


def _controller() -> ThreadpoolController:
    # SciPy brings a BLAS of its own, which must be loaded before it can be limited.
    import scipy.linalg  # noqa: F401

    return _libraries(len(sys.modules))


@lru_cache(maxsize=1)
def _libraries(num_modules: int) -> ThreadpoolController:
    # Looking for the libraries takes longer than a small product, and finds others only after imports.
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside the context; restore the former limit afterwards.

    The limit is the whole process's: threads that are inside at the same time share it.
    """
    _BLAS_LIMIT.enter()
    try:
        yield
    finally:
        _BLAS_LIMIT.leave()
