"""MCP: a text index as tools for agents.  Needs the extra "mcp"."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, TypedDict

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from .. import __version__
from ..engines.base import EngineError
from ..metadata import TextDocument, comparable_values, title_of
from ..metadata.unmatched import unmatched_fields
from ..texts.hit import Hit
from ..texts.text_index import TextIndex
from ..utils.checks import require_int
from ..utils.hints import message_of

# Characters of a snippet.
_SNIPPET = 400

# Characters of a title that is taken from the text.
_TITLE = 80

# Characters of a title that is taken from the metadata.
_LONG_TITLE = 300

# Texts in an answer: more would fill an agent's context.
_MOST = 50

# Characters of the texts and metadata in an answer, about 25,000 tokens: common clients
# refuse longer answers.
_CHARACTERS = 100_000

# Characters of the metadata of a result, as JSON.
_METADATA = 1_000

# Characters of a sentence or of a word in an explanation.
_SENTENCE = 1_000
_WORD = 100

# Texts whose metadata is read to list the fields.
_SAMPLED = 200

# Fields that the instructions list.
_FIELDS = 50

# Decimal places of scores and similarities.
_DIGITS = 4


class _Results(TypedDict, total=False):
    """An answer, which has the key "warnings" only if there are some."""

    result: list[dict[str, Any]]
    warnings: list[str]


class _Ids(TypedDict):
    """The answer of `add`."""

    result: list[int | str]


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
    functions = _Tools(index)
    tools = [_tool(each, reads=True) for each in (functions.search, functions.get, functions.explain)]
    if writable:
        tools.append(_tool(functions.add, reads=False))
    about = f"Search {len(index):,} texts. Cite the ids of the texts that you use. {_about_fields(index)}"
    return MCPServer(
        "muvera", version=__version__, instructions=about.strip(), tools=tools, log_level="WARNING"
    )


# What an agent does instead of an operation of Python.
_INSTEAD = {
    "calibrate": "",
    "check_id": "",
    "give_ids": "Give strings as ids, one for each text.",
    "update": "Use another id.",
}


class _StrictTool(Tool):
    """A tool that refuses unknown arguments; the SDK ignores them."""

    async def run(self, arguments: dict[str, Any], *others: Any, **options: Any) -> Any:
        """Run the tool, see the SDK's class."""
        known = self.parameters["properties"]
        for name in arguments:
            if name not in known:
                raise ToolError(
                    f"{self.name} has no argument {name!r:.80}. Its arguments: {', '.join(known)}."
                )
        return await super().run(arguments, *others, **options)


def _tool(function: Callable[..., Any], *, reads: bool) -> Tool:
    """Return the tool of a function; its docstring is the tool's description."""

    @wraps(function)
    def call(**arguments: Any) -> CallToolResult:
        try:
            answer = function(**arguments)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ToolError(message_of(error).worded_for_clients(_INSTEAD)) from error
        # For the model, compact: the SDK would indent the JSON.
        shown = TextContent(type="text", text=_json(answer))
        return CallToolResult(content=[shown], structured_content=answer)

    hints = ToolAnnotations(read_only_hint=reads, destructive_hint=False, open_world_hint=False)
    tool = _StrictTool.from_function(call, annotations=hints)
    tool.parameters["additionalProperties"] = False
    return tool


