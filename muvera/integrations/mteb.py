"""MTEB: a text index as a search model for retrieval and reranking tasks.

Needs the extra "mteb".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..index.settings import DEFAULT_CANDIDATES
from ..texts.encoders.base import TextEncoder
from ..texts.encoders.registry import as_text_encoder
from ..texts.text_index import TextIndex
from ..utils.checks import needing

with needing("mteb", "mteb", "muvera.integrations.mteb"):
    from mteb.models.model_meta import ModelMeta


class MuveraSearch:
    """A search model of MTEB that uses an index instead of a full scan.

    It has the methods of MTEB's ``SearchProtocol``.

    Parameters
    ----------
    encoder : TextEncoder or str
        See :func:`muvera.load_text_encoder`.  Default: "static", a table of token
        vectors that needs no download.
    candidates : int
        Documents to rank exactly.  More raise recall and take longer, in proportion.
    words : float, optional
        Weight of shared words, see :meth:`muvera.TextIndex.search`.
    **settings
        As for :meth:`muvera.TextIndex.build`.

    Examples
    --------
    >>> import mteb  # doctest: +SKIP
    >>> tasks = mteb.get_tasks(["SciFact"])  # doctest: +SKIP
    >>> mteb.evaluate(MuveraSearch("colbert-small"), tasks)  # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: TextEncoder | str = "static",
        candidates: int = DEFAULT_CANDIDATES,
        words: float | None = None,
        **settings: Any,
    ) -> None:
        self._encoder = as_text_encoder(encoder)
        self._candidates = candidates
        self._words = words
        self._settings = settings
        self._index: TextIndex | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Metadata of results: the encoder's name, and the candidates as revision."""
        name = re.sub(r"[^\w.-]", "_", self._encoder.name)
        return ModelMeta.create_empty(
            {"name": f"muvera/{name}", "revision": f"candidates={self._candidates}"}
        )

    def index(self, corpus: Iterable[Mapping[str, Any]], **_: Any) -> None:
        """Build the index of a corpus.

        Parameters
        ----------
        corpus : dataset
            With "id", "text", and an optional "title" that is put before the text.
        **_
            Other arguments of MTEB, which are ignored.
        """
        texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in corpus]
        ids = [row["id"] for row in corpus]
        self._index = TextIndex.build(texts, self._encoder, ids=ids, **self._settings)

    def search(
        self,
        queries: Iterable[Mapping[str, Any]],
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Return the scores of the best documents of each query.

        Parameters
        ----------
        queries : dataset
            With "id" and "text", and an optional "instruction" that is appended to the
            text.
        top_k : int
            Maximum number of documents for each query.
        top_ranked : mapping of str to sequence of str, optional
            Documents to rank for each query, in reranking tasks.
        **_
            Other arguments of MTEB, which are ignored.

        Returns
        -------
        dict of dict
            The score of each document by id, for each query by id.

        Raises
        ------
        RuntimeError
            Before :meth:`index` was called.
        TypeError
            For a query that is not a text, such as a conversation or an image.
        """
        if self._index is None:
            raise RuntimeError("There is no index yet. Call index first.")
        scores = {}
        for row in queries:
            if not isinstance(row.get("text"), str):
                raise TypeError(f"Query {row['id']!r} must be a text, got {type(row.get('text')).__name__}.")
            text = f"{row['text']} {row.get('instruction') or ''}".strip()
            ids = None if top_ranked is None else top_ranked[row["id"]]
            count = max(self._candidates, top_k, len(ids or ()))
            hits = self._index.search(text, top_k, ids=ids, candidates=count, words=self._words)
            scores[row["id"]] = {str(hit.id): hit.score for hit in hits}
        return scores
