"""EncodeDocuments: a callable that Ray Data, Daft and Spark run in their workers."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np

from ..data.multivectors import MultiVectors
from ..encoders.base import Encoder
from ..encoders.registry import load_encoder
from ..utils.checks import require_choice
from ..utils.optional_imports import import_extra
from ..utils.parallel import thread_count

__all__ = ["EncodeDocuments"]


class EncodeDocuments:
    """Encode a column of token vectors of Arrow tables, one after the other.

    A worker makes one of these, which reads the encoder once, and calls it with its tables.  The vectors
    are the same, bit for bit, as those of one process, whatever tables the rows come in.

    Parameters
    ----------
    encoder : path or Encoder
        Fitted.  A path of a folder that every worker sees, which ``encoder.save`` wrote, moves fewer bytes
        than the encoder itself, some 60 MB.
    column : str
        Of lists of fixed-size lists of floats, a list a document, as :meth:`muvera.MultiVectors.to_arrow` makes.
    output : str
        Name of the new column, fixed-size lists of float32.
    side : {"documents", "queries"}
        Vectors of the two differ.
    keep_tokens : bool
        Keep the column of tokens in the result.
    threads : int
        Of a worker.  More than one only where workers have so many cores of their own.

    Raises
    ------
    ValueError, FileNotFoundError
        For a folder without an encoder, an encoder that is not fitted, or a wrong setting.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from muvera import FDEConfig, FDEEncoder
    >>> texts = MultiVectors.from_arrays([np.eye(2, 4), np.ones((1, 4))])
    >>> encoder = FDEEncoder(FDEConfig(dimension=4)).fit(texts)
    >>> EncodeDocuments(encoder)(pa.table({"id": [1, 2], "tokens": texts.to_arrow()})).column_names
    ['id', 'tokens', 'vector']
    """

    def __init__(
        self,
        encoder: str | os.PathLike[str] | Encoder,
        column: str = "tokens",
        *,
        output: str = "vector",
        side: Literal["documents", "queries"] = "documents",
        keep_tokens: bool = True,
        threads: int = 1,
    ) -> None:
        self._pa = import_extra("pyarrow", "parquet", "Encoding tables")
        require_choice("side", side, ("documents", "queries"))
        self._encoder = load_encoder(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder
        if self._encoder.needs_fit:
            raise ValueError(
                "The encoder needs to be fitted before it can encode. Call its fit, then save it."
            )
        self._column, self._output, self._side, self._keep = column, output, side, keep_tokens
        self._threads = thread_count(threads)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pa": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pa = import_extra("pyarrow", "parquet", "Encoding tables")

    def __call__(self, table: Any) -> Any:
        """Return the table with the column of vectors.

        Parameters
        ----------
        table : pyarrow.Table

        Returns
        -------
        pyarrow.Table

        Raises
        ------
        ValueError, TypeError
            For a table without the column, or tokens that do not fit the encoder.
        """
        pa = self._pa
        if self._column not in table.column_names:
            raise ValueError(
                f"The table has no column {self._column!r}. It has: {', '.join(table.column_names)}. Say which with "
                "column=."
            )
        if self._output in table.column_names:
            raise ValueError(
                f"The table has a column {self._output!r} already. Say another name with output=."
            )
        dimension = self._encoder.config.vector_dimension
        vectors = np.empty((0, dimension), np.float32)
        if len(table):
            texts = MultiVectors.from_arrow(table[self._column])
            texts.require_dimension(self._encoder.config.dimension, self._column, "the encoder")
            method = getattr(self._encoder, f"encode_{self._side}")
            vectors = np.ascontiguousarray(method(texts, threads=self._threads), np.float32)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension)
        result = table if self._keep else table.drop_columns([self._column])
        return result.append_column(self._output, lists)
