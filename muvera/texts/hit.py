"""Hit: one answer of a search among texts."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

from .explanation import TextExplanation

__all__ = ["Hit"]


@dataclass(frozen=True)
class Hit:
    """One answer of a search.

    Parameters
    ----------
    id : int or str
    score : float
        Chamfer similarity of the query with the text, higher is better; with ``unit="sentence"`` that of the
        sentence plus alpha times that of the text; with ``weights=`` the weighted sum of the sources' scores.
    text : str
        The text, or the sentence.
    metadata : dict
    span : (start, stop) or None
        Characters of the sentence within the text.
    explanation : TextExplanation or None
        Which words answered which, where the search was asked to explain; a notebook then shows them shaded.
    """

    id: int | str
    score: float
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    span: tuple[int, int] | None = None
    explanation: TextExplanation | None = None

    def _repr_html_(self) -> str:
        shown = f"<p>{html.escape(self.text)}</p>" if self.explanation is None else self.explanation.to_html()
        return f"<strong>{html.escape(str(self.id))}</strong> {self.score:.3f}{shown}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values of JSON."""
        return {
            "id": self.id,
            "score": self.score,
            "text": self.text,
            "metadata": self.metadata,
            "span": None if self.span is None else list(self.span),
            "explanation": None if self.explanation is None else self.explanation.to_dict(),
        }
