"""A run's page in a real browser: it draws, tells, filters, changes its theme and prints."""

import html
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from builders.run_folders import CANDIDATES, COLLECTIONS, write_run

from experiments.report import charts
from experiments.report.assembly import page_of
from experiments.report.charts import FONT
from experiments.report.figures import write_figures
from experiments.report.run_folder import load_run

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested through playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
WIDTHS = [390, 1280, 1920]

#: Pairs of texts whose boxes share more than a pixel, and texts that leave the box of their plot.
COLLISIONS = """() => {
  const found = [];
  const texts = (root, selector) => [...root.querySelectorAll(selector)].map((element) => {
    const box = element.getBoundingClientRect();
    return { text: element.textContent.trim(), box, seen: getComputedStyle(element).opacity !== "0" };
  }).filter(({ text, box, seen }) => text && seen && box.width && box.height);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const check = (list) => list.forEach((one, k) => list.slice(k + 1).forEach((other) => {
    if (meet(one.box, other.box)) found.push(`${one.text} | ${other.text}`);
  }));
  for (const figure of document.querySelectorAll("figure")) {
    const plot = figure.querySelector(".plot").getBoundingClientRect();
    const inside = texts(figure, ".plot text");
    check([...inside, ...texts(figure, "figcaption")]);
    for (const { text, box } of inside) {
      if (box.left < plot.left - 1 || box.right > plot.right + 1
        || box.top < plot.top - 1 || box.bottom > plot.bottom + 1) found.push(`outside: ${text}`);
    }
  }
  for (const key of document.querySelectorAll(".key")) check(texts(key, "li"));
  return found;
}"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"
)


class Tab:
    """The page in a tab of its own, with all that it said and asked for."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESK, "color_scheme": "light"} | context)
        self.context.set_default_timeout(60_000)  # the machine may be busy
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.drawn()

    def drawn(self) -> None:
        """Wait until every plot that is not filtered away shows points or says that it has none."""
        self.page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every("
            "(plot) => !plot.clientWidth || plot.querySelector('svg, .none'))"
        )

    def point(self, plot: int) -> tuple[float, float]:
        """Return the middle of a point of a plot on the screen, once the plot has been scrolled to."""
        self.page.locator(".plot").nth(plot).scroll_into_view_if_needed()
        self.page.wait_for_timeout(200)  # a scroll is reported later
        box = self.page.locator(".plot").nth(plot).locator(".mark-symbol path").first.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def points(self, plot: int) -> int:
        """Return how many points a plot shows."""
        return int(self.page.locator(".plot").nth(plot).locator(".mark-symbol path").count())

    def wait_for_points(self, count: int) -> None:
        """Wait until the first plot shows so many."""
        marks = "document.querySelector('.plot').querySelectorAll('.mark-symbol path').length"
        self.page.wait_for_function(f"{marks} === {count}")

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the screen."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run(tmp_path_factory.mktemp("run"))
    path: Path = folder / "page.html"
    path.write_text(page_of(load_run(folder)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # For this module alone: the event loop that runs meanwhile would be in the way of other tests.
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Tab]:
    tab = Tab(browser, address, **getattr(request, "param", {}))
    yield tab
    tab.context.close()
    assert tab.said == []  # no errors, and no warnings of the plotting library
    assert tab.asked == [address]


def test_every_plot_is_drawn(tab: Tab) -> None:
    count = tab.page.locator(".plot").count()
    assert count > 4 * len(COLLECTIONS)
    assert tab.page.locator(".plot svg").count() == count
    assert tab.page.locator(".plot .none").count() == 0
    assert tab.overflow() == 0


@pytest.fixture(scope="module")
def wide_letters(address: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of the same page in DejaVu Sans, which is wider than most."""
    folder = Path(urlsplit(address).path).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "FONT", "DejaVu Sans")
        text = page_of(load_run(folder))
    assert text.count(FONT) == 1  # in the style sheet
    page = tmp_path_factory.mktemp("wide") / "page.html"
    page.write_text(text.replace(FONT, "DejaVu Sans"), encoding="utf-8")
    return page.as_uri()


@pytest.mark.parametrize("width", WIDTHS)
def test_titles_ticks_and_legends_do_not_overlap(
    browser: Any, address: str, wide_letters: str, width: int
) -> None:
    for page in (address, wide_letters):
        tab = Tab(browser, page, viewport={"width": width, "height": 900})
        assert tab.page.evaluate(COLLISIONS) == []
        assert tab.overflow() == 0
        tab.context.close()


def test_texts_of_a_figure_do_not_overlap_in_wide_letters(browser: Any, address: str, tmp_path: Path) -> None:
    run = load_run(Path(urlsplit(address).path).parent)
    (light, _) = write_figures(run, tmp_path, ["end_to_end-speed"])
    svg = light.read_text(encoding="utf-8").replace(html.escape(FONT), "DejaVu Sans")
    assert "DejaVu Sans" in svg
    page = browser.new_page()
    page.set_content(f"<figure><div class='plot' style='display: inline-block'>{svg}</div></figure>")
    assert page.locator("text").count() > 50
    assert page.evaluate(COLLISIONS) == []
    page.close()


def test_every_series_has_a_color_and_a_shape_of_its_own(tab: Tab) -> None:
    for key in tab.page.locator("ul.key").all():
        swatches = key.locator("svg:not(.band) path")
        colors = swatches.evaluate_all("(paths) => paths.map((path) => getComputedStyle(path).fill)")
        shapes = swatches.evaluate_all("(paths) => paths.map((path) => path.getAttribute('d'))")
        assert len(set(colors)) == len(set(shapes)) == len(colors) > 0


def test_hovering_a_point_shows_what_its_row_says(tab: Tab) -> None:
    tip = tab.page.locator("#tip")
    assert tip.is_hidden()
    tab.page.mouse.move(*tab.point(0))
    tip.wait_for(state="visible")
    text = tip.inner_text()
    for part in (
        "10-recall@10",
        "[",
        "queries/s",
        "p95, ms",
        "bytes/document",
        COLLECTIONS[0],
        "candidates=",
    ):
        assert part in text
    assert tab.page.locator(".ring").count() == 1
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= DESK["width"]
    tab.page.mouse.move(5, 5)
    assert tip.is_hidden()


def test_each_point_tells_of_its_own_row(tab: Tab, address: str) -> None:
    tab.page.locator("[data-filter=system] [data-all=false]").click()
    tab.page.get_by_label("fastembed", exact=True).check()
    tab.wait_for_points(len(CANDIDATES))
    tab.page.locator(".plot").first.scroll_into_view_if_needed()
    boxes = [
        mark.bounding_box() for mark in tab.page.locator(".plot").first.locator(".mark-symbol path").all()
    ]
    middles = sorted((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes)
    run = load_run(Path(urlsplit(address).path).parent)
    rows = [row for row in run.rows if (row["system"], row["collection"]) == ("fastembed", COLLECTIONS[0])]
    rows.sort(key=lambda row: row["metrics"]["10-recall@10"]["mean"])
    for (x, y), row in zip(middles, rows, strict=True):
        tab.page.mouse.move(x, y)
        text = tab.page.locator("#tip").inner_text()
        assert row["point"] in text
        found = row["metrics"]["10-recall@10"]
        assert f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" in text
        ring = tab.page.locator(".ring").bounding_box()
        assert abs(ring["x"] + ring["width"] / 2 - x) < 1.5
        assert abs(ring["y"] + ring["height"] / 2 - y) < 1.5


def test_hostile_names_are_shown_as_text(tab: Tab) -> None:
    tab.page.locator("[data-filter=system] [data-all=false]").click()
    tab.page.get_by_label("</script><b>xtr").check()
    tab.drawn()
    tab.page.mouse.move(*tab.point(0))
    assert "</script><b>xtr: xtr" in tab.page.locator("#tip").inner_text()
    assert tab.page.locator("#tip b b").count() == 0


def test_keys_go_through_the_points(tab: Tab) -> None:
    tab.point(0)  # it is scrolled to, and scrolling hides what is shown
    plot = tab.page.locator(".plot").first
    plot.focus()
    tab.page.keyboard.press("ArrowRight")
    first = tab.page.locator("#tip").inner_text()
    tab.page.keyboard.press("ArrowRight")
    second = tab.page.locator("#tip").inner_text()
    assert first != second
    assert tab.page.locator("#spoken").text_content().strip()
    tab.page.keyboard.press("ArrowLeft")
    assert tab.page.locator("#tip").inner_text() == first
    tab.page.keyboard.press("Escape")
    assert tab.page.locator("#tip").is_hidden()


def test_filtering_by_collection_hides_its_plots_rows_and_columns(tab: Tab) -> None:
    rows = tab.page.locator("tr[data-collection='1']")
    heading = tab.page.get_by_role("heading", name=COLLECTIONS[1])
    column = tab.page.get_by_role("columnheader", name=COLLECTIONS[1])
    assert heading.first.is_visible()
    assert column.count() == 1
    tab.page.get_by_label(COLLECTIONS[1], exact=True).uncheck()
    tab.drawn()
    assert not any(one.is_visible() for one in heading.all())
    assert column.count() == 0
    assert rows.evaluate_all("(all) => all.length > 0 && all.every((row) => row.hidden)")
    assert tab.page.get_by_role("heading", name=COLLECTIONS[0]).first.is_visible()
    tab.page.locator("[data-filter=collection] [data-all=true]").click()
    assert heading.first.is_visible()


def test_filtering_by_system_hides_its_points_and_rows(tab: Tab) -> None:
    before = tab.points(0)
    status = tab.page.locator(".status.wide")
    whole = status.inner_text()
    tab.page.get_by_label("bm25", exact=True).focus()
    tab.page.keyboard.press("Space")  # as without a mouse
    tab.wait_for_points(before - len(CANDIDATES))
    assert status.inner_text() != whole
    assert tab.page.locator("tr[data-system='3']").evaluate_all("(all) => all.every((row) => row.hidden)")
    tab.page.locator("[data-filter=system] [data-all=false]").click()
    tab.drawn()
    assert tab.page.locator(".plot .none").first.inner_text() == "Nothing to show with these filters."
    assert status.inner_text().startswith("0 of ")


def test_another_measure_is_drawn_where_an_experiment_has_it(tab: Tab) -> None:
    captions = tab.page.locator("figcaption")
    assert captions.first.inner_text().startswith("10-recall@10 against queries per second")
    tab.page.get_by_label("Quality measure").select_option("nDCG@10")
    tab.drawn()
    assert captions.first.inner_text().startswith("nDCG@10 against")
    axes = tab.page.locator(".plot").first.locator("text").all_text_contents()
    assert "nDCG@10" in axes
    assert captions.filter(has_text="FDE dimension").first.inner_text().startswith("10-recall@10")


def test_the_theme_follows_the_system_and_the_button(tab: Tab) -> None:
    def colors() -> tuple[str, str]:
        return tuple(
            tab.page.evaluate(
                "[getComputedStyle(document.body).backgroundColor,"
                " getComputedStyle(document.querySelector('.plot svg text')).fill]"
            )
        )

    light = colors()
    assert light[0] == "rgb(255, 255, 255)"
    tab.page.get_by_role("button", name="Dark theme").click()
    dark = colors()
    assert dark[0] == "rgb(13, 17, 23)"
    assert dark[1] != light[1]  # plots follow
    tab.page.reload()
    tab.asked.pop()
    tab.drawn()
    assert colors() == dark  # the choice is kept
    tab.page.get_by_role("button", name="Light theme").click()
    assert colors() == light
    tab.page.get_by_role("button", name="Dark theme").click()
    tab.page.emulate_media(media="print")
    assert colors() == light  # paper is white


@pytest.mark.parametrize("tab", [{"color_scheme": "dark"}], indirect=True)
def test_a_dark_system_has_a_dark_page(tab: Tab) -> None:
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert tab.page.get_by_role("button", name="Light theme").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("tab", [{"viewport": PHONE, "has_touch": True}], indirect=True)
def test_a_phone_has_no_sideways_scrolling_and_taps_work(tab: Tab) -> None:
    assert tab.overflow() == 0
    assert tab.page.get_by_label("Quality measure").is_hidden()  # results first
    tab.page.locator("#filters > summary").click()
    assert tab.page.get_by_label("Quality measure").is_visible()
    for details in tab.page.locator("main details > summary").all():
        details.click()
    assert tab.overflow() == 0
    table = tab.page.locator(".measurements .scroll").first
    assert table.evaluate("(box) => box.scrollWidth > box.clientWidth")  # it scrolls inside its box
    tab.page.touchscreen.tap(*tab.point(0))
    box = tab.page.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]


def test_paper_has_everything(tab: Tab) -> None:
    closed = "document.querySelectorAll('main details:not([open])').length"
    count = tab.page.evaluate(closed)
    assert count > 0
    tab.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.page.evaluate(closed) == 0
    tab.page.emulate_media(media="print")
    assert tab.page.locator("aside").is_hidden()
    box = "(boxes) => boxes.every((box) => box.scrollHeight <= box.clientHeight + 1)"
    assert tab.page.locator(".scroll").evaluate_all(box)
    tab.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert tab.page.evaluate(closed) == count
    assert len(tab.page.pdf(format="A4")) > 100_000
