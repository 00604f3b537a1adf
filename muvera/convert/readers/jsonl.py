"""Reader of JSON and JSON lines: documents, answers of hosted APIs, exports of vector stores.

JSON lines (.jsonl, .ndjson, also .gz) are read line by line in bounded memory.  A single
JSON value (.json) is read whole, which takes some ten times the file's size.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..parsing.json_values import parse_json
from ..parsing.number_literals import is_matrix
from ..parsing.store_decoders import decoder_for
from ..parsing.store_rows import TOKEN_FIELDS, Decoder, Settings, has_keys
from ..parsing.unpacking import open_gzip
from ..sources.base import Source
from ..sources.documents import Document, RowSource

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source", "rows_in"]

NAME = "jsonl"
DESCRIPTION = (
    "a .jsonl, .ndjson or .json file (also .gz) of documents with lists of lists of numbers, of an embedding "
    "API's answers, or of a vector store's rows"
)

_SUFFIXES = (".jsonl", ".ndjson", ".json")

Numbered = Iterator[tuple[str, Any]]

#: What taking a row apart raises where it does not have the form that it should.
_FORM_ERRORS = (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError)


def matches(path: Path) -> bool:
    """Return whether `path` has the name of a JSON file."""
    name = path.name.removesuffix(".gz")
    return path.is_file() and name.endswith(_SUFFIXES)


def open_source(
    path: Path,
    *,
    row_format: str | None = None,
    field: str | None = None,
    id_field: str | None = None,
    packed_signs: bool | None = None,
    cell_type: str | None = None,
) -> Source:
    """Return the source of a JSON or JSON lines file.

    Parameters
    ----------
    path : Path
        A document a line, or a JSON value that holds the documents: a list; ``data`` of a
        hosted API, put in the order of ``index``; ``points``, ``objects``, ``hits``,
        ``documents`` or ``rows`` of a store; or an object of id to token vectors.
    row_format : str, optional
        The store whose rows they are: elasticsearch, vespa, weaviate, qdrant, pgvector,
        milvus or plain.  Default: seen from the first row with tokens.
    field, id_field : str, optional
        Where the token vectors and the ids are.  Default: found by shape and name.
    packed_signs : bool, optional
        Whether 8-bit integers hold 8 signs each.  Default: for Vespa's int8 and
        Elasticsearch's hex texts, which binary embeddings use.
    cell_type : str, optional
        Vespa's type of hex cells, where the rows do not say it.

    Raises
    ------
    ValueError
        Naming the line and what is wrong with it.
    """
    path = Path(path)
    settings = Settings(field, id_field, packed_signs, cell_type)
    rows = _rows_of(path)
    decoder, settings = _choose(rows(), row_format, settings, path)

    def documents() -> Iterator[Document]:
        for where, row in rows():
            try:
                yield decoder.decode(row, settings, where)
            except _FORM_ERRORS as error:
                raise ValueError(f"{path}, {where}: {_sentence(error)}") from None

    return RowSource(documents, name=NAME, place=str(path))


def _choose(
    rows: Numbered, row_format: str | None, settings: Settings, path: Path
) -> tuple[Decoder, Settings]:
    """Return the decoder and the field, from the first row that shows both."""
    first: Any = None
    for where, row in rows:
        first = row if first is None else first
        decoder = decoder_for(row, row_format)
        if decoder is None:
            continue
        try:
            fields = decoder.fields(row)
            if settings.field is not None:
                if fields.get(settings.field) is not None:
                    return decoder, settings
                continue
            field = decoder.field(row)
        except _FORM_ERRORS as error:
            raise ValueError(f"{path}, {where}: {_sentence(error)}") from None
        if field is not None:
            return decoder, settings._replace(field=field)
    if first is None:
        raise ValueError(f"{path} has no documents.")
    keys = f"the fields {', '.join(first)}" if isinstance(first, dict) else f"a {type(first).__name__}"
    wanted = "token vectors" if settings.field is None else f"anything in {settings.field!r}"
    raise ValueError(
        f"{path} has no row with {wanted}; its first has {keys}. Token vectors are lists of lists of "
        "numbers, or what a store makes of them: give row_format= and field= to choose."
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"the row does not have its store's form ({error!r}). Give row_format= if it was guessed wrongly."


def _rows_of(path: Path) -> Callable[[], Numbered]:
    """Return a function that reads the rows from the beginning."""

    def lines() -> Numbered:
        with _open_text(path) as stream:
            yield from _lines(stream, path)

    if not path.name.removesuffix(".gz").endswith(".json"):
        return lines
    try:
        with _open_text(path) as stream:
            content = parse_json(stream.read())
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data"):
            return lines  # JSON lines under another name
        raise ValueError(f"{path} is truncated or no JSON: {error}. Export it again.") from None
    except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as JSON: {str(error).rstrip('.')}.") from None
    found = _rows_at(content, str(path))
    return lambda: ((f"row {i}", row) for i, row in enumerate(found))


def _open_text(path: Path) -> io.TextIOWrapper:
    """Open a file of UTF-8, or a packed one, whose text may not be much larger than itself."""
    return io.TextIOWrapper(open_gzip(path) if path.suffix == ".gz" else path.open("rb"), encoding="utf-8")


def _lines(stream: Iterable[str], path: Path) -> Numbered:
    """Yield the rows of every line; an action line of Elasticsearch's bulk form gives the id."""
    action: dict[str, Any] | None = None
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            value = _parsed(line, f"{path}, line {number}")
            if action is not None:
                value, action = {**action, "_source": value}, None
            elif isinstance(value, dict) and len(value) == 1 and isinstance(_action(value), dict):
                action = _action(value)
                continue
            # A line that is an empty list is a document without tokens, not no document.
            for row in _rows_at(value, f"{path}, line {number}") if value != [] else [value]:
                yield f"line {number}", row
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or truncated after line {number}: {error}.") from None


