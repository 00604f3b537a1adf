"""``muvera search``: queries from a file or folder, rankings in three formats."""

from __future__ import annotations

import json
import shlex
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..utils.checks import counted, verb
from .options import Format, Json, Quiet, ReaderOption, Threads
from .output import note, print_json, progress_bar, seconds, warn

if TYPE_CHECKING:
    from ..data.multivectors import MultiVectors
    from ..data.ranking import Ranking
    from ..index.muvera_index import MuveraIndex

__all__ = ["search"]

# Queries between two steps of the bar; a ranking does not depend on it.
_QUERIES_AT_ONCE = 256


#: Formats of indexes, which never hold queries.
_DOCUMENTS_ONLY = ("muvera index", "plaid", "fast_plaid", "pylate", "warp", "byaldi")


def search(
    index: Annotated[
        str,
        typer.Argument(
            metavar="INDEX", help="A folder that muvera index made, or the URL that muvera load filled."
        ),
    ],
    queries: Annotated[
        Path,
        typer.Argument(
            metavar="QUERIES",
            help="Query embeddings, read like documents; also a .npy (queries, tokens, dim).",
        ),
    ],
    k: Annotated[
        int | None, typer.Option("--k", "-k", help="Documents a query. Default: 10, or all of fewer.")
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Documents that the vectors propose and exact scores rank. Default: 100, at least k."
        ),
    ] = None,
    filter_file: Annotated[
        Path | None, typer.Option(help="Search only among the ids in this file, one a line.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the best document token for each query token.")
    ] = False,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many candidates in a row without a change of the best k. Default: score all."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help='Of a URL: a condition on the metadata, as JSON: \'{"year": {"$gte": 2000}}\'.'),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(help="Of a URL: who ranks the candidates: auto (default), here, engine, or none."),
    ] = None,
    trec: Annotated[bool, typer.Option("--trec", help="Print a TREC run.")] = False,
    format: Format = None,
    part: Annotated[
        str | None, typer.Option(help="docs or queries, where QUERIES has both. Default: queries.")
    ] = None,
    option: ReaderOption = None,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the best documents for each query: rank, Chamfer score, id.

    Scores are sums over query tokens; higher is better.  A query without tokens has an empty ranking.

    \b
    Example: the queries that lie in a ColBERTv2 index, as a TREC run.
      muvera index colbert_index my.index
      muvera search my.index colbert_index/query_embedding.npy -k 100 --trec > run.txt
    """
    if trec and (json_ or explain):
        raise ValueError("--trec prints a run and nothing else. Leave out --json and --explain.")
    from ..convert import read
    from .sources import open_queries

    plan: dict[str, Any] = {
        "k": 10 if k is None else k,
        "candidates": max(100, k or 0) if candidates is None else candidates,
        "threads": threads,
    }
    own = {"patience": patience}
    found = _opened(index, plan, own, filter_file, where, rerank)
    if "rerank" not in plan:
        _require_vectors(queries, index, found)
    closed = ExitStack()
    if "rerank" in plan:
        closed.callback(found.close)
    with closed:
        opened = open_queries(queries, format, part, option)
        if opened.name in _DOCUMENTS_ONLY and not quiet:
            warn([f"{queries} holds documents and no queries: each of its documents is used as a query."])
        texts = read(opened)
        if filter_file is not None:
            plan["ids"] = _filter(filter_file, found, quiet)
        begun = time.perf_counter()
        rankings = _rankings(found, texts, quiet, **plan)
        place = str(found.engine.location) if "rerank" in plan else index
        duration = time.perf_counter() - begun
        names = texts.ids.tolist()
        empty = [name for name, length in zip(names, texts.lengths, strict=True) if length == 0]
        if empty and not quiet:
            warn(
                [
                    f"{counted(len(empty), 'query', 'queries')} {verb(len(empty), 'has', 'have')} no tokens and "
                    f"{verb(len(empty), 'gets an empty ranking', 'get empty rankings')}: {_first(empty)}."
                ]
            )
        if json_:
            print_json(
                {
                    "index": place,
                    "k": plan["k"],
                    "candidates": plan["candidates"],
                    "patience": patience,
                    "seconds": round(duration, 4),
                    "queries": [
                        {"id": name, "results": _results(found, texts[i], rankings[i], explain)}
                        for i, name in enumerate(names)
                    ],
                }
            )
            return
        if trec:
            _print_run(names, rankings)
        else:
            for i, name in enumerate(names):
                typer.echo(f"query {name}")
                for rank, entry in enumerate(_results(found, texts[i], rankings[i], explain), start=1):
                    typer.echo(f"{rank:4d}  {entry['score']:10.4f}  {entry['id']}")
                    if explain:
                        typer.echo(_matches(entry))
        if not quiet:
            queries_and_documents = (
                f"{counted(len(names), 'query', 'queries')} among {counted(len(found), 'document')}"
            )
            note(f"{queries_and_documents} in {seconds(duration)}{'' if 'rerank' in plan else _read(found)}")


def _opened(
    index: str,
    plan: dict[str, Any],
    own: dict[str, Any],
    filter_file: Path | None,
    where: str | None,
    rerank: str | None,
) -> Any:
    """Open an index or a collection in an engine, and complete the plan by what it understands."""
    from ..engines.base import SCHEMES, is_engine_url

    if "://" in index and not is_engine_url(index):
        raise ValueError(
            f"{index} is no URL that is known. INDEX must be a folder, or a URL that begins with one of "
            f"{', '.join(f'{name}:' for name in SCHEMES)}; see muvera load --help."
        )
    if not is_engine_url(index):
        from ..index.muvera_index import MuveraIndex

        if where is not None or rerank is not None:
            raise ValueError(
                "--where and --rerank belong to the URL of an engine. An index has --filter-file."
            )
        plan |= own
        return MuveraIndex.load(index)
    from .load import open_collection

    if filter_file is not None or any(own.values()):
        raise ValueError(
            "--filter-file and --patience belong to an index. An engine's URL has --where and --rerank."
        )
    if rerank not in (None, "auto", "here", "engine", "none"):
        raise ValueError(f"--rerank must be auto, here, engine or none, got {rerank!r}.")
    try:
        plan["where"] = None if where is None else json.loads(where)
    except ValueError as error:
        raise ValueError(f"--where must be JSON, got {where!r}: {error}.") from None
    plan["rerank"] = None if rerank == "none" else rerank or "auto"
    return open_collection(index)


def _read(found: MuveraIndex) -> str:
    """Return what scores are of, where they are not of the tokens as they were given."""
    from .index import coded

    facts = found.info()
    codes = coded(facts)
    if codes is None:
        return ""
    if facts.token_codec["exact_bytes_per_token"]:
        return f"; tokens are read as {codes} codes, those of the best few exactly"
    return f"; scores are of tokens read as {codes} codes"


def _require_vectors(queries: Path, index: Any, found: Any) -> None:
    """Refuse a question that is asked where token vectors are expected."""
    from ..index.manifest import TEXTS

    if not queries.exists() and found._attachment(TEXTS) is not None:
        raise ValueError(
            f"There is no file {str(queries)!r}, and this command takes token vectors. {index} is an index of texts: "
            f"muvera texts search {index} {shlex.quote(str(queries))} answers a question (--explain, --html)."
        )


def _rankings(found: Any, texts: MultiVectors, quiet: bool, **settings: Any) -> list[Ranking]:
    """Search a block of queries at a time; those without tokens have an empty ranking."""
    import numpy as np

    from ..data.ranking import Ranking

    rankings = [Ranking(np.empty(0, np.int64), np.empty(0, np.float32))] * len(texts)
    filled = np.flatnonzero(texts.lengths > 0)
    with progress_bar(len(filled), "queries", "searching", quiet) as advance:
        for start in range(0, len(filled), _QUERIES_AT_ONCE):
            block = filled[start : start + _QUERIES_AT_ONCE]
            for i, ranking in zip(block.tolist(), found.search(texts[block], **settings), strict=True):
                rankings[i] = ranking
            advance(len(block))
    return rankings


def _filter(file: Path, found: MuveraIndex, quiet: bool) -> list[Any]:
    """Return the ids in `file`, of the kind that the index has."""
    whole = found.ids.dtype.kind == "i"
    ids: list[Any] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        text = line.removesuffix("\r")
        if not text.strip():
            continue
        try:
            ids.append(int(text) if whole else text)
        except ValueError:
            raise ValueError(
                f"{file} line {number}: {text!r} is not an integer, but this index has integer ids."
            ) from None
    unknown = [name for name in ids if name not in found]
    if unknown and not quiet:
        warn(
            [
                f"{len(unknown):,} of {counted(len(ids), 'id')} in {file} {verb(len(unknown), 'is', 'are')} not "
                f"in the index: {_first(unknown)}."
            ]
        )
    return ids


def _first(names: list[Any]) -> str:
    """Return the first of some ids, and whether there are more."""
    return f"{names[0]!r}{', ...' if len(names) > 1 else ''}"


def _results(found: Any, query: Any, ranking: Ranking, explain: bool) -> list[dict[str, Any]]:
    results = []
    for name, score in ranking:
        entry: dict[str, Any] = {"id": name, "score": score}
        if explain:
            matches = found.explain(query, name)
            entry["tokens"] = matches.tokens.tolist()
            entry["similarities"] = matches.similarities.tolist()
        results.append(entry)
    return results


def _matches(entry: dict[str, Any]) -> str:
    pairs = zip(entry["tokens"], entry["similarities"], strict=True)
    shown = [f"{i}={token} {similarity:.2f}" for i, (token, similarity) in enumerate(pairs)]
    title = "tokens (query=document similarity): "
    # Bound together while the line is broken.
    text = "  ".join(pair.replace(" ", "\0") for pair in shown)
    filled = textwrap.fill(text, 100, initial_indent=" " * 6 + title, subsequent_indent=" " * 8)
    return filled.replace("\0", " ")


def _print_run(names: list[Any], rankings: list[Ranking]) -> None:
    """Print a line a result: query, Q0, document, rank, score, name of the run."""
    every = [str(name) for name in names] + [
        str(name) for ranking in rankings for name in ranking.ids.tolist()
    ]
    for text in every:
        if len(text.split()) != 1:
            raise ValueError(
                f"id {text!r} has white space, which parts the columns of a TREC run. Use --json."
            )
    for query, ranking in zip(names, rankings, strict=True):
        scores = ranking.scores.astype("U").tolist()  # NumPy writes float32 shortest
        for rank, (name, score) in enumerate(zip(ranking.ids.tolist(), scores, strict=True), start=1):
            typer.echo(f"{query} Q0 {name} {rank} {score} muvera")
