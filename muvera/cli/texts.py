"""``muvera texts``: texts to an index, and questions to its answers."""

from __future__ import annotations

import html
import json
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json, Quiet, Threads
from .output import note, print_json, progress_bar, seconds

if TYPE_CHECKING:
    from ..texts.hit import Hit, TextExplanation

__all__ = ["texts"]

texts = typer.Typer(
    help="Encode texts, build an index of them, and answer questions from it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>body{{font:16px/1.55 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}}h2{{font-size:1rem}}
p{{overflow-wrap:anywhere}}</style>
<h1>{title}</h1>
{body}
</html>
"""


@texts.command("index")
def build(
    source: Annotated[
        Path,
        typer.Argument(metavar="TEXTS", help="JSON lines with text, id and metadata, or one text a line."),
    ],
    out: Annotated[Path, typer.Argument(metavar="INDEX", help="The index's folder, which is made.")],
    encoder: Annotated[
        str,
        typer.Option(
            help="Text encoder: minilm, sentence-transformers:CHECKPOINT, http://HOST/PATH#MODEL ..."
        ),
    ] = "minilm",
    field: Annotated[str, typer.Option(help="Key of the text in JSON lines.")] = "text",
    vectors: Annotated[
        str, typer.Option(help="Preset of the document vectors, as for muvera index.")
    ] = "moments",
    cache: Annotated[
        Path | None, typer.Option(help="File that keeps encoded texts, so that an interrupted run goes on.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the index, once the new one is complete.")
    ] = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Encode texts and build an index of them, with their metadata.

    \b
    Example:
      muvera texts index corpus.jsonl my-index
      muvera texts search my-index "a question" --where '{"language": "en"}'
      muvera serve my-index
    """
    from ..texts.encoders.base import CachedEncoder
    from ..texts.encoders.registry import load_text_encoder
    from ..texts.text_files import read_texts
    from ..texts.text_index import TextIndex

    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists. Give another name, or --overwrite to replace it.")
    if not source.exists():
        raise FileNotFoundError(
            f"{source} does not exist. Give a file of JSON lines (.jsonl) or of one text a line."
        )
    found = read_texts(source, field)
    model = load_text_encoder(encoder)
    if cache is not None:
        model = CachedEncoder(model, cache)
    begun = time.perf_counter()
    with progress_bar(len(found.texts), "texts", "encoding", quiet) as advance:
        index = TextIndex.build(
            found.texts, model, ids=found.ids, metadata=found.metadata, path=out, overwrite=overwrite,
            vectors=vectors, threads=threads, progress=advance,
        )  # fmt: skip
    duration = time.perf_counter() - begun
    if json_:
        print_json(
            {"index": str(out), "texts": len(index), "encoder": model.name, "seconds": round(duration, 3)}
        )
        return
    typer.echo(f"{out}: {len(index):,} texts, encoded by {model.name}, in {seconds(duration)}")


@texts.command("search")
def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that muvera texts index made.")],
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="A question. Without it, questions are asked for.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Answers.")] = 10,
    where: Annotated[
        str | None, typer.Option(help='A condition on the metadata, as JSON: \'{"year": {"$gte": 2000}}\'.')
    ] = None,
    unit: Annotated[str, typer.Option(help="document, or sentence for the best sentences.")] = "document",
    words: Annotated[
        int, typer.Option(min=0, help="Also rank so many texts that share words with the query.")
    ] = 0,
    words_weight: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of BM25's score in the order, with --words. Default: none."),
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Texts that are ranked exactly.")] = 100,
    explain: Annotated[bool, typer.Option("--explain", help="Show which words answered which.")] = False,
    as_html: Annotated[
        Path | None, typer.Option("--html", help="Write the answers to a page, their words shaded.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Default: the one that the index was built with.")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer a question from an index of texts."""
    from ..metadata.filters import FilterError
    from ..texts.text_index import TextIndex

    try:
        condition = None if where is None else json.loads(where)
    except ValueError as error:
        raise FilterError(f"--where must be JSON, got {where!r}: {error}.") from None
    if words_weight is not None and not words:
        raise ValueError(
            "--words-weight weighs the texts that --words finds. Give both, such as --words 100."
        )
    weights = None if words_weight is None else {"maxsim": 1 - words_weight, "words": words_weight}
    if unit not in ("document", "sentence"):
        raise ValueError(f"--unit must be document or sentence, got {unit!r}.")
    _require_texts(index)
    found = TextIndex.load(index, encoder)
    options: dict[str, Any] = {
        "where": condition,
        "words": words,
        "candidates": max(candidates, k),
    }
    if unit == "document":
        answer = partial(found.search, k=k, weights=weights, **options)
    elif weights is not None:
        raise ValueError("--words-weight ranks whole texts. Leave it out, or give --unit document.")
    else:
        answer = partial(found.search_sentences, k=k, **options)
    if query is None:
        _converse(answer, explain)
        return
    begun = time.perf_counter()
    hits = answer(query, explain=explain or as_html is not None)
    duration = time.perf_counter() - begun
    if as_html is not None:
        _write_page(as_html, query, hits)
    if json_:
        rows = [hit.to_dict() for hit in hits]
        print_json({"index": str(index), "query": query, "seconds": round(duration, 4), "hits": rows})
        return
    _print(hits, explain)
    if not quiet:
        note(f"{len(hits):,} of {len(found):,} texts in {seconds(duration)}")


def _require_texts(index: Path) -> None:
    """Refuse an index of token vectors, and name the command that searches it."""
    from ..index.manifest import MANIFEST, TEXTS, read_manifest

    if (index / MANIFEST).is_file() and not any(
        PurePosixPath(name).name == TEXTS for name in read_manifest(index)["files"]
    ):
        raise ValueError(
            f"{index} is an index of token vectors without texts. Search it with query embeddings: "
            f"muvera search {index} QUERIES."
        )


def _converse(answer: Callable[..., list[Hit]], explain: bool) -> None:
    """Answer questions from the terminal, or a pipe, until they end."""
    asked = sys.stdin.isatty()
    while True:
        if asked:
            typer.echo("? ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        _print(answer(line.strip(), explain=explain), explain)


def _print(hits: list[Hit], explain: bool) -> None:
    for rank, hit in enumerate(hits, 1):
        typer.echo(f"{rank:4d}  {hit.score:10.4f}  {hit.id}")
        shown = textwrap.shorten(hit.text, 300, placeholder=" ...")
        typer.echo(textwrap.fill(shown, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
        if explain and hit.explanation is not None:
            typer.echo(
                textwrap.fill(_pairs(hit.explanation), 96, initial_indent=" " * 6, subsequent_indent=" " * 8)
            )


def _pairs(reason: TextExplanation) -> str:
    shown = []
    for match in reason.matches:
        asked, answered = reason.query[slice(*match.query)], reason.text[slice(*match.document)]
        if asked:
            shown.append(f"{asked}={answered or '(no word)'} {match.similarity:.2f}")
    return "words (query=text similarity): " + "  ".join(dict.fromkeys(shown))


def _write_page(path: Path, query: str, hits: list[Hit]) -> None:
    from ..utils.atomic_files import write_bytes

    body = "\n".join(f"<section>{hit._repr_html_()}</section>" for hit in hits)
    write_bytes(path, _PAGE.format(title=html.escape(query), body=body).encode())
