"""Systems of this library: the index, its first stage alone, a tuned first stage, and exact ranking alone."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import FDEEncoder, IndexSettings, MultiVectors, MuveraIndex, rerank, tune
from muvera.data.ranking import best_first
from muvera.encoders.base import Encoder, EncoderConfig
from muvera.encoders.moment_blocks import default_blocks
from muvera.encoders.registry import ENCODERS, PRESETS, make_encoder, preset_config
from muvera.index.candidates import CandidateSearch
from muvera.kernels.tile import LANES
from muvera.mips.exact import bytes_in_memory
from muvera.reranking.chamfer import scores_at
from muvera.reranking.pruning import DocumentSlice, RerankOptions, rank_candidates
from muvera.reranking.queries import carve_queries
from muvera.tuning.tune import MIN_QUERIES

from ..known_names import require_known
from .base import Answers, Family, Material, Ranked, System, timed_search

__all__ = ["ExactRanking", "FirstStage", "Muvera", "Tuned", "encoder_config", "fit_sample"]

# Number of documents whose encoding is timed, and of compared queries.
_TIMED, _COMPARED = 200, 10

#: Parameters of each kind of encoder that a configuration may set; dimension and seed come from the runner.
_PARAMETERS = {
    kind: [
        name for name in inspect.signature(made.config_class).parameters if name not in ("dimension", "seed")
    ]
    for kind, made in ENCODERS.items()
}


def encoder_config(preset: str, dimension: int, seed: int, changes: dict[str, Any]) -> EncoderConfig:
    """Return a preset with changed parameters; raise ValueError with the nearest name for an unknown one."""
    require_known(preset, PRESETS, "preset")
    kind = PRESETS[preset]["encoder"]
    for name in changes:
        require_known(name, _PARAMETERS[kind], f"argument of the encoder {kind}")
    return preset_config(preset, dimension, seed=seed, **changes)


def fit_sample(count: int, share: float | None, seed: int) -> NDArray[np.int64] | None:
    """Return a random `share` of `count` positions, ascending; None means all."""
    if share is None:
        return None
    if not 0 < share < 1:
        raise ValueError(f"fit_on must be a share of the documents above 0 and below 1, got {share}.")
    return np.sort(np.random.default_rng(seed).choice(count, max(1, round(share * count)), replace=False))


def _carved(query: MultiVectors, tau: float | None) -> MultiVectors:
    """Return the carved query if it has fewer panels of LANES tokens, otherwise the query."""
    if tau is None or query.num_tokens <= LANES:
        return query
    carved = carve_queries(query, tau)
    return carved if -(-carved.num_tokens // LANES) < -(-query.num_tokens // LANES) else query


class _LibrarySystem(System):
    """Base class of systems with a preset and parameters of any encoder."""

    family: ClassVar[Family] = "muvera"

    def __init__(self, preset: str, changes: dict[str, Any]) -> None:
        encoder_config(preset, 128, 0, changes)  # raises for wrong names and values before anything is built
        self._preset, self._changes = preset, changes

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the encoders' parameters."""
        return dict.fromkeys(name for names in _PARAMETERS.values() for name in names)

    def config(self, material: Material) -> EncoderConfig:
        """Return the encoder's configuration for the collection."""
        return encoder_config(self._preset, material.documents.dimension, material.seed, self._changes)


