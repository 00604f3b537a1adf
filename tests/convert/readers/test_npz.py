"""NumPy archives: stored and compressed, flat and one array a document."""

from __future__ import annotations

import io
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera import MultiVectors, convert
from muvera.convert.parsing.safe_pickle import RefusedPickleError
from muvera.convert.readers import npz

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])


@pytest.fixture(params=[np.savez, np.savez_compressed])
def save(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_tokens_and_lengths(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "docs.npz"
    save(path, tokens=DOCS.tokens, doclens=DOCS.lengths.astype(np.int32), ids=DOCS.ids)
    assert npz.matches(path)
    source = npz.open_source(path)
    for max_tokens in (1, 4, 100):  # compressed members are read forward, then from the start again
        assert_same(everything(source, max_tokens), DOCS)


def test_offsets_and_bytes_as_ids(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "docs.npz", embeddings=DOCS.tokens, offsets=DOCS.offsets, ids=DOCS.ids.astype("S"))
    assert_same(everything(npz.open_source(tmp_path / "docs.npz")), DOCS)


def test_stored_members_are_mapped_at_any_address(tmp_path: Path) -> None:
    for name in ("a", "abc"):  # the members' names move the bytes
        arrays: dict[str, Any] = {name: np.ones(1), "tokens": DOCS.tokens, "lengths": DOCS.lengths}
        np.savez(tmp_path / "docs.npz", **arrays)
        batch = next(npz.open_source(tmp_path / "docs.npz").batches(100))
        assert batch.tokens.flags.aligned
        np.testing.assert_array_equal(batch.tokens, DOCS.tokens)


def test_numbered_members_in_the_order_of_their_numbers(tmp_path: Path, save: Any) -> None:
    docs = collection([1, 2, 0, 3, 1, 1, 1, 1, 1, 1, 2, 1])
    arrays = {f"emb_{i}": tokens for i, tokens in enumerate(docs)}
    save(tmp_path / "docs.npz", n=np.array(len(docs)), **dict(sorted(arrays.items())))
    assert_same(everything(npz.open_source(tmp_path / "docs.npz")), docs)
    del arrays["emb_4"]
    save(tmp_path / "docs.npz", **arrays)
    with pytest.raises(ValueError, match="has no emb_4, but emb_11"):
        npz.open_source(tmp_path / "docs.npz")


def test_pickled_ids_without_running_them(tmp_path: Path, save: Any) -> None:
    """muvera-python's fixtures have an object array of ids."""
    arrays: dict[str, Any] = {f"emb_{i}": tokens for i, tokens in enumerate(DOCS)}
    path, names = tmp_path / "docs.npz", DOCS.ids.astype(object)
    save(path, ids=names, n=np.array(4), **arrays)
    assert_same(everything(npz.open_source(path)), DOCS)
    other = np.array([Decimal(1)], object)
    save(path, ids=names, tokens=DOCS.tokens, lengths=DOCS.lengths, other=other)
    assert_same(everything(npz.open_source(path)), DOCS)
    names[0] = Decimal(1)
    save(path, ids=names, tokens=DOCS.tokens, lengths=DOCS.lengths)
    with pytest.raises(
        RefusedPickleError, match=r"docs\.npz: ids\.npy is a pickle that asks for decimal\.Decimal"
    ):
        npz.open_source(path)
    for wrong, sentence in (({"a": 1}, "ids must be all int or all str, got dict"), (1.5, "got float, str")):
        names[0] = wrong
        save(path, ids=names, tokens=DOCS.tokens, lengths=DOCS.lengths)
        with pytest.raises(TypeError, match=sentence):
            npz.open_source(path)


def test_one_array_a_document(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "docs.npz", **dict(zip(DOCS.ids.tolist(), DOCS, strict=True)))
    assert_same(everything(npz.open_source(tmp_path / "docs.npz")), DOCS)


def test_padded_with_a_mask(tmp_path: Path, save: Any) -> None:
    padded, mask = np.full((4, 3, 4), 9, np.float32), np.zeros((4, 3), bool)
    for i, tokens in enumerate(DOCS):
        padded[i, : len(tokens)], mask[i, : len(tokens)] = tokens, True
    save(tmp_path / "docs.npz", embeddings=padded, attention_mask=mask, ids=DOCS.ids)
    assert_same(everything(npz.open_source(tmp_path / "docs.npz")), DOCS)
    save(tmp_path / "docs.npz", embeddings=padded, attention_mask=mask[:, :2])
    with pytest.raises(ValueError, match=r"attention_mask has shape \(4, 2\), but embeddings needs \(4, 3\)"):
        npz.open_source(tmp_path / "docs.npz")


@pytest.mark.parametrize("keep", [0, 10, 300, -10])
def test_truncated(tmp_path: Path, save: Any, keep: int) -> None:
    path = tmp_path / "docs.npz"
    save(path, tokens=DOCS.tokens, lengths=DOCS.lengths)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"docs\.npz is truncated or no \.npz file"):
        npz.open_source(path)


def test_a_damaged_member(tmp_path: Path) -> None:
    path = tmp_path / "docs.npz"
    docs = collection([5000])
    np.savez_compressed(path, tokens=docs.tokens, lengths=docs.lengths)
    content = bytearray(path.read_bytes())
    content[20_000:20_100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"docs\.npz: tokens\.npy is damaged"):
        list(npz.open_source(path).batches(100))


def test_unknown_members(tmp_path: Path) -> None:
    np.savez(tmp_path / "docs.npz", left=np.ones(3), right=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"looked for tokens, .* found left, right"):
        npz.open_source(tmp_path / "docs.npz")


def test_mixed_widths(tmp_path: Path) -> None:
    np.savez(tmp_path / "docs.npz", emb_0=np.ones((2, 4)), emb_1=np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"emb_1: document 1 has 5 columns, but this source has dimension=4"):
        everything(npz.open_source(tmp_path / "docs.npz"))


def test_small_files_that_unpack_to_much(tmp_path: Path) -> None:
    """Half a megabyte of lengths that are all zero took 1.3 GB before."""
    path = tmp_path / "docs.npz"
    np.savez_compressed(path, tokens=np.ones((1, 4)), lengths=np.zeros(4 << 20, np.int64))
    with pytest.raises(ValueError, match=r"docs\.npz: lengths\.npy unpacks \d+ bytes to more than 16777216"):
        npz.open_source(path)


@pytest.mark.parametrize("fortran", [True, False])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_claims_are_compared_with_the_size(tmp_path: Path, fortran: bool, method: int) -> None:
    """477 GiB were asked for before."""
    path = tmp_path / "docs.npz"
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": fortran, "shape": (10**9, 128)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("tokens.npy", header.getvalue() + bytes(100))
    with pytest.raises(
        ValueError,
        match=r"tokens\.npy is truncated: shape \(1000000000, 128\) of float32 needs 512000000000 bytes of numb",
    ):
        npz.open_source(path)


def test_a_name_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "docs.npz"
    np.savez(path, tokens=DOCS.tokens, lengths=DOCS.lengths)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("tokens.npy", archive.read("tokens.npy"))
    with pytest.raises(ValueError, match=r"docs\.npz has tokens\.npy more than once"):
        npz.open_source(path)


def test_ids_of_very_different_lengths(tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(20_000)]
    names[3] = "x" * 60_000
    docs = MultiVectors.from_flat(np.ones((20_000, 1), np.float32), np.ones(20_000, int), ids=names)
    convert.convert(docs, tmp_path / "docs.npz", to="npz")
    assert (tmp_path / "docs.npz").stat().st_size < 2 << 20
    assert everything(npz.open_source(tmp_path / "docs.npz"), 10**6).ids.tolist() == names
