"""A run's page: the folders it reads, its plots, and the page in a browser."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import small_runs
from builders.browsers import CHROMIUM, launched

from experiments.datasets.synthetic import NAMES, synthetic_collection
from experiments.report.page import page_of
from experiments.report.run_folder import Run, load_run
from experiments.report.views import ExperimentView

CANDIDATES = [5, 10, 20, 40]

#: Systems with names that need escaping, and one that fails.
SYSTEMS: list[dict[str, Any]] = [
    {"system": "exhaustive", "label": "all"},
    {"system": "pooled", "label": 'mean & "</script><b>', "sweep": {"candidates": CANDIDATES}},
    {"system": "pooled", "label": "mean alone", "query": {"rerank": False}},
    {"system": "faulty", "label": "<i>bad", "build": {"fault": "build"}},
]
LABELS = [system["label"] for system in SYSTEMS[:3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    data = [synthetic_collection(name, documents=40, queries=12) for name in NAMES]
    data[1] = dataclasses.replace(data[1], judgements=None)
    content: dict[str, Any] = {"title": "End to <end>", "compare": [{"to": "all", "what": ["mean alone"]}]}
    content |= {"timed": True, "tables": ["metrics", "speed", "size", "speed_at_recall"]}
    with small_runs.faulty_system():
        assert len(small_runs.run(place, SYSTEMS, data, **content)) == len(data)
    return place / "out"


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load_run(folder)


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    output = small_runs.command("page", tmp_path)[1]
    assert "has no manifest.json. Give the folder of a finished run." in output


def test_a_page_is_written_into_a_new_folder(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.html"
    small_runs.command("page", folder, "--out", target)
    assert target.stat().st_size > 300_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rows": [\n1,,]}', "line 2 column 3"),
        ("[]", "a list."),
        ('{"rows": []}', "no rows and 2 failures, the first: "),
    ],
    ids=["no JSON", "a list", "no rows"],
)
def test_a_damaged_summary_is_refused(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "summary.json").write_text(text, encoding="utf-8")
    assert message in small_runs.command("page", copy)[1]
    assert not (copy / "page.html").exists()


def test_every_system_has_a_color(run: Run) -> None:
    view = ExperimentView(run, "mine")
    assert list(view.marks) == LABELS
    assert len({mark.color for mark in view.marks.values()}) == 3


def test_quality_is_plotted_by_speed_and_by_bytes(run: Run) -> None:
    view = ExperimentView(run, "mine")
    assert view.main_measure == "5-recall@5"
    plots = list(view.plots())
    assert [plot.collection for plot in plots] == [name for name in NAMES for _ in range(2)]
    assert [plot.better for plot in plots] == ["more", "less"] * 2
    assert {len(plot.points) for plot in plots} == {2 + len(CANDIDATES)}


def test_a_recall_at_several_numbers_is_plotted_by_the_number(tmp_path: Path) -> None:
    systems: list[dict[str, Any]] = [
        {"system": "fde", "label": "one", "build": {"preset": "mean"}},
        {"system": "pooled", "label": "two", "query": {"rerank": False}},
    ]
    metrics = ["1-recall@1", "1-recall@5", "1-recall@10", "10-recall@10"]
    assert small_runs.run(tmp_path, systems, title="Deep", k=10, metrics=metrics) == []
    view = ExperimentView(load_run(tmp_path / "out"), "mine")
    plots = [plot for plot in view.plots() if plot.cost == "N"]
    assert [plot.quality for plot in plots] == ["1-recall@N"]  # 10-recall has one point only
    points = plots[0].points
    assert [point["name"] for point in points] == [
        f"{label}, N={n}" for label in ("one", "two") for n in (1, 5, 10)
    ]
    measured = {row["label"]: row["metrics"] for row in view.rows}
    assert all(point["x"] == measured[point["label"]][f"1-recall@{point['y']}"]["mean"] for point in points)
    assert [point["y"] for point in points[:3]] == [1, 5, 10]


@pytest.mark.parametrize("missing", ["turns", "speeds"])
def test_without_comparable_speeds_quality_is_plotted_by_bytes(run: Run, missing: str) -> None:
    # Only timed experiments measure systems alternately.
    untimed = {"mine": {**run.manifest["experiments"]["mine"], "timed": False}}
    change: Any = {
        "turns": {"manifest": {**run.manifest, "experiments": untimed}},
        "speeds": {"rows": [{**row, "queries_per_second": None} for row in run.rows]},
    }[missing]
    other = dataclasses.replace(run, **change)
    assert {plot.better for plot in ExperimentView(other, "mine").plots()} == {"less"}


def test_tables_have_the_numbers_of_the_run(run: Run) -> None:
    tables = {table["title"].removeprefix("End to <end>: "): table["rows"] for table in run.tables}
    rows = [row for row in run.rows if row["collection"] == NAMES[0]]
    metrics = [row["metrics"]["5-recall@5"] for row in rows]
    cells = [f"{m['mean']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in metrics]
    assert [row[1] for row in tables["5-recall@5"]] == cells
    speeds = [row[1].partition(" ")[0] for row in tables["queries per second (p50 / p95 / p99, ms)"]]
    assert speeds == [f"{row['queries_per_second']:,.0f}" for row in rows]
    assert [row[0] for row in tables["build seconds"]] == LABELS
    assert tables["paired differences"][0][:2] == ["mean alone minus all", "5-recall@5"]


def test_the_page_works_in_a_browser(run: Run, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    path = tmp_path / "page.html"
    path.write_text(page_of(run), encoding="utf-8")
    with playwright.sync_playwright() as started:
        browser = launched(started)
        for width in (390, 1280):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.set_default_timeout(60_000)  # the machine may be busy
            messages: list[str] = []
            requests: list[str] = []
            tab.on("console", lambda message, messages=messages: messages.append(message.text))
            tab.on("pageerror", lambda error, messages=messages: messages.append(str(error)))
            tab.on("request", lambda request, requests=requests: requests.append(request.url))
            tab.goto(path.as_uri())
            tab.wait_for_function("document.body.dataset.drawn")
            assert tab.locator(".chart svg.marks").count() == len(list(ExperimentView(run, "mine").plots()))
            assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            for name in ("End to <end>", 'mean & "</script><b>', "<i>bad", "candidates=20"):
                assert name in tab.inner_text("body")
            # A system and a collection that are filtered out leave charts and tables.
            points = tab.locator(".chart").first.locator(".mark-symbol path")
            before = points.count()
            tab.locator("#filters summary").click()
            tab.get_by_role("checkbox", name="pooled").uncheck()
            tab.get_by_role("checkbox", name=NAMES[1]).uncheck()
            tab.wait_for_function("document.body.dataset.drawn >= 3")
            assert points.count() == before - 1 - len(CANDIDATES)
            assert tab.get_by_role("columnheader", name=NAMES[1]).count() == 0
            assert (messages, requests) == ([], [path.as_uri()])
        browser.close()
