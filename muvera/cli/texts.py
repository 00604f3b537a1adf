"""``muvera texts``: index texts, change them and search them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from .hits import print_document, print_hits, print_list
from .options import (
    Backend,
    Json,
    Overwrite,
    Recall,
    TextEncoder,
    TextEncoderOfUnsaved,
    Threads,
    Tokens,
    Where,
    parse_json,
)
from .output import megabytes, note, print_json, progress_bar, seconds

if TYPE_CHECKING:
    from ..texts.text_files import TextFile
    from ..texts.text_index import TextIndex

__all__ = ["texts"]

# Number of texts per change.
_BATCH = 64

Index = Annotated[
    str, Argument(metavar="INDEX", help="Folder written by muvera texts index, or an engine's URL.")
]
Texts = Annotated[
    Path,
    Argument(
        metavar="TEXTS",
        help="CSV, JSON lines, a JSON array, a BEIR folder, or a file with one text per line.",
    ),
]
TextColumns = Annotated[
    str | None,
    Option("--text", help="Columns to search, such as title,body (default: title, if it exists, and text)."),
]
IdColumn = Annotated[str | None, Option("--id", help="Column of the id (default: id or _id).")]
MetadataColumns = Annotated[
    str,
    Option(
        "--metadata",
        help="Columns to keep as metadata, such as year,author; rest (all other columns) or none.",
    ),
]

# One function implements add and update, so both have the same options.
_ADD = """Add texts with new ids.

\b
Example:
  muvera texts add my-index more.csv --text title,body --id url
"""
_UPDATE = """Replace texts and metadata by id, and add texts with new ids.

Only new and different texts are encoded.  Metadata fields that are not in TEXTS are kept; null removes a
field.  A file without texts changes only metadata.

\b
Example:
  muvera texts update my-index pages.csv --text title,body --id url