class Muvera(_LibrarySystem):
    """:class:`muvera.MuveraIndex`: candidates by document vectors, exact Chamfer ranking.

    `changes` are parameters of the preset's configuration; the others are fields of :class:`muvera.IndexSettings`.
    `exact_tokens` is 0 unlike in the index: small collections are also searched through vectors.
    """

    name: ClassVar[str] = "muvera"

    def __init__(
        self,
        *,
        preset: str = "fde",
        backend: Any = "auto",
        hnsw: dict[str, Any] | None = None,
        tokens: Any = None,
        keep_exact: bool = False,
        exact_tokens: int = 0,
        **changes: Any,
    ) -> None:
        super().__init__(preset, changes)
        self._settings = IndexSettings(
            backend=backend, hnsw=hnsw or {}, tokens=tokens, keep_exact=keep_exact, exact_tokens=exact_tokens  # type: ignore[arg-type]
        )  # fmt: skip
        self._has_codes = tokens not in (None, "float32", "float16")
        # With codes alone, scores are computed from decoded tokens.
        self.chamfer = keep_exact or not self._has_codes

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

    def disagreement(self, queries: MultiVectors, k: int, **query: Any) -> str | None:
        """Compare the index's answers with those of encoding, searching and ranking step by step.

        Settings that change answers by design (recall, token codes) are not compared.
        """
        held = self._index._contents.candidates
        if self._has_codes or held is None:
            return None
        query = {name: value for name, value in query.items() if name in ("candidates", "ef")}
        some = queries[: min(_COMPARED, len(queries))]
        answers = self.search(some, k, **query)
        count = min(max(k, query.get("candidates", 100)), len(self.documents))
        vectors = held.encoder.encode_queries(some, threads=self.threads)
        if held.search.kind == "exact":
            stored = held.search.vectors(held.search.labels())
            proposed = np.argsort(-(vectors @ stored.T), axis=1, kind="stable")[:, :count]
        else:
            proposed = held.search.search(vectors, count, threads=self.threads, ef=query.get("ef"))[0]
        candidates = [row[row >= 0] for row in proposed]
        for i, ranking in enumerate(rerank(some, self.documents, candidates, k, threads=self.threads)):
            scores = answers.scores[i, : len(ranking)]
            # Scores, because ties may be in another order; the last one may depend on the last candidate.
            if not np.allclose(scores[:-1], ranking.scores[:-1], rtol=1e-5):
                return (
                    f"query {some.ids[i]}: through the index the best scores are {scores[:3].tolist()}, "
                    f"step by step {ranking.scores[:3].tolist()}."
                )
        return None

    def facts(self) -> dict[str, float | str]:
        """Return the floats of a vector and the measured recall of a graph."""
        info = self._index.info()
        facts: dict[str, float | str] = {"vector_dimension": float(info.encoder["vector_dimension"])}
        if info.vectors is not None and info.vectors.get("recall") is not None:
            facts["search_recall"] = float(info.vectors["recall"])
        return facts

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
    """The first stage alone: documents by the inner products of their vectors.

    The encoder is fitted on a random share `fit_on` of the documents.  An FDE that is not `calibrated` keeps its
    default coefficients.
    """

    name: ClassVar[str] = "fde"

    def __init__(
        self,
        *,
        preset: str = "fde",
        backend: Any = "exact",
        hnsw: dict[str, Any] | None = None,
        fit_on: float | None = None,
        calibrated: bool = True,
        **changes: Any,
    ) -> None:
        super().__init__(preset, changes)
        self._settings = IndexSettings(backend=backend, hnsw=hnsw or {})  # type: ignore[arg-type]
        self._fit_on, self._calibrated = fit_on, calibrated

    def build(self, material: Material) -> None:
        """Fit the encoder, encode all documents and add their vectors to the search."""
        super().build(material)
        documents, threads = self.documents, self.threads
        self._sample = fit_sample(len(documents), self._fit_on, material.seed)
        start = time.perf_counter()
        encoder = self._fitted(material, documents if self._sample is None else documents[self._sample])
        self._fit_seconds = time.perf_counter() - start
        self._contents = CandidateSearch(encoder, self._settings)
        self._contents.add(np.arange(len(documents)), documents, threads)

    def _fitted(self, material: Material, documents: MultiVectors) -> Encoder:
        """Return the encoder, fitted on `documents` if it needs fitting."""
        encoder = make_encoder(self.config(material))
        if encoder.needs_fit:
            encoder.fit(documents, threads=material.threads)
        if self._calibrated:
            return encoder
        if not isinstance(encoder, FDEEncoder) or encoder.blocks is None:
            raise ValueError(
                f"calibrated=False needs an FDE with split_mean=True, got {encoder.config.to_dict()}."
            )
        blocks = default_blocks(encoder.config.dimension, False, encoder.blocks.metric)
        return FDEEncoder(encoder.config, matrices=encoder.matrices, center=encoder.center, blocks=blocks)

    def search(
        self, queries: MultiVectors, k: int, *, ef: int | None = None, one_by_one_timed: bool = False
    ) -> Answers:
        """Return the documents with the largest inner products.

        Unless `one_by_one_timed`, all queries are answered at once and are not timed (NaN).
        """
        encoder, search = self._contents.encoder, self._contents.search

        def answer(_: int, query: MultiVectors) -> Ranked:
            vector = encoder.encode_queries(query, threads=self.threads)
            ids, scores = search.search(vector, k, threads=self.threads, ef=ef)
            return ids[0][ids[0] >= 0], scores[0][ids[0] >= 0]

        if one_by_one_timed:
            return timed_search(queries, k, answer)
        vectors = encoder.encode_queries(queries, threads=self.threads)
        ids, scores = search.search(vectors, k, threads=self.threads, ef=ef)
        return Answers(ids, scores, np.full(len(queries), np.nan))

    def facts(self) -> dict[str, float | str]:
        """Return the floats of a vector, and the costs of a fitted map."""
        encoder = self._contents.encoder
        facts: dict[str, float | str] = {"vector_dimension": float(encoder.config.vector_dimension)}
        if encoder.config.needs_fit_sample:
            some = self.documents[:_TIMED]
            start = time.perf_counter()
            encoder.encode_documents(some, threads=self.threads)
            facts["fit_seconds"] = self._fit_seconds
            facts["encode_ms_per_document"] = 1e3 * (time.perf_counter() - start) / len(some)
        return facts

    def fitted_on(self) -> NDArray[np.int64] | None:
        """Return the positions of the documents that the encoder was fitted on; None for all."""
        return self._sample

    def reads_tokens(self, **_: Any) -> bool:
        """Return False: nothing is ranked exactly."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector and, with a graph, of its links."""
        return float(self._contents.search.info()["bytes_per_vector"])


