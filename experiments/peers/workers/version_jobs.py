"""Jobs of one version of muvera: builds, additions and searches."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from muvera import MultiVectors, MuveraIndex

Inputs = Mapping[str, Any]
Work = Callable[[], Any]


def build(inputs: Inputs, documents: str, threads: int | None = 1) -> Work:
    """Build an index."""
    texts = MultiVectors.from_arrays(inputs[documents])
    return lambda: MuveraIndex.build(texts, threads=threads)


def search(inputs: Inputs, documents: str, queries: str, **limits: Any) -> Work:
    """Search a saved and loaded index for one query after another."""
    texts = MultiVectors.from_arrays(inputs[documents])
    # Its folder is removed when the process ends.
    folder = tempfile.TemporaryDirectory()
    MuveraIndex.build(texts, threads=1).save(Path(folder.name) / "index")
    index = MuveraIndex.load(Path(folder.name) / "index")
    asked = [[query] for query in inputs[queries]]
    return lambda: (folder, [index.search(query, 10, threads=1, **limits) for query in asked])


def add(inputs: Inputs, documents: str, added: int, threads: int | None = None) -> Work:
    """Add the last documents to an index of the others."""
    texts = MultiVectors.from_arrays(inputs[documents])
    contents = MuveraIndex.build(texts[:-added]).contents
    return lambda: MuveraIndex.of(contents).add(texts[-added:], threads=threads)
