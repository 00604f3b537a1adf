"""The forward pass of a BERT encoder in NumPy: enough to read token states without a deep-learning framework.

Sizes: T tokens of all texts of a batch, L of one text, H hidden width, A heads, W = H / A width of a head.

Texts of a batch are concatenated, not padded: the linear layers see one (T, H) matrix, and attention runs
text by text on its own rows. So there is no mask to get wrong and no work spent on padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import erf

FloatMatrix = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int32]


class Bert:
    """A BERT encoder (absolute positions, post-layer-norm, GELU) over given weights.

    Parameters
    ----------
    weights : mapping of str to float32 arrays
        Parameters under their Hugging Face names (``embeddings.word_embeddings.weight``, ...); linear
        layers are stored as (out, in).
    n_heads : int
        Attention heads A; must divide the hidden width.
    layer_norm_eps : float, default=1e-12
        Added to the variance in layer normalization.
    """

    def __init__(
        self, weights: Mapping[str, npt.NDArray[np.float32]], n_heads: int, layer_norm_eps: float = 1e-12
    ) -> None:
        self.weights = weights
        self.n_heads = n_heads
        self.layer_norm_eps = np.float32(layer_norm_eps)
        self.n_layers = sum(name.endswith(".attention.self.query.weight") for name in weights)

    def hidden_states(self, token_ids: Sequence[TokenIds]) -> list[FloatMatrix]:
        """Last hidden states of every token of every text.

        Parameters
        ----------
        token_ids : sequence of (L,) int32 arrays
            Vocabulary ids of each text, special tokens included.

        Returns
        -------
        list of (L, H) float32 arrays
            One per text, not normalized. The last bits of a row may depend on the texts it was batched with,
            because BLAS blocks a product by its shape.
        """
        lengths = [len(ids) for ids in token_ids]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.concatenate([np.arange(length) for length in lengths])
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
        out: FloatMatrix = rows @ self.weights[f"{name}.weight"].T
        out += self.weights[f"{name}.bias"]
        return out

    def _layer_norm(self, rows: FloatMatrix, name: str) -> FloatMatrix:
        centered: FloatMatrix = rows - rows.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", centered, centered)[:, None] / np.float32(rows.shape[1])
        centered /= np.sqrt(variance + self.layer_norm_eps)
        centered *= self.weights[f"{name}.weight"]
        centered += self.weights[f"{name}.bias"]
        return centered

    def _attention(self, states: FloatMatrix, bounds: npt.NDArray[np.int64], prefix: str) -> FloatMatrix:
        n_tokens, width = states.shape
        head = width // self.n_heads
        # (A, T, W): every text is a slice of the middle axis.
        query, key, value = (
            self._linear(states, f"{prefix}.{part}").reshape(n_tokens, self.n_heads, head).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        query *= np.float32(head**-0.5)
        out = np.empty_like(states)
        for start, stop in pairwise(bounds):
            scores = query[:, start:stop] @ key[:, start:stop].transpose(0, 2, 1)
            scores -= scores.max(axis=2, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=2, keepdims=True)
            mixed = scores @ value[:, start:stop]
            out[start:stop] = mixed.transpose(1, 0, 2).reshape(stop - start, width)
        return out


def _gelu(rows: FloatMatrix) -> FloatMatrix:
    gate: FloatMatrix = erf(rows * np.float32(0.5**0.5))
    gate += np.float32(1.0)
    gate *= rows
    gate *= np.float32(0.5)
    return gate
