"""EngineTexts: the texts of a TextIndex in a vector database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeVar

import numpy as np

from ..data.multivectors import MultiVectors
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..metadata import Filter
from ..texts.database import DocumentDatabase, TextDocument
from ..texts.encoders.base import NoEncoder, TextEncoder
from ..texts.encoders.registry import as_text_encoder, required_encoder
from ..texts.hit import Parts, SearchOptions, add_words
from .base import Engine, EngineError, open_engine
from .engine_index import EngineIndex

_Read = TypeVar("_Read")

_NO_LIST = "is a database, which does not list its texts. Give their ids, or search with where=."
_NO_VECTORS = "is a database, so index, info and rebuild are not available. Use EngineIndex instead."


def open_texts(engine: Engine | str, encoder: TextEncoder | str | None) -> tuple[EngineTexts, TextEncoder]:
    """Open a collection of texts, or an empty one, and its encoder; see :meth:`muvera.TextIndex.open`."""
    opened = open_engine(engine) if isinstance(engine, str) else engine
    try:
        stored = opened.describe()
        if stored is None:
            if encoder is None or isinstance(encoder, NoEncoder):
                raise EngineError(
                    f"{opened.location} does not exist. Load texts with muvera load, or give an encoder to create it."
                )
            model = as_text_encoder(encoder)
        elif stored.text_encoder is None:
            raise EngineError(f"{opened.location} has no texts. Load an index of texts with muvera load.")
        else:
            model = required_encoder(stored.text_encoder, encoder, opened.location)
        return EngineTexts(EngineIndex(opened, text_encoder=model.name)), model
    except BaseException:
        if opened is not engine:
            opened.close()
        raise


class EngineTexts:
    """Texts in a vector database, with the methods of :class:`muvera.texts.store.TextStore`.

    Shared words change only the order of the candidates.
    """

    #: No lock: the database orders concurrent changes.
    changing: AbstractContextManager[object] = nullcontext()

    def __init__(self, collection: EngineIndex) -> None:
        self.collection = collection

    # -- reading --------------------------------------------------------------

    def __repr__(self) -> str:
        return self.collection.engine.location

    def __len__(self) -> int:
        return len(self.collection)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, (int, str)) and bool(self.get([id], "ignore"))

    def __iter__(self) -> Iterator[TextDocument]:
        self._refuse(_NO_LIST)

    def get(self, ids: list[int | str], missing: Missing = "raise") -> list[TextDocument]:
        """Return texts and metadata in the order of `ids`."""
        return self.collection.documents(ids, missing=missing)

    def select(self, where: Filter) -> list[int | str]:
        """Raise EngineError: databases answer conditions only in a search."""
        self._refuse(_NO_LIST)

    def tokens(self, ids: list[Any]) -> MultiVectors:
        """Return the token vectors of texts."""
        return self.collection.engine.tokens(ids)

    @property
    def vectors(self) -> MuveraIndex:
        """Raise EngineError: the token vectors are in the database."""
        self._refuse(_NO_VECTORS)

    def on_one_state(self, read: Callable[[], _Read]) -> _Read:
        """Return ``read()``; other programs can change the database between its reads."""
        return read()

    def rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        """Return the score parts of the best `options.k` texts for each query."""
        k, words = options.k, options.words
        if self.collection.engine.description is None:
            return [{} for _ in queries]
        count = self.collection.num_candidates(k, options.candidates, options.recall)
        best = self.collection.search(
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
        documents = self.get(candidates, "ignore")
        database = DocumentDatabase()
        database.put(
            [document.id for document in documents],
            [document.text for document in documents],
            [{}] * len(documents),
        )
        return dict(database.match_words(query, len(documents) or 1))

    # -- changing -------------------------------------------------------------

    def put(
        self,
        encoded: MultiVectors,
        texts: list[str],
        metadata: Sequence[Mapping[str, Any]],
        threads: int | None,
        update: bool = False,
    ) -> list[int | str]:
        """Add texts; with `update`, also replace those with the same ids.  Return the ids."""
        if not encoded.has_ids:
            raise ValueError("Texts in a database need ids. Give ids=.")
        names: list[int | str] = encoded.ids.tolist()
        if not update:
            for used in self.get(names, "ignore"):
                raise ValueError(f"id {used.id!r} is in the index already. Use update, or another id.")
        empty = np.flatnonzero(encoded.lengths == 0)
        if len(empty):
            raise ValueError(
                f"The text of {names[empty[0]]!r} is blank, and a database cannot find blank texts. Remove it."
            )
        self.collection.add(encoded, metadata, texts=texts, threads=threads)
        return names

    def put_metadata(self, documents: list[TextDocument], metadata: list[dict[str, Any]]) -> None:
        """Replace the metadata of stored texts."""
        tokens = self.tokens([document.id for document in documents])
        self.collection.add(tokens, metadata, texts=[document.text for document in documents])

    def delete(self, ids: list[int | str], missing: Missing) -> None:
        """Delete texts by id."""
        self.collection.delete(ids, missing=missing)

    def rebuild(self, threads: int | None) -> None:
        """Raise EngineError: the token vectors are in the database."""
        self._refuse(_NO_VECTORS)

    def calibrate(self, queries: MultiVectors, threads: int | None) -> None:
        """Calibrate ``search(recall=)``."""
        self.collection.calibrate(queries, threads=threads)

    def save(self, path: str | os.PathLike[str] | None, overwrite: bool = False) -> None:
        """Do nothing without a path, since changes are durable; raise EngineError for a path."""
        if path is not None:
            self._refuse("has no folder. Build a TextIndex to save one.")

    def close(self) -> None:
        """Close connections and files."""
        self.collection.close()

    def _refuse(self, reason: str) -> NoReturn:
        raise EngineError(f"{self.collection.engine.location} {reason}")
