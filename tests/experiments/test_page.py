"""A run's page: which folders are read, which plots there are, and the page in a browser."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from builders import small_runs
from builders.run_folders import (
    CANDIDATES,
    COLLECTIONS,
    ENTRIES,
    row,
    write_run,
)
from typer.testing import CliRunner

from experiments.report.charts import Plot
from experiments.report.page import page, page_of
from experiments.report.run_folder import Run, load_run
from experiments.report.views import ExperimentView


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_run(tmp_path_factory.mktemp("run")))


def plots(run: Run, experiment: str) -> list[Plot]:
    return [
        plot for plot in ExperimentView(run, experiment).plots() if plot.collection == run.collections[-1]
    ]


# ---- Reading


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(page)
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert result.exit_code == 2 and str(tmp_path) in result.stderr and "manifest.json" in result.stderr
    folder = write_run(tmp_path)
    (folder / "summary.json").write_text('{"rows": [\n1,,]}', encoding="utf-8")
    assert "line 2 column 3" in CliRunner().invoke(app, [str(tmp_path)]).stderr
    assert not (tmp_path / "page.html").exists()
    write_run(tmp_path)
    assert CliRunner().invoke(app, [str(tmp_path), "--out", str(tmp_path / "deep" / "a.html")]).exit_code == 0
    assert (tmp_path / "deep" / "a.html").stat().st_size > 300_000


@pytest.mark.parametrize(
    ("summary", "part"),
    [([], "list"), ({"rows": []}, "<needed> 12 GB")],
)
def test_a_broken_summary_is_refused(tmp_path: Path, summary: Any, part: str) -> None:
    (write_run(tmp_path) / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(ValueError, match=r"summary|rows") as error:
        load_run(tmp_path)
    assert part in str(error.value)


# ---- Plots


def test_quality_is_plotted_by_speed_and_by_bytes(run: Run) -> None:
    view = ExperimentView(run, "end_to_end")
    assert list(view.marks) == [*ENTRIES, "bm25"] and view.main_measure == "10-recall@10"
    assert len({mark.color for mark in view.marks.values()}) == len(view.marks)
    speed, size = plots(run, "end_to_end")
    assert (speed.better, size.better) == ("more", "less")
    assert len(speed.points) == len(size.points) == 1 + 4 * len(CANDIDATES)


def test_untimed_experiments_have_no_plots_of_times(tmp_path: Path) -> None:
    rows = [row("a", "b", "muvera", 0.5, queries_per_second=float(k), query={"c": k}) for k in (1, 2, 3)]
    for timed in (False, True):
        manifest: dict[str, Any] = {
            "experiments": {"a": {"title": "A", "timed": timed}},
            "collections": {"b": {}},
        }
        run = load_run(write_run(tmp_path, rows, **manifest))
        assert any(plot.cost == "queries per second" for plot in plots(run, "a")) is timed


# ---- The page in a browser


def test_the_page_works_in_a_browser(run: Run, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    path = tmp_path / "page.html"
    path.write_text(page_of(run), encoding="utf-8")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for width in (390, 1280):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.set_default_timeout(60_000)  # the machine may be busy
            said: list[str] = []
            asked: list[str] = []
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.on("pageerror", lambda error, said=said: said.append(str(error)))
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto(path.as_uri())
            tab.wait_for_function("document.body.dataset.drawn")
            charts = sum(len(list(ExperimentView(run, name).plots())) for name in run.experiments)
            assert tab.locator(".chart svg.marks").count() == charts
            assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            for name in ("study <1>", "End to <end>", 'plaid & "warp"', "<needed> 12 GB"):
                assert name in tab.inner_text("body")
            # A system and a collection that are filtered out leave charts and tables.
            points = tab.locator(".chart").first.locator(".mark-symbol path")
            before = points.count()
            tab.locator("#filters summary").click()
            tab.get_by_role("checkbox", name="plaid").uncheck()
            tab.get_by_role("checkbox", name=COLLECTIONS[1]).uncheck()
            tab.wait_for_function("document.body.dataset.drawn >= 3")
            assert points.count() == before - len(CANDIDATES)
            assert tab.get_by_role("columnheader", name=COLLECTIONS[1]).count() == 0
            assert (said, asked) == ([], [path.as_uri()])
        browser.close()


@pytest.mark.compiled("searches whole collections")
def test_what_the_runner_writes_is_what_tables_and_page_read(tmp_path: Path) -> None:
    sweep = {"candidates": [5, 10, 20]}
    systems: list[dict[str, Any]] = [
        {"system": "exhaustive", "label": "all"},
        {"system": "pooled", "label": "mean", "sweep": sweep},
        {"system": "pooled", "label": "mean again", "sweep": sweep},
    ]
    kinds = ["metrics", "speed", "size", "speed_at_recall"]
    compare = [{"to": "all", "what": ["mean, candidates=5"]}]
    assert small_runs.run(tmp_path, systems, timed=True, tables=kinds, compare=compare) == []
    run = load_run(tmp_path / "out")
    tables = {table["title"].removeprefix("Mine: "): table["rows"] for table in run.tables}
    metrics = [row["metrics"]["5-recall@5"] for row in run.rows]
    cells = [f"{m['mean']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in metrics]
    assert [row[1] for row in tables["5-recall@5"]] == cells
    speeds = [row[1].partition(" ")[0] for row in tables["queries per second (p50 / p95 / p99, ms)"]]
    assert speeds == [f"{row['queries_per_second']:,.0f}" for row in run.rows]
    assert [row[0] for row in tables["build seconds"]] == ["all", "mean", "mean again"]
    assert tables["paired differences"][0][:2] == [
        "mean, candidates=5 minus all",
        "5-recall@5",
    ]
    view = ExperimentView(run, "mine")
    assert [plot.title.partition(" by ")[0] for plot in view.plots()] == ["5-recall@5"] * 2
    assert all(row["point"] in page_of(run) for row in run.rows)
