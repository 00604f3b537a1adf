"""Metrics and intervals, tables of experiments and stored results.

Also the pages that are made from them.
"""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT
from builders.small_runs import configured

from experiments.evaluation.metrics import ExactAnswers, judge
from experiments.evaluation.statistics import mean_interval, pareto_front, ratio_interval
from experiments.evaluation.summary import Measured, Part
from experiments.report.charts import Plot, marks_of, picture
from experiments.report.machines import Disks, Machine, disk_table, machine_table, query_ms, scan_cost
from experiments.report.papers import comparisons, papers_page
from experiments.report.pictures import checksum_line, pictures_of, plot_of
from experiments.report.result_tables import result_tables
from experiments.report.results_pages import SUBJECTS, update_fde_table, update_readme, write_pages
from experiments.report.stored_results import RESULTS, load_results, save_results, save_run, save_tables
from experiments.report.table import Column, Table, html, markdown
from experiments.runner.configuration import Experiment, load_experiments
from experiments.runner.raw_store import Raw


class Known(ExactAnswers):
    documents = 60

    def __init__(self, top: np.ndarray) -> None:
        self.top = top

    def best(self, count: int) -> np.ndarray:
        return self.top[:, :count]


def rankings(seed: int, length: int) -> np.ndarray:
    stream = np.random.default_rng(seed)
    return np.stack([stream.permutation(60)[:length] for _ in range(8)])


IDS, TOP = rankings(0, 20), rankings(1, 10)


def test_recall_is_the_share_of_the_exact_best() -> None:
    values = judge(["10-recall@5", "1-recall@20", "nDCG@10"], IDS, Known(TOP))
    assert list(values) == ["10-recall@5", "1-recall@20"]  # nDCG needs judgements
    for i, row in enumerate(IDS):
        assert values["10-recall@5"][i] == np.isin(TOP[i], row[:5]).mean()
        assert values["1-recall@20"][i] == (TOP[i, 0] in row)


def test_ndcg_and_reciprocal_rank_are_their_definitions() -> None:
    judgements = [{int(IDS[i, i]): 2, int(IDS[i, i + 1]): 1} for i in range(len(IDS))]
    values = judge(["nDCG@10", "RR@10"], IDS, Known(TOP), judgements)
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    for i in range(len(IDS)):
        gained = sum(gain / np.log2(rank + 2) for gain, rank in [(2, i), (1, i + 1)] if rank < 10)
        assert values["nDCG@10"][i] == pytest.approx(gained / ideal)
        assert values["RR@10"][i] == pytest.approx(1 / (i + 1))


def test_no_judgement_is_nan_and_no_results_are_zero() -> None:
    ids = np.array([[3, 4], [-1, -1], [5, 6]])
    values = judge(["nDCG@10", "10-recall@2"], ids, Known(TOP[:3]), [{3: 1}, {9: 1}, {}])
    np.testing.assert_array_equal(values["nDCG@10"], [1, 0, np.nan])
    assert values["10-recall@2"][1] == 0


def test_intervals_cover_the_true_mean() -> None:
    """95% nominal.

    200 trials of 100 uniform values: below 90% or at 100% has odds under 1 in 1000.
    """
    stream = np.random.default_rng(3)
    found = [mean_interval(stream.random(100)) for _ in range(200)]
    assert 180 <= sum(one is not None and one["low"] <= 0.5 <= one["high"] for one in found) < 200
    assert mean_interval(np.array([1.0, np.nan, 1.0])) == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert mean_interval(np.full(3, np.nan)) is None


def test_a_ratio_of_medians_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    slow = rng.uniform(3, 5, 400)
    assert ratio_interval(slow, slow / 4) == (4.0, 4.0, 4.0)
    ratio, low, high = ratio_interval(slow, rng.uniform(1.5, 2.5, 400))
    assert low < ratio < high and low < 2 < high and high - low < 0.3


