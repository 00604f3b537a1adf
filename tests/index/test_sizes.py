"""What an index chooses by its size and its measured recall: encoder and candidates."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders.indexes import batches
from builders.realistic_collections import documents_like_real, queries_like_real
from hypothesis import given
from hypothesis import strategies as st

from muvera import FDEConfig, Landmarks, LearnedProjection, MeanToken, MuveraIndex
from muvera.data.batches import DocumentsLike
from muvera.fde import config as sizes
from muvera.fde.config import Size
from muvera.index import change
from muvera.index.calibration import Calibration, Level, QueryGroup

DOCUMENTS = documents_like_real(700)
QUERIES = queries_like_real(DOCUMENTS, 20)

SHORT = LearnedProjection(24)


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The second size is for 500 documents; the third one, only for a low recall."""
    rows = (
        Size(0, 0, Landmarks(32), projection=SHORT),
        Size(500, 0, Landmarks(32), MeanToken(), SHORT),
        Size(None, 0, Landmarks(64), MeanToken(), SHORT),
    )
    monkeypatch.setattr(sizes, "SIZES", rows)
    yield


def first() -> FDEConfig:
    return FDEConfig(DOCUMENTS.dimension, cells=Landmarks(32), projection=SHORT)


def moments_and_landmarks(index: MuveraIndex) -> tuple[str | None, int]:
    assert index.encoder is not None and index.encoder.config == index.config
    values = index.config.to_dict()
    return values["moments"], values["num_landmarks"]


def built(documents: DocumentsLike, path: Path | None = None) -> MuveraIndex:
    return MuveraIndex.build(documents, first(), exact_tokens=0, path=path)


def test_an_encoder_is_fitted_for_the_number_of_documents() -> None:
    assert moments_and_landmarks(built(DOCUMENTS[:400])) == ("covariance", 32)
    assert moments_and_landmarks(built(DOCUMENTS)) == ("mean", 32)


def test_another_encoder_is_kept() -> None:
    other = FDEConfig(DOCUMENTS.dimension, cells=Landmarks(48), projection=SHORT)
    assert MuveraIndex.build(DOCUMENTS, other, exact_tokens=0).config == other


def test_a_stream_is_encoded_for_its_last_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(change, "MAX_FIT_DOCUMENTS", 300)  # it fits before it knows the size
    index = built(batches(DOCUMENTS, 100), tmp_path / "index")
    assert moments_and_landmarks(MuveraIndex.load(tmp_path / "index")) == ("mean", 32)
    whole = built(DOCUMENTS)
    for query in QUERIES:
        assert index.search([query])[0].ids.tolist() == whole.search([query])[0].ids.tolist()


def test_a_rebuild_takes_the_size_of_the_documents() -> None:
    index = built(DOCUMENTS[:400])
    index.add(DOCUMENTS[400:])
    assert moments_and_landmarks(index) == ("covariance", 32)
    index.rebuild()
    assert moments_and_landmarks(index) == ("mean", 32)


def test_a_rebuild_keeps_an_encoder_that_was_fitted_elsewhere() -> None:
    encoder = built(DOCUMENTS[:400]).encoder
    index = MuveraIndex.build(DOCUMENTS, encoder, exact_tokens=0)
    index.rebuild()
    assert index.encoder is encoder


@pytest.mark.parametrize(("gain", "expected"), [(-1.0, ("mean", 64)), (2.0, ("covariance", 32))])
def test_a_low_recall_tries_larger_encoders(
    monkeypatch: pytest.MonkeyPatch, gain: float, expected: tuple[str, int]
) -> None:
    monkeypatch.setattr(change, "LOW_RECALL", 1.1)
    monkeypatch.setattr(change, "_GAIN", gain)  # all larger ones are better, or none
    index = built(DOCUMENTS[:400])
    assert moments_and_landmarks(index) == expected
    assert index.info().first_stage is not None and index.search(QUERIES)[0].ids.size == 10


def test_searches_rank_as_many_candidates_as_a_mean_recall_needs() -> None:
    index = MuveraIndex.build(DOCUMENTS, "mean", exact_tokens=0)
    calibration = index.contents.candidates.calibration  # type: ignore[union-attr]
    assert calibration is not None
    for k in (10, 100):
        count = max(100, calibration.enough(k))
        default = index.search(QUERIES, k)
        ranked = index.search(QUERIES, k, candidates=count)
        assert [ranking.ids.tolist() for ranking in default] == [ranking.ids.tolist() for ranking in ranked]
    assert index.info().candidates == max(100, calibration.enough(10))


def test_many_results_are_found_with_the_mean_recall() -> None:
    """The mean over 20 queries of 100 documents deviates by .03 at most."""
    index = MuveraIndex.build(DOCUMENTS, "mean", exact_tokens=0)
    exact = index.search(QUERIES, 100, candidates=len(DOCUMENTS))
    found = index.search(QUERIES, 100)
    shares = [np.isin(own.ids, other.ids).mean() for own, other in zip(exact, found, strict=True)]
    assert np.mean(shares) >= 0.95 - 0.03


@given(st.lists(st.integers(1, 2000), min_size=3, max_size=3), st.integers(1, 20_000))
def test_more_results_need_more_candidates(counts: list[int], k: int) -> None:
    ten, hundred, thousand = np.maximum(np.cumsum(counts), [10, 100, 1000]).tolist()
    level = Level(0.95, ten, ten, 0.0, 0.95, 0.95)
    deep = ((100, hundred), (1000, thousand))
    group = QueryGroup(0, 1.0, 1.0, (level,))
    calibration = Calibration((group,), 10**6, 64, True, "floats", deep=deep)
    assert [calibration.enough(each) for each in (10, 100, 1000)] == [ten, hundred, thousand]
    # Beyond the measured numbers, candidates grow with the documents to return.
    assert calibration.enough(3000) == 3 * thousand
    assert k <= calibration.enough(k) <= calibration.enough(k + 1)
    assert Calibration.from_dict(calibration.to_dict()) == calibration
