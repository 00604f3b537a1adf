"""EncodeDocuments: a callable for workers of Ray Data, Daft and Spark."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..encoders.base import Encoder
from ..encoders.registry import load_encoder
from ..utils.optional_imports import import_extra

# Columns: lists of fixed-size lists of floats, as MultiVectors.to_arrow returns them, and their vectors.
_TOKENS, _VECTOR = "tokens", "vector"


class EncodeDocuments:
    """Add the column "vector", fixed-size lists of float32, to Arrow tables with the column "tokens".

    Each worker creates one instance, which reads the encoder once, and calls it with its tables.  It uses one thread.
    The vectors are bitwise equal to those of one process, however the rows are split into tables.

    Parameters
    ----------
    encoder : path or Encoder
        A fitted encoder, or the folder of one.  A folder that every worker can read saves sending the encoder to
        every worker (about 60 MB).  Raise FileNotFoundError or ValueError for other folders or encoders.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from muvera import FDEConfig, FDEEncoder
    >>> texts = MultiVectors.from_arrays([np.eye(2, 4), np.ones((1, 4))])
    >>> encoder = FDEEncoder(FDEConfig(dimension=4)).fit(texts)
    >>> EncodeDocuments(encoder)(pa.table({"id": [1, 2], "tokens": texts.to_arrow()})).column_names
    ['id', 'tokens', 'vector']
    """

    def __init__(self, encoder: str | os.PathLike[str] | Encoder) -> None:
        self._encoder = load_encoder(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder
        if self._encoder.needs_fit:
            raise ValueError("The encoder is not fitted. Call its fit before encoding.")

    def __call__(self, table: Any) -> Any:
        """Return the pyarrow.Table with the column of vectors.

        Raise ValueError or TypeError for a table without the column "tokens" or with a column "vector", or for tokens
        that do not fit the encoder.
        """
        pa = import_extra("pyarrow", "parquet", "Encoding tables")
        if _TOKENS not in table.column_names:
            raise ValueError(
                f"The table must have a column {_TOKENS!r}, got {', '.join(table.column_names)}. Rename the column."
            )
        if _VECTOR in table.column_names:
            raise ValueError(f"The table has a column {_VECTOR!r} already. Rename it.")
        config = self._encoder.config
        vectors = np.empty((0, config.vector_dimension), np.float32)
        if len(table):
            texts = MultiVectors.from_arrow(table[_TOKENS])
            texts.require_dimension(config.dimension, _TOKENS, "the encoder")
            vectors = self._encoder.encode_documents(texts, threads=1)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), config.vector_dimension)
        return table.append_column(_VECTOR, lists)
