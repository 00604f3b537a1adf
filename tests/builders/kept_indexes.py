"""An index to be saved, damaged and loaded again, and scripts that work on it in processes of their own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from builders.paths import ROOT
from builders.realistic_collections import CONFIG, documents_like_real, queries_like_real
from muvera import MuveraIndex

__all__ = [
    "DOCUMENTS",
    "MORE",
    "QUERIES",
    "WAYS",
    "answers",
    "built",
    "ended",
    "files",
    "start_script",
    "token_files",
]

DOCUMENTS = documents_like_real(200)
QUERIES = queries_like_real(DOCUMENTS, 8)
MORE = documents_like_real(220)[200:]

#: The ways that an index searches, by name.
WAYS: dict[str, dict[str, Any]] = {
    "all tokens": {"exact_tokens": 10**6},
    "exact": {"exact_tokens": 0, "backend": "exact"},
    "hnsw": {"exact_tokens": 0, "backend": "hnsw"},
    "usearch": {"exact_tokens": 0, "backend": "usearch"},
}


def built(**settings: Any) -> MuveraIndex:
    """Return an index of DOCUMENTS, by a graph unless the settings say otherwise."""
    return MuveraIndex.build(DOCUMENTS, CONFIG, threads=1, **{**WAYS["hnsw"], **settings})


def answers(index: MuveraIndex) -> list[list[tuple[Any, float]]]:
    """Return what QUERIES find."""
    return [list(ranking) for ranking in index.search(QUERIES, k=8, candidates=30)]


def files(folder: Path) -> list[str]:
    """Return the names of all files of an index, but for its lock."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(set(found) - {".lock"})


def token_files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return name, inode, size and time of what must not be written twice."""
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("tokens-*.npy")}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def start_script(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script, which may import what is here, in a process of its own."""
    places = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process; return its code and what it printed."""
    printed, complained = process.communicate(timeout=300)
    return process.returncode, printed, complained
