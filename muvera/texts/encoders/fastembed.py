"""Late-interaction models of fastembed, which run on onnxruntime without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...data.multivectors import MultiVectors
from ...utils.optional_imports import import_extra
from .base import Side, from_matrices

__all__ = ["FastembedEncoder"]


class FastembedEncoder:
    """A late-interaction model run by fastembed.

    Parameters
    ----------
    model : str or fastembed.LateInteractionTextEmbedding
        A name of fastembed's, such as ``"colbert-ir/colbertv2.0"``, or a loaded model.
    batch_size : int
        Texts of a forward pass.

    Raises
    ------
    ImportError
        Without fastembed.
    """

    def __init__(self, model: Any, *, batch_size: int = 32) -> None:
        if isinstance(model, str):
            library = import_extra("fastembed", "fastembed", "This encoder")
            self.name = f"fastembed:{model}"
            self._model = library.LateInteractionTextEmbedding(model_name=model)
        else:
            self.name = f"fastembed:{getattr(model, 'model_name', type(model).__name__)}"
            self._model = model
        self._batch_size = batch_size

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents."""
        return from_matrices(self._model.embed(list(texts), batch_size=self._batch_size))

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries."""
        return from_matrices(self._model.query_embed(list(texts)))

    def token_spans(self, text: str, side: Side) -> None:
        """Return None: fastembed does not say which tokens it skips."""
        return None
