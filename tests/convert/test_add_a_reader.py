"""The guide for a new reader works: its module runs as printed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera import convert
from muvera.convert import registry
from muvera.convert.sources import Source

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-reader.md"


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the reader of the guide, added to the registry."""
    code = GUIDE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, str(GUIDE), "exec"), names)
    (reader,) = names["READERS"]
    monkeypatch.setattr(registry, "READERS", {reader.name: reader, **registry.READERS})
    return reader


def folder(path: Path, counts: str) -> Path:
    np.arange(24, dtype=np.float32).tofile(path / "vectors.f32")
    (path / "counts.txt").write_text(counts)
    return path


def test_the_format_is_read_and_detected(tmp_path: Path, raw: Any) -> None:
    place = folder(tmp_path, "2\n0\n4\n")
    source = raw.open_source(place, dimension=4)
    assert isinstance(source, Source)
    documents = convert.read(place, dimension=4)
    assert documents.lengths.tolist() == [2, 0, 4]
    np.testing.assert_array_equal(documents.tokens.ravel(), np.arange(24))
    assert convert.read(source).lengths.tolist() == [2, 0, 4], "a source in place of a path"
    assert convert.convert(place, tmp_path / "out", dimension=4).read.documents == 3