def _about_fields(index: TextIndex) -> str:
    """Return a sentence with the metadata's fields, "" without metadata.

    A sample of the texts is read.  A database lists no texts, and thus no fields.
    """
    try:
        ids = index.select({})
    except EngineError:
        return ""
    kinds: dict[str, set[str]] = {}
    for id in ids[:: max(1, len(ids) // _SAMPLED)]:  # one at a time: texts can be long
        for document in index.get([id], missing="ignore"):
            for field, kind, _ in comparable_values(document.metadata):
                kinds.setdefault(field, set()).update({kind} - {"present"})
    if not kinds:
        return ""
    listed = [f"{field} ({' or '.join(sorted(kinds[field])) or 'object'})" for field in sorted(kinds)]
    more = f" and {len(listed) - _FIELDS} more" if len(listed) > _FIELDS else ""
    return f"Fields of the metadata, for where and group_by: {', '.join(listed[:_FIELDS])}{more}."


class _Tools:
    """The tools of an index.  Agents read their docstrings."""

    def __init__(self, index: TextIndex) -> None:
        self._index = index
        self._explains = index.encoder.token_spans("a", "query") is not None

    def search(
        self, query: str, k: int = 5, where: dict[str, Any] | None = None, group_by: str | None = None
    ) -> _Results:
        """Find the texts that answer a question best.

        Each result has an id, a title, a score, a snippet and metadata.  "span" is the
        start and the end of the snippet, counted in characters of the whole text.
        "matches" are the starts and ends of the words that match the query best.

        Parameters
        ----------
        query : str
            The question, in words.
        k : int
            Maximum number of texts, at most 50.
        where : dict, optional
            A condition on the metadata, such as {"year": {"$gte": 2000}}.
        group_by : str, optional
            A field of the metadata: find only the best text of each value.
        """
        hits = self._index.search(
            query, min(k, _MOST), where=where, group_by=group_by, explain=self._explains
        )
        warnings = [f"k was {k:,}: an answer has at most {_MOST} texts."] if k > _MOST else []
        if not hits and where:
            warnings += map(str, unmatched_fields(where, self._matches))
        results = []
        omitted: dict[str, None] = {}
        for hit in hits:
            metadata, others = _shortened(hit.metadata, _METADATA)
            results.append({**_summary(hit), "metadata": metadata})
            omitted.update(dict.fromkeys(others))
        if omitted:
            warnings.append(f"Long metadata is left out, use get to read it: {', '.join(omitted)}.")
        return _answer(results, warnings)

    def _matches(self, where: dict[str, Any]) -> bool:
        """Return True if a text satisfies a condition.

        A database would read the ids of all texts for `select`.
        """
        return bool(self._index.search("a", 1, where=where, words=0))

    def get(self, ids: list[int | str], start: int = 0, characters: int = 20_000) -> _Results:
        """Return texts by id with their metadata.

        "span" is the start and the end of the returned part, and "length" the number of
        characters of the whole text.  An answer has at most 100,000 characters.

        Parameters
        ----------
        ids : list of int or of str
            The ids of at most 50 texts.
        start : int
            First character to return of each text, from 0.
        characters : int
            Maximum number of characters to return of each text.
        """
        require_int("start", start, 0)
        require_int("characters", characters, 1)
        warnings = []
        if len(ids) > _MOST:
            warnings.append(f"Only the first {_MOST} of {len(ids):,} ids were read. Call get for the others.")
        results = []
        cut = []
        left = _CHARACTERS
        for stored in self._index.get(ids[:_MOST]):
            wanted = stored.text[start : start + characters]
            text = wanted[:left]
            left -= len(text)
            metadata, omitted = _shortened(stored.metadata, left)
            left = max(0, left - len(_json(metadata)))
            if len(text) < len(wanted) or omitted:
                cut.append(stored.id)
            results.append(
                {
                    "id": stored.id,
                    "title": _title(stored),
                    "text": text,
                    "span": [start, start + len(text)],
                    "length": len(stored.text),
                    "metadata": metadata,
                }
            )
        if cut:
            warnings.append(
                f"An answer has at most {_CHARACTERS:,} characters, so the texts or metadata of these ids "
                f"are cut: {', '.join(map(repr, cut))}. Call get for fewer ids, or with start."
            )
        return _answer(results, warnings)

    def explain(self, query: str, id: int | str) -> dict[str, Any]:
        """Show which words of a text match a query, and how well each sentence matches.

        "span" is the start and the end, counted in characters of the text.  Of a text
        with more than 50 sentences, the best 50 are returned.

        Parameters
        ----------
        query : str
            The question, in words.
        id : int or str
            The id of the text.
        """
        explanation = self._index.explain(query, id)
        words = [
            {
                "query": query[slice(*match.query)][:_WORD],
                **_part(explanation.text, *match.document, _WORD),
                "similarity": round(match.similarity, _DIGITS),
            }
            for match in explanation.matches
            if match.query[0] < match.query[1]
        ]
        best = sorted(explanation.sentences, key=lambda sentence: -sentence.score)[:_MOST]
        sentences = [
            {
                **_part(explanation.text, sentence.start, sentence.stop, _SENTENCE),
                "score": round(sentence.score, _DIGITS),
            }
            for sentence in sorted(best, key=lambda sentence: sentence.start)
        ]
        warnings = []
        if len(best) < len(explanation.sentences):
            warnings.append(
                f"Only the best {_MOST} of {len(explanation.sentences):,} sentences are returned."
            )
        if any(sentence.stop - sentence.start > _SENTENCE for sentence in best):
            warnings.append(f"Sentences are cut after {_SENTENCE:,} characters. Read the rest with get.")
        return {
            "id": id,
            "title": _title(self._index.get([id])[0]),
            "score": round(explanation.score, _DIGITS),
            "words": words,
            "sentences": sentences,
            **({"warnings": warnings} if warnings else {}),
        }

    def add(
        self,
        texts: list[str],
        ids: list[int | str] | None = None,
        metadata: list[dict[str, Any]] | None = None,
    ) -> _Ids:
        """Add texts, and return their ids.

        Parameters
        ----------
        texts : list of str
            The texts to add.
        ids : list of int or of str, optional
            One for each text.  Default: the next integers.
        metadata : list of dict, optional
            One object for each text; its "title" names the text.
        """
        return {"result": self._index.add(texts, ids=ids, metadata=metadata)}


def _answer(results: list[dict[str, Any]], warnings: list[str]) -> _Results:
    return {"result": results, "warnings": warnings} if warnings else {"result": results}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _shortened(metadata: dict[str, Any], characters: int) -> tuple[dict[str, Any], list[str]]:
    """Return the fields that fit into this length as JSON, and the other names."""
    kept: dict[str, Any] = {}
    for field, value in metadata.items():
        size = len(_json({field: value}))
        if size <= characters:
            kept[field] = value
            characters -= size
    return kept, [field for field in metadata if field not in kept]


def _part(text: str, start: int, stop: int, most: int) -> dict[str, Any]:
    """Return a part of a text, cut after `most` characters, and its place."""
    stop = min(stop, start + most)
    return {"text": text[start:stop], "span": [start, stop]}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def _title(stored: TextDocument | Hit) -> str:
    named = title_of("", stored.metadata)
    return _cut(named, _LONG_TITLE) if named else _cut(title_of(stored.text, {}), _TITLE)


def _summary(hit: Hit) -> dict[str, Any]:
    """Return a hit with a snippet that begins with the best sentence."""
    start = 0
    matches: list[tuple[int, int]] = []
    if hit.explanation is not None:
        best = max(hit.explanation.sentences, key=lambda sentence: sentence.score, default=None)
        start = 0 if best is None or len(hit.text) <= _SNIPPET else best.start
        matches = sorted(hit.explanation.weights())
    stop = min(start + _SNIPPET, len(hit.text))
    if stop < len(hit.text):
        stop = max(hit.text.rfind(" ", start + 1, stop), start + _SNIPPET // 2)
    shown = [[first, last] for first, last in matches if start <= first and last <= stop]
    return {
        "id": hit.id,
        "title": _title(hit),
        "score": round(hit.score, _DIGITS),
        "snippet": hit.text[start:stop],
        "span": [start, stop],
        "matches": shown,
    }
