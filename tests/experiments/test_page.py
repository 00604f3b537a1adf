"""A run's page without a browser: series, plots, tables, the file as a whole."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.read_pages import Elements, page_command
from builders.run_folders import CANDIDATES, COLLECTIONS, DEPTHS, ENTRIES, SIZES, row, spread, write_run

from experiments.report import page_tables as tables
from experiments.report.appearance import SERIES, marks_of
from experiments.report.assembly import page_of
from experiments.report.experiment_view import ExperimentView
from experiments.report.numbers import number
from experiments.report.plots import plots_of
from experiments.report.run_folder import Run, load_run
from experiments.report.shapes import SHAPES
from experiments.runner.configuration import load_experiments
from experiments.runner.run import Options, run_experiments
from experiments.runner.smoke import smoke_collections


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return page_of(run)


# ---- Series and marks


def test_series_are_labels_or_what_tells_a_systems_words_apart(run: Run) -> None:
    names = {series.name: series.family for series in ExperimentView(run, "end_to_end").series}
    assert names == {label: family for label, (_, family, _) in ENTRIES.items()}
    dimensions = ExperimentView(run, "vector_dimension")
    assert [series.name for series in dimensions.series] == ["fde, preset paper", "fde, preset default"]
    assert dimensions.main_measure == "10-recall@10"
    assert ExperimentView(run, "nearest_neighbor").main_measure == "1-recall@1"


def test_no_color_comes_twice_and_shapes_say_the_family() -> None:
    families = {f"{family}{k}": family for family in SHAPES for k in range(len(SHAPES["muvera"]))}
    first, second = marks_of([families, {"new": "muvera", "peer3": "peer"}])
    assert len({mark.color for mark in first.values()}) == len(families) > len(SERIES)
    assert len({mark.shape for mark in first.values()}) == len(families)
    assert all(first[name].shape in SHAPES[family] for name, family in families.items())
    assert second["peer3"] == first["peer3"]
    assert second["new"].color != second["peer3"].color


def test_colors_of_series_are_apart_on_both_papers() -> None:
    places = np.array([oklab(color) for color in SERIES])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(len(SERIES))
    assert apart.min() > 0.08  # a twelfth of the way from black to white
    assert len(SERIES) >= 32


def oklab(color: str) -> list[float]:
    """Return a color as #rrggbb in Ottosson's OKLab."""
    parts = np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    red, green, blue = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    long = np.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue)
    middle = np.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue)
    short = np.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue)
    return [
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    ]


# ---- Plots


def test_a_timed_experiment_has_tradeoffs_and_lines_against_what_it_varies(run: Run) -> None:
    view = ExperimentView(run, "end_to_end")
    plots = [plot for plot in plots_of(view) if plot.collection == COLLECTIONS[0]]
    assert [(plot.kind, plot.parameter) for plot in plots] == [
        *(("speed", ""), ("size", ""), ("sweep", "candidates"), ("sweep-speed", "candidates"))
    ]
    speed, _, sweep, _ = plots
    here = [i for i in view.rows if run.rows[i]["collection"] == COLLECTIONS[0]]
    assert sorted(speed.rows) == here
    assert sorted(set(sweep.values)) == CANDIDATES
    assert all(run.rows[i]["query"]["candidates"] == v for i, v in zip(sweep.rows, sweep.values, strict=True))


def test_sizes_of_fdes_are_drawn_as_lines_though_they_are_not_configured(run: Run) -> None:
    plots = plots_of(ExperimentView(run, "vector_dimension"))
    assert "sweep-speed" not in {plot.kind for plot in plots}
    sizes = next(plot for plot in plots if plot.parameter == "FDE dimension")
    assert sizes.logarithmic
    assert sizes.values == [run.rows[i]["build"]["vector_dimension"] for i in sizes.rows]
    assert len(sizes.rows) == sum(
        one["experiment"] == "vector_dimension" and one["collection"] == COLLECTIONS[0] for one in run.rows
    )


def test_a_growing_collection_has_lines_and_no_tradeoff(run: Run) -> None:
    plots = plots_of(ExperimentView(run, "collection_size"))
    assert [(plot.kind, plot.parameter) for plot in plots] == [
        *(("sweep", "documents"), ("sweep-speed", "documents"))
    ]
    assert sorted(set(plots[0].values)) == SIZES


