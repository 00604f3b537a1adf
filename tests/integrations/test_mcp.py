"""`muvera mcp`, called by the SDK's client.

Over standard input and output, and in the same process.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from builders.paths import ROOT
from builders.text_encoders import HashEncoder

pytest.importorskip("mcp", reason="mcp is not installed")

import mcp

from muvera import TextIndex
from muvera.integrations.mcp import make_server

TEXTS = [
    "Apples\nThe tree blooms in April. " + "Bees carry the pollen. " * 40 + "A ripe apple is red. It falls.",
    "A green pear grows on a wall.",
    "Bricks are red.",
]
IDS = ["a", "p", "b"]
METADATA = [{"kind": "fruit"}, {"kind": "fruit", "title": "Pears"}, {"kind": "stone"}]

#: `muvera mcp` with the tests' encoder, which cannot be loaded by name.
PROGRAM = """
import sys
sys.path[:0] = {path!r}
from builders.text_encoders import HashEncoder
from muvera.texts.encoders import registry
registry.load_text_encoder = lambda name: HashEncoder(name=name)
sys.argv[1:] = ["mcp", {folder!r}, "--encoder", "hash", "--writable"]
from muvera.cli import main
main()
"""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    TextIndex.build(TEXTS, HashEncoder(), ids=IDS, metadata=METADATA, tokens="float32", path=tmp_path / "i")
    return tmp_path / "i"


def converse(server: Any, talk: Callable[[Any], Awaitable[None]]) -> None:
    async def run() -> None:
        async with mcp.Client(server) as client:
            await talk(client)

    asyncio.run(run())


async def call(client: Any, tool: str, **arguments: Any) -> Any:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    content = answer.structured_content
    return content["result"] if set(content) == {"result"} else content


@pytest.fixture
def program(saved: Path) -> Any:
    """The command that starts `muvera mcp` with standard input and output."""
    code = PROGRAM.format(path=[str(ROOT), str(ROOT / "tests")], folder=str(saved))
    return mcp.StdioServerParameters(command=sys.executable, args=["-c", code], cwd=str(ROOT))


@pytest.fixture
def server() -> Any:
    """A writable server in this process, of an index in memory."""
    return make_server(
        TextIndex.build(TEXTS, HashEncoder(), ids=IDS, metadata=METADATA, tokens="float32"), writable=True
    )


def test_tools_over_standard_input_and_output(program: Any, saved: Path) -> None:
    async def talk(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"search", "get", "explain", "add"}
        assert [tools[name].annotations.read_only_hint for name in ("search", "add")] == [True, False]
        assert (await call(client, "search", query="ripe red apple", k=1))[0]["id"] == "a"
        assert await call(client, "add", texts=["A plum"], ids=["plum"], metadata=[{"n": 1}]) == ["plum"]
        assert (await call(client, "search", query="plum", k=1))[0]["id"] == "plum"

    converse(program, talk)
    assert "plum" in TextIndex.load(saved, HashEncoder())


def test_search_returns_a_snippet_with_its_place_and_matches(server: Any) -> None:
    async def talk(client: Any) -> None:
        best, *_ = await call(client, "search", query="ripe red apple", where={"kind": "fruit"})
        assert (best["id"], best["title"]) == ("a", "Apples")
        start, stop = best["span"]
        assert TEXTS[0][start:stop] == best["snippet"] == "A ripe apple is red. It falls."
        matched = [TEXTS[0][first:last] for first, last in best["matches"]]
        assert matched == ["ripe", "apple", "red"]

    converse(server, talk)


def test_search_finds_the_best_text_of_each_value(server: Any) -> None:
    async def talk(client: Any) -> None:
        every = await call(client, "search", query="ripe red apple")
        kinds = [one["metadata"].get("kind", one["id"]) for one in every]
        wanted = [one for i, one in enumerate(every) if kinds[i] not in kinds[:i]]
        assert await call(client, "search", query="ripe red apple", group_by="kind") == wanted != every

    converse(server, talk)


def test_get_returns_a_part_of_a_text_with_its_place(server: Any) -> None:
    async def talk(client: Any) -> None:
        [pear] = await call(client, "get", ids=["p"], start=2, characters=5)
        assert (pear["title"], pear["text"], pear["span"]) == ("Pears", "green", [2, 7])
        assert (pear["length"], pear["metadata"]) == (len(TEXTS[1]), METADATA[1])

    converse(server, talk)


def test_explain_returns_words_a_score_and_sentences(server: Any) -> None:
    async def talk(client: Any) -> None:
        found = await call(client, "explain", query="green wall", id="p")
        assert [(word["query"], word["text"]) for word in found["words"]] == [
            ("green", "green"),
            ("wall", "wall"),
        ]
        assert found["score"] == pytest.approx(2.0, abs=1e-3)
        first, last = found["sentences"][0]["span"]
        assert TEXTS[1][first:last] == found["sentences"][0]["text"]

    converse(server, talk)


@pytest.mark.parametrize(
    ("tool", "arguments"), [("get", {"ids": ["z"]}), ("add", {"texts": ["x"], "ids": ["p"]})]
)
def test_errors_of_tools_name_the_id(server: Any, tool: str, arguments: dict[str, Any]) -> None:
    async def talk(client: Any) -> None:
        answer = await client.call_tool(tool, arguments)
        assert answer.is_error and repr(arguments["ids"][0]) in answer.content[0].text

    converse(server, talk)


def test_a_server_is_read_only_unless_it_is_told_otherwise(saved: Path) -> None:
    async def talk(client: Any) -> None:
        assert "add" not in {tool.name for tool in (await client.list_tools()).tools}
        assert (await client.call_tool("add", {"texts": ["x"]})).is_error

    converse(make_server(TextIndex.load(saved, HashEncoder())), talk)


def test_an_encoder_without_spans_shows_the_beginning() -> None:
    class Without(HashEncoder):
        def token_spans(self, text: str, side: str) -> None:
            return None

    async def talk(client: Any) -> None:
        [best] = await call(client, "search", query="ripe red apple")
        assert best["snippet"] == TEXTS[0][: best["span"][1]] and 200 <= best["span"][1] <= 400
        assert (await client.call_tool("explain", {"query": "apple", "id": 0})).is_error

    converse(make_server(TextIndex.build(TEXTS[:1], Without())), talk)


async def whole_answer(client: Any, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer, which the text repeats as compact JSON."""
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    [block] = answer.content
    compact = json.dumps(answer.structured_content, ensure_ascii=False, separators=(",", ":"))
    assert block.text == compact
    structured: dict[str, Any] = answer.structured_content
    return structured


