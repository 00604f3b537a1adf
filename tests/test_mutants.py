"""The list of planted faults: each can be planted in the source as it is."""

from dataclasses import replace
from pathlib import Path

import pytest
from mutants import (
    ABSENT,
    CAUGHT,
    ROOT,
    SURVIVED,
    TABLE,
    Mutant,
    Results,
    dependents,
    main,
    read_mutants,
    table,
)

MUTANTS = read_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_can_be_planted_once(mutant: Mutant) -> None:
    """Its snippet occurs exactly once, the result is Python, and its tests exist."""
    source = mutant.mutated((ROOT / mutant.file).read_text(encoding="utf-8"))
    compile(source, mutant.file, "exec")
    assert mutant.tests and all((ROOT / test.partition("::")[0]).exists() for test in mutant.tests)


def test_the_table_shows_the_stored_results() -> None:
    assert TABLE.read_text(encoding="utf-8") == table(MUTANTS, Results()), (
        "run python tests/mutants.py --table"
    )


def test_results_are_read_again_until_the_fault_changes(tmp_path: Path) -> None:
    first, second = MUTANTS[:2]
    Results(tmp_path / "found.tsv").store(first, CAUGHT, "tests/test_one.py::test_it[a b]")
    results = Results(tmp_path / "found.tsv")
    found = results.of(first)
    assert found and (found.result, found.test) == (CAUGHT, "tests/test_one.py::test_it[a b]")
    assert results.of(second) is None and results.of(replace(first, new="pass")) is None
    results.keep([second])
    assert Results(tmp_path / "found.tsv").of(first) is None


def test_the_share_of_a_room_leaves_out_faults_that_cannot_be_planted(tmp_path: Path) -> None:
    faults = [Mutant(f"{n}", "muvera/fde/file.py", f"what {n}", "a", "b", ()) for n in range(4)]
    results = Results(tmp_path / "found.tsv")
    for fault, result in zip(faults, (CAUGHT, SURVIVED, ABSENT), strict=False):
        results.store(fault, result)
    text = table(faults, results)
    assert "| fde | 4 | 3 | 1 | 0 | 1 | 1 | 50.0% |" in text
    assert "- `1` (muvera/fde/file.py, survived): what 1. Reason: no reason is known." in text


def test_faults_are_selected_by_room_name_and_file(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    assert len(capsys.readouterr().out.splitlines()) == len(MUTANTS) >= 80
    assert main(["--list", "tile-minimum"]) == 0
    assert capsys.readouterr().out.startswith("tile-minimum: ")
    assert main(["--list", "kernels/selection.py", "kernels/rows.py"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 10
    assert main(["--list", "data"]) == 0
    assert "muvera/metadata" not in capsys.readouterr().out
    assert main(["--list", "no such fault"]) == 2


def test_kernels_depend_on_what_they_import() -> None:
    """A cached kernel is compiled again if another module that it calls has a fault."""
    assert {"rows", "chamfer", "byte_product", "scan"} <= dependents("muvera/kernels/rows.py")
    assert "tile" not in dependents("muvera/kernels/selection.py")
    assert {"tile", "rows", "selection"} <= dependents("muvera/kernels/jit.py")
    assert "query_kernels" in dependents("muvera/fde/landmark_kernels.py")


def test_a_snippet_is_replaced() -> None:
    assert Mutant("one", "file.py", "what", "a", "b", ()).mutated("xax") == "xbx"


@pytest.mark.parametrize(("source", "count"), [("", 0), ("aa", 2)])
def test_a_snippet_that_moved_or_repeats_is_refused(source: str, count: int) -> None:
    with pytest.raises(ValueError, match=f"one: 'a' occurs {count} times"):
        Mutant("one", "file.py", "what", "a", "b", ()).mutated(source)
