"""MTEB: an index of texts as a search model, which its retrieval and reranking tasks evaluate.

Needs the extra "mteb".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mteb.models.model_meta import ModelMeta

from ..texts.encoders.base import TextEncoder
from ..texts.encoders.registry import as_text_encoder
from ..texts.text_index import TextIndex

__all__ = ["MuveraSearch"]


class MuveraSearch:
    """A search model of MTEB (its ``SearchProtocol``): late interaction with an index instead of a full scan.

    Parameters
    ----------
    encoder : TextEncoder or str
    candidates : int
        Documents that are ranked exactly.
    words : int
        Documents that share words with the query and are ranked, too.
    **settings
        As for :meth:`muvera.MuveraIndex.build`.

    Examples
    --------
    >>> import mteb  # doctest: +SKIP
    >>> mteb.evaluate(MuveraSearch("minilm"), mteb.get_tasks(["SciFact"]))  # doctest: +SKIP
    """

    def __init__(
        self, encoder: TextEncoder | str = "minilm", candidates: int = 100, words: int = 0, **settings: Any
    ) -> None:
        self._encoder = as_text_encoder(encoder)
        self._candidates, self._words, self._settings = candidates, words, settings
        self._index: TextIndex | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What MTEB files the results under: the encoder's name."""
        name = "".join(
            letter if letter.isalnum() or letter in "-_." else "_" for letter in self._encoder.name
        )
        return ModelMeta.create_empty(
            {"name": f"muvera/{name}", "revision": f"candidates={self._candidates}"}
        )

    def index(self, corpus: Any, **_: Any) -> None:
        """Build the index of a corpus, its titles before its texts."""
        texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in corpus]
        ids = [row["id"] for row in corpus]
        self._index = TextIndex.build(texts, self._encoder, ids=ids, **self._settings)

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Return the scores of the best documents of each query.

        Parameters
        ----------
        queries : dataset
            With "id" and "text", and an "instruction" that is put behind the text.
        top_k : int
        top_ranked : mapping of str to sequence of str, optional
            Documents to rank, by query: those of a reranking task.

        Raises
        ------
        RuntimeError
            Before :meth:`index`.
        TypeError
            For queries that are no texts, such as conversations and images.
        """
        if self._index is None:
            raise RuntimeError("There is nothing to search in. Call index first.")
        names, texts = [], []
        for row in queries:
            text = row.get("text")
            if not isinstance(text, str):
                raise TypeError(f"Query {row['id']!r} must be a text, got {type(text).__name__}.")
            names.append(row["id"])
            texts.append(f"{text} {row.get('instruction') or ''}".strip())
        if top_ranked is None:
            found = self._index.search(
                texts, top_k, candidates=max(self._candidates, top_k), words=self._words
            )
        else:
            found = []
            for name, text in zip(names, texts, strict=True):
                given = list(top_ranked[name])
                found.append(self._index.search(text, top_k, ids=given, candidates=max(top_k, len(given))))
        return {
            name: {str(hit.id): hit.score for hit in hits} for name, hits in zip(names, found, strict=True)
        }