@pytest.fixture
def many() -> Any:
    """A server of 80 texts of 30,000 characters."""
    texts = [f"apple {i} " + "z" * 29_990 for i in range(80)]
    return make_server(TextIndex.build(texts, HashEncoder(), metadata=[{"n": i} for i in range(80)]))


def test_search_returns_metadata_to_cite(server: Any) -> None:
    async def talk(client: Any) -> None:
        found = await whole_answer(client, "search", query="green wall", k=1)
        assert found["result"][0]["metadata"] == METADATA[1] and "warnings" not in found

    converse(server, talk)


def test_the_instructions_list_the_fields_of_the_metadata(server: Any) -> None:
    async def talk(client: Any) -> None:
        assert (
            "Fields of the metadata, for where and group_by: kind (text), title (text)."
            in client.instructions
        )

    converse(server, talk)


def test_search_warns_of_a_field_that_no_text_has(server: Any) -> None:
    async def talk(client: Any) -> None:
        found = await whole_answer(client, "search", query="apple", where={"knid": "fruit"})
        assert found == {"result": [], "warnings": ["where names the field 'knid', which no document has."]}

    converse(server, talk)


def test_search_says_that_it_returns_fewer_texts_than_asked_for(many: Any) -> None:
    async def talk(client: Any) -> None:
        found = await whole_answer(client, "search", query="apple", k=100_000)
        assert len(found["result"]) == 50
        assert found["warnings"] == ["k was 100,000: an answer has at most 50 texts."]

    converse(many, talk)


def test_search_leaves_out_long_metadata() -> None:
    metadata = [{"url": "http://a.example", "body": "b" * 5000}]

    async def talk(client: Any) -> None:
        found = await whole_answer(client, "search", query="apple")
        assert found["result"][0]["metadata"] == {"url": "http://a.example"}
        assert found["warnings"] == ["Long metadata is left out, use get to read it: body."]

    converse(make_server(TextIndex.build(["an apple"], HashEncoder(), metadata=metadata)), talk)


def test_get_limits_ids_and_characters_and_says_so(many: Any) -> None:
    async def talk(client: Any) -> None:
        found = await whole_answer(client, "get", ids=list(range(80)), characters=10**9)
        assert len(found["result"]) == 50
        assert len(json.dumps(found)) < 120_000
        first, second = found["warnings"]
        assert first == "Only the first 50 of 80 ids were read. Call get for the others."
        assert "at most 100,000 characters" in second and "are cut: 3, 4, " in second
        assert [len(one["text"]) for one in found["result"][2:5]] == [29_998, 9_985, 0]

    converse(many, talk)


def test_explain_limits_sentences_and_their_characters() -> None:
    text = "z" * 5000 + ". " + "An apple falls. " * 80

    async def talk(client: Any) -> None:
        found = await whole_answer(client, "explain", query="apple", id=0)
        assert len(found["sentences"]) == 50
        assert found["warnings"] == ["Only the best 50 of 81 sentences are returned."]
        word = (await whole_answer(client, "explain", query="z" * 5000, id=0))["words"][0]
        assert (len(word["query"]), word["span"]) == (100, [0, 100])

    converse(make_server(TextIndex.build([text], HashEncoder())), talk)


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("get", {"ids": ["p"], "start": -5}, "start must be at least 0, got -5."),
        ("get", {"ids": ["p"], "characters": 0}, "characters must be at least 1, got 0."),
        ("search", {"query": "apple", "k": 0}, "k must be at least 1, got 0."),
        ("search", {"query": "a", "group_by": "brand"}, "Fields of the metadata: kind, title."),
        ("get", {"ids": ["z"]}, "id 'z' is not in the index."),
        ("add", {"texts": ["x"], "ids": ["p"]}, "id 'p' is in the index already. Use another id."),
        ("add", {"texts": ["x"]}, "would get 0, 1, ... Give strings as ids, one for each text."),
        (
            "search",
            {"query": "a", "limit": 3},
            "search has no argument 'limit'. Its arguments: query, k, where, group_by.",
        ),
    ],
)
def test_wrong_arguments_are_refused(server: Any, tool: str, arguments: dict[str, Any], message: str) -> None:
    async def talk(client: Any) -> None:
        answer = await client.call_tool(tool, arguments)
        assert answer.is_error and message in answer.content[0].text
        schemas = [each.input_schema for each in (await client.list_tools()).tools]
        assert not any(schema["additionalProperties"] for schema in schemas)

    converse(server, talk)
