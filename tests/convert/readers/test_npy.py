"""NumPy files of every layout, whole and damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert.parsing.safe_pickle import RefusedPickleError
from muvera.convert.readers import npy
from muvera.data.multivectors import MultiVectors

LENGTHS = [3, 0, 1, 2]


def save(folder: Path, **arrays: Any) -> Path:
    """Write each array as .npy, each list as .json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in arrays.items():
        if isinstance(value, list):
            (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
        else:
            np.save(folder / f"{name}.npy", value, allow_pickle=True)
    return folder


@pytest.mark.parametrize("ids", [None, [7, -1, 3, 4], ["a", "b", "", "d"]])
def test_our_own_folder(tmp_path: Path, ids: Any) -> None:
    docs = collection(LENGTHS, ids=ids)
    docs.save(tmp_path / "docs")
    assert npy.matches(tmp_path / "docs")
    assert_same(everything(npy.open_source(tmp_path / "docs")), docs)


def test_docs_and_queries_in_one_folder(tmp_path: Path) -> None:
    docs = collection(LENGTHS, ids=["a", "b", "c", "d"], dtype=np.float16)
    queries = collection([2, 2], ids=["q", "r"], dtype=np.float16, seed=1)
    arrays: dict[str, Any] = {"docs_pooled": np.zeros((4, 9), np.float32)}
    for name, part in (("docs", docs), ("queries", queries)):
        arrays[f"{name}_tokens"] = part.tokens
        arrays[f"{name}_lens"] = part.lengths.astype(np.int32)
        arrays[f"{name}_ids"] = part.ids.tolist()
        arrays[f"{name}_token_ids"] = np.zeros(part.num_tokens, np.int32)
    save(tmp_path, **arrays)
    assert_same(everything(npy.open_source(tmp_path)), docs)
    assert_same(everything(npy.open_source(tmp_path, part="queries")), queries)


@pytest.mark.parametrize(
    "bounds",
    [
        {"doclens": np.array(LENGTHS, np.int32)},
        {"doclens": np.array(LENGTHS, np.float64)},
        {"doclens": LENGTHS},
        {"lengths": np.array(LENGTHS, np.uint64)},
        {"offsets": np.array([0, 3, 3, 4, 6])},
        {"doclens": np.array([0, 3, 3, 4, 6])},
    ],
)
def test_lengths_and_offsets_of_any_type(tmp_path: Path, bounds: dict[str, Any]) -> None:
    docs = collection(LENGTHS)
    save(tmp_path, vectors=docs.tokens, **bounds)
    assert_same(everything(npy.open_source(tmp_path)), docs)


def test_lengths_win_where_both_readings_are_possible(tmp_path: Path) -> None:
    """[0, 6] are the lengths of an empty and a full document, or the offsets of one."""
    tokens = collection([6]).tokens
    save(tmp_path / "lengths", tokens=tokens, lengths=np.array([0, 6]))
    save(tmp_path / "offsets", tokens=tokens, offsets=np.array([0, 6]))
    assert everything(npy.open_source(tmp_path / "lengths")).lengths.tolist() == [0, 6]
    assert everything(npy.open_source(tmp_path / "offsets")).lengths.tolist() == [6]


def test_kannolo_keeps_halves_as_bit_patterns(tmp_path: Path) -> None:
    docs = collection(LENGTHS, dtype=np.float16, ids=["a", "b", "c", "d"])
    queries = collection([2, 2], seed=1)
    save(
        tmp_path,
        documents=docs.tokens.view(np.uint16),
        doclens=docs.lengths.astype(np.int32),
        doc_ids=docs.ids,
        queries=queries.tokens.reshape(2, 2, 4),
        queries_ids=np.array([10, 11]),
    )
    assert_same(everything(npy.open_source(tmp_path)), docs)
    assert_same(everything(npy.open_source(tmp_path, part="queries")), queries.with_ids([10, 11]))


def test_bit_patterns_elsewhere_must_be_named(tmp_path: Path) -> None:
    docs = collection(LENGTHS, dtype=np.float16)
    single = docs.tokens.astype(np.float32)
    save(tmp_path / "half", tokens=docs.tokens.view(np.uint16), lengths=docs.lengths)
    save(tmp_path / "brain", tokens=(single.view(np.uint32) >> 16).astype(np.uint16), lengths=docs.lengths)
    with pytest.raises(TypeError, match=r"tokens\.npy has dtype uint16.*uint16='float16'"):
        npy.open_source(tmp_path / "half")
    assert_same(everything(npy.open_source(tmp_path / "half", uint16="float16")), docs)
    brain = everything(npy.open_source(tmp_path / "brain", uint16="bfloat16"))
    np.testing.assert_allclose(brain.tokens, single, rtol=2**-7)
    with pytest.raises(ValueError, match="uint16 must be one of None, float16, bfloat16, got 'f4'"):
        npy.open_source(tmp_path / "half", uint16="f4")


def test_lemur(tmp_path: Path) -> None:
    docs, queries = collection(LENGTHS), collection([1, 2], seed=1)
    save(
        tmp_path,
        train=docs.tokens,
        train_counts=docs.lengths.astype(np.uint64),
        test=queries.tokens,
        test_counts=queries.lengths.astype(np.int32),
    )
    assert_same(everything(npy.open_source(tmp_path)), docs)
    assert_same(everything(npy.open_source(tmp_path, part="queries")), queries)


def test_dessert_chunks_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    parts = [collection([i % 3, 1], dtype=np.float16, seed=i) for i in range(11)]
    for i, part in enumerate(parts):
        save(
            tmp_path,
            **{f"encoding{i}_float16": part.tokens, f"doclens{i}": part.lengths.astype(np.float64)},
        )
    save(tmp_path, query_embedding=np.ones((2, 3, 4), np.float32))
    assert npy.matches(tmp_path)
    assert_same(everything(npy.open_source(tmp_path)), MultiVectors.concatenate(parts))
    assert everything(npy.open_source(tmp_path, part="queries")).lengths.tolist() == [3, 3]
    (tmp_path / "doclens4.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"has encoding4_float16\.npy, but no doclens4\.npy"):
        npy.open_source(tmp_path)
    (tmp_path / "encoding4_float16.npy").unlink()
    with pytest.raises(FileNotFoundError, match="chunks 0 to 10, but not chunk 4"):
        npy.open_source(tmp_path)


def test_one_file_with_its_lengths_beside(tmp_path: Path) -> None:
    docs = collection(LENGTHS, ids=[4, 5, 6, 7])
    save(tmp_path, mine=docs.tokens, mine_lengths=docs.lengths, mine_ids=docs.ids.tolist())
    save(tmp_path / "other", flat=docs.tokens, counts_of_mine=docs.lengths)
    assert_same(everything(npy.open_source(tmp_path / "mine.npy")), docs)
    given = npy.open_source(tmp_path / "other" / "flat.npy", lengths=tmp_path / "other/counts_of_mine.npy")
    assert everything(given).lengths.tolist() == LENGTHS
    with pytest.raises(
        ValueError, match=r"flat\.npy has 6 token vectors.*nothing says where a document ends"
    ):
        npy.open_source(tmp_path / "other" / "flat.npy")


@pytest.mark.parametrize("how", ["mask", "lengths", "zeros"])
@pytest.mark.parametrize("side", ["left", "right", "inside"])
def test_padded_is_unpadded(tmp_path: Path, how: str, side: str) -> None:
    docs = collection([3, 0, 1, 2, 5])
    padded, mask = np.zeros((5, 5, 4), np.float32), np.zeros((5, 5), np.int8)
    for i, tokens in enumerate(docs):
        places = {
            "left": np.arange(5 - len(tokens), 5),
            "right": np.arange(len(tokens)),
            "inside": np.random.default_rng(i).permutation(5)[: len(tokens)],
        }[side]
        padded[i, np.sort(places)], mask[i, places] = tokens, 1
    if how == "lengths" and side != "right":
        return  # lengths can only say that the padding is on the right
    extras: dict[str, dict[str, Any]] = {"mask": {"mask": mask}, "lengths": {"lengths": docs.lengths}}
    save(tmp_path, tokens=padded, **extras.get(how, {}))
    source: Any = npy.open_source(tmp_path)
    assert_same(everything(source, 12), docs)
    assert source.dropped_rows == 25 - 11


def test_a_mask_keeps_real_zero_rows(tmp_path: Path) -> None:
    save(tmp_path, tokens=np.zeros((1, 3, 2), np.float32), mask=np.array([[1, 1, 0]]))
    assert everything(npy.open_source(tmp_path)).lengths.tolist() == [2]


def test_big_endian_doubles_and_fortran_order(tmp_path: Path) -> None:
    docs = collection(LENGTHS)
    save(tmp_path, tokens=np.asfortranarray(docs.tokens.astype(">f8")), lengths=docs.lengths)
    assert_same(everything(npy.open_source(tmp_path)), docs)


def test_the_tokens_stay_on_the_disk(tmp_path: Path) -> None:
    docs = collection(LENGTHS)
    docs.save(tmp_path / "docs")
    first = next(npy.open_source(tmp_path / "docs").batches(4))
    assert isinstance(first.tokens, np.memmap)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo this must never run",)


def test_object_arrays_without_running_them(tmp_path: Path) -> None:
    arrays = np.empty(3, object)
    docs = collection([2, 0, 1])
    arrays[:] = list(docs)
    save(tmp_path, embeddings=arrays)
    assert_same(everything(npy.open_source(tmp_path)), docs)
    arrays[1] = np.ones((2, 5), np.float32)
    save(tmp_path, embeddings=arrays)
    with pytest.raises(
        ValueError, match="entry 1: document 1 has 5 columns, but this source has dimension=4"
    ):
        everything(npy.open_source(tmp_path))
    for wrong, sentence in (
        ("text", "document 1 is a str, not an array"),
        (None, "document 1 is a NoneType"),
    ):
        arrays[1] = wrong
        save(tmp_path, embeddings=arrays)
        with pytest.raises(ValueError, match=sentence):
            everything(npy.open_source(tmp_path))
    arrays[1] = Malicious()
    save(tmp_path, embeddings=arrays)
    with pytest.raises(
        RefusedPickleError, match=r"embeddings\.npy is a pickle that asks for (posix|nt)\.system"
    ):
        npy.open_source(tmp_path)


@pytest.mark.parametrize(
    ("bounds", "kind", "sentence"),
    [
        ([3, 0, 1], ValueError, "lengths add up to 4, but there are 6 token vectors"),
        ([2**63 - 1, 2**63 - 1, 8], ValueError, r"lengths\[0\] is 9223372036854775807, but there are 6"),
        ([7, -1, 0, 0], ValueError, r"lengths\[1\] is -1; a length must not be negative"),
        ([1.5, 4.5], TypeError, "must be whole numbers, got dtype float64 with 1.5 at 0"),
        ([[3, 3]], ValueError, r"must have one axis, got shape \(1, 2\)"),
    ],
)
def test_lengths_that_do_not_fit(tmp_path: Path, bounds: Any, kind: type[Exception], sentence: str) -> None:
    save(tmp_path, tokens=collection(LENGTHS).tokens, lengths=np.array(bounds))
    with pytest.raises(kind, match=sentence):
        npy.open_source(tmp_path)


@pytest.mark.parametrize(
    ("offsets", "sentence"),
    [
        ([0, 3, 5], "offsets must run from 0 to the 6 token vectors, got 0 to 5"),
        ([0, 4, 3, 6], "offsets must not fall, but entry 2 is 3 after 4"),
        ([], "got nothing"),
    ],
)
def test_offsets_that_do_not_fit(tmp_path: Path, offsets: list[int], sentence: str) -> None:
    save(tmp_path, tokens=collection(LENGTHS).tokens, offsets=np.array(offsets, np.int64))
    with pytest.raises(ValueError, match=sentence):
        npy.open_source(tmp_path)


def test_ids_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path, tokens=collection(LENGTHS).tokens, lengths=np.array(LENGTHS), ids=["a", "b"])
    with pytest.raises(ValueError, match="ids has 2 entries for 4 texts"):
        npy.open_source(tmp_path)


@pytest.mark.parametrize("keep", [0, 20, 140, -1])
def test_truncated_files(tmp_path: Path, keep: int) -> None:
    collection(LENGTHS).save(tmp_path / "docs")
    file = tmp_path / "docs" / "tokens.npy"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"tokens\.npy is (truncated: shape \(6, 4\) of float32|not a \.npy)"
    ):
        npy.open_source(tmp_path / "docs")


