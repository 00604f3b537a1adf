"""Qdrant's native multivectors, through qdrant-edge."""

from __future__ import annotations

from typing import Any, ClassVar

from muvera import MultiVectors

from .base import Answers, Material
from .worker_system import WorkerSystem

__all__ = ["Qdrant"]


class Qdrant(WorkerSystem):
    """Qdrant's engine in an environment and a process of its own, with its MaxSim over tokens as halves.

    Its scores are those of Chamfer up to the rounding of halves, so that nothing ranks them again.

    Parameters
    ----------
    graph_of_tokens : bool
        Without it the mean token vectors propose candidates through a graph, as its documentation
        advises; with it the documents' token sets stand in a graph, which takes very long to build: each
        step compares all tokens of two documents.
    m, ef_construct : int
        Of the graph.
    """

    name: ClassVar[str] = "qdrant"
    library: ClassVar[str] = "qdrant-edge"

    def __init__(self, *, graph_of_tokens: bool = False, m: int = 16, ef_construct: int = 100) -> None:
        self._graph_of_tokens = graph_of_tokens
        self._settings = {"graph_of_tokens": graph_of_tokens, "m": m, "ef_construct": ef_construct}

    def build(self, material: Material) -> None:
        """Make the shard in the scratch folder."""
        super().build(material)
        self._index = material.folder / "shard"
        self.build_of(material, index=str(self._index), **self._settings)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        candidates : int
            Documents that are proposed for its MaxSim, or that the walk through the graph of tokens keeps.
        """
        return self.asked(
            queries,
            k,
            self._index,
            0,
            top_k=k,
            candidates=max(k, candidates),
            graph_of_tokens=self._graph_of_tokens,
        )

    def reads_tokens(self, **_: Any) -> bool:
        """Return False: the shard holds the tokens."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of the shard's files, tokens among them."""
        # Its files are longer than what is written: blocks count.
        files = (path for path in self._index.rglob("*") if path.is_file())
        return sum(512 * path.stat().st_blocks for path in files) / len(self.documents)
