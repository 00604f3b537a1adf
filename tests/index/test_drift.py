"""Documents that the encoder was not fitted on calibrate, warn, and stay known."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.indexes import recall
from builders.kinds import CONFIG, DIMENSION, kind
from builders.text_encoders import HashEncoder

from muvera import FDEConfig, MultiVectors, MuveraIndex, TextIndex, top_k
from muvera.fde.learned_projection import sample_windows, window_similarities
from muvera.index import change as steps
from muvera.index import measuring
from muvera.index.calibration import Calibration, Level, QueryGroup
from muvera.index.candidates import CandidateSearch

OLD = kind(0, 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an index of OLD."""
    path = tmp_path_factory.mktemp("drift") / "index"
    MuveraIndex.build(OLD, CONFIG, exact_tokens=0, path=path)
    return path


@pytest.fixture
def index(folder: Path) -> MuveraIndex:
    return MuveraIndex.load(folder)


def searched(index: MuveraIndex) -> CandidateSearch:
    candidates = index.contents.candidates
    assert candidates is not None
    return candidates


def calibrated_with(documents: MultiVectors, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, MuveraIndex]:
    """Return the encoder and the rows of a build's calibration, and the index."""
    calls = []

    def record(contents: Any, unseen: Any, threads: Any, depth: Any = None) -> Any:
        calls.append((contents.candidates.encoder, unseen))
        return measuring.calibrate_on_windows(contents, unseen, threads, depth)

    monkeypatch.setattr(steps, "calibrate_on_windows", record)
    index = MuveraIndex.build(documents, CONFIG, exact_tokens=0)
    return *calls[0], index


