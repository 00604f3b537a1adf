"""``muvera texts``: index texts, change them and search them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from .hits import print_document, print_hits, print_list
from .options import Json, Overwrite, Quiet, Recall, TextEncoder, Threads, Where, parse_json
from .output import megabytes, note, print_json, progress_bar, seconds

if TYPE_CHECKING:
    from ..texts.text_files import TextFile
    from ..texts.text_index import TextIndex

__all__ = ["converse", "texts"]

# Number of texts per change.
_BATCH = 64

Index = Annotated[
    str, Argument(metavar="INDEX", help="Folder written by muvera texts index, or an engine's URL.")
]
Texts = Annotated[
    Path,
    Argument(
        metavar="TEXTS", help="CSV, JSON lines or array, a BEIR folder, or a file with one text per line."
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
    tokens: Annotated[
        str | None, Option(help="How tokens are stored: float32, float16, int8, 4bit, 2bit or 1bit.")
    ] = None,
    vectors: Annotated[
        str | None, Option(help="Document vectors: moments, learned, mean, fde, paper or reference.")
    ] = None,
    backend: Annotated[
        str | None, Option(help="How document vectors are searched: auto, exact, scan or hnsw.")
    ] = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
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
    from ..encoders.registry import PRESETS
    from ..index.generations import require_place
    from ..index.settings import IndexSettings
    from ..texts.encoders.base import CachedEncoder
    from ..texts.encoders.registry import load_text_encoder
    from ..texts.text_index import TextIndex
    from ..utils.checks import require_choice

    require_place(out, overwrite)
    content = _read(source, text, id, metadata)
    given = {"tokens": tokens, "backend": backend}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    IndexSettings(**settings)  # refuse wrong options before texts are encoded
    if vectors is not None:
        require_choice("vectors", vectors, PRESETS)
    begun = time.perf_counter()
    cache = out.with_name(f"{out.name}.encoded")
    model = CachedEncoder(load_text_encoder(encoder), cache)
    try:
        with progress_bar(len(content.metadata), "texts", "encoding", quiet) as advance:
            index = TextIndex.build(
                content.texts or [], model, ids=content.ids, metadata=content.metadata, path=out,
                overwrite=overwrite, threads=threads, progress=advance, vectors=vectors, **settings,
            )  # fmt: skip
    except BaseException:
        if len(model):
            note(f"muvera: {cache} keeps {len(model):,} encoded texts. Run the command again to continue.")
        model.close(keep=True)
        raise
    model.close(keep=False)
    duration = time.perf_counter() - begun
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    facts = {"index": str(out), "texts": len(index), "encoder": model.name, "bytes": size}
    if json_:
        print_json({**facts, "seconds": round(duration, 3)})
        return
    typer.echo(
        f"{out}: {len(index):,} texts, encoded by {model.name}, {megabytes(size)}, in {seconds(duration)}"
    )


def _read(source: Path, text: str | None, id: str | None, metadata: str, **options: Any) -> TextFile:
    from ..texts.text_files import read_texts

    columns = {"rest": None, "none": []}.get(metadata, metadata.split(","))
    return read_texts(source, text.split(",") if text else (), id, columns, **options)


@contextmanager
def _opened(index: str, encoder: str | None, *, change: bool = False) -> Iterator[TextIndex]:
    """Open an index of texts.  If `change` is true, its changes are durable."""
    from ..engines.base import is_engine_url
    from ..texts.text_index import TextIndex

    if change or is_engine_url(index):
        with TextIndex.open(index, encoder) as opened:
            yield opened
    else:
        yield TextIndex.load(index, encoder)


def _stored_ids(index: TextIndex, ids: list[Any]) -> list[int | str]:
    """Convert ids from CSV or the command line to integers if the index contains them as integers."""
    numbers = {id: int(id) for id in ids if isinstance(id, str) and id.isdecimal() and len(id) < 19}
    documents = index.get([*numbers, *numbers.values()], missing="ignore") if numbers else []
    known = {document.id for document in documents}
    return [numbers[id] if numbers.get(id) in known and id not in known else id for id in ids]


@texts.command("add")
def add(
    index: Index,
    source: Texts,
    text: TextColumns = None,
    id: IdColumn = None,
    metadata: MetadataColumns = "rest",
    encoder: TextEncoder = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add texts with new ids.

    \b
    Example:
      muvera texts add my-index more.csv --text title,body --id url
    """
    content = _read(source, text, id, metadata)
    with _opened(index, encoder, change=True) as opened:
        for used in opened.get(content.ids or [], missing="ignore"):
            raise ValueError(f"{index} contains the id {used.id!r}. Use muvera texts update to replace it.")
        _in_batches(opened.add, content, quiet)
        _report(json_, index, opened, added=len(content.metadata))


