"""PLAID indexes: codes kept, codes fitted, and the files that ColBERT and torch expect."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer
from builders.foreign_indexes import decode_index, random_index, write_fast_plaid, write_plaid
from builders.paths import GOLDEN, SHARED
from builders.token_collections import collection
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from muvera import MuveraIndex
from muvera.convert import convert, open_source, read
from muvera.convert.parsing.torch_file import read_array, read_torch, write_torch
from muvera.convert.writers import plaid
from muvera.data.multivectors import MultiVectors

COLBERT = GOLDEN / "convert" / "colbert"
REAL = SHARED / "plaid-colbertv2-lotte500"


def whole(folder: Path, part: str) -> np.ndarray:
    """One array of all chunks' codes or residuals."""
    count = json.loads((folder / "metadata.json").read_text())["num_chunks"]
    return np.concatenate([read_array(folder / f"{i}.{part}.pt") for i in range(count)])


def unit_tokens(lengths: list[int], dimension: int, seed: int = 0, ids: Any = None) -> MultiVectors:
    """Tokens of length 1 around a few topics."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((12, dimension))
    found = topics[rng.integers(0, 12, sum(lengths))] + 0.6 * rng.standard_normal((sum(lengths), dimension))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return MultiVectors.from_flat(found.astype(np.float32), lengths=lengths, ids=ids)


def lost(documents: MultiVectors, folder: Path) -> float:
    return float(((read(folder).tokens - documents.tokens) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize(
    "folder", [COLBERT, pytest.param(REAL, marks=pytest.mark.shared)], ids=["golden", "real"]
)
def test_codes_of_an_index_of_colbert_are_written_back(folder: Path, tmp_path: Path) -> None:
    """Straight, and through an index that keeps them."""
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    MuveraIndex.from_plaid(folder, path=tmp_path / "index")
    convert(folder, tmp_path / "straight", to="plaid", max_tokens=100)
    answer("convert", tmp_path / "index", tmp_path / "through", "--to", "plaid")
    for ours in (tmp_path / "straight", tmp_path / "through"):
        for part in ("codes", "residuals"):
            np.testing.assert_array_equal(whole(ours, part), whole(folder, part))
            assert whole(ours, part).dtype == whole(folder, part).dtype
        np.testing.assert_array_equal(read_array(ours / "centroids.pt"), read_array(folder / "centroids.pt"))
        lists, expected = (read_torch(place / "ivf.pid.pt") for place in (ours, folder))
        assert [tensor.dtype for tensor in lists] == [np.int32, np.int64]
        count = int(expected[1].sum())
        np.testing.assert_array_equal(lists[0], expected[0][:count])
        np.testing.assert_array_equal(lists[1], expected[1])
        buckets, expected = (read_torch(place / "buckets.pt") for place in (ours, folder))
        np.testing.assert_array_equal(buckets[1], expected[1].astype(np.float32))
        assert buckets[0].shape == expected[0].shape
        np.testing.assert_array_equal(read(ours).tokens, read(folder).tokens)
        assert read(ours).lengths.tolist() == read(folder).lengths.tolist()


def test_the_files_are_those_of_colbert(tmp_path: Path) -> None:
    convert(COLBERT, tmp_path / "out", to="plaid")
    chunks = {f"{i}.{part}" for i in (1, 2) for part in ("codes.pt", "residuals.pt", "metadata.json")}
    expected = {path.name for path in COLBERT.iterdir()} - chunks
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected - {
        "expected.npz", "doclens.1.json", "doclens.2.json",
    }  # fmt: skip
    for name in ("metadata.json", "plan.json", "0.metadata.json"):
        theirs, ours = (json.loads((place / name).read_text()) for place in (COLBERT, tmp_path / "out"))
        assert ours.keys() == theirs.keys()
        if "config" in ours:
            assert ours["config"].items() <= theirs["config"].items()
            assert ours["num_partitions"] == theirs["num_partitions"]
    assert read_torch(tmp_path / "out" / "avg_residual.pt").shape == ()


@pytest.mark.parametrize("nbits", [1, 4])
def test_chunks_of_any_size_hold_the_same(
    nbits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = random_index(1, [[4, 0, 7], [5, 9, 1, 6]], nbits=nbits)
    monkeypatch.setattr(plaid, "_CHUNK", 2)
    convert(write_fast_plaid(tmp_path / "fast", written), tmp_path / "out", to="plaid", max_tokens=12)
    metadata = [json.loads((tmp_path / "out" / f"{i}.metadata.json").read_text()) for i in range(4)]
    assert [chunk["passage_offset"] for chunk in metadata] == [0, 2, 4, 6]
    assert [chunk["num_passages"] for chunk in metadata] == [2, 2, 2, 1]
    assert [chunk["embedding_offset"] for chunk in metadata] == [0, 4, 16, 26]
    found = read(tmp_path / "out")
    assert found.lengths.tolist() == [4, 0, 7, 5, 9, 1, 6]
    np.testing.assert_allclose(found.tokens, decode_index(written), atol=1e-6)
    lists, lengths = read_torch(tmp_path / "out" / "ivf.pid.pt")
    numbers, documents = np.concatenate(written["codes"]), np.repeat(np.arange(7), found.lengths)
    expected = [np.unique(documents[numbers == center]).tolist() for center in range(5)]
    assert [part.tolist() for part in np.split(lists, np.cumsum(lengths)[:-1])] == expected


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_tokens_are_coded_as_well_as_so_many_bits_allow(nbits: int, tmp_path: Path) -> None:
    documents = unit_tokens([20] * 40 + [0, 3], 32)
    report = convert(documents, tmp_path / "out", to="plaid", nbits=nbits)
    found = read(tmp_path / "out")
    assert found.lengths.tolist() == documents.lengths.tolist()
    written = (
        report.written.to_dict()
    )  # the index stores directions, whose norms say nothing about the input's
    assert [written[name] for name in ("tokens", "norms", "normalized", "dtype")] == [803, None, None, None]
    np.testing.assert_allclose(np.linalg.norm(found.tokens, axis=1), 1, atol=1e-5)
    # A scalar quantizer of normal numbers loses .363, .118 and .0095 of their variance, which is at most 1 here.
    assert lost(documents, tmp_path / "out") < {1: 0.363, 2: 0.118, 4: 0.0095, 8: 0.0005}[nbits]
    MuveraIndex.from_plaid(tmp_path / "out")


def test_bucket_means_lose_less(tmp_path: Path) -> None:
    documents = unit_tokens([20] * 60, 64)
    for name, means in (("middles", False), ("means", True)):
        convert(documents, tmp_path / name, to="plaid", nbits=2, bucket_means=means)
    assert lost(documents, tmp_path / "means") < lost(documents, tmp_path / "middles")


def test_the_same_tokens_make_the_same_bytes(tmp_path: Path) -> None:
    documents = unit_tokens([9] * 30, 16)
    for name, tokens in (("one", 20), ("two", 10_000)):
        convert(documents, tmp_path / name, to="plaid", max_tokens=tokens)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("ids", [["b", "a", "x y"], [7, 3, 5], [0, 1, 2]])
def test_ids_are_kept_as_names_unless_they_are_positions(ids: Any, tmp_path: Path) -> None:
    convert(unit_tokens([2, 1, 3], 8, ids=ids), tmp_path / "out", to="plaid")
    positions = ids == [0, 1, 2]
    assert read(tmp_path / "out").ids.tolist() == (ids if positions else [str(name) for name in ids])
    assert (tmp_path / "out" / "pid_docid_map.json").exists() != positions


def test_changed_tokens_and_other_bits_are_coded_anew(tmp_path: Path) -> None:
    source = write_plaid(tmp_path / "plaid", random_index(3, [[30] * 20], nbits=2))
    convert(source, tmp_path / "four", to="plaid", nbits=4)
    convert(source, tmp_path / "half", to="plaid", truncate_dimension=8)
    assert (open_source(tmp_path / "four").nbits, open_source(tmp_path / "half").dimension) == (4, 8)
    assert lost(read(source), tmp_path / "four") < 0.0095


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        (collection([2], 4), {"nbits": 1}, "dimension=4 .* nbits=8"),
        (collection([2], 4), {"nbits": 3}, "1, 2, 4, 8, got 3"),
        (collection([0, 0], 8), {}, "memory has no token vectors"),
        (random_index(3, [[0, 0]]), {}, "plaid has no token vectors"),
    ],
)
def test_bad_input_leaves_nothing(
    documents: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if isinstance(documents, dict):
        documents = write_plaid(tmp_path / "plaid", documents)
    with pytest.raises(ValueError, match=message):
        convert(documents, tmp_path / "out", to="plaid", **options)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["plaid"])


TENSORS = st.sampled_from(["<f4", "<f2", "<i8", "<i4", "|u1"]).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)


@settings(max_examples=30)
@given(st.lists(TENSORS, min_size=1, max_size=3))
def test_any_tensors_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("torch") / "some.pt"
    write_torch(path, *tensors)
    content = read_torch(path)
    for tensor, array in zip(tensors, content if len(tensors) > 1 else [content], strict=True):
        assert array.dtype == tensor.dtype and array.shape == tensor.shape
        np.testing.assert_array_equal(array, tensor)


@pytest.mark.parametrize("name", ["1.residuals", "centroids", "avg_residual", "buckets"])
def test_files_have_the_layout_of_torch(name: str, tmp_path: Path) -> None:
    theirs = read_torch(COLBERT / f"{name}.pt")
    tensors = theirs if isinstance(theirs, tuple) else (theirs,)
    path = tmp_path / f"{name}.pt"
    write_torch(path, *tensors)
    with zipfile.ZipFile(COLBERT / f"{name}.pt") as expected, zipfile.ZipFile(path) as written:
        members = {member for member in expected.namelist() if "/." not in member}  # those are optional
        assert set(written.namelist()) == members
        for member in members:
            if not member.endswith("data.pkl"):
                assert written.read(member) == expected.read(member)
    for part in read_torch(path) if isinstance(theirs, tuple) else (read_torch(path),):
        assert part.ctypes.data % 64 == 0 or part.size == 0
