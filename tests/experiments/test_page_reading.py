"""What a page is made from: runs that are refused with their place, numbers as people read them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from builders.read_pages import Elements, page_command
from builders.run_folders import row, write_run

from experiments.report.assembly import page_of
from experiments.report.numbers import Interval, compact_arguments, flattened, interval, number, quality
from experiments.report.run_folder import load_run

# ---- Reading


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    code, _, err = page_command(tmp_path)
    assert code == 2
    assert err == (
        f"error: {tmp_path} holds no manifest.json: give the folder that a finished run has written.\n"
    )
    (write_run(tmp_path) / "summary.json").unlink()
    assert "holds no summary.json" in page_command(tmp_path)[2]
    assert not (tmp_path / "page.html").exists()


def test_broken_json_is_refused_with_its_place(tmp_path: Path) -> None:
    (write_run(tmp_path) / "summary.json").write_text('{"rows": [\n1,,]}', encoding="utf-8")
    code, _, err = page_command(tmp_path)
    assert code == 2
    assert err.startswith(f"error: {tmp_path / 'summary.json'} is not JSON")
    assert "line 2, column 3" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("summary", "says"),
    [
        ([], "must hold a JSON object, but holds a list"),
        ({"rows": {}}, "holds no rows and 1 failures, the first: MemoryError"),
        ({"rows": 3}, "'rows' must be a list, but is a int"),
        ({"rows": [1]}, r"rows[0] must be an object, but is a int"),
        ({"rows": [{"experiment": "a", "collection": "b"}]}, "rows[0] has no 'system'"),
        (
            {"rows": [row("a", "b", "muvera", 0.5), row("a", "b", "muvera", 0.5) | {"family": "theirs"}]},
            "rows[1] has the family 'theirs'; it must be one of muvera, baseline, peer.",
        ),
    ],
)
def test_what_is_no_summary_is_refused(tmp_path: Path, summary: Any, says: str) -> None:
    (write_run(tmp_path) / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(says)):
        load_run(tmp_path)


def test_numbers_that_are_none_are_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [row("a", "b", "muvera", float("nan"))])
    assert "NaN" in (folder / "summary.json").read_text(encoding="utf-8")
    (only,) = load_run(folder).rows
    assert only["metrics"]["10-recall@10"]["mean"] is None
    assert "Nothing" not in Elements(page_of(load_run(folder))).text  # it is a page all the same


# ---- Numbers


def test_numbers_have_three_digits() -> None:
    values = (12345.6, 12345, 12.345, 0.00012345, 64.0, 99.96, -0.5, None, True, "a")
    assert [number(value) for value in values] == [
        *("12,346", "12,345", "12.3", "0.000123", "64.0", "100", "-0.500", "\N{EN DASH}", "yes", "a")
    ]
    assert [quality(0.87654), quality(0.0123, signed=True), quality(None)] == [
        "0.877",
        "+0.012",
        "\N{EN DASH}",
    ]
    assert interval({"mean": 0.5, "high": 0.6}) == Interval(0.5, None, 0.6)
    assert flattened({"a": 1, "hnsw": {"m": 16}}) == {"a": 1, "hnsw.m": 16}
    assert compact_arguments({"n": 1000, "fill": False}) == "n=1,000, fill=no"
