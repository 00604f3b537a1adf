"""The list of planted faults: each can be planted in the source as it is."""

import pytest
from mutants import ROOT, Mutant, dependents, main, read_mutants

MUTANTS = read_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_can_be_planted_once(mutant: Mutant) -> None:
    """Its snippet occurs exactly once, the result is Python, and its tests exist."""
    source = mutant.mutated((ROOT / mutant.file).read_text(encoding="utf-8"))
    compile(source, mutant.file, "exec")
    assert mutant.tests and all((ROOT / test.partition("::")[0]).exists() for test in mutant.tests)


def test_faults_are_selected_by_name_and_file(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    assert len(capsys.readouterr().out.splitlines()) == len(MUTANTS) >= 80
    assert main(["--list", "tile-minimum"]) == 0
    assert capsys.readouterr().out.startswith("tile-minimum: ")
    assert main(["--list", "kernels/selection.py", "kernels/rows.py"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 10
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
