"""A stand-in for fastembed in documents that run without a network: each word is a fixed random vector."""

import re
import sys
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar
from zlib import crc32

import numpy as np

utils: Any = SimpleNamespace(define_cache_dir=lambda: "")
sys.modules["fastembed.common.utils"] = utils


def _tokens(text: str, is_doc: bool) -> list[tuple[str, tuple[int, int]]]:
    """Return the words of a text after a special token; queries end with two mask tokens."""
    words = [(match[0].lower(), match.span()) for match in re.finditer(r"\w+", text)]
    return [("[CLS]", (0, 0)), *words, *([] if is_doc else [("[MASK]", (0, 0))] * 2)]


class _Colbert:
    skip_list: ClassVar[set[int]] = set()
    pad_token_id = -1

    def tokenize(self, texts: list[str], is_doc: bool = True) -> list[Any]:
        """Return ids and characters of the tokens of each text."""
        found = [_tokens(text, is_doc) for text in texts]
        return [
            SimpleNamespace(ids=[crc32(word.encode()) for word, _ in own], offsets=[span for _, span in own])
            for own in found
        ]


class LateInteractionTextEmbedding:
    """The methods of fastembed's class that the library calls."""

    def __init__(self, model_name: str) -> None:
        self.model_name, self.model = model_name, _Colbert()

    @staticmethod
    def list_supported_models() -> list[Any]:
        """Return no model, so that none is looked for online."""
        return []

    def embed(self, texts: Iterable[str], **_: Any) -> Iterator[Any]:
        """Encode texts as documents."""
        return (self._matrix(text, True) for text in texts)

    def query_embed(self, texts: Iterable[str]) -> Iterator[Any]:
        """Encode texts as queries."""
        return (self._matrix(text, False) for text in texts)

    def _matrix(self, text: str, is_doc: bool) -> Any:
        words = [word for word, _ in _tokens(text, is_doc)]
        words.insert(1, "[marker]")
        rows = np.array([np.random.default_rng(crc32(word.encode())).normal(size=96) for word in words])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
