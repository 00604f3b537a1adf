"""Files of texts: JSON lines with ids and metadata, or one text a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["TextFile", "read_texts"]

# Keys of an id, the first that is there; BEIR writes "_id".
_IDS = ("id", "_id")

# A longer line is no text that a model could read.
_MOST_CHARACTERS = 10_000_000


@dataclass(frozen=True)
class TextFile:
    """The texts of a file, in its order.

    Parameters
    ----------
    texts : list of str
    ids : list or None
        None where the file has no ids.
    metadata : list of dict
    """

    texts: list[str] = field(default_factory=list)
    ids: list[int | str] | None = None
    metadata: list[dict[str, Any]] = field(default_factory=list)


def read_texts(path: Path, text_field: str = "text") -> TextFile:
    """Read a file of texts.

    Parameters
    ----------
    path : Path
        ``.jsonl``: an object a line with the text, an optional "id" or "_id", an optional "title" that is put
        before the text, and an optional object "metadata"; all other keys are metadata, too.  Any other
        ending: one text a line, empty lines left out.
    text_field : str
        The key of the text.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        For a file without texts, and a line that is no such object, which the message names.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist. Give a file of JSON lines (.jsonl) or one text a line."
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file of texts. Give JSON lines (.jsonl) or one text a line.")
    lines = list(_lines(path))
    if not lines:
        raise ValueError(f"{path} has no texts: no line has anything in it. Give another file.")
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        texts = [line for _, line in lines]
        return TextFile(texts, None, [{} for _ in texts])
    rows = [_row(path, number, line, text_field) for number, line in lines]
    ids = [identity for identity, _, _ in rows]
    known = [identity for identity in ids if identity is not None]
    if known and len(known) < len(ids):
        raise ValueError(
            f"{path}: {len(ids) - len(known)} of {len(ids)} texts have no id. Give all of them one, or none."
        )
    return TextFile([text for _, text, _ in rows], known or None, [metadata for _, _, metadata in rows])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as stream:
        for number, content in enumerate(stream, 1):
            try:
                line = content.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number} is not UTF-8: {error.reason}. Encode the file again."
                ) from None
            if len(line) > _MOST_CHARACTERS:
                raise ValueError(f"{path}, line {number} has {len(line):,} characters. Cut it into texts.")
            if line:
                yield number, line


def _row(path: Path, number: int, line: str, text_field: str) -> tuple[int | str | None, str, dict[str, Any]]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number} is no JSON: {error}.") from None
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number} must be a JSON object, got {type(row).__name__}.")
    text = row.pop(text_field, None)
    if not isinstance(text, str):
        raise ValueError(
            f"{path}, line {number} has no text under {text_field!r}. Name the key of the texts."
        )
    title = row.pop("title", None)
    if isinstance(title, str) and title:
        text = f"{title}\n{text}"
    identity = next((row.pop(key) for key in _IDS if key in row), None)
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, (int, str))):
        raise ValueError(
            f"{path}, line {number} has the id {identity!r}: an id must be an integer or a string."
        )
    inner = row.pop("metadata", {})
    if not isinstance(inner, dict):
        raise ValueError(f"{path}, line {number}: metadata must be an object, got {type(inner).__name__}.")
    return identity, text, {**row, **inner}
