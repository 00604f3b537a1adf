"""Embeddings in memory, in every shape that encoders return."""

import weakref
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.tensors import FakeTensor
from builders.token_collections import assert_same, collection

from muvera.convert import convert, read, survey
from muvera.data.multivectors import MultiVectors


def padded(arrays: list[np.ndarray], side: str = "right") -> tuple[np.ndarray, np.ndarray]:
    """Pad with zero rows on one side; return the batch and its mask."""
    missing = [max(map(len, arrays)) - len(array) for array in arrays]
    rows = [(0, count) if side == "right" else (count, 0) for count in missing]
    batch = np.stack([np.pad(array, (own, (0, 0))) for array, own in zip(arrays, rows, strict=True)])
    return batch, np.asarray(batch.any(axis=2), np.int64)


def same(found: MultiVectors, arrays: list[np.ndarray]) -> None:
    assert_same(MultiVectors(found.tokens, found.offsets), MultiVectors.from_arrays(arrays))


A = list(collection([3, 1, 4]))
RIGHT, MASK = padded(A)
LEFT, LEFT_MASK = padded(A, "left")

SHAPES = {
    "list of arrays": A,
    "tuple of arrays": tuple(A),
    "list of tensors on a device": [FakeTensor(a) for a in A],
    "bfloat16 tensors": [FakeTensor(a, "torch.bfloat16") for a in A],
    "nested lists": [a.tolist() for a in A],
    "MultiVectors": MultiVectors.from_arrays(A),
    "PyLate with padding=True": [row[None] for row in RIGHT],
    "PyLate with output_value=None": [
        {"token_embeddings": FakeTensor(row), "attention_mask": np.ones(4), "masks": mask, "input_ids": mask}
        for row, mask in zip(RIGHT, MASK, strict=True)
    ],
    "MultiVectorEncoder with output_value=None": {
        "token_embeddings": FakeTensor(LEFT), "attention_mask": FakeTensor(LEFT_MASK, "torch.int64"),
    },
    "BGE-M3": {"dense_vecs": np.ones((3, 4)), "lexical_weights": [], "colbert_vecs": A},
    "ColPali padded on the right": FakeTensor(RIGHT, "torch.bfloat16"),
    "padded batches": [RIGHT[:2], RIGHT[2:]],
    "padded batches with masks": [{"embeddings": LEFT, "attention_mask": LEFT_MASK}],
    "one text a dict with a mask": {"token_embeddings": list(RIGHT), "attention_mask": list(MASK)},
    "an API's answer": {"data": [{"index": i, "embeddings": A[i].tolist()} for i in (2, 0, 1)], "usage": {}},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_texts(shape: str) -> None:
    same(read(SHAPES[shape]), A)


def test_one_text_and_precisions() -> None:
    assert read([a.astype(np.float16) for a in A]).tokens.dtype == np.float16
    assert read([a.astype(np.float64) for a in A]).tokens.dtype == np.float32
    for value in (A[1], FakeTensor(A[1]), {"token_embeddings": RIGHT[1], "attention_mask": MASK[1]}):
        same(read(value), A[1:2])


def test_ids_and_masks() -> None:
    documents = read(FakeTensor(LEFT), mask=FakeTensor(LEFT_MASK, "torch.bool"), ids=["x", "y", "z"])
    same(documents, A)
    assert documents.ids.tolist() == ["x", "y", "z"]
    assert read(A, ids=[7, 8, 9]).ids.tolist() == [7, 8, 9]
    assert read(MultiVectors.from_arrays(A, ids=["p", "q", "r"]), ids=[1, 2, 3]).ids.tolist() == [1, 2, 3]
    named = read({"b": A[0], "a": A[1].tolist()})
    same(named, A[:2])
    assert named.ids.tolist() == ["b", "a"]


def test_rows_of_zeros_are_padding_unless_a_mask_keeps_them() -> None:
    batch = RIGHT.copy()
    batch[0, 1] = 0
    assert read(batch, mask=MASK).lengths.tolist() == [3, 1, 4]
    assert read(batch).lengths.tolist() == [2, 1, 4]
    assert read({"token_embeddings": RIGHT, "attention_mask": MASK * 0}).lengths.tolist() == [0, 0, 0]
    assert read([np.zeros((0, 4), np.float32), A[0], []]).lengths.tolist() == [0, 3, 0]


@pytest.mark.parametrize(
    ("texts", "dropped"),
    [(RIGHT, 4), ([row[None] for row in LEFT], 4), (A, 0)],
    ids=["batch", "list", "flat"],
)
def test_dropped_rows_are_counted(texts: Any, dropped: int) -> None:
    assert survey(texts).dropped_rows == dropped


def test_a_generator_is_read_once_and_piece_by_piece(tmp_path: Path) -> None:
    waiting: set[int] = set()

    def embed() -> Iterator[np.ndarray]:
        for i in range(50):
            array = np.full((10, 4), 1 + i, np.float32)
            waiting.add(i)
            weakref.finalize(array, waiting.remove, i)
            assert len(waiting) < 8
            yield array

    generator = embed()
    assert convert(generator, tmp_path / "out", max_tokens=20).read.documents == 50
    np.testing.assert_array_equal(MultiVectors.load(tmp_path / "out")[49], np.full((10, 4), 50))
    with pytest.raises(ValueError, match="no document with a token"):
        read(generator)


@pytest.mark.parametrize(
    ("value", "options", "kind", "message"),
    [
        (3, {}, TypeError, "got int"),
        ([], {}, ValueError, "no document with a token"),
        ([np.ones(4)], {}, ValueError, r"item 0 has shape \(4,\), .*one vector per text"),
        (["a text"], {}, TypeError, "item 0 must be token vectors, got the text"),
        ([np.ones((2, 4), np.int8)], {}, TypeError, "item 0 .*int8"),
        ([A[0], np.ones((2, 3))], {}, ValueError, "document 1 has shape .* dimension=4"),
        ([np.ones((1, 2, 3, 4))], {}, ValueError, r"item 0 has shape \(1, 2, 3, 4\)"),
        ([{"embeddings": A[0], "mask": [1, 1]}], {}, ValueError, r"\(1, 2\), but .* \(1, 3\)"),
        ({"dense_vecs": np.ones((2, 4))}, {}, ValueError, "return_colbert_vecs=True"),
        ({"x": 1}, {}, ValueError, "A dict with the keys 'x'"),
        ([A[0], A[1] * 1e19], {}, ValueError, "document 1 has .* in its token 0"),
        ([A[0], np.ma.masked_less(A[1], 9)], {}, TypeError, "item 1 .*masked"),
        (A, {"ids": ["a", "b", "c", "d"]}, ValueError, "ids has 4 entries for 3 texts"),
        (repeat(A[0]), {"ids": ["a", "b"]}, ValueError, "ids has 2 entries, but there are more texts"),
        (RIGHT, {"mask": np.ones((3, 2))}, ValueError, r"mask has shape \(3, 2\)"),
        (A, {"mask": MASK}, ValueError, r"item 0: its mask has shape \(1, 4\)"),
    ],
)
def test_bad_objects_are_refused(value: Any, options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        read(value, **options)
