"""What the reading child process answers: a line of JSON for a source, a batch, its end or an error."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["BatchHeader", "EndHeader", "ErrorHeader", "Header", "SourceHeader", "encoded", "header_of"]


@dataclass(frozen=True)
class SourceHeader:
    """The source that was opened, with the attributes of a :class:`~muvera.convert.Source`."""

    name: str
    dimension: int
    num_documents: int | None
    num_tokens: int | None
    lossy: bool
    nbits: int | None

    def __post_init__(self) -> None:
        _require(isinstance(self.name, str) and isinstance(self.lossy, bool))
        _require(_is_count(self.dimension) and self.dimension > 0)
        for value in (self.num_documents, self.num_tokens, self.nbits):
            _require(value is None or _is_count(value))


@dataclass(frozen=True)
class BatchHeader:
    """A batch, whose lengths (int64) and tokens follow as bytes."""

    documents: int
    rows: int
    dtype: str
    ids: list[Any] | None

    def __post_init__(self) -> None:
        _require(_is_count(self.documents) and _is_count(self.rows))
        _require(self.dtype in ("float32", "float16") and (self.ids is None or isinstance(self.ids, list)))


@dataclass(frozen=True)
class EndHeader:
    """The end of the batches."""

    dropped_rows: int
    note: str | None

    def __post_init__(self) -> None:
        _require(_is_count(self.dropped_rows) and (self.note is None or isinstance(self.note, str)))


@dataclass(frozen=True)
class ErrorHeader:
    """An error, instead of any other answer."""

    kind: str
    text: str
    #: The system's number of the error, where it has one.
    number: int | None

    def __post_init__(self) -> None:
        _require(isinstance(self.kind, str) and isinstance(self.text, str))
        _require(self.number is None or _is_count(self.number))


Header = SourceHeader | BatchHeader | EndHeader | ErrorHeader

_HEADERS = {header.__name__: header for header in (SourceHeader, BatchHeader, EndHeader, ErrorHeader)}


def encoded(header: Header) -> bytes:
    """Return a header as it is sent: its length in 8 bytes, then JSON."""
    content = json.dumps({"header": type(header).__name__, **asdict(header)}).encode()
    return len(content).to_bytes(8, "little") + content


def header_of(content: Any) -> Header:
    """Return the header that the JSON `content` describes.

    Raises
    ------
    ValueError, TypeError
        Where it is none.
    """
    _require(isinstance(content, dict) and content.get("header") in _HEADERS)
    kind: Any = _HEADERS[content.pop("header")]
    header: Header = kind(**content)
    return header


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("An answer of the reading process is not one.")
