"""The server's page in a real browser: at phone and desktop width, and by keyboard."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from builders.browsers import CHROMIUM, launched
from builders.text_encoders import HashEncoder

from muvera import MultiVectors, MuveraIndex, RecallMeter, TextIndex
from muvera.texts.encoders.base import TextSide

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("uvicorn", reason="the serve extra is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from builders.servers import running  # noqa: E402

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"
)

HOSTILE = "<img src=x onerror=document.title='hacked'> apple <b>bold</b>"
TEXTS = ["A red apple fell. It was ripe.", HOSTILE, "The blue whale sings. " * 30]
METADATA: list[dict[str, Any]] = [{"kind": "fruit", "year": None}, {}, {"kind": "animal"}]
WEIGHT = "mark => Number(mark.style.getPropertyValue('--weight'))"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    index = TextIndex.build(TEXTS, HashEncoder(), ids=["one", "two", "three"], metadata=METADATA)
    with running(index) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = launched(started)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page with a query, and wait for a selector."""
    context = browser.new_context()

    def opens(query: str = "", wait: str = "mark", width: int = 1280, server: str = address) -> Any:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        page.faults = []
        page.on("console", lambda message: page.faults.append(message.text))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto(f"{server}/?q={query}" if query else server)
        if query:
            page.wait_for_selector(wait)
        return page

    yield opens
    context.close()


WIDTHS = pytest.mark.parametrize("width", [390, 1280])


@WIDTHS
def test_results_are_within_the_width(visit: Any, width: int) -> None:
    page = visit("ripe+apple+apple+whale", width=width)
    assert page.locator(".hit").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert sorted(page.locator(".meta button").all_inner_texts()) == ["kind: animal", "kind: fruit"]
    assert page.locator("#hint").inner_text() != ""
    assert page.faults == []
    long = visit("a" * 120, ".asked button", width)
    assert long.evaluate("document.documentElement.scrollWidth") <= width


@WIDTHS
def test_shades_are_comparable_across_results(visit: Any, width: int) -> None:
    page = visit("ripe+apple+whale", width=width)
    assert page.locator(".hit").first.locator("mark").all_inner_texts() == ["apple", "ripe"]
    weights = [mark.evaluate(WEIGHT) for mark in page.locator("mark").all()]
    assert len(weights) >= 4 and weights.count(1) == 1  # one maximum for all results
    assert all(0 < weight <= 1 for weight in weights)


def test_markup_in_documents_is_shown_as_text(visit: Any) -> None:
    page = visit("apple+bold")
    assert HOSTILE in page.locator(".hit .text").all_inner_texts()
    assert page.title() == "muvera" and page.locator(".hit img").count() == 0


def test_the_page_is_named_after_the_index(visit: Any) -> None:
    with running(TextIndex.build(TEXTS, HashEncoder()), name="<i>fruit</i>") as port:
        page = visit("apple", server=f"http://127.0.0.1:{port}")
        assert page.title() == page.locator("h1").inner_text() == "<i>fruit</i>"


@WIDTHS
def test_the_foot_has_the_measured_recall(visit: Any, address: str, width: int) -> None:
    assert not visit("apple", width=width).locator("footer").is_visible()
    index = TextIndex.build(TEXTS, HashEncoder())
    with running(index, meter=RecallMeter(index, 1, k=1)) as port:
        page = visit("apple", width=width, server=f"http://127.0.0.1:{port}")
        foot = page.locator("footer")
        assert foot.inner_text().startswith("A search reads all tokens of the 3 documents, so it misses ")
        box = foot.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and not page.faults


def test_scores_are_given_per_query_token(visit: Any) -> None:
    score = visit("ripe+red+apple").locator(".hit .score").first
    assert re.fullmatch(r"1\.\d\d per query token", score.inner_text())  # words add to a similarity of 1
    assert re.search(r"maxsim (2\.99|3\.00)\d .*, for 3 query tokens\.", score.get_attribute("title"))


def test_words_are_selected_by_keyboard_and_filters_by_a_click(visit: Any) -> None:
    page = visit()
    assert page.locator("#hint").inner_text() == ""
    playwright.expect(page.locator("#query")).to_be_focused()
    page.keyboard.type("ripe apple")
    page.keyboard.press("Enter")
    page.wait_for_selector(".asked button")
    page.locator(".asked button").nth(1).focus()
    assert page.locator(".hit").first.locator("mark.partner").inner_text() == "apple"
    assert "apple → apple 0.99" in page.locator(".pair").first.inner_text()
    page.locator(".meta button").first.click()
    playwright.expect(page.locator(".hit")).to_have_count(1)
    assert page.locator("#where").input_value() == '{"kind":"fruit"}'
    page.fill("#where", "")
    page.fill("#group", "kind")
    page.locator("#go").click()
    playwright.expect(page.locator(".hit", has_text="kind: fruit")).to_have_count(1)
    page.fill("#where", "kind = fruit")
    page.locator("#go").click()
    page.wait_for_selector("#status.error")


class ShortQueries(HashEncoder):
    """Encodes only the first six words of a question, like models that truncate."""

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        return self.encode_documents([" ".join(text.split()[:6]) for text in texts])

    def token_spans(self, text: str, side: TextSide) -> Any:
        spans = super().token_spans(text, side)
        return spans[:6] if side == "query" and spans is not None else spans


def test_long_and_many_results(visit: Any) -> None:
    long = "Fruit\n" + "Nothing to see here. " * 40 + "A red apple fell from the tree. " + "The end. " * 40
    texts = [long, "red and ripe", *(f"blue whale number {i}" for i in range(40))]
    metadata = [{"title": "Fruit", "page": "https://example.org/"}, *({} for _ in texts[1:])]
    with running(TextIndex.build(texts, ShortQueries(), metadata=metadata)) as port:
        query = "red+apple+fell+from+the+tree+yesterday+morning"
        page = visit(query, width=390, server=f"http://127.0.0.1:{port}")
        first = page.locator(".hit").first
        assert first.locator("h2 .name").inner_text().splitlines() == ["Fruit", "0"]
        assert first.locator(".meta a").get_attribute("href") == "https://example.org/"
        snippet = first.locator(".text").inner_text()
        assert snippet.startswith("… A red apple fell") and snippet.endswith(" …") and len(snippet) < 400
        first.locator("button.more").click()
        assert first.locator(".text").inner_text().strip() == long.removeprefix("Fruit\n").strip()
        assert "“yesterday morning”" in page.locator("#hint").inner_text()
        order = page.locator("#hits > li").evaluate_all("all => all.map(one => one.className)")
        assert order.index("weak") in (1, 2) and order.count("hit") == 10
        for count in (20, 30, 40, 42):
            page.locator("#next").click()
            playwright.expect(page.locator(".hit")).to_have_count(count)
        playwright.expect(page.locator("#next")).to_be_hidden()


def test_an_index_without_texts_disables_the_form(visit: Any) -> None:
    with running(MuveraIndex.build([np.eye(3, 4), np.ones((2, 4))])) as port:
        page = visit("apple", "#query:disabled", server=f"http://127.0.0.1:{port}")
        playwright.expect(page.locator("#go")).to_be_disabled()
        assert page.locator("#status").inner_text() == ""
