"""Bare .pt files and pickles with arrays."""

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import write_pt
from builders.token_collections import assert_same, collection, everything

from muvera.convert import open_source, read

DOCS = collection([3, 1, 2], ids=["a", "b", "c"])
ARRAYS = [np.asarray(tokens) for tokens in DOCS]
PADDED = np.zeros((3, 3, 4), np.float32)
for row, tokens in zip(PADDED, ARRAYS, strict=True):
    row[: len(tokens)] = tokens
LISTS = [tokens.tolist() for tokens in ARRAYS]
OBJECTS = np.empty(3, object)
OBJECTS[:] = ARRAYS


def pickled(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def many_times(value: Any) -> Any:
    """Return a list of 10**30 numbers in few bytes."""
    for _ in range(30):
        value = [value] * 10
    return value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (ARRAYS, False),
        (tuple(ARRAYS), False),
        (PADDED, False),
        (OBJECTS, False),
        (dict(zip("abc", ARRAYS, strict=True)), True),
        ({"embeddings": ARRAYS, "ids": ["a", "b", "c"]}, True),
        (LISTS, False),
        (dict(zip("abc", LISTS, strict=True)), True),
        ({"embeddings": LISTS, "ids": ["a", "b", "c"], "texts": [["x"]]}, True),
        ({"embeddings": PADDED, "mask": PADDED.any(axis=2), "ids": np.array(["a", "b", "c"])}, True),
    ],
    ids=[
        "list",
        "tuple",
        "padded",
        "objects",
        "by id",
        "with ids",
        "lists",
        "lists by id",
        "lists with ids",
        "with a mask",
    ],
)
def test_pickles(tmp_path: Path, value: Any, named: bool, protocol: int) -> None:
    source = open_source(pickled(tmp_path / "docs.pkl", value, protocol))
    assert source.name == "pickle"
    assert_same(everything(source), DOCS if named else collection([3, 1, 2]))


@pytest.mark.parametrize("container", ["list", "tuple"])
def test_tensors_in_a_list(tmp_path: Path, container: str) -> None:
    write_pt(tmp_path / "docs.pt", *ARRAYS, container=container)
    source = open_source(tmp_path / "docs.pt")
    assert source.name == "pt"
    assert_same(everything(source), collection([3, 1, 2]))


def test_a_padded_tensor(tmp_path: Path) -> None:
    write_pt(tmp_path / "docs.pt", PADDED)
    assert_same(read(tmp_path / "docs.pt"), collection([3, 1, 2]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, "must contain token vectors as arrays, tensors or .* got dict"),
        ([], "must contain token vectors"),
        ("text", "must contain token vectors"),
        ([[1.0, 2.0]], "must contain token vectors"),
        ([np.ones((2, 4), np.float32)] * 50_000, "more bytes than the file"),
        ([[[1.0, 2.0]], [["a"]]], "got nested lists of other values"),
        ([[[1.0, 2.0]], [[1.0], [2.0, 3.0]]], "item 1 is not a rectangular array"),
        ([[[1.0] * 1000] * 1000] * 1000, "more numbers than the file"),
        ([ARRAYS[0], many_times([1.0])], "got nested lists of other values"),
        (Path("x"), "which is not plain data"),
    ],
    ids=[
        "numbers",
        "nothing",
        "text",
        "lists",
        "one array many times",
        "words",
        "ragged",
        "one list many times",
        "an array and one list many times",
        "code",
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, value: Any, message: str) -> None:
    path = pickled(tmp_path / "docs.pkl", value)
    begun = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert time.process_time() - begun < 2


def test_one_list_under_many_keys_takes_no_time(tmp_path: Path) -> None:
    long = [None] * 50_000
    path = pickled(tmp_path / "docs.pkl", {str(i): long for i in range(50_000)})
    begun = time.process_time()
    with pytest.raises(ValueError, match="must contain token vectors"):
        read(path)
    assert time.process_time() - begun < 5
