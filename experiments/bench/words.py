"""The word search of a TextIndex, and the weights of the parts of a text's score.

Words alone are compared with bm25s on the same texts, without a model.  With an
encoder or with stored token vectors, whole searches are measured: with the default
weights, with others, and with weights that were chosen on other collections.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import ir_measures
import numpy as np
import typer
from numpy.typing import NDArray

from muvera import TextEncoder, TextIndex, load_text_encoder
from muvera.data.ranking import best_first
from muvera.texts.database import DocumentDatabase
from muvera.texts.encoders.base import ScoreWeights, score_weights
from muvera.utils.checks import import_extra

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..datasets.encode import Texts, read_texts
from ..datasets.loading import read_judgements
from ..report.table import Column, Table
from ..systems.texts import StoredTokens, Words
from .plumbing import Cache, Data, Save, finish, load_collections, measured_on, progress

_K = 10

Search = Callable[[str], list[str]]

# Queries of a collection that the weights are measured with.
_MOST_QUERIES = 300

# Hits of a search whose parts are weighted again.
_HITS = 200

# Weights of words and of mean vectors to choose from; the rest is MaxSim's.
_GRID = [ScoreWeights(words / 10, mean / 10) for words in range(6) for mean in range(5)]

# Ranks of a text that a user may read.
_RANKS = 100

# S@k is the share of queries with a relevant text among the first k.
_MEASURES = {
    "nDCG": ir_measures.nDCG @ _K,
    "MRR": ir_measures.RR @ _K,
    "S": ir_measures.Success @ _K,
    "S@100": ir_measures.Success @ 100,
    "recall": ir_measures.R @ 100,
}

# The weights before scores had mean vectors.
_FORMER = ScoreWeights(0.1, 0.0)


def measure(folder: Path, split: str = "test") -> dict[str, Any]:
    """Return a row: nDCG@10 of the database's words and of bm25s.

    bm25s indexes words in one column, and pairs of characters in another.
    """
    documents, queries = read_texts(folder, split)
    judgements = [ir_measures.Qrel(*row) for row in read_judgements(folder / "qrels" / f"{split}.tsv")]
    row: dict[str, Any] = {"collection": folder.resolve().name, "documents": len(documents)}
    for name, search in _word_searches(documents).items():
        run = {query: {one: -float(rank) for rank, one in enumerate(search(text))} for query, text in queries}
        row[name] = ir_measures.calc_aggregate([ir_measures.nDCG @ _K], judgements, run)[
            ir_measures.nDCG @ _K
        ]
    return row | {"queries": len(queries)}


def _word_searches(documents: Texts) -> dict[str, Search]:
    return {
        "own": _own(documents),
        "words": _bm25s(documents, partial(re.findall, r"\w+")),
        "pairs": _bm25s(documents, lambda text: [text[i : i + 2] for i in range(len(text) - 1)]),
    }


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


class Asked(NamedTuple):
    """Texts and queries by position, with judgements and an encoder."""

    name: str
    texts: list[str]
    queries: list[str]
    grades: list[dict[int, int]]
    encoder: TextEncoder


def read_asked(folder: Path, split: str, encoder: TextEncoder, most: int | None = None) -> Asked:
    """Read the first texts of a folder in BEIR's layout, and queries of these."""
    documents, queries = read_texts(folder, split)
    row_of = {name: row for row, (name, _) in enumerate(documents[:most])}
    grades: dict[str, dict[int, int]] = {}
    for query, document, grade in read_judgements(folder / "qrels" / f"{split}.tsv"):
        if document in row_of and grade > 0:
            grades.setdefault(query, {})[row_of[document]] = grade
    kept = _some([query for query in queries if query[0] in grades])
    texts = [text for _, text in documents[:most]]
    name = folder.resolve().name
    return Asked(name, texts, [text for _, text in kept], [grades[query] for query, _ in kept], encoder)


def asked_of(collection: Collection) -> Asked:
    """Return the texts and queries of a collection with stored tokens."""
    rows = [row for row, grades in enumerate(collection.judgements or []) if grades]
    queries, texts = collection.query_texts or [], collection.document_texts or []
    grades = [collection.judgements[row] for row in rows] if collection.judgements else []
    kept = _some(list(zip((queries[row] for row in rows), grades, strict=True)))
    encoder = StoredTokens(collection)
    return Asked(collection.name, texts, [text for text, _ in kept], [own for _, own in kept], encoder)


