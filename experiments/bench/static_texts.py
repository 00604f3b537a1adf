"""The static encoder on long texts, and in languages other than English."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from muvera import TextIndex, load_text_encoder
from muvera.utils.atomic_files import write_json

from ..report.table import Column, Table
from .plumbing import Save, finish, in_new_process, measured_on
from .words import Asked, measure_default, measure_similarity, measure_words, read_asked

_ENCODER = "static"

# Texts that are indexed before memory is measured, so that all code is loaded.
_FIRST = 100

_KIB = 1 if sys.platform == "darwin" else 1024


def join_texts(asked: Asked, characters: int) -> Asked:
    """Join neighbouring texts to long ones of at least so many characters.

    A long text is relevant if it contains a relevant text.
    """
    joined: list[list[str]] = []
    places: list[int] = []
    length = characters
    for text in asked.texts:
        if length >= characters:
            joined.append([])
            length = 0
        joined[-1].append(text)
        places.append(len(joined) - 1)
        length += len(text)
    grades = [{places[row]: grade for row, grade in own.items()} for own in asked.grades]
    return asked._replace(texts=["\n\n".join(parts) for parts in joined], grades=grades)


def build_memory(texts: list[str]) -> int:
    """Return the bytes of memory by which the build of an index raises the peak."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "peaks.json"
        if in_new_process(_write_growth, texts, out):
            raise RuntimeError("The build ended with an error.")
        return int(out.read_text())


def _write_growth(texts: list[str], out: Path) -> None:
    encoder = load_text_encoder(_ENCODER)
    TextIndex.build(texts[:_FIRST], encoder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    TextIndex.build(texts, encoder, path=out.with_name("index"))
    write_json(out, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * _KIB)


def _long_table(asked: Asked, characters: int) -> Table:
    long = join_texts(asked, characters)
    row = measure_default(long)[0]
    size = sum(len(text.encode()) for text in long.texts)
    row |= {"memory": build_memory(long.texts) / size}
    columns = [
        *(Column("texts", "collection"), Column("documents", "texts"), Column("queries")),
        Column("bytes of a text", "text bytes", "{:,.0f}"),
        Column("MRR@10, static", "default MRR", "{:.3f}"),
        Column("MRR@10, BM25, stems", "stems MRR", "{:.3f}"),
        Column("S@10, static", "default S", "{:.3f}"),
        Column("S@10, BM25, stems", "stems S", "{:.3f}"),
        Column("search", "default ms", "{:.1f}", "ms"),
        Column("search by BM25, stems", "stems ms", "{:.1f}", "ms"),
        Column("build", "build", "{:.1f}", "s"),
        Column("memory of the build / texts", "memory", "{:.1f}x"),
        Column("bytes per text", "bytes", "{:,.0f}"),
    ]
    caption = (
        f"Neighbouring texts of a collection, joined to at least {characters:,} characters, which are about "
        f"{characters // 4:,} tokens. A joined text is relevant if it contains a relevant text. Search by "
        "words and vectors with default settings, for 100 texts, on one thread. Memory is how much a build "
        "raises the peak of its process. `python -m experiments static long FOLDER`. "
        f"{measured_on()}"
    )
    return Table.of("Long texts, static", columns, [row], caption)


def _language_table(folders: list[Path], split: str) -> Table:
    encoder = load_text_encoder(_ENCODER)
    rows: list[dict[str, Any]] = []
    for folder in folders:
        asked = read_asked(folder, split, encoder)
        rows.append(measure_default(asked)[0] | measure_similarity(asked) | measure_words(asked))
    columns = [
        *(Column("texts", "collection"), Column("documents", "texts"), Column("queries")),
        Column("bm25s over words", "words", "{:.3f}"),
        Column("bm25s over pairs of characters", "pairs", "{:.3f}"),
        Column("words of TextIndex", "own", "{:.3f}"),
        Column("MaxSim alone", "maxsim nDCG", "{:.3f}"),
        Column("static", "default nDCG", "{:.3f}"),
        Column("static / words", lambda row: row["default nDCG"] / row["own"], "{:.2f}x"),
    ]
    caption = (
        "nDCG@10 of man pages: a query is the line that names a page, and its answer is the rest of the page. "
        "The column static is a TextIndex with default settings, and MaxSim alone ranks by its token vectors "
        "without words. Folders are from `python -m experiments passages --man`. "
        f"`python -m experiments static languages FOLDER`. {measured_on()}"
    )
    return Table.of("Languages, static", columns, rows, caption)


def static(
    part: Annotated[
        Literal["long", "languages"],
        typer.Argument(help="long: time and memory. languages: nDCG@10 beside words."),
    ],
    folders: Annotated[list[Path], typer.Argument(help="Folders of texts in BEIR's layout.")],
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "test",
    characters: Annotated[int, typer.Option(min=1, help="Length of joined texts.")] = 8000,
    save: Save = False,
) -> None:
    """Measure the static encoder on long texts, or in other languages than English."""
    if part == "languages":
        tables = [_language_table(folders, split)]
    else:
        encoder = load_text_encoder(_ENCODER)
        tables = [_long_table(read_asked(folder, split, encoder), characters) for folder in folders]
    finish("words", "Words", tables, save)
