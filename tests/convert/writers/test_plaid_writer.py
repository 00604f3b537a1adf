"""PLAID indexes: kept codes, fitted codes, and ColBERT's and torch's files."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer
from builders.foreign_indexes import decode_index, random_index, write_fast_plaid, write_plaid
from builders.paths import GOLDEN, SHARED
from builders.realistic_collections import documents_like_real
from builders.token_collections import assert_same, collection
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from muvera import MuveraIndex
from muvera.convert import convert, open_source, plaid_writer, read
from muvera.convert.parsing import read_array, read_torch
from muvera.convert.plaid_writer import write_torch
from muvera.data.multivectors import MultiVectors

FILES = {
    "0.codes.pt", "0.residuals.pt", "0.metadata.json", "doclens.0.json", "avg_residual.pt", "buckets.pt",
    "centroids.pt", "ivf.pid.pt", "metadata.json", "plan.json",
}  # fmt: skip
COLBERT = GOLDEN / "convert" / "colbert"
REAL = SHARED / "plaid-colbertv2-lotte500"


def whole(folder: Path, part: str) -> np.ndarray:
    """One array of all chunks' codes or residuals."""
    count = json.loads((folder / "metadata.json").read_text())["num_chunks"]
    return np.concatenate([read_array(folder / f"{i}.{part}.pt") for i in range(count)])


def read_all(path: Path) -> list[np.ndarray]:
    """The tensors of a file."""
    stored = read_torch(path)
    return list(stored) if isinstance(stored, (list, tuple)) else [stored]


def lost(documents: MultiVectors, folder: Path) -> float:
    return float(((read(folder).tokens - documents.tokens) ** 2).sum(axis=1).mean())


@pytest.fixture(
    scope="module", params=[COLBERT, pytest.param(REAL, marks=pytest.mark.shared)], ids=["tiny", "real"]
)
def colbert(request: pytest.FixtureRequest) -> Path:
    """A folder that ColBERT wrote."""
    folder = Path(request.param)
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    return folder


