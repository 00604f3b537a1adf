"""Indexes that keep tokens as codes: built, changed, searched on two levels, saved, read and rebuilt."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera import MultiVectors, MuveraIndex
from muvera.index import token_levels
from muvera.index.manifest import IndexFolderError, read_manifest
from muvera.reranking.codecs import CODECS

DIMENSION = 16


def texts(seed: int, count: int, first: int = 0) -> MultiVectors:
    """Documents around topics of their own."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, count)
    lengths[1] = 0
    topics = np.repeat(rng.standard_normal((count, DIMENSION)), lengths, axis=0)
    tokens = topics + 0.5 * rng.standard_normal(topics.shape)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return MultiVectors.from_flat(
        tokens.astype(np.float32), lengths, ids=[f"d{i}" for i in range(first, first + count)]
    )


@pytest.fixture(scope="module")
def documents() -> MultiVectors:
    """300 documents."""
    return texts(0, 300)


@pytest.fixture(scope="module")
def queries(documents: MultiVectors) -> MultiVectors:
    """Some of the documents, disturbed."""
    rng = np.random.default_rng(1)
    picked = [documents[i] for i in range(2, 42)]
    return MultiVectors.from_arrays(
        [text + 0.1 * rng.standard_normal(text.shape).astype(np.float32) for text in picked]
    )


def ids(found: Any) -> list[list[str]]:
    return [ranking.ids.tolist() for ranking in found]


def overlap(found: list[list[str]], expected: list[list[str]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, expected, strict=True)]))


@pytest.mark.parametrize("exact_tokens", [0, 10**6])
@pytest.mark.parametrize("codec", CODECS)
def test_codes_find_nearly_what_floats_find(
    documents: MultiVectors, queries: MultiVectors, codec: str, exact_tokens: int
) -> None:
    given: dict[str, Any] = {"exact_tokens": exact_tokens, "threads": 1}
    exact = MuveraIndex.build(documents, **given).search(queries, 5, candidates=300)
    index = MuveraIndex.build(documents, tokens=codec, **given)
    found = index.search(queries, 5, candidates=300)
    # Sixteen independent coordinates: real tokens lose a third of that.
    assert overlap(ids(found), ids(exact)) >= {"int8": 0.97, "4bit": 0.9, "2bit": 0.75, "1bit": 0.55}[codec]
    assert all(ranking.exact for ranking in exact) and not any(ranking.exact for ranking in found)
    assert "of coded tokens" in repr(found[0])
    kept = index.info().token_codec
    assert kept == {
        "codec": codec,
        "keep_exact": False,
        "fitted": True,
        "bytes_per_token": {"int8": 18, "4bit": 11, "2bit": 7, "1bit": 5}[codec],
        "exact_bytes_per_token": 0,
    }


@pytest.mark.parametrize("exact_tokens", [0, 10**6])
def test_exact_tokens_order_the_best_by_codes(
    documents: MultiVectors, queries: MultiVectors, exact_tokens: int
) -> None:
    given: dict[str, Any] = {"exact_tokens": exact_tokens, "threads": 1}
    exact = MuveraIndex.build(documents, **given).search(queries, 5, candidates=300)
    index = MuveraIndex.build(documents, tokens={"codec": "2bit", "keep_exact": True}, **given)
    found = index.search(queries, 5, candidates=300)
    assert overlap(ids(found), ids(exact)) >= 0.99
    assert all(ranking.exact for ranking in found)
    scores = [dict(ranking) for ranking in exact]
    for ranking, known in zip(found, scores, strict=True):
        for name, score in ranking:
            assert known.get(name, score) == score
    everything = index.search(queries, 5, candidates=300, rescore=300)
    assert ids(everything) == ids(exact)
    np.testing.assert_array_equal(index.tokens(["d4"])[0], documents[4])
    assert index.info().token_codec["exact_bytes_per_token"] == 4 * DIMENSION


def test_scores_without_exact_tokens_are_those_of_decoded_tokens(
    documents: MultiVectors, queries: MultiVectors
) -> None:
    index = MuveraIndex.build(documents, tokens="2bit", threads=1)
    for query, ranking in zip(queries, index.search(queries, 3), strict=True):
        for name, score in ranking:
            assert index.explain(query, name).similarities.sum() == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("keep_exact", [False, True])
@pytest.mark.parametrize("staged", [False, True])
def test_it_is_saved_changed_and_rebuilt(
    documents: MultiVectors, queries: MultiVectors, tmp_path: Path, keep_exact: bool, staged: bool
) -> None:
    tokens: dict[str, Any] = {"codec": "2bit", "keep_exact": keep_exact}
    path = tmp_path / "index" if staged else None
    index = MuveraIndex.build(iter([documents[:200], documents[200:]]), tokens=tokens, threads=1, path=path)
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index", verify_files=True)
    assert ids(loaded.search(queries, 5)) == ids(index.search(queries, 5))
    more = texts(5, 20, first=1000)
    loaded.add(more, threads=1)
    loaded.delete(documents.ids[[7, 9]].tolist())
    loaded.save(tmp_path / "index")
    again = MuveraIndex.load(tmp_path / "index")
    before = again.search(queries, 5)
    assert ids(before) == ids(loaded.search(queries, 5))
    assert again.search(more[[4]], 1)[0].ids.tolist() == ["d1004"]
    again.rebuild(threads=1)
    after = again.search(queries, 5)
    assert ids(after) == ids(before)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)  # codes are moved, not made again
    again.save(tmp_path / "index")
    last = MuveraIndex.load(tmp_path / "index", verify_files=True)
    assert ids(last.search(queries, 5)) == ids(before) and len(last) == 318
    manifest = read_manifest(tmp_path / "index")
    assert bool(manifest["segments"]) == keep_exact and manifest["codes"]["codec"] == "residual"


