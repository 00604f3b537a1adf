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

# Texts of a collection, and its queries, that the weights are measured with.
_MOST_TEXTS, _MOST_QUERIES = 12_000, 300

# Candidates whose parts of the score are read: all of them, as hits.
_HITS = 250

# Weights of words and of mean vectors to choose from; the rest is MaxSim's.
_GRID = [ScoreWeights(words / 10, mean / 10) for words in range(5) for mean in range(6) if words + mean < 9]

# The weights before scores had mean vectors.
_FORMER = ScoreWeights(0.1, 0.0)


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


class _Asked(NamedTuple):
    """Texts and queries by position, with judgements and an encoder."""

    name: str
    texts: list[str]
    queries: list[str]
    grades: list[dict[int, int]]
    encoder: TextEncoder


def read_asked(folder: Path, split: str, encoder: TextEncoder) -> _Asked:
    """Read the first texts of a folder in BEIR's layout, and queries of these."""
    documents, queries = read_texts(folder, split)
    row_of = {name: row for row, (name, _) in enumerate(documents[:_MOST_TEXTS])}
    grades: dict[str, dict[int, int]] = {}
    for query, document, grade in read_judgements(folder / "qrels" / f"{split}.tsv"):
        if document in row_of and grade > 0:
            grades.setdefault(query, {})[row_of[document]] = grade
    kept = _some([query for query in queries if query[0] in grades])
    texts = [text for _, text in documents[:_MOST_TEXTS]]
    name = folder.resolve().name
    return _Asked(name, texts, [text for _, text in kept], [grades[query] for query, _ in kept], encoder)


def asked_of(collection: Collection) -> _Asked:
    """Return the texts and queries of a collection with stored tokens."""
    rows = [row for row, grades in enumerate(collection.judgements or []) if grades]
    queries, texts = collection.query_texts or [], collection.document_texts or []
    grades = [collection.judgements[row] for row in rows] if collection.judgements else []
    kept = _some(list(zip((queries[row] for row in rows), grades, strict=True)))
    encoder = StoredTokens(collection)
    return _Asked(collection.name, texts, [text for text, _ in kept], [own for _, own in kept], encoder)


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
    hits = index.search(query, _HITS, candidates=_HITS, words=0.2, mean=0.2)
    parts = {
        part: np.array([hit.parts[part] for hit in hits], np.float64) for part in ("maxsim", "words", "mean")
    }
    parts["maxsim"] -= parts["maxsim"].min()  # the lowest of the other parts is 0 already
    scaled = {part: values / (values.max() or 1.0) for part, values in parts.items()}
    return _Parts(np.array([hit.id for hit in hits], np.int64), **scaled)


def measure_parts(asked: _Asked) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return a row of measurements, and nDCG@10 for each weights of the grid."""
    progress(f"{asked.name}: {len(asked.texts):,} texts")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        index = TextIndex.build(asked.texts, asked.encoder, path=Path(folder) / "index")
        built = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    index.search(asked.queries[:1], 10, threads=1)
    begun = time.perf_counter()
    found = [[hit.id for hit in index.search(query, 100, threads=1)] for query in asked.queries]
    searched = time.perf_counter() - begun
    parts = [_parts(index, query) for query in asked.queries]
    bm25 = Words(asked.texts)
    runs: dict[str, Iterable[Any]] = {
        "default": found,
        "former": [one.ranked(_FORMER) for one in parts],
        "maxsim": [one.ranked(ScoreWeights(0.0, 0.0)) for one in parts],
        "bm25": [np.argsort(-bm25.scores(query), kind="stable")[:100] for query in asked.queries],
    }
    row: dict[str, Any] = {
        "collection": asked.name, "texts": len(asked.texts), "queries": len(asked.queries),
        "build": built, "search": 1000 * searched / len(asked.queries), "bytes": size / len(asked.texts),
    }  # fmt: skip
    for name, run in runs.items():
        ranked = list(run)
        row[name] = _score(ranked, asked.grades, ir_measures.nDCG @ _K)
        row[f"{name} recall"] = _score(ranked, asked.grades, ir_measures.R @ 100)
    grid = [
        _score([one.ranked(weights) for one in parts], asked.grades, ir_measures.nDCG @ _K)
        for weights in _GRID
    ]
    return row, np.array(grid)


def _score(ranked: list[Any], grades: list[dict[int, int]], measure: Any) -> float:
    judgements = {str(i): {str(id): grade for id, grade in own.items()} for i, own in enumerate(grades)}
    run = {str(i): {str(id): -float(rank) for rank, id in enumerate(own)} for i, own in enumerate(ranked)}
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


def _weight_tables(asked: Iterable[_Asked], label: str, default: ScoreWeights) -> list[Table]:
    measured = [measure_parts(one) for one in asked]
    rows = [row for row, _ in measured]
    names = [row["collection"] for row in rows]
    first = [
        *(Column("texts", "collection"), Column("documents", "texts"), Column("queries")),
        Column("bm25s, no stop words", "bm25", "{:.3f}"),
        Column("MaxSim alone", "maxsim", "{:.3f}"),
        Column(_named(_FORMER), "former", "{:.3f}"),
        Column("default", "default", "{:.3f}"),
        Column(f"R@100, {_named(_FORMER)}", "former recall", "{:.3f}"),
        Column("R@100, default", "default recall", "{:.3f}"),
        Column("build", "build", "{:.1f}", "s"),
        Column("search", "search", "{:.1f}", "ms"),
        Column("bytes per text", "bytes", "{:,.0f}"),
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
    settings = f"At most {_MOST_QUERIES} queries and the first {_MOST_TEXTS:,} texts. {measured_on()}"
    one = (
        "nDCG@10 of a TextIndex with default settings, by the weights of the parts of a score: MaxSim "
        "(Chamfer similarity), words (BM25), and the cosine of mean token vectors. The default "
        f"weights rank 200 candidates, and other weights rank {_HITS}. Bytes are those of the saved folder. "
        f"A search runs on one thread and includes the encoding of the query. {settings}"
    )
    two = (
        "For each collection, the weights with the largest mean gain on all other collections, and the best "
        f"ones for itself. nDCG@10 of {_HITS} candidates and of texts that share words. {settings}"
    )
    return [
        Table.of(f"Parts of the score, {label}", first, rows, one),
        Table.of(
            f"Weights from other collections, {label}", second,
            held_out(names, np.array([grid for _, grid in measured]), default), two,
        ),
    ]  # fmt: skip


def words(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of texts in BEIR's layout.")] = None,
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "test",
    encoder: Annotated[
        str | None, typer.Option(help="Measure whole searches with this encoder, such as static.")
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Measure searches with its stored tokens; may be repeated.")
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Compare the word search of a TextIndex with bm25s, or weights of a score's parts.

    Without an encoder or collection: words alone. bm25s indexes words, or pairs of
    characters.
    """
    given = folders or []
    if encoder is not None:
        model = load_text_encoder(encoder)
        asked = [read_asked(folder, split, model) for folder in given]
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
