"""Every block of Python and shell in the documents runs as printed.

So do the examples and the notebooks.
"""

import contextlib
import importlib.util
import inspect
import io
import itertools
import json
import os
import pickle
import pkgutil
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from builders.command_line import muvera as run_muvera
from builders.engine_collections import missing
from builders.foreign_indexes import random_index, write_byaldi, write_lancedb, write_plaid, write_qdrant
from builders.pages import GreyEncoder, page_vectors, write_pdf
from builders.paths import ROOT, environment
from builders.text_encoders import HashEncoder
from builders.token_collections import random_texts, write_tokens

import muvera

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if path.parent != DOCS / "results"),
]
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

#: A comment before a block: it never runs, for a reason, or runs only if a module or a
#: server is installed.
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
NEEDS = re.compile(r"<!-- needs the module (\w+) -->")
SERVER = "<!-- needs a PostgreSQL server -->"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Modules that an example needs beyond the library's own.
EXAMPLE_NEEDS = {
    "texts_to_answers": ["wordllama"],
    "langchain_store": ["wordllama", "langchain_core"],
    "server": ["wordllama", "fastapi", "uvicorn"],
}

#: Shell blocks call this checkout, even if another version is installed.
SHELL = (
    f'set -euo pipefail; muvera() {{ "{sys.executable}" -m muvera "$@"; }}; '
    f'python() {{ "{sys.executable}" "$@"; }}\n'
)


class Block(NamedTuple):
    language: str
    code: str
    line: int
    reason: str  # why it does not run
    foreign: bool  # whether it calls another library


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        never, needs = NOT_RUN.fullmatch(before), NEEDS.fullmatch(before)
        reason = never[1] if never else ""
        if needs and importlib.util.find_spec(needs[1]) is None:
            reason = f"{needs[1]} is not installed"
        if before == SERVER:
            reason = missing("pgvector") or ""
        yield Block(match[1], match[2], text.count("\n", 0, match.start()) + 2, reason, bool(needs))


def run_shell(code: str) -> Iterator[tuple[int, str]]:
    """Yield exit codes and output of a block's parts.

    ``muvera`` runs in this process, which is faster.
    """
    code = re.sub(r"(^|\s)#.*", "", code.replace("\\\n", " "), flags=re.MULTILINE)
    code = os.path.expandvars(code)
    whole = set("$|&;*`") & set(re.sub(r"'[^']*'", "", code))
    plain = re.compile("$^" if whole else r"muvera [^<>]*")
    for alone, lines in itertools.groupby(
        code.strip().splitlines(), lambda line: bool(plain.fullmatch(line))
    ):
        if alone:
            for line in lines:
                exit_code, out, err = run_muvera(*shlex.split(line)[1:])
                yield exit_code, out + err
        else:
            command = ["bash", "-c", SHELL + "\n".join(lines)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            yield done.returncode, done.stdout + done.stderr


def write_colbert_index(folder: Path) -> None:
    """Write an index in ColBERT's format, and queries of its dimension."""
    lengths = np.random.default_rng(0).integers(10, 20, (2, 60)).tolist()
    write_plaid(folder / "my-colbert-index", random_index(0, lengths, dimension=32, centroids=64))
    queries = np.random.default_rng(1).normal(size=(40, 8, 32)).astype(np.float32)
    np.save(folder / "queries.npy", queries / np.linalg.norm(queries, axis=2, keepdims=True))


def write_other_tools(folder: Path) -> None:
    """Write small indexes of other libraries, with 32 columns each.

    RAGatouille, PyLate, byaldi, Qdrant and LanceDB.
    """
    documents, index = random_texts(2, dimension=32), random_index(0, [[5, 3], [4, 6]], 32)
    path = write_plaid(folder / ".ragatouille" / "colbert" / "indexes" / "my_index", index)
    metadata = json.loads((path / "metadata.json").read_text())
    metadata["config"]["checkpoint"] = "colbert-ir/colbertv2.0"
    names = {i: f"d{i // 2}" for i in range(4)}
    contents = {"metadata": metadata, "collection": ["one", "two", "three", "four"], "pid_docid_map": names}
    for name, content in contents.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    path = write_plaid(folder / "pylate-index" / "index", index)
    (path / "plaid_ids_to_documents_ids.pkl").write_bytes(pickle.dumps({i: f"d{i}" for i in range(4)}))
    write_byaldi(folder / ".byaldi" / "my_index", list(documents))
    if importlib.util.find_spec("qdrant_client"):
        write_qdrant(folder / "my-qdrant", documents)
    if importlib.util.find_spec("lancedb"):
        write_lancedb(folder / "my-lancedb", documents)


def write_reports(folder: Path) -> None:
    """Write a folder of PDFs, and arrays of page vectors."""
    (folder / "reports").mkdir()
    write_pdf(folder / "reports" / "2024.pdf", ["Annual report", "Revenue by region"])
    write_pdf(folder / "reports" / "2025.pdf", ["Annual report", ""])
    vectors = page_vectors(4)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "query.npy", vectors[2, 5:9])


