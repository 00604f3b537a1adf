"""Files of texts: CSV, JSON lines, JSON arrays, BEIR folders, and one text per line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.checks import counted

# No model reads a longer text.
_MAX_CHARACTERS = 10_000_000

# A title is prepended to a text.
_DEFAULT_TEXT = ("title", "text")

# The beginning of a file that is text, but not the text to index.
_MARKUP = re.compile(r"\s*(<(!doctype|html|\?xml|svg)\b|\{\\rtf|%PDF)", re.IGNORECASE)

# A CSV column of such cells contains numbers; "007" is not one.
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")


class TextFile(NamedTuple):
    """The texts, ids and metadata of a file, in order; `texts` or `ids` is None if the file has none."""

    texts: list[str] | None
    ids: list[int | str] | None
    metadata: list[dict[str, Any]]


def read_texts(
    path: Path,
    text: Sequence[str] = (),
    id: str | None = None,
    metadata: Sequence[str] | None = None,
    *,
    optional_text: bool = False,
) -> TextFile:
    """Read a file of texts.

    Parameters
    ----------
    path : Path
        A ``.csv`` or ``.tsv`` file with a header, ``.jsonl``, a ``.json`` array, a BEIR folder with
        ``corpus.jsonl``, or a file with one text per line.
    text : sequence of str
        Columns or keys whose values are joined by line breaks.  Default: "title" (if it exists) and "text".
        The default title is also stored as metadata.
    id : str, optional
        Column or key of the id.  Default: "id" or "_id", if it exists.
    metadata : sequence of str, optional
        Columns or keys to store as metadata.  Default: all others; an object "metadata" is merged into them.
        CSV columns that contain only numbers become numbers, and empty cells are skipped.
    optional_text : bool
        Also accept a file without texts, to update metadata.

    Raises
    ------
    FileNotFoundError, ValueError
        For a missing file, one without texts or in another format, or an invalid row; the message names its line.
    """
    if path.is_dir() and (path / "corpus.jsonl").is_file():
        path = path / "corpus.jsonl"
    if not path.is_file():
        fault = "is a folder without corpus.jsonl" if path.is_dir() else "is not a file"
        raise FileNotFoundError(
            f"{path} {fault}. Give CSV, JSON lines (.jsonl), a text file, or a folder with corpus.jsonl."
        )
    columns = _Columns(
        tuple(text) or _DEFAULT_TEXT, ("id", "_id") if id is None else (id,), metadata,
        [*text, *([id] if id else []), *(metadata or [])],
    )  # fmt: skip
    rows = list(_rows(path, columns))
    if not rows:
        raise ValueError(f"{path} has no texts. Give another file.")
    places = [place for _, place in rows]
    documents = [_document(row, place, columns) for row, place in rows]
    ids, contents, values = map(list, zip(*documents, strict=True))
    names = _all_or_none(ids, rows, "id", columns.id, id is None)
    texts = _all_or_none(contents, rows, "text", text or ["text"], optional_text)
    first: dict[Any, str] = {}
    for name, place in zip(names or [], places, strict=False):
        if first.setdefault(name, place) is not place:
            raise ValueError(f"{place} has the id {name!r} of {first[name]}. Give each text its own id.")
        if names and type(name) is not type(names[0]):
            raise ValueError(
                f"{place} has the id {name!r}, but {places[0]} has {names[0]!r}: an id is a number in all rows or "
                "in none. Write all as strings."
            )
    return TextFile(texts, names, values)


def _all_or_none(
    values: list[Any], rows: list[tuple[Any, str]], what: str, names: Sequence[str], optional: bool
) -> list[Any] | None:
    """Return the values of all rows, or None if they are optional and all missing; otherwise raise ValueError."""
    missing = [row for value, row in zip(values, rows, strict=True) if value is None]
    if missing and not (optional and len(missing) == len(values)):
        row, place = missing[0]
        others = f" (columns: {', '.join(row)})" if isinstance(row, dict) else ""
        raise ValueError(
            f"{place} has no value in the column {' or '.join(map(repr, names))}. Fill it in each row, or choose "
            f"another column with {what}=COLUMN{others}."
        )
    return None if missing else values


class _Columns(NamedTuple):
    """Columns of texts, ids and metadata; `required` must be in a CSV header."""

    text: tuple[str, ...]
    id: tuple[str, ...]
    metadata: Sequence[str] | None
    required: list[str]


def _rows(path: Path, columns: _Columns) -> Iterator[tuple[Any, str]]:
    """Yield each row, and its position for messages."""
    content, kind = _content(path), path.suffix.lower()
    if kind in (".csv", ".tsv"):
        yield from _csv_rows(path, content, columns)
    elif kind == ".json" and content.lstrip().startswith("["):
        for number, value in enumerate(_parsed(content, str(path)), 1):
            yield value, f"{path}, element {number}"
    else:
        is_json = kind in (".json", ".jsonl", ".ndjson")
        for number, line in enumerate(content.split("\n"), 1):
            if line.strip():
                place = f"{path}, line {number}"
                if not is_json and line.startswith(('{"', '[{"')):
                    raise ValueError(f"{place} looks like JSON. Rename the file to .jsonl or .json.")
                yield _parsed(line, place) if is_json else line.strip(), place


def _content(path: Path) -> str:
    """Return the characters of a file, or raise ValueError if it is not a text file in UTF-8."""
    content = path.read_bytes()
    try:
        if b"\0" in content:
            raise UnicodeDecodeError("utf-8", content, content.index(b"\0"), 0, "it contains binary data")
        characters = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line} is not UTF-8: {error.reason}. Save its texts as CSV, JSON or plain text in UTF-8."
        ) from None
    if _MARKUP.match(characters):
        raise ValueError(f"{path} is HTML, XML, RTF or PDF. Save its texts as CSV, JSON lines or plain text.")
    return characters


def _csv_rows(path: Path, content: str, columns: _Columns) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the rows of CSV with commas, semicolons or tabs; columns of only numbers become numbers."""
    csv.field_size_limit(_MAX_CHARACTERS)
    first = content.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    start = 1
    rows: list[tuple[dict[str, Any], str]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in columns.required:
            if name not in header:
                raise ValueError(
                    f"{path}, line 1 has no column {name!r}. Name one of its columns: {', '.join(header)}."
                )
        twice = next((name for name in header if name and header.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{path}, line 1 names the column {twice!r} twice. Rename one of them.")
        start = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise csv.Error(
                    f"it has {counted(len(cells), 'cell')}, not {len(header)} as line 1. Quote each cell"
                )
            if cells:
                rows.append((dict(zip(header, cells, strict=True)), f"{path}, line {start}"))
            start = reader.line_num + 1
    except csv.Error as error:
        fix = " Close its quotation marks." if "unexpected end" in str(error) else ""
        raise ValueError(f"{path}, line {start} is not CSV: {error}.{fix}") from None
    others = [name for name in header if name not in {*columns.text, *columns.id, "metadata"}]
    numeric = {
        name for name in others if all(_NUMBER.fullmatch(row[name]) for row, _ in rows if row[name].strip())
    }
    for row, place in rows:
        for name in others:
            cell = row.pop(name)
            if name and cell.strip():
                row[name] = (float(cell) if "." in cell else int(cell)) if name in numeric else cell
        yield row, place


def _parsed(content: str, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}.") from None


def _document(row: Any, place: str, columns: _Columns) -> tuple[int | str | None, str | None, dict[str, Any]]:
    """Return the id, the text and the metadata of a row."""
    row = {columns.text[-1]: row} if isinstance(row, str) else row
    if not isinstance(row, dict):
        raise ValueError(f"{place} must be a JSON object or a string, got {type(row).__name__}.")
    parts = {key: row[key] for key in columns.text if row.get(key) is not None}
    for key, part in parts.items():
        if not isinstance(part, str):
            raise ValueError(f"{place} must have a string as {key!r}, got {type(part).__name__}.")
        if len(part) > _MAX_CHARACTERS:
            raise ValueError(
                f"{place} has {len(part):,} characters as {key!r}. Give at most {_MAX_CHARACTERS:,}."
            )
    has_text = columns.text[-1] in parts if columns.text == _DEFAULT_TEXT else bool(parts)
    text = "\n".join(part for part in parts.values() if part.strip()) if has_text else None
    name = next((row[key] for key in columns.id if row.get(key) not in (None, "")), None)
    if name is not None and type(name) not in (int, str):
        raise ValueError(f"{place} has the id {name!r}: an id must be an integer or a string.")
    inner = row.pop("metadata", {})
    if isinstance(inner, str):  # in CSV
        inner = _parsed(inner or "{}", place)
    if not isinstance(inner, dict):
        raise ValueError(f"{place}: metadata must be an object, got {type(inner).__name__}.")
    others = {**row, **inner}
    if columns.metadata is not None:
        return name, text, {key: others[key] for key in columns.metadata if key in others}
    used = {*columns.text, *columns.id} - {*inner} - ({"title"} if row.get("title") else set())
    return name, text, {key: value for key, value in others.items() if key not in used}
