"""Pickles of plain data and files of torch are read.

Hostile ones are refused before anything runs.
"""

import collections
import os
import pickle
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert.parsing import (
    RefusedPickleError,
    load_npy_safely,
    load_plain,
    read_array,
    read_torch,
)

TORCH = GOLDEN / "convert" / "torch_files"
EXPECTED = np.load(TORCH / "expected.npz")

SCALARS = st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
PLAIN: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=5)
    ),
    max_leaves=30,
)


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """Fail a test that takes long: a small file must not cause much work."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 10


# -- pickles ----------------------------------------------------------------------


@settings(max_examples=50)
@given(value=PLAIN, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_data_of_every_protocol(value: Any, protocol: int) -> None:
    shared = [value, value, {"a": value}, np.int64(4), np.float32(0.5)]
    content = pickle.dumps(shared, protocol) + b"K\x07"  # a number after the end is ignored
    assert repr(load_plain(content, "map.pkl")) == repr([*shared[:3], 4, 0.5])


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_large_and_shared_containers(protocol: int) -> None:
    """Runs of numbers are read at once."""
    shared = ("x", 1)
    rows: Any = {f"d{i}": [*range(i % 400), 10**9, 0.5, shared] for i in range(3000)}
    rows["large"] = [b"x" * 10**6, b"y" * 10**6]
    assert load_plain(pickle.dumps(rows, protocol), "map.pkl") == rows


# Each call of 3 bytes would copy a megabyte.
CALLS = b"c_codecs\nencode\nq\x01X" + (10**6).to_bytes(4, "little") + b"x" * 10**6 + b"q\x02\x85q\x03R"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": os.system}), r"is a pickle that refers to (posix|nt)\.system"),
        (pickle.dumps(collections.deque([1])), r"is a pickle that refers to collections\.deque"),
        (pickle.dumps({"a": np.zeros(2)}), r"is a pickle that refers to numpy.*_reconstruct"),
        (b"\x80\x02" + CALLS + b"h\x01h\x03R" * 1000 + b"N.", "is damaged, .*copies more bytes"),
        (b"\x80\x02}K\x01" + b"2\x86" * 40 + b"K\x01s.", "is damaged"),  # 2**40 steps for the hash of one key
        (b"\x80\x02}K\x01\x85q\x00K\x02sh\x00.", "is damaged"),
        (b"\x80\x02}K\x01\x85q\x000(h\x00K\x02u.", "is damaged"),
        (b"\x80\x04\x8f(K\x01\x85\x90.", "is damaged"),
        (b"X\xff\xff\xff\xffa.", "is damaged"),
        (b"\x8a\x0a" + b"1" * 10 + b".", "is damaged"),
        (b"\x82\x01.", "is damaged"),
        (b"h\x05.", "is damaged"),
        (b"(K\x01a.", "is damaged"),
        (b"K\x01e.", "is damaged"),
        (b"q\x00.", "is damaged"),
        (b"\xff.", "is damaged"),
        (b"K\x01", "is damaged"),
        (b"", "is damaged"),
        (pickle.dumps({"a": 1})[:-3], "is damaged"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_all_other_names_and_instructions_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^map\.pkl {message}"):
        load_plain(content, "map.pkl")


# -- arrays of objects ------------------------------------------------------------


# Lists of the list before, twice: the last one describes 2**40 lists.  Memo 240 holds
# all of them.
NESTED = b"(]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(40)) + b"tq\xf0"
DTYPE, ARRAY = b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n"
COUNT = 10**5
# Many arrays of one long list, which would take 80 GB.
STATE = b"(K\x01J" + COUNT.to_bytes(4, "little") + b"\x85h\x01\x89h\x00tb"
SHARED_LIST = b"](" + b"N" * COUNT + b"eq\x00" + DTYPE + b"\x8c\x02O8\x85Rq\x01" + ARRAY + b"q\x02]("


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NESTED + DTYPE + b"h\x28\x85R.", "a list as dtype"),
        (b"(" + b"N" * COUNT + b"tq\x00" + ARRAY + b"q\x01](" + b"h\x01h\x00R" * COUNT + b"e.", "copies"),
        (b"ca\n" + b"b" * 10**6 + b"\n.", r"refers to a\.b{198}, which"),
        (SHARED_LIST + (b"h\x02)R" + STATE) * COUNT + b"e.", "must contain an array, got a list"),
        (pickle.dumps(np.array([np.array([None], object), 1], object)), "an array of objects in an array"),
        (pickle.dumps(np.array([os.system], object)), r"refers to (posix|nt)\.system"),
    ],
    ids=["dtype", "arguments", "name", "shared list", "nested", "program"],
)
def test_object_arrays_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([None], object), allow_pickle=True)
    path.write_bytes(path.read_bytes()[:128] + content)
    with pytest.raises(ValueError, match=rf"a\.npy .*{message}"):
        load_npy_safely(path)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.dtype(">f4")])
def test_object_arrays(tmp_path: Path, kind: Any) -> None:
    array = np.empty(2, object)
    array[0] = np.arange(6).reshape(3, 2).astype(kind)
    array[1] = np.asfortranarray(np.ones((2, 2))).astype(kind, order="F")
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    for got, wanted in zip(load_npy_safely(tmp_path / "a.npy"), array, strict=True):
        assert got.dtype == wanted.dtype and np.array_equal(got, wanted)


def test_objects_that_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}, None], object), allow_pickle=True)
    assert load_npy_safely(path).tolist() == [{"a": 1}, None]
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.npy .*is not a .npy file"):
        load_npy_safely(path)


# -- files of torch ---------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in EXPECTED.files if name not in ("base", "uint16")])
def test_every_dtype_and_view_is_read_exactly(name: str) -> None:
    array = read_array(TORCH / f"{name}.pt")
    assert array.dtype == EXPECTED[name].dtype and array.shape == EXPECTED[name].shape
    assert not array.flags.owndata or not array.size, "numbers stay in the file"
    assert np.array_equal(array, EXPECTED[name])


def test_containers_and_the_root_of_a_stream() -> None:
    base = EXPECTED["base"]
    first, second = read_torch(TORCH / "pair.pt")
    assert np.array_equal(first, base[:2]) and np.array_equal(second, base.astype(np.float16))
    pages = read_torch(TORCH / "list.pt")
    assert isinstance(pages, list) and np.array_equal(np.concatenate(pages), EXPECTED["bfloat16"])
    named = read_torch(TORCH / "dict.pt")
    assert named["n"] == 3 and np.array_equal(named["a"], base)
    assert np.array_equal(read_array(TORCH / "stream.pt"), base)


FOREIGN = [("malicious", r"(posix|nt)\.system"), ("module", r"torch\..*Linear"), ("uint16", r".*_tensor_v3")]


@pytest.mark.parametrize(("file", "name"), FOREIGN)
def test_other_names_are_refused(capfd: pytest.CaptureFixture[str], file: str, name: str) -> None:
    with pytest.raises(RefusedPickleError, match=rf"{file}\.pt is a pickle that refers to {name}"):
        read_torch(TORCH / f"{file}.pt")
    assert capfd.readouterr().out == ""


def archive(path: Path, description: bytes, storage: bytes = bytes(16)) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", description)
        file.writestr("x/data/0", storage)
    return path


FLOATS = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"


def tensor(
    shape: tuple[int, ...], strides: tuple[int, ...], first: int = 0, storage: bytes = FLOATS
) -> bytes:
    """Return the description of a tensor, by default in a storage of four floats."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + value.to_bytes(8, "little", signed=True) for value in values)

    rest = numbers((first,))[1:] + numbers(shape) + b"t" + numbers(strides) + b"t\x89NtR."
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest


