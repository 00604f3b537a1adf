"""``muvera texts``: index texts, change them and search them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

import muvera

from .shared import (
    Backend,
    Json,
    Out,
    Overwrite,
    Recall,
    TextEncoder,
    Threads,
    Tokens,
    Where,
    document_line,
    document_text,
    given,
    hits_text,
    megabytes,
    note,
    progress_bar,
    seconds,
    show,
    warn_of_unmatched,
    wrapped,
)

if TYPE_CHECKING:
    from ..texts.text_files import TextFile

# Number of texts per change.
_BATCH = 64

Index = Annotated[str, Argument(metavar="INDEX", help="Folder of an index of texts, or an engine's URL.")]
Texts = Annotated[
    Path,
    Argument(metavar="TEXTS", help="CSV, JSON lines, a JSON array, a BEIR folder, or one text per line."),
]
TextColumns = Annotated[
    Any,
    Option(
        "--text",
        metavar="COLUMNS",
        parser=lambda names: names.split(","),
        help="Columns to search, such as title,body (default: title, if any, and text).",
    ),
]
IdColumn = Annotated[str | None, Option("--id", help="Column of the id (default: id or _id).")]
MetadataColumns = Annotated[
    Any,
    Option(
        "--metadata",
        metavar="COLUMNS",
        parser=lambda names: {"rest": None, "none": []}.get(names, names.split(",")),
        help="Columns to keep as metadata, such as year,author; or none (default: all other columns).",
    ),
]

# One function implements add and update, so both have the same options.
_ADD = """Add texts with new ids.

If the command is killed, complete batches of 64 texts stay.  muvera texts update with the same file adds
the rest.

\b
Example:
  muvera texts add my-index more.csv --text title,body --id url
"""
_UPDATE = """Replace texts and metadata by id, and add texts with new ids.

Only new and different texts are encoded.  Metadata replaces the stored metadata, unless TEXTS has none.  A
file without texts changes only the fields that it contains; null removes a field.

\b
Example:
  muvera texts update my-index pages.csv --text title,body --id url
"""

texts = typer.Typer(rich_markup_mode=None)


@texts.callback()
def start() -> None:
    """Index texts, change them and search them.

    \b
    Example:
      muvera texts index pages.csv my-index --text title,body --id url
      muvera texts search my-index "a question"
    """


@texts.command("index")
def build(
    source: Texts,
    out: Out,
    text: TextColumns = None,
    id: IdColumn = None,
    metadata: MetadataColumns = None,
    encoder: Annotated[
        str,
        Option(
            help="Text encoder: colbert-small (extra fastembed), minilm (only for demos; extra minilm), "
            "sentence-transformers:CHECKPOINT, http://HOST/PATH#MODEL, ..."
        ),
    ] = "minilm",
    tokens: Tokens = None,
    vectors: Annotated[
        Literal["fde", "moments", "mean", "simhash", "paper", "reference"] | None,
        Option(help="Vectors of the first stage (default: fde)."),
    ] = None,
    backend: Backend = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Encode texts and build an index of them, with their metadata.

    An interrupted command continues if you run it again: encoded texts are kept in
    OUT.encoded until the index is complete.

    \b
    Example:
      muvera texts index pages.csv my-index --text title,body --id url
      muvera texts search my-index "a question" --where '{"year": {"$gte": 2000}}'
      muvera serve my-index
    """
    from ..index.generations import require_place
    from ..texts.encoders.base import CachedEncoder
    from ..texts.encoders.registry import load_text_encoder
    from ..texts.text_files import read_texts
    from ..utils.checks import as_path, counted

    require_place(as_path(out, "OUT"), overwrite)
    content = read_texts(source, text or (), id, metadata)
    begun = time.perf_counter()
    cache = out.with_name(f"{out.name}.encoded")
    model = CachedEncoder(load_text_encoder(encoder), cache)
    try:
        with progress_bar(len(content.metadata), "texts", "encoding") as advance:
            index = muvera.TextIndex.build(
                content.texts or [], model, ids=content.ids, metadata=content.metadata, path=out,
                overwrite=overwrite, threads=threads, progress=advance,
                **given(vectors=vectors, tokens=tokens, backend=backend),
            )  # fmt: skip
    except BaseException:
        if len(model):
            note(
                f"muvera: {cache} keeps {counted(len(model), 'encoded text')}. Run the command again to continue."
            )
        model.close(keep=True)
        raise
    model.close(keep=False)
    duration = time.perf_counter() - begun
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    facts = {"index": str(out), "texts": len(index), "encoder": model.name, "bytes": size}
    name = model.name + (" (only for demos)" if encoder == "minilm" else "")
    line = (
        f"{out}: {counted(len(index), 'text')}, encoded by {name}, {megabytes(size)}, in {seconds(duration)}"
    )
    show(json_, {**facts, "seconds": round(duration, 3)}, wrapped(line))