def test_the_front_is_what_no_point_beats() -> None:
    points = [(float(q), float(c)) for q, c in np.random.default_rng(0).integers(1, 12, (40, 2))]
    beaten = [
        any(o != p and o[0] >= p[0] and o[1] <= p[1] for o in points) or points.index(p) < i
        for i, p in enumerate(points)
    ]
    assert sorted(pareto_front(points)) == [i for i, worse in enumerate(beaten) if not worse]


INTERVAL = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 3}


@pytest.fixture
def table() -> Table:
    numbers = (Column("recall", format="{:.2f}"), Column("time", unit="ms"))
    rows: list[Any] = [["<a|b>", "x", INTERVAL, 1234.5, None], ["c", "1", None, 0.001234, None]]
    return Table("Title", ["system", "words", *numbers, "empty"], rows)


def test_a_table_has_units_and_formatted_cells(table: Table) -> None:
    assert table.header == ["system", "words", "recall", "time, ms", "empty"]
    assert table.cells == [["<a|b>", "x", "0.50 [0.25, 0.75]", "1,234", ""], ["c", "1", "", "0.00123", ""]]
    assert table.numeric[:4] == [False, False, True, True]
    assert table.without_empty_columns().header == table.header[:4]


def test_a_table_has_the_same_cells_as_markdown_and_html(table: Table) -> None:
    assert markdown(table).splitlines()[2] == "| <a/b> | x | 0.50 [0.25, 0.75] | 1,234 |  |"
    page = html(table)
    assert "&lt;a|b&gt;" in page and "<a|b>" not in page
    assert page.count("<td") == 10 and page.count("<th") - page.count("<thead") == 5


def test_saved_tables_replace_those_of_the_same_title(tmp_path: Path) -> None:
    old = Table("Times", ["system", "ms"], [["a", 1], ["b", 2]])
    save_tables("mine", "Mine", [old, Table("Sizes", ["system"], [["a"]])], tmp_path)
    save_tables("mine", "Mine", [Table("Times", ["system", "ms"], [["b", 3]], "Now.")], tmp_path)
    times, sizes = load_results("mine", tmp_path)["tables"]
    assert times["rows"] == [["a", "1"], ["b", "3"]] and "earlier" in times["caption"]
    assert sizes["rows"] == [["a"]]
    save_tables("mine", "Mine", [Table("Times", ["system", "s"], [["b", 3]])], tmp_path)
    assert load_results("mine", tmp_path)["tables"][0]["rows"] == [["b", "3"]]


def test_candidates_are_the_fewest_measured_ones_that_reach_a_recall(tmp_path: Path) -> None:
    systems = [{"system": "muvera", "label": "ours", "sweep": {"candidates": [20, 50]}}]
    content: dict[str, Any] = {"k": 10, "metrics": ["10-recall@10"], "systems": systems}
    content["tables"] = ["candidates"]
    (experiment,) = load_experiments([configured(tmp_path, **content)])
    made = Part(experiment, "some")
    for candidates, recall in ((20, 0.86), (50, 0.93)):
        values = {"10-recall@10": np.full(3, recall)}
        made.points[f"ours, candidates={candidates}"] = Measured([{"label": "ours"}], values, None)
    (table,) = result_tables([made])
    assert table["rows"] == [
        ["ours", ".80", "20"], ["ours", ".85", "20"], ["ours", ".90", "50"], ["ours", ".95", "more"]
    ]  # fmt: skip


def test_variance_is_the_standard_deviation_over_seeds(tmp_path: Path) -> None:
    content: dict[str, Any] = {"metrics": ["10-recall@10"], "systems": [{"system": "fde", "label": "a"}]}
    (experiment,) = load_experiments([configured(tmp_path, **content, tables=["variance"])])
    made = Part(experiment, "some")
    rows = [{"point": "a", "metrics": {"10-recall@10": {"mean": mean}}} for mean in (0.5, 0.6, 0.7)]
    made.points["a"] = Measured(rows, {}, None)
    (table,) = result_tables([made])
    assert table["rows"] == [["a", "0.600 +- 0.1000"]]


