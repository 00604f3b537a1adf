"""HDF5 files and zarr groups, written by their own libraries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera import convert
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
    with pytest.raises(
        ValueError, match=r"docs\.h5 is damaged, or is not in the format 'hdf5' \(.*truncated"
    ):
        convert.open_source(path)
    assert not hdf5.matches(tmp_path)


@pytest.fixture
def secret(tmp_path: Path, h5py: Any) -> Path:
    """A file of somebody else's, which no reader may hand out: an HDF5 file, too."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["tokens"], file["lengths"] = np.full((4, 4), 7, np.float32), [4]
    return tmp_path / "secret.h5"


def link_out(h5py: Any, file: Any, secret: Path) -> None:
    file["tokens"] = h5py.ExternalLink(str(secret), "/tokens")


def link_out_of_a_group(h5py: Any, file: Any, secret: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(secret), "/")
    file["tokens"] = h5py.SoftLink("/elsewhere/tokens")


def link_nowhere(h5py: Any, file: Any, secret: Path) -> None:
    file["tokens"] = h5py.SoftLink("/nothing")


def external_storage(h5py: Any, file: Any, secret: Path) -> None:
    file.create_dataset("tokens", (4, 4), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def virtual(h5py: Any, file: Any, secret: Path) -> None:
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "tokens", (4, 4))
    file.create_virtual_dataset("tokens", layout)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (link_out, r"docs\.h5 has a link 'tokens' to the file '.*secret\.h5', and only what lies in a file"),
        (link_out_of_a_group, r"docs\.h5 has a link 'elsewhere' to the file '.*secret\.h5'"),
        (link_nowhere, r"docs\.h5 has a link 'tokens' that leads nowhere"),
        (external_storage, r"docs\.h5.*: tokens keeps its numbers in the file '.*secret\.h5'"),
        (virtual, r"docs\.h5.*: tokens is a virtual dataset, made of those of other files"),
    ],
)
@pytest.mark.parametrize("group", [None, "inner/most"])
def test_hdf5_hands_out_no_other_file(
    tmp_path: Path, h5py: Any, secret: Path, make: Any, sentence: str, group: str | None
) -> None:
    assert convert.read(secret).num_tokens == 4
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        node = file if group is None else file.create_group(group)
        node["lengths"] = [4]
        make(h5py, node, secret)
    if group is not None and make is link_out_of_a_group:
        sentence = "docs.h5 has a link"
    with pytest.raises(ValueError, match=sentence):
        options: dict[str, Any] = {} if group is None else {"group": group}
        convert.read(tmp_path / "docs.h5", **options)


def test_hdf5_soft_links_within_the_file(tmp_path: Path, h5py: Any) -> None:
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        file["kept/numbers"], file["lengths"] = DOCS.tokens, DOCS.lengths
        file["tokens"] = h5py.SoftLink("/kept/numbers")
    np.testing.assert_array_equal(convert.read(tmp_path / "docs.h5").tokens, DOCS.tokens)
    with pytest.raises(ValueError, match="has no group 'kept/numbers'; it has kept, lengths, tokens"):
        convert.read(tmp_path / "docs.h5", group="kept/numbers")


def test_hdf5_through_a_link_into_another_file(tmp_path: Path, h5py: Any, secret: Path) -> None:
    """The group of the external link is not looked at, but the soft link leads through it."""
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        file["a/elsewhere"] = h5py.ExternalLink(str(secret), "/")
        file["docs/tokens"], file["docs/lengths"] = h5py.SoftLink("/a/elsewhere/tokens"), [4]
    with pytest.raises(ValueError, match=r"docs\.h5 has a link 'tokens' into another file"):
        convert.read(tmp_path / "docs.h5")


def test_hdf5_chunks_that_were_never_written(tmp_path: Path, h5py: Any) -> None:
    """Some hundred bytes could otherwise ask for any number of zeros."""
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        file.create_dataset("lengths", (2**40,), "i8", chunks=(2**20,))
        file["tokens"] = DOCS.tokens
    with pytest.raises(ValueError, match=r"lengths has 0 of its 1048576 chunks; the others are missing"):
        convert.read(tmp_path / "docs.h5")