def _some(rows: list[Any]) -> list[Any]:
    if len(rows) <= _MOST_QUERIES:
        return rows
    return [rows[i] for i in np.sort(np.random.default_rng(0).permutation(len(rows))[:_MOST_QUERIES])]


class _Parts(NamedTuple):
    """The parts of the scores of a query's candidates, scaled to reach from 0 to 1."""

    ids: NDArray[np.int64]
    maxsim: NDArray[np.float64]
    words: NDArray[np.float64]
    mean: NDArray[np.float64]

    def ranked(self, weights: ScoreWeights) -> NDArray[np.int64]:
        rest = 1 - weights.words - weights.mean
        scores = rest * self.maxsim + weights.words * self.words + weights.mean * self.mean
        return self.ids[np.argsort(-scores, kind="stable")]


def _parts(index: TextIndex, query: str) -> _Parts:
    weights = ScoreWeights(0.2, 0.2)
    hits = index.search(query, _HITS, **weights._asdict())
    maxsim, words, mean = (
        np.array([hit.parts[part] for hit in hits], np.float64) for part in ("maxsim", "words", "mean")
    )
    # The best words' part is their weight's share of the range of all candidates'
    # similarities.  Some candidates are not among the hits.
    rest = 1 - weights.words - weights.mean
    span = rest * words.max() / weights.words or maxsim.max() - maxsim.min() or 1.0
    maxsim = (maxsim - maxsim.min()) / span
    ids = np.array([hit.id for hit in hits], np.int64)
    return _Parts(ids, maxsim, words * rest / weights.words / span, mean * rest / weights.mean / span)


def measure_default(asked: Asked) -> tuple[dict[str, Any], TextIndex]:
    """Return a row of measurements of a text index and of BM25, and the index."""
    progress(f"{asked.name}: {len(asked.texts):,} texts")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        index = TextIndex.build(asked.texts, asked.encoder, path=Path(folder) / "index")
        built = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        texts = sum(len(text.encode()) for text in asked.texts)
    row: dict[str, Any] = {
        "collection": asked.name, "texts": len(asked.texts), "queries": len(asked.queries),
        "build": built, "bytes": size / len(asked.texts), "text bytes": texts / len(asked.texts),
    }  # fmt: skip
    searches: dict[str, Callable[[str], Any]] = {
        "default": lambda query: [hit.id for hit in index.search(query, _RANKS, threads=1)]
    }
    for name, stems in (("bm25", False), ("stems", True)):
        begun = time.perf_counter()
        words = Words(asked.texts, stems=stems)
        row[f"{name} build"] = time.perf_counter() - begun
        searches[name] = partial(_best_by_words, words)
    for name, search in searches.items():
        search(asked.queries[0])
        begun = time.perf_counter()
        ranked = [search(query) for query in asked.queries]
        row[f"{name} ms"] = 1000 * (time.perf_counter() - begun) / len(asked.queries)
        row |= {f"{name} {label}": _score(ranked, asked.grades, how) for label, how in _MEASURES.items()}
    return row, index


def measure_similarity(asked: Asked) -> dict[str, Any]:
    """Return the measures of MaxSim alone, without a part of words or of means."""
    index = TextIndex.build(asked.texts, asked.encoder)
    ranked = [[hit.id for hit in index.search(query, _RANKS, words=0, mean=0)] for query in asked.queries]
    return {f"maxsim {label}": _score(ranked, asked.grades, how) for label, how in _MEASURES.items()}


def measure_words(asked: Asked) -> dict[str, Any]:
    """Return nDCG@10 of words alone, as :func:`measure`, for the sampled queries."""
    searches = _word_searches([(str(row), text) for row, text in enumerate(asked.texts)])
    return {
        name: _score([search(query) for query in asked.queries], asked.grades, _MEASURES["nDCG"])
        for name, search in searches.items()
    }


