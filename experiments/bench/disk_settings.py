"""How much a disk reads ahead, read and changed through Linux's files about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["read_ahead_of"]

_DEVICES = Path("/sys/dev/block")


@contextmanager
def read_ahead_of(folder: Path, kb: int | None = None) -> Iterator[int | None]:
    """Give the kilobytes that the disk of a folder reads ahead, set to `kb` until the end where that is given.

    Raises
    ------
    OSError
        Where they are to be set and cannot be.
    """
    number = folder.stat().st_dev
    setting = _DEVICES / f"{os.major(number)}:{os.minor(number)}" / "queue" / "read_ahead_kb"
    before = setting.read_text(encoding="ascii").strip() if setting.exists() else None
    if kb is None:
        yield None if before is None else int(before)
        return
    if before is None or not os.access(setting, os.W_OK):
        raise OSError(
            f"The read-ahead of {folder}'s disk cannot be set: {setting} is not there to be written."
        )
    setting.write_text(str(kb), encoding="ascii")
    try:
        yield int(setting.read_text(encoding="ascii"))
    finally:
        setting.write_text(before, encoding="ascii")
