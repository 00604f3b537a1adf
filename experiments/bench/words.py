"""Words of a TextIndex alone, and the weights of the parts of a text's score.

Words alone are compared with bm25s on the same texts, without a model.  With an encoder
or with stored token vectors, all texts are ranked with many weights, and with weights
that were chosen on other collections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import TextIndex, load_text_encoder
from muvera.data.ranking import best_first
from muvera.texts.encoders.base import ScoreWeights, encode_texts, score_weights
from muvera.texts.hit import WORDS, SearchOptions
from muvera.texts.ranking import query_unit
from muvera.utils.checks import import_extra

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..report.table import Column, Table
from ..systems.texts import StoredTokens, TextIndexWords
from .plumbing import Cache, Data, Save, finish, load_collections, measured_on, progress
from .texts import Asked, K, read_asked, score, some

Search = Callable[[str], NDArray[np.int64]]

# Queries of a collection that the weights are measured with.
_MOST_QUERIES = 300

# Weights of words and of mean vectors to choose from; the rest is MaxSim's.
_GRID = [ScoreWeights(words / 20, mean / 20) for words in range(13) for mean in range(9) if words + mean < 20]

# Texts that are ranked by all weights, the best ones by equal weights.
_DEPTH = 20_000

# With these weights, a text's parts are its similarity, and the similarity of the query
# with itself times its score by words and times its cosine.
_EVEN = ScoreWeights(1 / 3, 1 / 3)


def measure_words(asked: Asked) -> dict[str, float]:
    """Return nDCG@10 of the words of a TextIndex and of bm25s.

    bm25s indexes words in one column, and pairs of characters in another.
    """
    searches = {
        "own": _best(TextIndexWords(asked.texts).scores),
        "words": _bm25s(asked.texts, partial(re.findall, r"\w+")),
        "pairs": _bm25s(asked.texts, lambda text: [text[i : i + 2] for i in range(len(text) - 1)]),
    }
    return {
        name: score([search(query) for query in asked.queries], asked.grades)
        for name, search in searches.items()
    }


def _best(scores: Callable[[str], NDArray[np.float32]]) -> Search:
    """Return a search for the texts with the best scores above 0."""

    def search(text: str) -> NDArray[np.int64]:
        found = scores(text)
        best = best_first(found, K)
        return best[found[best] > 0]

    return search


def _bm25s(texts: Sequence[str], tokens: Callable[[str], list[str]]) -> Search:
    library = import_extra("bm25s", "experiments", "BM25")
    index: Any = library.BM25()
    index.index([tokens(text.lower()) for text in texts], show_progress=False)
    return _best(lambda text: np.asarray(index.get_scores(tokens(text.lower())), np.float32))


def asked_of(collection: Collection) -> Asked:
    """Return the texts and queries of a collection with stored tokens."""
    rows = [row for row, grades in enumerate(collection.judgements or []) if grades]
    queries, texts = collection.query_texts or [], collection.document_texts or []
    grades = [collection.judgements[row] for row in rows] if collection.judgements else []
    kept = some(list(zip((queries[row] for row in rows), grades, strict=True)), _MOST_QUERIES)
    encoder = StoredTokens(collection)
    return Asked(collection.name, texts, [text for text, _ in kept], [own for _, own in kept], encoder)


class Parts(NamedTuple):
    """The parts of the scores of texts for one query, best text first.

    They are in units of the similarity of the query with itself.
    """

    rows: NDArray[np.int64]
    maxsim: NDArray[np.float64]
    words: NDArray[np.float64]
    mean: NDArray[np.float64]

    @classmethod
    def of(cls, index: TextIndex, query: str) -> Parts:
        """Rank the texts of an index, whose ids are their positions."""
        encoded = encode_texts(index.encoder.encode_queries, [query])
        count = min(len(index), _DEPTH)
        options = SearchOptions(count, candidates=count, passage=index._passage, **_EVEN._asdict())
        found = index._texts.rank([query], encoded, options)[0]
        columns = np.array([list(parts.values()) for parts in found.values()]).reshape(-1, 3).T
        unit = query_unit(encoded[0]) or 1.0
        return cls(np.array(list(found), np.int64), *(columns / unit))

    def scores(self, weights: ScoreWeights) -> NDArray[np.float64]:
        """Return the score of each text by other weights, divided by a number."""
        rest = 1 - weights.words - weights.mean
        return rest * self.maxsim + weights.words * self.words + weights.mean * self.mean

    def best(self, weights: ScoreWeights) -> NDArray[np.int64]:
        """Return the positions of the best texts by other weights."""
        return self.rows[best_first(self.scores(weights), K)]


def measure_weights(asked: Asked) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return a row with nDCG@10 of words alone, and nDCG@10 for the whole grid."""
    progress(f"{asked.name}: {len(asked.texts):,} texts, {len(asked.queries):,} queries")
    index = TextIndex.build(asked.texts, asked.encoder, exact_tokens=1 << 60)  # needs no vectors
    by_words = _best(TextIndexWords(asked.texts).scores)
    best = [
        [own.best(weights) for weights in _GRID]
        for own in (Parts.of(index, query) for query in asked.queries)
    ]
    grid = [score([own[i] for own in best], asked.grades) for i in range(len(_GRID))]
    row = {
        "collection": asked.name, "texts": len(asked.texts), "queries": len(asked.queries),
        "words": score([by_words(query) for query in asked.queries], asked.grades),
    }  # fmt: skip
    return row, np.array(grid)


