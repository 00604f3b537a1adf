"""The words that explanations mark: how often they are function words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from muvera import TextIndex
from muvera.texts.encoders.base import TextEncoder
from muvera.texts.encoders.registry import load_text_encoder
from muvera.texts.hit import TextExplanation
from muvera.utils.checks import import_extra

from ..datasets.encode import read_texts
from ..datasets.loading import read_judgements
from ..report.table import Column, Table
from .plumbing import Save, finish, progress

# Hits of each question, as many as are read at a glance.
_HITS = 3


def measure(
    folder: Path, encoder: TextEncoder, split: str, most_documents: int, most_queries: int
) -> dict[str, Any]:
    """Return a row: the share of hits whose most shaded word is a function word.

    The collection is a sample: the judged documents of the first questions, and others.
    """
    documents, queries = read_texts(folder, split)
    queries = queries[:most_queries]
    asked = {id for id, _ in queries}
    judged = {
        document
        for query, document, _ in read_judgements(folder / "qrels" / f"{split}.tsv")
        if query in asked
    }
    documents.sort(key=lambda one: one[0] not in judged)  # a stable sort: file order within both parts
    ids, texts = zip(*documents[:most_documents], strict=True)
    index = TextIndex.build(texts, encoder, ids=ids)
    found = index.search([text for _, text in queries], _HITS, explain=True)
    explanations = [hit.explanation for hits in found for hit in hits if hit.explanation is not None]
    best = [hits[0].explanation for hits in found if hits and hits[0].explanation is not None]
    return {
        "collection": folder.resolve().name,
        "documents": len(ids),
        "queries": len(queries),
        "best": _share(best),
        "share": _share(explanations),
        "sum": _share(explanations, summed=True),
    }


def _share(explanations: Iterable[TextExplanation], summed: bool = False) -> float:
    """Return the share of explanations whose most shaded word is a function word."""
    function_words = set(import_extra("bm25s.stopwords", "experiments", "This bench").STOPWORDS_EN_PLUS)
    marked = [_marked(one, summed) for one in explanations]
    return sum(set(re.findall(r"[^\W_]+", word.lower())) <= function_words for word in marked) / len(marked)


def _marked(explanation: TextExplanation, summed: bool) -> str:
    weights = dict(explanation.weights())
    if summed:  # how much of the score a word gets
        weights = dict.fromkeys(weights, 0.0)
        for match in explanation.matches:
            if match.document in weights:
                weights[match.document] += max(0.0, match.similarity)
    start, stop = max(weights, key=lambda place: weights[place], default=(0, 0))
    return explanation.text[start:stop]


def explanations(
    folders: Annotated[list[Path], typer.Argument(help="Folders of English texts in BEIR's layout.")],
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "test",
    encoder: Annotated[str, typer.Option(help="Text encoder.")] = "minilm",
    documents: Annotated[int, typer.Option(min=1, help="Maximum number of documents.")] = 500,
    queries: Annotated[int, typer.Option(min=1, help="Maximum number of questions.")] = 100,
    save: Save = False,
) -> None:
    """Measure how often the most shaded word of an explanation is a function word."""
    model = load_text_encoder(encoder)
    rows = []
    for folder in folders:
        progress(folder.name)
        rows.append(measure(folder, model, split, documents, queries))
    columns = [
        *(Column("texts", "collection"), Column("documents"), Column("queries")),
        *(Column("best hit", "best", "{:.1%}"), Column(f"best {_HITS} hits", "share", "{:.1%}")),
        Column(f"best {_HITS} hits, by the sum of similarities", "sum", "{:.1%}"),
    ]
    caption = (
        f"Share of explanations whose most shaded word is one of bm25s's 179 English function words. Encoder: "
        f"{encoder}. The last column shades a word by its part of the score."
    )
    finish("explanations", "Explanations", [Table.of("Shaded words", columns, rows, caption)], save)
