"""Tensors in torch's files, written without torch: read back, and laid out as torch lays them out."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from builders.paths import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from muvera.convert.parsing.torch_file import read_array, read_torch
from muvera.convert.writers.torch_file import write_torch

COLBERT = GOLDEN / "convert" / "colbert"

TENSORS = st.sampled_from(["<f4", "<f2", "<i8", "<i4", "|u1"]).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)


@settings(max_examples=50, deadline=None)
@given(st.lists(TENSORS, min_size=1, max_size=3))
def test_any_tensors_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("torch") / "some.pt"
    write_torch(path, *tensors)
    found = read_torch(path)
    for tensor, stored in zip(tensors, found if len(tensors) > 1 else [found], strict=True):
        array = stored.numpy()
        assert array.dtype == tensor.dtype and array.shape == tensor.shape
        np.testing.assert_array_equal(array, tensor)


def test_the_order_of_a_view_in_memory_does_not_matter(tmp_path: Path) -> None:
    tensor = np.arange(24, dtype=np.int32).reshape(4, 6)[::2, 1:5].T
    write_torch(tmp_path / "view.pt", tensor)
    np.testing.assert_array_equal(read_array(tmp_path / "view.pt"), tensor)


@pytest.mark.parametrize(
    "name", ["0.codes", "1.residuals", "centroids", "avg_residual", "buckets", "ivf.pid"]
)
def test_files_are_laid_out_as_torch_lays_them_out(name: str, tmp_path: Path) -> None:
    theirs = read_torch(COLBERT / f"{name}.pt")
    tensors = [part.numpy() for part in (theirs if isinstance(theirs, tuple) else (theirs,))]
    path = tmp_path / f"{name}.pt"
    write_torch(path, *tensors)
    with zipfile.ZipFile(COLBERT / f"{name}.pt") as expected, zipfile.ZipFile(path) as found:
        members = {member for member in expected.namelist() if "/." not in member}  # those are optional
        assert set(found.namelist()) == members
        for member in members:
            if not member.endswith("data.pkl"):
                assert found.read(member) == expected.read(member)
    for part in read_torch(path) if isinstance(theirs, tuple) else (read_torch(path),):
        assert part.raw.ctypes.data % 64 == 0 or part.raw.size == 0


def test_large_counts_are_written_in_as_many_bytes_as_they_need(tmp_path: Path) -> None:
    empty = np.empty((0, 1 << 33), np.uint8)
    write_torch(tmp_path / "wide.pt", empty)
    assert read_array(tmp_path / "wide.pt").shape == empty.shape
