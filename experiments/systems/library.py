"""Systems of this library: the index, and its first stage alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np

from muvera import FDEEncoder, IndexSettings, MultiVectors, MuveraIndex
from muvera.fde.config import DEFAULT_PRESET, PRESETS, FDEConfig
from muvera.fde.moments import default_blocks
from muvera.mips import make_search

from ..known_names import require_known
from .base import Answers, Material, Ranked, System, timed_search

#: Parameters that a configuration may set; dimension and seed come from the runner.
_PARAMETERS = [field.name for field in fields(FDEConfig) if field.name not in ("dimension", "seed")]

_SETTINGS = [setting.name for setting in fields(IndexSettings)]


def encoder_config(preset: str, dimension: int, seed: int, changes: dict[str, Any]) -> FDEConfig:
    """Return a preset with changed parameters.

    Raise ValueError with the nearest name for an unknown one.
    """
    require_known(preset, PRESETS, "preset")
    for name in changes:
        require_known(name, _PARAMETERS, "argument of the encoder")
    return FDEConfig.preset(preset, dimension, seed=seed, **changes)


class _LibrarySystem(System):
    """Base class of systems with a preset and parameters of any encoder."""

    def __init__(self, preset: str, changes: dict[str, Any]) -> None:
        encoder_config(preset, 128, 0, changes)  # raises for wrong names and values before anything is built
        self._preset, self._changes = preset, changes

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the encoders' parameters."""
        return _PARAMETERS

    def config(self, material: Material) -> FDEConfig:
        """Return the encoder's configuration for the collection."""
        return encoder_config(self._preset, material.documents.dimension, material.seed, self._changes)


class Muvera(_LibrarySystem):
    """:class:`muvera.MuveraIndex`: candidates by vectors, exact Chamfer ranking.

    `build` has fields of :class:`muvera.IndexSettings` and parameters of the preset's
    configuration. `exact_tokens` is 0 unlike in the index: small collections are also
    searched through vectors.
    """

    name: ClassVar[str] = "muvera"

    def __init__(self, *, preset: str = DEFAULT_PRESET, **build: Any) -> None:
        settings = {name: build.pop(name) for name in _SETTINGS if name in build}
        super().__init__(preset, build)
        self._settings = IndexSettings(**{"exact_tokens": 0, **settings})
        # With codes alone, scores are computed from decoded tokens.
        has_codes = self._settings.tokens not in (None, "float32", "float16")
        self.chamfer = self._settings.keep_exact or not has_codes

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the settings and of the encoders' parameters."""
        return [*_SETTINGS, *_LibrarySystem.open_arguments()]

    def build(self, material: Material) -> None:
        """Encode all documents and index their vectors."""
        super().build(material)
        config = self.config(material)
        self._index = MuveraIndex.build(self.documents, config, settings=self._settings, threads=self.threads)

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        ef: int | None = None,
        recall: float | None = None,
        rescore: int | None = None,
    ) -> Answers:
        """Search as users do."""
        how: dict[str, Any] = {"candidates": max(k, candidates)} if recall is None else {"recall": recall}
        how |= {"ef": ef, "rescore": rescore, "threads": self.threads}

        def answer(_: int, query: MultiVectors) -> Ranked:
            ranking = self._index.search(query, k, **how)[0]
            return np.asarray(ranking.ids, np.int64), ranking.scores

        return timed_search(queries, k, answer)

    def token_bytes_per_document(self) -> float:
        """Return the bytes of stored tokens: codes and exact tokens together."""
        info = self._index.info()
        codec = info.token_codec
        per_token = float(codec["bytes_per_token"]) + float(codec["exact_bytes_per_token"])
        return per_token * info.tokens / info.documents

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector and, with a graph, of its links."""
        vectors = self._index.info().vectors
        return float(vectors["bytes_per_vector"]) if vectors else 0.0


class FirstStage(_LibrarySystem):
    """The first stage alone: documents by the exact inner products of their vectors.

    An FDE keeps its default coefficients if `fit_coefficients` is false.
    """

    name: ClassVar[str] = "fde"

    def __init__(
        self, *, preset: str = DEFAULT_PRESET, fit_coefficients: bool = True, **changes: Any
    ) -> None:
        super().__init__(preset, changes)
        self._fit_coefficients = fit_coefficients

    def build(self, material: Material) -> None:
        """Fit the encoder, encode all documents and add their vectors to the search."""
        super().build(material)
        self._encoder = self._fitted(material)
        self._search = make_search("exact", self._encoder.config.vector_dimension)
        vectors = self._encoder.encode_documents(self.documents, threads=self.threads)
        self._search.add(np.arange(len(self.documents)), vectors, self.threads)

    def _fitted(self, material: Material) -> FDEEncoder:
        encoder = FDEEncoder(self.config(material))
        if encoder.needs_fit:
            encoder.fit(self.documents, threads=self.threads)
        if self._fit_coefficients:
            return encoder
        if encoder.blocks is None or encoder.learned is not None:
            raise ValueError(
                "fit_coefficients=False needs an FDE with moments and without a learned projection, got "
                f"{encoder.config.to_dict()}."
            )
        blocks = default_blocks(encoder.config)
        return FDEEncoder(
            encoder.config, matrices=encoder.matrices, mean_token=encoder.mean_token, blocks=blocks
        )

    def search(self, queries: MultiVectors, k: int) -> Answers:
        """Return the documents with the largest inner products.

        Queries are answered at once and not timed.
        """
        vectors = self._encoder.encode_queries(queries, threads=self.threads)
        ids, scores = self._search.search(vectors, k, threads=self.threads)
        return Answers(ids, scores, np.full(len(queries), np.nan))

    def reads_tokens(self, **_: Any) -> bool:
        """Return False: nothing is ranked exactly."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector."""
        return float(self._search.info()["bytes_per_vector"])
