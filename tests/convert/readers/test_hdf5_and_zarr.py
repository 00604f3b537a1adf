"""HDF5 files and zarr groups, written by their own libraries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert.readers import hdf5
from muvera.convert.readers import zarr as zarr_reader

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "dé"])


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="the hdf5 extra is not installed")


@pytest.fixture
def zarr() -> Any:
    return pytest.importorskip("zarr", reason="the zarr extra is not installed")


@pytest.mark.parametrize("key", ["offsets", "lengths"])
@pytest.mark.parametrize("group", ["/", "docs"])
def test_hdf5_flat(tmp_path: Path, h5py: Any, key: str, group: str) -> None:
    path = tmp_path / "docs.h5"
    with h5py.File(path, "w") as file:
        node = file.require_group(group)
        node.create_dataset("tokens", data=DOCS.tokens, chunks=(2, 4), compression="gzip")
        node[key] = getattr(DOCS, key)
        node["ids"] = DOCS.ids.tolist()
    assert hdf5.matches(path)
    source = hdf5.open_source(path)
    assert_same(everything(source, 2), DOCS)
    assert_same(everything(source, 100), DOCS)


def test_hdf5_of_lemur_has_both_parts(tmp_path: Path, h5py: Any) -> None:
    queries = collection([2, 1], seed=1)
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        file["train"], file["train_counts"] = DOCS.tokens, DOCS.lengths
        file["test"], file["test_counts"] = queries.tokens, queries.lengths
    assert everything(hdf5.open_source(tmp_path / "data.hdf5")).lengths.tolist() == [3, 0, 1, 2]
    assert_same(everything(hdf5.open_source(tmp_path / "data.hdf5", part="queries")), queries)


def test_hdf5_one_dataset_a_document(tmp_path: Path, h5py: Any) -> None:
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        for name, tokens in zip(DOCS.ids.tolist(), DOCS, strict=True):
            file[f"docs/{name}"] = tokens
    assert_same(everything(hdf5.open_source(tmp_path / "docs.h5")), DOCS)


@pytest.mark.parametrize("where", ["dataset", "group"])
def test_hdf5_ragged_rows(tmp_path: Path, h5py: Any, where: str) -> None:
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        rows = file.create_dataset("embeddings", (4,), h5py.vlen_dtype(np.float32))
        for i, tokens in enumerate(DOCS):
            rows[i] = tokens.reshape(-1)
        file["ids"] = np.array([4, 3, 2, 1])
        (rows if where == "dataset" else file).attrs["dim"] = 4
    assert_same(everything(hdf5.open_source(tmp_path / "docs.h5")), DOCS.with_ids([4, 3, 2, 1]))
    with h5py.File(tmp_path / "docs.h5", "r+") as file:
        (file["embeddings"] if where == "dataset" else file).attrs["dim"] = 5
    with pytest.raises(ValueError, match="document 0 has 12 numbers, no multiple of dimension=5"):
        everything(hdf5.open_source(tmp_path / "docs.h5"))
    with h5py.File(tmp_path / "docs.h5", "r+") as file:
        del (file["embeddings"] if where == "dataset" else file).attrs["dim"]
    with pytest.raises(ValueError, match="no attribute 'dim' says how wide a token is"):
        hdf5.open_source(tmp_path / "docs.h5")


def test_hdf5_groups_and_damage(tmp_path: Path, h5py: Any) -> None:
    path = tmp_path / "docs.h5"
    with h5py.File(path, "w") as file:
        file["left/tokens"], file["right/tokens"] = DOCS.tokens, DOCS.tokens
    with pytest.raises(ValueError, match=r"has the groups left, right\. Say which with group="):
        hdf5.open_source(path)
    with pytest.raises(ValueError, match="has no group 'up'; it has left, right"):
        hdf5.open_source(path, group="up")
    with pytest.raises(ValueError, match=r"docs\.h5:/left has 6 token vectors in tokens, but nothing says"):
        hdf5.open_source(path, group="left")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"docs\.h5 is truncated or no HDF5 file"):
        hdf5.open_source(path)
    assert not hdf5.matches(tmp_path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("group", [None, "inner"])
def test_zarr_flat(tmp_path: Path, zarr: Any, zarr_format: int, group: str | None) -> None:
    path = tmp_path / "docs.zarr"
    node = zarr.create_group(str(path), zarr_format=zarr_format)
    node = node if group is None else node.create_group(group)
    for name, values, chunks in (("tokens", DOCS.tokens, (2, 4)), ("offsets", DOCS.offsets, (5,))):
        node.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks)[:] = values
    node.create_array("ids", shape=(4,), dtype=str)[:] = DOCS.ids.astype(object)
    assert zarr_reader.matches(path)
    source = zarr_reader.open_source(path, group=group)
    assert_same(everything(source, 2), DOCS)
    assert_same(everything(source, 100), DOCS)
    chunk = {2: "tokens/2.0", 3: "tokens/c/2/0"}[zarr_format]
    (path / (group or "") / chunk).unlink()
    with pytest.raises(ValueError, match="tokens has 2 of its 3 chunks; the others are missing"):
        zarr_reader.open_source(path, group=group)


def test_zarr_one_array_a_document(tmp_path: Path, zarr: Any) -> None:
    node = zarr.create_group(str(tmp_path / "docs.zarr"))
    for name, tokens in zip(DOCS.ids.tolist(), DOCS, strict=True):
        array = node.create_array(
            name, shape=tokens.shape, dtype=tokens.dtype, chunks=(max(len(tokens), 1), 4)
        )
        array[:] = tokens
    assert_same(everything(zarr_reader.open_source(tmp_path / "docs.zarr")), DOCS)


def test_zarr_damaged(tmp_path: Path, zarr: Any) -> None:
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="is no zarr group"):
        zarr_reader.open_source(tmp_path)


@pytest.mark.parametrize(("module", "extra"), [(hdf5, "hdf5"), (zarr_reader, "zarr")])
def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, extra: str) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=rf"pip install 'muvera-toolkit\[{extra}\]'"):
        module.open_source(tmp_path)
