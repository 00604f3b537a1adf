"""EncodeDocuments: a callable for workers of Ray Data, Daft and Spark, and a sample to fit its encoder on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.sampling import MAX_FIT_DOCUMENTS
from ..encoders.base import Encoder
from ..encoders.registry import load_encoder
from ..utils.checks import require_int
from ..utils.optional_imports import import_extra

__all__ = ["EncodeDocuments", "sample_files"]

# Columns: lists of fixed-size lists of floats, as MultiVectors.to_arrow returns them, and their vectors.
_TOKENS, _VECTOR = "tokens", "vector"


class EncodeDocuments:
    """Add the column "vector", fixed-size lists of float32, to Arrow tables with the column "tokens".

    Each worker creates one of these, which reads the encoder once, and calls it with its tables.  It uses one thread.
    The vectors are bitwise equal to those of one process, however the rows are split into tables.

    Parameters
    ----------
    encoder : path or Encoder
        Fitted.  A folder that every worker can read, written by ``encoder.save``, moves fewer bytes than the
        encoder itself (about 60 MB).

    Raises
    ------
    ValueError, FileNotFoundError
        For a folder without an encoder, or an encoder that is not fitted.

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

        Raises
        ------
        ValueError, TypeError
            For a table without the column "tokens" or with a column "vector", or tokens that do not fit the encoder.
        """
        pa = import_extra("pyarrow", "parquet", "Encoding tables")
        _require_tokens(table.column_names)
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


def sample_files(
    paths: Sequence[str | os.PathLike[str]], *, count: int = MAX_FIT_DOCUMENTS, seed: int = 0
) -> MultiVectors:
    """Return documents drawn uniformly from all rows of Parquet files.

    Reads only the column "tokens" of row groups that contain drawn rows.

    Parameters
    ----------
    paths : sequence of paths
    count : int
        Maximum number of documents.
    seed : int

    Raises
    ------
    ValueError
        For no files, files without rows, or without the column.
    """
    require_int("count", count, 1)
    pq = import_extra("pyarrow.parquet", "parquet", "Reading Parquet")
    with ExitStack() as stack:
        files = [stack.enter_context(pq.ParquetFile(path)) for path in paths]
        sizes = [[file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] for file in files]
        total = sum(map(sum, sizes))
        if total == 0:
            raise ValueError(f"The {len(files)} files have no rows to draw from. Give files with documents.")
        rows = np.sort(np.random.default_rng(seed).permutation(total)[:count])
        batches, start = [], 0
        for file, groups in zip(files, sizes, strict=True):
            _require_tokens(file.schema_arrow.names)
            for group, size in enumerate(groups):
                inside = rows[(rows >= start) & (rows < start + size)] - start
                start += size
                if len(inside):
                    table = file.read_row_group(group, columns=[_TOKENS])
                    batches.append(MultiVectors.from_arrow(table[_TOKENS].take(inside)))
    return MultiVectors.concatenate(batches)


def _require_tokens(columns: Sequence[str]) -> None:
    if _TOKENS not in columns:
        raise ValueError(
            f"There is no column {_TOKENS!r}, but {', '.join(columns)}. Rename the column of tokens."
        )
