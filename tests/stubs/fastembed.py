"""A stand-in for fastembed in documents that run without a network."""

import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from builders.text_encoders import HashEncoder

ENCODER = HashEncoder(96)

utils: Any = SimpleNamespace(define_cache_dir=lambda: "")
sys.modules["fastembed.common.utils"] = utils


def tokenize(texts: list[str], is_doc: bool) -> list[Any]:
    """Return the characters of a special token and of each word."""
    spans = [[(0, 0), *(ENCODER.token_spans(text, "document") or [])] for text in texts]
    return [SimpleNamespace(ids=[0] * len(own), offsets=own) for own in spans]


class LateInteractionTextEmbedding:
    """The methods of fastembed's class that the library calls.

    No model is looked for online.
    """

    model = SimpleNamespace(tokenize=tokenize, skip_list=(), pad_token_id=-1)
    list_supported_models: Any = staticmethod(list)

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    def embed(self, texts: Iterable[str], **_: Any) -> Any:
        """Return a vector for the special token, the side's marker, and each word."""
        return iter(ENCODER.encode_documents([f"cls marker {text}" for text in texts]))

    query_embed = embed
