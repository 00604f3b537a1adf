"""Text files: CSV, JSON lines, JSON arrays, BEIR folders, and one text per line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..utils.checks import counted, url_scheme
from ..utils.hints import Argument, Message

# No model reads a longer text.
_MAX_CHARACTERS = 10_000_000

# A title is prepended to a text.
_DEFAULT_TEXT = ("title", "text")

# The beginning of a file that is text, but not the text to index.
_MARKUP = re.compile(r"\s*(<(!doctype|html|\?xml|svg)\b|\{\\rtf|%PDF)", re.IGNORECASE)

# A CSV column of such cells contains numbers; "007" is not one.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")

# The value of a row, and its position for messages.
_PlacedRow = tuple[Any, str]


class TextFile(NamedTuple):
    """The texts, ids and metadata of a file, in order."""

    texts: list[str] | None  #: None if the file has no texts.
    ids: list[int | str] | None  #: None if the file has no ids.
    metadata: list[dict[str, Any]]  #: One for each text; empty without other columns.
    empty_rows: int = 0  #: Number of CSV rows of blank cells, which are skipped.
    repeats: int = 0  #: Number of rows left out because of `duplicates`.
    remarks: tuple[str, ...] = ()  #: Sentences on CSV columns that are text despite many numbers.


def read_texts(
    path: Path,
    text: Sequence[str] = (),
    id: str | None = None,
    metadata: Sequence[str] | None = None,
    *,
    title: str | None = None,
    duplicates: Literal["skip", "last"] | None = None,
    optional_text: bool = False,
) -> TextFile:
    """Read a text file.

    Parameters
    ----------
    path : Path
        A file of CSV (.csv or .tsv), JSON lines (.jsonl or .ndjson), a JSON array
        (.json) or one text per line, or a folder with corpus.jsonl.
    text : sequence of str
        Columns or keys whose values are joined by line breaks.  Default: "title" and
        "text".
    id : str, optional
        Column or key of the id.  Default: "id" or "_id".
    metadata : sequence of str, optional
        Columns or keys of the metadata.  Default: all other ones and the title; an
        object "metadata" is merged into them.
    title : str, optional
        Column or key of the title; it becomes "title" in the metadata.
    duplicates : {"skip", "last"}, optional
        Of rows with the same id, keep the first or the last one.  Default: refuse them.
    optional_text : bool
        Accept a file of ids and metadata without texts.

    Returns
    -------
    TextFile

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For a file of another format, or a row that does not fit: the message names its
        line.
    """
    if (path / "corpus.jsonl").is_file():
        path = path / "corpus.jsonl"
    if not path.is_file():
        scheme = url_scheme(str(path))  # the URL can contain a password
        fault = "is a folder without corpus.jsonl" if path.is_dir() else "is not a file"
        raise FileNotFoundError(
            f"{path if scheme is None else f'A URL of {scheme}'} {fault}. Give CSV, JSON lines (.jsonl), "
            "a text file, or a folder with corpus.jsonl."
        )
    content = _content(path)
    kind = path.suffix.lower()
    empty_rows = 0
    remarks: tuple[str, ...] = ()
    text_columns = tuple(text) or _DEFAULT_TEXT
    id_columns = ("id", "_id") if id is None else (id,)
    if kind in (".csv", ".tsv"):
        all_rows = list(_csv_rows(path, content))
        rows = [placed for placed in all_rows if placed[0]]
        empty_rows = len(all_rows) - len(rows)
        if rows:
            named = (*text, *([id] if id else []), *([title] if title else []), *(metadata or []))
            _require_columns(path, list(rows[0][0]), named, default_text=not text and not optional_text)
        others = {*text_columns, *id_columns, "metadata", *([title] if title else [])}
        remarks = tuple(_convert_numbers(rows, others))
    else:
        rows = list(_other_rows(path, content, kind))
    if not rows:
        raise ValueError(f"{path} has no texts. Give another file.")
    documents = [_document(row, place, text_columns, id_columns, title, metadata) for row, place in rows]
    ids, contents, values = map(list, zip(*documents, strict=True))
    names = _all_or_none(ids, rows, "id", id_columns, id is None)
    texts = _all_or_none(contents, rows, "text", text or ["text"], optional_text)
    for name, (_, place) in zip(names or [], rows, strict=False):
        if names and type(name) is not type(names[0]):
            raise ValueError(
                f"{place} has the id {name!r}, but {rows[0][1]} has {names[0]!r}: an id is a number in "
                "all rows or in none. Write all as strings."
            )
    kept = _kept_rows(names or [], rows, duplicates)
    if kept is None:
        return TextFile(texts, names, values, empty_rows, 0, remarks)
    texts, names = (None if column is None else [column[i] for i in kept] for column in (texts, names))
    kept_values = [values[i] for i in kept]
    return TextFile(texts, names, kept_values, empty_rows, len(rows) - len(kept), remarks)


def _require_columns(path: Path, columns: list[str], named: Iterable[str], *, default_text: bool) -> None:
    """Raise ValueError unless a CSV file has the named columns.

    With `default_text`, it must also have the column "text".
    """
    for column in named:
        if column not in columns:
            known = ", ".join(columns)
            raise ValueError(f"{path}, line 1 has no column {column!r}. Name one of its columns: {known}.")
    if default_text and _DEFAULT_TEXT[-1] not in columns:
        raise ValueError(
            Message(
                f"{path}, line 1 has no column {_DEFAULT_TEXT[-1]!r}. Choose a column with ",
                Argument("text", "COLUMN"),
                f" (columns: {', '.join(columns)}).",
            )
        )


def _kept_rows(
    names: list[Any], rows: list[_PlacedRow], duplicates: Literal["skip", "last"] | None
) -> list[int] | None:
    """Return the rows to keep, one for each id; None if no id is repeated.

    Raise ValueError for repeated ids without `duplicates`.
    """
    first: dict[Any, int] = {}
    last: dict[Any, int] = {}
    for i, name in enumerate(names):
        first.setdefault(name, i)
        last[name] = i
    count = len(names) - len(first)
    if not count:
        return None
    if duplicates is not None:
        return sorted((first if duplicates == "skip" else last).values())
    row = next(i for i, name in enumerate(names) if first[name] != i)
    repeated = f"{rows[row][1]} has the id {names[row]!r} of {rows[first[names[row]]][1]}"
    others = f", and {counted(count - 1, 'other row')} also repeat{'s' * (count == 2)} an id" * (count > 1)
    raise ValueError(
        Message(
            f"{repeated}{others}. Give each text its own id, or ", Argument("duplicates", "skip"), " or last."
        )
    )


def _all_or_none(
    values: list[Any], rows: list[_PlacedRow], what: str, names: Sequence[str], optional: bool
) -> list[Any] | None:
    """Return the values of all rows, or None if they are optional and all missing.

    Otherwise raise ValueError.
    """
    missing = [row for value, row in zip(values, rows, strict=True) if value is None]
    if missing and not (optional and len(missing) == len(values)):
        row, place = missing[0]
        others = f" (columns: {', '.join(row)})" if isinstance(row, dict) else ""
        raise ValueError(
            Message(
                f"{place} has no value in the column {' or '.join(map(repr, names))}. Fill it in each "
                "row, or choose another column with ",
                Argument(what, "COLUMN"),
                f"{others}.",
            )
        )
    return None if missing else values


def _content(path: Path) -> str:
    """Return the characters of a file.

    Raise ValueError if it is not a text file in UTF-8.
    """
    content = path.read_bytes()
    try:
        if b"\0" in content:
            raise UnicodeDecodeError("utf-8", content, content.index(b"\0"), 0, "it contains binary data")
        characters = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line} is not UTF-8: {error.reason}. Save its texts as CSV, JSON or plain "
            "text in UTF-8."
        ) from None
    if _MARKUP.match(characters):
        raise ValueError(f"{path} is HTML, XML, RTF or PDF. Save its texts as CSV, JSON lines or plain text.")
    return characters


def _other_rows(path: Path, content: str, kind: str) -> Iterator[_PlacedRow]:
    """Yield the elements of a JSON array, of JSON lines, or of lines of text."""
    if kind == ".json" and content.lstrip().startswith("["):
        for number, value in enumerate(_parsed(content, str(path)), 1):
            yield value, f"{path}, element {number}"
        return
    is_json = kind in (".json", ".jsonl", ".ndjson")
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            if not is_json and line.startswith(('{"', '[{"')):
                raise ValueError(f"{place} looks like JSON. Rename the file to .jsonl or .json.")
            yield _parsed(line, place) if is_json else line.strip(), place


def _csv_rows(path: Path, content: str) -> Iterator[_PlacedRow]:
    """Yield the rows of CSV with commas, semicolons or tabs.

    A row whose cells are blank is yielded as an empty dict; an empty line is not.
    """
    csv.field_size_limit(_MAX_CHARACTERS)
    delimiter = max(",;\t", key=content.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in header:
            if name and header.count(name) > 1:
                raise ValueError(f"{path}, line 1 names the column {name!r} twice. Rename one of them.")
        start = reader.line_num + 1
        for cells in reader:
            blank = not any(map(str.strip, cells))
            if not blank and len(cells) != len(header):
                raise csv.Error(
                    f"it has {counted(len(cells), 'cell')}, not {len(header)} as line 1. Quote each cell"
                )
            if cells:
                yield {} if blank else dict(zip(header, cells, strict=True)), f"{path}, line {start}"
            start = reader.line_num + 1
    except csv.Error as error:
        fix = " Close its quotation marks." if "unexpected end" in str(error) else ""
        raise ValueError(f"{path}, line {start} is not CSV: {error}.{fix}") from None


def _convert_numbers(rows: list[_PlacedRow], others: set[str]) -> Iterator[str]:
    """Remove the empty cells of CSV, and convert columns that contain only numbers.

    The columns `others` stay as they are.  Yield a sentence for each column that stays
    text although most of its cells are numbers.
    """
    for name in [name for name in (rows[0][0] if rows else []) if name not in others]:
        filled = [(row[name], place) for row, place in rows if row[name].strip()]
        words = [(cell, place) for cell, place in filled if not _NUMBER.fullmatch(cell)]
        is_number = not words
        # Digits that are no number, such as 007, show that the column contains codes.
        if name and 0 < 2 * len(words) < len(filled) and not any(cell.isdecimal() for cell, _ in words):
            cell, place = words[0]
            yield (
                f"The column {name!r} is stored as text, because {len(words):,} of its {len(filled):,} "
                f"values are not numbers, such as {cell!r} ({place}). Conditions like $gte need numbers: "
                "leave these cells empty."
            )
        for row, _ in rows:
            cell = row.pop(name)
            if name and cell.strip():
                row[name] = json.loads(cell) if is_number else cell


def _parsed(content: str, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}.") from None


def _document(
    row: object,
    place: str,
    text: tuple[str, ...],
    ids: tuple[str, ...],
    title: str | None,
    metadata: Sequence[str] | None,
) -> tuple[int | str | None, str | None, dict[str, Any]]:
    """Return the id, the text and the metadata of a row."""
    row = {text[-1]: row} if isinstance(row, str) else row
    if not isinstance(row, dict):
        raise ValueError(f"{place} must be a JSON object or a string, got {type(row).__name__}.")
    parts = {key: row[key] for key in text if row.get(key) is not None}
    for key, part in parts.items():
        if not isinstance(part, str):
            raise ValueError(f"{place} must have a string as {key!r}, got {type(part).__name__}.")
        if len(part) > _MAX_CHARACTERS:
            raise ValueError(
                f"{place} has {len(part):,} characters as {key!r}. Give at most {_MAX_CHARACTERS:,}."
            )
    has_text = text[-1] in parts if text == _DEFAULT_TEXT else bool(parts)
    content = "\n".join(part for part in parts.values() if part.strip()) if has_text else None
    name = next((row[key] for key in ids if row.get(key) not in (None, "")), None)
    if name is not None and type(name) not in (int, str):
        raise ValueError(f"{place} has the id {name!r}: an id must be an integer or a string.")
    inner = row.pop("metadata", {})
    if isinstance(inner, str):  # in CSV
        inner = _parsed(inner or "{}", place)
    if not isinstance(inner, dict):
        raise ValueError(f"{place}: metadata must be an object, got {type(inner).__name__}.")
    others = {**row, **inner}
    named = {} if title is None or others.get(title) in (None, "") else {"title": others[title]}
    if metadata is not None:
        return name, content, {**{key: others[key] for key in metadata if key in others}, **named}
    used = {*text, *ids, *([title] if title else [])} - {*inner} - ({"title"} if row.get("title") else set())
    return name, content, {**{key: value for key, value in others.items() if key not in used}, **named}
