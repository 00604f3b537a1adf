"""Figures for documents, and the frontiers that all drawings share."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pytest
import vl_convert
from builders.run_folders import row, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from experiments.__main__ import app
from experiments.report.appearance import DARK, LIGHT, SERIES, Theme, marks_of
from experiments.report.charts import themed, tradeoff_chart

VERSION = vl_convert.get_vegalite_versions()[-1]


def marks_in(node: Any, name: str) -> Iterator[dict[str, Any]]:
    """Give the items of the mark of this name in a scene graph."""
    if isinstance(node, dict):
        if node.get("name") == name:
            yield from node["items"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from marks_in(part, name)


def frontier(points: list[tuple[float, float]], more_is_better: bool) -> set[tuple[float, float]]:
    """Return the points that no other equals or beats in both ways and beats in one, by their definition."""

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        cost = one[1] >= other[1] if more_is_better else one[1] <= other[1]
        return one != other and one[0] >= other[0] and cost

    return {point for point in points if not any(beats(other, point) for other in points)}


@pytest.mark.parametrize("kind", ["speed", "size"])
@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(50, 70), st.integers(1, 20)), min_size=1, max_size=12))
def test_the_frontier_is_the_points_that_none_beats(kind: str, grid: list[tuple[int, int]]) -> None:
    points = [(x / 100, float(y)) for x, y in grid]
    common = {"series": "a", "family": "muvera", "variant": 0, "low": None, "high": None}
    data = alt.InlineData(values=[{"x": x, "y": y, **common} for x, y in points])
    chart = tradeoff_chart(kind, "recall", marks_of([{"a": "muvera"}])[0], LIGHT, data)
    scene = vl_convert.vegalite_to_scenegraph(themed(chart, LIGHT), vl_version=VERSION)
    drawn = [(item["x"], item["y"]) for item in marks_in(scene, "layer_4_marks")]
    place = dict(zip(points, drawn, strict=True))
    expected = {place[point] for point in frontier(points, kind == "speed")}
    for layer in ("layer_1_marks", "layer_3_marks"):  # of all, and of the one series
        line = [(item["x"], item["y"]) for item in marks_in(scene, layer)]
        assert len(line) == len(expected)
        for point in line:
            assert min(np.hypot(point[0] - x, point[1] - y) for x, y in expected) < 1e-6


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = [
        row(
            experiment,
            collection,
            system,
            0.5 + candidates / 1000,
            query={"candidates": candidates},
            build={"k": k},
            queries_per_second=1000.0 / candidates,
            bytes_per_document=float(candidates),
        )
        for experiment in ("cost of <x>",)
        for collection in ("one", "two")
        for system in ("muvera", "bm25")
        for candidates in (10, 50, 100)
        for k in (1, 2)
    ]
    write_run(folder, rows, experiments={})
    result = CliRunner().invoke(app, ["page", str(folder), "--figures", str(folder / "figures")])
    assert result.exit_code == 0, result.output
    written = sorted(str(path) for path in (folder / "figures").iterdir())
    assert sorted(result.stdout.splitlines()[1:]) == written
    return folder / "figures"


def test_every_plot_has_a_figure_of_each_format_for_each_theme(figures: Path) -> None:
    names = ["speed", "size", "sweep-candidates", "sweep-speed-candidates"]
    assert sorted(path.name for path in figures.iterdir()) == sorted(
        f"cost-of-x-{name}{theme}.svg" for name in names for theme in ("", "-dark")
    )


@pytest.mark.parametrize(("suffix", "theme"), [("", LIGHT), ("-dark", DARK)])
def test_figures_are_legible_on_their_page(figures: Path, suffix: str, theme: Theme) -> None:
    root = ElementTree.parse(figures / f"cost-of-x-sweep-candidates{suffix}.svg").getroot()
    texts = {node.text for node in root.iter() if node.text}
    assert {"one", "two", "muvera", "bm25", "k 1", "k 2", "candidates", "10-recall@10"} <= texts
    background = next(node for node in root.iter() if node.tag.endswith("rect"))
    assert background.get("fill") == theme.paper
    fills = {node.get("fill") for node in root.iter() if node.tag.endswith("text")}
    assert fills == {theme.ink, theme.muted}
    assert all(contrast(fill, theme.paper) >= 4.5 for fill in fills if fill)


def test_only_the_named_figures_are_written(tmp_path: Path) -> None:
    rows = [row("a", "one", "muvera", 0.5 + speed / 1000, queries_per_second=speed) for speed in (10.0, 20.0)]
    folder, out = write_run(tmp_path / "run", rows, experiments={}), tmp_path / "figures"
    command = ["page", str(folder), "--figures", str(out), "--only"]
    result = CliRunner().invoke(app, [*command, "a-speed"])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["a-speed-dark.svg", "a-speed.svg"]
    result = CliRunner().invoke(app, [*command, "a-sped"])
    assert result.exit_code == 2
    assert "a-sped" in result.stderr
    assert "a-speed" in result.stderr


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_texts_can_be_read_in_both_themes(theme: Theme) -> None:
    for color in (theme.ink, theme.muted, theme.accent, theme.alarm):
        assert contrast(color, theme.paper) >= 4.5
        assert contrast(color, theme.raised) >= 4.5
    for color in SERIES:  # orange and sky blue are pale on white: shapes and lines help
        assert contrast(color, theme.paper) >= (2 if theme is LIGHT else 3)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2 of two colors as #rrggbb."""

    def luminance(color: str) -> float:
        parts = np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
