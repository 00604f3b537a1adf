"""What a server answers from each kind of index: vectors, texts and pages."""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from ..data.multivectors import MultiVectors
from ..data.ranking import Ranking
from ..diagnostics.recall_meter import RecallMeter
from ..engines.engine_index import EngineIndex
from ..index.muvera_index import MuveraIndex
from ..metadata import is_utf8
from ..pages.page_index import PageIndex
from ..texts.engine_texts import EngineTexts
from ..texts.text_index import TextIndex
from .bodies import HitModel, PartHitModel, Search
from .pages import MAX_MAPPED, Pictures, page_hits

Index = TextIndex | MuveraIndex | PageIndex


class Vectors:
    """A MuveraIndex, which is searched by vectors."""

    kind = "vectors"

    def __init__(self, index: Index) -> None:
        #: The index.
        self.index = index
        stored = None if isinstance(index, MuveraIndex) else index.texts
        self._collection = stored.index if isinstance(stored, EngineTexts) else None
        #: Measures the recall of searches by texts; of a MuveraIndex, by vectors.
        self.meter: RecallMeter | None = None
        #: Where the database is, without a password; None without a database.
        self.location = None if self._collection is None else self._collection.engine.location

    @property
    def vectors(self) -> MuveraIndex | EngineIndex:
        """The index of token vectors."""
        if isinstance(self.index, MuveraIndex):
            return self.index
        return self.index.texts.vectors if self._collection is None else self._collection

    @property
    def texts(self) -> TextIndex:
        """The index of texts; HTTPException if there is none."""
        raise HTTPException(422, "This index has no texts. Search it by vectors.")

    @property
    def documents(self) -> TextIndex | PageIndex:
        """The index of texts or pages; HTTPException if there is none."""
        return self.texts

    def listed(self, start: int, stop: int) -> tuple[int, list[int | str]]:
        """Return the number of documents, and the ids of some in their order."""
        vectors = self.vectors
        if isinstance(vectors, EngineIndex):
            selected = self.documents.select({})
            return len(selected), selected[start:stop]
        ids = vectors.contents.ids  # in the same order; SQLite would read all ids
        return len(ids), ids.of(ids.documents[start:stop]).tolist()

    @property
    def dimension(self) -> int:
        """Columns of a vector."""
        vectors = self.vectors
        if isinstance(vectors, EngineIndex):
            return vectors.engine.stored.token_dimension
        return vectors.config.dimension

    @property
    def encoder(self) -> str | None:
        """Name of the encoder of text queries; None if only vectors can be searched."""
        return None

    def warm_up(self) -> None:
        """Compile the kernels of a search."""
        if self.location is None or len(self.index):  # an empty collection has no dimension
            self.vectors.search(np.ones((1, self.dimension), np.float32), 1, threads=1)

    def check(self, body: Search) -> None:
        """Raise HTTPException for a field of a search that needs another index."""
        if body.maps and "maps" in body.model_fields_set:
            raise HTTPException(422, "maps need a page index. Omit maps.")
        if body.vectors is None:
            self.texts  # noqa: B018 - it raises
            if body.group != "document":
                raise HTTPException(422, "group needs vectors as queries. Omit group.")
        elif body.where is not None or body.words or body.group_by is not None or body.unit != "document":
            raise HTTPException(422, "where, words, group_by and unit need texts as queries.")

    def search(self, body: Search, deadline: float) -> list[list[HitModel]]:
        """Return the hits of each query; raise TimeoutError after `deadline`."""
        metered = self.meter is not None and self.vectors is self.index
        searched: Any = self.meter if metered else self.vectors
        rankings = searched.search(
            self.queries(body), body.k, candidates=_candidates(body), recall=body.recall, group=body.group,
            threads=1,
        )  # fmt: skip
        return list(map(_hits, rankings))

    def queries(self, body: Search) -> MultiVectors:
        """Return the vectors of a search."""
        return MultiVectors.from_arrays(
            body.vectors or [], dimension=self.dimension, dtype=np.float32, name="vectors"
        )

    def picture(self, id: str, width: int) -> bytes:
        """Return the picture of a page as JPEG."""
        raise HTTPException(404, "This index has no pages, so it has no pictures.")

    def facts(self) -> dict[str, Any]:
        """Return sizes and settings, but no place of the server."""
        facts = self.vectors.info().to_dict()
        if self.location is not None:
            del facts["location"]
            facts["description"] = {**(facts["description"] or {}), "pages": None}
        return facts

    def info(self) -> dict[str, Any]:
        """Return the kind of the index, its encoder, sizes and settings."""
        facts: dict[str, Any] = {
            "kind": self.kind,
            "documents": len(self.index),
            "text_encoder": self.encoder,
        }
        if self.meter is not None:
            report = self.meter.report().to_dict()
            del report["problem"]  # it can name a folder of the server
            facts["measured_recall"] = report
        return {**facts, **self.facts()}


