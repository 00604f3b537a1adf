"""Two levels of tokens: means rank the candidates, and all tokens finish the best."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.indexes import recall
from builders.realistic_collections import documents_like_real, queries_like_real

from muvera import IndexSettings, MultiVectors, MuveraIndex, top_k
from muvera.index import page_cache, token_store
from muvera.index.generations import IndexFolderError, read_manifest
from muvera.kernels.rows import normalize_rows
from muvera.reranking.pruning import PackedQueries


def unit(vectors: MultiVectors) -> MultiVectors:
    tokens = np.array(vectors.tokens, np.float32)
    normalize_rows(tokens)
    ids = vectors.ids if vectors.has_ids else None
    return MultiVectors(tokens, vectors.offsets, ids)


DOCUMENTS = unit(documents_like_real(300, ids=[f"d{i}" for i in range(300)]))
QUERIES = unit(queries_like_real(DOCUMENTS, 40))
KINDS = (None, "float16", "int8", "2bit")


def built(**settings: Any) -> MuveraIndex:
    return MuveraIndex.build(DOCUMENTS, "mean", **{"threads": 1, "pool": 2, **settings})


def answers(index: MuveraIndex, **more: Any) -> list[list[tuple[Any, float]]]:
    return [list(ranking) for ranking in index.search(QUERIES, 5, **more)]


@pytest.mark.parametrize("exact_tokens", [0, 10**6])
@pytest.mark.parametrize("tokens", KINDS)
def test_means_find_what_all_tokens_rank(tokens: Any, exact_tokens: int) -> None:
    index = built(tokens=tokens, exact_tokens=exact_tokens)
    whole = built(tokens=tokens, exact_tokens=exact_tokens, pool=1)
    rankings = index.search(QUERIES, 5, candidates=300)
    assert recall(rankings, whole.search(QUERIES, 5, candidates=300)) >= 0.97
    for query, ranking in zip(QUERIES, rankings, strict=True):  # scores are of all tokens
        name, score = next(iter(ranking))
        assert index.explain(query, name).similarities.sum() == pytest.approx(score, rel=1e-5)
    assert index.info().tokens == whole.info().tokens


def test_floats_of_all_tokens_give_exact_scores() -> None:
    index = built(exact_tokens=10**6)
    exact = [dict(row) for row in top_k(QUERIES, DOCUMENTS, 300)]
    for scores, ranking in zip(exact, index.search(QUERIES, 5), strict=True):
        assert ranking.exact and list(ranking) == [(name, scores[name]) for name, _ in ranking]


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("tokens", KINDS)
def test_pairs_of_a_query_and_a_row_score_as_one_query_does(tokens: Any, pool: int, tmp_path: Path) -> None:
    index = built(tokens=tokens, pool=pool, path=tmp_path / "index")
    index.add(DOCUMENTS[:20].with_ids([f"e{i}" for i in range(20)]))  # another segment
    store = index.contents.tokens
    rng = np.random.default_rng(0)
    numbers, rows = rng.integers(0, 4, 200), np.sort(rng.integers(0, len(store), 200))
    texts = [np.concatenate(list(QUERIES[:count])) for count in (1, 2, 5, 9)]
    together = store.pair_scores(PackedQueries.of(MultiVectors.from_arrays(texts)), numbers, rows)
    alone = [store.scores(texts[q], rows[i : i + 1])[0] for i, q in enumerate(numbers.tolist())]
    assert together.tolist() == alone


@pytest.mark.parametrize("tokens", KINDS)
def test_a_loaded_index_has_the_same_levels(tokens: Any, tmp_path: Path) -> None:
    index = built(tokens=tokens, exact_tokens=0)
    before = answers(index)
    index.save(tmp_path / "index")
    assert answers(index) == before == answers(MuveraIndex.load(tmp_path / "index", verify_files=True))
    index.delete(["d3", "d7"])
    index.add(DOCUMENTS[:2], ids=["new", "newer"])
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    assert answers(loaded) == answers(index)
    index.rebuild()
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    assert answers(loaded) == answers(index) and len(loaded.contents.tokens) == len(loaded) == 300


@pytest.mark.parametrize("tokens", KINDS)
def test_batches_and_fits_in_between_give_the_same_levels(
    tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec is fitted when there are enough means, or enough tokens."""
    monkeypatch.setattr(token_store, "FIT_TOKENS", int(DOCUMENTS.lengths.sum()) // 4)

    def grown(pool: float) -> MuveraIndex:
        index = MuveraIndex(
            "mean", dimension=DOCUMENTS.dimension, tokens=tokens, pool=pool, exact_tokens=10**6
        )
        for start in range(0, 300, 75):
            index.add(DOCUMENTS[start : start + 75])
        return index

    index = grown(2)
    coarse, fine = index.contents.tokens.coarse, index.contents.tokens.fine
    assert isinstance(coarse, token_store.CodeStore)
    assert isinstance(fine, token_store.CodeStore) == (tokens in ("int8", "2bit"))
    assert coarse.lengths.sum() < 0.6 * fine.lengths.sum()
    assert recall(index.search(QUERIES, 5), grown(1).search(QUERIES, 5)) >= 0.97


def test_a_recall_is_calibrated_with_means() -> None:
    documents = unit(documents_like_real(600))
    queries = unit(queries_like_real(documents, 100))
    index = MuveraIndex.build(documents, "moments", tokens="int8", pool=2, exact_tokens=0)
    found = index.search(queries, 10, recall=0.9)
    assert found[0].expected_recall is not None
    assert recall(found, index.search(queries, 10, candidates=600)) > 0.85


def test_documents_without_tokens_have_no_means() -> None:
    index = MuveraIndex.build(
        [DOCUMENTS[0], np.empty((0, DOCUMENTS.dimension)), DOCUMENTS[1]], "mean", pool=3
    )
    assert index.info().empty_documents == 1
    assert sorted(index.search(DOCUMENTS[0], 3)[0].ids.tolist()) == [0, 2]


def test_means_that_do_not_fit_the_tokens_are_named(tmp_path: Path) -> None:
    built(tokens="int8", path=tmp_path / "index")
    manifest = read_manifest(tmp_path / "index")
    lengths = tmp_path / "index" / manifest["folder"] / "mean_lengths.npy"
    counts = np.load(lengths)
    counts[:2] = 0, counts[:2].sum()
    np.save(lengths, counts)
    with pytest.raises(IndexFolderError, match="means that do not match"):
        MuveraIndex.load(tmp_path / "index", verify_files=False)


def test_wrong_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="pool must be at least 1"):
        IndexSettings(pool=0.5)
    with pytest.raises(ValueError, match="pool=2 keeps all tokens beside means, so omit keep_exact"):
        IndexSettings(tokens="int8", keep_exact=True, pool=2)


