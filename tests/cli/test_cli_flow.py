"""From embeddings to rankings on shared collections, as the README shows."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from builders.command_line import answer, muvera
from builders.paths import SHARED

from muvera.convert import read

COLBERT = SHARED / "plaid-colbertv2-lotte500"
CRANFIELD = SHARED / "embeddings" / "cranfield-minilm"


def chamfer_by_numpy(queries: list[np.ndarray], tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Exact Chamfer without the library, (queries, documents)."""
    columns = np.concatenate(queries).T
    starts = np.cumsum([0, *(len(query) for query in queries[:-1])])
    scores = np.empty((len(queries), len(offsets) - 1))
    for j, (start, stop) in enumerate(pairwise(offsets)):
        scores[:, j] = np.add.reduceat((tokens[start:stop] @ columns).max(axis=0), starts)
    return scores


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not COLBERT.is_dir():
        pytest.skip(f"the ColBERTv2 sample {COLBERT.name} is not beside the checkout")
    folder = tmp_path_factory.mktemp("colbert")
    code, out, err = muvera("convert", COLBERT, folder / "docs")
    assert (code, err) == (0, "")
    assert "read     plaid (lossy, 2 bits a coordinate): 500 documents, 56,658 tokens" in out
    facts = answer("index", folder / "docs", folder / "index", "--exact-tokens", 0)
    assert (facts["documents"], facts["tokens"], facts["search"]) == (500, 56658, "exact")
    return folder


def test_colbert_sample_with_all_candidates_is_exact(colbert: Path) -> None:
    docs = read(colbert / "docs")
    queries = np.load(COLBERT / "query_embedding.npy")
    expected = chamfer_by_numpy(list(queries), np.asarray(docs.tokens, np.float32), docs.offsets)
    given = [colbert / "index", COLBERT / "query_embedding.npy", "-k", 10]
    everything = answer("search", *given, "--candidates", 500)["queries"]
    assert [query["id"] for query in everything] == list(range(100))
    for query, scores in zip(everything, expected, strict=True):
        ids = [result["id"] for result in query["results"]]
        # Float32 sums of 32 similarities differ in the order of adding.
        np.testing.assert_allclose([result["score"] for result in query["results"]], scores[ids], atol=1e-4)
        np.testing.assert_allclose(scores[ids], np.sort(scores)[::-1][:10], atol=1e-4)


def test_colbert_sample_through_candidates_finds_most(colbert: Path) -> None:
    given = [colbert / "index", COLBERT / "query_embedding.npy", "-k", 10]
    exact = answer("search", *given, "--candidates", 500)["queries"]
    found = answer("search", *given, "--candidates", 50)["queries"]
    hits = [
        len({r["id"] for r in a["results"]} & {r["id"] for r in b["results"]})
        for a, b in zip(exact, found, strict=True)
    ]
    # Fifty candidates are to hold .88 of the exact ten.
    assert np.mean(hits) / 10 >= 0.88


def test_the_colbert_index_itself_can_be_indexed_and_described(colbert: Path, tmp_path: Path) -> None:
    assert answer("info", COLBERT)["nbits"] == 2
    answer("index", COLBERT, tmp_path / "index", "--exact-tokens", 0)
    given = ["-k", 5, "--trec", "-q"]
    direct = muvera("search", tmp_path / "index", COLBERT / "query_embedding.npy", *given)
    converted = muvera("search", colbert / "index", COLBERT / "query_embedding.npy", *given)
    assert direct == converted
    assert direct[1].count("\n") == 500


def test_cranfield(tmp_path: Path) -> None:
    if not CRANFIELD.is_dir():
        pytest.skip(f"the collection {CRANFIELD.name} is not beside the checkout")
    facts = answer("index", CRANFIELD, tmp_path / "index")
    assert facts["documents"] == 1400
    assert facts["search"] == "exact" and facts["encoder"]["vector_dimension"] == 256
    assert answer("info", tmp_path / "index")["tokens"] == facts["tokens"]
    found = answer("search", tmp_path / "index", CRANFIELD, "-k", 10, "--candidates", 50)
    docs, queries = read(CRANFIELD), read(CRANFIELD, part="queries")
    assert [query["id"] for query in found["queries"]] == queries.ids.tolist()
    filled = np.flatnonzero(docs.lengths > 0)
    place = {name: row for row, name in enumerate(docs.ids[filled].tolist())}
    texts = [np.asarray(query, np.float32) for query in queries]
    offsets = np.append(docs.offsets[:-1][filled], docs.num_tokens)
    expected = chamfer_by_numpy(texts, np.asarray(docs.tokens, np.float32), offsets)
    hits = 0
    for query, scores in zip(found["queries"], expected, strict=True):
        rows = [place[result["id"]] for result in query["results"]]
        np.testing.assert_allclose([result["score"] for result in query["results"]], scores[rows], atol=1e-4)
        hits += int((scores[rows] >= np.sort(scores)[-10] - 1e-4).sum())
    # Fifty candidates are to hold .955 of the exact ten.
    assert hits / (10 * len(texts)) >= 0.955