class Texts(Vectors):
    """A TextIndex, which is searched by texts or by vectors."""

    kind = "texts"

    @property
    def texts(self) -> TextIndex:
        """The index of texts."""
        assert isinstance(self.index, TextIndex)
        return self.index

    @property
    def encoder(self) -> str | None:
        """Name of the encoder."""
        return self.texts.encoder.name

    def search(self, body: Search, deadline: float) -> list[list[HitModel]]:
        """Return the hits of each query."""
        if body.vectors is not None:
            return super().search(body, deadline)
        options = _options(body)
        if body.unit == "document":
            found = (self.meter or self.texts).search(body.texts, body.k, **options)
        else:
            found = self.texts.search_sentences(body.texts, body.k, alpha=body.alpha, **options)
        return [[HitModel.model_validate(hit, from_attributes=True) for hit in hits] for hits in found]


class Pages(Vectors):
    """A PageIndex, which is searched by texts or by vectors, and has pictures."""

    kind = "pages"

    def __init__(self, index: PageIndex) -> None:
        super().__init__(index)
        self._pages = index
        self._pictures = Pictures(index)

    @property
    def texts(self) -> TextIndex:
        """HTTPException: there is no index of texts."""
        raise HTTPException(422, "This index has pages, not texts. Pages can be searched, read and deleted.")

    @property
    def documents(self) -> PageIndex:
        """The index."""
        return self._pages

    @property
    def dimension(self) -> int:
        """Columns of a vector."""
        return self._pages.dimension

    @property
    def encoder(self) -> str | None:
        """Name of the encoder; None if only vectors can be searched."""
        return self._pages.encoder_name

    def warm_up(self) -> None:
        """Compile the kernels of a search."""
        self._pages.search(np.ones((1, self.dimension), np.float32), 1, threads=1)

    def check(self, body: Search) -> None:
        """Raise HTTPException for a wrong query, or a field that pages do not have."""
        foreign = next((name for name in ("unit", "alpha", "group") if name in body.model_fields_set), None)
        if foreign is not None:
            raise HTTPException(422, f"A page index has no {foreign}. Omit it.")
        if body.maps and body.k * body.count > MAX_MAPPED:
            limit = f"k may be at most {MAX_MAPPED} with maps, for all queries together"
            raise HTTPException(422, f'{limit}. Give "maps": false.')
        if not all(map(is_utf8, body.texts)):
            raise HTTPException(422, "The query has a lone surrogate. Decode it again.")
        if not all(text.strip() for text in body.texts):
            raise HTTPException(422, "The query is blank. Give at least a word.")

    def search(self, body: Search, deadline: float) -> list[list[HitModel]]:
        """Return the hits of each query, with maps."""
        queries = self.queries(body) if body.vectors is not None else body.texts
        searched = self.meter or self._pages
        found: Any = searched.search(queries, body.k, **_options(body)) if queries else []
        return page_hits(found, body.maps, deadline)

    def picture(self, id: str, width: int) -> bytes:
        """Return the picture of a page as JPEG."""
        return self._pictures.read(id, width)

    def facts(self) -> dict[str, Any]:
        """Return sizes and settings, but no place of the server."""
        if self.location is not None:
            return super().facts()
        return {name: value for name, value in self._pages.info().items() if name != "root"}


def _options(body: Search) -> dict[str, Any]:
    return {
        "candidates": _candidates(body), "recall": body.recall, "where": body.where, "words": body.words,
        "group_by": body.group_by, "threads": 1,
    }  # fmt: skip


def _hits(ranking: Ranking) -> list[HitModel]:
    """Return the hits of a ranking, with their parts if documents have several."""
    if ranking.parts is None:
        return [HitModel(id=id, score=score) for id, score in ranking]
    return [
        PartHitModel(id=id, score=score, part=part)
        for (id, score), part in zip(ranking, ranking.parts.tolist(), strict=True)
    ]


def _candidates(body: Search) -> int | None:
    return None if body.candidates is None else max(body.candidates, body.k)


def served(index: Index) -> Vectors:
    """Return the answers of an index."""
    if isinstance(index, PageIndex):
        return Pages(index)
    return Texts(index) if isinstance(index, TextIndex) else Vectors(index)
