"""docs/papers.md: what papers claim, what is measured here, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .stored_results import RESULTS, load_results
from .stored_tables import MissingCellError, StoredTables, collection_order, interval_of, number_of
from .table import Table, markdown
from .verdicts import MARGIN, UNTESTED, share

#: The list of papers.
PAPERS = Path(__file__).parents[1] / "papers.yaml"

#: Collections whose numbers are shown; all of them count.
_SHOWN = 3

_INTRODUCTION = """\
# Papers

What each paper claims, and what came out on the data of this repository, beside what it is compared with.
"Supports the claim" counts all collections of the stored result: "yes" if each comparison comes out as claimed, "no"
if none does. Real ColBERTv2 vectors (lotte500-colbertv2) come first. Equal means no worse by more than .01.
`python -m experiments results` writes this page from `experiments/papers.yaml` and the stored results. The figures
of the MUVERA paper have [a page of their own](results/paper.md)."""

_READ = """\
## Read, not here

These papers were read, and their methods are not in this library."""


class Comparison(NamedTuple):
    """A stored number beside the number that it is compared with."""

    collection: str
    value: str
    #: "" if the value is a difference.
    base: str
    #: Whether the value is what the paper claims.
    held: bool


def papers_page(results: Path = RESULTS, papers: Path = PAPERS) -> str:
    """Return the page of papers as Markdown.

    Raises
    ------
    ValueError
        If a paper names a stored table or cell that does not exist.
    """
    content = yaml.safe_load(papers.read_text(encoding="utf-8"))
    rows = []
    for entry in content["papers"]:
        command = f"`python -m experiments {entry['command']}`" if "command" in entry else ""
        measured = [(claim, list(comparisons(claim, results))) for claim in entry.get("measured", ())]
        held = [one.held for _, found in measured for one in found]
        rows.append([
            *(_link(entry["paper"], entry["arxiv"]), entry["claim"]),
            "; ".join(sentence(claim["text"], found) for claim, found in measured) or entry["why"],
            share(held) if held else UNTESTED,
            *(entry["module"], command),
        ])  # fmt: skip
    header = ["paper", "claim", "here", "supports the claim", "module", "command"]
    read = [
        [", ".join(_link(name, arxiv) for name, arxiv in entry["papers"].items()), entry["because"]]
        for entry in content["read"]
    ]
    tables = [markdown(Table("", header, rows)), markdown(Table("", ["papers", "not here, because"], read))]
    return f"{_INTRODUCTION}\n\n{tables[0]}\n\n{_READ}\n\n{tables[1]}\n"


def comparisons(claim: dict[str, Any], results: Path = RESULTS) -> Iterator[Comparison]:
    """Yield a claim's comparison on each collection, real ColBERTv2 first.

    `claim` is an entry of "measured" in papers.yaml.
    """
    tables = StoredTables(load_results(claim["result"], results))
    try:
        for name, column in _collections(claim, tables):
            cell = tables.cell(claim["table"], _filled(claim["row"], name), column)
            if claim["expect"] == "differs":
                low, high = interval_of(cell)
                yield Comparison(name, cell, "", not low <= 0 <= high)
                continue
            base = claim["against"]
            if not _is_number(base):
                base = _shown(tables.cell(claim["table"], _filled(base, name), column))
            value = _shown(cell)
            yield Comparison(name, value, base, _held(claim, number_of(value), number_of(base)))
    except MissingCellError as error:
        raise ValueError(
            f"papers.yaml names a number that is not stored: {claim['result']} lacks {error.args[0]}. Run the "
            "command with --save, or correct the entry."
        ) from None


def sentence(text: str, found: list[Comparison]) -> str:
    """Return a claim's numbers as text.

    Examples
    --------
    >>> sentence("R@2 against all tokens", [Comparison("some", "0.4", "0.9", True)])
    'R@2 against all tokens: 0.4 against 0.9 (some)'
    """
    shown = ", ".join(
        f"{one.value}{one.base and f' against {one.base}'}{one.collection and f' ({one.collection})'}"
        for one in found[:_SHOWN]
    )
    more = len(found) - _SHOWN
    held = sum(one.held for one in found)
    return f"{text}: {shown}" + (
        f" and {more} more; as claimed on {held} of {len(found)}" if more > 0 else ""
    )


def _collections(claim: dict[str, Any], tables: StoredTables) -> list[tuple[str, str]]:
    """Return collections with their columns; "" if the table has none."""
    first = claim["row"] if isinstance(claim["row"], str) else claim["row"][0]
    if "column" not in claim:
        names = tables.collections(claim["table"])
        return [(name, name) for name in names if _stored(claim, tables, name, name)]
    if "{collection}" not in first:
        return [("", claim["column"])]
    known = dict.fromkeys(cell.partition(",")[0] for cell in tables.rows(claim["table"]))
    found = [name for name in known if _stored(claim, tables, name, claim["column"])]
    if not found:
        raise MissingCellError(f"rows of {claim['row']!r}")
    return [(name, claim["column"]) for name in sorted(found, key=collection_order)]


def _stored(claim: dict[str, Any], tables: StoredTables, name: str, column: str) -> bool:
    """Return False if the row was not measured on a collection."""
    try:
        return bool(tables.cell(claim["table"], _filled(claim["row"], name), column))
    except MissingCellError:
        return False


def _filled(row: str | list[str], name: str) -> list[str]:
    return [cell.replace("{collection}", name) for cell in ([row] if isinstance(row, str) else row)]


def _is_number(base: Any) -> bool:
    return isinstance(base, str) and base.replace(".", "").isdigit()


def _shown(cell: str) -> str:
    """Return a cell's first number, or in ``0 (1,234)`` the one in parentheses."""
    first, _, rest = cell.partition(" ")
    return rest.strip("()") if first == "0" and rest else first


def _held(claim: dict[str, Any], value: float, base: float) -> bool:
    """Return whether a number is as large as the paper claims."""
    expected = base * float(claim.get("times", 1))
    match claim["expect"]:
        case "more":
            return value > expected
        case "less":
            return value < expected
        case "equal":
            return value >= base - MARGIN
    raise ValueError(f"papers.yaml expects {claim['expect']!r}; it must be more, less, equal or differs.")


def _link(name: str, arxiv: str) -> str:
    return f"[{name}](https://arxiv.org/abs/{arxiv})"
