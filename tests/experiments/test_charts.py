"""Charts: names and knobs of lines, ticks, and the lines that a picture shows."""

import json
from typing import Any

import pytest

from experiments.report.chart_labels import Text, name_lines, name_points, obstacles_of
from experiments.report.charts import MOST_LINES, Axis, Plot, marks_of, picture_specification, specification
from experiments.report.pictures import _CHARTS, Chart, arranged, pictures_of, plot_of
from experiments.report.stored_results import RESULTS, load_results


def plot_with(points: list[dict[str, Any]], better: str = "more", quality: str = "10-recall@10") -> Plot:
    return Plot("some", quality, "queries per second", better, points, marks_of(p["label"] for p in points))


def point(x: float, y: float, name: str) -> dict[str, Any]:
    return {"x": x, "y": y, "label": name.partition(",")[0], "name": name}


def test_a_recall_axis_opens_toward_one() -> None:
    axis = Axis.of("recall", [0.5, 0.9, 0.99, 0.999], 0.0)
    assert axis.share(0.5) == 0 and axis.share(0.999) == 1
    assert axis.share(0.99) - axis.share(0.9) == pytest.approx(axis.share(0.999) - axis.share(0.99))
    rounded = Axis.of("recall", [0.9, 0.95, 1.0], 0.0)
    assert rounded.share(1.0) == 1 and rounded.closest == pytest.approx(0.025)  # half of the smallest gap


@pytest.mark.parametrize("kind", ["recall", "log", "linear"])
def test_a_share_of_an_axis_is_the_value_that_vega_draws_there(kind: str) -> None:
    axis = Axis.of(kind, [0.2, 0.7, 0.9], 0.1)
    for value in (0.2, 0.5, 0.9):
        drawn = value if kind == "log" else axis.stretched(value)
        assert axis.value(axis.share(value)) == pytest.approx(drawn)


def test_names_of_lines_that_end_together_do_not_overlap() -> None:
    lines = [[(0.0, 10.0 * k), (300.0, 100.0 + k)] for k in range(6)]
    names = name_lines([f"system {k}" for k in range(6)], lines, 16)
    boxes = [text.box(16) for text in names]
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])
    assert names[0].text == "system 0"


def test_a_name_without_neighbors_is_beside_its_last_point() -> None:
    (text,) = name_lines(["alone"], [[(0.0, 50.0), (200.0, 50.0)]], 16)
    assert text.y == 50 and 200 < text.x < 220


def test_knobs_are_left_out_where_there_is_no_room() -> None:
    line = [(float(x), 100.0) for x in (0, 2, 4, 200)]
    knobs = ["10", "20", "30", "40"]
    (shown,) = name_points([knobs], [line], [Text("name", 220, 100)], 14, 16)
    assert {text.text for text in shown} >= {"10", "40"} and len(shown) < 4
    boxes = [text.box(14) for text in shown]
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])


def test_obstacles_cover_a_line() -> None:
    boxes = obstacles_of([[(0.0, 0.0), (100.0, 100.0)]])
    assert all(any(b.left <= x <= b.right and b.top <= x <= b.bottom for b in boxes) for x in (0, 100))
    assert len(boxes) > 10


def test_a_chart_renames_lines_and_drops_beaten_and_unknown_points() -> None:
    points = [
        point(0.9, 100, "a, ef=5"), point(0.95, 80, "a, ef=9"), point(0.92, 50, "a, ef=7"), point(0.9, 9, "b"),
    ]  # fmt: skip
    drawn = arranged(plot_with(points), Chart({r"a, ef=(?P<knob>\d+)": "graph"}, "ef"))
    assert [(one["label"], one["knob"], one["x"]) for one in drawn.points] == [
        ("graph", "5", 0.9),
        ("graph", "9", 0.95),
    ]
    assert list(drawn.marks) == ["graph"] and drawn.knobs == "ef"


def test_a_chart_has_at_most_six_lines() -> None:
    points = [point(0.5 + k / 100, 10 + k, f"system {k}") for k in range(9)]
    drawn = arranged(plot_with(points, "less"), Chart({}))
    assert len(drawn.marks) == MOST_LINES == 6
    texts = [row["text"] for row in picture_specification(drawn)["layer"][-1]["data"]["values"]]
    assert texts == [[f"system {k}"] for k in range(6)]


def test_every_chart_of_stored_results_has_all_of_its_lines() -> None:
    """A pattern that matches nothing is a misspelled or renamed row."""
    absent = {("pooling", "unique words")}  # not measured on the collection that is shown
    for name, charts in _CHARTS.items():
        plot = plot_of(load_results(name))
        assert plot is not None, name
        for chart in charts:
            expected = [label for label in chart.lines.values() if "\\" not in label]
            missing = set(expected) - set(arranged(plot, chart).marks)
            assert {(name, label) for label in missing} <= absent, name


def test_no_line_connects_points_of_different_names() -> None:
    for path in RESULTS.glob("*.json"):
        for name, plot in pictures_of(load_results(path.stem)).items():
            layers = picture_specification(plot)["layer"]
            lines = [layer for layer in layers if layer["mark"]["type"] == "line"]
            assert [layer["encoding"]["detail"]["field"] for layer in lines] == ["label"], name
            assert 1 <= len(plot.marks) <= MOST_LINES, name


def test_the_plot_of_a_page_can_be_filtered_by_system() -> None:
    drawn = specification(plot_with([{**point(0.9, 10, "a"), "system": "a"}]))
    assert drawn["data"]["values"][0]["system"] == "a" and json.dumps(drawn)
