"""RAGatouille's interface: replace ``ragatouille`` by ``muvera.compat.ragatouille`` in the imports.

Indexes stay in ``.ragatouille/colbert/indexes/NAME``, and those that RAGatouille wrote open in place.
"""

from .model import RAGPretrainedModel
from .splitting import split_sentences

__all__ = ["RAGPretrainedModel", "RAGTrainer", "split_sentences"]


class RAGTrainer:
    """RAGatouille's trainer, which this library does not have: raises NotImplementedError."""

    def __init__(self, *_: object, **__: object) -> None:
        raise NotImplementedError(
            "muvera does not train models. Train with PyLate or sentence-transformers, and give the checkpoint to "
            "RAGPretrainedModel.from_pretrained."
        )
