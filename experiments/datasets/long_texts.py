"""Texts of very different lengths without a download, from this machine.

Long texts are the READMEs of installed packages and man pages; short ones are
docstrings.  Questions are sentences that are removed from their texts: two sentences of
each long text, from behind the part that a model reads first, and the first sentence of
some docstrings.
"""

from __future__ import annotations

import json
import random
import re
import sysconfig
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from muvera.texts.hit import sentences_of
from muvera.utils.atomic_files import atomic_folder

from .passages import MAN, docstrings, man_pages

# Words of a long text and of a short one.  The longest are cut, to limit the time that
# encoding takes.
_LONG = (600, 3000)
_SHORT = (12, 150)

# Every 20th file of installed packages has enough docstrings.
_STEP = 20

# A model that reads 256 tokens reads fewer words than this.
_READ_FIRST = 256

# Words of a sentence that can be a question.
_QUESTION = (8, 30)

# Markup of READMEs: pictures, HTML tags and comments, and addresses of links.
_MARKUP = re.compile(r"!\[[^\]]*\]\([^)]*\)|<!--.*?-->|<[^>\n]+>|\]\([^)\s]*\)|https?://\S+", re.DOTALL)


def write_long_texts(out: Path, most_long: int, most_short: int) -> tuple[int, int]:
    """Write a collection in BEIR's layout; return the numbers of long and short texts.

    Ids of texts and questions begin with "long" or "short".
    """
    corpus: list[dict[str, str]] = []
    questions: list[tuple[str, str, str]] = []
    long = {name: text for name, text in _manuals() if len(text.split()) >= _LONG[0]}
    for name in _sampled(long, most_long):
        text = _shortened(long[name], _LONG[1])
        removed = _questions(text)
        for i, (start, stop) in enumerate(removed):
            questions.append((f"long-{name}-{i}", f"long-{name}", " ".join(text[start:stop].split())))
        for start, stop in reversed(removed):
            text = text[:start] + text[stop:]
        corpus.append({"_id": f"long-{name}", "text": text})
    short: dict[str, str] = {}
    for first, rest in docstrings(Path(sysconfig.get_path("purelib")), _STEP):
        body = " ".join(rest.split())
        if _SHORT[0] <= len(body.split()) <= _SHORT[1]:
            short.setdefault(body, " ".join(first.split()))
    for i, text in enumerate(_sampled(short, most_short)):
        corpus.append({"_id": f"short-{i}", "text": text})
        if i % 4 == 0 and _QUESTION[0] <= len(short[text].split()) <= _QUESTION[1]:
            questions.append((f"short-{i}", f"short-{i}", short[text]))
    with atomic_folder(out) as folder:
        (folder / "qrels").mkdir()
        _write(folder / "corpus.jsonl", [json.dumps(row) for row in corpus])
        _write(
            folder / "queries.jsonl",
            [json.dumps({"_id": question, "text": text}) for question, _, text in questions],
        )
        judged = [f"{question}\t{document}\t1" for question, document, _ in questions]
        _write(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *judged])
    return sum(row["_id"].startswith("long") for row in corpus), len(corpus)


def _manuals() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each README and man page."""
    for package in sorted(distributions(), key=lambda one: one.name.lower()):
        metadata: Any = package.metadata  # a message, whose body is the README
        content = metadata.get_payload()
        if isinstance(content, str):
            yield package.name, re.sub(r"[ \t]+", " ", _MARKUP.sub(" ", content))
    for i, (title, text) in enumerate(man_pages(MAN)):
        yield f"man-{i}", f"{title}\n{text}"


def _sampled(values: dict[str, str], most: int) -> list[str]:
    """Return at most this many keys, the same ones in each call."""
    return sorted(random.Random(0).sample(sorted(values), min(most, len(values))))


def _shortened(text: str, words: int) -> str:
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return text[: ends[min(words, len(ends)) - 1]]


def _questions(text: str) -> list[tuple[int, int]]:
    """Return one sentence of the middle of a text and one of its end, by characters."""
    start = len(_shortened(text, _READ_FIRST))
    middle = (start + len(text)) // 2
    found = [(a, b) for a, b in sentences_of(text) if a >= start and _is_question(text[a:b])]
    parts = [[one for one in found if one[1] <= middle], [one for one in found if one[0] >= middle]]
    return [random.Random(len(text)).choice(part) for part in parts if part]


def _is_question(sentence: str) -> bool:
    words = sentence.split()
    letters = sum(word.strip(",.;:()'\"").isalpha() for word in words)
    return (
        _QUESTION[0] <= len(words) <= _QUESTION[1]
        and letters >= 0.8 * len(words)
        and sentence[0].isupper()
        and sentence.endswith(".")
    )


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
