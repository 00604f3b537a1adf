"""The guide for a new reader does what it says: its module is run as it stands there."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from muvera import convert
from muvera.convert import registry
from muvera.convert.sources.base import Source

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-reader.md"


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module of the guide, known to the registry."""
    code = GUIDE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    module = ModuleType("muvera.convert.readers.raw")
    exec(compile(code, str(GUIDE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "READERS", {"raw": "raw", **registry.READERS})
    return module


def folder(path: Path, counts: str) -> Path:
    np.arange(24, dtype=np.float32).tofile(path / "vectors.f32")
    (path / "counts.txt").write_text(counts)
    return path


def test_the_format_is_read_and_found(tmp_path: Path, raw: ModuleType) -> None:
    place = folder(tmp_path, "2\n0\n4\n")
    source = raw.open_source(place, dimension=4)
    assert isinstance(source, Source)
    documents = convert.read(place, dimension=4)
    assert documents.lengths.tolist() == [2, 0, 4]
    np.testing.assert_array_equal(documents.tokens.ravel(), np.arange(24))
    assert convert.read(source).lengths.tolist() == [2, 0, 4], "a source in place of a path"
    report = convert.convert(place, tmp_path / "out", dimension=4)
    assert report.read.documents == 3


@pytest.mark.parametrize(
    ("counts", "dimension", "sentence"),
    [
        ("2\n5\n", 4, r"counts\.txt add up to 7, but there are 6 token vectors"),
        (f"{2**63 - 1}\n{2**63 - 1}\n8\n", 4, r"counts\.txt\[0\] is 9223372036854775807, but there are 6"),
        ("two\n", 4, r"is damaged, or is not in the format 'raw' \(invalid literal for int\(\)"),
        ("6\n", 5, "is damaged, or is not in the format 'raw' .*cannot reshape"),
    ],
)
def test_damage_is_one_sentence(
    tmp_path: Path, raw: ModuleType, counts: str, dimension: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        convert.read(folder(tmp_path, counts), dimension=dimension)
    assert str(tmp_path) in str(caught.value)
