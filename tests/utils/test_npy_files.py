"""load_npy: what NumPy wrote comes back, and no header is trusted."""

from pathlib import Path

import numpy as np
import pytest

from muvera.utils.arrays import load_npy

ARRAYS = [
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    np.array(2.5),
    np.zeros((0, 4), np.float16),
    np.array(["a", "bc"]),
    np.arange(3, dtype=">f4"),
]


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("array", ARRAYS)
def test_arrays(tmp_path: Path, array: np.ndarray, mmap: bool) -> None:
    np.save(tmp_path / "a.npy", array)
    loaded = load_npy(tmp_path / "a.npy", mmap=mmap)
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(loaded, array)
    assert isinstance(loaded, np.memmap) == (mmap and array.size > 0)


LARGE = 4611686018427387904


@pytest.mark.parametrize(
    ("dtype", "order", "shape", "message"),
    [
        ("<f4", False, "(4, 4), (", "damaged"),
        ("<f4", False, "(-1, -4)", r"\(-1, -4\)"),
        ("<U9999999999", False, "(4, 4)", "damaged|truncated"),
        ("<f4", True, f"({LARGE}, 4)", "73786976294838206464 bytes .* 16"),
        ("<f4", False, f"({LARGE}, {LARGE}, 0)", "shape"),
        ("|O", False, "(4,)", "pickled"),
    ],
)
def test_headers_that_claim_too_much(
    tmp_path: Path, dtype: str, order: bool, shape: str, message: str
) -> None:
    text = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}".encode("latin1")
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16))
    with pytest.raises(ValueError, match=rf"a\.npy .*({message})"):
        load_npy(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.npy"):
        load_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x93NUMPY\x07\x00"], ids=["empty", "text", "version"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy is not a \.npy file"):
        load_npy(tmp_path / "a.npy")