@pytest.fixture(scope="module", params=["straight", "through an index"])
def ours(request: pytest.FixtureRequest, colbert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder, written by the converter.

    It converts straight, or through an index that keeps the codes.
    """
    folder = tmp_path_factory.mktemp("plaid")
    if request.param == "straight":
        convert(colbert, folder / "ours", to="plaid", max_tokens=100)
    else:
        MuveraIndex.from_plaid(colbert, path=folder / "index")
        answer("convert", folder / "index", folder / "ours", "--to", "plaid")
    return folder / "ours"


@pytest.mark.parametrize("part", ["codes", "residuals"])
def test_codes_of_an_index_of_colbert_are_written_back(part: str, ours: Path, colbert: Path) -> None:
    got, wanted = whole(ours, part), whole(colbert, part)
    np.testing.assert_array_equal(got, wanted)
    assert got.dtype == wanted.dtype
    assert_same(read(ours), read(colbert))


def test_the_codec_of_an_index_of_colbert_is_written_back(ours: Path, colbert: Path) -> None:
    np.testing.assert_array_equal(read_array(ours / "centroids.pt"), read_array(colbert / "centroids.pt"))
    buckets, expected = (read_torch(place / "buckets.pt") for place in (ours, colbert))
    np.testing.assert_array_equal(buckets[1], expected[1])
    assert (buckets[0].shape, buckets[1].dtype) == (expected[0].shape, expected[1].dtype)
    assert read_torch(ours / "avg_residual.pt").shape == ()


def test_what_colbert_stores_beside_codes_is_written_back(colbert: Path, tmp_path: Path) -> None:
    convert(colbert, tmp_path / "ours", to="plaid")
    for name in ("buckets.pt", "avg_residual.pt", "centroids.pt"):
        tensors = (read_all(place / name) for place in (tmp_path / "ours", colbert))
        for ours, expected in zip(*tensors, strict=True):
            np.testing.assert_array_equal(ours, expected)
            assert ours.dtype == expected.dtype, name
    for name in ("metadata.json", "plan.json"):
        written, theirs = (json.loads((place / name).read_text()) for place in (tmp_path / "ours", colbert))
        assert written["config"] == theirs["config"], name
        assert {"checkpoint", "query_maxlen"} <= written["config"].keys(), name


def test_the_inverted_lists_of_colbert_are_written_back(ours: Path, colbert: Path) -> None:
    lists, expected = (read_torch(place / "ivf.pid.pt") for place in (ours, colbert))
    assert [tensor.dtype for tensor in lists] == [np.int32, np.int64]
    np.testing.assert_array_equal(lists[0], expected[0][: int(expected[1].sum())])
    np.testing.assert_array_equal(lists[1], expected[1])


@pytest.mark.parametrize("name", ["metadata.json", "plan.json", "0.metadata.json"])
def test_descriptions_have_the_keys_of_colbert(name: str, ours: Path, colbert: Path) -> None:
    theirs, written = (json.loads((place / name).read_text()) for place in (colbert, ours))
    assert written.keys() == theirs.keys()
    assert written.get("config", {}).items() <= theirs.get("config", {}).items()
    assert written.get("num_partitions") == theirs.get("num_partitions")


def test_an_index_has_the_files_of_colbert(ours: Path) -> None:
    assert {path.name for path in ours.iterdir()} == FILES


@pytest.mark.parametrize("nbits", [1, 4])
def test_chunks_of_any_size(nbits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = random_index(1, [[4, 0, 7], [5, 9, 1, 6]], nbits=nbits)
    monkeypatch.setattr(plaid_writer, "_CHUNK", 2)
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
    documents = documents_like_real(110)
    report = convert(documents, tmp_path / "out", to="plaid", nbits=nbits)
    found = read(tmp_path / "out")
    assert found.lengths.tolist() == documents.lengths.tolist()
    written = report.written.to_dict()
    assert written["tokens"] == documents.num_tokens
    # The index stores directions: norms of the input are not those of the index.
    assert written["norms"] is written["normalized"] is written["dtype"] is None
    np.testing.assert_allclose(np.linalg.norm(found.tokens, axis=1), 1, atol=1e-5)
    # A scalar quantizer of normal numbers loses .363, .118 and .0095 of their variance,
    # which is at most 1 here.
    cutoffs, weights = read_torch(tmp_path / "out" / "buckets.pt")
    np.testing.assert_allclose(cutoffs, (weights[1:] + weights[:-1]) / 2, atol=1e-3)
    assert lost(documents, tmp_path / "out") < {1: 0.363, 2: 0.118, 4: 0.0095, 8: 0.0005}[nbits]
    if nbits < 8:
        convert(documents, tmp_path / "means", to="plaid", nbits=nbits, bucket_means=True)
        assert lost(documents, tmp_path / "means") < lost(documents, tmp_path / "out")
    MuveraIndex.from_plaid(tmp_path / "out")


def test_the_same_tokens_make_the_same_bytes(tmp_path: Path) -> None:
    documents = documents_like_real(30)
    for name, tokens in (("one", 20), ("two", 10_000)):
        convert(documents, tmp_path / name, to="plaid", max_tokens=tokens)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("ids", [["b", "a", "x y"], [7, 3, 5], [0, 1, 2]])
def test_ids_are_kept_as_names_unless_they_are_positions(ids: Any, tmp_path: Path) -> None:
    convert(documents_like_real(3, ids=ids), tmp_path / "out", to="plaid")
    positions = ids == [0, 1, 2]
    assert read(tmp_path / "out").ids.tolist() == (ids if positions else [str(name) for name in ids])
    assert (tmp_path / "out" / "pid_docid_map.json").exists() != positions


def test_changed_tokens_and_other_bits_are_coded_anew(tmp_path: Path) -> None:
    source = write_plaid(tmp_path / "plaid", random_index(3, [[30] * 20], nbits=2))
    convert(source, tmp_path / "four", to="plaid", nbits=4)
    convert(source, tmp_path / "half", to="plaid", truncate_dimension=8)
    assert (open_source(tmp_path / "four").nbits, open_source(tmp_path / "half").dimension) == (4, 8)
    assert lost(read(source), tmp_path / "four") < 0.0095


@pytest.mark.parametrize("name", ["memory", "plaid"])
def test_no_tokens_leave_nothing(tmp_path: Path, name: str) -> None:
    coded = write_plaid(tmp_path / "plaid", random_index(3, [[0, 0]]))
    documents: Any = coded if name == "plaid" else collection([0, 0], 8)
    with pytest.raises(ValueError, match=f"{name} has no token vectors"):
        convert(documents, tmp_path / "out", to="plaid")
    assert [path.name for path in tmp_path.iterdir()] == ["plaid"]


TENSORS = st.sampled_from(["<f4", "<f2", "<i8", "<i4", "|u1"]).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)


@settings(max_examples=30)
@given(st.lists(TENSORS, min_size=1, max_size=3))
def test_any_tensors_are_read_back(tmp_path_factory: Any, tensors: list[np.ndarray]) -> None:
    path = tmp_path_factory.mktemp("torch") / "some.pt"
    write_torch(path, *tensors)
    content = read_torch(path)
    for tensor, array in zip(tensors, content if len(tensors) > 1 else [content], strict=True):
        assert array.dtype == tensor.dtype and array.shape == tensor.shape
        np.testing.assert_array_equal(array, tensor)


@pytest.mark.parametrize("name", ["1.residuals", "centroids", "avg_residual", "buckets"])
def test_files_have_the_layout_of_torch(name: str, tmp_path: Path) -> None:
    theirs, path = read_torch(COLBERT / f"{name}.pt"), tmp_path / f"{name}.pt"
    write_torch(path, *(theirs if isinstance(theirs, tuple) else [theirs]))
    with zipfile.ZipFile(COLBERT / f"{name}.pt") as expected, zipfile.ZipFile(path) as written:
        members = {member for member in expected.namelist() if "/." not in member}  # those are optional
        assert set(written.namelist()) == members
        for member in members:
            assert member.endswith("data.pkl") or written.read(member) == expected.read(member)
    ours = read_torch(path)
    for part in ours if isinstance(ours, tuple) else (ours,):
        assert part.ctypes.data % 64 == 0 or part.size == 0
