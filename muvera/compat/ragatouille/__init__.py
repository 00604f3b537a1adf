"""RAGatouille's interface: import from ``muvera.compat.ragatouille`` instead of ``ragatouille``.

Indexes stay in ``.ragatouille/colbert/indexes/NAME``, and those that RAGatouille wrote open in place.
"""

from .model import RAGPretrainedModel
from .splitting import split_sentences

__all__ = ["RAGPretrainedModel", "RAGTrainer", "split_sentences"]


class RAGTrainer:
    """A stub of RAGatouille's trainer, which raises NotImplementedError: this library trains no models."""

    def __init__(self, *_: object, **__: object) -> None:
        raise NotImplementedError(
            "muvera does not train models. Train with PyLate or sentence-transformers, and give the checkpoint to "
            "RAGPretrainedModel.from_pretrained."
        )
