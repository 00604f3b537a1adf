"""First-stage recall: windows of documents measure it.

They warn of unsuitable added documents.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.fdes import changed
from builders.indexes import DOCUMENTS, QUERIES, WAYS, built, recall
from builders.kinds import CONFIG, DIMENSION, kind
from builders.realistic_collections import CONFIG as GOOD
from builders.realistic_collections import documents_like_real
from builders.text_encoders import HashEncoder

from muvera import FDEConfig, MultiVectors, MuveraIndex, TextIndex, top_k
from muvera.index import measuring as module
from muvera.index.calibration import FirstStage, MeasuredWindows
from muvera.index.generations import Destination
from muvera.index.measuring import document_windows, nearest, shares_found
from muvera.index.settings import IndexInfo
from muvera.utils.parallel import listening

#: An encoder with few floats and low recall.
POOR = changed(GOOD, num_repetitions=1, num_simhash_projections=1, projection_dimension=2, moments=None)


def recall_of(index: MuveraIndex, documents: MultiVectors, which: int) -> float:
    queries = [text[:4] + 0.1 for text in kind(which, 40, seed=9)]
    return recall(index.search(queries, 10, candidates=50), top_k(queries, documents, 10))


@pytest.mark.parametrize(("config", "backend"), [(GOOD, "exact"), (POOR, "hnsw")])
def test_measured_recall_is_what_searches_find(config: Any, backend: Any) -> None:
    index = built(encoder=config, backend=backend)
    measured = index.measure_recall([np.empty((0, 16), np.float32), *QUERIES], k=10, candidates=30)
    share = recall(index.search(QUERIES, 10, candidates=30), top_k(QUERIES, DOCUMENTS, 10))
    assert measured is not None and measured.recall == pytest.approx(share)
    assert (measured.k, measured.candidates, measured.queries, measured.pseudo_queries) == (10, 30, 10, False)
    assert index.measure_recall(QUERIES, candidates=None) == index.measure_recall(QUERIES)


LIKE_REAL = documents_like_real(400)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the index with low recall, `poor`."""
    return tmp_path_factory.mktemp("windows") / "poor"


@pytest.fixture(scope="module")
def good() -> IndexInfo:
    return MuveraIndex.build(LIKE_REAL, GOOD, **WAYS["hnsw"]).info()


@pytest.fixture(scope="module")
def poor(saved: Path) -> IndexInfo:
    return MuveraIndex.build(LIKE_REAL, POOR, path=saved, **WAYS["hnsw"]).info()


@pytest.mark.parametrize("which", ["good", "poor"])
def test_an_index_measures_its_first_stage(which: str, request: pytest.FixtureRequest) -> None:
    stage = request.getfixturevalue(which).first_stage
    assert stage is not None and stage.pseudo_queries
    assert (stage.k, stage.candidates, stage.queries) == (10, 100, 64)
    assert stage.documents == int((LIKE_REAL.lengths > 0).sum())


def test_only_low_recall_warns(good: IndexInfo, poor: IndexInfo) -> None:
    assert good.first_stage is not None and poor.first_stage is not None
    assert good.first_stage.recall > 0.9 > poor.first_stage.recall
    assert good.warnings == () and len(poor.warnings) == 1
    assert f"{poor.first_stage.recall:.0%}" in poor.warnings[0]


def test_measured_recall_is_stored(poor: IndexInfo, saved: Path) -> None:
    loaded = MuveraIndex.load(saved).info()
    assert loaded.first_stage == poor.first_stage and loaded.warnings == poor.warnings


def test_no_recall_where_all_documents_are_candidates() -> None:
    assert built(**WAYS["all tokens"]).info().first_stage is None
    assert built(**WAYS["all tokens"]).measure_recall(QUERIES) is None
    assert built(DOCUMENTS[:100]).info().first_stage is None


def test_measured_recall_does_not_depend_on_threads() -> None:
    one, two = (MuveraIndex.build(DOCUMENTS, GOOD, threads=count, **WAYS["exact"]).info() for count in (1, 2))
    assert one.first_stage == two.first_stage


def test_costly_windows_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PRODUCTS", 1)
    fewest = built().info().first_stage
    assert fewest is not None and fewest.queries == 16


def test_added_documents_that_find_as_much_do_not_warn() -> None:
    index = MuveraIndex.build(kind(0, 400), CONFIG, exact_tokens=0)
    assert index.info().added is None and not index.info().warnings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.add(kind(0, 120, seed=1))
    added = index.info().added
    assert added is not None and added.queries == 30 and added.documents == 520


