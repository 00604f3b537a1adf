"""Checkpoints of sentence-transformers' MultiVectorEncoder (version 6 or newer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...data.multivectors import MultiVectors
from ...utils.optional_imports import import_extra
from .base import Side, from_matrices

__all__ = ["SentenceTransformersEncoder"]


class SentenceTransformersEncoder:
    """A late-interaction checkpoint run by sentence-transformers.

    Prompts, query expansion and skipped tokens are the checkpoint's own.

    Parameters
    ----------
    model : str or MultiVectorEncoder
        A checkpoint's name or folder, or a loaded model.
    revision : str, optional
        Of a named checkpoint.
    batch_size : int
        Texts of a forward pass; costs memory, changes no result beyond rounding.

    Raises
    ------
    ImportError
        Without sentence-transformers 6 or newer.
    """

    def __init__(self, model: Any, *, revision: str | None = None, batch_size: int = 32) -> None:
        if isinstance(model, str):
            library = import_extra("sentence_transformers", "sentence-transformers", "This encoder")
            if not hasattr(library, "MultiVectorEncoder"):
                raise ImportError(
                    f"sentence-transformers {library.__version__} has no MultiVectorEncoder: version 6 or newer "
                    "is needed. Install it with: pip install 'muvera-toolkit[sentence-transformers]'"
                )
            self.name = f"sentence-transformers:{model}" + (f"@{revision}" if revision else "")
            self._model = library.MultiVectorEncoder(model, revision=revision)
        else:
            card = getattr(model, "model_card_data", None)
            base = getattr(card, "base_model", None) or type(model).__name__
            self.name, self._model = f"sentence-transformers:{base}", model
        self._options = {
            "batch_size": batch_size,
            "show_progress_bar": False,
            "convert_to_numpy": True,
            "normalize_embeddings": True,
        }

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents."""
        return from_matrices(self._model.encode_document(list(texts), **self._options), self._dimension)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries."""
        return from_matrices(self._model.encode_query(list(texts), **self._options), self._dimension)

    def token_spans(self, text: str, side: Side) -> None:
        """Return None: the library does not say which tokens a checkpoint skips."""
        return None

    @property
    def _dimension(self) -> int | None:
        getter = getattr(self._model, "get_sentence_embedding_dimension", None)
        return None if getter is None else getter()
