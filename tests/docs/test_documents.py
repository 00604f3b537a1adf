"""Every block of Python and of shell in the documents runs as it is printed."""

import contextlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders.engine_collections import missing
from builders.foreign_indexes import random_index, write_plaid
from builders.paths import ROOT

from muvera import MultiVectors

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if path.parent not in (DOCS / "reference", DOCS / "results")),
]

#: A comment before a block that is not run, with the reason, or only where a module can be imported.
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
NEEDS = re.compile(r"<!-- needs the module (\w+) -->")
SERVER = "<!-- needs a PostgreSQL server -->"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: What a block of shell is given as `muvera`: this checkout, whatever is installed.
SHELL = (
    f'set -euo pipefail; muvera() {{ "{sys.executable}" -m muvera.cli "$@"; }}; '
    f'python() {{ "{sys.executable}" "$@"; }}\n'
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    code: str
    line: int
    reason: str = ""  # why it is not run
    foreign: bool = False  # whether it needs another library


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n")[2]
        left, needs = NOT_RUN.fullmatch(before), NEEDS.fullmatch(before)
        reason = left[1] if left else ""
        if needs and importlib.util.find_spec(needs[1]) is None:
            reason = f"there is no {needs[1]}"
        if before == SERVER:
            reason = missing("pgvector") or ""
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 2, reason, bool(needs))


def documents(folder: Path) -> None:
    """Write token vectors of documents and queries as `tokens` and `queries`."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(60, 32))
    texts = [words[rng.integers(0, 60, 12)] + 0.5 * rng.normal(size=(12, 32)) for _ in range(160)]
    MultiVectors.from_arrays(texts).save(folder / "tokens")
    asked = [texts[i][:6] + 0.2 * rng.normal(size=(6, 32)) for i in range(40)]
    MultiVectors.from_arrays(asked).save(folder / "queries")


def colbert_index(folder: Path) -> None:
    """Write an index of ColBERT's format, and queries of its dimension."""
    lengths = np.random.default_rng(0).integers(10, 20, (2, 60)).tolist()
    write_plaid(folder / "my-colbert-index", random_index(0, lengths, dimension=32, centroids=64))
    queries = np.random.default_rng(1).normal(size=(40, 8, 32)).astype(np.float32)
    np.save(folder / "queries.npy", queries / np.linalg.norm(queries, axis=2, keepdims=True))


#: What a page takes for granted.
MATERIALS: dict[str, Callable[[Path], None]] = {
    "colbert-index": colbert_index,
    "vector-database": documents,
    "lancedb": documents,
    "milvus": documents,
    "opensearch": documents,
    "postgresql": documents,
    "qdrant": documents,
    "scale": documents,
    "tune": documents,
}


@pytest.mark.slow
@pytest.mark.compiled("hundreds of documents are too many for interpreted kernels")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_blocks_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if SERVER in page.read_text(encoding="utf-8") and missing("pgvector") is None:
        monkeypatch.setenv("POSTGRES", request.getfixturevalue("postgres"))
    if page.stem in MATERIALS:
        MATERIALS[page.stem](tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page):
        if block.reason:
            continue
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                if block.foreign:
                    warnings.simplefilter("default")  # those of other libraries are theirs
                exec(code, namespace)
        elif block.language == "sh":
            monkeypatch.setenv("PYTHONPATH", str(ROOT))
            done = subprocess.run(
                ["bash", "-c", SHELL + block.code], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{page}, line {block.line}:\n{done.stdout}{done.stderr}"


@pytest.mark.compiled("a model's token states are many for interpreted kernels")
def test_the_shortest_program_of_the_readme_answers_in_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    program = next(block for block in blocks(ROOT / "README.md") if block.language == "python")
    assert sum(bool(line.strip()) for line in program.code.splitlines()) <= 5
    if program.reason:
        pytest.skip(program.reason)
    exec(compile(program.code, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0].endswith("Sort the list in place.")


def test_blocks_have_a_language_and_reasons_are_few() -> None:
    found = {(page, block) for page in PAGES for block in blocks(page)}
    assert {block.language for _, block in found} <= {"python", "sh", "text", "json", "yaml", "html"}
    runnable = {block for _, block in found if block.language in ("python", "sh")}
    assert sum(bool(block.reason) for block in runnable) < len(runnable) / 3


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n\n<!-- not run: no model -->\n```python\n1 / 0\n```\n\n```sh\nfalse\n```\n", encoding="utf-8"
    )
    left, shell = blocks(page)
    assert (left.language, left.line, left.reason) == ("python", 5, "no model")
    assert (shell.language, shell.code, shell.reason) == ("sh", "false\n", "")


# ---- The site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the documents' site is built with mkdocs")
    pytest.importorskip("mkdocstrings", reason="the reference is made by mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_needs_no_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\s(?:src|srcset)=[\"']?([^\"'\s>]+)", text)
        loaded += re.findall(r"<link[^>]*\srel=[\"']?(?:stylesheet|preconnect|icon)[^>]*", text)
        assert not [one for one in loaded if "//" in one and not one.startswith("data:")], page


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import muvera

    reference = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    names = [f"muvera.{name}" for name in muvera.__all__ if name not in ("__version__", "convert", "theory")]
    names += [f"muvera.convert.{name}" for name in muvera.convert.__all__]
    names += [f"muvera.theory.{name}" for name in muvera.theory.__all__]
    homes = set(re.findall(r'id="([\w.]+)"', reference))
    missing = [name for name in names if name not in homes]
    assert missing == []


@pytest.mark.slow
def test_docstrings_show_no_roles_of_sphinx(site: Path) -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html")}
    assert [page for page, text in pages.items() if re.search(r":(?:class|func|meth|mod):", text)] == []
    assert 'href="index-class.html#muvera.MuveraIndex"' in pages[site / "reference" / "index.html"]


@pytest.mark.slow
def test_searching_the_site_finds_words_of_the_glossary(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("ball carving" in page["text"].lower() for page in index["docs"])
