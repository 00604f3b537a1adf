"""Files that torch wrote, read without it; and what must be refused."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from builders.paths import GOLDEN

from muvera.convert.parsing.safe_pickle import RefusedPickleError
from muvera.convert.parsing.torch_file import StoredTensor, read_array, read_torch

FOLDER = GOLDEN / "convert" / "torch_files"
EXPECTED = np.load(FOLDER / "expected.npz")


@pytest.mark.parametrize("name", [name for name in EXPECTED.files if name != "base"])
def test_every_dtype_and_view_is_read_exactly(name: str) -> None:
    array = read_array(FOLDER / f"{name}.pt")
    assert array.dtype == EXPECTED[name].dtype
    assert array.shape == EXPECTED[name].shape
    assert np.array_equal(array, EXPECTED[name])


def test_containers_and_the_root_of_a_stream() -> None:
    base = EXPECTED["base"]
    first, second = read_torch(FOLDER / "pair.pt")
    assert np.array_equal(first.numpy(), base[:2])
    assert np.array_equal(second.numpy(), base.astype(np.float16))
    pages = read_torch(FOLDER / "list.pt")
    assert isinstance(pages, list)
    stacked = np.stack([page.numpy() for page in pages])
    assert np.array_equal(stacked.reshape(6, 5), EXPECTED["bfloat16"])
    assert pages[0].kind == "bfloat16" and pages[0].shape == (2, 5)
    named = read_torch(FOLDER / "dict.pt")
    assert named["n"] == 3 and np.array_equal(named["a"].numpy(), base)
    assert np.array_equal(read_array(FOLDER / "stream.pt"), base)
    assert np.array_equal(read_torch(FOLDER / "parameter.pt").numpy(), base)


def test_numbers_stay_in_the_file() -> None:
    tensor = read_torch(FOLDER / "float32.pt")
    assert isinstance(tensor, StoredTensor)
    assert not tensor.raw.flags.writeable
    assert isinstance(getattr(tensor.raw.base, "base", None), np.memmap) or not tensor.raw.flags.owndata


def test_a_malicious_pickle_is_refused_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        RefusedPickleError, match=r"malicious\.pt is a pickle that asks for (posix|nt)\.system"
    ):
        read_torch(FOLDER / "malicious.pt")
    assert capfd.readouterr().out == ""


def test_a_module_is_refused_by_name() -> None:
    with pytest.raises(RefusedPickleError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        read_torch(FOLDER / "module.pt")


def test_a_legacy_file_says_how_to_write_it_anew() -> None:
    with pytest.raises(ValueError, match=r"legacy\.pt was written by torch before 1\.6.*torch\.save"):
        read_torch(FOLDER / "legacy.pt")


def test_truncated_other_and_missing_files(tmp_path: Path) -> None:
    content = (FOLDER / "float32.pt").read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.pt is truncated .*Copy it again"):
        read_torch(cut)
    cut.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"cut\.pt is not a \.pt file of torch 1\.6 or newer"):
        read_torch(cut)
    with pytest.raises(FileNotFoundError, match=r"none\.pt is missing"):
        read_torch(tmp_path / "none.pt")
    with zipfile.ZipFile(cut, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ValueError, match=r"a zip file without a data\.pkl"):
        read_torch(cut)


def _archive(path: Path, description: bytes, storage: bytes = bytes(16)) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", description)
        archive.writestr("x/data/0", storage)
    return path


def _tensor(shape: bytes, strides: bytes, first: bytes = b"0") -> bytes:
    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQ"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I" + first + b"\n"
        b"(" + shape + b"t(" + strides + b"tI00\nNtR."
    )


@pytest.mark.parametrize(
    ("shape", "strides", "first"),
    [
        (b"I5\n", b"I1\n", b"0"),
        (b"I2\n", b"I1\n", b"3"),
        (b"I2\n", b"I-1\n", b"0"),
        (b"I2\n", b"I1\n", b"-1"),
        # A page of 1 KB became 3.2 GB before.
        (b"I200000000\nI4\n", b"I0\nI1\n", b"0"),
        (b"I3\nI200\n", b"I1\nI0\n", b"0"),
        (b"I4611686018427387904\nI4\n", b"I0\nI0\n", b"0"),
        (b"I1\n" * 40, b"I1\n" * 40, b"0"),
        (b"Vx\n", b"I1\n", b"0"),
    ],
)
def test_a_tensor_past_its_storage_is_refused(
    tmp_path: Path, shape: bytes, strides: bytes, first: bytes
) -> None:
    path = _archive(tmp_path / "x.pt", _tensor(shape, strides, first))
    with pytest.raises(ValueError, match=r"x\.pt is damaged"):
        read_torch(path)
    assert read_array(_archive(path, _tensor(b"I4\n", b"I1\n"))).shape == (4,)


def test_a_pickle_cannot_change_the_stand_ins(tmp_path: Path) -> None:
    """BUILD sets attributes of what it is given: shared objects must not take any."""
    stream = io.BytesIO()
    pickle.dump({"kind": "int64"}, stream, 2)
    state = stream.getvalue()[2:-1]
    for target in (b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        path = _archive(tmp_path / "x.pt", b"\x80\x02" + target + state + b"b.")
        with pytest.raises(ValueError, match=r"x\.pt is damaged .*a state for a"):
            read_torch(path)
    assert read_array(FOLDER / "float32.pt").dtype == np.float32


def test_a_description_that_is_compressed_is_refused(tmp_path: Path) -> None:
    """torch never compresses it: 600 MB of zeros were read whole before."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1 << 20))
    with pytest.raises(ValueError, match=r"x\.pt cannot be read: x/data\.pkl is compressed"):
        read_torch(tmp_path / "x.pt")


def test_storages_where_the_directory_lies(tmp_path: Path) -> None:
    path = _archive(tmp_path / "x.pt", _tensor(b"I4\n", b"I1\n"))
    content = path.read_bytes()
    second = content.index(b"PK\x03\x04", 1)
    path.write_bytes(content[:second] + b"QQ" + content[second + 2 :])
    with pytest.raises(ValueError, match=r"x\.pt is damaged .*x/data/0 has no local header"):
        read_torch(path)


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (b"ccollections\nOrderedDict\n", b"(K\x01K\x02l\x85"),
        (b"ctorch._utils\n_rebuild_parameter\n", b"K\x01\x85"),
        (b"ctorch\nSize\n", b"K\x01\x85"),
    ],
)
def test_calls_with_arguments_that_torch_does_not_give(
    tmp_path: Path, function: bytes, argument: bytes
) -> None:
    with pytest.raises(ValueError, match=r"x\.pt is damaged"):
        read_torch(_archive(tmp_path / "x.pt", b"\x80\x02" + function + argument + b"R."))


def test_many_tensors_hold_one_file_open(tmp_path: Path) -> None:
    """Each held a file open before: byaldi has one for every page."""
    one = _tensor(b"I4\n", b"I1\n")[2:-1]
    path = _archive(tmp_path / "x.pt", b"\x80\x02](" + one * 3 + b"e.", bytes(64))
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    pages = read_torch(path)
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    assert [page.shape for page in pages] == [(4,)] * 3
    assert after - before <= 1


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = _archive(tmp_path / "x.pt", _tensor(b"I4\n", b"I1\n"))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/data/0", bytes(32))
    with pytest.raises(ValueError, match=r"x\.pt has two members of one name"):
        read_torch(path)
