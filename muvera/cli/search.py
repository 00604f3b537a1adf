"""``muvera search``: queries from a file or folder, rankings in three formats."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from .options import Format, Json, ReaderOption, Recall, Threads, Where, parse_json
from .output import note, print_json, progress_bar, seconds

if TYPE_CHECKING:
    from ..data.ranking import Ranking
    from ..index.muvera_index import MuveraIndex

__all__ = ["search"]

# Queries per step of the progress bar; rankings do not depend on it.
_QUERIES_AT_ONCE = 256


def search(
    index: Annotated[
        str,
        Argument(metavar="INDEX", help="Folder of an index, or URL of a collection as in muvera load --to."),
    ],
    queries: Annotated[
        Path,
        Argument(
            metavar="QUERIES",
            help="Query embeddings in any format; also a .npy (queries, tokens, dimension).",
        ),
    ],
    k: Annotated[int, Option("--k", "-k", help="Maximum number of documents per query.")] = 10,
    candidates: Annotated[
        int | None,
        Option(help="Number of candidates to rank exactly (default: 100, at least k)."),
    ] = None,
    recall: Recall = None,
    where: Where = None,
    rerank: Annotated[
        Literal["auto", "here", "none"],
        Option(
            help="How a URL's candidates are ranked: by the database if it can, by this program, or not at all."
        ),
    ] = "auto",
    trec: Annotated[bool, Option("--trec", help="Print a TREC run.")] = False,
    format: Format = None,
    option: ReaderOption = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Print the best documents for each query.

    Each line has rank, Chamfer score and id.  A score is a sum over query tokens; higher is better.  A
    query without tokens has an empty ranking.  If QUERIES also contains documents, its queries are
    read.  --where and --rerank work only with a URL.

    \b
    Example: the queries of a ColBERTv2 index, as a TREC run.
      muvera index colbert_index my.index
      muvera search my.index colbert_index/query_embedding.npy --trec > run.txt
    """
    if trec and json_:
        raise ValueError("--trec prints only a run. Leave out --json.")
    from ..convert import read
    from ..engines import EngineIndex
    from ..engines.base import is_engine_url
    from ..utils.checks import counted
    from .sources import open_queries

    if recall is None and candidates is None:
        candidates = max(100, k)
    plan: dict[str, Any] = {"k": k, "candidates": candidates, "recall": recall, "threads": threads}
    with ExitStack() as stack:
        searched: Any
        if is_engine_url(index):
            plan["where"] = parse_json("--where", where)
            plan["rerank"] = None if rerank == "none" else rerank
            searched = stack.enter_context(EngineIndex(index))
            place = str(searched.engine.location)
        elif where is not None or rerank != "auto":
            raise ValueError(f"--where and --rerank need the URL of an engine, got {index}. Leave them out.")
        else:
            searched, place = _open_index(index, queries), index
        texts = read(open_queries(queries, format, option))
        begun = time.perf_counter()
        rankings: list[Ranking] = []
        with progress_bar(len(texts), "queries", "searching") as advance:
            for start in range(0, len(texts), _QUERIES_AT_ONCE):
                block = texts[start : start + _QUERIES_AT_ONCE]
                rankings += searched.search(block, **plan)
                advance(len(block))
        duration = time.perf_counter() - begun
        documents = len(searched)
    names = texts.ids.tolist()
    if trec:
        _print_run(names, rankings)
    elif json_:
        results = [
            {"id": name, "results": [{"id": id, "score": score} for id, score in ranking]}
            for name, ranking in zip(names, rankings, strict=True)
        ]
        plain = {"index": place, "k": k, "candidates": candidates, "recall": recall}
        print_json({**plain, "seconds": round(duration, 4), "queries": results})
    else:
        for name, ranking in zip(names, rankings, strict=True):
            typer.echo(f"query {name}")
            for rank, (id, score) in enumerate(ranking, start=1):
                typer.echo(f"{rank:4d}  {score:10.4f}  {id}")
        sizes = f"{counted(len(names), 'query', 'queries')} among {counted(documents, 'document')}"
        note(f"{sizes} in {seconds(duration)}")


def _open_index(index: str, queries: Path) -> MuveraIndex:
    from ..index.manifest import texts_file
    from ..index.muvera_index import MuveraIndex

    loaded = MuveraIndex.load(index)
    if not queries.exists() and texts_file(Path(index)) is not None:
        raise ValueError(
            f"The file {str(queries)!r} does not exist, and this command needs token vectors. {index} is an index of "
            f"texts: muvera texts search {index} {shlex.quote(str(queries))} answers a question."
        )
    return loaded


def _print_run(names: list[Any], rankings: list[Ranking]) -> None:
    """Print one line per result: query, Q0, document, rank, score, name of the run."""
    every = [*names, *(name for ranking in rankings for name in ranking.ids.tolist())]
    for name in map(str, every):
        if len(name.split()) != 1:
            raise ValueError(
                f"id {name!r} has white space, which separates the columns of a TREC run. Use --json."
            )
    for query, ranking in zip(names, rankings, strict=True):
        scores = ranking.scores.astype("U").tolist()  # NumPy writes float32 with the fewest digits
        for rank, (name, score) in enumerate(zip(ranking.ids.tolist(), scores, strict=True), start=1):
            typer.echo(f"{query} Q0 {name} {rank} {score} muvera")
