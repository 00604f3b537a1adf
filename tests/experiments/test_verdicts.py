"""Verdicts on the paper's figures: rules over stored tables."""

from pathlib import Path
from typing import Any

import pytest

from experiments.report.results_pages import SUBJECTS
from experiments.report.stored_results import RESULTS, load_results, save_results
from experiments.report.stored_tables import MissingCellError, StoredTables
from experiments.report.verdicts import verdict_of


def store(folder: Path, name: str, **tables: list[list[str]]) -> None:
    """Store tables by their titles; the first row of each is its header."""
    content = [
        {"title": f"T: {title}", "header": rows[0], "rows": rows[1:]} for title, rows in tables.items()
    ]
    save_results(name, {"configuration": {"title": "T"}, "tables": content}, folder)


def changed(folder: Path, name: str, row: str, cells: list[str]) -> None:
    """Store a copy of the repository's result in which a row has other cells."""
    stored: dict[str, Any] = load_results(name)
    found = [one for table in stored["tables"] for one in table["rows"] if one[0] == row]
    assert found
    for one in found:
        one[-len(cells) :] = cells
    save_results(name, stored, folder)


def test_every_figure_of_the_paper_has_a_verdict_with_numbers() -> None:
    for name in SUBJECTS["paper"][2]:
        holds, text = verdict_of(name)
        assert holds in ("yes", "in part", "no"), name
        assert any(character.isdigit() for character in text) and text.endswith("."), name


def test_a_result_that_is_not_stored_is_not_tested(tmp_path: Path) -> None:
    assert verdict_of("plaid", tmp_path) == (
        "not tested",
        "Not tested: the stored result lacks the table '10-recall@10'.",
    )


@pytest.mark.parametrize(
    ("cells", "holds"), [(["0.96"] * 3, "yes"), (["0.96", "0.5", "0.5"], "in part"), (["0.5"] * 3, "no")]
)
def test_the_nearest_neighbor_is_judged_on_each_collection(
    tmp_path: Path, cells: list[str], holds: str
) -> None:
    changed(tmp_path, "nearest_neighbor", "paper R=20 k=5 p=8", cells)
    assert verdict_of("nearest_neighbor", tmp_path).holds == holds


def test_missing_parts_of_a_figure_are_named_and_measured_when_stored(tmp_path: Path) -> None:
    stored = load_results("vector_dimension")
    for table in stored["tables"]:
        table["rows"] = [row for row in table["rows"] if "k-means" not in row[0]]
    save_results("vector_dimension", stored, tmp_path)
    assert "lacks a row with k-means cells" in verdict_of("vector_dimension", tmp_path).text
    for table in stored["tables"]:
        table["rows"].append(["paper k-means R=20 k=5 p=16", "0.9", "0.8", "0.99"])
    save_results("vector_dimension", stored, tmp_path)
    holds, text = verdict_of("vector_dimension", tmp_path)
    assert "lacks" not in text and holds == "in part" and "in 2 of 3 comparisons" in text
    assert "with R=20 k=5 p=16: 0.9 against" in text and "0.99 against 0.893 (scifact-minilm)" in text


@pytest.mark.parametrize(("time", "holds"), [("0.3", "yes"), ("0.8", "in part"), ("1.2", "in part")])
def test_codes_in_a_graph_are_compared_with_floats_in_a_graph(tmp_path: Path, time: str, holds: str) -> None:
    floats, codes = "paper, graph, ef=100", "paper, PQ-256-8, graph, ef=100"
    sizes = [["system", "some"], ["paper, exact", "51,220"], ["paper, PQ-256-8", "1,280"]]
    speed = [["system", "some"], [floats, "50 (1 / 2 / 3)"], [codes, "60 (1 / 2 / 3)"]]
    lost = [["difference", "metric", "some"]]
    lost += [
        [f"{a} minus {b}", "10-recall@100", "-0.010 [-0.020, +0.000]"]
        for a, b in ((codes, floats), ("paper, PQ-256-8", "paper, exact"))
    ]
    lost.append([f"{codes} over {floats}", "median latency", f"{time}x [0.2, 1.3]"])
    tables = {"bytes per document": sizes, "queries per second": speed, "paired differences": lost}
    store(tmp_path, "quantization", **tables)
    verdict = verdict_of("quantization", tmp_path)
    assert verdict.holds == holds and f"relative to floats, is {time}x (some)" in verdict.text


