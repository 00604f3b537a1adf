"""MCP: a text index as tools for agents.  Needs the extra "mcp"."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from .. import __version__
from ..metadata import TextDocument
from ..texts.hit import Hit
from ..texts.text_index import TextIndex

# Characters of a snippet.
_SNIPPET = 400

# Characters of a title that is taken from the text.
_TITLE = 80

# Texts in an answer: more would fill an agent's context.
_MOST = 50


def make_server(index: TextIndex, *, writable: bool = False) -> MCPServer[Any]:
    """Return a server with the tools `search`, `get`, `explain` and, perhaps, `add`.

    Parameters
    ----------
    index : TextIndex
        The texts that agents search.
    writable : bool
        Offer `add`.  An answered change is durable if the index is from
        :meth:`muvera.TextIndex.open`.

    Returns
    -------
    mcp.server.MCPServer
        Its method ``run`` answers one agent on standard input and output.

    Examples
    --------
    >>> index = TextIndex.open("my-index")  # doctest: +SKIP
    >>> make_server(index, writable=True).run()  # doctest: +SKIP
    """
    about = f"Search {len(index):,} texts. Cite the ids of the texts that you use."
    server: MCPServer[Any] = MCPServer("muvera", version=__version__, instructions=about, log_level="WARNING")
    tools = _Tools(index)
    for function in (tools.search, tools.get, tools.explain):
        _offer(server, function, reads=True)
    if writable:
        _offer(server, tools.add, reads=False)
    return server


def _offer(server: MCPServer[Any], function: Callable[..., Any], reads: bool) -> None:
    """Offer a function as a tool; its docstring is the tool's description."""

    @wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        try:
            return function(*values, **named)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ToolError(str(error.args[0] if error.args else error)) from error

    hints = ToolAnnotations(read_only_hint=reads, destructive_hint=False, open_world_hint=False)
    server.tool(annotations=hints)(call)


class _Tools:
    """The tools of an index.  Agents read their docstrings."""

    def __init__(self, index: TextIndex) -> None:
        self._index = index
        self._explains = index.encoder.token_spans("a", "query") is not None

    def search(self, query: str, k: int = 5, where: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Find the texts that answer a question best.

        Each result has an id, a title, a score and a snippet.  "span" is the start and
        the end of the snippet, counted in characters of the whole text.  "matches" are
        the starts and ends of the words that match the query best.

        Parameters
        ----------
        query : str
            The question, in words.
        k : int
            Maximum number of texts, at most 50.
        where : dict, optional
            A condition on the metadata, such as {"year": {"$gte": 2000}}.
        """
        hits = self._index.search(query, min(k, _MOST), where=where, explain=self._explains)
        return [_summary(hit) for hit in hits]

    def get(self, ids: list[int | str], start: int = 0, characters: int = 20_000) -> list[dict[str, Any]]:
        """Return texts by id with their metadata.

        Parameters
        ----------
        ids : list of int or of str
            At most 50.
        start : int
            First character to return of each text.
        characters : int
            Maximum number of characters to return of each text.
        """
        return [
            {
                "id": stored.id,
                "title": _title(stored),
                "text": stored.text[start : start + characters],
                "span": [start, min(start + characters, len(stored.text))],
                "length": len(stored.text),
                "metadata": stored.metadata,
            }
            for stored in self._index.get(ids[:_MOST])
        ]

    def explain(self, query: str, id: int | str) -> dict[str, Any]:
        """Show which words of a text match a query, and how well each sentence matches.

        "span" is the start and the end, counted in characters of the text.

        Parameters
        ----------
        query : str
        id : int or str
            The text.
        """
        explanation = self._index.explain(query, id)
        text = explanation.text
        words = [
            {
                "query": query[slice(*match.query)],
                "text": text[slice(*match.document)],
                "span": list(match.document),
                "similarity": match.similarity,
            }
            for match in explanation.matches
            if match.query[0] < match.query[1]
        ]
        sentences = [
            {"text": text[one.start : one.stop], "span": [one.start, one.stop], "score": one.score}
            for one in explanation.sentences
        ]
        return {
            "id": id,
            "title": _title(self._index.get([id])[0]),
            "score": explanation.score,
            "words": words,
            "sentences": sentences,
        }

    def add(
        self,
        texts: list[str],
        ids: list[int | str] | None = None,
        metadata: list[dict[str, Any]] | None = None,
    ) -> list[int | str]:
        """Add texts, and return their ids.

        Parameters
        ----------
        texts : list of str
        ids : list of int or of str, optional
            One for each text.  Default: the next integers.
        metadata : list of dict, optional
            One object for each text; its "title" names the text.
        """
        return self._index.add(texts, ids=ids, metadata=metadata)


def _title(stored: TextDocument | Hit) -> str:
    title = stored.metadata.get("title")
    first = stored.text.strip().partition("\n")[0]
    return str(title or (first if len(first) <= _TITLE else first[: _TITLE - 1] + "\u2026"))


def _summary(hit: Hit) -> dict[str, Any]:
    """Return a hit with a snippet that begins with the best sentence."""
    start = 0
    matches: list[tuple[int, int]] = []
    if hit.explanation is not None:
        best = max(hit.explanation.sentences, key=lambda one: one.score, default=None)
        start = 0 if best is None or len(hit.text) <= _SNIPPET else best.start
        matches = sorted(hit.explanation.weights())
    stop = min(start + _SNIPPET, len(hit.text))
    if stop < len(hit.text):
        stop = max(hit.text.rfind(" ", start + 1, stop), start + _SNIPPET // 2)
    shown = [[first, last] for first, last in matches if start <= first and last <= stop]
    return {
        "id": hit.id,
        "title": _title(hit),
        "score": hit.score,
        "snippet": hit.text[start:stop],
        "span": [start, stop],
        "matches": shown,
    }