"""

texts = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@texts.callback(invoke_without_command=True)
def start(ctx: typer.Context) -> None:
    """Index texts, change them and search them.

    \b
    Example:
      muvera texts index pages.csv my-index --text title,body --id url
      muvera texts search my-index "a question"
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@texts.command("index")
def build(
    source: Texts,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder for the index.")],
    text: TextColumns = None,
    id: IdColumn = None,
    metadata: MetadataColumns = "rest",
    encoder: Annotated[
        str,
        Option(
            help="Text encoder: colbert-small (extra fastembed), minilm (only for demos; extra minilm), "
            "sentence-transformers:CHECKPOINT, http://HOST/PATH#MODEL, ..."
        ),
    ] = "minilm",
    tokens: Tokens = None,
    vectors: Annotated[
        Literal["moments", "learned", "mean", "fde", "paper", "reference"] | None,
        Option(metavar="NAME", help="Document vectors: moments, learned, mean, fde, paper or reference."),
    ] = None,
    backend: Backend = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Encode texts and build an index of them, with their metadata.

    An interrupted command continues if you run it again: encoded texts are kept in OUT.encoded until the
    index is complete.

    \b
    Example:
      muvera texts index pages.csv my-index --text title,body --id url
      muvera texts search my-index "a question" --where '{"year": {"$gte": 2000}}'
      muvera serve my-index
    """
    from ..index.generations import require_place
    from ..texts.encoders.base import CachedEncoder
    from ..texts.encoders.registry import load_text_encoder
    from ..texts.text_index import TextIndex
    from ..utils.checks import counted

    require_place(out, overwrite)
    content = _read(source, text, id, metadata)
    given = {"vectors": vectors, "tokens": tokens, "backend": backend}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    begun = time.perf_counter()
    cache = out.with_name(f"{out.name}.encoded")
    model = CachedEncoder(load_text_encoder(encoder), cache)
    try:
        with progress_bar(len(content.metadata), "texts", "encoding") as advance:
            index = TextIndex.build(
                content.texts or [], model, ids=content.ids, metadata=content.metadata, path=out,
                overwrite=overwrite, threads=threads, progress=advance, **settings,
            )  # fmt: skip
    except BaseException:
        if len(model):
            encoded = counted(len(model), "encoded text")
            note(f"muvera: {cache} keeps {encoded}. Run the command again to continue.")
        model.close(keep=True)
        raise
    model.close(keep=False)
    duration = time.perf_counter() - begun
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    facts = {"index": str(out), "texts": len(index), "encoder": model.name, "bytes": size}
    if json_:
        print_json({**facts, "seconds": round(duration, 3)})
        return
    number = counted(len(index), "text")
    typer.echo(f"{out}: {number}, encoded by {model.name}, {megabytes(size)}, in {seconds(duration)}")


def _read(source: Path, text: str | None, id: str | None, metadata: str, **options: Any) -> TextFile:
    from ..texts.text_files import read_texts

    columns = {"rest": None, "none": []}.get(metadata, metadata.split(","))
    return read_texts(source, text.split(",") if text else (), id, columns, **options)


@contextmanager
def _opened(
    index: str, encoder: str | None, *, change: bool = False, encodes: bool = True
) -> Iterator[TextIndex]:
    """Open an index of texts.  If `change` is true, its changes are durable."""
    from ..engines.base import is_engine_url
    from ..texts.encoders.base import NoEncoder
    from ..texts.text_index import TextIndex

    model = NoEncoder() if encoder is None and not encodes else encoder
    if change or is_engine_url(index):
        with TextIndex.open(index, model) as opened:
            yield opened
    else:
        yield TextIndex.load(index, model)


def _stored_ids(index: TextIndex, ids: list[Any]) -> list[int | str]:
    """Convert ids from CSV or the command line to integers if the index contains them as integers."""
    numbers = {id: int(id) for id in ids if isinstance(id, str) and id.isdecimal() and len(id) < 19}
    documents = index.get([*numbers, *numbers.values()], missing="ignore") if numbers else []
    known = {document.id for document in documents}
    return [numbers[id] if numbers.get(id) in known and id not in known else id for id in ids]


@texts.command("add", help=_ADD)
@texts.command("update", help=_UPDATE)
def change(
    context: typer.Context,
    index: Index,
    source: Texts,
    text: TextColumns = None,
    id: IdColumn = None,
    metadata: MetadataColumns = "rest",
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """Add or update texts; _ADD and _UPDATE are the help."""
    update = context.command.name == "update"
    content = _read(source, text, id, metadata, optional_text=update)
    if update and content.ids is None:
        raise ValueError(f"{source} has no ids, which an update needs. Name their column with --id.")
    with _opened(index, encoder, change=True, encodes=content.texts is not None) as opened:
        if update:
            counts = _update(opened, content)
        else:
            for used in opened.get(content.ids or [], missing="ignore"):
                raise ValueError(
                    f"{index} contains the id {used.id!r}. Use muvera texts update to replace it."
                )
            _in_batches(opened.add, content)
            counts = {"added": len(content.metadata)}
        _report(json_, index, opened, **counts)


def _update(index: TextIndex, content: TextFile) -> dict[str, int]:
    """Encode the new and different texts, change metadata of the others, and return how many changed."""
    from ..texts.text_files import TextFile

    ids = _stored_ids(index, content.ids or [])
    stored = {row.id: row for row in index.get(ids, missing="ignore" if content.texts else "raise")}
    contents = content.texts or [stored[name].text for name in ids]
    encode: dict[Any, tuple[str, dict[str, Any]]] = {}
    change: dict[Any, dict[str, Any]] = {}
    for name, text, row in zip(ids, contents, content.metadata, strict=True):
        before = stored[name].metadata if name in stored else {}
        values = {key: value for key, value in {**before, **row}.items() if value is not None}
        if name not in stored or text != stored[name].text:
            encode[name] = text, values
        elif values != before:
            change[name] = values
    if change:
        index.update(ids=list(change), metadata=list(change.values()))
    texts, metadata = zip(*encode.values(), strict=True) if encode else ((), ())
    _in_batches(index.update, TextFile(list(texts), list(encode), list(metadata)))
    added = len(encode.keys() - stored.keys())
    return {
        "added": added,
        "replaced": len(encode) - added,
        "metadata_changed": len(change),
        "unchanged": len(ids) - len(encode) - len(change),
    }


def _in_batches(change: Callable[..., object], content: TextFile) -> None:
    """Call `change` with a few texts at a time; an interrupt does not undo the earlier calls."""
    texts = content.texts or []
    with progress_bar(len(texts), "texts", "encoding") as advance:
        for start in range(0, len(texts), _BATCH):
            rows = slice(start, start + _BATCH)
            ids = None if content.ids is None else content.ids[rows]
            change(texts[rows], ids=ids, metadata=content.metadata[rows])
            advance(len(texts[rows]))


def _report(json_: bool, name: str, index: TextIndex, **counts: int) -> None:
    from ..utils.checks import counted

    if json_:
        print_json({"index": name, "texts": len(index), **counts})
        return
    shown = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())
    typer.echo(f"{name}: {shown}; {counted(len(index), 'text')}")


@texts.command("delete")
def delete(
    index: Index,
    ids: Annotated[list[str] | None, Argument(metavar="ID...", help="Ids of texts.")] = None,
    where: Where = None,
    encoder: TextEncoderOfUnsaved = None,
    json_: Json = False,
) -> None:
    """Delete texts by id or by a condition."""
    if bool(ids) == (where is not None):
        raise ValueError(f"Give either ids or --where, got {'both' if ids else 'neither'}.")
    with _opened(index, encoder, change=True, encodes=False) as opened:
        names = _stored_ids(opened, ids) if ids else opened.select(parse_json("--where", where))
        opened.delete(names)
        _report(json_, index, opened, deleted=len(names))


@texts.command("get")
def get(
    index: Index,
    ids: Annotated[list[str], Argument(metavar="ID...", help="Ids of texts.")],
    encoder: TextEncoderOfUnsaved = None,
    json_: Json = False,
) -> None:
    """Print texts and their metadata."""
    with _opened(index, encoder, encodes=False) as opened:
        documents = opened.get(_stored_ids(opened, ids))
    if json_:
        print_json({"index": index, "documents": [vars(document) for document in documents]})
        return
    for document in documents:
        print_document(document)


@texts.command("list")
def list_(
    index: Index,
    where: Where = None,
    limit: Annotated[int, Option(min=1, help="Number of texts to print.")] = 20,
    offset: Annotated[int, Option(min=0, help="Number of texts to skip.")] = 0,
    encoder: TextEncoderOfUnsaved = None,
    json_: Json = False,
) -> None:
    """List texts in the order in which they were added."""
    from ..utils.checks import counted

    with _opened(index, encoder, encodes=False) as opened:
        ids = opened.select(parse_json("--where", where) or {})
        documents = opened.get(ids[offset : offset + limit])
    if json_:
        rows = [vars(document) for document in documents]
        print_json({"index": index, "found": len(ids), "documents": rows})
        return
    print_list(documents)
    shown = f"{offset + 1:,} to {offset + len(documents):,}" if documents else "0"
    note(f"{shown} of {counted(len(ids), 'text')}")


@texts.command("search")
def search(
    index: Index,
    query: Annotated[
        str | None, Argument(metavar="QUERY", help="A question (default: prompt for questions).")
    ] = None,
    k: Annotated[int, Option("--k", "-k", min=1, help="Number of answers.")] = 10,
    where: Where = None,
    unit: Annotated[
        Literal["document", "sentence"], Option(help="Search whole texts or sentences.")
    ] = "document",
    words: Annotated[
        float, Option(min=0, max=0.99, help="Weight of words that query and text share (BM25).")
    ] = 0.1,
    candidates: Annotated[
        int | None, Option(min=1, help="Texts that are ranked exactly (default: 100).")
    ] = None,
    recall: Recall = None,
    explain: Annotated[bool, Option("--explain", help="Print which words matched, and how well.")] = False,
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """Search an index of texts with a question.

    \b
    Example:
      muvera texts search my-index "a question" -k 3 --explain
    """
    from ..utils.checks import counted

    condition = parse_json("--where", where)
    with _opened(index, encoder) as loaded:
        method: Callable[..., Any] = loaded.search if unit == "document" else loaded.search_sentences
        plan = {"k": k, "where": condition, "words": words, "recall": recall}
        plan["candidates"] = None if candidates is None else max(candidates, k)
        # The printed passage of a text is the one whose words match best, which the explanation contains.
        explained = explain or (not json_ and loaded.encoder.token_spans(query or "a", "query") is not None)
        answer = partial(method, **plan, explain=explained)
        if query is None:
            _converse(answer, explain)
            return
        begun = time.perf_counter()
        hits = answer(query)
        duration, count = time.perf_counter() - begun, len(loaded)
    if json_:
        rows = [hit.to_dict() for hit in hits]
        print_json({"index": index, "query": query, "seconds": round(duration, 4), "hits": rows})
        return
    print_hits(hits, explain)
    note(f"{len(hits):,} of {counted(count, 'text')} in {seconds(duration)}")


def _converse(answer: Callable[[str], Any], explain: bool) -> None:
    """Answer questions from standard input until an empty line."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            typer.echo("? ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        print_hits(answer(line.strip()), explain)
