"""Bodies of requests and answers; their descriptions are the server's OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["Deletion", "DocumentModel", "Documents", "Explain", "HitModel", "Search", "SearchAnswer"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _require_known_fields(cls, body: Any) -> Any:
        unknown = [name for name in body if name not in cls.model_fields] if isinstance(body, dict) else []
        if unknown:
            raise PydanticCustomError(
                "unknown_field",
                "There is no field {name}. The fields are {fields}",
                {"name": repr(unknown[0]), "fields": ", ".join(cls.model_fields)},
            )
        return body


class Search(_Strict):
    """A search by texts, or by token vectors where a client has its own model."""

    query: str | None = Field(None, description="One text.")
    queries: list[str] | None = Field(None, description="Several texts.")
    vectors: list[list[list[float]]] | None = Field(
        None, description="For each query, its token vectors (tokens, dimension)."
    )
    k: int = Field(10, ge=1, description="Hits for each query, at most.")
    where: dict[str, Any] | None = Field(None, description="A condition on the metadata.")
    candidates: int = Field(100, ge=1, description="Documents that are ranked exactly.")
    words: int = Field(0, ge=0, description="Also rank so many documents that share words with the query.")
    weights: dict[str, float] | None = Field(
        None,
        description="Order by the weighted sum of scores, of 'maxsim' and of 'words'. Default: by Chamfer.",
    )
    unit: Literal["document", "sentence"] = "document"
    alpha: float = Field(1.0, description="Weight of the document's score beside its sentence's.")


class HitModel(BaseModel):
    """One answer, best first."""

    id: int | str
    score: float = Field(description="Chamfer similarity, or the weighted sum; higher is better.")
    text: str | None = None
    metadata: dict[str, Any] = {}
    span: tuple[int, int] | None = Field(
        default=None, description="Characters of a sentence within its text."
    )


class DocumentModel(BaseModel):
    """One document of the index."""

    id: int | str
    text: str
    metadata: dict[str, Any] = {}


class SearchAnswer(BaseModel):
    """Hits of each query, in their order."""

    results: list[list[HitModel]]
    seconds: float = Field(description="Time that the search took, without waiting for a free thread.")


class Explain(_Strict):
    """Which words of documents answered which words of a query."""

    query: str
    ids: list[int | str] = Field(description="Documents to explain.")


class Documents(_Strict):
    """Texts to add or update."""

    texts: list[str]
    ids: list[int | str] | None = None
    metadata: list[dict[str, Any]] | None = None


class Deletion(_Strict):
    """Documents to delete."""

    ids: list[int | str]
    missing: Literal["raise", "ignore"] = "raise"