def _best_by_words(words: Words, query: str) -> NDArray[np.int64]:
    scores = words.scores(query)
    best = best_first(scores, _RANKS)
    return best[scores[best] > 0]


def measure_parts(asked: Asked) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return a row of measurements, and nDCG@10 for each weights of the grid."""
    row, index = measure_default(asked)
    parts = [_parts(index, query) for query in asked.queries]
    for name, weights in (("former", _FORMER), ("maxsim", ScoreWeights(0.0, 0.0))):
        ranked = [one.ranked(weights) for one in parts]
        row |= {f"{name} {label}": _score(ranked, asked.grades, how) for label, how in _MEASURES.items()}
    grid = [
        _score([one.ranked(weights) for one in parts], asked.grades, _MEASURES["nDCG"]) for weights in _GRID
    ]
    chosen = int(np.argmax(grid))
    return row | {"best": grid[chosen], "best weights": _named(_GRID[chosen])}, np.array(grid)


def _score(ranked: list[Any], grades: list[dict[int, int]], measure: Any) -> float:
    judgements = {str(i): {str(id): grade for id, grade in own.items()} for i, own in enumerate(grades)}
    run = {
        str(i): {str(id): -float(rank) for rank, id in enumerate(own[:_RANKS])}
        for i, own in enumerate(ranked)
    }
    return float(ir_measures.calc_aggregate([measure], judgements, run)[measure])


def held_out(names: list[str], grids: NDArray[np.float64], default: ScoreWeights) -> list[dict[str, Any]]:
    """Return a row for each collection, with weights chosen on all other collections.

    Parameters
    ----------
    names : list of str
    grids : float64 (collections, weights)
        nDCG@10 of each weights of the grid.
    default : ScoreWeights
        The encoder's weights, which must be in the grid.
    """
    gains = grids - grids[:, [_GRID.index(_FORMER)]]
    rows = []
    for i, name in enumerate(names):
        others = np.delete(gains, i, axis=0).mean(axis=0)
        chosen, best = int(np.argmax(others)), int(np.argmax(grids[i]))
        rows.append({
            "collection": name, "former": grids[i, _GRID.index(_FORMER)],
            "default": grids[i, _GRID.index(default)], "chosen": grids[i, chosen],
            "weights": _named(_GRID[chosen]), "best": grids[i, best], "best weights": _named(_GRID[best]),
        })  # fmt: skip
    return rows


def _named(weights: ScoreWeights) -> str:
    rest = 1 - weights.words - weights.mean
    return " + ".join(
        f"{weight:.1f} {part}".removeprefix("0")
        for weight, part in ((rest, "MaxSim"), (weights.words, "words"), (weights.mean, "mean"))
        if weight
    )


def _bm25_table(rows: list[dict[str, Any]], label: str, title: str) -> Table:
    """Return the table of a text index beside BM25 with stems."""
    columns = [Column("texts", "collection"), Column("documents", "texts"), Column("queries")]
    named = [("default", label), ("stems", "BM25, stems"), ("bm25", "BM25")]
    columns += [Column(f"nDCG@10, {words}", f"{name} nDCG", "{:.3f}") for name, words in named]
    for shown, measure in ((f"S@{_K}", "S"), ("S@100", "S@100"), (f"MRR@{_K}", "MRR")):
        columns += [Column(f"{shown}, {words}", f"{name} {measure}", "{:.3f}") for name, words in named[:2]]
    columns += [
        Column("search", "default ms", "{:.1f}", "ms"),
        Column("search by BM25, stems", "stems ms", "{:.1f}", "ms"),
        Column("build", "build", "{:.1f}", "s"),
        Column("build of BM25, stems", "stems build", "{:.1f}", "s"),
        Column("bytes per text", "bytes", "{:,.0f}"),
        Column("the text itself", "text bytes", "{:,.0f}"),
    ]
    caption = (
        f"A TextIndex with default settings and the encoder {label}, beside bm25s without the most common "
        "English words, with Snowball's stems and without them. S@k is the share of queries with a relevant "
        "text among the first k. A search returns 100 texts, runs on one thread, and includes the encoding "
        "of the query. A build writes the folder, whose bytes include the texts; BM25 stays in memory. The row "
        "of means is of collections that were measured together. "
        f"At most {_MOST_QUERIES} queries. {measured_on()}"
    )
    return Table.of(title, columns, rows, caption)


def _with_mean(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows and one of the means of their measures."""
    if len(rows) == 1:
        return rows
    keys = [f"{name} {measure}" for name in ("default", "stems", "bm25") for measure in _MEASURES]
    means: dict[str, Any] = {key: float(np.mean([row[key] for row in rows])) for key in keys}
    return [*rows, {"collection": "mean", **means}]


