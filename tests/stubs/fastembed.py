"""A stand-in for fastembed in documents that run without a network."""

import sys
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from builders.pages import GreyEncoder, grey_vectors
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


def tokenize_queries(texts: list[str]) -> list[Any]:
    """Return the characters of each word."""
    return [SimpleNamespace(offsets=GreyEncoder().query_spans(text)) for text in texts]


class LateInteractionMultimodalEmbedding:
    """The methods of fastembed's class that the library calls, as ColPali has them."""

    model = SimpleNamespace(tokenize=tokenize_queries)
    list_supported_models: Any = staticmethod(list)

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    def embed_image(self, pictures: list[Any]) -> Iterator[Any]:
        """Return the grey level of each patch as a vector, and six of the prompt."""
        for picture in pictures:
            patches = grey_vectors(picture, (32, 32))
            yield np.concatenate([patches, np.roll(patches[:6], 3, axis=1)])

    def embed_text(self, texts: list[str]) -> Iterator[Any]:
        """Return a vector for each word."""
        return iter(GreyEncoder().encode_queries(texts))
