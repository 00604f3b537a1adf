"""``group_by``: the best text of each value of a metadata field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from builders.text_encoders import HashEncoder, SignTable
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import TextIndex, adapt
from muvera.texts.database import DocumentDatabase
from muvera.texts.hit import Hit
from muvera.texts.store import TextStore

WORDS = ["red", "green", "blue", "apple", "pear", "plum", "tree", "sky"]

ENCODERS: list[Callable[[], Any]] = [HashEncoder, SignTable]

# Values that conditions can compare, and others; a document without the field is {}.
VALUES = [
    {}, {"kind": None}, {"kind": []}, {"kind": {"a": 1}}, {"kind": "1"}, {"kind": 1}, {"kind": 1.0},
    {"kind": True}, {"kind": "b"}, {"kind": ["b"]}, {"kind": ["b", "c"]}, {"kind": ["c", "b"]}, {"kind": -0.5},
]  # fmt: skip


def key(hit: Any) -> Any:
    """Return the group of a hit, in other words than the package's."""
    value = hit.metadata.get("kind")
    elements = value if isinstance(value, list) else [value]
    scalars = [one for one in elements if type(one) in (str, int, float, bool)]
    known = {json.dumps(one) if isinstance(one, str) else float(one) for one in scalars}
    return frozenset(known) or ("alone", hit.id)


def without_repeats(hits: Iterable[Any], k: int) -> list[Any]:
    best: dict[Any, Any] = {}
    for hit in hits:
        best.setdefault(key(hit), hit)
    return list(best.values())[:k]


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


@st.composite
def indexes(draw: Any, most: int = 40, encoders: Any = ENCODERS) -> TextIndex:
    documents = draw(st.lists(st.tuples(texts, st.sampled_from(VALUES)), min_size=1, max_size=most))
    metadata = [values for _, values in documents] + [{"kind": "known"}]
    encoder = draw(st.sampled_from(encoders))
    return TextIndex.build([*(text for text, _ in documents), "sky"], encoder(), metadata=metadata)


@given(indexes(), texts, st.integers(1, 12))
@settings(max_examples=60)
def test_hits_are_the_whole_ranking_without_repeats(index: TextIndex, query: str, k: int) -> None:
    whole = index.search(query, len(index), words=0, mean=0)
    assert index.search(query, k, words=0, mean=0, group_by="kind") == without_repeats(whole, k)


@given(indexes(), texts, st.integers(1, 12))
@settings(max_examples=60)
def test_hits_have_the_scores_of_a_deeper_search(index: TextIndex, query: str, k: int) -> None:
    depth = 2 * k
    while len(without_repeats(index.search(query, depth), k)) < k and depth < len(index):
        depth *= 2
    rankings = [without_repeats(index.search(query, d), k) for d in (depth, 2 * depth)]
    assert index.search(query, k, group_by="kind") in rankings


@given(indexes(), st.lists(texts, max_size=4), st.integers(1, 6))
@settings(max_examples=40)
def test_each_query_of_several_has_its_hits_alone(index: TextIndex, queries: list[str], k: int) -> None:
    found = index.search(queries, k, group_by="kind")
    assert found == [index.search(query, k, group_by="kind") for query in queries]


@given(indexes(12, [HashEncoder]), texts, st.integers(1, 12))
@settings(max_examples=40)
def test_each_group_has_its_best_sentence(index: TextIndex, query: str, k: int) -> None:
    longer = [f"{one.text}. {WORDS[i % 8].title()} {WORDS[i % 5]}." for i, one in enumerate(index)]
    index.update(longer, ids=range(len(index)))
    whole = index.search_sentences(query, 1000, candidates=1000)
    found = index.search_sentences(query, k, candidates=max(k, 100), group_by="kind")
    if k * 10 >= len(index):
        assert found == without_repeats(whole, k)
    assert len({key(hit) for hit in found}) == len(found)


@given(indexes(40, [HashEncoder]), texts, st.integers(1, 12))
@settings(max_examples=20)
def test_filters_and_explanations_stay(index: TextIndex, query: str, k: int) -> None:
    options: Any = {"where": {"kind": {"$exists": True}}, "words": 0, "mean": 0, "explain": True}
    whole = index.search(query, len(index), **options)
    assert index.search(query, k, group_by="kind", **options) == without_repeats(whole, k)


@pytest.fixture
def chunks() -> TextIndex:
    """Return an index whose best texts for "red apple" are all of one file."""
    contents = ["red apple"] * 90 + ["red"] * 5 + ["blue sky"] * 5
    files = [{"file": {"name": "a"}}] * 90 + [{"file": {"name": "b"}}] * 5 + [{"file": {"name": "c"}}] * 5
    return TextIndex.build(contents, SignTable(), metadata=files)


