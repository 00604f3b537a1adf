"""``muvera demo``: the steps of MUVERA, and answers in text."""

import re
from typing import Any

import pytest
from builders.command_line import muvera, set_terminal

from muvera.cli import demo as command
from muvera.data.demo_sample import load_demo_sample

SAMPLE = load_demo_sample()


@pytest.fixture(scope="module")
def demo() -> tuple[str, str]:
    """Output on a terminal of 80 columns, and remarks, of the demo."""
    with pytest.MonkeyPatch.context() as patch:
        set_terminal(patch, 80)
        code, out, err = muvera("demo", "--fdes")
    assert code == 0
    return out, err


def test_the_demo_in_text(demo: tuple[str, str]) -> None:
    out, err = demo
    assert "677 texts" in out and "docstrings" in err and max(map(len, out.splitlines())) <= 80
    answered = re.search(r"(\d+) of 24 questions", out)
    assert answered is not None and 16 <= int(answered[1]) <= 20


def test_the_first_answer_of_each_shown_question_is_right(demo: tuple[str, str]) -> None:
    shown = [question for question in SAMPLE.query_texts if f"\n{question}\n 1  " in demo[0]]
    assert len(shown) == 3
    for question in shown:
        first = demo[0].partition(f"\n{question}\n 1  ")[2].splitlines()[1].strip()
        assert first in SAMPLE.relevant[SAMPLE.query_texts.index(question)]


def test_the_demo_prints_only_matches_that_carry_meaning(demo: tuple[str, str]) -> None:
    matches = " ".join(re.findall(r"matches: (.*(?:\n {8}.*)*)", demo[0]))
    assert "folder=directory" in matches
    assert not re.search(r"\(no word\)|##|\b(a|and|it|the)=", matches)


def test_the_demo_says_what_it_does_before_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("muvera.data.demo_sample.load_demo_sample", interrupted)
    assert muvera("demo")[2].startswith("Indexing docstrings")


def test_the_demo_fits_no_fde_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("an FDE was fitted")

    monkeypatch.setattr("muvera.fde.encoder.FDEEncoder._fit_to", refused)
    code, out, _ = muvera("demo")
    assert code == 0 and "16 of 24 questions" in out and "MUVERA:" not in out
    assert out.rstrip().splitlines()[-1].startswith("muvera demo --fdes")


@pytest.mark.parametrize(("ready", "rows"), [("exact Chamfer", 0), ("FDE, the default", 2)])
def test_the_demo_prints_what_it_has_before_the_next_step(
    monkeypatch: pytest.MonkeyPatch, ready: str, rows: int
) -> None:
    searched = command._searched

    def interrupted(name: str, *others: Any) -> Any:
        if name == ready:
            raise KeyboardInterrupt
        return searched(name, *others)

    monkeypatch.setattr(command, "_searched", interrupted)
    code, out, err = muvera("demo", "--fdes")
    assert code != 0 and "\n 3  str.rstrip" in out and "677 texts" in out
    assert len(re.findall("^(?:exact|FDE).*ms$", out, re.MULTILINE)) == rows
    assert "Comparing exact search with two FDEs" in err


def test_the_demo_compares_the_steps_of_muvera(demo: tuple[str, str]) -> None:
    row = re.compile(r"^(?:exact|FDE).{13,15} +(\S+) +(\d+) +(\d+) +(\d+)% +[\d.]+ m?s$", re.MULTILINE)
    exact, paper, default = ([int(cell) for cell in cells[1:]] for cells in row.findall(demo[0]))
    assert [cells[0] for cells in row.findall(demo[0])] == ["-", "10,240", "512"]
    assert (exact[0], paper[0], default[0]) == (677, 20, 20)
    assert exact[2] == 100 and 60 <= paper[2] < default[2] and default[2] >= 90
    assert all(16 <= answered <= 20 for _, answered, _ in (exact, paper, default))