GOOD = tensor((4,), (1,))


def test_files_of_old_torch_and_missing_files() -> None:
    with pytest.raises(ValueError, match=r"legacy\.pt .* format .pt of torch 1\.6 or newer"):
        read_torch(TORCH / "legacy.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.pt cannot be read"):
        read_torch(TORCH / "none.pt")


def test_a_torch_file_with_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", GOOD)
    assert read_array(path).shape == (4,)
    content = path.read_bytes()
    second = content.index(b"PK\x03\x04", 1)
    path.write_bytes(content[:second] + b"QQ" + content[second + 2 :])
    with pytest.raises(ValueError, match=r"x\.pt is damaged.*x/data/0 has no local header"):
        read_torch(path)


@pytest.mark.parametrize(
    ("member", "how", "message"),
    [
        ("a.txt", zipfile.ZIP_STORED, r"must have one data\.pkl"),
        ("x/data.pkl", zipfile.ZIP_DEFLATED, r"data\.pkl is compressed"),  # torch never compresses it
    ],
)
def test_other_archives_are_refused(tmp_path: Path, member: str, how: int, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w", how) as file:
        file.writestr(member, bytes(1 << 20))
    with pytest.raises(ValueError, match=message):
        read_torch(tmp_path / "x.pt")


def test_two_members_with_one_name_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", GOOD)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("x/data/0", bytes(32))
    with pytest.raises(ValueError, match="no two members with the same name"):
        read_torch(path)


# Memo 0 becomes a tuple of one tuple twice, 40 times.
SHARED_TUPLES = b"\x80\x02()q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"t"
# BUILD sets attributes of its object, so shared objects must not accept any.
STATE_OF_ALL = pickle.dumps({"kind": "int64"}, 2)[2:-1] + b"b."


@pytest.mark.parametrize(
    "description",
    [
        tensor((5,), (1,)),
        tensor((2,), (1,), 3),
        tensor((2,), (-1,)),
        tensor((2,), (1,), -1),
        tensor((200_000_000, 4), (0, 1)),  # 3.2 GB in a file of 1 KB
        tensor((3, 200), (1, 0)),
        tensor((2**62, 4), (0, 0)),
        tensor((1,) * 40, (1,) * 40),
        tensor((2,), (1,), 0, tensor((2,), (0,), 3)[2:-1]),  # beyond the file, through a tensor of one number
        # The hash or repr of its reference would take 2**40 steps.
        SHARED_TUPLES + b"(X\x07\0\0\0storageh\0K\0K\0K\0tQ.",
        SHARED_TUPLES + b"(h\0K\0K\0K\0K\0tQ.",
        b"\x80\x02ccollections\nOrderedDict\n](K\x01K\x02\x86e\x85R.",
        b"\x80\x02ctorch\nFloatStorage\n" + STATE_OF_ALL,
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + STATE_OF_ALL,
    ],
)
def test_descriptions_that_do_not_fit(tmp_path: Path, description: bytes) -> None:
    with pytest.raises(ValueError, match=r"x\.pt is damaged"):
        read_torch(archive(tmp_path / "x.pt", description))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_many_tensors_hold_one_file_open(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", b"\x80\x02](" + GOOD[2:-1] * 3 + b"e.", bytes(64))
    before = len(list(Path("/proc/self/fd").iterdir()))
    pages = read_torch(path)
    assert [page.shape for page in pages] == [(4,)] * 3
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 1
