"""Stanford ColBERT indexes: real ones, random ones, and damaged ones."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import decode_index, random_index, write_plaid, write_pt
from builders.paths import GOLDEN, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert.readers import fast_plaid, plaid, pylate, warp
from muvera.convert.sources.base import Source
from muvera.data.multivectors import MultiVectors

FOLDER = GOLDEN / "convert" / "colbert"
SAMPLE = SHARED / "plaid-colbertv2-lotte500"


def whole(source: Source, max_tokens: int = 10_000) -> MultiVectors:
    batches = list(source.batches(max_tokens))
    assert all(batch.num_tokens <= max_tokens or len(batch) == 1 for batch in batches)
    return MultiVectors.concatenate(batches)


def test_an_index_of_the_library_decodes_as_the_library_does() -> None:
    assert plaid.matches(FOLDER)
    source = plaid.open_source(FOLDER)
    assert isinstance(source, Source)
    expected = np.load(FOLDER / "expected.npz")
    documents = whole(source, 60)
    assert (source.name, source.dimension, source.nbits, source.lossy) == ("plaid", 32, 2, True)
    assert (source.num_documents, source.num_tokens) == (12, 383)
    assert documents.lengths.tolist() == expected["lengths"].tolist()
    # The library decodes in float32, but from centroids and weights in half precision: 1e-3.
    np.testing.assert_allclose(documents.tokens, expected["decoded"], atol=1e-3)


def _raw(name: str, kind: Any) -> Any:
    """Read the storages of a .pt file by hand: (member number) -> flat array."""
    with zipfile.ZipFile(SAMPLE / f"{name}.pt") as archive:
        members = [m for m in archive.namelist() if "/data/" in m]
        return [
            np.frombuffer(archive.read(m), k)
            for m, k in zip(sorted(members), kind, strict=True)
        ]  # fmt: skip


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the shared ColBERTv2 index is not beside this checkout")
def test_the_real_index_equals_an_independent_decode() -> None:
    (centroids,), (codes,), (packed,) = (
        _raw("centroids", ["<f2"]), _raw("0.codes", ["<i4"]), _raw("0.residuals", ["u1"])
    )  # fmt: skip
    _, weights = _raw("buckets", ["<f4", "<f4"] if _bucket_bytes() == 16 else ["<f2", "<f2"])
    bits = np.unpackbits(packed.reshape(-1, 32), axis=1).reshape(-1, 128, 2)
    vectors = centroids.reshape(-1, 128)[codes].astype(np.float32)
    vectors += weights.astype(np.float32)[(bits << np.arange(2)).sum(-1)]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    source = plaid.open_source(SAMPLE)
    documents = whole(source, 7_000)
    assert (source.num_documents, source.num_tokens, source.nbits) == (500, 56_658, 2)
    assert documents.lengths.tolist() == json.loads((SAMPLE / "doclens.0.json").read_text())
    np.testing.assert_allclose(documents.tokens, vectors, atol=1e-6)

    # Exact Chamfer, a sum over 32 query tokens: the same ranking from both.
    queries = np.load(SAMPLE / "query_embedding.npy")[:20]
    starts = documents.offsets[:-1]
    for query in queries:
        ours, theirs = (
            np.maximum.reduceat(query @ tokens.T, starts, axis=1).sum(0)
            for tokens in (documents.tokens, vectors)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        top = np.argsort(-theirs)[:10]
        assert (np.diff(ours[top]) <= 1e-4).all()


def _bucket_bytes() -> int:
    with zipfile.ZipFile(SAMPLE / "buckets.pt") as archive:
        return max(archive.getinfo(m).file_size for m in archive.namelist() if "/data/" in m)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([8, 64, 96]),
    st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=12),
    st.integers(1, 9),
)
def test_random_indexes(
    seed: int, nbits: int, dimension: int, lengths: list[list[int]], max_tokens: int
) -> None:
    """Also chunks in the order 0, 1, 2, 10, documents of length 0 anywhere, and empty chunks."""
    index = random_index(seed, lengths, dimension, nbits)
    with tempfile.TemporaryDirectory() as folder:
        source = plaid.open_source(write_plaid(Path(folder) / "index", index))
        batches = list(source.batches(max_tokens))
    expected = decode_index(index)
    got = [length for batch in batches for length in batch.lengths]
    assert got == [length for chunk in lengths for length in chunk]
    tokens = np.concatenate([np.empty((0, dimension), np.float32), *[batch.tokens for batch in batches]])
    np.testing.assert_allclose(tokens, expected, atol=1e-6)
    assert all(not batch.has_ids for batch in batches)


def test_float_doclens_and_half_precision(tmp_path: Path) -> None:
    index = random_index(1, [[2, 0, 3]])
    folder = write_plaid(tmp_path / "index", index)
    (folder / "doclens.0.json").write_text("[2.0, 0.0, 3.0]")
    documents = whole(plaid.open_source(folder, dtype=np.float16, threads=1))
    assert documents.tokens.dtype == np.float16
    assert documents.lengths.tolist() == [2, 0, 3]
    np.testing.assert_allclose(documents.tokens, decode_index(index), atol=1e-3)  # half precision


def test_ragatouille_ids(tmp_path: Path) -> None:
    folder = write_plaid(tmp_path / "index", random_index(1, [[2, 1], [3]]))
    names = folder / "pid_docid_map.json"
    names.write_text('{"0": "a", "1": "b", "2": "c"}')
    batches = list(plaid.open_source(folder).batches(3))
    assert [batch.ids.tolist() for batch in batches] == [["a", "b"], ["c"]]
    names.write_text('{"0": "a", "1": "b", "2": "a"}')
    assert whole(plaid.open_source(folder)).ids.tolist() == ["a#0", "b", "a#1"]
    names.write_text('{"0": "a", "2": "c"}')
    with pytest.raises(ValueError, match=r"pid_docid_map\.json names 2 passages, but not passage 1 of 3"):
        plaid.open_source(folder)


def test_detection_is_exclusive(tmp_path: Path) -> None:
    folder = write_plaid(tmp_path / "index", random_index(1, [[2]]))
    assert [m.NAME for m in (plaid, fast_plaid, pylate, warp) if m.matches(folder)] == ["plaid"]
    (folder / "plaid_ids_to_documents_ids.pkl").write_bytes(b"")
    assert [m.NAME for m in (plaid, fast_plaid, pylate, warp) if m.matches(folder)] == ["pylate"]
    for module in (plaid, fast_plaid, pylate, warp):
        assert not module.matches(tmp_path / "nowhere")
        assert not module.matches(tmp_path)
        assert module.DESCRIPTION


def _break(folder: Path, index: dict[str, Any], what: str) -> None:
    if what == "missing":
        (folder / "1.codes.pt").unlink()
    elif what == "truncated":
        content = (folder / "1.residuals.pt").read_bytes()
        (folder / "1.residuals.pt").write_bytes(content[:-200])
    elif what == "short":
        write_pt(folder / "1.codes.pt", index["codes"][1][:-1])
    elif what == "lengths":
        (folder / "doclens.1.json").write_text("[3, 2]")
    elif what == "fraction":
        (folder / "doclens.1.json").write_text("[3.5]")
    elif what == "json":
        (folder / "doclens.1.json").write_text("[3, ")
    elif what in ("nbits", "bits", "dim", "chunks"):
        metadata = json.loads((folder / "metadata.json").read_text())
        if what == "chunks":
            metadata["num_chunks"] = "two"
        else:
            metadata["config"].update({"nbits": {"nbits": 4}, "bits": {"nbits": 3}, "dim": {"dim": 8}}[what])
        (folder / "metadata.json").write_text(json.dumps(metadata))
    elif what == "width":
        write_pt(folder / "1.residuals.pt", np.zeros((3, 8), np.uint8))
    elif what == "nan":
        index["centroids"][2, 5] = np.nan
        write_pt(folder / "centroids.pt", index["centroids"])
    elif what == "code":
        write_pt(folder / "1.codes.pt", np.array([0, 5, 1], np.int32))
    elif what == "negative":
        write_pt(folder / "1.codes.pt", np.array([0, -1, 1], np.int32))
    elif what == "kind":
        write_pt(folder / "1.codes.pt", np.zeros(3, np.float32))
    elif what == "buckets":
        write_pt(folder / "buckets.pt", index["weights"])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"index has no 1\.codes\.pt, but metadata\.json counts that chunk\. Copy"),
        ("truncated", r"1\.residuals\.pt is truncated .*Copy it again"),
        ("short", r"1\.codes\.pt has 2 codes and 3 residuals, but its lengths add up to 3 .* copy its files"),
        ("lengths", r"1\.codes\.pt has 3 codes and 3 residuals, but its lengths add up to 5"),
        ("fraction", r"doclens\.1\.json must be whole numbers, got dtype float64 with 3\.5 at 0"),
        ("json", r"doclens\.1\.json is damaged or truncated"),
        ("nbits", r"index has 4 bucket weights, but nbits=4 needs 16\. .* copy the whole folder"),
        ("bits", r"index has nbits=3, but residuals of 1, 2, 4 or 8 bits are read"),
        ("dim", r"centroids\.pt has 16 columns, but metadata\.json says dim=8"),
        ("chunks", r"metadata\.json: num_chunks must be an int, got str 'two'\. Copy it again"),
        (
            "width",
            r"1\.codes\.pt has residuals uint8 of shape \(3, 8\), but dimension=16 at nbits=2 .* 4 columns",
        ),
        ("nan", r"The centroids of .*index have nan at \[2, 5\]"),
        ("code", r"1\.codes\.pt has code 5, but .*index has 5 centroids"),
        ("negative", r"1\.codes\.pt has code -1, but .*index has 5 centroids"),
        ("kind", r"1\.codes\.pt must hold one integer a token, got float32 of shape \(3,\)"),
        ("buckets", r"buckets\.pt must hold the pair \(cutoffs, weights\)"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, what: str, message: str) -> None:
    index = random_index(1, [[2, 1], [3]])
    folder = write_plaid(tmp_path / "index", index)
    _break(folder, index, what)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        whole(plaid.open_source(folder))


def test_options_are_checked(tmp_path: Path) -> None:
    folder = write_plaid(tmp_path / "index", random_index(1, [[2]]))
    with pytest.raises(ValueError, match="dtype must be float32 or float16, got float64"):
        plaid.open_source(folder, dtype=np.float64)
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        list(plaid.open_source(folder).batches(0))
