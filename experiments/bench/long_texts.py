"""Texts that are longer than the model reads: cut, in windows or the best window."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import ir_measures
import numpy as np
import typer

from muvera import MultiVectors, MuveraIndex, top_k
from muvera.data.multivectors import cut_parts
from muvera.index.searching import Proposal
from muvera.texts.database import DocumentDatabase
from muvera.texts.encoders.base import ModelEncoder, ScoreWeights, passage_length
from muvera.texts.encoders.registry import load_text_encoder
from muvera.texts.encoders.windows import Window, join_windows, windows_of
from muvera.texts.hit import WORDS
from muvera.texts.passages import Similarities
from muvera.texts.ranking import add_parts

from ..datasets.discovery import CACHE
from ..datasets.encode import Texts, read_texts
from ..datasets.loading import read_judgements
from ..datasets.long_texts import write_long_texts
from ..report.table import Column, Table
from .plumbing import Cache, Save, finish, progress

_K = 10

# Texts that are ranked by similarity before words are added, as in a TextIndex.
_CANDIDATES = 200

# Pieces of text that are encoded at a time.
_BATCH = 64

#: The similarity of each query's best texts, by id.
Found = list[dict[str, float]]


def measure(folder: Path, encoder: ModelEncoder) -> list[dict[str, Any]]:
    """Return two rows for each way: nDCG@10 by the length of the text in question."""
    documents, queries = read_texts(folder, "test")
    reader = encoder.reader("document")
    windows = [windows_of(text, reader) for _, text in documents]
    pieces = [
        text[one.start : one.stop] for (_, text), own in zip(documents, windows, strict=True) for one in own
    ]
    matrices: list[Any] = []
    for start in range(0, len(pieces), _BATCH):
        progress(f"{start:,} of {len(pieces):,} windows")
        matrices += [np.asarray(one) for one in encoder.matrices(pieces[start : start + _BATCH], "document")]
    asked = encoder.encode_queries([text for _, text in queries])
    whole = _joined(documents, windows, matrices, pieces, encoder)
    union = _ranked(asked, whole, _CANDIDATES)
    passage = passage_length(encoder)
    assert passage is not None
    found = {
        "beginning alone": _cut(asked, documents, windows, matrices),
        "vectors of all windows": union,
        "best window": _best_window(asked, documents, windows, matrices),
        "best overlapping passage": _best_passage(asked, whole, union, passage),
        "best part (TextIndex)": _ranked(asked, cut_parts(whole, passage), _CANDIDATES),
    }
    judgements = [ir_measures.Qrel(*row) for row in read_judgements(folder / "qrels" / "test.tsv")]
    database = DocumentDatabase()
    ids, texts = zip(*documents, strict=True)
    database.put(ids, texts, [{}] * len(ids))
    rows = []
    for way, rankings in found.items():
        mixed = [
            _with_words(database, text, ranking) for (_, text), ranking in zip(queries, rankings, strict=True)
        ]
        for name, run in (("similarity", rankings), ("similarity and words", mixed)):
            rows.append({"way": way, "ranked by": name, **_scores(judgements, queries, run)})
    return rows


def _bounds(windows: list[list[Window]]) -> list[tuple[int, int]]:
    """Return the first and last window of each text among all windows."""
    return list(pairwise([0, *np.cumsum([len(own) for own in windows]).tolist()]))


def _cut(asked: MultiVectors, documents: Texts, windows: list[list[Window]], matrices: list[Any]) -> Found:
    arrays = [matrices[first] for first, _ in _bounds(windows)]
    beginnings = MultiVectors.from_arrays(arrays).with_ids([id for id, _ in documents])
    return _ranked(asked, beginnings, _CANDIDATES)


def _joined(
    documents: Texts,
    windows: list[list[Window]],
    matrices: list[Any],
    pieces: list[str],
    encoder: ModelEncoder,
) -> MultiVectors:
    """Return the token vectors of each text from the vectors of its windows."""
    arrays = []
    for own, (first, last) in zip(windows, _bounds(windows), strict=True):
        spans = [encoder.window_spans(piece, "document") for piece in pieces[first:last]]
        arrays.append(join_windows(matrices[first:last], own, spans))
    return MultiVectors.from_arrays(arrays).with_ids([id for id, _ in documents])


def _best_passage(asked: MultiVectors, whole: MultiVectors, union: Found, passage: int) -> Found:
    contents = MuveraIndex.build(whole, exact_tokens=whole.num_tokens).contents
    proposal = Proposal([contents.ids.rows(list(found)) for found in union], max(map(len, union)))
    best = Similarities(contents, asked, passage, None).best(proposal, coded=False)
    return [dict(zip(contents.ids.of(rows).tolist(), scores.tolist(), strict=True)) for rows, scores in best]


def _best_window(
    asked: MultiVectors, documents: Texts, windows: list[list[Window]], matrices: list[Any]
) -> Found:
    owners = [id for (id, _), own in zip(documents, windows, strict=True) for _ in own]
    separate = MultiVectors.from_arrays(matrices).with_ids([f"{i}" for i in range(len(owners))])
    best: Found = []
    for ranking in _ranked(asked, separate, len(owners)):
        scores: dict[str, float] = {}
        for name, score in ranking.items():  # best first
            scores.setdefault(owners[int(name)], score)
        best.append(dict(list(scores.items())[:_CANDIDATES]))
    return best


def _ranked(asked: MultiVectors, documents: MultiVectors, k: int) -> Found:
    """Return the similarities of the best `k` documents for each query."""
    return [
        {str(id): float(score) for id, score in ranking}
        for ranking in top_k(asked, documents, min(k, len(documents)))
    ]


def _with_words(database: DocumentDatabase, question: str, ranking: dict[str, float]) -> dict[str, float]:
    """Return the scores of candidates with the default weight of shared words."""
    shared = {str(id): score for id, score in database.match_words(question, 2 * _CANDIDATES)}
    parts = add_parts(ranking, shared, {}, ScoreWeights(WORDS, 0.0), len(ranking))
    return {id: sum(own.values()) for id, own in parts.items()}


def _scores(judgements: list[Any], queries: Texts, rankings: Found) -> dict[str, float]:
    """Return mean nDCG@10 of all questions, of long texts and of short ones."""
    run = {query: ranking for (query, _), ranking in zip(queries, rankings, strict=True)}
    scores = {
        one.query_id: one.value for one in ir_measures.iter_calc([ir_measures.nDCG @ _K], judgements, run)
    }
    kinds = {"all": "", "long": "long-", "short": "short-"}
    return {
        kind: float(np.mean([score for query, score in scores.items() if query.startswith(start)]))
        for kind, start in kinds.items()
    }


def long_texts(
    encoder: Annotated[str, typer.Option(help="Text encoder with a maximum length.")] = "minilm",
    long: Annotated[int, typer.Option(min=1, help="Maximum number of long texts.")] = 200,
    short: Annotated[int, typer.Option(min=1, help="Maximum number of short texts.")] = 1200,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Compare ways to rank long texts among short ones; encodes for minutes.

    The texts are READMEs, man pages and docstrings of this machine.
    """
    model = load_text_encoder(encoder)
    if not isinstance(model, ModelEncoder) or model.reader("document") is None:
        raise typer.BadParameter(f"{encoder} has no known maximum length.")
    folder = cache.expanduser() / "texts" / f"long-{long}-{short}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_long_texts(folder, long, short)
    rows = measure(folder, model)
    columns = [
        *(Column("long texts are read as", "way"), Column("ranked by")),
        *(Column(f"{kind} questions", kind, "{:.3f}") for kind in ("all", "long", "short")),
    ]
    documents, queries = read_texts(folder, "test")
    words = [len(text.split()) for id, text in documents if id.startswith("long-")]
    caption = (
        f"nDCG@10 of exact Chamfer similarity, encoder {encoder}. {len(words)} READMEs of packages and man pages "
        f"of {np.median(words):,.0f} words (median; at most 3,000), and {len(documents) - len(words):,} docstrings. "
        f"{len(queries)} questions are sentences that were removed from their texts: from the middle and the end "
        "of long ones, and the first of short ones."
    )
    finish(
        "long_texts", "Long texts", [Table.of("Long texts among short ones", columns, rows, caption)], save
    )
