"""The word search of a TextIndex, compared with bm25s on the same texts.

No model is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import ir_measures
import typer

from muvera.texts.database import DocumentDatabase
from muvera.utils.checks import import_extra

from ..datasets.encode import Texts, read_texts
from ..datasets.loading import read_judgements
from ..report.table import Column, Table
from .plumbing import Save, finish

_K = 10

Search = Callable[[str], list[str]]


def measure(folder: Path, split: str = "test") -> dict[str, Any]:
    """Return a row: nDCG@10 of the database's words and of bm25s.

    bm25s indexes words in one column, and pairs of characters in another.
    """
    documents, queries = read_texts(folder, split)
    judgements = [ir_measures.Qrel(*row) for row in read_judgements(folder / "qrels" / f"{split}.tsv")]
    row: dict[str, Any] = {"collection": folder.resolve().name, "documents": len(documents)}
    searches = {"own": _own(documents), "words": _bm25s(documents, partial(re.findall, r"\w+"))}
    searches["pairs"] = _bm25s(documents, lambda text: [text[i : i + 2] for i in range(len(text) - 1)])
    for name, search in searches.items():
        run = {query: {one: -float(rank) for rank, one in enumerate(search(text))} for query, text in queries}
        row[name] = ir_measures.calc_aggregate([ir_measures.nDCG @ _K], judgements, run)[
            ir_measures.nDCG @ _K
        ]
    return row | {"queries": len(queries)}


def _own(documents: Texts) -> Search:
    database = DocumentDatabase()
    ids, texts = zip(*documents, strict=True)
    database.put(ids, texts, [{}] * len(ids))
    return lambda text: [str(one) for one, _ in database.match_words(text, _K)]


def _bm25s(documents: Texts, tokens: Callable[[str], list[str]]) -> Search:
    library = import_extra("bm25s", "experiments", "BM25")
    index: Any = library.BM25()
    index.index([tokens(text.lower()) for _, text in documents], show_progress=False)
    count = min(_K, len(documents))

    def search(text: str) -> list[str]:
        found, scores = index.retrieve([tokens(text.lower())], k=count, show_progress=False)
        return [documents[i][0] for i, score in zip(found[0], scores[0], strict=True) if score > 0]

    return search


def words(
    folders: Annotated[list[Path], typer.Argument(help="Folders of texts in BEIR's layout.")],
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "test",
    save: Save = False,
) -> None:
    """Compare the word search of a TextIndex with bm25s.

    bm25s indexes words, or pairs of characters.
    """
    rows = [measure(folder, split) for folder in folders]
    columns = [
        *(Column("texts", "collection"), Column("documents"), Column("queries")),
        Column("words of TextIndex", "own", "{:.3f}"),
        Column("bm25s over words", "words", "{:.3f}"),
        Column("bm25s over pairs of characters", "pairs", "{:.3f}"),
        Column("TextIndex / pairs", lambda row: row["own"] / row["pairs"], "{:.2f}x"),
    ]
    caption = (
        "nDCG@10 of words alone. In scripts without spaces, such as Japanese, bm25s needs pairs of "
        "characters as words. TextIndex uses such pairs there, too."
    )
    finish("words", "Words", [Table.of("Words alone", columns, rows, caption)], save)