#: Writers of the files that a page expects in its folder.
MATERIALS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "colbert-index": (write_colbert_index,),
    "pages": (write_reports, write_other_tools),
    "switch": (write_colbert_index, write_tokens, write_other_tools),
    **dict.fromkeys(("vector-database", "lancedb", "milvus", "opensearch", "postgresql"), (write_tokens,)),
    **dict.fromkeys(("audit", "other-languages", "qdrant", "scale", "tune"), (write_tokens,)),
}


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace fastembed, whose models need a network, here and in subprocesses."""
    stubs = str(ROOT / "tests" / "stubs")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([environment()["PYTHONPATH"], stubs]))
    monkeypatch.syspath_prepend(stubs)
    for name in [name for name in sys.modules if name.startswith("fastembed")]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.startswith("fastembed")]:
        sys.modules.pop(name)  # the stand-in, which commands in this process imported


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_blocks_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if SERVER in page.read_text(encoding="utf-8") and missing("pgvector") is None:
        monkeypatch.setenv("POSTGRES", request.getfixturevalue("postgres"))
    for write in MATERIALS.get(page.stem, ()):
        write(tmp_path)
    if page.stem == "switch":  # no models in place of checkpoints
        for library, encoder in (("ragatouille", HashEncoder(32)), ("byaldi", GreyEncoder(32))):
            loaded = (encoder, encoder.name)
            monkeypatch.setattr(f"muvera.compat.{library}._encoder_of", lambda _, loaded=loaded: loaded)
    namespace: dict[str, object] = {"__name__": page.stem}
    printed = io.StringIO()
    for block in blocks(page):
        assert block.language in (
            "python",
            "sh",
            "text",
            "json",
            "yaml",
            "html",
            "xml",
            "ts",
            "js",
            "java",
        ), block.line
        if block.reason:
            continue
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            if block.foreign or block.language == "sh":
                warnings.simplefilter("default")  # other libraries may warn
            if block.language == "python":
                exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
            elif block.language == "sh":
                for exit_code, output in run_shell(block.code):
                    assert exit_code == 0, f"{page}, line {block.line}:\n{output}"
    if page.stem == "README":
        first, *others = [line for line in printed.getvalue().splitlines() if line.endswith(".")]
        assert "Sort the list in place." in first and len(others) == 1


def test_the_readme_runs_with_what_its_first_command_installs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python blocks need no hnswlib, which has no wheels, unless they say so."""
    page = ROOT / "README.md"
    installed = re.search(r"pip install '\.\[([\w,-]+)\]'", page.read_text(encoding="utf-8"))
    assert installed is not None and "hnsw" not in installed[1].split(",")
    monkeypatch.setitem(sys.modules, "hnswlib", None)  # as if it were missing
    namespace: dict[str, object] = {}
    python = [block for block in blocks(page) if block.language == "python"]
    for block in python:
        if not block.reason:
            try:
                exec(block.code, namespace)
            except ImportError as error:  # which conftest.py would turn into a skipped test
                pytest.fail(str(error))
    assert [block.reason for block in python] == ["", "hnswlib is not installed", ""]
    assert "(300, 10240)" in capsys.readouterr().out


def test_functions_beside_the_papers_formulas_exist() -> None:
    names = re.findall(r"`(muvera\.[\w.]+)`", (DOCS / "muvera.md").read_text(encoding="utf-8"))
    assert len(names) > 10
    for name in names:
        pkgutil.resolve_name(name)


def test_every_public_name_is_in_the_reference_with_an_example() -> None:
    """The example is in its docstring or in a block of the page."""
    listed, without = set(), []
    for page in (DOCS / "reference").glob("*.md"):
        code = "".join(block.code for block in blocks(page) if block.language == "python")
        for target in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            try:
                value = pkgutil.resolve_name(target)
            except (ImportError, AttributeError):  # a framework is missing
                continue
            assert not inspect.ismodule(value), f"{target} is a module. List its names."
            listed.add(target.removeprefix("muvera."))
            shown = re.search(rf"\b{target.rpartition('.')[2]}\b", code)
            if not shown and ">>>" not in (inspect.getdoc(value) or ""):
                without.append(target)
    assert without == []
    assert set(muvera.__all__) - listed <= {"__version__", "convert", "theory"}


def test_our_column_of_the_api_comparison_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(muvera, "load_text_encoder", lambda _: HashEncoder(32), raising=False)
    tokens = np.random.default_rng(0).normal(size=(6, 5, 32)).astype(np.float32)
    namespace: dict[str, object] = {name: getattr(muvera, name) for name in muvera.__all__}
    namespace |= {"documents": list(tokens[:2]), "queries": list(tokens[:2, :3]), "more": list(tokens[2:4])}
    namespace |= {"ids": ["a", "b"], "texts": ["One.", "Two."], "metadata": [{"year": 1999}, {"year": 2001}]}
    text = (DOCS / "api-comparison.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| [^`|]+ \| `([^`]+)` \|", text, re.MULTILINE)
    assert len(lines) == len(re.findall(r"^\| (?!task)", text, re.MULTILINE)) > 25
    for line in lines:
        exec(line, namespace)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path) -> None:
    absent = [name for name in EXAMPLE_NEEDS.get(path.stem, []) if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{absent[0]} is not installed")
    done = subprocess.run(
        [sys.executable, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    pytest.importorskip("altair", reason="the notebooks draw with altair")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, object] = {"__name__": path.stem}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), str(path), "exec"), namespace)
    assert printed.getvalue().strip()
