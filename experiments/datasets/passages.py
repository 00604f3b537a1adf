"""Real passages without a download, from this machine.

They are man pages, docstrings and package summaries.

A query is the first sentence of a docstring, or the name line of a man page; its
document is the rest of the text.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import sysconfig
from collections.abc import Iterator
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path

from muvera.utils.atomic_files import atomic_folder

# Minimum and maximum words of a passage; one text in _SHARE has a query.
_SHORTEST, _LONGEST, _SHARE = 12, 150, 100

MAN = Path("/usr/share/man")

_FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")


def write_passages(out: Path, most: int, collection: Path | None = None, man: Path | None = None) -> int:
    """Write up to `most` passages in BEIR's layout; return their number.

    The order is fixed.

    `collection` is a folder in BEIR's layout: its texts come first, with its queries.
    With `man`, a folder of man pages, all passages are from there, and every page has a
    query.
    """
    seen: dict[str, str] = {}
    corpus, queries, judgements = ([], [], ["query-id\tcorpus-id\tscore"])
    if collection is not None:
        corpus, queries, judgements = (
            (collection / name).read_text(encoding="utf-8").splitlines() for name in _FILES
        )
    sources = [docstrings(Path(sysconfig.get_path("purelib"))), man_pages(MAN), _summaries()]
    if man is not None:
        sources = [man_pages(man)]
    for title, text in chain.from_iterable(sources):
        words = text.split()[:_LONGEST]
        if len(words) >= _SHORTEST:
            seen.setdefault(" ".join(words), title)
        if len(corpus) + len(seen) == most:
            break
    titled = [(i, title) for i, title in enumerate(seen.values()) if title and (man or i % _SHARE == 0)]
    corpus += [json.dumps({"_id": str(i), "text": text}) for i, text in enumerate(seen)]
    queries += [json.dumps({"_id": f"q{i}", "text": title}) for i, title in titled]
    judgements += [f"q{i}\t{i}\t1" for i, _ in titled]
    with atomic_folder(out) as folder:
        (folder / "qrels").mkdir()
        for name, lines in zip(_FILES, (corpus, queries, judgements), strict=True):
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(corpus)


def docstrings(folder: Path, step: int = 1) -> Iterator[tuple[str, str]]:
    """Yield the first paragraph and the rest of each docstring.

    Of the files below `folder`, every `step`-th is read.
    """
    for path in sorted(folder.rglob("*.py"))[::step]:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                yield first, rest


def man_pages(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name line and the rest of each man page below `folder`."""
    for path in sorted(folder.glob("man[1-8]/*.gz")):
        text = gzip.decompress(path.read_bytes()).decode(errors="replace")
        plain = re.sub(r"^[.'].*|\\f.|\\&", " ", text, flags=re.MULTILINE)
        line, _, rest = plain.partition(r"\-")[2].partition("\n")  # after "ls \- list directory contents"
        yield line.strip(), rest.replace(r"\-", "-")


def _summaries() -> Iterator[tuple[str, str]]:
    for package in sorted(distributions(), key=lambda one: one.name):
        yield package.metadata["Summary"] or "", package.read_text("METADATA") or ""