def test_a_truncated_json(tmp_path: Path) -> None:
    collection(LENGTHS, ids=list("abcd")).save(tmp_path / "docs")
    (tmp_path / "docs" / "ids.json").write_text('["a", "b"')
    with pytest.raises(ValueError, match=r"ids\.json is damaged or truncated"):
        npy.open_source(tmp_path / "docs")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    docs = collection([2, 0, 3, 1], ids=list("abcd"))
    docs.tokens[3, 1] = value
    docs.save(tmp_path / "docs")
    source = npy.open_source(tmp_path / "docs")
    for max_tokens in (1, 3, 100):
        with pytest.raises(
            ValueError, match=rf"docs: document 2 \(id 'c'\) has {value} in its token 1, coordinate 1"
        ):
            list(source.batches(max_tokens))


def test_what_is_not_read(tmp_path: Path) -> None:
    assert not npy.matches(tmp_path)
    assert not npy.matches(tmp_path / "missing")
    save(tmp_path, other=np.ones(3))
    assert not npy.matches(tmp_path)
    with pytest.raises(ValueError, match=r"looked for tokens, .*found other\.npy"):
        npy.open_source(tmp_path)
    for centroids in ("centroids.npy", "centroids.pt"):
        save(tmp_path / centroids, tokens=np.ones((3, 2), np.float32))
        (tmp_path / centroids / centroids).touch()
        assert not npy.matches(tmp_path / centroids), "a quantized index is another reader's"
    with pytest.raises(ValueError, match="part must be 'docs' or 'queries', got 'both'"):
        npy.open_source(tmp_path, part="both")
    save(tmp_path / "ints", tokens=np.ones((3, 2), np.int8), lengths=np.array([3]))
    with pytest.raises(TypeError, match="dtype int8, but token vectors must be floating point"):
        npy.open_source(tmp_path / "ints")