def test_threads_change_no_answer(documents: MultiVectors, queries: MultiVectors) -> None:
    index = MuveraIndex.build(documents, tokens="2bit", threads=2)
    other = MuveraIndex.build(documents, tokens="2bit", threads=1)
    for one, two in zip(
        index.search(queries, 5, threads=2), other.search(queries, 5, threads=1), strict=True
    ):
        assert one.to_dict() == two.to_dict()
    alone = [index.search(query, 5, threads=2)[0].to_dict() for query in queries]
    assert alone == [one.to_dict() for one in index.search(queries, 5, threads=1)]


def test_an_index_that_grows_has_floats_until_a_codec_can_be_fitted(
    documents: MultiVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_levels.TokenLevels.fit_if_ready, "__defaults__", (500,))
    index = MuveraIndex.build(documents[:1], tokens="int8", threads=1)
    assert index.info().token_codec["fitted"]  # a build is complete, whatever its size
    grown = MuveraIndex(index.config, tokens="int8")
    fitted = []
    for start in range(0, 300, 50):
        grown.add(documents[start : start + 50], threads=1)
        fitted.append(grown.info().token_codec["fitted"])
    assert fitted[0] is False and fitted[-1] is True
    assert overlap(ids(grown.search(documents[2:20], 1)), [[name] for name in documents.ids[2:20]]) == 1


def test_floats_of_another_size(documents: MultiVectors, queries: MultiVectors) -> None:
    index = MuveraIndex.build(documents, tokens="float16", threads=1)
    assert index.get(["d0"])[0].tokens.dtype == np.float16
    assert index.info().token_codec["bytes_per_token"] == 2 * DIMENSION
    assert index.search(queries, 1)[0].exact
    wide = MultiVectors.from_arrays([np.array([[1, 7e4]], np.float32)], ids=["big"])
    with pytest.raises(ValueError, match=r"documents\[0\] \(id 'big'\) has a number above 65504"):
        MuveraIndex.build(wide, tokens="float16")


def test_wrong_settings(documents: MultiVectors, queries: MultiVectors) -> None:
    floats = MuveraIndex.build(documents[:20])
    codes = MuveraIndex.build(documents[:20], tokens="4bit")
    both = MuveraIndex.build(documents[:20], tokens={"codec": "4bit", "keep_exact": True})
    with pytest.raises(ValueError, match="rescore=20 is for codes, but this index ranks every candidate"):
        floats.search(queries, 5, rescore=20)
    with pytest.raises(
        ValueError, match=r"rescore=20 needs exact tokens, but this index keeps codes \(4bit\) alone"
    ):
        codes.search(queries, 5, rescore=20)
    with pytest.raises(ValueError, match="rescore=3 must be at least k=5"):
        both.search(queries, 5, rescore=3)
    with pytest.raises(ValueError, match="candidates=7 must be at least k=9"):
        both.search(queries, 9, candidates=7)
    with pytest.raises(ValueError, match="tokens must be one of as_given, float32, float16, int8, 4bit"):
        MuveraIndex.build(documents, tokens="3bit")
    with pytest.raises(TypeError, match="tokens must be a codec's name, TokenSettings or a dict, got int 2"):
        MuveraIndex.build(documents, tokens=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tokens has no 'bits'\. It has: codec, keep_exact"):
        MuveraIndex.build(documents, tokens={"bits": 2})
    with pytest.raises(
        ValueError, match=r"tokens='float16' makes no codes\. Choose one of int8, 4bit, 2bit, 1bit"
    ):
        MuveraIndex.build(documents, tokens={"codec": "float16", "keep_exact": True})
    with pytest.raises(TypeError, match="keep_exact must be a bool, got int 1"):
        MuveraIndex.build(documents, tokens={"codec": "int8", "keep_exact": 1})


def test_damaged_code_files(documents: MultiVectors, tmp_path: Path) -> None:
    MuveraIndex.build(documents, tokens="2bit", path=tmp_path / "index", threads=1)
    here = tmp_path / "index" / "generation-000001"
    names = [path.name for path in here.iterdir() if path.name.startswith(("codes-", "codec_"))]
    assert len(names) == 7
    for name in names:
        for damage in ("missing", "short", "changed"):
            copy = tmp_path / f"{damage}-{name}"
            shutil.copytree(tmp_path / "index", copy)
            file = copy / "generation-000001" / name
            content = file.read_bytes()
            if damage == "missing":
                file.unlink()
            else:
                file.write_bytes(
                    content[:-3] if damage == "short" else content[:-1] + bytes([content[-1] ^ 1])
                )
            with pytest.raises(IndexFolderError, match=name):
                MuveraIndex.load(copy, verify_files=True)
