"""MCP: an index of texts as tools for agents.  Needs the extra "mcp"."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from .. import __version__
from ..texts.text_index import TextIndex

# Maximum characters of a snippet, and of a title taken from the text.
_SNIPPET, _TITLE = 400, 80

# Maximum number of texts in an answer: more would fill an agent's context.
_MOST = 50


def make_server(index: TextIndex, *, writable: bool = False) -> MCPServer[Any]:
    """Return a server with the tools `search`, `get`, `explain` and, if `writable`, `add`.

    Parameters
    ----------
    index : TextIndex
    writable : bool
        Offer `add`.  An answered change is durable if the index is from
        :meth:`muvera.TextIndex.open`.

    Examples
    --------
    >>> make_server(TextIndex.open("my-index"), writable=True).run()  # doctest: +SKIP
    """
    explains = index.encoder.token_spans("a", "query") is not None
    about = f"Search {len(index):,} texts. Cite the ids of the texts that you use."
    server: MCPServer[Any] = MCPServer("muvera", version=__version__, instructions=about, log_level="WARNING")

    def tool(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def call(*values: Any, **named: Any) -> Any:
            try:
                return function(*values, **named)
            except (ValueError, TypeError, KeyError, OSError) as error:
                raise ToolError(str(error.args[0] if error.args else error)) from error

        reads = function.__name__ != "add"
        hints = ToolAnnotations(read_only_hint=reads, destructive_hint=False, open_world_hint=False)
        return server.tool(annotations=hints)(call)

    @tool
    def search(query: str, k: int = 5, where: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Find the texts that answer a question best.

        Each result has an id, a title, a score and a snippet.  "span" is the start and
        the end of the snippet, counted in characters of the whole text.  "matches" are
        the starts and ends of the words that match the query best.  `where` is a
        condition on the metadata, such as {"year": {"$gte": 2000}}.
        """
        hits = index.search(query, min(k, _MOST), where=where, explain=explains)
        return [_summary(hit) for hit in hits]

    @tool
    def get(ids: list[int | str], start: int = 0, characters: int = 20_000) -> list[dict[str, Any]]:
        """Return texts by id with their metadata, at most `characters` of each from `start` on."""
        return [
            {
                "id": stored.id,
                "title": _title(stored),
                "text": stored.text[start : start + characters],
                "span": [start, min(start + characters, len(stored.text))],
                "length": len(stored.text),
                "metadata": stored.metadata,
            }
            for stored in index.get(ids[:_MOST])
        ]

    @tool
    def explain(query: str, id: int | str) -> dict[str, Any]:
        """Show which words of a text match which words of a query, and how well each sentence matches.

        "span" is the start and the end, counted in characters of the text.
        """
        explanation = index.explain(query, id)
        text, title = explanation.text, _title(index.get([id])[0])
        words = [
            {"query": query[slice(*match.query)], "text": text[slice(*match.document)],
             "span": list(match.document), "similarity": match.similarity}
            for match in explanation.matches if match.query[0] < match.query[1]
        ]  # fmt: skip
        sentences = [
            {"text": text[one.start : one.stop], "span": [one.start, one.stop], "score": one.score}
            for one in explanation.sentences
        ]
        return {"id": id, "title": title, "score": explanation.score, "words": words, "sentences": sentences}

    if writable:

        @tool
        def add(
            texts: list[str], ids: list[int | str] | None = None, metadata: list[dict[str, Any]] | None = None
        ) -> list[int | str]:
            """Add texts, and return their ids.

            `metadata` is one object for each; its "title" names the text.
            """
            return index.add(texts, ids=ids, metadata=metadata)

    return server


def _title(stored: Any) -> str:
    title = stored.metadata.get("title")
    first = stored.text.strip().partition("\n")[0]
    return str(title or (first if len(first) <= _TITLE else first[: _TITLE - 1] + "\u2026"))


def _summary(hit: Any) -> dict[str, Any]:
    """Return a hit with a snippet that begins with the best sentence."""
    start, matches = 0, []
    if hit.explanation is not None:
        best = max(hit.explanation.sentences, key=lambda one: one.score, default=None)
        start = 0 if best is None or len(hit.text) <= _SNIPPET else best.start
        matches = sorted(hit.explanation.weights())
    stop = min(start + _SNIPPET, len(hit.text))
    if stop < len(hit.text):
        stop = max(hit.text.rfind(" ", start + 1, stop), start + _SNIPPET // 2)
    shown = [[first, last] for first, last in matches if start <= first and last <= stop]
    return {
        "id": hit.id, "title": _title(hit), "score": hit.score, "snippet": hit.text[start:stop],
        "span": [start, stop], "matches": shown,
    }  # fmt: skip
