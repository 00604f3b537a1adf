"""``muvera texts``: index texts, change and search them."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from .options import Json, Overwrite, Quiet, Threads, Where, parse_json
from .output import note, print_json, progress_bar, seconds

if TYPE_CHECKING:
    from ..texts.hit import Hit, TextExplanation

__all__ = ["converse", "print_hits", "texts"]

texts = typer.Typer(
    help="Encode texts, build an index of them, and answer questions from it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@texts.command("index")
def build(
    source: Annotated[
        Path,
        Argument(metavar="TEXTS", help="JSON lines or CSV with text, id and metadata, or one text per line."),
    ],
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder for the index.")],
    encoder: Annotated[
        str,
        Option(help="Text encoder: minilm, sentence-transformers:CHECKPOINT, http://HOST/PATH#MODEL, ..."),
    ] = "minilm",
    field: Annotated[str, Option(help="Key or column of the text.")] = "text",
    vectors: Annotated[
        str, Option(help="Encoder of the document vectors: a preset, as for muvera index --encoder.")
    ] = "moments",
    cache: Annotated[
        Path | None, Option(help="Store encoded texts in this file, to continue an interrupted run.")
    ] = None,
    overwrite: Overwrite = False,
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
    content = read_texts(source, [field] if field != "text" else [])
    model = load_text_encoder(encoder)
    if cache is not None:
        model = CachedEncoder(model, cache)
    begun = time.perf_counter()
    assert content.texts is not None  # required
    with progress_bar(len(content.texts), "texts", "encoding", quiet) as advance:
        index = TextIndex.build(
            content.texts, model, ids=content.ids, metadata=content.metadata, path=out, overwrite=overwrite,
            vectors=vectors, threads=threads, progress=advance,
        )  # fmt: skip
    duration = time.perf_counter() - begun
    if json_:
        facts = {"index": str(out), "texts": len(index), "encoder": model.name}
        print_json({**facts, "seconds": round(duration, 3)})
        return
    typer.echo(f"{out}: {len(index):,} texts, encoded by {model.name}, in {seconds(duration)}")


@texts.command("search")
def search(
    index: Annotated[Path, Argument(metavar="INDEX", help="Folder written by muvera texts index.")],
    query: Annotated[
        str | None, Argument(metavar="QUERY", help="A question (default: prompt for questions).")
    ] = None,
    k: Annotated[int, Option("--k", "-k", min=1, help="Number of answers.")] = 10,
    where: Where = None,
    unit: Annotated[str, Option(help="document, or sentence for the best sentences.")] = "document",
    words: Annotated[
        int, Option(min=0, help="Also rank this many texts that share words with the query.")
    ] = 0,
    candidates: Annotated[int, Option(min=1, help="Texts that are ranked exactly.")] = 100,
    explain: Annotated[bool, Option("--explain", help="Print the matching words.")] = False,
    encoder: Annotated[
        str | None, Option(help="Text encoder (default: that of the index if it is built in).")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer a question from an index of texts."""
    from ..texts.text_index import TextIndex

    if unit not in ("document", "sentence"):
        raise ValueError(f"--unit must be document or sentence, got {unit!r}.")
    condition = parse_json("--where", where)
    loaded = TextIndex.load(index, encoder)
    method: Callable[..., list[Hit]] = loaded.search if unit == "document" else loaded.search_sentences
    answer = partial(method, k=k, where=condition, words=words, candidates=max(candidates, k))
    if query is None:
        converse(answer, explain)
        return
    begun = time.perf_counter()
    hits = answer(query, explain=explain)
    duration = time.perf_counter() - begun
    if json_:
        rows = [hit.to_dict() for hit in hits]
        print_json({"index": str(index), "query": query, "seconds": round(duration, 4), "hits": rows})
        return
    print_hits(hits, explain)
    if not quiet:
        note(f"{len(hits):,} of {len(loaded):,} texts in {seconds(duration)}")


def converse(answer: Callable[..., list[Hit]], explain: bool) -> None:
    """Answer questions from standard input until an empty line."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            typer.echo("? ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        print_hits(answer(line.strip(), explain=explain), explain)


def print_hits(hits: list[Hit], explain: bool, labelled: Sequence[str] = ()) -> None:
    """Print texts with their scores and, to explain them, the matching words; mark labelled answers."""
    for rank, hit in enumerate(hits, 1):
        label = "  <- a labelled answer" if hit.id in labelled else ""
        typer.echo(f"{rank:4d}  {hit.score:10.4f}  {hit.id}{label}")
        shown = textwrap.shorten(hit.text, 300, placeholder=" ...")
        typer.echo(textwrap.fill(shown, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
        if explain and hit.explanation is not None:
            pairs = "  ".join(_word_pairs(hit.explanation))
            start = "      words (query=text similarity): "
            typer.echo(textwrap.fill(pairs, 96, initial_indent=start, subsequent_indent=" " * 8))


def _word_pairs(explanation: TextExplanation) -> list[str]:
    """Return each query word with the word of the text that it matched, and their similarity."""
    pairs = []
    for match in explanation.matches:
        word = explanation.query[slice(*match.query)]
        if word:  # a special token has no word
            matched = explanation.text[slice(*match.document)] or "(no word)"
            pairs.append(f"{word}={matched} {match.similarity:.2f}")
    return list(dict.fromkeys(pairs))
