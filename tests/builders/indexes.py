"""A collection, indexes of it for every way to search, and scripts.

The scripts run in separate processes.
"""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.paths import environment
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real
from muvera import MultiVectors, MuveraIndex

DOCUMENTS = documents_like_real(200)
QUERIES = queries_like_real(DOCUMENTS, 10)
MORE = documents_like_real(220)[200:]
EMPTY = np.flatnonzero(DOCUMENTS.lengths == 0)

#: Settings for every way to search.
WAYS: dict[str, dict[str, Any]] = {
    "all tokens": {"exact_tokens": 10**6},
    "exact": {"exact_tokens": 0, "backend": "exact"},
    "hnsw": {"exact_tokens": 0, "backend": "hnsw"},
    "scan": {"exact_tokens": 0, "backend": "scan"},
}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def built(documents: Any = DOCUMENTS, encoder: Any = CONFIG, **settings: Any) -> MuveraIndex:
    """Return an index, by default of DOCUMENTS in a graph."""
    return MuveraIndex.build(documents, encoder, threads=1, **{**WAYS["hnsw"], **settings})


def answers(index: MuveraIndex, **settings: Any) -> list[list[tuple[Any, float]]]:
    return [list(ranking) for ranking in index.search(QUERIES, **{"k": 8, "candidates": 40, **settings})]


def recall(rankings: Any, expected: Any) -> float:
    """Return the share of the expected ids that are found."""
    pairs = zip(rankings, expected, strict=True)
    return float(np.mean([len(dict(a).keys() & dict(b)) / len(b) for a, b in pairs]))


def batches(documents: MultiVectors, size: int) -> Iterator[MultiVectors]:
    for start in range(0, len(documents), size):
        part = documents[start : start + size]
        yield MultiVectors.from_flat(part.tokens, part.lengths)


def with_nan(count: int) -> MultiVectors:
    tokens = np.ones((count, DIM), np.float32)
    tokens[-1, 3] = np.nan
    return MultiVectors.from_flat(tokens, [1] * count, ids=np.arange(1000, 1000 + count))


def files(folder: Path) -> list[str]:
    """Return the names of all files of an index, except its lock."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(set(names) - {".lock"})


def token_files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return name, inode, size and time of the token files.

    They show if a file was written again.
    """
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("tokens-*.npy")}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def start_script(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script, which may import builders, in a separate process."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors
