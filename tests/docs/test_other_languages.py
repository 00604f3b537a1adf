"""The TypeScript client of docs/how-to/other-languages.md finds what Python finds."""

import functools
import json
import re
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from builders.browsers import CHROMIUM, launched
from builders.command_line import muvera
from builders.paths import ROOT
from builders.token_collections import write_tokens

from muvera import load_encoder
from muvera.convert import read

PAGE = (ROOT / "docs" / "how-to" / "other-languages.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.fixture(scope="module")
def modules() -> Path:
    """Return the folder of npm's global packages, which .ci/run installs."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    done = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=True)
    folder = Path(done.stdout.strip())
    for name in ("onnxruntime-web", "typescript"):
        if not (folder / name).is_dir():
            pytest.skip(f"{name} is not installed (npm install -g onnxruntime-web typescript)")
    return folder


@pytest.fixture(scope="module")
def site(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write vectors, the encoder, and the compiled client to a folder."""
    folder = tmp_path_factory.mktemp("client")
    write_tokens(folder)
    for arguments in (
        ("encode", folder / "tokens", folder / "vectors"),
        ("onnx", folder / "vectors.encoder", folder / "queries.onnx"),
    ):
        assert muvera(*arguments)[0] == 0
    (folder / "node_modules").symlink_to(modules)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "search.ts").write_text(block("ts"))
    compiler = [
        "node",
        str(modules / "typescript" / "bin" / "tsc"),
        "search.ts",
        "--strict",
        "--target",
        "es2022",
    ]
    options = ["--module", "esnext", "--moduleResolution", "bundler", "--skipLibCheck"]
    done = subprocess.run([*compiler, *options], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return folder


def best(site: Path) -> list[int]:
    query = load_encoder(site / "vectors.encoder").encode_queries(read(site / "queries")[:1])
    return list(map(int, np.argsort(-np.load(site / "vectors" / "vectors.npy") @ query[0])[:10]))


def test_node_finds_what_python_finds(site: Path) -> None:
    (site / "main.js").write_text(block("js"))
    done = subprocess.run(["node", "main.js"], cwd=site, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == best(site)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_page_finds_what_python_finds(site: Path, modules: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    (site / "index.html").write_text(f"<!doctype html><body>{block('html')}</body>")
    (site / "ort").symlink_to(modules / "onnxruntime-web" / "dist")
    handler = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, playwright.sync_playwright() as started:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = launched(started)
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_function("document.body.textContent.trim().startsWith('[')", timeout=30_000)
        assert json.loads(page.inner_text("body")) == best(site), errors
        browser.close()
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...
