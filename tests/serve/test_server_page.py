"""The server's page in a real browser: at a phone's and a desk's width, by keyboard, in both themes."""

import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from builders.text_encoders import HashEncoder

from muvera import TextIndex

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


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    index = TextIndex.build(
        TEXTS,
        HashEncoder(),
        ids=["one", "two", "three"],
        metadata=[{"kind": "fruit"}, {}, {"kind": "animal"}],
    )
    server = uvicorn.Server(uvicorn.Config(make_app(index), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


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
