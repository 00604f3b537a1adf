"""How many functions deep a call goes: a reader has to follow all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

import muvera
from muvera import MultiVectors, MuveraIndex, PageIndex, TextIndex
from muvera.engines import EngineIndex
from muvera.pages import Page

FOLDER = str(Path(muvera.__file__).parent)

Add = Callable[[int], object]
Search = Callable[[], object]
Opened = Callable[[Path, str, ExitStack], tuple[Add, Search]]

RNG = np.random.default_rng(0)
DOCUMENTS = MultiVectors.from_arrays([RNG.normal(size=(8, 32)).astype(np.float32) for _ in range(320)])


def chain(frame: FrameType | None) -> list[str]:
    """Return the functions of muvera on the stack, the outermost first."""
    names = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(FOLDER) and (code.co_name[0] != "<" or code.co_name == "<lambda>"):
            names.append(code.co_name)
        frame = frame.f_back
    return names[::-1]


def deepest(call: Callable[[], object]) -> list[str]:
    """Return the longest chain of functions of muvera during a call."""
    longest: list[str] = []

    def entered(frame: FrameType, event: str, _: object) -> None:
        nonlocal longest
        if event == "call" and frame.f_code.co_filename.startswith(FOLDER):
            longest = max(longest, chain(frame), key=len)

    before = sys.getprofile()
    sys.setprofile(entered)
    try:
        call()
    finally:
        sys.setprofile(before)
    return longest


def vectors(tmp_path: Path, backend: str, stack: ExitStack) -> tuple[Add, Search]:
    index = MuveraIndex("fde", dimension=32, exact_tokens=0, backend=backend)
    index.add(DOCUMENTS[:300])
    return lambda i: index.add(DOCUMENTS[i : i + 1]), lambda: index.search(DOCUMENTS[5], 5)


def texts(tmp_path: Path, backend: str, stack: ExitStack) -> tuple[Add, Search]:
    TextIndex.build(["a red apple", "a green pear"], ids=["a", "b"], path=tmp_path / "texts")
    index = stack.enter_context(TextIndex.open(tmp_path / "texts"))
    return lambda i: index.add([f"apple {i}"], ids=[f"apple {i}"]), lambda: index.search("apple", 5)


def pages(tmp_path: Path, backend: str, stack: ExitStack) -> tuple[Add, Search]:
    index = PageIndex(32)
    unit = [tokens / np.linalg.norm(tokens, axis=1, keepdims=True) for tokens in DOCUMENTS]
    return lambda i: index.add([Page(unit[i], "report.pdf", i)]), lambda: index.search(unit[5], 1)


def database(tmp_path: Path, backend: str, stack: ExitStack) -> tuple[Add, Search]:
    pytest.importorskip("lancedb")
    index = stack.enter_context(EngineIndex(f"lancedb:{tmp_path}#documents"))
    index.add(DOCUMENTS[:300].with_ids(range(300)))
    return lambda i: index.add(DOCUMENTS[i : i + 1].with_ids([i])), lambda: index.search(DOCUMENTS[5], 5)


@pytest.mark.parametrize(
    ("opened", "backend"),
    [(vectors, "exact"), (vectors, "hnsw"), (texts, ""), (pages, ""), (database, "")],
)
def test_an_addition_is_at_most_15_functions_deep_and_a_search_20(
    opened: Opened, backend: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        add, search = opened(tmp_path, backend, stack)
        for i in (300, 301):  # compiles kernels
            add(i)
            search()
        additions = deepest(lambda: add(302))
        searches = deepest(search)
    assert 5 < len(additions) <= 15, " > ".join(additions)
    assert 5 < len(searches) <= 20, " > ".join(searches)
