"""Encoding in the workers of data-frame engines, such as Ray Data, Spark and Daft."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..fde.encoder import FDEEncoder
from ..fde.files import load_encoder
from ..texts.encoders.base import TextEncoder
from ..texts.encoders.registry import load_text_encoder
from ..utils.checks import import_extra

if TYPE_CHECKING:
    import pyarrow as pa

# Column of token vectors: lists of fixed-size lists of floats, as MultiVectors.to_arrow
# returns them.
_TOKENS = "tokens"

# Column of the first-stage vectors.
_VECTOR = "vector"

# Column of texts.
_TEXT = "text"


class EncodeDocuments:
    """Add the column "vector" to Arrow tables with the column "tokens".

    The vectors are fixed-size lists of float32.  Each worker creates one instance,
    which reads the encoder once, and calls it with its tables.  It uses one thread.
    However the rows are split into tables, the vectors are bitwise equal to the vectors
    that one process makes.

    Parameters
    ----------
    encoder : path or FDEEncoder
        A fitted encoder, or the folder of one.  A folder that every worker can read
        saves sending the encoder to every worker (about 10 MB).

    Raises
    ------
    FileNotFoundError, ValueError
        For a folder without an encoder, or an encoder that is not fitted.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from muvera import FDEConfig, FDEEncoder
    >>> texts = MultiVectors.from_arrays([np.eye(2, 4), np.ones((1, 4))])
    >>> encoder = FDEEncoder(FDEConfig(dimension=4)).fit(texts)
    >>> table = pa.table({"id": [1, 2], "tokens": texts.to_arrow()})
    >>> EncodeDocuments(encoder)(table).column_names
    ['id', 'tokens', 'vector']
    """

    def __init__(self, encoder: str | os.PathLike[str] | FDEEncoder) -> None:
        self._encoder = load_encoder(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder
        if self._encoder.needs_fit:
            raise ValueError("The encoder is not fitted. Call its fit before encoding.")

    def __call__(self, table: pa.Table) -> Any:
        """Return a table with the column of vectors.

        Parameters
        ----------
        table : pyarrow.Table
            With "tokens", lists of fixed-size lists of floats.

        Returns
        -------
        pyarrow.Table
            All columns, and "vector".

        Raises
        ------
        TypeError, ValueError
            For a missing column "tokens", a column "vector", or tokens of another
            dimension.
        """
        pa = import_extra("pyarrow", "parquet", "Encoding tables")
        _require_columns(table, _TOKENS, _VECTOR)
        config = self._encoder.config
        vectors = np.empty((0, config.vector_dimension), np.float32)
        if len(table):
            texts = MultiVectors.from_arrow(table[_TOKENS])
            texts.require_dimension(config.dimension, _TOKENS, "the encoder")
            vectors = self._encoder.encode_documents(texts, threads=1)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), config.vector_dimension)
        return table.append_column(_VECTOR, lists)


class EncodeTexts:
    """Add the column "tokens" to Arrow tables with the column "text".

    Each worker creates one instance, which loads the text encoder once, and calls it
    with its tables.

    Parameters
    ----------
    encoder : str or TextEncoder
        Such as ``"static"``; see :func:`muvera.load_text_encoder`.  A name saves
        sending the encoder to every worker.

    Raises
    ------
    ValueError, ImportError
        For an unknown name, or if the encoder's library is missing.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({"id": [1, 2], "text": ["a red apple", "a green pear"]})
    >>> EncodeTexts("static")(table).column_names
    ['id', 'text', 'tokens']
    """

    def __init__(self, encoder: str | TextEncoder) -> None:
        self._encoder = load_text_encoder(encoder) if isinstance(encoder, str) else encoder

    def __call__(self, table: pa.Table) -> Any:
        """Return a table with the column of token vectors.

        Parameters
        ----------
        table : pyarrow.Table
            With "text", strings.  A missing text is encoded as "".

        Returns
        -------
        pyarrow.Table
            All columns, and "tokens": lists of fixed-size lists of floats.

        Raises
        ------
        ValueError
            For a missing column "text", or a column "tokens".
        """
        _require_columns(table, _TEXT, _TOKENS)
        texts = [text or "" for text in table[_TEXT].to_pylist()]
        return table.append_column(_TOKENS, self._encoder.encode_documents(texts).to_arrow())


def _require_columns(table: pa.Table, given: str, added: str) -> None:
    """Raise ValueError unless a table has one column, and lacks the one to add."""
    if given not in table.column_names:
        raise ValueError(
            f"The table must have a column {given!r}, got {', '.join(table.column_names)}. Rename the column."
        )
    if added in table.column_names:
        raise ValueError(f"The table has a column {added!r} already. Rename it.")