class Tuned(FirstStage):
    """The first stage that :func:`muvera.tune` chooses within the bytes of the preset `in_bytes_of`.

    The choice uses the recall among `candidates` on a `sample` of the documents, for the experiment's
    training queries, or for windows of documents if there are too few queries or with `by_windows`.
    Systems of an experiment share a tuning.
    """

    name: ClassVar[str] = "tuned"

    def __init__(
        self, *, in_bytes_of: str, by_windows: bool = False, sample: int = 1500, candidates: int = 50
    ) -> None:
        super().__init__(preset=in_bytes_of)
        self._by_windows, self._tuning = by_windows, {"sample": sample, "candidates": candidates}

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return no names: the signature has all arguments."""
        return ()

    def build(self, material: Material) -> None:
        """Tune unless another system has done so, and build the chosen first stage without a graph."""
        queries = material.collection.training_queries
        settings: dict[str, Any] = {"seed": material.seed, "threads": material.threads, **self._tuning}
        settings["candidates"] = min(settings["candidates"], len(material.documents) // 2)
        if self._by_windows or queries is None or len(queries) < MIN_QUERIES:
            queries = None
        key = ("tuning", queries is None, *sorted(settings.items()))
        if key not in material.shared:
            material.shared[key] = tune(material.documents, queries, **settings)
        tuning = material.shared[key]
        limit = bytes_in_memory(preset_config(self._preset, material.documents.dimension).vector_dimension)
        row = tuning.within(limit)
        self._chosen: EncoderConfig = row.config
        self._choice: str = row.name
        super().build(material)

    def config(self, material: Material) -> EncoderConfig:
        """Return the chosen configuration."""
        return self._chosen

    def facts(self) -> dict[str, float | str]:
        """Return the choice and the facts of its first stage."""
        return {**super().facts(), "choice": self._choice}


class ExactRanking(FirstStage):
    """Exact ranking alone: the first stage finds candidates before timing starts."""

    name: ClassVar[str] = "reranking"
    chamfer: bool = True

    def search(  # type: ignore[override]
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        early_exit: bool = True,
        ball_carving_tau: float | None = None,
        matrix: bool = False,
    ) -> Answers:
        """Rank candidates one query at a time.

        `early_exit` stops scoring a document once bounds show that it cannot be among the k best; `matrix`
        scores all with the kernel for many queries, which ignores the order of candidates.  With
        `ball_carving_tau`, carved queries choose the k best, which are then scored with the whole query.  The
        fact "products made" is the share of products of a document token and a panel of LANES query tokens,
        the kernel's smallest unit, that were computed.
        """
        proposed = self._contents.find(queries, max(k, candidates), threads=self.threads)
        made = np.empty(len(queries))

        def slices_of(rows: NDArray[np.int64], _: bool) -> list[DocumentSlice]:
            return [(self.documents, rows, np.arange(len(rows)))]

        def answer(place: int, query: MultiVectors) -> Ranked:
            rows, _ = proposed[place]
            if matrix:
                made[place] = 1.0
                rows = np.sort(rows)
                scores = scores_at(query, self.documents, rows, threads=self.threads)[:, 0]
                best = best_first(scores, k)
                return rows[best], scores[best]
            products: list[int] = []
            options = RerankOptions(k, early_exit=early_exit, products=products)
            choosing = _carved(query, ball_carving_tau)
            best_rows, scores = rank_candidates(choosing[0], rows, slices_of, options, self.threads)
            if choosing is not query:
                whole = RerankOptions(k, early_exit=False, products=products)
                best_rows, scores = rank_candidates(query[0], best_rows, slices_of, whole, self.threads)
            possible = int(self.documents.lengths[rows].sum()) * -(-query.num_tokens // LANES)
            made[place] = sum(products) / possible
            return best_rows, scores

        answers = timed_search(queries, k, answer)
        return dataclasses.replace(answers, facts={"products made": made})

    def reads_tokens(self, **_: Any) -> bool:
        """Return True: all candidates are ranked exactly."""
        return True