def _opened(
    index: str, encoder: str | None, *, change: bool = False, encodes: bool = True
) -> muvera.TextIndex:
    """Open an index of texts.  If `change` is true, its changes are durable."""
    from ..texts.encoders.base import NoEncoder
    from ..utils.checks import url_scheme

    model = NoEncoder() if encoder is None and not encodes else encoder
    opens = muvera.TextIndex.open if change or url_scheme(index) else muvera.TextIndex.load
    return opens(index, model)


def _stored_ids(index: muvera.TextIndex, ids: list[Any]) -> list[int | str]:
    """Convert ids from CSV or the command line to integers if the index contains them as integers."""
    numbers = {id: int(id) for id in ids if isinstance(id, str) and id.isdecimal() and len(id) < 19}
    documents = index.get([*numbers, *numbers.values()], missing="ignore") if numbers else []
    known = {document.id for document in documents}
    return [numbers[id] if numbers.get(id) in known and id not in known else id for id in ids]


@texts.command("update", help=_UPDATE)
@texts.command("add", help=_ADD)
def change(
    context: typer.Context,
    index: Index,
    source: Texts,
    text: TextColumns = None,
    id: IdColumn = None,
    metadata: MetadataColumns = None,
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """Add or update texts; _ADD and _UPDATE are the help."""
    from ..texts.text_files import read_texts

    update = context.command.name == "update"
    content = read_texts(source, text or (), id, metadata, optional_text=update)
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
            _in_batches(opened.add, content.texts or [], content.ids, content.metadata)
            counts = {"added": len(content.metadata)}
        _report(json_, index, opened, **counts)


def _update(index: muvera.TextIndex, content: TextFile) -> dict[str, int]:
    """Encode the new and different texts, change metadata of the others, and return how many changed."""
    ids, replaces = _stored_ids(index, content.ids or []), content.texts and any(content.metadata)
    stored = {row.id: row for row in index.get(ids, missing="ignore" if content.texts else "raise")}
    contents = content.texts or [stored[name].text for name in ids]
    encode: dict[Any, tuple[str, dict[str, Any]]] = {}
    change: dict[Any, dict[str, Any]] = {}
    for name, text, row in zip(ids, contents, content.metadata, strict=True):
        before = stored[name].metadata if name in stored else {}
        merged = row if replaces else {**before, **row}
        values = {key: value for key, value in merged.items() if value is not None}
        if name not in stored or text != stored[name].text:
            encode[name] = text, values
        elif values != before:
            change[name] = {**dict.fromkeys(before), **values}  # None removes a field
    if change:
        index.update(ids=list(change), metadata=list(change.values()))
    texts, metadata = zip(*encode.values(), strict=True) if encode else ((), ())
    _in_batches(index.update, texts, list(encode), metadata)
    added = len(encode.keys() - stored.keys())
    return {
        "added": added,
        "replaced": len(encode) - added,
        "metadata_changed": len(change),
        "unchanged": len(ids) - len(encode) - len(change),
    }


def _in_batches(
    change: Callable[..., object], texts: Sequence[str], ids: list[Any] | None, metadata: Sequence[Any]
) -> None:
    """Call `change` with a few texts at a time.

    An error or interrupt does not undo the earlier calls.
    """
    with progress_bar(len(texts), "texts", "encoding") as advance:
        for start in range(0, len(texts), _BATCH):
            rows = slice(start, start + _BATCH)
            try:
                change(texts[rows], ids=None if ids is None else ids[rows], metadata=metadata[rows])
            except BaseException:
                if start:
                    stored = f"The first {start:,} of {len(texts):,} texts to encode are stored."
                    note(f"muvera: {stored} muvera texts update stores the rest of a file with ids.")
                raise
            advance(len(texts[rows]))


def _report(json_: bool, name: str, index: muvera.TextIndex, **counts: int) -> None:
    from ..utils.checks import counted

    shown = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())
    line = f"{name}: {shown}; {counted(len(index), 'text')}"
    show(json_, {"index": name, "texts": len(index), **counts}, wrapped(line))


