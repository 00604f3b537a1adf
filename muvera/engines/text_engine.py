"""EngineTextIndex: texts in a vector database, with the methods of TextIndex."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np

from ..data.multivectors import MultiVectors
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..metadata.filters import Filter
from ..texts.database import DocumentDatabase, TextDocument, require_ids
from ..texts.encoders.base import NoEncoder, TextEncoder, as_texts, encode_texts
from ..texts.encoders.registry import as_text_encoder, required_encoder
from ..texts.search_options import Parts, SearchOptions, add_words
from ..texts.text_index import TextIndex
from ..utils.checks import as_id_list
from .base import Engine, EngineError
from .engine_index import EngineIndex

_Read = TypeVar("_Read")


class EngineTextIndex(TextIndex):
    """Texts in a vector database; :meth:`muvera.TextIndex.open` opens it.

    A change is durable once the method returns.  :meth:`add` needs ids.  Shared words change only the order of the
    candidates.

    Parameters
    ----------
    engine : Engine or str
        A collection that ``muvera load TEXTINDEX --to URL`` filled, or an empty one.
    encoder : TextEncoder or str, optional
        Default: that of the collection, if it is built in.

    Raises
    ------
    EngineError
        If the engine cannot be reached, or its documents have no texts.
    ValueError
        If `encoder` is missing, or did not encode the collection.

    Examples
    --------
    >>> with EngineTextIndex("qdrant://localhost:6333#docs") as index:  # doctest: +SKIP
    ...     hits = index.search("a question", where={"year": {"$gte": 2000}})
    """

    def __init__(self, engine: Engine | str, encoder: TextEncoder | str | None = None) -> None:
        self._stored = collection = EngineIndex(engine)
        try:
            stored, location = collection.engine.description, collection.engine.location
            if stored is None:
                if encoder is None or isinstance(encoder, NoEncoder):
                    raise EngineError(
                        f"{location} is empty. Load texts with muvera load, or give their encoder."
                    )
                self._encoder = as_text_encoder(encoder)
            elif stored.text_encoder is None:
                raise EngineError(f"{location} has no texts. Load an index of texts with muvera load.")
            else:
                self._encoder = required_encoder(stored.text_encoder, encoder, location)
            collection._text_encoder = self._encoder.name
        except BaseException:
            if isinstance(engine, str):
                collection.close()
            raise

    # -- changing -------------------------------------------------------------

    @property
    def _changing(self) -> AbstractContextManager[object]:
        return nullcontext()  # the database orders the changes

    def _store(
        self,
        encoded: MultiVectors,
        texts: list[str],
        metadata: Sequence[Mapping[str, Any]],
        threads: int | None,
        update: bool = False,
    ) -> list[int | str]:
        if not encoded.has_ids:
            raise ValueError("Texts in a database need ids. Give ids=.")
        names: list[int | str] = encoded.ids.tolist()
        if not update:
            for used in self._get(names, "ignore"):
                raise ValueError(f"id {used.id!r} is in the index already. Use update, or another id.")
        empty = np.flatnonzero(encoded.lengths == 0)
        if len(empty):
            raise ValueError(f"The text of {names[empty[0]]!r} is blank, and a database finds no blank text.")
        self._stored.add(encoded, metadata, texts=texts, threads=threads)
        return names

    def _store_metadata(self, documents: list[TextDocument], metadata: list[dict[str, Any]]) -> None:
        tokens = self._tokens([document.id for document in documents])
        self._stored.add(tokens, metadata, texts=[document.text for document in documents])

    def delete(self, ids: Iterable[int | str], *, missing: Missing = "raise") -> None:
        """Delete texts by id.  See :meth:`muvera.TextIndex.delete`."""
        self._stored.delete(require_ids(as_id_list(ids)), missing=missing)

    def save(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        """Do nothing without a path, since changes are durable; raise EngineError for a path."""
        if path is not None:
            raise EngineError("Texts in a database have no folder. Build a TextIndex to save one.")

    def close(self) -> None:
        """Close connections and files."""
        self._stored.close()

    # -- searching ------------------------------------------------------------

    def _rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        k, words = options.k, options.words
        if self._stored.engine.description is None:
            return [{} for _ in queries]
        count = self._stored.num_candidates(k, options.candidates, options.recall)
        best = self._stored.search(
            encoded, count if words else k, where=options.where, ids=options.ids, candidates=count,
            threads=options.threads,
        )  # fmt: skip
        scores = [dict(ranking) for ranking in best]
        if not words:
            return [{id: {"maxsim": score} for id, score in own.items()} for own in scores]
        return [
            add_words(own, self._shared_words(query, list(own)), words, k)
            for query, own in zip(queries, scores, strict=True)
        ]

    def _shared_words(self, query: str, candidates: list[Any]) -> dict[Any, float]:
        """Return the BM25 scores of candidates, with word frequencies among the candidates."""
        documents = self._get(candidates, "ignore")
        database = DocumentDatabase()
        database.put(
            [document.id for document in documents],
            [document.text for document in documents],
            [{}] * len(documents),
        )
        return dict(database.match_words(query, len(documents) or 1))

    def _on_one_state(self, read: Callable[[], _Read]) -> _Read:
        return read()  # other programs can change a database at any time

    def _tokens(self, ids: list[Any]) -> MultiVectors:
        return self._stored.engine.tokens(ids)

    def calibrate(self, queries: Sequence[str], *, threads: int | None = None) -> None:
        """Calibrate ``search(recall=)`` with real queries.  See :meth:`muvera.TextIndex.calibrate`."""
        encoded = encode_texts(self._encoder.encode_queries, as_texts(queries, "queries"))
        self._stored.calibrate(encoded, threads=threads)

    # -- reading --------------------------------------------------------------

    def _get(self, ids: list[int | str], missing: Missing = "raise") -> list[TextDocument]:
        return self._stored.documents(ids, missing=missing)

    def select(self, where: Filter) -> list[int | str]:
        """Raise EngineError: databases answer conditions only in a search."""
        raise EngineError(f"{self._stored.engine.location} lists no ids. Search with a condition.")

    def __iter__(self) -> Iterator[TextDocument]:
        raise EngineError(f"{self._stored.engine.location} lists no texts. Give ids to get.")

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, id: object) -> bool:
        return bool(self.get([id], missing="ignore"))  # type: ignore[list-item]

    @property
    def index(self) -> MuveraIndex:
        """Raise EngineError: the token vectors are in the database."""
        raise EngineError(f"{self._stored.engine.location} has its token vectors in the database.")
