"""Check search(recall=): does it hold, at which cost, and after additions, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import MultiVectors, MuveraIndex, Ranking
from muvera.index.searching import SearchPlan, propose, rank
from muvera.kernels.selection import RANKED
from muvera.texts.database import DocumentDatabase
from muvera.texts.hit import SearchOptions
from muvera.texts.store import TextStore

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..evaluation.statistics import mean_interval
from ..report.table import Column, Table
from .plumbing import Cache, Data, Save, finish, float_documents, float_queries, load_collections, progress

# Exact best documents,
_K = 10

# requested recalls,
_TARGETS = (0.9, 0.95, 0.98)

# and the largest number of queries.
_QUERIES = 200

# Number of added documents,
_ADDED = 200

# and of foreign ones among them.
_FOREIGN = (0, 10, 20, 30, 200)

# Default collections, pairs that are searched together, and pairs of which the second
# is added to the first.
_COLLECTIONS = (
    *("lotte500-colbertv2", "cranfield-minilm", "cisi-e5", "lareqa-en-minilm", "lareqa-en-e5"),
    *("cosqa-minilm", "scifact-minilm", "cisi-e5+lareqa-en-e5"),
)
_ADDITIONS = ("cisi-e5+lareqa-en-e5", "cranfield-minilm+lareqa-en-minilm")


def _plain(texts: MultiVectors) -> MultiVectors:
    return MultiVectors(texts.tokens, texts.offsets)


def _joined(parts: Sequence[MultiVectors]) -> MultiVectors:
    return MultiVectors.concatenate([_plain(part) for part in parts])


def _some_queries(collection: Collection, most: int = _QUERIES) -> MultiVectors:
    queries = float_queries(collection)
    order = np.random.default_rng(3).permutation(len(queries))[:most]
    return _plain(queries[np.sort(order)])


def _shares(found: Sequence[Iterable[Any]], best: Sequence[Iterable[Any]]) -> NDArray[np.float64]:
    """Return for each query the share of its best documents that were found."""
    pairs = [(set(own), set(wanted)) for own, wanted in zip(found, best, strict=True)]
    return np.array([len(own & wanted) / max(1, len(wanted)) for own, wanted in pairs])


def _exact(index: MuveraIndex, queries: MultiVectors) -> list[list[Any]]:
    return [own.ids.tolist() for own in index.search(queries, _K, candidates=len(index))]


def _dialed(
    index: MuveraIndex, queries: MultiVectors, target: float
) -> tuple[list[Ranking], NDArray[np.float64]]:
    """Search for a recall; return rankings, and each query's number of candidates."""
    proposal = propose(index.contents, queries, SearchPlan(_K, recall=target))
    rankings = rank(index.contents, queries, proposal, None)
    if not proposal.stops:
        return rankings, np.full(len(queries), float(len(index)))
    return rankings, np.array([stop.state[RANKED] or len(index) for stop in proposal.stops])


def _fixed_number(index: MuveraIndex, queries: MultiVectors, best: list[list[Any]], target: float) -> int:
    """Return the fixed number of candidates that reaches a mean recall."""
    candidates = index.contents.candidates
    assert candidates is not None
    hits = np.zeros(len(index))
    for (rows, _), own in zip(candidates.find(queries, len(index)), best, strict=True):
        hits[: len(rows)] += np.isin(index.contents.ids.of(rows), own)
    return max(_K, int(np.argmax(np.cumsum(hits) >= target * hits.sum() - 1e-9)) + 1)


def held_rows(name: str, index: MuveraIndex, queries: MultiVectors) -> list[dict[str, Any]]:
    """Return a row for each target: recall and cost of search(recall=)."""
    best = _exact(index, queries)
    rows = []
    for target in _TARGETS:
        rankings, ranked = _dialed(index, queries, target)
        recall = mean_interval(_shares([own.ids.tolist() for own in rankings], best))
        assert recall is not None
        fixed = _fixed_number(index, queries, best, target)
        row = {"collection": name, "documents": len(index), "queries": len(queries), "target": target}
        row |= {"recall": recall, "holds": "yes" if recall["high"] >= target else "no"}
        rows.append(row | {"ranked": ranked.mean(), "fixed": fixed, "cost": ranked.mean() / fixed})
        progress(str(rows[-1]))
    return rows


def word_rows(collection: Collection, index: MuveraIndex) -> list[dict[str, Any]]:
    """Return a row for each target: recall with words, if a collection has texts."""
    if collection.document_texts is None or collection.query_texts is None:
        return []
    asked = np.flatnonzero(collection.queries.lengths > 0)[:_QUERIES]
    queries = MultiVectors.from_arrays([np.asarray(collection.queries[i], np.float32) for i in asked])
    words = [collection.query_texts[i] for i in asked]
    ids = list(range(len(index)))
    database = DocumentDatabase()
    database.put(ids, collection.document_texts, [{}] * len(ids))
    texts = TextStore(index, database)

    def found(**limits: Any) -> list[list[Any]]:
        return [list(own) for own in texts.rank(words, queries, SearchOptions(_K, **limits))]

    best = found(candidates=len(ids))
    default = _shares(found(), best).mean()
    rows = []
    for target in _TARGETS:
        recall = mean_interval(_shares(found(recall=target), best))
        assert recall is not None
        holds = "yes" if recall["high"] >= target else "no"
        row = {"collection": collection.name, "target": target, "recall": recall, "holds": holds}
        rows.append(row | {"default": default})
        progress(str(rows[-1]))
    return rows


