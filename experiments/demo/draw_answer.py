"""Draw the README's picture again: ``python -m experiments.demo.draw_answer``.

It shows the server's page with one question of the demo and its first answers.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import quote

import uvicorn
from playwright.sync_api import sync_playwright

from muvera import TextIndex
from muvera.data.demo_sample import load_demo_sample
from muvera.serve.app import make_app
from muvera.texts.encoders.minilm import SampleEncoder

QUESTION, WIDTH = "pick a random element from a list", 680

# Show the question and three answers alone, with a margin above them.
_STYLE = (
    "header, details, #next, #hits > :nth-child(n + 4) { display: none !important } body { padding-top: 8px }"
)


def draw(path: Path) -> None:
    """Serve the sample, open the page in Chromium, and save a picture of it."""
    sample = load_demo_sample()
    index = TextIndex.build(sample.texts, SampleEncoder(sample), ids=sample.documents.ids.tolist())
    index.search(QUESTION, explain=True)  # compiles, so that the page shows the time of a search
    server = uvicorn.Server(uvicorn.Config(make_app(index), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    with sync_playwright() as browsers:
        # The path of Chromium's socket, in its temporary folder, must be short.
        short: dict[str, str | float | bool] = {**os.environ, "TMPDIR": "/tmp"}
        chromium = shutil.which("chromium")
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"], env=short)
        page = browser.new_page(color_scheme="light", bypass_csp=True)
        page.set_viewport_size({"width": WIDTH, "height": 900})
        page.set_default_timeout(60_000)  # the machine may be busy
        page.goto(f"http://127.0.0.1:{port}/?q={quote(QUESTION)}")
        page.wait_for_selector("mark")
        page.locator(".asked button").first.click()
        page.evaluate("document.activeElement.blur()")
        page.add_style_tag(content=_STYLE)
        page.locator("body").screenshot(path=path)
        browser.close()
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    draw(Path("docs/explained-answer.png"))
