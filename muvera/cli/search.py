"""``muvera search``: queries from a file or folder, rankings in three formats."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from .conditions import warn_of_unmatched
from .options import Format, Json, ReaderOption, Recall, Threads, Where
from .output import progress_bar, seconds, show

if TYPE_CHECKING:
    from ..data.ranking import Ranking
    from ..index.muvera_index import MuveraIndex

# Queries per step of the progress bar; rankings do not depend on it.
_QUERIES_AT_ONCE = 256


def search(
    index: Annotated[
        str, Argument(metavar="INDEX", help="Folder of an index, or a URL of muvera load --to.")
    ],
    queries: Annotated[
        Path,
        Argument(
            metavar="QUERIES",
            help="Query embeddings in any format of muvera formats, or a .npy of shape (queries, tokens, dimension).",
        ),
    ],
    k: Annotated[int, Option("--k", "-k", help="Maximum number of documents per query.")] = 10,
    candidates: Annotated[
        int | None, Option(help="Documents to rank exactly (default: 100, at least k).")
    ] = None,
    recall: Recall = None,
    where: Where = None,
    rerank: Annotated[
        Literal["auto", "here", "none"],
        Option(help="What ranks a URL's candidates: the database if it can, this program, or nothing."),
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
        raise ValueError("--trec prints only a run. Omit --json.")
    from ..convert import read
    from ..engines import EngineIndex
    from ..utils.checks import counted, url_scheme
    from .sources import open_queries

    if recall is None and candidates is None:
        candidates = max(100, k)
    plan: dict[str, Any] = {"k": k, "candidates": candidates, "recall": recall, "threads": threads}
    opened: Any
    if url_scheme(index):
        opened = EngineIndex(index)
        plan |= {"where": where, "rerank": None if rerank == "none" else rerank}
        index = str(opened.engine.location)
    elif where is not None or rerank != "auto":
        raise ValueError(
            f"--where and --rerank need the URL of an engine, got {index}. Omit them, or search a URL."
        )
    else:
        opened = nullcontext(_open_index(index, queries))
    with opened as searched:
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
        unmatched = where and texts.num_tokens and not any(map(len, rankings))
        if unmatched:
            query = texts[[int(texts.lengths.argmax())]]
            warn_of_unmatched(
                where, lambda condition: len(searched.search(query, 1, where=condition, rerank=None)[0])
            )
    names = texts.ids.tolist()
    answers = list(zip(names, rankings, strict=True))
    results = [
        {"id": name, "results": [{"id": id, "score": score} for id, score in ranking]}
        for name, ranking in answers
    ]
    facts = {"index": index, "k": k, "candidates": candidates, "recall": recall}
    lines = _run(answers) if trec else _rankings(answers)
    sizes = f"{counted(len(names), 'query', 'queries')} among {counted(documents, 'document')}"
    sizes += ", of which none satisfies --where," if unmatched else ""
    remarks = [] if trec else [f"{sizes} in {seconds(duration)}"]
    show(json_, {**facts, "seconds": round(duration, 4), "queries": results}, "\n".join(lines), *remarks)


def _open_index(index: str, queries: Path) -> MuveraIndex:
    from ..index.generations import texts_file
    from ..index.muvera_index import MuveraIndex

    loaded = MuveraIndex.load(index)
    if not queries.exists() and texts_file(Path(index)) is not None:
        raise ValueError(
            f"The file {str(queries)!r} does not exist, and this command needs token vectors. {index} is an index of "
            f"texts: muvera texts search {index} {shlex.quote(str(queries))} answers a question."
        )
    return loaded


def _rankings(answers: list[tuple[Any, Ranking]]) -> Iterator[str]:
    for query, ranking in answers:
        yield f"query {query}"
        for rank, (id, score) in enumerate(ranking, start=1):
            yield f"{rank:4d}  {score:10.4f}  {id}"


def _run(answers: list[tuple[Any, Ranking]]) -> Iterator[str]:
    """Yield one line per result: query, Q0, document, rank, score, name of the run."""
    for query, ranking in answers:
        for name in (query, *ranking.ids.tolist()):
            if len(str(name).split()) != 1:
                raise ValueError(
                    f"id {str(name)!r} has white space, which separates the columns of a TREC run. Use --json."
                )
        scores = ranking.scores.astype("U").tolist()  # NumPy writes float32 with the fewest digits
        for rank, (name, score) in enumerate(zip(ranking.ids.tolist(), scores, strict=True), start=1):
            yield f"{query} Q0 {name} {rank} {score} muvera"
