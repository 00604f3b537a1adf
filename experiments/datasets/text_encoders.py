"""Encoders of the experiments: texts to contextual token embeddings, with real models.

MiniLM's token states come from :mod:`muvera.texts.encoders.minilm`; `MultiVectorCheckpoint` runs a
late-interaction checkpoint through sentence-transformers.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from muvera.texts.encoders.bert import FloatMatrix
from muvera.texts.encoders.minilm import Reduction


class TokenEncoder(Protocol):
    """What the experiments ask of a model: one float32 (tokens, dimension) matrix of unit rows for each text."""

    def encode_documents(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as documents."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as queries."""
        ...


def fit_reduction(samples: Iterable[npt.NDArray[np.floating[Any]]], dimension: int) -> Reduction:
    """Fit the linear map that keeps most of the vectors' energy (PCA without centering).

    The columns are the leading eigenvectors of the uncentered second moment, so inner products, which MaxSim
    is made of, are kept as well as any map of this size can on average. Each column's largest entry is made
    positive, which settles the sign that an eigenvector leaves open.

    Parameters
    ----------
    samples : iterable of (n, dim_in) float arrays
        Token vectors; read once, a piece at a time.
    dimension : int
        Output dimension. Fewer dimensions cost fidelity and save memory and time everywhere.

    Returns
    -------
    Reduction
        The fitted map.
    """
    moment: npt.NDArray[np.float64] | None = None
    for sample in samples:
        rows = np.asarray(sample, dtype=np.float64)
        moment = rows.T @ rows if moment is None else moment + rows.T @ rows
    if moment is None:
        raise ValueError("samples is empty: a reduction needs at least one matrix of token vectors.")
    if not 1 <= dimension <= len(moment):
        raise ValueError(
            f"The 'dim' parameter of fit_reduction must be between 1 and {len(moment)}, the samples' width. "
            f"Got {dimension} instead."
        )
    components = np.linalg.eigh(moment)[1][:, ::-1][:, :dimension]
    largest = components[np.abs(components).argmax(axis=0), np.arange(dimension)]
    return Reduction((components * np.sign(largest)).astype(np.float32))


class MultiVectorCheckpoint:
    """A late-interaction checkpoint, by name or folder, run by sentence-transformers' MultiVectorEncoder.

    Prompts, query expansion and skipped tokens are the checkpoint's own. Needs sentence-transformers 6 or
    newer, and a checkpoint that is a local folder or already in the hub's cache when there is no network.

    Parameters
    ----------
    name : str
        Checkpoint name, such as ``lightonai/GTE-ModernColBERT-v1``, or a folder.
    batch_size : int, default=32
        Texts per forward pass; costs memory, changes no result beyond rounding.
    progress : bool, default=True
        Show a progress bar.
    """

    def __init__(self, name: str, batch_size: int = 32, progress: bool = True) -> None:
        library = need("sentence_transformers")
        if not hasattr(library, "MultiVectorEncoder"):
            raise ImportError(
                f"sentence-transformers {library.__version__} has no MultiVectorEncoder: "
                "it needs version 6 or newer. Run: pip install 'muvera-toolkit[experiments]'."
            )
        self._model = library.MultiVectorEncoder(name)
        self._options = {
            "batch_size": batch_size,
            "show_progress_bar": progress,
            "convert_to_numpy": True,
            "normalize_embeddings": True,
        }

    def encode_documents(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as documents: one float32 (tokens, dimension) matrix of unit rows each."""
        return [
            np.asarray(one, dtype=np.float32)
            for one in self._model.encode_document(list(texts), **self._options)
        ]

    def encode_queries(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as queries: one float32 (tokens, dimension) matrix of unit rows each."""
        return [
            np.asarray(one, dtype=np.float32)
            for one in self._model.encode_query(list(texts), **self._options)
        ]


def need(module: str) -> Any:
    """Import a module that only the experiments use, or say where it comes from."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed: it comes with the 'experiments' extra. "
            "Run: pip install 'muvera-toolkit[experiments]'."
        ) from error