def test_added_documents_that_find_less_warn_until_a_rebuild(tmp_path: Path) -> None:
    old, alike, new = kind(0, 400), kind(0, 120, seed=1), kind(1, 120)
    index = MuveraIndex.build(old, CONFIG, exact_tokens=0)
    index.add(alike)
    mixed = MultiVectors.concatenate([kind(0, 120, seed=2), new])
    with pytest.warns(UserWarning, match=r"added .*rebuild\(\)"):
        index.add(mixed)
    info = index.info()
    assert info.added is not None and info.first_stage is not None and info.first_stage.documents == 760
    assert info.added.recall < info.first_stage.recall < 1 and len(info.warnings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        index.update(new[:5])
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    assert loaded.info().added == index.info().added and loaded.info().warnings == index.info().warnings
    everything = MultiVectors.concatenate([old, alike, mixed])
    before = recall_of(loaded, everything, 1)
    loaded.rebuild()
    assert loaded.info().added is None and not loaded.info().warnings
    assert recall_of(loaded, everything, 1) > max(before + 0.02, 0.75)


def test_a_warning_that_is_an_error_abandons_the_change(tmp_path: Path) -> None:
    index = MuveraIndex.build(kind(0, 400), CONFIG, exact_tokens=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"added .*rebuild\(\)"):
            index.add(kind(1, 120))
        with pytest.raises(UserWarning, match="added"), index.change() as change:
            change.add(kind(1, 120))
            change.save(Destination(tmp_path / "index"))
    assert len(index) == 400 and index.info().added is None and not (tmp_path / "index").exists()
    with pytest.warns(UserWarning, match="added") as caught:
        index.add(kind(1, 120))
    assert [warning.filename for warning in caught] == [__file__] and len(index) == 520


def test_a_warning_that_is_an_error_changes_no_texts(tmp_path: Path) -> None:
    def texts(word: str, count: int) -> list[str]:
        return [f"{word}{i % 20} {word}{i % 7} {word}{i % 11}" for i in range(count)]

    encoder = HashEncoder(DIMENSION)
    TextIndex.build(texts("old", 400), encoder, vectors=CONFIG, exact_tokens=0, path=tmp_path / "index")
    with TextIndex.open(tmp_path / "index", encoder) as index:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="added"):
                index.add(texts("new", 120))
        assert len(index) == 400 == len(TextIndex.load(tmp_path / "index", encoder))
        with pytest.warns(UserWarning, match="added") as caught:
            index.add(texts("new", 120))
        assert [warning.filename for warning in caught] == [__file__]


def test_recall_follows_what_is_in_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    config = FDEConfig.preset("simhash", DIMENSION)
    index = MuveraIndex.build(
        kind(0, 200), config, exact_tokens=0, backend="exact"
    )  # a scan is measured again
    measured = index.info().first_stage
    assert measured is not None and (measured.queries, measured.documents) == (64, 200)
    index.add(kind(1, 10))
    assert index.info().first_stage == measured  # too few to measure
    index.add(kind(1, 20, seed=1))
    first, added = index.info().first_stage, index.info().added
    assert first is not None and added is not None
    assert (first.documents, added.queries) == (230, 17)  # in proportion to what was added
    index.delete([f"1-{seed}-{i}" for seed, count in ((0, 10), (1, 20)) for i in range(count)])
    after = index.info().first_stage
    assert after is not None and after.recall == measured.recall and index.info().added is None
    monkeypatch.setattr(module, "MAX_TOKENS", 600)
    index.add(kind(1, 200, seed=2))  # more than doubles the index: all is measured again, in part
    large = index.info().first_stage
    assert large is not None and 100 < large.documents < len(index) and large.queries > 30


def measured(old: float, new: float) -> MeasuredWindows:
    """Return the shares that windows found, of 100 documents.

    There are 30 old documents with windows, and 20 new ones.
    """
    rows = np.arange(0, 100, 2)
    return MeasuredWindows(rows, np.where(rows < 60, old, new), 100, 100, 100)


@pytest.mark.parametrize(
    ("old", "new", "first_new", "warns"),
    [
        pytest.param(0.95, 0.7, 60, True, id="much less"),
        pytest.param(0.8, 0.76, 60, False, id="no clear difference"),
        pytest.param(1.0, 0.96, 60, False, id="enough"),
        pytest.param(0.95, 0.2, 90, False, id="five windows are too few"),
    ],
)
def test_warnings_need_a_clear_difference(old: float, new: float, first_new: int, warns: bool) -> None:
    assert (measured(old, new).first_stage(np.arange(100), first_new).warning is not None) == warns


def test_measured_windows_of_old_and_new_documents() -> None:
    both, added, _ = measured(0.9, 0.4).first_stage(np.arange(100), 60)
    assert both is not None and added is not None
    assert both.recall == pytest.approx(0.7) and added.recall == pytest.approx(0.4)
    assert measured(0.9, 0.4).first_stage(np.arange(0), 60) == FirstStage()


def test_stored_windows_are_read_and_checked() -> None:
    windows = measured(0.9, 0.4)
    values, live = windows.to_dict(), np.arange(100)
    read = MeasuredWindows.from_dict(values, 100)
    assert read.first_stage(live, 60)[:2] == windows.first_stage(live, 60)[:2]
    with pytest.raises(ValueError, match="one share from 0 to 1, got"):
        MeasuredWindows.from_dict({**values, "shares": values["shares"][1:]}, 100)