@texts.command("update")
def update(
    index: Index,
    source: Texts,
    text: TextColumns = None,
    id: IdColumn = None,
    metadata: MetadataColumns = "rest",
    encoder: TextEncoder = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Replace texts and metadata by id, and add texts with new ids.

    Only new and different texts are encoded.  Metadata that TEXTS does not contain stays; null removes it.  A
    file without texts changes only metadata.

    \b
    Example:
      muvera texts update my-index pages.csv --text title,body --id url
    """
    from ..texts.text_files import TextFile

    content = _read(source, text, id, metadata, optional_text=True)
    if content.ids is None:
        raise ValueError(f"{source} has no ids, which an update needs. Name their column with --id.")
    with _opened(index, encoder, change=True) as opened:
        ids = _stored_ids(opened, content.ids)
        missing: Any = "ignore" if content.texts else "raise"
        stored = {document.id: document for document in opened.get(ids, missing=missing)}
        contents = content.texts or [stored[name].text for name in ids]
        encode: dict[Any, tuple[str, dict[str, Any]]] = {}
        change: dict[Any, dict[str, Any]] = {}
        for name, new, row in zip(ids, contents, content.metadata, strict=True):
            before = stored[name].metadata if name in stored else {}
            values = {key: value for key, value in {**before, **row}.items() if value is not None}
            if name not in stored or new != stored[name].text:
                encode[name] = new, values
            elif values != before:
                change[name] = values
        if change:
            opened.update(ids=list(change), metadata=list(change.values()))
        pairs = list(encode.values())
        different = TextFile([new for new, _ in pairs], list(encode), [values for _, values in pairs])
        _in_batches(opened.update, different, quiet)
        added = sum(name not in stored for name in encode)
        _report(
            json_, index, opened, added=added, replaced=len(encode) - added, metadata_changed=len(change),
            unchanged=len(ids) - len(encode) - len(change),
        )  # fmt: skip


def _in_batches(change: Callable[..., object], content: TextFile, quiet: bool) -> None:
    """Call `change` with a few texts at a time; an interrupt does not undo the earlier calls."""
    texts = content.texts or []
    with progress_bar(len(texts), "texts", "encoding", quiet) as advance:
        for start in range(0, len(texts), _BATCH):
            rows = slice(start, start + _BATCH)
            ids = None if content.ids is None else content.ids[rows]
            change(texts[rows], ids=ids, metadata=content.metadata[rows])
            advance(len(texts[rows]))


def _report(json_: bool, name: str, index: TextIndex, **counts: int) -> None:
    if json_:
        print_json({"index": name, "texts": len(index), **counts})
        return
    shown = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())
    typer.echo(f"{name}: {shown}; {len(index):,} texts")


@texts.command("delete")
def delete(
    index: Index,
    ids: Annotated[list[str] | None, Argument(metavar="ID...", help="Ids of texts.")] = None,
    where: Where = None,
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """Delete texts by id or by a condition."""
    if bool(ids) == (where is not None):
        raise ValueError("Give either ids or --where.")
    with _opened(index, encoder, change=True) as opened:
        names = _stored_ids(opened, ids) if ids else opened.select(parse_json("--where", where))
        opened.delete(names)
        _report(json_, index, opened, deleted=len(names))


@texts.command("get")
def get(
    index: Index,
    ids: Annotated[list[str], Argument(metavar="ID...", help="Ids of texts.")],
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """Print texts and their metadata."""
    with _opened(index, encoder) as opened:
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
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """List texts in the order in which they were added."""
    with _opened(index, encoder) as opened:
        ids = opened.select(parse_json("--where", where) or {})
        documents = opened.get(ids[offset : offset + limit])
    if json_:
        print_json(
            {"index": index, "found": len(ids), "documents": [vars(document) for document in documents]}
        )
        return
    print_list(documents)
    rows = f"{offset + 1:,} to {offset + len(documents):,}" if documents else "0"
    note(f"{rows} of {len(ids):,} texts")


@texts.command("search")
def search(
    index: Index,
    query: Annotated[
        str | None, Argument(metavar="QUERY", help="A question (default: prompt for questions).")
    ] = None,
    k: Annotated[int, Option("--k", "-k", min=1, help="Number of answers.")] = 10,
    where: Where = None,
    unit: Annotated[str, Option(help="What to find: document or sentence.")] = "document",
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
    quiet: Quiet = False,
) -> None:
    """Search an index of texts with a question.

    \b
    Example:
      muvera texts search my-index "a question" -k 3 --explain
    """
    if unit not in ("document", "sentence"):
        raise ValueError(f"--unit must be document or sentence, got {unit!r}.")
    condition = parse_json("--where", where)
    with _opened(index, encoder) as loaded:
        method: Callable[..., Any] = loaded.search if unit == "document" else loaded.search_sentences
        plan = {"k": k, "where": condition, "words": words, "recall": recall}
        plan["candidates"] = None if candidates is None else max(candidates, k)
        # Printing a text needs its best passage.
        marks = explain or (not json_ and loaded.encoder.token_spans(query or "a", "query") is not None)
        answer = partial(method, **plan, explain=marks)
        if query is None:
            converse(answer, explain)
            return
        begun = time.perf_counter()
        hits = answer(query)
        duration, count = time.perf_counter() - begun, len(loaded)
    if json_:
        rows = [hit.to_dict() for hit in hits]
        print_json({"index": index, "query": query, "seconds": round(duration, 4), "hits": rows})
        return
    print_hits(hits, explain)
    if not quiet:
        note(f"{len(hits):,} of {count:,} texts in {seconds(duration)}")


def converse(answer: Callable[[str], Any], explain: bool) -> None:
    """Answer questions from standard input until an empty line."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            typer.echo("? ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        print_hits(answer(line.strip()), explain)