def test_windows_that_the_fit_left_out_calibrate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build fits once, on all documents, but to no windows that calibrate."""
    cut: list[MultiVectors] = []
    fitted: list[MultiVectors] = []

    def sample(documents: MultiVectors, *rest: Any) -> MultiVectors:
        cut.append(documents)
        return sample_windows(documents, *rest)

    def similarities(windows: MultiVectors, documents: MultiVectors, *rest: Any) -> Any:
        fitted.append(documents)
        return window_similarities(windows, documents, *rest)

    monkeypatch.setattr("muvera.fde.learned_projection.sample_windows", sample)
    monkeypatch.setattr("muvera.fde.learned_projection.window_similarities", similarities)
    encoder, left_out, index = calibrated_with(OLD, monkeypatch)
    assert len(left_out) == 50 and encoder is index.encoder  # an eighth
    (sampled,), (documents,) = cut, fitted
    assert len(sampled) == 350 and len(documents) == 400
    others = {OLD[int(row)].tobytes() for row in left_out}
    assert others.isdisjoint(text.tobytes() for text in sampled)
    assert {text.tobytes() for text in documents} == {text.tobytes() for text in OLD}


def test_a_large_index_leaves_out_fewer_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, left_out, index = calibrated_with(kind(0, 2048), monkeypatch)
    assert len(left_out) == 64 and encoder is index.encoder  # one document in 32
    assert searched(index).fitted_on == 2048


def test_windows_of_seen_documents_would_promise_too_much(index: MuveraIndex) -> None:
    left_out = searched(index).calibration
    seen = measuring.calibrate_on_windows(index.contents, np.arange(len(OLD)), None)
    assert left_out is not None and seen is not None
    assert left_out.number(0.98) > seen.number(0.98)


def test_added_documents_calibrate_a_second_time(index: MuveraIndex, tmp_path: Path) -> None:
    first = searched(index).calibration
    assert searched(index).added_calibration is None
    index.add(kind(0, 60, seed=1))
    added = searched(index).added_calibration
    assert added is not None and (added.documents, added.queries) == (460, 240)
    assert searched(index).calibration == first
    index.save(tmp_path / "index")
    assert searched(MuveraIndex.load(tmp_path / "index")).added_calibration == added


def test_the_dial_ranks_more_after_foreign_documents_were_added(index: MuveraIndex) -> None:
    queries = [text[:4] + 0.1 for text in kind(1, 40, seed=9)]
    new = kind(1, 120)
    with pytest.warns(UserWarning, match="added"):
        index.add(new)
    best = top_k(queries, MultiVectors.concatenate([OLD, new]), 10)
    found = index.search(queries, 10, recall=0.95)
    without = MuveraIndex.of(index.contents)
    with without.change() as change:
        change._set_candidates(replace(searched(index), added_calibration=None))
    before = recall(without.search(queries, 10, recall=0.95), best)
    assert recall(found, best) > before + 0.05
    assert index.candidates_by_recall[0.95] > without.candidates_by_recall[0.95]


def test_no_recall_is_expected_of_queries_that_nothing_measured(index: MuveraIndex) -> None:
    """Too few documents were added for a calibration."""
    new = kind(0, 20, seed=1)
    index.add(new)
    known = [ranking.expected_recall for ranking in index.search(list(OLD[:9]), 1, recall=0.9)]
    unknown = [ranking.expected_recall for ranking in index.search(list(new[:9]), 1, recall=0.9)]
    assert None not in known and unknown == [None] * 9


@pytest.mark.parametrize("count", [5, 20])
def test_no_recall_is_expected_of_queries_about_a_few_foreign_documents(
    index: MuveraIndex, count: int
) -> None:
    """Fewer than ten of them are never most of the ten best."""
    added = kind(1, count)
    index.add(added)
    new = set(added.ids.tolist())
    found = index.search(list(added), 10, recall=0.95)
    first = [ranking for ranking in found if ranking.ids[0] in new]
    assert first
    assert [ranking.expected_recall for ranking in first] == [None] * len(first)
    known = index.search([text[:4] for text in OLD[:9]], 10, recall=0.95)
    assert None not in [ranking.expected_recall for ranking in known]


def test_one_rebuild_fits_again_on_documents_that_were_too_few_to_be_measured(index: MuveraIndex) -> None:
    index.add(kind(1, 20))
    before = index.encoder
    assert index.contents.drift_warning is None  # not measured
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.rebuild()
    assert index.encoder is not before and index.contents.drift_warning is None
    assert searched(index).fitted_on == len(OLD) + 20


def calibration(failed: int, **changes: Any) -> Calibration:
    facts: dict[str, Any] = {
        "documents": 500,
        "queries": 128,
        "pseudo_queries": True,
        "tokens": "floats",
        "depth": 30,
    }
    group = QueryGroup(0, 1.0, 1.0, (Level(1.0, 30, 32, 0.0, 1.0, 1.0),))
    return Calibration((group,), failed=failed, **(facts | changes))


@pytest.mark.parametrize(
    ("own", "added", "warns"),
    [
        pytest.param(calibration(0), calibration(4), True, id="four, no others"),
        pytest.param(calibration(0), calibration(3), False, id="three may be chance"),
        pytest.param(calibration(1), calibration(5), False, id="others fail, too"),
        pytest.param(calibration(0), calibration(9, depth=40), False, id="another depth"),
        pytest.param(calibration(0, pseudo_queries=False), calibration(9), False, id="real queries"),
        pytest.param(calibration(0, queries=64), calibration(5), False, id="twice as many windows"),
    ],
)
def test_a_minority_warns_if_its_windows_fail(own: Calibration, added: Calibration, warns: bool) -> None:
    assert (own.warning(added) is not None) == warns


def test_a_minority_of_foreign_documents_is_noticed() -> None:
    index = MuveraIndex.build(kind(0, 700), CONFIG, exact_tokens=0)
    own = [kind(0, 170, seed=seed) for seed in (1, 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.add(own[0])
    with pytest.warns(UserWarning, match=r"added .* of another kind.*rebuild\(\)"):
        index.add(MultiVectors.concatenate([own[1], kind(1, 30)]))


def test_a_rebuild_without_a_fit_keeps_what_the_encoder_was_fitted_on(index: MuveraIndex) -> None:
    index.add(kind(0, 100, seed=1))
    before = searched(index)
    index.delete(OLD.ids[:10])
    index.rebuild()
    after = searched(index)
    assert (after.fitted_on, after.fitted_rows) == (400, 390)
    assert after.encoder is before.encoder and after.calibration == before.calibration
    assert index.info().added is not None


def test_later_documents_are_still_noticed_after_a_rebuild(index: MuveraIndex) -> None:
    index.add(kind(0, 100, seed=1))
    index.rebuild()
    with pytest.warns(UserWarning, match="added"):
        index.add(kind(1, 120))


def test_rebuild_fits_on_request(index: MuveraIndex) -> None:
    index.add(kind(0, 100, seed=1))
    assert not index.info().warnings
    before = index.encoder
    index.rebuild(fit=True)
    assert index.encoder is not before and searched(index).fitted_on == 500
    assert searched(index).added_calibration is None and index.info().added is None


def test_texts_are_fitted_again_on_request() -> None:
    texts = [f"old{i % 20} old{i % 7} old{i % 11}" for i in range(300)]
    index = TextIndex.build(texts, HashEncoder(DIMENSION), vectors=CONFIG, exact_tokens=0)
    before = index.index.encoder
    index.rebuild()
    assert index.index.encoder is before
    index.rebuild(fit=True)
    assert index.index.encoder is not before


def test_a_mean_that_few_windows_leave_open_is_measured_again(
    index: MuveraIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = index.contents.searchable[1]
    monkeypatch.setattr(measuring, "_PRODUCTS", 20 * 32 * tokens * index.config.dimension)
    counts = []
    for interval in (1.0, -1.0):
        monkeypatch.setattr(measuring, "_INTERVAL", interval)
        unmeasured = replace(index.contents, candidates=replace(searched(index), windows=None))
        windows = measuring.measured_windows(unmeasured, None)
        assert windows is not None
        counts.append(len(windows.shares))
    assert counts == [20, 64]


def test_simhash_has_no_second_calibration() -> None:
    """It hardly depends on its sample, so no document is foreign to it."""
    index = MuveraIndex.build(kind(0, 200), FDEConfig.preset("simhash", OLD.dimension), exact_tokens=0)
    index.add(kind(1, 100))
    assert searched(index).added_calibration is None and not index.info().warnings
