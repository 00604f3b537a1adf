"""npy folders, npz, safetensors, HDF5 and zarr: the same arrays in every container."""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert import open_source, read
from muvera.convert.registry import find_reader

LENGTHS = [3, 0, 1, 2]
DOCS = collection(LENGTHS, ids=["a", "b", "c", "dé"])
Arrays = Mapping[str, Any]


def write_npy(path: Path, arrays: Arrays) -> Path:
    """Write each array as .npy, each list as .json."""
    path.mkdir(parents=True)
    for name, value in arrays.items():
        if isinstance(value, list):
            (path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
        else:
            np.save(path / f"{name}.npy", value, allow_pickle=True)
    return path


def write_npz(path: Path, arrays: Arrays, save: Any = np.savez) -> Path:
    save(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def write_safetensors(path: Path, arrays: Arrays) -> Path:
    """Write lists as ids in the metadata."""
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    metadata = {name: json.dumps(value) for name, value in arrays.items() if isinstance(value, list)}
    tensors = {name: np.ascontiguousarray(value) for name, value in arrays.items() if name not in metadata}
    library.save_file(tensors, path.with_suffix(".safetensors"), metadata)
    return path.with_suffix(".safetensors")


def write_hdf5(path: Path, arrays: Arrays) -> Path:
    h5py = pytest.importorskip("h5py", reason="the hdf5 extra is not installed")
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, value in arrays.items():
            chunked = isinstance(value, np.ndarray) and value.ndim == 2 and len(value) > 1
            options = {"chunks": (2, value.shape[1]), "compression": "gzip"} if chunked else {}
            file.create_dataset(name, data=value, **options)
    return path.with_suffix(".h5")


def write_zarr(path: Path, arrays: Arrays, zarr_format: int = 3) -> Path:
    zarr = pytest.importorskip("zarr", reason="the zarr extra is not installed")
    group = zarr.create_group(str(path), zarr_format=zarr_format)
    for name, value in arrays.items():
        if isinstance(value, list):
            group.create_array(name, shape=(len(value),), dtype=str)[:] = np.array(value, object)
        else:
            chunks = (2, *value.shape[1:]) if value.ndim == 2 else value.shape
            group.create_array(name, shape=value.shape, dtype=value.dtype, chunks=chunks)[:] = value
    return path


WRITERS: dict[str, Any] = {
    "npy": write_npy,
    "npz": write_npz,
    "npz-compressed": partial(write_npz, save=np.savez_compressed),
    "safetensors": write_safetensors,
    "hdf5": write_hdf5,
    "zarr": write_zarr,
    "zarr-2": partial(write_zarr, zarr_format=2),
}
Write = Callable[[Path, Arrays], Path]


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Any:
    return WRITERS[request.param]


@pytest.mark.parametrize("bounds", ["lengths", "offsets"])
def test_flat_tokens(tmp_path: Path, write: Write, bounds: str) -> None:
    arrays = {"tokens": DOCS.tokens, bounds: getattr(DOCS, bounds), "ids": DOCS.ids.tolist()}
    path = write(tmp_path / "docs", arrays)
    source = open_source(path)
    assert source.name == find_reader(path).name
    for max_tokens in (1, 4, 100):  # compressed members are read forward, then from the start again
        assert_same(everything(source, max_tokens), DOCS)


def test_docs_and_queries_in_one_container(tmp_path: Path, write: Write) -> None:
    queries = collection([2, 1], seed=1, dtype=np.float16)
    docs = {"train": np.asfortranarray(DOCS.tokens), "train_counts": DOCS.lengths.astype(np.uint64)}
    test = {"test": queries.tokens, "test_counts": queries.lengths.astype(np.int32)}
    path = write(tmp_path / "data", docs | test)
    assert everything(open_source(path)).lengths.tolist() == LENGTHS
    assert_same(everything(open_source(path, part="queries")), queries)
    with pytest.raises(ValueError, match="part must be 'docs' or 'queries', got 'both'"):
        open_source(path, part="both")


@pytest.mark.parametrize("name", ["mask", "lengths", "zeros"])
def test_padded_with_a_mask_or_lengths(tmp_path: Path, write: Write, name: str) -> None:
    padded, mask = np.zeros((4, 3, 4), np.float32), np.zeros((4, 3), bool)
    for i, tokens in enumerate(DOCS):
        padded[i, : len(tokens)], mask[i, : len(tokens)] = tokens, True
    extra = {"mask": {"mask": mask}, "lengths": {"lengths": DOCS.lengths}, "zeros": {}}[name]
    source = open_source(write(tmp_path / name, {"embeddings": padded, **extra}))
    assert_same(everything(source, 5), collection(LENGTHS))
    assert source.dropped_rows == 6


def test_one_array_per_document(tmp_path: Path, write: Write) -> None:
    if write is write_npy:
        pytest.skip("a folder of .npy files has known names")
    named = write(tmp_path / "named", dict(zip(DOCS.ids.tolist(), DOCS, strict=True)))
    assert_same(everything(open_source(named)), DOCS)
    many = collection([1, 2, 0, 3, 1, 1, 1, 1, 1, 1, 2, 1])
    arrays = {f"emb_{i}": tokens for i, tokens in enumerate(many)}
    numbered = write(tmp_path / "numbered", dict(sorted(arrays.items())))
    assert_same(everything(open_source(numbered)), many)


PADDED, ROW = np.ones((4, 3, 4), np.float32), np.ones((1, 4), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"lengths": np.array([3, 0, 1])}, "add up to 4, but there are 6"),
        ({"offsets": np.array([0, 3, 5])}, "from 0 to the 6 token vectors, got 0 to 5"),
        ({"lengths": np.array(LENGTHS), "ids": ["a", "b"]}, "2 entries for 4"),
        ({}, "has 6 token vectors in tokens, but not the number"),
        ({"tokens": np.ones((2, 0), np.float32)}, r"got \(2, 0\)"),
        ({"tokens": np.ones((6, 4), np.int64)}, "dtype int64, but token vectors must be floating point"),
        ({"tokens": PADDED, "mask": np.ones((4, 2))}, r"has shape \(4, 2\)"),
        # 64 rows are read at a time.
        ({"tokens": np.ones((64, 3, 4), np.float32), "mask": np.ones((65, 3))}, r"has shape \(65, 3\)"),
        ({"tokens": PADDED, "lengths": np.array([4, 0, 0, 0])}, "one length of 0 to 3 for each of 4"),
        ({"emb_0": ROW, "emb_1": np.ones((1, 5), np.float32)}, r"document 1 has shape .* dimension=4"),
        ({"emb_0": ROW, "emb_2": ROW}, "has 2 documents up to emb_2: some are missing"),
        ({"ids": np.array([Decimal(1)]), "emb_0": ROW}, r"ids\.npy is a pickle .* decimal\.Decimal"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: Arrays, message: str) -> None:
    flat = {} if "emb_0" in arrays else {"tokens": DOCS.tokens}
    path = write_npz(tmp_path / "docs", flat | dict(arrays))
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("write", [write_npy, write_npz, write_safetensors])
def test_tokens_are_not_copied_but_aligned(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "docs", {"x": np.ones(1), "tokens": DOCS.tokens, "lengths": DOCS.lengths})
    tokens = next(open_source(path).batches(100)).tokens
    assert tokens.flags.aligned and (not tokens.flags.owndata or write is write_npz)


# -- npy --------------------------------------------------------------------------


def test_npy_one_file_with_its_lengths_beside(tmp_path: Path) -> None:
    own = {"mine": DOCS.tokens, "mine_lengths": DOCS.lengths, "mine_ids": [4, 5, 6, 7]}
    folder = write_npy(tmp_path / "a", own | {"lengths": DOCS.lengths[::-1]})  # the file's own come first
    assert_same(everything(open_source(folder / "mine.npy")), DOCS.with_ids([4, 5, 6, 7]))
    other = write_npy(tmp_path / "b", {"flat": DOCS.tokens})
    with pytest.raises(ValueError, match=r"flat\.npy: it has 6 token vectors"):
        open_source(other / "flat.npy")


def test_npy_folders_that_are_not_read(tmp_path: Path) -> None:
    index = write_npy(tmp_path / "index", {"tokens": np.ones((3, 2)), "centroids": np.ones(1)})
    with pytest.raises(ValueError, match="is in no known format"):
        find_reader(index)
    with pytest.raises(ValueError, match=r"looked for tokens, .*found other"):
        open_source(write_npy(tmp_path / "other", {"other": np.ones(3)}), "npy")


def object_arrays(folder: Path, **changed: Any) -> Path:
    """Write the documents as an array of objects; `second` replaces the second one."""
    arrays = np.empty(4, object)
    arrays[:] = list(DOCS)
    path = write_npy(folder / "docs", {"embeddings": arrays, "ids": DOCS.ids.tolist()})
    if changed:
        arrays[1] = changed["second"]
        np.save(path / "embeddings.npy", arrays, allow_pickle=True)
    return path


def test_object_arrays(tmp_path: Path) -> None:
    assert_same(everything(open_source(object_arrays(tmp_path))), DOCS)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (np.ones((1, 4), int), ValueError, "document 1 must be an array of floats, got int64"),
        (print, pickle.UnpicklingError, r"embeddings\.npy is a pickle that refers to builtins\.print"),
    ],
    ids=["integers", "function"],
)
def test_object_arrays_run_no_code(tmp_path: Path, value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        everything(open_source(object_arrays(tmp_path, second=value)))


# -- npz --------------------------------------------------------------------------


def test_npz_ids_as_bytes_and_objects(tmp_path: Path) -> None:
    """muvera-python's fixtures have an object array of ids."""
    arrays = {f"emb_{i}": tokens for i, tokens in enumerate(DOCS)}
    objects: dict[str, Any] = {"ids": DOCS.ids.astype(object), "n": np.array(4), **arrays}
    assert_same(everything(open_source(write_npz(tmp_path / "a", objects))), DOCS)
    encoded = np.array([name.encode() for name in DOCS.ids.tolist()])
    path = write_npz(tmp_path / "b", {"tokens": DOCS.tokens, "offsets": DOCS.offsets, "ids": encoded})
    assert_same(everything(open_source(path)), DOCS)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("tokens.npy", archive.read("tokens.npy"))
    with pytest.raises(ValueError, match=r"tokens\.npy more than once"):
        open_source(path)


# -- safetensors ------------------------------------------------------------------


BFLOAT16_BITS = (DOCS.tokens.view(np.uint32) >> 16).astype(np.uint16)


def write_header(path: Path, shape: list[int], dtype: str = "BF16") -> Path:
    """Write the documents as bfloat16 under a header with this shape and dtype."""
    lengths = {"dtype": "I64", "shape": [4], "data_offsets": [48, 80]}
    tokens = {"dtype": dtype, "shape": shape, "data_offsets": [0, 48]}
    text = json.dumps({"tokens": tokens, "lengths": lengths}).encode()
    body = BFLOAT16_BITS.tobytes() + DOCS.lengths.tobytes()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_safetensors_bfloat16_becomes_float32(tmp_path: Path) -> None:
    expected = (BFLOAT16_BITS.astype(np.uint32) << 16).view(np.float32)
    path = write_header(tmp_path / "docs.safetensors", [6, 4])
    np.testing.assert_array_equal(read(path).tokens, expected)


@pytest.mark.parametrize(
    ("shape", "dtype"), [([2**64, 4], "BF16"), ([-1, -24], "BF16"), ([6, 5], "BF16"), ([6, 4], "F8_E4M3")]
)
def test_wrong_headers_of_safetensors_are_refused(tmp_path: Path, shape: list[int], dtype: str) -> None:
    path = write_header(tmp_path / "docs.safetensors", shape, dtype)
    with pytest.raises(ValueError, match=r"docs\.safetensors.*tokens (has dtype F8|at bytes)"):
        read(path)


# -- HDF5 -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "link through a group", "external", "virtual"])
def test_hdf5_opens_no_other_file(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py")
    secret = write_hdf5(tmp_path / "secret", {"tokens": np.full((4, 4), 7, np.float32), "lengths": [4]})
    with h5py.File(tmp_path / "docs.h5", "w") as file:
        file["lengths"] = [4]
        if kind == "link":
            file["tokens"] = h5py.ExternalLink(secret, "/tokens")
        elif kind == "link through a group":
            file["/a/elsewhere"] = h5py.ExternalLink(secret, "/")
            file["tokens"] = h5py.SoftLink("/a/elsewhere/tokens")
        elif kind == "external":
            file.create_dataset("tokens", (4, 4), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout((4, 4), "f4")
            layout[:] = h5py.VirtualSource(secret, "tokens", (4, 4))
            file.create_virtual_dataset("tokens", layout)
    with pytest.raises(ValueError, match=r"docs\.h5.*(is a link|in other files)"):
        read(tmp_path / "docs.h5")


# -- zarr -------------------------------------------------------------------------


ZARR = {"tokens": DOCS.tokens, "lengths": DOCS.lengths, "ids": DOCS.ids.tolist()}


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(("zarr_format", "chunk"), [(2, "tokens/2.0"), (3, "tokens/c/2/0")])
def test_zarr_partial_copies(tmp_path: Path, zarr_format: int, chunk: str) -> None:
    group = write_zarr(tmp_path / "group", ZARR, zarr_format)
    assert_same(read(group), DOCS)
    (group / chunk).unlink()
    with pytest.raises(ValueError, match="tokens has 2 of its 3 chunks"):
        open_source(group)


def test_zarr_codecs_that_run_programs_are_refused(tmp_path: Path) -> None:
    plain = {"name": "bytes", "configuration": {"endian": "little"}}
    pickling = {"name": "numcodecs.pickle", "configuration": {"protocol": 5}}
    shards = {"chunk_shape": [4], "codecs": [plain, pickling], "index_codecs": [plain]}
    for i, codecs in enumerate([[plain, pickling], [{"name": "sharding_indexed", "configuration": shards}]]):
        path = write_zarr(tmp_path / f"three{i}", ZARR)
        change_json(path / "lengths" / "zarr.json", codecs=codecs)
        with pytest.raises(ValueError, match=r"lengths uses the codec 'numcodecs\.pickle'|is damaged"):
            read(path)
    path = write_zarr(tmp_path / "two", ZARR, 2)
    change_json(path / "ids" / ".zarray", filters=[{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}])
    with pytest.raises(ValueError, match="two: ids uses the codec 'pickle'"):
        read(path)


def test_zarr_consolidated_metadata_does_not_lead_elsewhere(tmp_path: Path) -> None:
    secret = write_zarr(tmp_path / "secret", ZARR)
    path = write_zarr(tmp_path / "docs", {})
    names = ("tokens", "lengths")
    inside = {f"../secret/{name}": json.loads((secret / name / "zarr.json").read_text()) for name in names}
    metadata = {"kind": "inline", "must_understand": False, "metadata": inside}
    change_json(path / "zarr.json", consolidated_metadata=metadata)
    with pytest.raises(ValueError, match="no token vectors under a known name"):
        read(path)


@pytest.mark.parametrize(("tracked", "order"), [(True, ["b", "c", "a"]), (False, ["a", "b", "c"])])
def test_hdf5_keeps_the_order_of_writing_if_the_file_has_it(
    tmp_path: Path, tracked: bool, order: list[str]
) -> None:
    h5py = pytest.importorskip("h5py", reason="the hdf5 extra is not installed")
    with h5py.File(tmp_path / "docs.h5", "w", track_order=tracked) as file:
        for number, name in enumerate("bca"):
            file[name] = np.full((2, 4), number, np.float32)
    documents = read(tmp_path / "docs.h5")
    assert documents.ids.tolist() == order
    assert [int(tokens[0, 0]) for tokens in documents] == ["bca".index(name) for name in order]