def _weight_tables(asked: Iterable[Asked], label: str, default: ScoreWeights) -> list[Table]:
    measured = [measure_parts(one) for one in asked]
    rows = [row for row, _ in measured]
    names = [row["collection"] for row in rows]
    first = [
        *(Column("texts", "collection"), Column("documents", "texts"), Column("queries")),
        Column("MaxSim alone", "maxsim nDCG", "{:.3f}"),
        Column(_named(_FORMER), "former nDCG", "{:.3f}"),
        Column("default", "default nDCG", "{:.3f}"),
        Column(f"R@100, {_named(_FORMER)}", "former recall", "{:.3f}"),
        Column("R@100, default", "default recall", "{:.3f}"),
        Column("best here", "best", "{:.3f}"),
        Column("best weights here", "best weights"),
    ]
    second = [
        Column("texts", "collection"),
        Column(_named(_FORMER), "former", "{:.3f}"),
        Column(f"default: {_named(default)}", "default", "{:.3f}"),
        Column("chosen on the others", "chosen", "{:.3f}"),
        Column("chosen weights", "weights"),
        Column("best here", "best", "{:.3f}"),
        Column("best weights here", "best weights"),
    ]
    settings = f"At most {_MOST_QUERIES} queries. {measured_on()}"
    one = (
        "nDCG@10 of a TextIndex with default settings, by the weights of the parts of a score: MaxSim "
        "(Chamfer similarity), words (BM25), and the cosine of mean token vectors. Other weights than the "
        f"default ones order the best {_HITS} texts by .2 words and .2 mean. {settings}"
    )
    two = (
        "For each collection, the weights with the largest mean gain on all other collections, and the best "
        f"ones for itself. nDCG@10 of the best {_HITS} texts by .2 words and .2 mean. {settings}"
    )
    tables = [
        _bm25_table(_with_mean(rows), label, f"Beside BM25, {label}"),
        Table.of(f"Parts of the score, {label}", first, rows, one),
    ]
    if len(rows) > 1:
        held = held_out(names, np.array([grid for _, grid in measured]), default)
        tables.append(Table.of(f"Weights from other collections, {label}", second, held, two))
    return tables


def words(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of texts in BEIR's layout.")] = None,
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "test",
    encoder: Annotated[
        str | None, typer.Option(help="Measure whole searches with this encoder, such as static.")
    ] = None,
    first: Annotated[
        list[int] | None,
        typer.Option(help="With --encoder: only the growth, by the first texts; may be repeated."),
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Measure searches with its stored tokens; may be repeated.")
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Compare the word search of a TextIndex with bm25s, or weights of a score's parts.

    With an encoder: whole searches beside BM25 with stems.  Without an encoder or
    collection: words alone, and bm25s indexes words, or pairs of
    characters.
    """
    given = folders or []
    if encoder is not None:
        model = load_text_encoder(encoder)
        if first:
            samples = (read_asked(folder, split, model, most) for folder in given for most in first)
            rows = [measure_default(sample)[0] for sample in samples]
            for row in rows:
                row["collection"] += f", first {row['texts']:,}"
            finish("words", "Words", [_bm25_table(rows, encoder, f"Growth, {encoder}")], save)
            return
        asked = (read_asked(folder, split, model) for folder in given)
        finish("words", "Words", _weight_tables(asked, encoder, score_weights(model)), save)
        return
    if collection:
        loaded = map(asked_of, load_collections(collection, data, cache))
        finish("words", "Words", _weight_tables(loaded, "stored tokens", ScoreWeights()), save)
        return
    rows = [measure(folder, split) for folder in given]
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
