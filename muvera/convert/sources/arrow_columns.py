"""Arrow columns of token vectors, shared by Parquet, Arrow files and LanceDB.

A cell is one document: a list, large list or fixed-size list of tokens, each again one of
those, of half, single or double precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids
from ...utils.optional_imports import import_extra
from .arrays import require_finite
from .named_arrays import ids_of

__all__ = ["batches_of", "columns", "dimension_of", "documents_of", "import_pyarrow", "lengths_of"]

_TOKENS = ("tokens", "embeddings", "embedding", "vectors", "vector", "colbert_vecs", "colbert", "multivector")
_IDS = ("id", "_id", "ids", "doc_id", "docid", "document_id", "pid", "corpus_id", "corpus-id")

#: Before this version pyarrow unpickled a type that a file names, and with it any program.
_SAFE_PYARROW = (14, 0, 1)


def import_pyarrow(extra: str, purpose: str) -> Any:
    """Import pyarrow and its functions on columns.

    Parameters
    ----------
    extra, purpose : str
        As for :func:`~muvera.utils.optional_imports.import_extra`.

    Raises
    ------
    ImportError
        Where it is missing, or of a version that runs programs in files.
    """
    pa = import_extra("pyarrow", extra, purpose)
    import_extra("pyarrow.compute", extra, purpose)
    version = tuple(int(part) for part in pa.__version__.split(".")[:3] if part.isdigit())
    if version < _SAFE_PYARROW:
        raise ImportError(
            f"{purpose} needs pyarrow 14.0.1 or newer, but {pa.__version__} is installed, which runs "
            f"programs that a file may hold. Upgrade it with: pip install 'muvera-toolkit[{extra}]'"
        )
    return pa


def columns(
    pa: Any, schema: Any, column: str | None, id_column: str | None, place: str
) -> tuple[str, str | None]:
    """Return the names of the columns with token vectors and with ids (None where none).

    Parameters
    ----------
    pa : module
        pyarrow.
    schema : pyarrow.Schema
        Of the table.
    column, id_column : str, optional
        What the caller asked for; otherwise the only nested column, or of several the one
        with a usual name.
    place : str
        The file, for messages.

    Raises
    ------
    ValueError
        Where no column can be token vectors, several can, or the one asked for cannot.
    """
    nested = [field.name for field in schema if _depth(pa, field.type) == 2]
    found = ", ".join(schema.names)
    if column is None:
        usual = [name for name in _TOKENS if name in nested]
        if len(nested) > 1 and len(usual) != 1:
            raise ValueError(f"{place} has token vectors in {', '.join(nested)}. Say which with column=.")
        if not nested:
            raise ValueError(
                f"{place} has no column of token vectors (a list of lists of floats a document); "
                f"it has {found}."
            )
        column = nested[0] if len(nested) == 1 else usual[0]
    elif column not in nested:
        what = f"is {schema.field(column).type}" if column in schema.names else "does not exist"
        raise ValueError(
            f"{place}: the column {column!r} {what}, but must be a list of lists of floats. Columns: {found}."
        )
    if id_column is None:
        id_column = next((name for name in _IDS if name in schema.names), None)
    elif id_column not in schema.names:
        raise ValueError(f"{place} has no column {id_column!r} for ids; it has {found}.")
    return column, id_column


def dimension_of(pa: Any, kind: Any) -> int | None:
    """Return the width that a fixed-size inner list states, or None."""
    inner = _storage(pa, _storage(pa, kind).value_type)
    return int(inner.list_size) if pa.types.is_fixed_size_list(inner) else None


def documents_of(
    pa: Any, cells: Any, dimension: int | None, place: str, first: int
) -> tuple[NDArray[Any] | None, NDArray[np.int64]]:
    """Return the flat tokens (n_tokens, dimension) and offsets of an Arrow array of documents.

    Slices and all three kinds of lists are taken.  A null document has no tokens.  Tokens
    are None where there is no token to take the dimension from.

    Raises
    ------
    ValueError
        For offsets or lengths that lead outside the column, which Arrow would follow; and
        naming the document whose tokens have other widths, or are null.
    """
    pc = pa.compute
    lengths = lengths_of(pa, cells, place)
    while isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    offsets = running_total(lengths)
    rows = cells.flatten()  # of this slice only, and without null documents

    def document(row: int) -> str:
        return f"{place}: document {first + int(np.searchsorted(offsets, row, side='right')) - 1}"

    if rows.null_count:
        row = int(np.argmax(rows.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"{document(row)} has a null token. Remove it, or the document.")
    widths = pc.list_value_length(rows).to_numpy(zero_copy_only=False)
    if dimension is None and len(widths) == 0:
        return None, offsets
    dimension = int(widths[0]) if dimension is None else dimension
    if (widths != dimension).any():
        row = int(np.argmax(widths != dimension))
        raise ValueError(
            f"{document(row)} has a token of {int(widths[row])} numbers, but those before have {dimension}. "
            "All documents must come from the same model."
        )
    values = rows.flatten()
    if values.null_count:
        at = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"{document(at // dimension)} has a null in a token. Repair or remove the document.")
    return values.to_numpy(zero_copy_only=False).reshape(-1, dimension), offsets


def lengths_of(pa: Any, cells: Any, place: str) -> NDArray[np.int64]:
    """Return the tokens of each document of an Arrow array, int64 (n,); 0 for a null.

    Raises
    ------
    ValueError
        Where the array is not sound.
    """
    _validate(pa, cells, place)
    while isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    lengths = pa.compute.fill_null(pa.compute.list_value_length(cells), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def batches_of(
    pa: Any,
    tables: Iterable[Any],
    column: str,
    id_column: str | None,
    dimension: int,
    place: str,
    max_tokens: int,
) -> Iterator[MultiVectors]:
    """Yield the documents of record batches, cut to at most `max_tokens` tokens.

    Raises
    ------
    ValueError
        For what is not sound, not finite, or of other widths, naming the document.
    """
    done = 0
    for table in tables:
        if any(len(table.column(i)) != table.num_rows for i in range(table.num_columns)):
            raise ValueError(f"{place} is damaged: its columns do not have {table.num_rows} rows each.")
        tokens, offsets = documents_of(pa, table.column(column), dimension, place, done)
        assert tokens is not None  # the dimension is given
        ids = _ids(pa, table.column(id_column), f"{place}: {id_column}", done) if id_column else None
        for start, stop in token_batches(offsets, max_tokens):
            bounds = offsets[start : stop + 1]
            if stop == start and done:
                continue
            part = MultiVectors(
                tokens[bounds[0] : bounds[-1]], bounds - bounds[0], None if ids is None else ids[start:stop]
            )
            yield require_finite(part, place, done + start)
        done += len(offsets) - 1


def _validate(pa: Any, array: Any, place: str) -> None:
    """Raise ValueError where an Arrow array is not sound, checking every offset in it."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{place} is damaged: {' '.join(str(error).split())}. Copy or export it again."
        ) from None


def _ids(pa: Any, array: Any, place: str, first: int) -> Ids:
    _validate(pa, array, place)
    if array.null_count:
        row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"{place} is null for document {first + row}; every document needs an id, or none.")
    return ids_of(array.to_pylist(), len(array), place)


def _storage(pa: Any, kind: Any) -> Any:
    """Return the type under extension types, such as those of Hugging Face datasets."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind


def _depth(pa: Any, kind: Any) -> int:
    """Return how many lists stand around floats; -1 where there are none."""
    types, depth = pa.types, 0
    kind = _storage(pa, kind)
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind, depth = _storage(pa, kind.value_type), depth + 1
    return depth if types.is_floating(kind) else -1