def test_windows_and_their_exact_best() -> None:
    documents = kind(0, 120)
    index = MuveraIndex.build(documents, FDEConfig(DIMENSION), exact_tokens=0)
    index.delete(documents.ids[:20])
    queries, sources = document_windows(index.contents, 30)
    again, _ = document_windows(index.contents, 30)
    assert len(queries) == len(np.unique(sources)) == 30 and sources.min() >= 20
    assert np.array_equal(queries.tokens, again.tokens)
    best = []
    for window, source in zip(queries, sources, strict=True):
        rest = np.setdiff1d(np.arange(20, 120), source)
        texts = MultiVectors.from_arrays([documents[i] for i in rest])
        best.append(rest[top_k([window], texts, 5)[0].ids])
    for count in (5, 3):
        proposed = [(rows[:count], np.empty(0, np.float32)) for rows in best]
        shares = shares_found(index.contents, queries, proposed, 5, sources)
        np.testing.assert_allclose(shares, count / 5)


def test_documents_that_tie_with_the_exact_best_count_as_found() -> None:
    """Ten copies of each of 30 documents: any three copies are the three exact best."""
    originals = kind(0, 30)
    copies = MultiVectors.from_flat(np.tile(originals.tokens, (10, 1)), np.tile(originals.lengths, 10))
    index = MuveraIndex.build(copies, FDEConfig(DIMENSION), exact_tokens=0)
    queries, nothing = originals[:5], np.empty(0, np.float32)
    proposed = [(q + 30 * np.arange(7, 10), nothing) for q in range(5)]
    np.testing.assert_array_equal(shares_found(index.contents, queries, proposed, 3), 1)
    # A document that is no copy replaces none of them.
    mixed = [(np.append(rows[:2], (q + 1) % 30), nothing) for q, (rows, _) in enumerate(proposed)]
    np.testing.assert_allclose(shares_found(index.contents, queries, mixed, 3), 2 / 3)


def test_an_index_of_equal_documents_is_calibrated() -> None:
    """A graph proposes other copies than an exact search returns."""
    pytest.importorskip("hnswlib", reason="hnswlib is not installed")
    one = np.asarray(kind(0, 1).tokens)
    copies = MultiVectors.from_flat(np.tile(one, (4500, 1)), np.full(4500, len(one)))
    index = MuveraIndex.build(copies, "mean", exact_tokens=0, backend="hnsw")
    assert index.search([one], 3, recall=0.9)[0].expected_recall == pytest.approx(1)


def test_a_build_names_its_stages_and_fits_the_default() -> None:
    documents, stages = kind(0, 300), list[str]()
    with listening(stages.append):
        index = MuveraIndex.build(documents, exact_tokens=0)
    assert "measuring recall 100%" in stages
    begun = [name for name in stages if not name or name.endswith(" 0%")]
    steps = ["learning the landmarks", "learning the projection", "making vectors"]
    steps += ["measuring recall", "calibrating"]
    assert begun[::2] == [f"{name} 0%" for name in steps] and not any(begun[1::2])
    assert index.config == FDEConfig(DIMENSION)
    first = index.info().first_stage
    assert first is not None and first.recall > 0.9 and not index.info().warnings


def test_an_addition_fits_the_default_if_there_were_too_few_documents(tmp_path: Path) -> None:
    documents = kind(0, 300)
    waiting = MuveraIndex(CONFIG, exact_tokens=0)
    waiting.add(documents[:255])
    assert waiting.encoder is None and "too few documents" in waiting.info().warnings[0]
    waiting.save(tmp_path / "waiting")
    loaded = MuveraIndex.load(tmp_path / "waiting")
    loaded.add(documents[255:])
    assert loaded.encoder is not None and loaded.info().search == "exact" and not loaded.info().warnings
    loaded.save(tmp_path / "waiting")
    assert MuveraIndex.load(tmp_path / "waiting").info() == loaded.info()


def test_windows_have_as_many_candidates_as_queries() -> None:
    """One more is found in place of the window's document."""
    index = built()
    windows, sources = document_windows(index.contents, 12)
    found = nearest(index.contents, windows, 30, sources)
    assert [len(rows) for rows, _ in found] == [30] * len(windows)
    assert all(source not in rows for (rows, _), source in zip(found, sources, strict=True))


def test_ranks_are_the_places_of_the_exact_best_in_their_order() -> None:
    index = built(backend="exact", encoder=POOR)
    ranks = module._ranks_of_best(index.contents, QUERIES, None, 1).ranks
    candidates = nearest(index.contents, QUERIES, ranks.shape[1])
    for own, (rows, _), exact in zip(ranks, candidates, top_k(QUERIES, DOCUMENTS, 30), strict=True):
        assert own[:30].tolist() == [rows.tolist().index(document) for document in exact.ids.tolist()]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_share_of_the_documents_leads_to_the_numbers_of_all(share: float) -> None:
    """Each exact best document has two others before it among the candidates."""
    ranks = 3 * np.arange(1000)[np.newaxis] + 2
    whole, part = (dict(module._Reached(ranks, one).numbers((100, 1000))) for one in (1.0, share))
    assert part.keys() == whole.keys() == {100, 1000}
    for k, count in whole.items():
        assert count * (1 - 1e-9) <= part[k] <= count + 3 / share