def test_recall_at_many_depths_is_drawn_against_the_depth(run: Run) -> None:
    plots = plots_of(ExperimentView(run, "nearest_neighbor"))
    depths = next(plot for plot in plots if plot.kind == "depth")
    assert depths.title == "1-recall@N"
    assert depths.values == DEPTHS * 2
    assert depths.measures == [f"1-recall@{depth}" for depth in DEPTHS] * 2


def test_too_many_lines_are_each_series_best(tmp_path: Path) -> None:
    rows = [
        row(
            "grid",
            "one",
            system,
            0.5 + m / 100,
            build={"k": k, "m": m},
            queries_per_second=float(100 * k * m),
        )
        for system in ("muvera", "fastembed")
        for k in (1, 2, 3)
        for m in (1, 2, 3, 4, 5)
    ]
    view = ExperimentView(load_run(write_run(tmp_path, rows, experiments={})), "grid")
    against_k = next(plot for plot in plots_of(view) if plot.parameter == "k")
    assert {view.run.rows[i]["build"]["m"] for i in against_k.rows} == {5}
    assert set(against_k.variants) == {"m 5"} or set(against_k.variants) == {""}
    assert len(against_k.rows) == 6
    few = ExperimentView(load_run(write_run(tmp_path, rows[:10], experiments={})), "grid")
    against_m = next(plot for plot in plots_of(few) if plot.parameter == "m")
    assert list(dict.fromkeys(against_m.variants)) == ["k 1", "k 2"]


def test_untimed_experiments_have_no_plots_of_times(tmp_path: Path) -> None:
    rows = [row("a", "b", "muvera", 0.5, queries_per_second=float(k), query={"c": k}) for k in (1, 2, 3)]
    for timed in (False, True):
        manifest: dict[str, Any] = {"experiments": {"a": {"systems": [{"sweep": {"c": []}}], "timed": timed}}}
        view = ExperimentView(load_run(write_run(tmp_path, rows, **manifest)), "a")
        assert ("speed" in {plot.kind for plot in plots_of(view)}) is timed


# ---- Tables


def test_measurements_hold_every_row_with_intervals(run: Run) -> None:
    view = ExperimentView(run, "end_to_end")
    table = tables.measurements(view)
    assert table is not None
    assert len(table.rows) == len(view.rows)
    first = dict(zip(table.header, table.rows[0].cells, strict=True))
    one = run.rows[view.rows[0]]
    found = one["metrics"]["10-recall@10"]
    assert first["10-recall@10"].text == f"{found['mean']:.3f}"
    assert first["10-recall@10"].spread == f"[{found['low']:.3f}, {found['high']:.3f}]"
    assert first["queries/s"].text == number(one["queries_per_second"])
    assert "1-recall@1" not in table.header


def test_comparisons_say_whether_the_interval_excludes_zero(run: Run) -> None:
    table = tables.comparisons(ExperimentView(run, "end_to_end"))
    assert table is not None
    assert [cell.text for cell in table.rows[0].cells] == [
        *("cranfield-minilm, n=5,183", "10-recall@10", "fastembed, candidates=100", "muvera, candidates=100"),
        *("+0.030", "yes"),
    ]
    assert table.rows[0].cells[4].spread == "[+0.018, +0.042]"
    assert table.rows[0].systems == sorted(list(run.systems).index(name) for name in ("fastembed", "muvera"))
    assert [row.cells[-1].text for row in table.rows].count("no") == 6


def test_own_tables_are_filtered_by_what_their_cells_and_columns_name(run: Run) -> None:
    (table,) = tables.own_tables(ExperimentView(run, "end_to_end"))
    assert (table.title, table.caption) == ("10-recall@10", "")
    assert table.column_collections == [[], *([k] for k in range(len(COLLECTIONS)))]
    assert table.numeric == [False, *[True] * len(COLLECTIONS)]
    assert [row.systems for row in table.rows] == [
        [list(run.systems).index(system)] for system, _, _ in ENTRIES.values()
    ]


# ---- The file


