"""Bodies of requests and answers: one schema for indexes of every kind."""

from __future__ import annotations

import reprlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from ..metadata import TextDocument

Id = StrictInt | StrictStr

# Validation stops at a list's first error: an error object per item would take a
# thousand times the bytes of the body.
_FIRST = Field(fail_fast=True)
Ids = Annotated[list[Id], _FIRST]
Vectors = Annotated[list[Annotated[list[FiniteFloat], _FIRST]], _FIRST]


class Strict(BaseModel):
    """A body without unknown fields."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _require_known_fields(cls, body: object) -> Any:
        known = cls.model_fields
        unknown = next((name for name in body if name not in known), None) if isinstance(body, dict) else None
        if unknown is not None:
            raise PydanticCustomError(
                "unknown_field",
                "There is no field {name}. The fields are {fields}",
                {"name": reprlib.repr(unknown), "fields": ", ".join(cls.model_fields)},
            )
        return body


class Search(Strict):
    """A search by texts, or by token vectors of the client's own model."""

    query: str | None = Field(None, description="One text.")
    queries: list[str] | None = Field(None, fail_fast=True, description="Several texts.")
    vectors: list[Vectors] | None = Field(None, fail_fast=True, description="Arrays (tokens, dimension).")
    k: int = Field(10, ge=1, description="Maximum number of hits per query.")
    where: dict[str, Any] | None = Field(None, description="A condition on the metadata.")
    candidates: int | None = Field(
        None, ge=1, description="Documents to rank (texts: 200, pages: 5,000, vectors: 100)."
    )
    recall: float | None = Field(None, gt=0, lt=1, description="Recall instead of candidates, such as 0.95.")
    words: FiniteFloat | None = Field(
        None, ge=0, lt=1, description="Weight of shared words. Default: by encoder."
    )
    group_by: str | None = Field(
        None, description="Return only the best of each value of this metadata field."
    )
    group: Literal["document", "part"] = Field(
        "document", description="Whether vectors find documents by their best part, or parts."
    )
    unit: Literal["document", "sentence"] = Field("document", description="What to find in texts.")
    alpha: FiniteFloat = Field(1.0, description="Weight of a document's score for its sentences.")
    maps: bool = Field(True, description="Add maps and boxes to pages.")

    @property
    def texts(self) -> list[str]:
        """The texts of `query` or `queries`; none for vectors."""
        return [self.query] if self.query is not None else self.queries or []

    @property
    def count(self) -> int:
        """Number of queries."""
        return len(self.texts) or len(self.vectors or [])


class WordMap(BaseModel):
    """Map of a word of the query."""

    word: str
    map: str


class Maps(BaseModel):
    """Where a query matched a page.

    A map has a byte for each patch in reading order, base64: 0 at the map's mean or
    below, and 255 at the highest distance from a mean among all maps of the answer.
    """

    grid: tuple[int, int] = Field(description="Rows and columns of the patches.")
    query: str = Field(description="Map of the whole query.")
    words: list[WordMap] = Field(description="Maps of its words; none for vectors.")
    boxes: list[tuple[float, float, float, float, float]] = Field(
        description="Best regions (x0, y0, x1, y1, score) in parts of the page, from its upper left corner."
    )


class PageModel(BaseModel):
    """Where a page is from, and where the query matched it."""

    document: str
    number: int = Field(description="From 1 on.")
    maps: Maps | None = Field(default=None, description="Null if the grid of the page is not known.")


class HitModel(BaseModel):
    """One hit."""

    id: Id
    score: float = Field(description="The sum of the parts; higher is better.")
    text: str | None = Field(default=None, description="Of a page: its text layer.")
    metadata: dict[str, Any] = {}
    parts: dict[str, float] = Field(
        default={},
        description="'maxsim' (Chamfer similarity), 'words' and 'mean', or for a sentence 'maxsim' and "
        "'text'.",
    )
    span: tuple[int, int] | None = Field(default=None, description="Start and end of a sentence in its text.")
    page: PageModel | None = Field(default=None, description="Null for texts and vectors.")


class PartHitModel(HitModel):
    """One hit of an index whose documents have parts."""

    part: int = Field(description="The part of the document that has this score, from 0 on.")


class SearchAnswer(BaseModel):
    """Hits of each query, best first."""

    results: list[list[HitModel | PartHitModel]]
    seconds: float = Field(description="Duration of the search, without the wait for a free thread.")


class SearchParameters(Strict):
    """A search by one text, in an address."""

    q: str = Field(description="The query.")
    k: int = Field(10, ge=1, description="Maximum number of hits.")
    offset: int = Field(0, ge=0, description="Number of best hits to leave out.")


class ListParameters(Strict):
    """A part of the list of documents, in an address."""

    k: int = Field(10, ge=1, description="Maximum number of documents.")
    offset: int = Field(0, ge=0, description="Number of documents to leave out.")


class DocumentList(BaseModel):
    """Documents in insertion order, and the number of all documents."""

    found: int
    documents: list[TextDocument]


class Explain(Strict):
    """A query, and the documents in which to find its word matches."""

    query: str
    ids: Ids = Field(description="Documents to explain.")


class RerankedText(BaseModel):
    """A text to rank; other fields are ignored."""

    text: str


class Rerank(Strict):
    """Texts to rank for a query, as in the interfaces of Jina and Cohere."""

    model: str | None = Field(None, description="Ignored: the index's encoder ranks.")
    query: str
    documents: Annotated[list[str | RerankedText], _FIRST] = Field(
        description="Texts, or objects with a text."
    )
    top_n: int | None = Field(None, ge=1, description="Maximum number of results. Default: all.")
    return_documents: bool = Field(False, description="Add the text to each result.")


class RerankResult(BaseModel):
    """One text of a reranking."""

    index: int = Field(description="Position in the request's documents.")
    relevance_score: float = Field(description="Higher is better; comparable within one answer only.")
    document: RerankedText | None = Field(default=None, description="With return_documents.")


class RerankUsage(BaseModel):
    """The cost of a reranking."""

    total_tokens: int = Field(description="Token vectors of the query and the documents.")


class RerankAnswer(BaseModel):
    """Texts in the order of their scores; blank texts are left out."""

    model: str = Field(description="Name of the index's encoder.")
    results: list[RerankResult]
    usage: RerankUsage


class Documents(Strict):
    """Texts to add or update."""

    texts: Annotated[list[str], _FIRST]
    ids: list[Id] | None = Field(None, fail_fast=True)
    metadata: list[dict[str, Any]] | None = Field(None, fail_fast=True)


class MetadataChange(Strict):
    """Metadata fields to change; null removes a field, and other fields are kept."""

    ids: Ids
    metadata: Annotated[list[dict[str, Any]], _FIRST]


class Deletion(Strict):
    """Documents to delete."""

    ids: Ids
    missing: Literal["raise", "ignore"] = "raise"
