"""Collections with texts and judgements: what belongs together, and what is missing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import SHARED

from experiments.datasets.discovery import DatasetPath, find_collections
from experiments.datasets.loading import load_collection
from experiments.datasets.synthetic import synthetic_collection
from experiments.evaluation.metrics import ExactAnswers
from muvera import MultiVectors


def write_embeddings(folder: Path, ids: list[str], query_ids: list[str]) -> Path:
    """One-hot tokens; the second document has none."""
    folder.mkdir(parents=True)
    for side, names in (("docs", ids), ("queries", query_ids)):
        lengths = np.arange(2, 2 + len(names))
        if side == "docs":
            lengths[1] = 0
        tokens = np.eye(8, dtype=np.float16)[np.arange(lengths.sum()) % 8]
        np.save(folder / f"{side}_tokens.npy", tokens)
        np.save(folder / f"{side}_lens.npy", lengths.astype(np.int32))
        np.save(folder / f"{side}_pooled.npy", np.arange(len(names), dtype=np.float32)[:, np.newaxis])
        (folder / f"{side}_ids.json").write_text(json.dumps(names))
    return folder


def write_texts(folder: Path, ids: list[str], query_ids: list[str], qrels: list[str]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": name, "title": "T", "text": f"text of {name}"}) for name in ids]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    rows = [json.dumps({"_id": name, "text": f"query {name}"}) for name in query_ids]
    (folder / "queries.jsonl").write_text("\n".join(rows))
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *qrels]))
    return folder


def test_texts_judgements_and_pooled_vectors_are_those_of_the_texts_with_tokens(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "embeddings" / "news-model", ["a", "b", "c"], ["q"])
    write_texts(tmp_path / "beir" / "news", ["c", "b", "a"], ["q"], ["q\tc\t2", "q\tb\t1", "q\tx\t1"])
    places = find_collections([tmp_path], tmp_path / "cache")
    assert list(places) == ["news-model"]
    loaded = load_collection(places["news-model"])
    assert loaded.document_ids == ["a", "c"]
    assert loaded.document_texts == ["T text of a", "T text of c"]
    assert loaded.query_texts == ["query q"]
    assert loaded.judgements == [{1: 2}]
    assert loaded.document_pooled is not None
    np.testing.assert_array_equal(loaded.document_pooled, [[0], [2]])
    assert loaded.problems == []


def test_samples_keep_what_is_relevant_and_know_what_was_picked(tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(40)]
    write_embeddings(tmp_path / "news-model", names, ["q", "r"])
    write_texts(tmp_path / "news", names, ["q", "r"], ["q\td7\t1", "q\td9\t0"])
    loaded = load_collection(find_collections([tmp_path], tmp_path / "cache")["news-model"])
    for size in (4, 10):
        sample = loaded.sampled(size)
        assert len(sample.document_ids) == size and "d7" in sample.document_ids
        assert sample.judgements is not None and 1 in sample.judgements[0].values()
    # Other judgements pick other queries first: another checksum, so that nothing kept is taken for it.
    assert loaded.judgements is not None
    turned = replace(loaded, judgements=loaded.judgements[::-1])
    assert loaded.asked(1).query_ids == ["q"]
    assert turned.asked(1).query_ids == ["r"]
    assert loaded.asked(1).checksum != turned.asked(1).checksum


def test_embeddings_belong_to_the_longest_name_that_fits(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "news-en-model", ["a", "b"], ["q"])
    for name in ("news", "news-en"):
        write_texts(tmp_path / name, ["a", "b"], ["q"], ["q\ta\t1"])
    places = find_collections([tmp_path], tmp_path / "cache")
    assert places["news-en-model"].texts == tmp_path / "news-en"
    assert places["news"] == DatasetPath("news", None, tmp_path / "news")


def test_texts_without_embeddings_say_how_to_make_them(tmp_path: Path) -> None:
    write_texts(tmp_path / "news", ["a"], ["q"], ["q\ta\t1"])
    places = find_collections([tmp_path], tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"no embeddings\. Run: python -m experiments encode"):
        load_collection(places["news"])


def test_embeddings_in_the_cache_are_found_with_their_texts_alone(tmp_path: Path) -> None:
    write_texts(tmp_path / "data" / "news", ["a", "b"], ["q"], ["q\ta\t1"])
    for name in ("news-model", "other-model"):
        write_embeddings(tmp_path / "cache" / "embeddings" / "0123abcd" / name, ["a", "b"], ["q"])
    assert list(find_collections([tmp_path / "data"], tmp_path / "cache")) == ["news-model"]


def test_judgements_that_match_nothing_are_a_problem_by_name(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "news-model", ["a", "b"], ["q"])
    write_texts(tmp_path / "news", ["a", "b"], ["q"], ["q\t17\t1", "q\t18\t1"])
    loaded = load_collection(find_collections([tmp_path], tmp_path / "cache")["news-model"])
    assert loaded.judgements is None
    (problem,) = loaded.problems
    assert "None of the 2 judgements" in problem and "test.tsv" in problem


def test_texts_that_are_missing_are_a_problem_by_name(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "news-model", ["a", "b"], ["q"])
    write_texts(tmp_path / "news", ["b"], ["q"], ["q\ta\t1"])
    loaded = load_collection(find_collections([tmp_path], tmp_path / "cache")["news-model"])
    assert loaded.document_texts is None
    assert "has no text of 'a'" in loaded.problems[0]


def test_documents_and_queries_of_any_format_are_a_collection(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    folder = tmp_path / "mine"
    folder.mkdir()
    sides = [
        MultiVectors.from_arrays([stream.normal(size=(3, 8)) for _ in range(count)], ids=ids)
        for count, ids in ((4, ["a", "b", "c", "d"]), (2, ["q", "r"]))
    ]
    sides[0].save(folder / "documents")
    queries: dict[str, Any] = {name: sides[1][i] for i, name in enumerate(["q", "r"])}
    np.savez(folder / "queries.npz", **queries)
    loaded = load_collection(find_collections([folder], tmp_path / "cache")["mine"])
    assert loaded.document_ids == ["a", "b", "c", "d"]
    assert len(loaded.query_ids) == 2
    np.testing.assert_array_equal(loaded.documents.tokens, sides[0].tokens)


def test_parts_keep_what_belongs_together() -> None:
    whole = synthetic_collection("quick-wide")
    part = whole.asked(5).sampled(140)
    assert len(part.query_ids) == len(part.queries) == 5
    assert len(part.document_ids) == len(part.documents) == 140
    assert part.content != whole.content == synthetic_collection("quick-wide").content
    assert part.checksum != whole.checksum
    assert part.judgements is not None and part.document_texts is not None and part.query_texts is not None
    assert whole.document_texts is not None
    for name, text, tokens in zip(part.document_ids, part.document_texts, part.documents, strict=True):
        original = whole.document_ids.index(name)
        assert text == whole.document_texts[original]
        np.testing.assert_array_equal(tokens, whole.documents[original])
    kept = 0
    for text, judged in zip(part.query_texts, part.judgements, strict=True):
        for position in judged:  # a query repeats words of its document
            kept += 1
            assert set(text.split()) <= set(part.document_texts[position].split())
    assert kept >= 3
    assert whole.asked(1000) is whole.sampled(None) is whole.sampled(10**6) is whole


def test_queries_are_set_aside_once_for_the_same_collection() -> None:
    whole = synthetic_collection("quick-wide")
    part = whole.without_training_queries(0.5)
    assert part.training_queries is not None
    assert len(part.query_ids) == len(part.queries) == len(part.training_queries) == 6
    asked = {tokens.tobytes() for tokens in part.queries}
    assert not asked & {tokens.tobytes() for tokens in part.training_queries}
    assert part.query_ids == whole.without_training_queries(0.5).query_ids
    assert part.content != replace(part, training_queries=None).content


def test_exact_answers_are_chamfers_and_kept(tmp_path: Path) -> None:
    whole = synthetic_collection("quick-wide", documents=40, queries=5)
    exact = ExactAnswers(whole, tmp_path)
    documents = [document.astype(np.float64) for document in whole.documents]
    expected = []
    for query in whole.queries:
        scores = [(query.astype(np.float64) @ document.T).max(axis=1).sum() for document in documents]
        expected.append(np.argsort(-np.array(scores), kind="stable")[:6])
    np.testing.assert_array_equal(exact.best(6), expected)
    (path,) = tmp_path.glob("top6-*.npy")
    np.save(path, exact.best(6) + 1)
    np.testing.assert_array_equal(exact.best(3), np.array(expected)[:, :3] + 1)  # the first of more
    assert exact.best(1000).shape == (5, exact.documents) == (5, 40)


def test_collections_are_found_alone_in_a_folder_and_under_embeddings(tmp_path: Path) -> None:
    one = write_embeddings(tmp_path / "alone" / "one", ["a", "b"], ["q"])
    write_embeddings(tmp_path / "shared" / "embeddings" / "two", ["a", "b"], ["q"])
    cache = tmp_path / "cache"
    assert list(find_collections([one], cache)) == ["one"]
    assert list(find_collections([tmp_path / "alone", tmp_path / "shared"], cache)) == ["one", "two"]
    assert list(find_collections([tmp_path / "alone", tmp_path / "shared"], cache, ["two"])) == ["two"]
    with pytest.raises(ValueError, match=r"no collection 'tow'\. Did you mean 'two'"):
        find_collections([tmp_path / "shared"], cache, ["tow"])
    with pytest.raises(FileNotFoundError, match="holds no collection"):
        find_collections([tmp_path], cache)


def test_queries_of_a_plaid_index_come_from_beside_it(tmp_path: Path) -> None:
    sample = SHARED / "plaid-colbertv2-lotte500"
    if not sample.is_dir():
        pytest.skip("needs ../shared/data/plaid-colbertv2-lotte500")
    loaded = load_collection(find_collections([sample], tmp_path)[sample.name])
    assert (len(loaded.documents), len(loaded.queries), loaded.documents.dimension) == (500, 100, 128)