def _parsed(line: str, where: str) -> Any:
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is truncated or no JSON: {error}. Export it again.") from None


def _action(value: dict[str, Any]) -> Any:
    return value.get("index", value.get("create"))


def _rows_at(value: Any, where: str) -> list[Any]:
    if not isinstance(value, (list, dict)):
        raise ValueError(f"{where} is {json.dumps(value)[:40]}, which holds no documents.")
    try:
        return rows_in(value)
    except _FORM_ERRORS as error:
        raise ValueError(f"{where}: {_sentence(error)}") from None


def rows_in(value: Any) -> list[Any]:
    """Return the rows that a list or object holds; one that is itself a row is returned alone."""
    if isinstance(value, list):
        return [value] if is_matrix(value) else value
    inner = value.get("result", value)
    if isinstance(inner, list):
        return inner
    if isinstance(inner, dict) and isinstance(inner.get("points"), list):
        return list(inner["points"])
    if isinstance(value.get("hits"), dict):
        return list(value["hits"].get("hits", []))
    for key in ("data", "objects", "documents", "rows"):
        rows = value.get(key)
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            # Hosted APIs number their answers, which need not come in order.
            if key == "data" and all(
                has_keys(row, "index") and isinstance(row["index"], int) for row in rows
            ):
                rows = sorted(rows, key=lambda row: int(row["index"]))
            return rows
    for key in ("embeddings", "colbert_vecs", "tokens", "vectors"):
        rows = value.get(key)
        if isinstance(rows, list) and rows and is_matrix(rows[0]):
            return rows  # all documents in one list
    mapped = all(tokens == [] or is_matrix(tokens) for tokens in value.values())
    if mapped and any(value.values()) and not set(TOKEN_FIELDS) & set(value):
        return [{"id": key, "tokens": tokens} for key, tokens in value.items()]
    return [value]
