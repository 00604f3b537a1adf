"""Machines of large collections: the arithmetic, and the table that the documents print."""

import pytest
from builders.paths import ROOT
from typer.testing import CliRunner

from experiments.__main__ import app
from experiments.report.machines import Machine, machine_rows, query_ms, search_costs
from experiments.report.stored_results import load_results


def test_costs_are_those_that_are_stored() -> None:
    rows = load_results("scaling")["tables"][0]["rows"]
    for cost in search_costs():
        last = next(row for row in reversed(rows) if row[0] == cost.name)
        assert (f"{cost.documents:,}", f"{cost.bytes_document:,.0f}", f"{cost.ms:.3f}") == (
            last[1],
            last[4],
            last[6],
        )
        assert cost.ms_of(cost.documents) == cost.ms
    # The first reads all codes, the second walks a graph.
    assert [round(cost.exponent, 1) for cost in search_costs()] == [1.0, 0.2]


def test_the_arithmetic() -> None:
    machine = Machine(memory_gb=64, cores=8, rate=5000, share=0.5)
    for row, cost in zip(machine_rows([10**9], machine), search_costs(), strict=True):
        documents, name, _, *numbers = row
        shards, each, ms, rate, sets, machines = (float(text.replace(",", "")) for text in numbers)
        assert (documents, name) == ("1,000,000,000", cost.name)
        assert (shards - 1) * 32e9 < 1e9 * cost.bytes_document <= shards * 32e9
        assert each == pytest.approx(1e9 / shards, abs=1)
        assert ms == pytest.approx(cost.ms_of(each) + query_ms(), abs=0.06)
        assert rate == pytest.approx(8000 / ms, rel=0.02, abs=0.6)
        assert machines == shards * sets
        assert (sets - 1) * 8000 / (ms + 0.06) < 5000 <= sets * 8000 / (ms - 0.06)


def test_the_documents_print_what_the_command_does() -> None:
    done = CliRunner().invoke(app, ["machines"])
    assert done.exit_code == 0
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert "\n".join(table) in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    fewer = CliRunner().invoke(app, ["machines", "1000000", "--memory", "8"])
    assert fewer.exit_code == 0 and "| 1,000,000 | hnsw | 1 GB | 1 |" in fewer.stdout