@texts.command("delete")
def delete(
    index: Index,
    ids: Annotated[list[str] | None, Argument(metavar="ID", help="Ids of texts.")] = None,
    where: Where = None,
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """Delete texts by id or by a condition; from a database only by id.

    \b
    Example:
      muvera texts delete my-index --where '{"year": {"$lt": 2000}}'
    """
    if bool(ids) == (where is not None):
        raise ValueError(f"Give either ids or --where, got {'both' if ids else 'neither'}.")
    if where == {}:
        raise ValueError("--where {} would delete all texts. Give a condition on a field.")
    with _opened(index, encoder, change=True, encodes=False) as opened:
        # `get` names an unknown id as it was typed.
        names = [text.id for text in opened.get(_stored_ids(opened, ids))] if ids else opened.select(where)
        opened.delete(names)
        if not names:
            warn_of_unmatched(where, opened.select)
        _report(json_, index, opened, deleted=len(names))


@texts.command("get")
def get(
    index: Index,
    ids: Annotated[list[str], Argument(metavar="ID", help="Ids of texts.")],
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """Print texts and their metadata."""
    with _opened(index, encoder, encodes=False) as opened:
        documents = opened.get(_stored_ids(opened, ids))
    facts = {"index": index, "documents": [vars(document) for document in documents]}
    show(json_, facts, "\n".join(map(document_text, documents)))


@texts.command("list")
def list_(
    index: Annotated[str, Argument(metavar="INDEX", help="Folder of an index of texts.")],
    where: Where = None,
    limit: Annotated[int, Option(min=1, help="Number of texts to print.")] = 20,
    offset: Annotated[int, Option(min=0, help="Number of texts to skip.")] = 0,
    encoder: TextEncoder = None,
    json_: Json = False,
) -> None:
    """List texts in the order in which they were added."""
    from ..utils.checks import counted

    with _opened(index, encoder, encodes=False) as opened:
        ids = opened.select(where or {})
        documents = opened.get(ids[offset : offset + limit])
        if not ids:
            warn_of_unmatched(where, opened.select)
    facts = {"index": index, "found": len(ids), "documents": [vars(document) for document in documents]}
    shown = f"{offset + 1:,} to {offset + len(documents):,}" if documents else "0"
    lines = "\n".join(map(document_line, documents))
    show(json_, facts, lines, f"{shown} of {counted(len(ids), 'text')}")


@texts.command("search")
def search(
    index: Index,
    query: Annotated[str | None, Argument(metavar="QUERY", help="A question (default: a prompt).")] = None,
    k: Annotated[int, Option("--k", "-k", min=1, help="Number of answers.")] = 10,
    where: Where = None,
    unit: Annotated[Literal["document", "sentence"], Option(help="What to search.")] = "document",
    words: Annotated[float, Option(help="Weight of shared words (BM25), from 0 to below 1.")] = 0.1,
    candidates: Annotated[int | None, Option(min=1, help="Texts to rank (default: 200; URL: 100).")] = None,
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

    if query is not None and not query.strip():
        raise ValueError("The question is blank. Give one, or omit it and type it at the prompt.")
    with _opened(index, encoder) as loaded:
        find: Callable[..., Any] = loaded.search if unit == "document" else loaded.search_sentences
        for question in iter(_typed_line, "") if query is None else [query]:
            # The printed passage of a text is the one whose words match best, which the
            # explanation contains.
            explained = explain or (not json_ and loaded.encoder.token_spans(question, "query") is not None)
            begun = time.perf_counter()
            hits = find(
                question, k, where=where, words=words, recall=recall, explain=explained,
                candidates=None if candidates is None else max(candidates, k),
            )  # fmt: skip
            duration = time.perf_counter() - begun
            if not hits:
                # A search works for databases, too; they have no select.
                warn_of_unmatched(where, lambda probe: loaded.search("a", 1, where=probe, words=0))
            facts = {"index": index, "query": question, "seconds": round(duration, 4)}
            facts["hits"] = [hit.to_dict() for hit in hits]
            remark = f"{len(hits):,} of {counted(len(loaded), 'text')} in {seconds(duration)}"
            show(json_, facts, "" if json_ else hits_text(hits, explain), remark)


def _typed_line() -> str:
    if sys.stdin.isatty():
        typer.echo("? ", nl=False, err=True)
    return sys.stdin.readline().strip()
