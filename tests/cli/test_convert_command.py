"""``muvera convert``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera

from muvera import MultiVectors
from muvera.convert import read


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32) for n in (3, 0, 5)]
    MultiVectors.from_arrays(rows, ids=["a", "b", "c"]).save(tmp_path / "source")
    return tmp_path / "source"


def test_the_report(source: Path, tmp_path: Path) -> None:
    code, out, err = muvera("convert", source, tmp_path / "out", "--normalize", "--dtype", "float16")
    assert (code, err) == (0, "")
    assert "3 documents, 8 tokens, dimension 4, float32, str ids" in out
    assert "normalize=True, dtype=float16" in out
    assert np.allclose(np.linalg.norm(read(tmp_path / "out").tokens, axis=1), 1, atol=1e-3)
    limits = ["--time-limit", 60, "--memory-limit", 1024]  # in a process with limits
    report = answer("convert", source, tmp_path / "out.npz", "--to", "npz", "--pooling", "pylate", *limits)
    assert (report["to"], report["read"]["tokens"], report["options"]) == ("npz", 8, {"pooling": "pylate"})
    assert report["written"]["tokens"] == 2 + 3 == read(tmp_path / "out.npz").num_tokens


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--nbits", "2"], "'nbits'"),
        (["--to", "plaid", "--nbits", "3"], "nbits must be one of 1, 2, 4, 8, got 3"),
        (["--to", "plaid", "--nbits", "1"], "--nbits 1"),
        (["--truncate-dimension", "9"], "--truncate-dimension 9"),
        (["-o", "part"], "'--option' / '-o': it must be NAME=VALUE, got 'part'"),
        (["--pooling", "foo"], "colpali, got 'foo'"),
        (["--dtype", "int8"], "'float32', 'float16'"),
        (["--isolated", "--memory-limit", "1"], "256"),
    ],
)
def test_bad_input(arguments: list[Any], text: str, source: Path, tmp_path: Path) -> None:
    assert text in fails("convert", source, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_an_ending_of_another_format(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"  # by default this would be a folder
    assert "Give --to 'parquet' or another name" in fails("convert", source, target)
    assert not target.exists()
