"""Files of texts: JSON lines, JSON arrays and CSV with ids and metadata, or one text per line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["TextFile", "read_texts"]

# No model reads a longer line.
_MAX_CHARACTERS = 10_000_000


class TextFile(NamedTuple):
    """The texts of a file, in order; `ids` is None if the file has none."""

    texts: list[str]
    ids: list[int | str] | None
    metadata: list[dict[str, Any]]


def read_texts(path: Path, text_field: str = "text") -> TextFile:
    """Read a file of texts.

    Parameters
    ----------
    path : Path
        ``.jsonl``, a ``.json`` array, or ``.csv``: each row has the text, an optional "id" or "_id", an optional
        "title" that is prepended to the text, and an optional object "metadata".  All other keys are metadata
        too.  Any other ending: one text per line, without empty lines.
    text_field : str
        Key of the text.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For a file without texts, or an invalid row; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file. Give JSON lines (.jsonl), CSV or one text per line.")
    rows = [
        ({text_field: row}, place) if isinstance(row, str) else (row, place) for row, place in _rows(path)
    ]
    if not rows:
        raise ValueError(f"{path} has no texts. Give another file.")
    documents = [_document(row, place, text_field) for row, place in rows]
    ids = [id for id, _, _ in documents if id is not None]
    if ids and len(ids) < len(documents):
        raise ValueError(
            f"{path}: {len(documents) - len(ids)} of {len(documents)} texts have no id. Give all an id, or none."
        )
    return TextFile(
        [text for _, text, _ in documents], ids or None, [metadata for _, _, metadata in documents]
    )


def _rows(path: Path) -> Iterator[tuple[Any, str]]:
    """Yield each row, and its place for messages."""
    kind = path.suffix.lower()
    if kind == ".json":
        values = _parsed("\n".join(line for line, _ in _lines(path)), str(path))
        if not isinstance(values, list):
            raise ValueError(f"{path} must be a JSON array of objects, got {type(values).__name__}.")
        for number, value in enumerate(values, 1):
            yield value, f"{path}, element {number}"
    elif kind == ".csv":
        reader = csv.DictReader((f"{line}\n" for line, _ in _lines(path)), strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise csv.Error("a row has more or fewer cells than the header")
                yield dict(row), f"{path}, line {reader.line_num}"
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num} is not CSV: {error}.") from None
    else:
        for line, place in _lines(path):
            if line.strip():
                yield _parsed(line, place) if kind in (".jsonl", ".ndjson") else line.strip(), place


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as stream:
        for number, content in enumerate(stream, 1):
            place = f"{path}, line {number}"
            try:
                line = content.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{place} is not UTF-8: {error.reason}. Save the file as UTF-8.") from None
            if len(line) > _MAX_CHARACTERS and path.suffix.lower() != ".json":
                raise ValueError(f"{place} has {len(line):,} characters. Split it into texts.")
            yield line, place


def _parsed(content: str, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}.") from None


def _document(row: Any, place: str, text_field: str) -> tuple[int | str | None, str, dict[str, Any]]:
    if not isinstance(row, dict):
        raise ValueError(f"{place} must be a JSON object, got {type(row).__name__}.")
    text = row.pop(text_field, None)
    if not isinstance(text, str):
        raise ValueError(f"{place} has no text under {text_field!r}. Give the key of the texts.")
    title = row.pop("title", None)
    if isinstance(title, str) and title:
        text = f"{title}\n{text}"
    ids = [row.pop(key) for key in ("id", "_id") if key in row]  # BEIR writes "_id"
    id = ids[0] if ids else None
    if id is not None and (isinstance(id, bool) or not isinstance(id, (int, str))):
        raise ValueError(f"{place} has the id {id!r}: an id must be an integer or a string.")
    inner = row.pop("metadata", {})
    if isinstance(inner, str):  # in CSV
        inner = _parsed(inner or "{}", place)
    if not isinstance(inner, dict):
        raise ValueError(f"{place}: metadata must be an object, got {type(inner).__name__}.")
    return id, text, {**row, **inner}
