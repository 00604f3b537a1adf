"""``muvera search``: the best documents for each query, from a folder or a database."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from typer import Argument, Option

import muvera

from ..metadata import Filter
from .conditions import warn_of_unmatched
from .options import FormatOption, JsonOption, ReaderOptions, RecallOption, ThreadsOption, WhereOption
from .printing import progress_bar, seconds, show

# Queries per step of the progress bar; rankings do not depend on it.
_QUERIES_AT_ONCE = 256


def search(
    index: Annotated[str, Argument(metavar="INDEX", help="Folder of an index, or a URL of muvera load.")],
    queries: Annotated[Path, Argument(metavar="QUERIES", help="Query embeddings in any format.")],
    k: Annotated[int, Option("--k", "-k", help="Maximum number of documents per query.")] = 10,
    candidates: Annotated[
        int | None, Option(help="Documents to rank (default: 100, or what is calibrated).")
    ] = None,
    recall: RecallOption = None,
    where: WhereOption = None,
    rerank: Annotated[
        Literal["auto", "here", "none"],
        Option(help="Where to rank a URL's candidates: in the database if it can, here, or not at all."),
    ] = "auto",
    group: Annotated[
        Literal["document", "part"],
        Option(help="Return documents by their best part, or the best parts of documents."),
    ] = "document",
    trec: Annotated[bool, Option("--trec", help="Print a TREC run.")] = False,
    format: FormatOption = None,
    option: ReaderOptions = None,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Print the best documents for each query.

    Each line has rank, Chamfer score and id, and the part (from 0 on) if documents have
    several.  A score is a sum over query tokens; higher is better.  A query without
    tokens has an empty ranking.  If QUERIES also contains documents, its queries are
    read.  --where and --rerank work only with a URL.

    \b
    Example: the queries of a ColBERTv2 index, as a TREC run.
      muvera index colbert_index my.index
      muvera search my.index colbert_index/query_embedding.npy --trec > run.txt
    """
    from ..utils.checks import counted, url_scheme

    if trec and json_:
        raise ValueError("--trec prints only a run. Omit --json.")
    if trec and group == "part":
        raise ValueError("A TREC run has each document once per query. Omit --group part, or use --json.")
    wanted = _Wanted(queries, format, option, k, candidates, recall, group, threads)
    if url_scheme(index):
        found = _search_database(index, wanted, where, rerank)
    elif where is None and rerank == "auto":
        found = _search_folder(index, wanted)
    else:
        raise ValueError(
            f"--where and --rerank need the URL of an engine, got {index}. Omit them, or search a URL."
        )
    lines = _run(found) if trec else _rankings(found)
    facts = {"index": found.location, "k": k, "candidates": candidates, "recall": recall}
    facts |= {"seconds": round(found.duration, 4), "queries": _results(found)}
    remark = f"{counted(len(found.ids), 'query', 'queries')} among {counted(found.documents, 'document')}"
    remark += ", of which none satisfies --where," if found.unmatched else ""
    show(json_, facts, "\n".join(lines), *([] if trec else [f"{remark} in {seconds(found.duration)}"]))


class _Wanted(NamedTuple):
    """What to search for: queries, and the number of documents for each."""

    queries: Path
    format: str | None
    option: list[Any] | None
    k: int
    candidates: int | None
    recall: float | None
    group: Literal["document", "part"]
    threads: int | None

    def read(self) -> muvera.MultiVectors:
        from .sources import open_queries

        return muvera.convert.read(open_queries(self.queries, self.format, self.option))


class _Found(NamedTuple):
    """The rankings of a search."""

    #: Folder or URL that was searched, and its number of documents.
    location: str
    documents: int
    #: Id and ranking of each query.
    ids: list[int | str]
    rankings: list[muvera.Ranking]
    #: Time of the searches.
    duration: float
    #: True if no document satisfies the condition.
    unmatched: bool = False


