"""The nearest document tokens of query tokens, and the base class of systems that begin with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.data.multivectors import as_kernel_arrays
from muvera.data.validation import read_only_view
from muvera.kernels.tile import pack_columns
from muvera.mips import HNSWSearch, HNSWSettings

from .base import Material, System
from .token_kernels import nearest_tokens
from .vector_search import VectorBackend

__all__ = ["TokenSearch", "TokenSystem"]

# Tokens widened to float32 and given to the graph at a time.
_BLOCK = 1 << 16


class TokenSearch:
    """Search among all token vectors of a collection.

    Parameters
    ----------
    documents : MultiVectors
        At least one token.
    backend : {"hnsw", "exact"}
        "hnsw" walks a graph of all tokens: its build takes time and memory in proportion to tokens, not
        to documents.  "exact" reads every token for every query, on one thread: no graph, no error of
        one.
    m, ef_construction : int
        Of the graph, see :class:`muvera.mips.HNSWSettings`.
    seed : int
    threads : int
        With more than one the graph is not reproducible.

    Attributes
    ----------
    document_of : int64 (n_tokens,)
        Whose each token is.

    Raises
    ------
    ValueError
        For another backend.
    """

    def __init__(
        self,
        documents: MultiVectors,
        backend: VectorBackend,
        *,
        m: int,
        ef_construction: int,
        seed: int,
        threads: int,
    ) -> None:
        self.document_of = np.repeat(np.arange(len(documents)), documents.lengths)
        self._floats, self._halves = as_kernel_arrays(documents)
        self._threads = threads
        self._graph: HNSWSearch | None = None
        if backend == "hnsw":
            # The walk is as wide as what is asked for: `nearest` says how wide.
            self._graph = HNSWSearch(
                documents.dimension, HNSWSettings(m=m, ef_construction=ef_construction, ef=1, seed=seed)
            )
            for start in range(0, documents.num_tokens, _BLOCK):
                part = documents.tokens[start : start + _BLOCK].astype(np.float32)
                self._graph.add(np.arange(start, start + len(part)), part, threads)
        elif backend != "exact":
            raise ValueError(f"backend must be 'hnsw' or 'exact', got {backend!r}.")

    def nearest(
        self, query: NDArray[np.float32], count: int, ef: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the `count` best tokens of each query token and their inner products.

        Parameters
        ----------
        query : float32 (m, dimension)
        count : int
            At most all tokens are returned.
        ef : int, optional
            How many tokens the walk through the graph keeps; default and at least `count`.  More find more
            of the true best and take longer.

        Returns
        -------
        int64 (m, c), float32 (m, c)
            Best first.

        Raises
        ------
        ValueError
            For a count below 1.
        """
        if count < 1:
            raise ValueError(f"Every query token must retrieve at least 1 token, got {count}.")
        count = min(count, len(self.document_of))
        if self._graph is not None:
            walked = min(max(count, ef or 0), len(self.document_of))
            tokens, scores = self._graph.search(query, walked, threads=self._threads)
            return tokens[:, :count], scores[:, :count]
        scores = np.empty((len(query), count), np.float32)
        tokens = np.empty((len(query), count), np.int64)
        packed = read_only_view(pack_columns(query).reshape(-1))
        nearest_tokens(self._floats, self._halves, packed, scores, tokens)
        return tokens, scores

    @property
    def bytes_per_token(self) -> float:
        """Bytes on top of the token vectors: the graph with its own copy of them, and `document_of`."""
        graph = 0 if self._graph is None else int(self._graph.info()["bytes_per_vector"])
        return graph + self.document_of.itemsize


class TokenSystem(System):
    """Base class of systems that search among single tokens.

    Parameters
    ----------
    backend : {"hnsw", "exact"}
        A graph of all tokens, or a scan of all of them: the latter shows a system without any error of a
        graph, and takes about as long as exact Chamfer over all documents.
    m, ef_construction : int
        Links a token and candidates while building; more raise recall, and the time of a build that has
        to add every token.
    """

    def __init__(self, *, backend: VectorBackend = "hnsw", m: int = 16, ef_construction: int = 100) -> None:
        self._backend: VectorBackend = backend
        self._m, self._ef_construction = m, ef_construction

    def build(self, material: Material) -> None:
        """Build the graph, where there is one."""
        super().build(material)
        self._tokens = TokenSearch(
            material.documents,
            self._backend,
            m=self._m,
            ef_construction=self._ef_construction,
            seed=material.seed,
            threads=material.threads,
        )

    def bytes_per_document(self) -> float:
        """Return the bytes of the graph, with its own float32 copy of the tokens, and of their owners."""
        return self._tokens.bytes_per_token * self.documents.num_tokens / len(self.documents)
