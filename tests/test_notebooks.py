"""Notebooks answer their question when their cells run in order, in one namespace; they keep what they printed."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from builders.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 3


@pytest.mark.slow
@pytest.mark.compiled("hundreds of documents are too many for interpreted kernels")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path) -> None:
    pytest.importorskip("altair", reason="the notebooks' pictures are altair's")
    namespace: dict[str, object] = {"__name__": path.stem}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in code_cells(path):
            exec(compile("".join(cell["source"]), str(path), "exec"), namespace)
    assert printed.getvalue().strip()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_ends_in_a_picture_and_an_answer(path: Path) -> None:
    *_, picture, answer = (cell["outputs"] for cell in code_cells(path))
    assert any("image/svg+xml" in output.get("data", {}) for output in picture)
    assert "".join(output.get("text", [""])[0] for output in answer).strip().endswith((".", ".\n"))
    assert all(cell["outputs"] or cell["execution_count"] for cell in code_cells(path))