def _search_folder(folder: str, wanted: _Wanted) -> _Found:
    """Search an index."""
    from ..index.generations import texts_file

    index = muvera.MuveraIndex.load(folder)
    question = str(wanted.queries)
    if not wanted.queries.exists() and texts_file(Path(folder)) is not None:
        raise ValueError(
            f"The file {question!r} does not exist, and this command needs token vectors. {folder} is a text "
            f"index: muvera texts search {folder} {shlex.quote(question)} answers a question."
        )
    queries = wanted.read()

    def search(block: muvera.MultiVectors) -> list[muvera.Ranking]:
        return index.search(
            block, wanted.k, candidates=wanted.candidates, recall=wanted.recall, group=wanted.group,
            threads=wanted.threads,
        )  # fmt: skip

    rankings, duration = _in_blocks(queries, search)
    return _Found(folder, len(index), queries.ids.tolist(), rankings, duration)


def _search_database(
    url: str, wanted: _Wanted, where: Filter | None, rerank: Literal["auto", "here", "none"]
) -> _Found:
    """Search a database; if no document satisfies `where`, warn about its fields."""
    from ..engines import EngineIndex

    with EngineIndex(url) as index:
        queries = wanted.read()

        def search(block: muvera.MultiVectors) -> list[muvera.Ranking]:
            return index.search(
                block, wanted.k, candidates=wanted.candidates, recall=wanted.recall, where=where,
                rerank=None if rerank == "none" else rerank, group=wanted.group, threads=wanted.threads,
            )  # fmt: skip

        rankings, duration = _in_blocks(queries, search)
        unmatched = bool(where and queries.num_tokens and not any(map(len, rankings)))
        if unmatched:
            longest = queries[[int(queries.lengths.argmax())]]
            warn_of_unmatched(where, lambda probe: len(index.search(longest, 1, where=probe, rerank=None)[0]))
        location = str(index.engine.location)
        return _Found(location, len(index), queries.ids.tolist(), rankings, duration, unmatched)


def _in_blocks(
    queries: muvera.MultiVectors, search: Callable[[muvera.MultiVectors], list[muvera.Ranking]]
) -> tuple[list[muvera.Ranking], float]:
    """Search for blocks of queries with a progress bar; return rankings and seconds."""
    begun = time.perf_counter()
    rankings: list[muvera.Ranking] = []
    with progress_bar(len(queries), "queries", "searching") as advance:
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = queries[start : start + _QUERIES_AT_ONCE]
            rankings += search(block)
            advance(len(block))
    return rankings, time.perf_counter() - begun


def _results(found: _Found) -> list[dict[str, Any]]:
    """Return the rankings as JSON values."""
    return [
        {
            "id": query,
            "results": [
                {"id": id, "score": score, **({} if part is None else {"part": part})}
                for id, score, part in _with_parts(ranking)
            ],
        }
        for query, ranking in zip(found.ids, found.rankings, strict=True)
    ]


def _with_parts(ranking: muvera.Ranking) -> Iterator[tuple[int | str, float, int | None]]:
    """Yield each hit's id, score, and part or None."""
    parts = [None] * len(ranking) if ranking.parts is None else ranking.parts.tolist()
    for (id, score), part in zip(ranking, parts, strict=True):
        yield id, score, part


def _rankings(found: _Found) -> Iterator[str]:
    """Yield a line for each query, and one for each of its documents."""
    for query, ranking in zip(found.ids, found.rankings, strict=True):
        yield f"query {query}"
        for rank, (id, score, part) in enumerate(_with_parts(ranking), start=1):
            yield f"{rank:4d}  {score:10.4f}  {id}" + ("" if part is None else f"  part {part}")


def _run(found: _Found) -> Iterator[str]:
    """Yield one line per result: query, Q0, document, rank, score, name of the run."""
    for query, ranking in zip(found.ids, found.rankings, strict=True):
        names = ranking.ids.tolist()
        for name in (query, *names):
            if len(str(name).split()) != 1:
                raise ValueError(
                    f"id {str(name)!r} has white space, which separates the columns of a TREC run. "
                    "Use --json."
                )
        scores = ranking.scores.astype("U").tolist()  # NumPy writes float32 with the fewest digits
        for rank, (name, score) in enumerate(zip(names, scores, strict=True), start=1):
            yield f"{query} Q0 {name} {rank} {score} muvera"
