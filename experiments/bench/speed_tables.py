"""The tables of what :mod:`experiments.bench.speed` measured."""

from __future__ import annotations

from typing import Any

from ..report.markdown import markdown_table, text_table
from .first_calls import TARGETS

__all__ = ["markdown", "text"]

_HEADER = ["muvera / other", "muvera", "other", "", "ratio", "least - greatest", "processor time", "target"]


def text(results: dict[str, Any]) -> str:
    """Return the tables for the terminal."""
    parts = []
    if results["lines"]:
        parts.append(text_table(_HEADER, _lines(results)))
    if results.get("first_calls"):
        parts.append(text_table(["in a new process", "seconds", "target"], _first_calls(results)))
    parts += [f"checked before timing: {name}: {value:.3g}" for name, value in results["checks"].items()]
    return "\n\n".join([*parts, _caption(results)])


def markdown(results: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = [markdown_table([cell or "unit" for cell in _HEADER], _lines(results))]
    if results.get("first_calls"):
        parts.append(markdown_table(["in a new process", "seconds", "target"], _first_calls(results)))
    return "\n\n".join([_caption(results), *parts])


def _caption(results: dict[str, Any]) -> str:
    on = results["machine"]
    return (
        f"Median of {results['rounds']} interleaved rounds, one thread each unless said otherwise; "
        f"{on['processor']}, {on['cores']} cores (load {on['load']} at the start, jobs had a processor "
        f"{results['share'] or 0:.0%} of the time), "
        f"Python {on['python']}, NumPy {on['numpy']} (BLAS kernel "
        f"{on.get('blas_kernel') or 'unknown'}), numba {on['numba']}."
    )


def _lines(results: dict[str, Any]) -> list[list[str]]:
    return [
        [
            line["name"],
            _number(line["muvera"]),
            _number(line["other"]),
            line["unit"],
            f"{_ratio(line['ratio'])}x",
            f"{_ratio(line['least'])} - {_ratio(line['greatest'])}",
            f"{_ratio(line['processor_ratio'])}x" if line["processor_ratio"] else "",
            line["target"],
        ]
        for line in results["lines"]
    ]


def _first_calls(results: dict[str, Any]) -> list[list[str]]:
    return [
        [call["name"], f"{call['seconds']:.2f}", TARGETS.get(call["name"], "")]
        for call in results["first_calls"]
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
