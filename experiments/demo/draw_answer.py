"""Draw the README's picture: the server's page with one question of the demo and its first answers."""

from __future__ import annotations

import argparse
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

QUESTION = "pick a random element from a list"
ANSWERS, WIDTH = 3, 680


def draw(path: Path) -> None:
    """Serve the sample, open the page in Chromium, and save its upper part."""
    sample = load_demo_sample()
    index = TextIndex.build(sample.texts, SampleEncoder(sample), ids=sample.documents.ids.tolist())
    server = uvicorn.Server(uvicorn.Config(make_app(index), port=0, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(f"http://127.0.0.1:{port}/?q={quote(QUESTION)}")
        page.wait_for_selector("mark")
        page.reload()  # kernels are compiled now
        page.wait_for_selector("mark")
        page.locator(".asked button").first.click()
        page.evaluate("document.activeElement.blur()")
        page.locator("details").evaluate("one => one.remove()")
        form = page.locator("form").bounding_box()
        last = page.locator(".hit").nth(ANSWERS - 1).bounding_box()
        assert form is not None and last is not None
        top, bottom = form["y"] - 8, last["y"] + last["height"] + 8
        page.screenshot(path=path, clip={"x": 0, "y": top, "width": WIDTH, "height": bottom - top})
        browser.close()
    server.should_exit = True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/explained-answer.png"))
    draw(parser.parse_args().out)
