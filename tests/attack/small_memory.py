"""Build, search and change an index in a third of the memory that it takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attack.processes import forked
from experiments.bench.cold import limited_group
from muvera import MultiVectors, MuveraIndex

_BATCH, _LENGTH, _DIMENSION = 1_000, 100, 128

#: Megabytes of a batch of documents, stored as float16.
_BATCH_MEGABYTES = _BATCH * _LENGTH * _DIMENSION * 2 / 1e6

#: The folder must be on a disk: files in memory would count.
_DISK = "/var/tmp"


def can_limit() -> bool:
    """Return True if this process may limit its memory."""
    try:
        with limited_group(1 << 30):
            return True
    except OSError:
        return False


def _documents(batch: int) -> MultiVectors:
    tokens = np.random.default_rng(batch).standard_normal((_BATCH * _LENGTH, _DIMENSION), np.float32)
    ids = range(batch * _BATCH, (batch + 1) * _BATCH)
    return MultiVectors.from_flat(tokens.astype(np.float16), [_LENGTH] * _BATCH, ids=ids)


def _work(folder: Path, batches: int, limit: int, searches: int) -> None:
    small = MuveraIndex.build(_documents(0)[:200], "mean", exact_tokens=0)  # compiles
    small.search(_documents(0)[:1])

    def documents() -> Iterator[MultiVectors]:
        yield from (_documents(batch) for batch in range(batches))

    with limited_group(limit):
        MuveraIndex.build(documents(), "mean", path=folder, exact_tokens=0)
        index = MuveraIndex.load(folder)
        stream = np.random.default_rng(0)
        for number in stream.integers(0, batches * _BATCH, searches).tolist():
            batch, row = divmod(number, _BATCH)
            query = _documents(batch)[row][:32]
            found = index.search([query], 1)[0].ids.tolist()
            assert found == [number], f"document {number} is not the best of its tokens: {found}"
        index.delete(range(_BATCH))
        index.add(_documents(batches))
        index.save(folder)
        index.rebuild(path=folder)
    loaded = MuveraIndex.load(folder, verify_files=True)
    assert len(loaded) == batches * _BATCH and batches * _BATCH in loaded and 0 not in loaded


def use(megabytes: int, searches: int) -> tuple[int, list[str]]:
    """Build an index of three times this much memory, search it and change it.

    Return the number of searches, and the faults.
    """
    batches = round(3 * megabytes / _BATCH_MEGABYTES)
    with tempfile.TemporaryDirectory(dir=_DISK) as parent:
        child = forked(lambda: _work(Path(parent, "index"), batches, megabytes * 10**6, searches))
        _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    return searches, [f"an index of three times the memory: the process ended with {ended}"] * bool(ended)
