"""Files of torch are read without it; damaged and hostile ones are refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from builders.paths import GOLDEN

from muvera.convert.parsing.pickles import RefusedPickleError
from muvera.convert.parsing.torch_file import read_array, read_torch

FOLDER = GOLDEN / "convert" / "torch_files"
EXPECTED = np.load(FOLDER / "expected.npz")


@pytest.mark.parametrize("name", [name for name in EXPECTED.files if name not in ("base", "uint16")])
def test_every_dtype_and_view_is_read_exactly(name: str) -> None:
    array = read_array(FOLDER / f"{name}.pt")
    assert array.dtype == EXPECTED[name].dtype and array.shape == EXPECTED[name].shape
    assert not array.flags.owndata or not array.size, "numbers stay in the file"
    assert np.array_equal(array, EXPECTED[name])


def test_containers_and_the_root_of_a_stream() -> None:
    base = EXPECTED["base"]
    first, second = read_torch(FOLDER / "pair.pt")
    assert np.array_equal(first, base[:2]) and np.array_equal(second, base.astype(np.float16))
    pages = read_torch(FOLDER / "list.pt")
    assert isinstance(pages, list) and np.array_equal(np.concatenate(pages), EXPECTED["bfloat16"])
    named = read_torch(FOLDER / "dict.pt")
    assert named["n"] == 3 and np.array_equal(named["a"], base)
    assert np.array_equal(read_array(FOLDER / "stream.pt"), base)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("malicious", r"(posix|nt)\.system"),
        ("module", r"torch\.nn\.modules\.linear\.Linear"),
        ("uint16", r"torch\._utils\._rebuild_tensor_v3"),
    ],
)
def test_other_names_are_refused(capfd: pytest.CaptureFixture[str], file: str, name: str) -> None:
    with pytest.raises(RefusedPickleError, match=rf"{file}\.pt is a pickle that refers to {name}"):
        read_torch(FOLDER / f"{file}.pt")
    assert capfd.readouterr().out == ""


def archive(path: Path, description: bytes, storage: bytes = bytes(16)) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", description)
        file.writestr("x/data/0", storage)
    return path


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], first: int = 0) -> bytes:
    """Return the description of a tensor in a storage of four floats."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + value.to_bytes(8, "little", signed=True) for value in values)

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
    rest = numbers((first,))[1:] + numbers(shape) + b"t" + numbers(strides) + b"t\x89NtR."
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest


GOOD = tensor((4,), (1,))


def test_truncated_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"legacy\.pt .* format .pt of torch 1\.6 or newer"):
        read_torch(FOLDER / "legacy.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.pt cannot be read"):
        read_torch(tmp_path / "none.pt")
    path = archive(tmp_path / "x.pt", GOOD)
    assert read_array(path).shape == (4,)
    content = path.read_bytes()
    second = content.index(b"PK\x03\x04", 1)
    for damaged, message in (
        (content[: len(content) // 2], "is damaged"),
        (content[:second] + b"QQ" + content[second + 2 :], ".*x/data/0 has no local header"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"x\.pt {message}"):
            read_torch(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "x")
    with pytest.raises(ValueError, match=r"must have one data\.pkl"):
        read_torch(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:  # torch never compresses it
        file.writestr("x/data.pkl", bytes(1 << 20))
    with pytest.raises(ValueError, match=r"data\.pkl is compressed"):
        read_torch(path)
    with zipfile.ZipFile(archive(path, GOOD), "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("x/data/0", bytes(32))
    with pytest.raises(ValueError, match="no two members of one name"):
        read_torch(path)


# Memo 0 becomes a tuple of one tuple twice, 40 times.
SHARED = b"()q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"t"


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
        # The hash or repr of its reference would take 2**40 steps.
        b"\x80\x02" + SHARED + b"(X\x07\0\0\0storageh\0K\0K\0K\0tQ.",
        b"\x80\x02" + SHARED + b"(h\0K\0K\0K\0K\0tQ.",
        b"\x80\x02ccollections\nOrderedDict\n](K\x01K\x02\x86e\x85R.",
    ],
)
def test_descriptions_that_do_not_fit(tmp_path: Path, description: bytes) -> None:
    with pytest.raises(ValueError, match=r"x\.pt is damaged"):
        read_torch(archive(tmp_path / "x.pt", description))


def test_a_pickle_cannot_change_the_stand_ins(tmp_path: Path) -> None:
    """BUILD sets attributes of its object, so shared objects must not accept any."""
    state = pickle.dumps({"kind": "int64"}, 2)[2:-1]
    for target in (b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        with pytest.raises(ValueError, match=r"x\.pt is damaged, .*it sets the state of a"):
            read_torch(archive(tmp_path / "x.pt", b"\x80\x02" + target + state + b"b."))
    assert read_array(FOLDER / "float32.pt").dtype == np.float32


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_many_tensors_hold_one_file_open(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", b"\x80\x02](" + GOOD[2:-1] * 3 + b"e.", bytes(64))
    before = len(list(Path("/proc/self/fd").iterdir()))
    pages = read_torch(path)
    assert [page.shape for page in pages] == [(4,)] * 3
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 1
