"""fast-plaid and next-plaid indexes: real ones of two releases, random ones, damaged ones."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from builders.foreign_indexes import decode_index, random_index, write_fast_plaid
from builders.paths import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert.parsing.safe_pickle import load_npy_safely
from muvera.convert.readers import fast_plaid, plaid, pylate, warp
from muvera.convert.sources.base import CollectionSource, Source
from muvera.convert.sources.plaid_codec import QuantizedSource
from muvera.data.multivectors import MultiVectors

FOLDER = GOLDEN / "convert"
RELEASES = ("1.4.6", "1.7.0")


def whole(source: Source, max_tokens: int = 10_000) -> MultiVectors:
    return MultiVectors.concatenate(list(source.batches(max_tokens)))


def normalized(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("release", RELEASES)
def test_an_index_of_the_library_with_chunks_updates_and_deletions(release: str) -> None:
    folder = FOLDER / f"fast_plaid_{release}"
    assert [m.NAME for m in (plaid, fast_plaid, pylate, warp) if m.matches(folder)] == ["fast_plaid"]
    source = fast_plaid.open_source(folder)
    assert isinstance(source, Source)
    expected = np.load(folder / "expected.npz")
    documents = whole(source, 50)
    assert (source.dimension, source.nbits, source.lossy, source.num_documents) == (16, 4, True, 54)
    assert documents.lengths.tolist() == expected["lengths"].tolist()
    # The library computes in half precision.
    np.testing.assert_allclose(documents.tokens, normalized(expected["decoded"]), atol=2e-3)


@pytest.mark.parametrize("release", RELEASES)
def test_the_documents_of_the_buffer_are_in_the_chunks(release: str) -> None:
    """So the buffer must not be read as well: its documents would come twice."""
    folder = FOLDER / f"fast_plaid_{release}"
    documents = whole(fast_plaid.open_source(folder))
    buffered = list(load_npy_safely(folder / "buffer.npy"))
    del buffered[5]  # document 55 was deleted, and the library's buffer did not notice
    for exact, decoded in zip(buffered, list(documents)[-6:], strict=True):
        # 0.93 and more here; documents that are not the same stay below 0.51.
        assert np.einsum("ij,ij->i", exact, decoded).mean() > 0.9


@pytest.mark.parametrize("release", RELEASES)
def test_exact_vectors_in_a_pickle_are_preferred(release: str) -> None:
    folder = FOLDER / f"fast_plaid_{release}_small"
    source = fast_plaid.open_source(folder, exact=False)
    assert isinstance(source, QuantizedSource) and source.lossy
    exact = fast_plaid.open_source(folder)
    assert isinstance(exact, CollectionSource) and not exact.lossy
    given, decoded = whole(exact), whole(source)
    assert given.lengths.tolist() == decoded.lengths.tolist()
    np.testing.assert_allclose(np.linalg.norm(given.tokens, axis=1), 1, atol=1e-6)
    assert (np.einsum("ij,ij->i", given.tokens, decoded.tokens) > 0.97).all()


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 4, 8]),
    st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=12),
    st.booleans(),
)
def test_random_indexes(seed: int, nbits: int, lengths: list[list[int]], merged: bool) -> None:
    index = random_index(seed, lengths, 24, nbits)
    with tempfile.TemporaryDirectory() as name:
        folder = write_fast_plaid(Path(name) / "index", index)
        if merged:  # as fast-plaid 1.7 leaves it, with rows of padding at the end
            for kind, parts in (("codes", index["codes"]), ("residuals", index["packed"])):
                padding = np.zeros((3, *parts[0].shape[1:]), parts[0].dtype)
                np.save(folder / f"merged_{kind}.npy", np.concatenate([*parts, padding]))
                for i in range(len(lengths)):
                    (folder / f"{i}.{kind}.npy").unlink()
        batches = list(fast_plaid.open_source(folder).batches(5))
    assert [n for batch in batches for n in batch.lengths] == [n for chunk in lengths for n in chunk]
    tokens = np.concatenate([np.empty((0, 24), np.float32), *[batch.tokens for batch in batches]])
    np.testing.assert_allclose(tokens, decode_index(index), atol=1e-6)


def test_a_pending_chunk_beside_the_merged_file(tmp_path: Path) -> None:
    """Chunk 1 grew after the merge: chunk 2 still lies where the manifest says."""
    index = random_index(3, [[2], [4], [3]])
    folder = write_fast_plaid(tmp_path / "index", index)
    for kind, parts in (("codes", index["codes"]), ("residuals", index["packed"])):
        np.save(folder / f"merged_{kind}.npy", np.concatenate([parts[0], parts[1][:1], parts[2]]))
        rows = {f"{i}.{kind}.npy": {"rows": n, "merged": True} for i, n in enumerate((2, 1, 3))}
        (folder / f"merged_{kind}.manifest.json").write_text(json.dumps(rows))
        for i in (0, 2):
            (folder / f"{i}.{kind}.npy").unlink()
    documents = whole(fast_plaid.open_source(folder))
    np.testing.assert_allclose(documents.tokens, decode_index(index), atol=1e-6)


def test_exact_vectors_of_next_plaid_are_preferred(tmp_path: Path) -> None:
    index = random_index(3, [[2, 0], [4]])
    folder = write_fast_plaid(tmp_path / "index", index)
    exact = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    np.save(folder / "embeddings.npy", exact)
    (folder / "embeddings_lengths.json").write_text("[2, 0, 4]")
    source = fast_plaid.open_source(folder)
    assert not source.lossy and source.nbits is None
    documents = whole(source)
    assert np.array_equal(documents.tokens, exact)
    assert documents.lengths.tolist() == [2, 0, 4]
    np.testing.assert_allclose(
        whole(fast_plaid.open_source(folder, exact=False)).tokens, decode_index(index), atol=1e-6
    )
    (folder / "embeddings_lengths.json").write_text("[2, 4]")
    stale = fast_plaid.open_source(folder)
    assert isinstance(stale, QuantizedSource)
    assert stale.lossy and "left aside" in str(stale.note)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"index has neither 1\.codes\.npy nor merged_codes\.npy, but metadata\.json counts 2"),
        ("truncated", r"1\.residuals\.npy is truncated: shape"),
        ("lengths", r"0\.codes\.npy has 3 codes and 3 residuals, but its lengths add up to 4"),
        ("ternary", r"0\.codes\.npy has residuals uint8 of shape \(3, 3\), but dimension=16 at nbits=2"),
        ("nbits", r"index has nbits=None, but residuals of 1, 2, 4 or 8 bits are read"),
        ("nan", r"The bucket weights of .*index have inf at \[1\]"),
        ("merged", r"merged_codes\.npy has 2 rows, but chunk 0 ends at row 3"),
        ("doclens", r"doclens\.1\.json is missing\. Copy the whole folder again"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, what: str, message: str) -> None:
    index = random_index(1, [[2, 1], [3]])
    folder = write_fast_plaid(tmp_path / "index", index)
    if what == "missing":
        (folder / "1.codes.npy").unlink()
    elif what == "truncated":
        (folder / "1.residuals.npy").write_bytes((folder / "1.residuals.npy").read_bytes()[:-3])
    elif what == "lengths":
        (folder / "doclens.0.json").write_text("[2, 2]")
    elif what == "ternary":
        np.save(folder / "0.residuals.npy", np.zeros((3, 3), np.uint8))
    elif what == "nbits":
        (folder / "metadata.json").write_text('{"num_chunks": 2}')
    elif what == "nan":
        np.save(folder / "bucket_weights.npy", np.array([0, np.inf, 1, 2], np.float32))
    elif what == "merged":
        (folder / "0.codes.npy").unlink()
        np.save(folder / "merged_codes.npy", np.zeros(2, np.int64))
    elif what == "doclens":
        (folder / "doclens.1.json").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        whole(fast_plaid.open_source(folder))


def test_a_malicious_embeddings_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(FOLDER / "fast_plaid_1.7.0_small", folder)
    evil = (FOLDER / "torch_files" / "malicious.pt").read_bytes()
    start = evil.index(b"\x80\x02")
    header = (folder / "embeddings.npy").read_bytes()[:128]
    (folder / "embeddings.npy").write_bytes(header + evil[start:])
    with pytest.raises(Exception, match=r"embeddings\.npy is a pickle that asks for posix\.system"):
        fast_plaid.open_source(folder)
    assert len(whole(fast_plaid.open_source(folder, exact=False))) == 12