@pytest.mark.parametrize(
    ("recall", "times", "words"),
    [
        ("-0.030", "0.6x [0.55, 0.65]", "would help nowhere"),
        ("-0.060", "0.6x [0.55, 0.65]", "as good as tau=0.7 on some"),
        ("-0.030", "0.95x [0.9, 1]", "as good as tau=0.7 on some"),
    ],
)
def test_carving_is_compared_with_fewer_candidates(
    tmp_path: Path, recall: str, times: str, words: str
) -> None:
    rows = [["difference", "metric", "some"]]
    for system, change, time in (
        ("carving, tau=0.7", "-0.050", "0.9x [0.85, 0.95]"),
        ("no carving, candidates=20", recall, times),
    ):
        pair = f"{system} {{}} carving, tau=None"
        rows += [[pair.format("minus"), "10-recall@10", f"{change} [-0.1, +0]"]]
        rows += [[pair.format("minus"), "nDCG@10", "-0.001 [-0.002, +0.001]"]]
        rows += [[pair.format("over"), "median latency", time]]
    store(tmp_path, "carving", **{"paired differences": rows})
    assert words in verdict_of("carving", tmp_path).text


def test_fdes_that_need_more_candidates_than_tokens_refute_the_figure(tmp_path: Path) -> None:
    fde, tokens = "paper (40,6,128) to 10240", "single vectors"
    rows = [["system", "recall", "some"]]
    for recall in (".80", ".95"):
        rows += [
            [fde, recall, "60"],
            [tokens, recall, "30"],
            [f"{tokens} without deduplication", recall, "more"],
        ]
    store(tmp_path, "single_vector", **{"candidates that reach a 10-recall@10": rows})
    holds, text = verdict_of("single_vector", tmp_path)
    assert holds == "no" and "on no collection (0 of 1)" in text and "more without deduplication" in text


@pytest.mark.parametrize(("times", "holds"), [("0.75x [0.7, 0.8]", "yes"), ("1.1x [1.05, 1.2]", "in part")])
def test_carving_is_judged_by_quality_and_time(tmp_path: Path, times: str, holds: str) -> None:
    rows = [
        ["difference", "metric", "some"],
        ["carving, tau=0.7 minus carving, tau=None", "nDCG@10", "-0.001 [-0.002, +0.001]"],
        ["carving, tau=0.7 over carving, tau=None", "median latency", times],
    ]
    store(tmp_path, "carving", **{"paired differences": rows})
    assert verdict_of("carving", tmp_path).holds == holds


def test_times_of_a_graph_are_compared_over_sizes(tmp_path: Path) -> None:
    recall = [["system", "some"], ["paper, exact", "0.800"], ["paper, hnswlib, ef=50", "0.799"]]
    store(tmp_path, "graph", **{"10-recall@50": recall})
    for most, holds in (("1.5", "yes"), ("5", "in part"), ("50", "in part")):
        rows = [
            ["quantity", "10,000", "1,000,000"],
            ["quick search: p50, processor ms", "1", most],
            ["quick search: 10-recall@10", "1.000", "0.900"],
        ]
        store(tmp_path, "growth", **{"Generated documents, backend hnsw": rows})
        assert verdict_of("graph", tmp_path).holds == holds
    store(tmp_path, "growth", **{"Real text, backend hnsw": rows})
    assert "generated" not in verdict_of("graph", tmp_path).text


def test_a_missing_cell_is_named() -> None:
    tables = StoredTables(load_results("plaid", RESULTS))
    with pytest.raises(
        MissingCellError, match="the row 'lemur' of the table '10-recall@10' in cranfield-minilm"
    ):
        tables.cell("10-recall@10", "lemur", "cranfield-minilm")


def test_plaid_is_judged_on_collections_without_judged_questions(tmp_path: Path) -> None:
    header, fast, slow = ["system", "a", "b"], "2 (1.0 / 1.0 / 1.0)", "1 (9.0 / 9.0 / 9.0)"
    ours, theirs = "muvera paper, hnswlib, candidates=200", "plaid, n_ivf_probe=32, n_full_scores=64"
    store(
        tmp_path,
        "plaid",
        **{
            "10-recall@10": [header, [ours, "0.9", "0.7"], [theirs, "0.8", "0.8"]],
            "nDCG@10": [header, [ours, "0.5", ""], [theirs, "0.4", ""]],
            "queries per second": [header, [ours, fast, fast], [theirs, slow, slow]],
        },
    )
    verdict = verdict_of("plaid", tmp_path)
    assert verdict.holds == "in part"
    assert "on 1 of 2 collections" in verdict.text
    assert (
        "nDCG@10 0.5 against 0.4, 1.0 against 9.0 ms (a); 10-recall@10 0.7 against 0.8, 1.0" in verdict.text
    )