def depths(index: TextIndex, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that gets the hits and the documents of each later round."""
    rounds: list[tuple[int, int]] = []
    rank, groups = TextStore.rank, DocumentDatabase.groups

    def ranked(store: TextStore, queries: Any, encoded: Any, options: Any) -> Any:
        if options.group_by is None:
            rounds.append((options.k, 0))
        return rank(store, queries, encoded, options)

    def read(database: DocumentDatabase, field: str, ids: Any) -> Any:
        depth, before = rounds.pop()
        rounds.append((depth, before + len(ids)))
        return groups(database, field, ids)

    monkeypatch.setattr(TextStore, "rank", ranked)
    monkeypatch.setattr(index.texts, "groups", partial(read, index.texts.database))  # type: ignore[attr-defined]
    return rounds


def test_a_nested_field_is_read_once_for_each_doubling(
    chunks: TextIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = depths(chunks, monkeypatch)
    hits = chunks.search("red apple", 2, group_by="file.name")
    assert [hit.metadata["file"]["name"] for hit in hits] == ["a", "b"]
    assert rounds == [(4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (128, 100)]


def test_a_search_ends_when_it_has_found_all_groups(
    chunks: TextIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks.delete(range(90, 100))
    rounds = depths(chunks, monkeypatch)
    assert len(chunks.search("red apple", 10, group_by="file.name")) == 1
    assert rounds == [(20, 20)]
    chunks.update(ids=[5], metadata=[{"file": None}])  # a group alone
    assert [hit.id for hit in chunks.search("red apple", 10, group_by="file.name")] == [0, 5]


def test_a_list_is_a_group_besides_its_elements() -> None:
    metadata: list[dict[str, Any]] = [{"kind": "bc"[i % 2]} for i in range(40)]
    metadata.append({"kind": ["b", "c"]})
    index = TextIndex.build(["red apple"] * 40 + ["red"], SignTable(), metadata=metadata)
    assert [hit.id for hit in index.search("red apple", 9, group_by="kind")] == [0, 1, 40]


def test_groups_are_found_in_at_most_candidates(chunks: TextIndex) -> None:
    found = [chunks.search("red apple", 3, group_by="file.name", candidates=n) for n in (3, 90, 91, 100)]
    assert [len(hits) for hits in found] == [1, 1, 2, 3]


def test_many_texts_are_searched_in_their_first_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [f"red {i % 50}" for i in range(1500)]
    files = [{"file": i // 750} for i in range(1500)]
    index = TextIndex.build(contents, HashEncoder(), metadata=files, exact_tokens=0, vectors="mean")
    rounds = depths(index, monkeypatch)
    hits = index.search("red 7", 3, group_by="file", words=0, mean=0)
    assert sorted(hit.metadata["file"] for hit in hits) == [0, 1]
    assert max(depth for depth, _ in rounds) <= 1000


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_wrong_field_is_one_sentence(encoder: Callable[[], Any]) -> None:
    index = TextIndex.build(["red"], encoder(), metadata=[{"year": 1, "maker": {"name": "x"}, "none": None}])
    message = r"^group_by names the field .* Fields of the metadata: maker\.name, year\.$"
    for field in ("yaer", "none", "maker", "", "$text", "a\0b"):
        for search in (index.search, index.search_sentences):
            with pytest.raises(ValueError, match=message):
                search("red", group_by=field)
    with pytest.raises(ValueError, match="year"):
        index.search(" ", group_by="yaer")
    with pytest.raises(ValueError, match="lone surrogate"):
        index.search("red", group_by="\ud800")
    with pytest.raises(TypeError, match="group_by must be the name"):
        index.search("red", group_by=5)  # type: ignore[call-overload]


def test_an_index_without_metadata_says_so() -> None:
    index = TextIndex.build(["red"], SignTable())
    with pytest.raises(ValueError, match=r"No document has metadata\.$"):
        index.search("red", group_by="kind")
    index.delete([0])
    assert index.search("red", group_by="kind") == []


def test_an_adapted_index_groups_its_hits() -> None:
    contents = [f"{a} {b}" for a in WORDS for b in WORDS]
    metadata = [{"kind": i % 5} if i % 7 else {} for i in range(len(contents))]
    old = TextIndex.build(contents, HashEncoder(name="old"), metadata=metadata)
    new = adapt(old, HashEncoder(24, "new"), candidates=64)
    whole: list[Hit] = new.search("red apple", 64)
    assert new.search("red apple", 8, group_by="kind") == without_repeats(whole, 8)
    with pytest.raises(ValueError, match="Fields of the metadata: kind"):
        new.search("red", group_by="brand")
