"""Indexes whose tokens are codes: search, save, rebuild; PLAID's codes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import random_index, write_plaid
from builders.indexes import recall
from builders.realistic_collections import DIM, documents_like_real, queries_like_real

from muvera import MultiVectors, MuveraIndex, convert
from muvera.index import token_store
from muvera.index.generations import read_manifest
from muvera.index.settings import IndexSettings
from muvera.reranking import coded_vectors
from muvera.reranking.codecs import CODECS
from muvera.reranking.pruning import RerankOptions

DOCUMENTS = documents_like_real(300, ids=[f"d{i}" for i in range(300)])
QUERIES = queries_like_real(DOCUMENTS, 40)


def built(**settings: Any) -> MuveraIndex:
    return MuveraIndex.build(DOCUMENTS, "mean", **{"threads": 1, **settings})


def ids(rankings: Any) -> list[list[str]]:
    return [ranking.ids.tolist() for ranking in rankings]


@pytest.mark.parametrize("exact_tokens", [0, 10**6])
@pytest.mark.parametrize("tokens", CODECS)
def test_codes_find_nearly_what_floats_find(tokens: Any, exact_tokens: int) -> None:
    exact = built(exact_tokens=exact_tokens).search(QUERIES, 5, candidates=300)
    index = built(tokens=tokens, exact_tokens=exact_tokens)
    rankings = index.search(QUERIES, 5, candidates=300)
    # Sixteen independent coordinates: codes of real tokens lose a third of that.
    assert recall(rankings, exact) >= {"int8": 0.97, "4bit": 0.9, "2bit": 0.75, "1bit": 0.55}[tokens]
    assert all(ranking.exact for ranking in exact) and not any(ranking.exact for ranking in rankings)
    assert index.info().token_codec == {
        "codec": tokens,
        "keep_exact": False,
        "fitted": True,
        "bytes_per_token": {"int8": 18, "4bit": 11, "2bit": 7, "1bit": 5}[tokens],
        "exact_bytes_per_token": 0,
    }
    for query, ranking in zip(QUERIES, rankings, strict=True):  # scores are of decoded tokens
        name, score = next(iter(ranking))
        assert index.explain(query, name).similarities.sum() == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("rescore", [None, 1, 4, 60])
def test_a_ranking_has_k_rows_however_few_are_rescored(rescore: int | None) -> None:
    tokens = token_store.DocumentTokens(IndexSettings(tokens="2bit", keep_exact=True), DIM)
    tokens.append(DOCUMENTS[:60])
    tokens.fit_codec(1, at_end=True)
    assert tokens.has_estimates
    rows, scores = tokens.rank(QUERIES[0], np.arange(60), RerankOptions(5), 1, rescore=rescore)
    assert len(rows) == len(set(rows.tolist())) == 5 and (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("exact_tokens", [0, 10**6])
def test_exact_tokens_rank_the_best_by_codes(exact_tokens: int) -> None:
    exact = built(exact_tokens=exact_tokens).search(QUERIES, 5, candidates=300)
    index = built(tokens="2bit", keep_exact=True, exact_tokens=exact_tokens)
    rankings = index.search(QUERIES, 5, candidates=300)
    assert recall(rankings, exact) >= 0.99 and all(ranking.exact for ranking in rankings)
    for ranking, known in zip(rankings, map(dict, exact), strict=True):
        assert all(known.get(name, score) == score for name, score in ranking)
    assert ids(index.search(QUERIES, 5, candidates=300, rescore=300)) == ids(exact)
    np.testing.assert_array_equal(index.tokens(["d4"])[0], DOCUMENTS[4])
    assert index.info().token_codec["exact_bytes_per_token"] == 4 * DIM
    with pytest.raises(ValueError, match=r"rescore=3 .* k=5"):
        index.search(QUERIES, 5, rescore=3)
    with pytest.raises(ValueError, match=r"rescore=20 .*\(4bit\)"):
        built(tokens="4bit").search(QUERIES, 5, rescore=20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults of a thread")
def test_warm_searches_of_exact_tokens_beside_codes_fault_no_pages(tmp_path: Path) -> None:
    import resource

    # A page fault maps up to 2 MiB: the file has 32 times that.
    tokens = np.random.default_rng(0).standard_normal((1 << 18, 64), np.float32)
    documents = MultiVectors.from_flat(tokens, [256] * 1024)
    MuveraIndex.build(documents, "mean", tokens="int8", keep_exact=True, exact_tokens=0).save(tmp_path / "i")
    index = MuveraIndex.load(tmp_path / "i")
    queries = [documents[row][:20] for row in range(0, 1024, 16)]

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for query in queries:
            index.search(query, 10, threads=1)
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    for _ in range(2):  # compile, and map every page
        faults()
    assert faults() <= 2 * len(queries)


@pytest.mark.parametrize("keep_exact", [False, True])
@pytest.mark.parametrize("staged", [False, True])
def test_saved_changed_and_rebuilt(tmp_path: Path, keep_exact: bool, staged: bool) -> None:
    index = MuveraIndex.build(
        iter([DOCUMENTS[:200], DOCUMENTS[200:]]), "mean", tokens="2bit", keep_exact=keep_exact, threads=1,
        path=tmp_path / "index" if staged else None,
    )  # fmt: skip
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index", verify_files=True)
    assert ids(loaded.search(QUERIES, 5)) == ids(index.search(QUERIES, 5))
    more = documents_like_real(20, 5, ids=[f"d{i}" for i in range(1000, 1020)])
    loaded.add(more, threads=1)
    loaded.delete(["d7", "d9"])
    loaded.save(tmp_path / "index")
    again = MuveraIndex.load(tmp_path / "index")
    before = again.search(QUERIES, 5)
    assert ids(before) == ids(loaded.search(QUERIES, 5))
    assert again.search(more[[4]], 1)[0].ids.tolist() == ["d1004"]
    again.rebuild(threads=1)
    after = again.search(QUERIES, 5)
    assert ids(after) == ids(before)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)  # codes are copied, not computed again
    again.save(tmp_path / "index")
    last = MuveraIndex.load(tmp_path / "index", verify_files=True)
    assert ids(last.search(QUERIES, 5)) == ids(before) and len(last) == 318
    manifest = read_manifest(tmp_path / "index")
    assert bool(manifest["segments"]) == keep_exact and manifest["codes"]["codec"] == "residual"


def test_floats_until_a_codec_can_be_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "FIT_TOKENS", 500)
    index = MuveraIndex.build(DOCUMENTS[:1], tokens="int8")
    assert index.info().token_codec["fitted"]  # a build of any size is complete
    grown = MuveraIndex(index.config, tokens="int8")
    fitted = []
    for start in range(0, 300, 50):
        grown.add(DOCUMENTS[start : start + 50], threads=1)
        fitted.append(grown.codec is not None)
    assert fitted[0] is False and fitted[-1] is True
    assert ids(grown.search(DOCUMENTS[2:16], 1)) == [[name] for name in DOCUMENTS.ids[2:16]]


def test_float16() -> None:
    index = built(tokens="float16")
    assert index.tokens(["d0"]).tokens.dtype == np.float16 and index.search(QUERIES, 1)[0].exact
    assert index.info().token_codec["bytes_per_token"] == 2 * DIM
    wide = MultiVectors.from_arrays([np.array([[1, 7e4]], np.float32)], ids=["big"])
    with pytest.raises(ValueError, match=r"documents\[0\] \(id 'big'\) .* 65504"):
        MuveraIndex.build(wide, tokens="float16")


@pytest.mark.parametrize("nbits", [1, 2, 4])
@pytest.mark.parametrize("centroids", [5, 300])
def test_plaid_codes_are_kept(tmp_path: Path, nbits: int, centroids: int) -> None:
    written = random_index(3, [[4, 2, 7], [5, 9, 1, 6]], nbits=nbits, centroids=centroids)
    folder = write_plaid(tmp_path / "plaid", written)
    documents = convert.read(folder)
    index = MuveraIndex.from_plaid(folder, "mean", path=tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index", verify_files=True)
    facts = loaded.info().token_codec
    assert facts["bytes_per_token"] == (1 if centroids < 257 else 2) + 2 + 16 * nbits // 8
    assert facts["codec"] == f"plaid-{nbits}bit" and not facts["keep_exact"]
    coded = loaded.codes(range(7))
    numbers, packed = coded.codec.split_codes(coded.tokens)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(numbers, np.concatenate(written["codes"]))
    np.testing.assert_array_equal(packed, np.concatenate(written["packed"]))
    np.testing.assert_allclose(loaded.tokens(range(7)).tokens, documents.tokens, atol=1e-3)
    queries = MultiVectors.from_arrays([np.asarray(documents[i], np.float32) for i in range(7)])
    expected = ids(MuveraIndex.build(documents).search(queries, 1))
    assert ids(index.search(queries, 1)) == ids(loaded.search(queries, 1)) == expected
    loaded.add([np.asarray(documents[2], np.float32)])
    loaded.rebuild()
    loaded.save(tmp_path / "index")
    assert len(MuveraIndex.load(tmp_path / "index", verify_files=True)) == 8
    opened = MuveraIndex.from_plaid(convert.open_source(folder), "mean")
    assert ids(opened.search(queries, 1)) == expected


def test_sources_without_plaid_codes(tmp_path: Path) -> None:
    DOCUMENTS.save(tmp_path / "documents")
    for source in (DOCUMENTS, tmp_path / "documents"):
        with pytest.raises(TypeError, match="PLAID"):
            MuveraIndex.from_plaid(source)  # type: ignore[arg-type]
    folder = write_plaid(tmp_path / "plaid", random_index(3, [[4, 2]], nbits=2, centroids=5))
    with pytest.raises(ValueError, match="tokens='4bit'"):
        MuveraIndex.from_plaid(folder, tokens="4bit")
    with pytest.raises(ValueError, match=r"ids=\[7\]"):
        MuveraIndex.from_plaid(folder, ids=[7])


def test_exact_tokens_of_promising_documents_are_prefetched_before_codes_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(tokens="2bit", keep_exact=True, exact_tokens=0, path=tmp_path / "index")
    index = MuveraIndex.load(tmp_path / "index")
    plain = index.search(QUERIES[:1], 3, candidates=60)[0]
    floats = index.contents.tokens.floats
    assert floats is not None
    asked: list[Any] = []
    score = coded_vectors.score_coded

    def read_ahead(files: Any, rows: Any) -> int:
        asked.append(rows)
        return 0

    def score_coded(*args: Any) -> Any:
        asked.append("codes")
        return score(*args)

    monkeypatch.setattr(floats.pages, "read_ahead", read_ahead)
    monkeypatch.setattr(token_store, "score_coded", score_coded)
    again = index.search(QUERIES[:1], 3, candidates=60)[0]
    likely, then, needed = asked
    assert then == "codes" and len(likely) == len(needed) == 2 * 3 + 10
    assert np.isin(needed, likely).mean() > 0.4  # of 60 candidates
    assert list(again) == list(plain)
    asked.clear()
    index.rerank(QUERIES[:1], [plain.ids.tolist() + [f"d{i}" for i in range(60)]], 3)
    assert asked[0] == "codes"  # proposals of another search are in no order
