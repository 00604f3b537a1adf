"""Audit: recall and latency of somebody else's multi-vector search.

The exact best documents by Chamfer similarity are the truth.  What may fix a low recall
is tried, and named only if it raised the recall.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, MultiVectorsLike, as_multivectors, checked_texts
from ..data.ranking import best_first
from ..engines.base import SCHEMES
from ..engines.foreign import ForeignCollection, open_foreign
from ..reranking.chamfer import chamfer_matrix, top_k
from ..utils.checks import as_path, counted, given, require_int
from ..utils.hints import Argument, Message
from ..utils.intervals import share_interval
from ..utils.parallel import share_done, stage

#: A recall from here on needs no fix.
ENOUGH = 0.95

# A change is named if it raises the recall by this and by two standard errors.
_GAIN = 0.02

# The answers equal another ranking if they agree with it in this share.
_SAME = 0.9

# Documents to fetch, as a multiple of k, to see if ranking them exactly would help.
_DEPTH = 10

# Failing queries that are listed.
_LISTED = 10

# Missing documents that are listed for each of them.
_MISSING = 5

# Relative difference of scores that are equal but for rounding.
_ROUNDING = 1e-5

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class FailingQuery:
    """A query whose answer lacks some of the exact best documents.

    Parameters
    ----------
    query : int or str
        Id of the query.
    recall : float
        Share of the exact best that was found.
    missing : list of int or of str
        The first of the missing documents, best first.
    """

    query: int | str
    recall: float
    missing: list[int | str]


@dataclass(frozen=True)
class Evidence:
    """What was tried, and the recall with it.

    Parameters
    ----------
    what : str
        What to do, as the second half of a sentence.
    recall : float
        Mean recall over the same queries.
    helps : bool
        True if the recall rose by more than chance.
    """

    what: str
    recall: float
    helps: bool


@dataclass(frozen=True)
class Audit:
    """Recall, latency and advice.

    Parameters
    ----------
    searched : str
        What was audited.
    documents, queries : int
        Numbers of documents and of queries with tokens.
    k : int
        Number of exact best documents to find.
    recall : float
        Mean share of the exact best among the first `k` ids of an answer.
    interval : tuple of float
        95% interval of the recall for other queries of the same kind, as
        :class:`muvera.RecallMeter` reports it.
    milliseconds : dict of str to float, optional
        "p50" and "p95" of a search, one after another.  None for a run.
    failing : tuple of FailingQuery
        The worst queries, at most 10.
    num_failing : int
        Number of queries with a recall below 1.
    unknown_ids : int
        Ids in the answers that no document has.
    like_means : float
        Share of the answers that a ranking by mean token vectors also has.
    evidence : tuple of Evidence
        What was tried because the recall is below 0.95.
    cosine : bool
        True if the collection compares tokens by cosine; so does the exact ranking.
    """

    searched: str
    documents: int
    queries: int
    k: int
    recall: float
    interval: tuple[float, float]
    milliseconds: dict[str, float] | None
    failing: tuple[FailingQuery, ...]
    num_failing: int
    unknown_ids: int
    like_means: float
    evidence: tuple[Evidence, ...]
    cosine: bool

    @property
    def advice(self) -> list[str]:
        """Sentences on what would fix the recall; each has evidence."""
        sentences = []
        if self.unknown_ids:
            sentences.append(
                f"{counted(self.unknown_ids, 'id')} in the answers "
                f"{'matches' if self.unknown_ids == 1 else 'match'} no document. Give the documents that "
                "were searched, with the same ids."
            )
        if self.recall >= ENOUGH:
            return [*sentences, f"Nothing to fix: the recall is at least {ENOUGH}."]
        if self.like_means >= _SAME and self.like_means > self.recall + _GAIN:
            sentences.append(
                f"{self.like_means:.0%} of the answers equal the answers of mean vectors: one vector for "
                "each text seems to make the ranking. Let it find more documents, and rank them by all "
                "tokens."
            )
        helpful = [tried for tried in self.evidence if tried.helps]
        enough = [tried for tried in helpful if tried.recall >= ENOUGH]
        best = max(helpful, key=lambda tried: tried.recall, default=None)
        if enough:
            sentences.append(f"To reach {enough[0].recall:.3f}: {enough[0].what}.")
        elif best is not None:
            sentences.append(f"To reach {best.recall:.3f}, which is not enough: {best.what}.")
        elif not sentences:
            sentences.append(
                "Nothing that was tried raises the recall. Check that these are the vectors of the model "
                "that made the collection, and that it compares them by inner product."
            )
        return sentences

    @property
    def text(self) -> str:
        """The report, several lines."""
        low, high = self.interval
        how = " (by cosine)" if self.cosine else ""
        lines = [
            f"{self.searched}: {counted(self.documents, 'document')}, "
            f"{counted(self.queries, 'query', 'queries')}",
            f"recall@{self.k} against exact Chamfer{how}: {self.recall:.3f} [{low:.3f}, {high:.3f}]",
        ]
        if self.milliseconds is not None:
            lines.append("milliseconds: " + ", ".join(f"{k} {v:.2f}" for k, v in self.milliseconds.items()))
        if self.num_failing:
            lines.append(f"{counted(self.num_failing, 'query', 'queries')} lack a document; the worst:")
        for failed in self.failing:
            missing = ", ".join(map(repr, failed.missing))
            lines.append(f"  {failed.query!r}: recall {failed.recall:.2f}, without {missing}")
        lines += [f"tried: {tried.what}: recall {tried.recall:.3f}" for tried in self.evidence]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in self.advice)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Returns
        -------
        dict
            Values by field, and "advice".
        """
        return {**asdict(self), "advice": self.advice}