def held_out(
    grids: NDArray[np.float64], grid: Sequence[ScoreWeights], default: ScoreWeights
) -> list[dict[str, Any]]:
    """Return a row for each collection, with weights chosen on all other collections.

    The last row has the means, and the weights with the best mean.

    Parameters
    ----------
    grids : float64 (collections, weights)
        nDCG@10 of each weights of the grid.
    grid : sequence of ScoreWeights
        The weights.
    default : ScoreWeights
        The default weights, which must be in the grid.
    """
    at, alone = grid.index(default), grid.index(ScoreWeights(0.0, 0.0))
    rows: list[dict[str, Any]] = []
    for i, own in enumerate(grids):
        chosen = int(np.argmax(np.delete(grids, i, axis=0).mean(axis=0)))
        best = int(np.argmax(own))
        rows.append({
            "maxsim": own[alone], "default": own[at], "chosen": own[chosen], "weights": named(grid[chosen]),
            "best": own[best], "best weights": named(grid[best]),
        })  # fmt: skip
    mean = grids.mean(axis=0)
    best = int(np.argmax(mean))
    last: dict[str, Any] = {
        key: float(np.mean([row[key] for row in rows])) for key in ("maxsim", "default", "chosen")
    }
    return [*rows, {"collection": "mean", **last, "best": mean[best], "best weights": named(grid[best])}]


def named(weights: ScoreWeights) -> str:
    """Return weights as text.

    Examples
    --------
    >>> named(ScoreWeights(0.35, 0.2))
    '.45 MaxSim + .35 words + .2 mean'
    """
    rest = 1 - weights.words - weights.mean
    return " + ".join(
        f"{weight:.2f} {part}".replace("0 ", " ").removeprefix("0")
        for weight, part in ((rest, "MaxSim"), (weights.words, "words"), (weights.mean, "mean"))
        if weight
    )


def _weight_tables(asked: Iterable[Asked], label: str, default: ScoreWeights) -> list[Table]:
    measured = [measure_weights(one) for one in asked]
    if len(measured) < 2:
        raise typer.BadParameter("Weights are chosen on other collections: give at least two.")
    rows = [row for row, _ in measured]
    grids = np.array([grid for _, grid in measured])
    caption = (
        "nDCG@10 by similarity (MaxSim), words (BM25){parts} with the weights of the column. "
        f"They rank the best {_DEPTH:,} texts by equal weights, which are all texts of a small collection. For "
        "each collection, the chosen weights are the best on the mean of all other collections. The row of means "
        f"has the weights with the best mean. At most {_MOST_QUERIES} queries. {measured_on()}"
    )
    tables = []
    for title, parts, least in (
        ("Weights from other collections", " and the cosine of mean token vectors", default),
        ("Weights without means", ", as in a database,", ScoreWeights(WORDS, 0.0)),
    ):
        at = [i for i, weights in enumerate(_GRID) if least.mean or not weights.mean]
        held = held_out(grids[:, at], [_GRID[i] for i in at], least)
        columns = [
            *(Column("texts", "collection"), Column("documents", "texts"), Column("queries")),
            Column("words alone", "words", "{:.3f}"),
            Column("MaxSim alone", "maxsim", "{:.3f}"),
            Column(f"default: {named(least)}", "default", "{:.3f}"),
            Column("chosen on the others", "chosen", "{:.3f}"),
            Column("chosen weights", "weights"),
            Column("best here", "best", "{:.3f}"),
            Column("best weights here", "best weights"),
        ]
        mean = {"words": float(np.mean([row["words"] for row in rows]))}
        table = [row | own for row, own in zip([*rows, mean], held, strict=True)]
        tables.append(Table.of(f"{title}, {label}", columns, table, caption.format(parts=parts)))
    return tables


def words(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of texts in BEIR's layout.")] = None,
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "test",
    encoder: Annotated[
        str | None, typer.Option(help="Compare weights with this encoder, such as static.")
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Compare weights with its stored tokens; may be repeated.")
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Compare the words of a TextIndex with bm25s, or weights of a score's parts.

    With an encoder or collections: each collection is ranked by weights that were
    chosen on the others.  Without: words alone, and bm25s indexes words, or pairs of
    characters.
    """
    given = folders or []
    if encoder is not None:
        model = load_text_encoder(encoder)
        asked = (read_asked(folder, split, model, queries=_MOST_QUERIES) for folder in given)
        finish("words", "Words", _weight_tables(asked, encoder, score_weights(model)), save)
        return
    if collection:
        loaded = map(asked_of, load_collections(collection, data, cache))
        finish("words", "Words", _weight_tables(loaded, "stored tokens", ScoreWeights()), save)
        return
    rows = []
    for folder in given:
        asked_here = read_asked(folder, split, None)
        rows.append(
            {
                "collection": asked_here.name,
                "documents": len(asked_here.texts),
                "queries": len(asked_here.queries),
            }
            | measure_words(asked_here)
        )
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