def added_rows(first: Collection, second: Collection) -> list[dict[str, Any]]:
    """Add documents, some of them foreign ones, and search for the foreign ones."""
    stream = np.random.default_rng(1)
    own, other = (_plain(each.documents[stream.permutation(len(each.documents))]) for each in (first, second))
    base = MuveraIndex.build(_plain(own[:-_ADDED]), exact_tokens=0)
    rows = []
    for foreign in _FOREIGN:
        index = MuveraIndex.of(base.contents)
        more = own[len(own) - _ADDED : len(own) - foreign % _ADDED]
        index.add(_joined([more, other[:foreign]]))
        warned = "yes" if any("added after" in warning for warning in index.info().warnings) else "no"
        for kind, collection in (("own", first), ("foreign", second))[: 2 if foreign else 1]:
            queries = _some_queries(collection, 100)
            best = _exact(index, queries)
            default = _shares([ranking.ids.tolist() for ranking in index.search(queries, _K)], best)
            rankings, ranked = _dialed(index, queries, 0.95)
            known = [each.expected_recall for each in rankings if each.expected_recall is not None]
            row = {"collection": f"{first.name} + {second.name}", "foreign": foreign, "asked": kind}
            row |= {"warning": warned, "default": float(default.mean()), "ranked": ranked.mean()}
            row |= {"recall": mean_interval(_shares([each.ids.tolist() for each in rankings], best))}
            row |= {"expected": float(np.mean(known)) if known else None}
            rows.append(row | {"unknown": len(rankings) - len(known)})
            progress(str(rows[-1]))
    return rows


_HELD = [
    *(Column("collection"), Column("documents"), Column("queries")),
    *(Column("`recall=`", "target", "{:.2f}"), Column("10-recall@10 [95%]", "recall", "{:.3f}")),
    *(Column("holds"), Column("candidates", "ranked", "{:.1f}")),
    *(Column("fixed number", "fixed"), Column("candidates / fixed number", "cost", "{:.2f}x")),
]
_WORDS = [
    *(Column("collection"), Column("`recall=`", "target", "{:.2f}")),
    *(Column("10-recall@10 [95%]", "recall", "{:.3f}"), Column("holds")),
    Column("by default", "default", "{:.3f}"),
]
_AFTER = [
    *(Column("index + addition", "collection"), Column("foreign documents", "foreign")),
    *(Column("warning"), Column("queries", "asked")),
    Column("10-recall with 100 candidates", "default", "{:.3f}"),
    *(Column("with `recall=0.95` [95%]", "recall", "{:.3f}"), Column("candidates", "ranked", "{:.1f}")),
    *(Column("expected recall", "expected", "{:.3f}"), Column("queries without it", "unknown")),
]


def tables_of(
    collections: Sequence[Collection],
    mixed: Sequence[Sequence[Collection]],
    pairs: Sequence[Sequence[Collection]],
) -> list[Table]:
    """Return the tables of collections, of mixtures and of additions.

    Parameters
    ----------
    collections : sequence of Collection
        With queries; if they have texts, they are also searched with words.
    mixed : sequence of sequence of Collection
        Each is searched together, with as many documents and queries of each.
    pairs : sequence of sequence of Collection
        Documents of the second collection are added to the first.
    """
    held, words = list[dict[str, Any]](), list[dict[str, Any]]()
    for collection in collections:
        index = MuveraIndex.build(_plain(float_documents(collection)), exact_tokens=0)
        held += held_rows(collection.name, index, _some_queries(collection))
        words += word_rows(collection, index)
    for each in mixed:
        count = min(len(part.documents) for part in each)
        documents = _joined([float_documents(part)[:count] for part in each])
        queries = _joined([_some_queries(part, _QUERIES // len(each)) for part in each])
        index = MuveraIndex.build(documents, exact_tokens=0)
        held += held_rows("+".join(part.name for part in each), index, queries)
    after = [row for first, second in pairs for row in added_rows(first, second)]
    return [
        Table.of(
            "Requested and measured recall", _HELD, held,
            "`search(recall=)` of a default index after its build, without real queries. The fixed number of "
            "candidates reaches the requested recall on these queries; a user does not know it.",
        ),
        Table.of(
            "With words", _WORDS, words,
            "Searches of texts with shared words. The exact best are those of a search that ranks all texts. "
            "By default, 200 candidates and the texts with the most shared words are ranked: the weight of "
            "words depends on the range of their similarities, and so do the ten best.",
        ),
        Table.of(
            "After additions", _AFTER, after,
            f"{_ADDED} documents are added to an index of the first collection: its own, and foreign ones of "
            f"the second (with {_ADDED}, own and foreign ones). Foreign queries are those of the second "
            "collection.",
        ),
    ]  # fmt: skip


def recall_dial(
    collection: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated; A+B searches both together. Default: all with real queries."),
    ] = None,
    added: Annotated[
        list[str] | None, typer.Option(help="Pair A+B: adds B's documents to A. May be repeated.")
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Check search(recall=): recall and cost, with words, and after additions."""
    names = collection or list(_COLLECTIONS)
    single = [name for name in names if "+" not in name]
    mixed = [load_collections(name.split("+"), data, cache) for name in names if "+" in name]
    pairs = [load_collections(name.split("+"), data, cache) for name in added or _ADDITIONS]
    with threadpool_limits(1):
        tables = tables_of(load_collections(single, data, cache) if single else [], mixed, pairs)
    finish("recall_dial", "Requested and measured recall", tables, save)