#: A collection's URL, a file of a run, or ids for each query.
Found = (
    str
    | os.PathLike[str]
    | ForeignCollection
    | Mapping[Any, Sequence[int | str] | Mapping[str, float]]
    | Sequence[Sequence[int | str]]
)


def audit(
    found: Found,
    queries: MultiVectorsLike,
    documents: MultiVectorsLike | None = None,
    *,
    k: int = 10,
    settings: Mapping[str, Any] | None = None,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Audit:
    """Compare somebody else's search with exact Chamfer similarity.

    A collection is searched once for each query, with its settings.  If the recall
    is below 0.95, other settings are tried.  Nothing is changed in the collection.

    Parameters
    ----------
    found : str, path, mapping or sequence
        The URL of a collection of token vectors: Qdrant and Qdrant Edge with a
        multivector, LanceDB with a column of lists of vectors, PostgreSQL with a column
        ``vector[]``, or Milvus with a row for each token.  See
        :func:`muvera.engines.open_engine`.  Or a run: a file in TREC's format or JSON,
        a mapping of query id to ids, or one list of ids for each query, best first.
    queries : MultiVectors, or a list of arrays (tokens, dimension)
        The token vectors of the queries; at least one with tokens.
    documents : MultiVectors, or a list of arrays, optional
        The token vectors of the documents.  Needed for a run.  Default: read from the
        collection.
    k : int
        Number of exact best documents to find.
    settings : mapping, optional
        Settings of the collection's search, such as ``{"hnsw_ef": 64}``; for PostgreSQL
        ``{"sql": "SELECT id ... %(query)s ... LIMIT %(k)s"}``.
    threads : int, optional
        For exact scores.  Default: all usable cores.
    progress : callable, optional
        Called with 1 after each pass over the queries.

    Returns
    -------
    Audit

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        For wrong vectors, a file that is not a run, or a collection without token
        vectors.
    """
    require_int("k", k, 1)
    advance = progress or (lambda _: None)
    if isinstance(found, str) and (found.partition(":")[0] in SCHEMES or "://" in found):
        collection = open_foreign(found)
        try:
            return _audit_collection(collection, queries, documents, k, settings, threads, advance)
        finally:
            collection.end()
    if isinstance(found, ForeignCollection):
        return _audit_collection(found, queries, documents, k, settings, threads, advance)
    if documents is None:
        if isinstance(found, (str, os.PathLike)):
            read_run(found)  # its error comes first
        raise ValueError(
            Message("A run needs the token vectors of the documents. Give ", Argument("documents", ""), ".")
        )
    if settings:
        raise ValueError("Settings belong to a collection's search, but this is a run. Omit them.")
    name = str(found) if isinstance(found, (str, os.PathLike)) else "run"
    run = read_run(found) if isinstance(found, (str, os.PathLike)) else found
    truth = _Truth(documents, queries, k, False, threads)
    advance(1)
    answers = _answers(run, truth)
    depth = max(map(len, answers), default=0)
    shares = truth.shares(answers)
    evidence = []
    if shares.mean() < ENOUGH and depth > k:
        what = f"rank the first {depth} ids of each answer by all tokens, exactly"
        evidence.append(_evidence(what, truth.shares(answers, depth), shares))
    return truth.report(name, answers, shares, None, evidence)


def _audit_collection(
    collection: ForeignCollection,
    queries: MultiVectorsLike,
    documents: MultiVectorsLike | None,
    k: int,
    settings: Mapping[str, Any] | None,
    threads: int | None,
    advance: Callable[[int], object],
) -> Audit:
    """Search a collection for each query, and try its remedies."""
    chosen = collection.with_settings(settings or {})
    texts = collection.documents() if documents is None else documents
    truth = _Truth(texts, queries, k, collection.cosine, threads)
    advance(1)
    asked = [np.array(query, np.float32) for query in truth.asked]

    def answers(depth: int, changes: Mapping[str, Any]) -> tuple[list[list[Any]], list[float]]:
        found, seconds = [], []
        with stage("searching"):
            for done, query in enumerate(asked, 1):
                start = time.perf_counter()
                found.append(collection.find(query, depth, {**chosen, **changes}))
                seconds.append(time.perf_counter() - start)
                share_done(done / len(asked))
        advance(1)
        return found, seconds

    collection.find(asked[0], k, chosen)  # the first search also opens files
    found, seconds = answers(k, {})
    shares = truth.shares(found)
    evidence = []
    if shares.mean() < ENOUGH:
        depth = _DEPTH * k
        what = f"fetch {depth} documents, and rank them by exact Chamfer similarity"
        evidence.append(_evidence(what, truth.shares(answers(depth, {})[0], depth), shares))
        for remedy in collection.remedies():
            if any(chosen.get(name) != value for name, value in remedy.settings.items()):
                with_it = truth.shares(answers(k, remedy.settings)[0])
                evidence.append(_evidence(remedy.advice, with_it, shares))
    percentiles = dict(zip(("p50", "p95"), np.percentile(seconds, (50, 95)).tolist(), strict=True))
    milliseconds = {name: 1000 * value for name, value in percentiles.items()}
    return truth.report(collection.location, found, shares, milliseconds, evidence)


class _Truth:
    """The exact best documents of each query that has tokens."""

    def __init__(
        self,
        documents: MultiVectorsLike,
        queries: MultiVectorsLike,
        k: int,
        cosine: bool,
        threads: int | None,
    ) -> None:
        texts = checked_texts(documents, "documents")
        texts.require_single_parts("audit")
        asked = as_multivectors(queries, "queries")
        asked.require_dimension(texts.dimension, "queries", "documents")
        asked.require_finite("queries")
        self.asked = asked[np.flatnonzero(asked.lengths > 0)]
        if not len(self.asked):
            raise ValueError("queries have no tokens, so nothing can be audited. Give other queries.")
        self._k = k
        self._cosine = cosine
        self._documents = _unit(texts) if cosine else texts
        self._queries = _unit(self.asked) if cosine else self.asked
        self._rows = {str(id): row for row, id in enumerate(texts.ids.tolist())}
        self._best = top_k(self._queries, self._documents, k, threads=threads)
        self._threads = threads

    def shares(self, answers: Sequence[Iterable[Any]], depth: int | None = None) -> Shares:
        """Return the share of each query's exact best in its answer.

        With `depth`, of the best of its first `depth` ids.
        """
        shares = np.zeros(len(self.asked))
        for q, ids in enumerate(answers):
            best = self._best[q].scores
            scores = self._scores(q, list(ids)[: depth or self._k])
            shares[q] = share_found(best, scores)
        return shares

    def _scores(self, q: int, ids: Iterable[Any]) -> NDArray[np.float32]:
        """Return the exact scores of the known ids, each once."""
        rows = sorted({self._rows[str(id)] for id in ids if str(id) in self._rows})
        if not rows:
            return np.empty(0, np.float32)
        chosen = self._documents[np.array(rows)]
        return np.asarray(chamfer_matrix(self._queries[q : q + 1], chosen, threads=1)[0])

    def _like_means(self, answers: Sequence[Sequence[Any]]) -> float:
        """Return the share of the answers among the best by mean token vectors."""
        means = _means(self._documents)
        products = _means(self._queries) @ means.T
        products[:, self._documents.lengths == 0] = -np.inf
        shares = []
        for row, ids in zip(products, answers, strict=True):
            found = {self._rows.get(str(id)) for id in list(ids)[: self._k]}
            shares.append(len(found & set(best_first(row, self._k).tolist())) / max(1, len(found)))
        return float(np.mean(shares))

    def report(
        self,
        searched: str,
        answers: Sequence[Sequence[Any]],
        shares: Shares,
        milliseconds: dict[str, float] | None,
        evidence: list[Evidence],
    ) -> Audit:
        """Return the audit of the answers."""
        failing = np.flatnonzero(shares < 1)
        worst = failing[np.argsort(shares[failing], kind="stable")][:_LISTED]
        ids = self.asked.ids.tolist()
        listed = []
        for q in worst.tolist():
            found = {str(id) for id in list(answers[q])[: self._k]}
            missing = [id for id in self._best[q].ids.tolist() if str(id) not in found]
            listed.append(FailingQuery(ids[q], float(shares[q]), missing[:_MISSING]))
        return Audit(
            searched=searched,
            documents=len(self._documents),
            queries=len(self.asked),
            k=self._k,
            recall=float(shares.mean()),
            interval=share_interval(shares),
            milliseconds=milliseconds,
            failing=tuple(listed),
            num_failing=len(failing),
            unknown_ids=sum(str(id) not in self._rows for answer in answers for id in answer),
            like_means=self._like_means(answers),
            evidence=tuple(evidence),
            cosine=self._cosine,
        )


def share_found(best: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """Return the share of the exact best that is among documents with these scores.

    `best` are the scores of the exact best, best first; a document with the same score
    is as good.  0 without exact best.
    """
    edge = best[-1] - _ROUNDING * abs(best[-1]) if len(best) else np.inf
    return min(1.0, float((scores >= edge).sum()) / max(1, len(best)))


def _evidence(what: str, shares: Shares, before: Shares) -> Evidence:
    gains = shares - before
    error = float(gains.std()) / math.sqrt(len(gains))
    return Evidence(what, float(shares.mean()), bool(gains.mean() > max(_GAIN, 2 * error)))


def _unit(texts: MultiVectors) -> MultiVectors:
    """Return the texts with unit tokens; zeros stay."""
    tokens = np.asarray(texts.tokens, np.float32)
    norms = np.linalg.norm(tokens, axis=1, keepdims=True)
    tokens = (tokens / np.where(norms > 0, norms, 1)).astype(np.float32)
    return MultiVectors(tokens, texts.offsets, texts.ids)


def _means(texts: MultiVectors) -> NDArray[np.float32]:
    """Return the mean token of each text; zeros without tokens."""
    sums = np.zeros((len(texts), texts.dimension), np.float32)
    owner = np.repeat(np.arange(len(texts)), texts.lengths)
    np.add.at(sums, owner, np.asarray(texts.tokens, np.float32))
    return (sums / np.maximum(texts.lengths, 1)[:, np.newaxis]).astype(np.float32)


# -- runs -----------------------------------------------------------------------------


def read_run(path: str | os.PathLike[str]) -> Any:
    """Read a run: ids of documents for each query, best first.

    The file has TREC's six columns (query, Q0, document, rank, score, name), or JSON:
    an object with a list of ids or an object of scores for each query, or a list of
    lists of ids.  Raise FileNotFoundError if it does not exist, and ValueError if it is
    not a run.
    """
    file = as_path(path, "found")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not a run: it is not UTF-8. Give TREC's six columns, or JSON.") from None
    if text.lstrip()[:1] in ("{", "["):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is not JSON: {error}. Write it again.") from None
        return _of_json(content, file)
    scored: dict[str, dict[str, float]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split()
        if not columns:
            continue
        try:
            query, _, document, _, score, _ = columns
            scored.setdefault(query, {})[document] = float(score)
        except ValueError:
            raise ValueError(
                f"{file}: line {number} must have TREC's six columns (query Q0 document rank score name), "
                f"got {line!r:.80}."
            ) from None
    return {query: _by_score(scores) for query, scores in scored.items()}


def _of_json(content: object, file: Path) -> Any:
    """Return the run that a JSON file contains; raise ValueError for no run."""
    if isinstance(content, (list, dict)) and all(
        isinstance(answer, (list, dict) if isinstance(content, dict) else list) and _is_answer(answer)
        for answer in (content.values() if isinstance(content, dict) else content)
    ):
        return content
    raise ValueError(
        f"{file} must have a list of ids, or an object of scores, for each query. Write "
        '{"query 1": ["document 3", "document 5"]}.'
    )


def _is_answer(answer: Any) -> bool:
    """Return True for a list of ids, or an object of scores."""
    if isinstance(answer, dict):
        scores = answer.values()
        return all(type(score) in (int, float) and math.isfinite(score) for score in scores)
    return all(type(id) in (int, str) for id in answer)


def _by_score(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda id: -scores[id])


def _answers(run: object, truth: _Truth) -> list[list[Any]]:
    """Return the ids of each query with tokens, best first."""
    ids = truth.asked.ids.tolist()
    if isinstance(run, Mapping):
        named = {str(query): answer for query, answer in run.items()}
        absent = [id for id in ids if str(id) not in named]
        if len(absent) == len(ids):
            raise ValueError(
                f"The run has none of the {counted(len(ids), 'query', 'queries')}, such as {ids[0]!r}; it "
                f"has {next(iter(named), None)!r}. Give the queries the ids of the run."
            )
        answers = [named.get(str(id), []) for id in ids]
        return [_by_score(answer) if isinstance(answer, Mapping) else list(answer) for answer in answers]
    if not isinstance(run, Sequence) or isinstance(run, (str, bytes)):
        raise TypeError(f"found must be a URL, a file or ids for each query, got {given(run)}.")
    answers = [list(answer) for answer in run]
    if len(answers) != len(ids):
        raise ValueError(
            f"The run has {len(answers)} answers for {counted(len(ids), 'query', 'queries')} with tokens. "
            "Give one list of ids for each of them."
        )
    return answers