@pytest.mark.parametrize(("k", "threads"), [(7, 1), (7, 2), (2_600, 2)])
def test_queries_that_read_many_documents_together_rank_as_alone(k: int, threads: int) -> None:
    documents = unit(documents_like_real(5_000, ids=[f"d{i}" for i in range(5_000)]))
    short = unit(queries_like_real(documents, 20))
    long = MultiVectors.from_arrays([np.concatenate(list(short))[:40]])
    queries = MultiVectors.concatenate([short, long])
    exact = MuveraIndex.build(documents, "mean", exact_tokens=10**6, threads=1)
    together = [list(ranking) for ranking in exact.search(queries, k, threads=threads)]
    assert together == [list(exact.search([query], k)[0]) for query in queries]
    oracle = top_k(queries, documents, k)
    found = [{score for _, score in ranking} for ranking in together]
    assert found == [{score for _, score in ranking} for ranking in oracle]


@pytest.mark.parametrize("tokens", ["float32", "int8"])
def test_scores_of_means_bound_no_exact_scores(tokens: str) -> None:
    """The best text has a mean that scores below those of texts with equal tokens."""
    rng = np.random.default_rng(3)
    shares = np.concatenate([np.linspace(0.9, 0.3, 250), np.full(10, 0.1), np.full(20, -0.9)])
    texts = np.zeros((280, 12, 16), np.float32)
    texts[:, :, 0] = shares[:, np.newaxis]
    texts[:, :, 1] = np.sqrt(1 - np.square(shares))[:, np.newaxis]
    # Ten texts have two groups of tokens; one token is the query.
    texts[250:260, :6, 2:] = rng.standard_normal((10, 1, 14))
    texts[250:260, 6:, 2:] = -texts[250:260, :6, 2:]
    texts[250:260, 0] = np.eye(16)[0] + 0.5 * texts[250:260, 1] * (np.arange(16) > 1)
    index = MuveraIndex.build(list(texts), "mean", tokens=tokens, pool=6, exact_tokens=10**6)
    found = index.search([np.eye(1, 16, dtype=np.float32)], 3, candidates=280, rescore=265)[0]
    assert set(found.ids.tolist()) < set(range(250, 260)) and found.scores.min() > 0.95


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("levels", [{"tokens": "int8", "keep_exact": True}, {"tokens": "float16"}])
def test_a_deep_search_releases_pages_before_it_ends(
    levels: Any, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = IndexSettings(exact_tokens=0, **levels)
    MuveraIndex.build(DOCUMENTS, "mean", settings=settings, path=tmp_path / "index", threads=1)
    index, released = MuveraIndex.load(tmp_path / "index"), []
    query = np.concatenate(list(QUERIES[:9]))  # floats of a short one are not rounded first
    (expected,) = index.search([query], 100, candidates=300)
    monkeypatch.setattr(token_store, "_READ", 32)
    monkeypatch.setattr(page_cache, "_MAPPED", 4096)
    monkeypatch.setattr(page_cache, "_BRIEFLY_HELD_BYTES", DOCUMENTS.tokens.nbytes // 8)
    monkeypatch.setattr(page_cache, "forget", lambda tokens: released.append(len(tokens)))
    with index.contents.tokens.read_briefly():
        (found,) = index.search([query], 100, candidates=300, threads=threads)
    assert list(found) == list(expected)
    before = len(released)
    assert before >= 2  # it reads more than half of the documents
    index.search([query], 100, candidates=300, threads=threads)
    assert len(released) == before  # all of the file fits into memory


def test_texts_that_are_read_together_in_parts_rank_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(pool=1, exact_tokens=0)
    monkeypatch.setattr(token_store, "_SHORT_RANKED", 50)
    expected = answers(index, candidates=300)
    monkeypatch.setattr(token_store, "_READ_TOGETHER", 77)
    with index.contents.tokens.read_briefly():
        assert answers(index, candidates=300) == expected
