"""The first stage alone: documents in the order of their FDEs, without exact ranking."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.encoders.base import Encoder, EncoderConfig
from muvera.encoders.fde.encoder import FDEEncoder
from muvera.encoders.moments.blocks import default_blocks
from muvera.encoders.registry import make_encoder
from muvera.index.candidates import CandidateSearch
from muvera.index.settings import IndexSettings

from .base import Answers, Family, Material, NotApplicableError, Ranked, System
from .encoder_settings import ENCODER_ARGUMENTS, encoder_config, fit_sample
from .insertion_order import Order, insertion_order, intrinsic_dimension
from .timed_search import timed_search

__all__ = ["FirstStage"]

# Documents added at a time in another order than theirs, and documents whose encoding is timed.
_BLOCK, _TIMED = 1024, 200


class FirstStage(System):
    """What FDEs find before anything is ranked exactly; its scores are inner products of FDEs.

    Parameters
    ----------
    preset : str
        Of :data:`muvera.encoders.registry.PRESETS`: "default", "paper", "learned", ...
    backend : str
        Of :class:`muvera.index.candidates.CandidateSearch`; "exact" shows FDEs without the error of a graph.
    hnsw : dict, optional
        Settings of the graph.
    pq : dict, optional
        Settings of product codes.
    order : str
        In which order the FDEs are added, see :func:`experiments.systems.insertion_order.insertion_order`.
    fit_on : float, optional
        Share of the documents that the encoder is fitted on, drawn at random; default: all.
    fit_with_queries : bool
        Whether the encoder is also fitted on the queries that the experiment sets aside for training.
    calibrated : bool
        Without it an FDE keeps the coefficients that stand for no documents to learn from.
    **changes
        Parameters of the preset's configuration, but for dimension and seed.
    """

    name: ClassVar[str] = "fde"
    family: ClassVar[Family] = "muvera"

    def __init__(
        self,
        *,
        preset: str = "default",
        backend: Any = "exact",
        hnsw: dict[str, Any] | None = None,
        pq: dict[str, Any] | None = None,
        order: Order = "given",
        fit_on: float | None = None,
        fit_with_queries: bool = False,
        calibrated: bool = True,
        **changes: Any,
    ) -> None:
        encoder_config(preset, 128, 0, changes)  # refuse wrong names and values before anything is built
        self._settings = IndexSettings.from_dict({"backend": backend, "hnsw": hnsw, "pq": pq})
        self._preset, self._changes, self._order = preset, changes, order
        self._fit_on, self._fit_with_queries, self._calibrated = fit_on, fit_with_queries, calibrated

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the encoders' parameters."""
        return ENCODER_ARGUMENTS

    def build(self, material: Material) -> None:
        """Encode all documents and add their FDEs to the search."""
        super().build(material)
        documents, threads = material.documents, material.threads
        self._sample = fit_sample(len(documents), self._fit_on, material.seed)
        start = time.perf_counter()
        encoder = self.fitted_encoder(
            material, documents if self._sample is None else documents[self._sample]
        )
        self._fit_seconds = time.perf_counter() - start
        self._contents = CandidateSearch(encoder, self._settings)
        self._intrinsic = np.empty(0)
        rows = np.arange(len(documents))
        if self._order == "given":
            self._contents.add(rows, documents, threads)
            self._contents.search.train(threads)
            return
        fdes = encoder.encode_documents(documents, threads=threads)
        self._intrinsic = intrinsic_dimension(fdes)
        rows = insertion_order(self._order, fdes, self._intrinsic, material.seed)
        for first in range(0, len(rows), _BLOCK):
            part = rows[first : first + _BLOCK]
            self._contents.search.add(part, fdes[part], threads)

    def config(self, material: Material) -> EncoderConfig:
        """Return the encoder's configuration for the collection."""
        return encoder_config(self._preset, material.documents.dimension, material.seed, self._changes)

    def fitted_encoder(self, material: Material, documents: MultiVectors) -> Encoder:
        """Return the encoder, fitted on `documents` where it has to be.

        Raises
        ------
        NotApplicableError
            Where it is to be fitted on training queries, and the collection has none set aside.
        """
        encoder = make_encoder(self.config(material))
        queries = material.training_queries if self._fit_with_queries else None
        if self._fit_with_queries and queries is None:
            raise NotApplicableError("No queries are set aside: give the experiment training_queries.")
        if encoder.needs_fit:
            encoder.fit(documents, queries, threads=material.threads)
        return encoder if self._calibrated else _uncalibrated(encoder)

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        ef: int | None = None,
        one_by_one_timed: bool = False,
    ) -> Answers:
        """Return the documents with the largest inner products.

        Parameters
        ----------
        ef : int, optional
            Candidates of the walk through the graph; default: what it was built with.
        one_by_one_timed : bool
            Without it all queries are answered at once, and times are NaN: not measured.
        """
        search = self._contents.search

        def answer(_: int, query: MultiVectors) -> Ranked:
            fde = self._contents.encoder.encode_queries(query, threads=self.threads)
            ids, scores = search.search(fde, k, threads=self.threads, ef=ef)
            return ids[0][ids[0] >= 0], scores[0][ids[0] >= 0]

        if one_by_one_timed:
            return timed_search(queries, k, answer)
        fdes = self._contents.encoder.encode_queries(queries, threads=self.threads)
        ids, scores = search.search(fdes, k, threads=self.threads, ef=ef)
        return Answers(ids, scores, np.full(len(queries), np.nan))

    def facts(self) -> dict[str, float | str]:
        """Return the FDE's size, of learned maps what they cost, and the mean intrinsic dimension if known."""
        encoder = self._contents.encoder
        found: dict[str, float | str] = {"vector_dimension": float(encoder.config.vector_dimension)}
        if len(self._intrinsic):
            found["intrinsic_dimension"] = float(self._intrinsic.mean())
        if encoder.config.needs_fit_sample:
            some = self.documents[:_TIMED]
            start = time.perf_counter()
            encoder.encode_documents(some, threads=self.threads)
            found["fit_seconds"] = self._fit_seconds
            found["encode_ms_per_document"] = 1e3 * (time.perf_counter() - start) / len(some)
        return found

    def fitted_on(self) -> NDArray[np.int64] | None:
        """Return the positions of the documents that the encoder was fitted on, where these are not all."""
        return self._sample

    def reads_tokens(self, **_: Any) -> bool:
        """Return False: nothing is ranked exactly."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of an FDE as it is kept and, with a graph, of its links."""
        return float(self._contents.search.info()["bytes_per_vector"])


def _uncalibrated(encoder: Encoder) -> Encoder:
    """Return an FDE encoder with the default coefficients.

    Raises
    ------
    ValueError
        For another encoder, or one without blocks beside the sketch.
    """
    if not isinstance(encoder, FDEEncoder) or encoder.blocks is None or encoder.config.covariance:
        raise ValueError(
            "calibrated=False needs an FDE with split_mean=True and covariance=False, got "
            f"{encoder.config.to_dict()}."
        )
    blocks = default_blocks(encoder.config.dimension, False, encoder.blocks.metric)
    return FDEEncoder(encoder.config, matrices=encoder.matrices, center=encoder.center, blocks=blocks)
