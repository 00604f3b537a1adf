"""Locks in a process that forks while other threads hold them.

A child process has only the thread that forked, so a lock of another thread would never be released.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakSet

__all__ = ["hold_during_fork", "renew_after_fork"]

_OWNERS: WeakSet[Any] = WeakSet()
_DATABASES: WeakSet[Any] = WeakSet()
_held: list[Any] = []

# Seconds that a fork waits for a lock.
_PATIENCE = 10


def renew_after_fork(owner: Any) -> None:
    """Call ``owner._renew_locks()`` in every child process."""
    _OWNERS.add(owner)


def hold_during_fork(owner: Any) -> None:
    """Hold ``owner._locks`` during a fork, because the library that they protect has locks, too; then renew them."""
    _DATABASES.add(owner)
    _OWNERS.add(owner)


def _before() -> None:
    locks = [lock for owner in list(_DATABASES) for lock in owner._locks]
    _held.extend(lock for lock in locks if lock.acquire(timeout=_PATIENCE))


def _in_parent() -> None:
    while _held:
        _held.pop().release()


def _in_child() -> None:
    _held.clear()
    for owner in list(_OWNERS):
        owner._renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
