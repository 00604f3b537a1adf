"""Reading .npy files: what NumPy wrote comes back, and no claim is trusted."""

from pathlib import Path

import numpy as np
import pytest

from muvera.utils.npy_files import load_npy


def with_header(path: Path, header: str, numbers: bytes = b"") -> Path:
    """Write a .npy file with a header of one's own."""
    text = header.encode("latin1")
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + numbers)
    return path


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.array(2.5),
        np.zeros((0, 4), np.float16),
        np.array(["a", "bc"]),
        np.arange(3, dtype=">f4"),
    ],
)
def test_what_numpy_wrote_comes_back(tmp_path: Path, array: np.ndarray, mmap: bool) -> None:
    np.save(tmp_path / "a.npy", array)
    got = load_npy(tmp_path / "a.npy", mmap=mmap)
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    np.testing.assert_array_equal(got, array)
    assert isinstance(got, np.memmap) == (mmap and array.size > 0)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), ", "beginning is damaged"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + ", }", "beginning is damaged"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4), }", r"its shape is \(-1, -4\)"),
        ("{'descr': '<U9999999999', 'fortran_order': False, 'shape': (4, 4), }", "damaged|truncated"),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616, 4), }",
            r"is truncated: shape \(18446744073709551616, 4\) of float32 needs 295147905179352825856 bytes",
        ),
        (
            "{'descr': '<f4', 'fortran_order': True, 'shape': (4611686018427387904, 4), }",
            "needs 73786976294838206464 bytes of numbers, but 16 are there",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904, 0), }",
            "claims an impossible shape",
        ),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (4,), }", "holds pickled objects"),
    ],
)
def test_headers_that_claim_too_much(tmp_path: Path, header: str, message: str) -> None:
    path = with_header(tmp_path / "a.npy", header, bytes(16))
    with pytest.raises(ValueError, match=rf"a\.npy .*{message}"):
        load_npy(path)


def test_missing_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.npy is missing"):
        load_npy(tmp_path / "a.npy")
    for content in (b"", b"nothing", b"\x93NUMPY\x07\x00"):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npy is not a \.npy file, or its beginning is damaged"):
            load_npy(tmp_path / "a.npy")