def test_machines_are_counted_from_stored_costs() -> None:
    machine, cost = Machine(memory_gb=64, cores=8, rate=5000, share=0.5), scan_cost()
    ((_, _, shards, each, _, ms, rate, copies, machines),) = machine_table([10**9], machine).rows
    most = min(32e9 / cost.memory, 100 * cost.documents / cost.ms)
    assert (shards - 1) * most < 1e9 <= shards * most and each == 1e9 / shards
    assert (ms, rate) == pytest.approx((each * cost.ms / cost.documents + query_ms(), 8000 / ms))
    assert machines == shards * copies and (copies - 1) * rate < 5000 <= copies * rate


def test_the_documents_have_the_commands_table() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert markdown(machine_table([10**8, 10**10], Machine())) in page
    assert markdown(disk_table([10**8, 10**10], Machine(), Disks())) in page


def test_machines_with_a_graph_on_disk_are_limited_by_the_slower_of_disks_and_cores() -> None:
    machine, disks = Machine(cores=1, rate=5000), Disks(terabytes=1, reads=1e6)
    (few, *_, many) = disk_table([10**9], machine, disks).rows
    assert few[2] * 1e12 >= 1e9 * (4096 + 3500) > (few[2] - 1) * 1e12
    assert (few[4], few[5]) == (500, 2000)
    assert many[5] < many[6] and many[8] == many[2] * -(-5000 // many[5])
    assert disk_table([10**9], machine, Disks(1, 1e9)).rows[0][8] > few[2]  # one core is the limit


#: Label, candidates, seconds and recall of the points of a timed experiment.
POINTS = [
    ("ours", 20, 0.001, 0.9),
    ("ours", 50, 0.002, 0.99),
    ("theirs", 20, 0.004, 0.8),
    ("theirs", 30, 0.009, 0.85),  # another point is faster and better
    ("theirs", 50, 0.005, 0.92),
]


def part(experiment: Experiment, **turns: str) -> Part:
    made = Part(experiment, "some")
    for label, candidates, seconds, recall in POINTS:
        row = {"label": label, "build_seconds": 1.25, "total_bytes_per_document": 12345.6}
        none: Any = np.empty(0)
        raw = Raw(none, none, np.array([seconds, seconds, 100.0]), {"turns": turns[label]})
        values = {"10-recall@10": np.full(3, recall)}
        made.points[f"{label}, candidates={candidates}"] = Measured([row], values, raw)
    return made


def test_speed_at_a_recall_is_interpolated_and_compared(tmp_path: Path) -> None:
    sweep = {"candidates": [20, 30, 50]}
    systems = [{"system": "muvera", "label": label, "sweep": sweep} for label in ("ours", "theirs")]
    content: dict[str, Any] = {"k": 10, "timed": True, "metrics": ["10-recall@10"], "systems": systems}
    content["tables"] = ["speed_at_recall"]
    (experiment,) = load_experiments([configured(tmp_path, **content)])
    (speed,) = result_tables([part(experiment, ours="1", theirs="1")])
    assert speed["header"][1:5] == [".80", ".90", ".95", ".99"]
    assert speed["rows"] == [
        ["ours", "1,000", "1,000", "643", "500", "12,346", "1.2"],
        ["theirs", "250 (4x)", "207 (4.8x)", "", "", "12,346", "1.2"],
    ]
    apart = result_tables([part(experiment, ours="1", theirs="2")])[0]  # not measured together
    assert apart["rows"][1][1:3] == ["250", "207"]
    assert result_tables([Part(experiment, "some")]) == []  # nothing was measured


MACHINE = {"processor": "Abacus", "cores": 2, "load": 0.1, "python": "3.11", "numpy": "2.0", "numba": "1.0"}


def stored() -> dict[str, Any]:
    rows = [["muvera", "0.300 [0.2, 0.4]", ""], ["bm25", "0.200", "0.100"]]
    about = {"experiment": "headline", "caption": "", "header": ["system", "a", "plaid-b"], "rows": rows}
    tables = [{**about, "title": f"Mine: {title}"} for title in ("10-recall@10", "nDCG@10", "R@10")]
    run = {"experiment": "headline", "machine": MACHINE, "threads": 1, "tables": tables}
    return {**run, "configuration": {"title": "Mine", "caption": "One thread."}}


def test_every_stored_result_is_shown_once() -> None:
    shown = [name for _, _, names in SUBJECTS.values() for name in names]
    assert len(shown) == len(set(shown))
    assert {path.stem for path in RESULTS.glob("*.json")} <= set(shown)
    assert {experiment.name for experiment in load_experiments(["study"])} <= set(shown)


def test_the_pages_are_generated_from_the_stored_results(tmp_path: Path) -> None:
    pages = RESULTS.parents[1] / "docs" / "results"
    shutil.copytree(pages / "figures", tmp_path / "figures")  # a picture of the same plot is kept
    paths = write_pages(tmp_path, RESULTS)
    assert {path.name for path in paths} == {path.name for path in pages.glob("*.md")}
    for path in paths:
        kept = pages / path.name
        assert path.read_text() == kept.read_text(), f"{kept}: run python -m experiments results"


def test_every_picture_shows_the_stored_results() -> None:
    figures = RESULTS.parents[1] / "docs" / "results" / "figures"
    drawn = {
        name: plot
        for path in RESULTS.glob("*.json")
        for name, plot in pictures_of(load_results(path.stem)).items()
    }
    assert {path.stem for path in figures.iterdir()} == set(drawn)
    for name, plot in drawn.items():
        content = (figures / f"{name}.svg").read_text(encoding="utf-8")
        assert checksum_line(plot) in content, f"{name}: run python -m experiments results"


def test_every_page_of_results_opens_with_a_picture() -> None:
    for path in (RESULTS.parents[1] / "docs" / "results").glob("*.md"):
        sections = path.read_text(encoding="utf-8").split("\n## ")
        assert path.name == "index.md" or "](figures/" in sections[1], path.name


def test_the_page_of_papers_is_generated() -> None:
    page = ROOT / "docs" / "papers.md"
    assert papers_page() == page.read_text(encoding="utf-8"), "run python -m experiments results"


def test_a_paper_that_names_a_missing_number_is_refused(tmp_path: Path) -> None:
    save_results("headline", stored(), tmp_path)
    claim = {"result": "headline", "table": "nDCG@10", "row": "muvera", "against": "bm25", "expect": "more"}
    assert list(comparisons(claim, tmp_path)) == [("a", "0.300", "0.200", True)]  # plaid-b is not measured
    with pytest.raises(ValueError, match=r"headline lacks the row .lemur. .*Run the command with --save"):
        list(comparisons({**claim, "against": "lemur"}, tmp_path))


def test_claims_of_papers_are_compared_on_every_collection(tmp_path: Path) -> None:
    rows = [
        ["b, new", "0.9"],
        ["b, old", "0.8"],
        ["cosqa-minilm, new", "0.795"],
        ["cosqa-minilm, old", "0.8"],
    ]
    table = {"title": "T", "caption": "", "header": ["collection, codec", "recall"], "rows": rows}
    save_results("tokens", {"configuration": {"title": "Codecs"}, "tables": [table]}, tmp_path)
    claim = {"result": "tokens", "table": "T", "row": "{collection}, new", "column": "recall"}

    def held(**more: Any) -> list[bool]:
        found = list(comparisons({**claim, "against": "{collection}, old", **more}, tmp_path))
        assert [one.collection for one in found] == ["cosqa-minilm", "b"]
        return [one.held for one in found]

    assert held(expect="more") == [False, True] and held(expect="less") == [True, False]
    assert held(expect="equal") == [True, True]  # .795 is within .01 of .8
    assert held(expect="more", times=2) == [False, False] and held(expect="more", against="0.85") == [
        False,
        True,
    ]
    with pytest.raises(ValueError, match="must be more, less, equal or differs"):
        held(expect="better")


@pytest.mark.parametrize("numbers", [("0.9", "0.8", "0.7"), ("0.7", "0.8", "0.9")])
def test_collections_follow_a_rule_and_not_their_numbers(tmp_path: Path, numbers: tuple[str, ...]) -> None:
    """Real ColBERTv2 comes first, and every collection counts."""
    header = ["system", "b", "cosqa-minilm", "lotte500-colbertv2"]
    table = {"title": "T: nDCG@10", "header": header, "rows": [["x", *numbers], ["y", "0.8", "0.8", "0.8"]]}
    save_results("views", {"configuration": {"title": "T"}, "tables": [table]}, tmp_path)
    claim = {"result": "views", "table": "nDCG@10", "row": "x", "against": "y", "expect": "more"}
    found = {one.collection: one.value for one in comparisons(claim, tmp_path)}
    assert list(found.items()) == list(zip(header[1:], numbers, strict=True))[::-1]


def test_a_paired_difference_differs_if_its_interval_excludes_zero(tmp_path: Path) -> None:
    rows = [["x minus y", "+0.003 [-0.002, +0.009]", "-0.1 [-0.2, -0.05]"]]
    table = {"title": "paired differences", "caption": "", "header": ["difference", "a", "b"], "rows": rows}
    save_results("insertion_order", {"configuration": {"title": "O"}, "tables": [table]}, tmp_path)
    claim = {"result": "insertion_order", "table": "paired", "row": "x minus y", "expect": "differs"}
    assert [one.held for one in comparisons(claim, tmp_path)] == [False, True]


def test_a_picture_joins_quality_and_speed_by_the_names_of_points() -> None:
    about = {"title": "T", "metrics": ["10-recall@10"]}
    header = ["system", "other", "scifact-minilm"]
    quality = [["a, ef=5", "0.1", "0.900 [0.8, 1.0]"], ["a, ef=9", "0.2", "0.950"], ["b", "0.3", ""]]
    speed = [["a, ef=5", "1", "1,200 (1 / 2 / 3)"], ["a, ef=9", "2", "900"], ["b", "3", "700"]]
    tables = [
        {"title": "T: 10-recall@10", "header": header, "rows": quality},
        {"title": "T: queries per second (p50)", "header": header, "rows": speed},
    ]
    plot = plot_of({"experiment": "graph", "configuration": about, "tables": tables})
    assert plot is not None and plot.collection == "scifact-minilm" and list(plot.marks) == ["a"]
    first = {"x": 0.9, "y": 1200.0, "label": "a", "name": "a, ef=5", "low": 0.8, "high": 1.0}
    assert plot.points == [first, {"x": 0.95, "y": 900.0, "label": "a", "name": "a, ef=9"}]


def test_a_picture_has_colors_for_light_and_dark_pages() -> None:
    pytest.importorskip("vl_convert")
    point = {"x": 0.5, "y": 10.0, "label": "a & b", "name": "a & b"}
    drawn = picture(Plot("some", "recall", "floats", "less", [point], marks_of(["a & b"])))
    assert "prefers-color-scheme:dark" in drawn and "var(--ink)" in drawn
    assert "a &amp; b" in drawn and ET.fromstring(drawn).tag.endswith("svg")


def test_tables_in_documents_are_generated_from_the_stored_results() -> None:
    root = RESULTS.parents[1]
    readme, page = (root / "README.md").read_text(), (root / "docs" / "muvera.md").read_text()
    assert update_readme(readme, RESULTS) == readme, "README.md: run python -m experiments results"
    assert update_fde_table(page, RESULTS) == page, "docs/muvera.md: run python -m experiments results"


def test_the_table_of_fdes_is_filled_and_emptied(tmp_path: Path) -> None:
    header = ["collection", "columns", "FDE", "floats", "fit, s", "query, us", "@10", "@20", "@50"]
    facts = ["128", "paper", "10,240", "0", "9", ".5", ".6", ".7"]
    rows = [["cosqa-minilm", *facts], ["cosqa-minilm", "128", "**fde**", "512", "3", "50", ".7", ".9", "1"]]
    table = {
        "title": "The family of FDEs",
        "caption": "",
        "header": header,
        "rows": [*rows, ["other", *facts]],
    }
    save_results("default_vectors", {**stored(), "tables": [table]}, tmp_path)
    page = "a\n<!-- table of FDEs: python -m experiments results -->\n<!-- end of the table -->\nb\n"
    filled = update_fde_table(page, tmp_path)
    assert (
        "| 10-recall@20 | floats | CoSQA |" in filled and "10,240 | .6 |" in filled and "512 | .9 |" in filled
    )
    assert update_fde_table(filled, tmp_path) == filled
    assert update_fde_table(filled, tmp_path / "none") == page


def test_the_table_of_fdes_has_the_candidates_of_the_largest_collection(tmp_path: Path) -> None:
    header = ["collection", "FDE", "floats", "@20"]
    rows = [["cosqa-minilm", "paper", "10,240", ".6"], ["cosqa-minilm", "**fde**", "512", ".9"]]
    family = {"title": "The family of FDEs", "caption": "", "header": header, "rows": rows}
    save_results("default_vectors", {**stored(), "tables": [family]}, tmp_path)
    header = ["documents", "FDE", "landmarks", "directions", "floats", "candidates for 0.95"]
    rows = [
        ["10,000", "paper", "", "0", "10,240", "111"],
        ["200,000", "paper", "", "0", "10,240", "222"],
        ["200,000", "fde", "2,048", "128", "512", "70"],
        ["200,000", "fde", "4,096", "0", "1,024", "46"],  # an index of this size takes it
    ]
    sizes = {"title": "Landmarks, apidocs-minilm", "caption": "", "header": header, "rows": rows}
    save_results("landmarks", {**stored(), "tables": [sizes]}, tmp_path)
    page = "<!-- table of FDEs: python -m experiments results -->\n<!-- end of the table -->\n"
    filled = update_fde_table(page, tmp_path)
    assert "| candidates for .95, 200,000 texts |" in filled
    assert "| 10,240 | .6 | 222 |" in filled and "| 512 | .9 | 46 |" in filled


def test_a_finished_run_is_stored_by_experiment(tmp_path: Path) -> None:
    experiments = {"headline": {"title": "Mine"}, "failed": {"title": "Failed"}}
    manifest = {"experiments": experiments, "machine": MACHINE, "threads": 1, "failures": []}
    manifest["measured"] = [{"commit": "b"}, {"commit": "a"}, {"commit": "b"}]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    summary = {"rows": [{"experiment": "headline"}], "tables": stored()["tables"]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    save_run(tmp_path, tmp_path / "results")
    found = load_results("headline", tmp_path / "results")
    assert found["commits"] == ["a", "b"] and len(found["tables"]) == 3
    assert load_results("failed", tmp_path / "results") == {}
    lines = [line.strip() for line in (tmp_path / "results" / "headline.json").read_text().splitlines()]
    assert '["muvera", "0.300 [0.2, 0.4]", ""],' in lines  # one entry per line
    save_results("other", stored(), tmp_path / "results")
    paths = write_pages(tmp_path / "pages", tmp_path / "results")
    assert [path.name for path in paths] == ["systems.md", "index.md"]


def test_systems_that_store_only_tokens_are_drawn_at_the_bytes_of_their_tokens() -> None:
    header = ["system", "a"]
    metric = {"title": "T: nDCG@10", "header": header, "rows": [["all", "0.5"], ["half", "0.4"]]}
    size = {"title": "T: bytes per document (with token vectors)", "header": header}
    tables = [metric, {**size, "rows": [["all", "0 (1,000)"], ["half", "0 (500)"]]}]
    plot = plot_of(
        {"experiment": "pooling", "configuration": {"title": "T", "metrics": ["nDCG@10"]}, "tables": tables}
    )
    assert plot is not None and [(point["x"], point["y"]) for point in plot.points] == [
        (0.5, 1000),
        (0.4, 500),
    ]
