"""The index of this library, with every backend, preset and parameter of FDEs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from muvera import MultiVectors, MuveraIndex, rerank
from muvera.index.default_preset import FEW, default_preset
from muvera.index.settings import TokenSettings

from .base import Answers, Family, Material, Ranked, System
from .encoder_settings import ENCODER_ARGUMENTS, encoder_config
from .timed_search import timed_search

__all__ = ["Muvera"]

# Queries on which the two ways to an answer are compared.
_COMPARED = 10


class Muvera(System):
    """FDE candidates, exact Chamfer ranking: :class:`muvera.MuveraIndex` as a user has it.

    Parameters
    ----------
    preset : str
        Of :data:`muvera.encoders.registry.PRESETS`: "default", "paper", "learned", ...; or "auto", what the
        index takes where nothing is said.
    backend : str
        Of :class:`muvera.MuveraIndex`.
    hnsw : dict, optional
        Settings of the graph.
    pq : dict, optional
        Settings of product codes.
    tokens : str or dict, optional
        How tokens are kept, see :class:`muvera.index.settings.TokenSettings`.
    exact_tokens : int
        0 by default, unlike the index: small collections, too, are to be searched through FDEs here.
    **changes
        Parameters of :class:`muvera.FDEConfig` or, with ``encoder: learned``, of
        :class:`muvera.LearnedConfig`, but for dimension and seed.
    """

    name: ClassVar[str] = "muvera"
    family: ClassVar[Family] = "muvera"

    def __init__(
        self,
        *,
        preset: str = "default",
        backend: Any = "auto",
        hnsw: dict[str, Any] | None = None,
        pq: dict[str, Any] | None = None,
        tokens: str | dict[str, Any] | None = None,
        exact_tokens: int = 0,
        **changes: Any,
    ) -> None:
        encoder_config(
            FEW if preset == "auto" else preset, 128, 0, changes
        )  # refuse wrong names and values before anything is built
        self._preset, self._changes = preset, changes
        kept = TokenSettings.of(tokens)
        self._has_codes = kept.has_codes
        self._settings = {
            "backend": backend,
            "hnsw": hnsw,
            "pq": pq,
            "tokens": tokens,
            "exact_tokens": exact_tokens,
        }
        # An attribute of the class elsewhere: here scores are those of decoded tokens where these are all.
        self.chamfer = kept.keep_exact or not kept.has_codes

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the encoders' parameters."""
        return ENCODER_ARGUMENTS

    def build(self, material: Material) -> None:
        """Encode all documents and index their FDEs."""
        super().build(material)
        dimension, preset = material.documents.dimension, self._preset
        if preset == "auto":
            preset = default_preset(len(material.documents), dimension)
        config = encoder_config(preset, dimension, material.seed, self._changes)
        self._index = MuveraIndex.build(
            material.documents, config, threads=material.threads, **self._settings
        )

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        ef: int | None = None,
        ball_carving_tau: float | None = None,
        patience: int | None = None,
        rescore: int | None = None,
    ) -> Answers:
        """Search as a user does.

        Parameters
        ----------
        candidates : int
            Documents that are ranked exactly; at least k.
        ef : int, optional
            Candidates of the walk through the graph; default: what it was built with.
        ball_carving_tau, patience, rescore : optional
            Of :meth:`muvera.MuveraIndex.search`.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            ranking = self._index.search(
                query,
                k,
                candidates=max(k, candidates),
                ball_carving_tau=ball_carving_tau,
                patience=patience,
                rescore=rescore,
                ef=ef,
                threads=self.threads,
            )[0]
            return np.asarray(ranking.ids, np.int64), ranking.scores

        return timed_search(queries, k, answer)

    def disagreement(self, queries: MultiVectors, k: int, **query: Any) -> str | None:
        """Compare the index's answers with candidates that are encoded, searched and ranked apart.

        Carving, patience and codes of tokens change answers by design, and are left out.
        """
        if self._has_codes:
            return None
        query = {name: value for name, value in query.items() if name in ("candidates", "ef")}
        some = queries[: min(_COMPARED, len(queries))]
        answers = self.search(some, k, **query)
        held = self._index._contents.candidates
        if held is None:
            return None
        count = min(max(k, query.get("candidates", 100)), len(self.documents))
        fdes = held.encoder.encode_queries(some, threads=self.threads)
        if held.search.kind == "exact":
            stored = held.search.vectors(held.search.labels())
            found = np.argsort(-(fdes @ stored.T), axis=1, kind="stable")[:, :count]
        else:
            found = held.search.search(fdes, count, threads=self.threads, ef=query.get("ef"))[0]
        candidates = [row[row >= 0] for row in found]
        expected = rerank(some, self.documents, candidates, k, threads=self.threads)
        for i, ranking in enumerate(expected):
            got = answers.scores[i, : len(ranking)]
            # By scores, for ties may stand in another order; the last may hang on the last candidate.
            if not np.allclose(got[:-1], ranking.scores[:-1], rtol=1e-5):
                return (
                    f"query {some.ids[i]}: through the index the best scores are {got[:3].tolist()}, "
                    f"step by step {ranking.scores[:3].tolist()}."
                )
        return None

    def facts(self) -> dict[str, float | str]:
        """Return the FDE's size and, of a graph, its measured recall."""
        info = self._index.info()
        found: dict[str, float | str] = {"vector_dimension": float(info.encoder["vector_dimension"])}
        if info.vectors is not None and info.vectors.get("recall") is not None:
            found["search_recall"] = float(info.vectors["recall"])
        return found

    def token_bytes_per_document(self) -> float:
        """Return the bytes of tokens as they are kept, codes and exact ones together."""
        info = self._index.info()
        codec = info.token_codec
        per_token = float(codec["bytes_per_token"]) + float(codec["exact_bytes_per_token"])
        return per_token * info.tokens / info.documents

    def bytes_per_document(self) -> float:
        """Return the bytes of an FDE as it is kept and, with a graph, of its links."""
        vectors = self._index.info().vectors
        return float(vectors["bytes_per_vector"]) if vectors else 0.0