def test_the_page_is_one_small_file_that_asks_for_nothing(page: str) -> None:
    assert len(page.encode()) < 1_500_000
    elements = Elements(page)
    for tag, attributes in elements.found:
        assert tag not in ("iframe", "object", "embed", "img", "base")
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, value)
    assert "@import" not in page
    assert "url(" not in page.partition("<style>")[2].partition("</style>")[0]
    policy = next(a["content"] for t, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_names_are_text_and_never_markup(page: str, run: Run) -> None:
    elements = Elements(page)
    assert not any(tag in ("token", "end", "needed", "1") for tag, _ in elements.found)
    for name in (
        "study <1>",
        "End to <end>",
        "mean <token>",
        "</script><b>xtr",
        'plaid & "warp"',
        "<needed>",
    ):
        assert name in elements.text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert len(json.loads(data[1])["rows"]) == len(run.rows)


def test_the_page_says_what_was_run_and_what_failed(page: str) -> None:
    text = Elements(page).text
    for part in (
        "AMD EPYC",
        "2026-11-25T03:00:00+00:00",
        "3f1c9a7be0d2",
        "0.1.0",
        "9b2f00aa51c3",
        "1,200,345",
    ):
        assert part in text
    assert "end_to_end, cisi-minilm, fastembed" in text
    assert "MemoryError: <needed> 12 GB & more" in text
    assert "After MUVERA paper, figures 6 and 7." in text


def test_the_page_is_made_for_assistive_readers(page: str) -> None:
    found = Elements(page).found
    tags = [tag for tag, _ in found]
    assert tags.count("h1") == tags.count("main") == 1
    assert tags.count("caption") == tags.count("table")
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in found if tag == "th")
    plots = [attributes for _, attributes in found if attributes.get("class") == "plot"]
    assert plots
    for attributes in plots:
        assert attributes["role"] == "img"
        assert attributes["tabindex"] == "0"
        assert "against" in str(attributes["aria-label"])
    identities = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_a_run_of_one_bare_row_has_a_page(tmp_path: Path) -> None:
    bare = {"experiment": "a", "collection": "b", "system": "c", "family": "peer"}
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    (tmp_path / "summary.json").write_text(json.dumps({"rows": [bare]}), encoding="utf-8")
    code, out, err = page_command(tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'page.html'} (")
    text = Elements((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "The one measurement" in text
    assert "None." in text  # failures


def test_what_the_runner_writes_is_what_the_page_reads(tmp_path: Path) -> None:
    sweep = {"candidates": [10, 20, 40]}
    content = {
        "title": "Mine",
        "k": 10,
        "timed": True,
        "metrics": ["10-recall@10"],
        "tables": ["metrics", "speed"],
        "systems": [{"system": "exhaustive", "label": "all"}, {"system": "pooled", "sweep": sweep}],
        "compare": [{"to": "all", "what": ["pooled, candidates=10"]}],
    }
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")  # which is YAML too
    out = tmp_path / "out"
    options = Options(out, tmp_path / "cache", 1, lambda line: None)
    assert run_experiments(load_experiments([str(path)]), list(smoke_collections()), options) == []
    run = load_run(out)
    view = ExperimentView(run, "mine")
    assert [series.name for series in view.series] == ["all", "pooled"]
    drawn = {(plot.kind, plot.parameter) for plot in plots_of(view)}
    assert drawn == {*(("speed", ""), ("size", ""), ("sweep", "candidates"), ("sweep-speed", "candidates"))}
    text = Elements(page_of(run)).text
    for part in ("Mine", "quick-wide", "pooled, candidates=10 minus all", "Paired comparisons"):
        assert part in text


def test_the_page_is_the_same_each_time_and_goes_where_it_is_sent(
    tmp_path: Path, run: Run, page: str
) -> None:
    assert page_of(run) == page
    folder = write_run(tmp_path / "run", [row("a", "b", "muvera", 0.5, metrics={"x": spread(0.5)})])
    code, _, err = page_command(folder, "--out", tmp_path / "deep" / "er" / "page.html")
    assert (code, err) == (0, "")
    assert (tmp_path / "deep" / "er" / "page.html").stat().st_size > 300_000
    assert not (folder / "page.html").exists()
