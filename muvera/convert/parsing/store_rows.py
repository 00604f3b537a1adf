"""Base of the decoders of rows that vector stores export to JSON.

A decoder takes one row and returns a :class:`~muvera.convert.sources.documents.Document`.  The
stores themselves are in :mod:`~muvera.convert.parsing.store_decoders`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ...utils.checks import given
from ..sources.documents import Document
from .number_literals import Matrix

__all__ = ["TOKEN_FIELDS", "Decoder", "Row", "Settings", "Values", "has_keys", "row_id"]

Row = Any  # whatever JSON held: mostly a dict

#: Token vectors and, where quantized, bits a coordinate.
Values = tuple[Matrix, int | None]

#: Names of fields with token vectors, which win over others that could be.
TOKEN_FIELDS = (
    "tokens", "embeddings", "embedding", "colbert_vecs", "token_embeddings", "vectors", "vector", "colbert",
)  # fmt: skip
_IDS = ("id", "_id", "doc_id", "docid", "document_id", "pid", "key", "uuid")


class Settings(NamedTuple):
    """Settings of a decoder that a caller may give."""

    #: The field with the token vectors; None finds it.
    field: str | None = None
    #: The field with the id; None finds it.
    id_field: str | None = None
    #: Whether 8-bit integers are 8 packed signs each; None: the store's custom.
    packed_signs: bool | None = None
    #: The type of hex cells, where the row does not say it.
    cell_type: str | None = None


class Decoder(NamedTuple):
    """Decoder of one store's rows: where they hold what, and how."""

    #: Its name for ``row_format=``.
    name: str
    #: Whether a row looks like this store's.
    matches: Callable[[Row], bool]
    #: A row's fields among which the token vectors are.
    fields: Callable[[Row], dict[str, Any]]
    #: The value of that field to token vectors and, where quantized, bits a coordinate.
    values: Callable[[Any, Settings, str], Values]
    #: The row's id.
    identity: Callable[[Row, Settings], Any]
    #: Whether a value can be token vectors.
    candidate: Callable[[Any], bool]
    #: Whether rows may lack the field, as stores allow: no tokens then.
    sparse: bool = True

    def field(self, row: Row) -> str | None:
        """Return the only field of `row` that can be token vectors; None where none can.

        Raises
        ------
        ValueError
            Where several can, naming them.
        """
        fields = self.fields(row)
        found = [key for key, value in fields.items() if self.candidate(value)]
        usual = [key for key in TOKEN_FIELDS if key in found]
        if len(found) > 1 and len(usual) != 1:
            raise ValueError(f"has token vectors in {', '.join(found)}. Say which with field=.")
        return usual[0] if usual else next(iter(found), None)

    def decode(self, row: Row, settings: Settings, where: str) -> Document:
        """Return the document of `row`; a field that is null has no tokens.

        Raises
        ------
        ValueError
            Where the row lacks the field, or holds something else in it.
        """
        fields = self.fields(row)
        if not self.sparse and settings.field not in fields:
            raise ValueError(f"has no {settings.field!r}, only {', '.join(fields)}; null says no tokens.")
        value = fields.get(settings.field or "")
        try:
            tokens, nbits = self.values(value, settings, settings.field or "the row")
        except TypeError as error:
            raise ValueError(f"{settings.field} has an unknown form: {error}.") from None
        return Document(self.identity(row, settings), tokens, where, nbits)


def row_id(row: Row, settings: Settings, *inside: str) -> int | str | None:
    """Return the id from the row itself, or from the objects `inside` it; None where there is none.

    Raises
    ------
    ValueError
        Where the field that `settings` names is not there, or an id is neither a whole number nor
        a text: a float such as 7.0 would be lost.
    """
    if not isinstance(row, dict):
        return None
    keys: Iterable[str] = _IDS if settings.id_field is None else (settings.id_field,)
    for place in (row, *(row[key] for key in inside if isinstance(row.get(key), dict))):
        for key in keys:
            value = place.get(key)
            if isinstance(value, (int, str)) and not isinstance(value, bool):
                return value
            if value is not None:
                raise ValueError(
                    f"has as its {key!r} the {given(value)}, but an id is a whole number or a text. Export it "
                    "as one, or name another field with id_field=."
                )
    if settings.id_field is not None:
        raise ValueError(f"has no id in {settings.id_field!r}; its fields are {', '.join(row)}.")
    return None


def has_keys(row: Row, *keys: str) -> bool:
    """Return whether `row` is an object with all of `keys`."""
    return isinstance(row, dict) and all(key in row for key in keys)