@pytest.mark.parametrize(("value", "what"), [(0, "dim=0"), (-4, "dim=-4"), ("x", "dim of type")])
def test_hdf5_ragged_rows_of_no_width(tmp_path: Path, h5py: Any, value: Any, what: str) -> None:
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        rows = file.create_dataset("tokens", (1,), h5py.vlen_dtype(np.float32))
        rows[0] = np.ones(4, np.float32)
        rows.attrs["dim"] = value
    with pytest.raises(ValueError, match=rf"docs\.h5: tokens has the attribute {what}"):
        convert.read(tmp_path / "docs.h5")


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_hdf5_heaps_that_never_end_are_refused(tmp_path: Path, h5py: Any, compression: Any) -> None:
    """libhdf5 walks for ever through free space of size 0, and only the process's end stops it."""
    path = tmp_path / "docs.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset(
            "tokens", (4,), h5py.vlen_dtype(np.float32), chunks=(2,), compression=compression
        )
        for i, tokens in enumerate(DOCS):
            rows[i] = tokens.reshape(-1)
        rows.attrs["dim"] = 4
    np.testing.assert_array_equal(convert.read(path).tokens, DOCS.tokens)
    content = bytearray(path.read_bytes())
    begins = content.index(b"GCOL\x01")
    free = begins + 16
    while content[free : free + 2] != b"\0\0":
        free += 16 + -(-int.from_bytes(content[free + 8 : free + 16], "little") // 8) * 8
    for size in (0, 15, 2**40, 2**64 - 1):
        content[free + 8 : free + 16] = size.to_bytes(8, "little")
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"docs\.h5 is damaged: its heap .* at byte {begins} is not sound"
        ):
            convert.read(path)


def test_hdf5_numbers_that_look_like_a_heap(tmp_path: Path, h5py: Any) -> None:
    look = np.frombuffer(b"GCOL\x01\0\0\0", np.float32)
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        file["tokens"], file["lengths"], file["ids"] = look.reshape(1, 2), [1], ["a"]
    assert convert.read(tmp_path / "docs.h5").tokens.tolist() == [look.tolist()]


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
    with pytest.raises(ValueError, match=r" is damaged, or is not in the format 'zarr' \("):
        convert.open_source(tmp_path)


def zarr_group(zarr: Any, path: Path, zarr_format: int) -> Path:
    node = zarr.create_group(str(path), zarr_format=zarr_format)
    for name, values in (("tokens", DOCS.tokens), ("lengths", DOCS.lengths)):
        node.create_array(name, shape=values.shape, dtype=values.dtype)[:] = values
    node.create_array("ids", shape=(4,), dtype=str)[:] = DOCS.ids.astype(object)
    return path


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_zarr_codecs_that_run_programs_are_refused_by_name(tmp_path: Path, zarr: Any) -> None:
    """Whatever numcodecs allows: an older one would load the pickle."""
    bytes_ = {"name": "bytes", "configuration": {"endian": "little"}}
    pickling = {"name": "numcodecs.pickle", "configuration": {"protocol": 5}}
    shards = {"chunk_shape": [4], "codecs": [bytes_, pickling], "index_codecs": [bytes_]}
    for i, codecs in enumerate([[bytes_, pickling], [{"name": "sharding_indexed", "configuration": shards}]]):
        path = zarr_group(zarr, tmp_path / f"three{i}", 3)
        change_json(path / "lengths" / "zarr.json", codecs=codecs)
        with pytest.raises(
            ValueError, match=r"/three\d.*(: lengths uses the codec 'numcodecs.pickle', of|damaged)"
        ):
            convert.read(path)
    path = zarr_group(zarr, tmp_path / "two", 2)
    change_json(path / "ids" / ".zarray", filters=[{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}])
    with pytest.raises(ValueError, match=r"two: ids uses the codec 'pickle', of which it is not known"):
        convert.read(path)


def test_zarr_consolidated_metadata_does_not_lead_elsewhere(tmp_path: Path, zarr: Any) -> None:
    secret = zarr_group(zarr, tmp_path / "secret", 3)
    path = tmp_path / "docs"
    zarr.create_group(str(path))
    inside = {
        f"../secret/{name}": json.loads((secret / name / "zarr.json").read_text())
        for name in ("tokens", "lengths")
    }
    change_json(
        path / "zarr.json",
        consolidated_metadata={"kind": "inline", "must_understand": False, "metadata": inside},
    )
    with pytest.raises(ValueError, match=r"docs has no token vectors under a known name"):
        convert.read(path)


def test_zarr_chunks_that_were_never_written(tmp_path: Path, zarr: Any) -> None:
    path = zarr_group(zarr, tmp_path / "docs", 3)
    grid = {"name": "regular", "configuration": {"chunk_shape": [4]}}
    change_json(path / "lengths" / "zarr.json", shape=[2**40], chunk_grid=grid)
    with pytest.raises(ValueError, match=r"docs: lengths has 1 of its 274877906944 chunks; the others"):
        convert.read(path)


@pytest.mark.parametrize(("module", "extra"), [(hdf5, "hdf5"), (zarr_reader, "zarr")])
def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, extra: str) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=rf"pip install 'muvera-toolkit\[{extra}\]'"):
        module.open_source(tmp_path)
