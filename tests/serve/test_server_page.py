"""The server's page in a real browser: at a phone's and a desk's width, by keyboard, in both themes."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, TextIndex
from muvera.data.multivectors import MultiVectors

pytest.importorskip("fastapi", reason="the serve extra is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the serve extra is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from muvera.serve.app import make_app  # noqa: E402

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"
)

HOSTILE = "<img src=x onerror=document.title='hacked'> apple <b>bold</b>"
TEXTS = ["A red apple fell. It was ripe.", HOSTILE, "The blue whale sings. " * 30]


@contextmanager
def served(index: TextIndex | MuveraIndex) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(make_app(index), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    index = TextIndex.build(
        TEXTS,
        HashEncoder(),
        ids=["one", "two", "three"],
        metadata=[{"kind": "fruit", "year": None}, {}, {"kind": "animal"}],
    )
    with served(index) as at:
        yield at


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_answers_are_shown_shaded_and_within_the_width(
    browser: Any, address: str, width: int, theme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{address}/?q=ripe+apple")
    page.wait_for_selector("mark")
    assert page.locator(".hit").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".hit").first.locator("mark").all_inner_texts() == ["apple", "ripe"]
    assert faults == []
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert ink != paper
    page.close()


def test_markup_in_documents_is_shown_as_text(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/?q=apple+bold")
    page.wait_for_selector("mark")
    assert HOSTILE in page.locator(".hit .text").all_inner_texts()
    assert page.title() == "muvera"
    assert page.locator(".hit img").count() == 0
    page.close()


def test_words_are_looked_at_by_keyboard_and_filters_by_a_click(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.keyboard.type("ripe apple")
    page.keyboard.press("Enter")
    page.wait_for_selector(".asked button")
    page.locator(".asked button").nth(1).focus()
    assert page.locator(".hit").first.locator("mark.partner").inner_text() == "apple"
    assert "apple → apple 1.000" in page.locator(".pair").first.inner_text()
    page.locator(".meta button").first.click()
    playwright.expect(page.locator(".hit")).to_have_count(1)
    assert page.locator("#where").input_value() == '{"kind":"fruit"}'
    page.fill("#where", "kind = fruit")
    page.locator("#go").click()
    page.wait_for_selector("#status.error")
    assert "must be JSON" in page.locator("#status").inner_text()
    page.close()


#: Contrast (WCAG) of a mark's text with its ground, which is mixed of the mark's color and the page's.
CONTRAST = """(mark) => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => color.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const style = getComputedStyle(mark);
  const paper = numbers(getComputedStyle(document.body).backgroundColor);
  const ground = numbers(style.backgroundColor);
  const alpha = ground[3] ?? 1;
  const [a, b] = [light(numbers(style.color)), light(paper.map((c, i) => alpha * ground[i] + (1 - alpha) * c))];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marked_words_can_be_read_in_both_themes(browser: Any, address: str, theme: str) -> None:
    page = browser.new_page(color_scheme=theme)
    page.goto(f"{address}/?q=ripe+apple")
    page.wait_for_selector("mark")
    marks = page.locator("mark")
    assert max(float(mark.evaluate("m => m.style.getPropertyValue('--weight')")) for mark in marks.all()) == 1
    assert min(mark.evaluate(CONTRAST) for mark in marks.all()) >= 4.5
    page.close()


def test_shades_compare_across_results(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/?q=apple+apple+whale")
    page.wait_for_selector("mark")
    weight = "m => Number(m.style.getPropertyValue('--weight'))"
    apples = [mark.evaluate(weight) for mark in page.locator("mark", has_text="apple").all()]
    whale = page.locator("mark", has_text="whale").first.evaluate(weight)
    assert max(apples) == 1
    assert 0 < whale < 0.9
    page.close()


def test_a_long_word_stays_within_a_phones_width(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"{address}/?q={'a' * 120}")
    page.wait_for_selector(".asked button")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_a_line_says_what_can_be_pressed_and_tags_without_a_value_are_left_out(
    browser: Any, address: str
) -> None:
    page = browser.new_page()
    page.goto(address)
    assert page.locator("#hint").inner_text() == ""
    page.goto(f"{address}/?q=ripe+apple")
    page.wait_for_selector(".asked button")
    hint = "Press a word to see what answered it. Underlined: the best sentence."
    assert page.locator("#hint").inner_text() == hint
    assert sorted(page.locator(".meta button").all_inner_texts()) == ["kind: animal", "kind: fruit"]
    page.close()


def test_an_index_without_texts_has_no_form_to_fill_in(browser: Any) -> None:
    vectors = MuveraIndex.build(MultiVectors.from_arrays([np.eye(3, 4), np.ones((2, 4))]))
    with served(vectors) as at:
        page = browser.new_page()
        page.goto(f"{at}/?q=apple")
        playwright.expect(page.locator("#about")).to_contain_text("no texts: search by vectors")
        playwright.expect(page.locator("#query")).to_be_disabled()
        playwright.expect(page.locator("#go")).to_be_disabled()
        assert page.locator("#status").inner_text() == ""
        page.close()
