"""Checkpoints of PyLate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...data.multivectors import MultiVectors
from ...utils.optional_imports import import_extra
from .base import Side, from_matrices

__all__ = ["PyLateEncoder"]


class PyLateEncoder:
    """A ColBERT model run by PyLate.

    PyLate pins another sentence-transformers than version 6: keep the two in different environments.

    Parameters
    ----------
    model : str or pylate.models.ColBERT
        A checkpoint's name or folder, or a loaded model.
    revision : str, optional
        Of a named checkpoint.
    batch_size : int
        Texts of a forward pass.

    Raises
    ------
    ImportError
        Without PyLate.
    """

    def __init__(self, model: Any, *, revision: str | None = None, batch_size: int = 32) -> None:
        if isinstance(model, str):
            library = import_extra("pylate.models", "pylate", "This encoder")
            self.name = f"pylate:{model}" + (f"@{revision}" if revision else "")
            self._model = library.ColBERT(model_name_or_path=model, revision=revision)
        else:
            self.name, self._model = f"pylate:{type(model).__name__}", model
        self._batch_size = batch_size

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents."""
        return self._encode(texts, False)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries, which the model expands with mask tokens."""
        return self._encode(texts, True)

    def token_spans(self, text: str, side: Side) -> None:
        """Return None: PyLate does not say which tokens it skips."""
        return None

    def _encode(self, texts: Sequence[str], queries: bool) -> MultiVectors:
        found = self._model.encode(
            list(texts), is_query=queries, batch_size=self._batch_size, show_progress_bar=False
        )
        return from_matrices(found)
