"""PQSearch: floats until the codes are learned, codes from then on, through adding, removing and the disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import muvera.mips.product_quantizer as quantizer_module
from muvera.mips import ExactSearch, PQSearch, PQSettings, SavedState
from muvera.mips.product_quantizer import ProductQuantizer


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not depend on how good the codes are, and kernels may be interpreted."""
    monkeypatch.setattr(quantizer_module, "_ROUNDS", 1)


def vectors_of(seed: int, n: int, dimension: int = 24) -> np.ndarray:
    """Around ten topics, with empty cells, as FDEs have them."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(99).standard_normal((10, dimension))
    vectors = topics[rng.integers(0, 10, n)] + 0.5 * rng.standard_normal((n, dimension))
    vectors.reshape(n, -1, 8)[rng.random((n, dimension // 8)) < 0.2] = 0
    return vectors.astype(np.float32)


def learned(count: int = 400, **settings: Any) -> PQSearch:
    search = PQSearch(24, PQSettings(**settings))
    search.add(np.arange(count), vectors_of(0, count), threads=1)
    search.train(threads=1)
    return search


def assert_same(one: PQSearch, other: PQSearch) -> None:
    queries = vectors_of(5, 4)
    assert one.info() == other.info()
    for found, expected in zip(one.search(queries, len(one)), other.search(queries, len(other)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_vectors_are_exact_until_there_are_enough() -> None:
    search, exact = PQSearch(24, PQSettings(train_size=300)), ExactSearch(24)
    for one in (search, exact):
        one.add(np.arange(299), vectors_of(0, 299))
    for found, expected in zip(
        search.search(vectors_of(5, 3), 9), exact.search(vectors_of(5, 3), 9), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert search.info()["bytes_per_vector"] == exact.info()["bytes_per_vector"]
    assert search.ready_to_train and search.fitted_on == 0
    search.add(np.array([299]), vectors_of(1, 1))
    assert [search.ready_to_train, search.fitted_on] == [False, 300]
    assert search.info()["bytes_per_vector"] == 3 + 8 and search.info()["kind"] == "pq"
    assert search.labels().tolist() == list(range(300))


def test_fewer_than_centroids_are_not_learned_from() -> None:
    search = PQSearch(24)
    search.add(np.arange(255), vectors_of(0, 255))
    search.train()
    assert not search.ready_to_train and search.fitted_on == 0 and search.info()["kind"] == "pq"
    np.testing.assert_array_equal(search.vectors(np.arange(255)), vectors_of(0, 255))
    search.add(np.array([255]), vectors_of(1, 1))
    search.train()
    assert search.fitted_on == 256


def test_scores_are_products_with_what_the_codes_stand_for() -> None:
    search, queries = learned(), vectors_of(5, 6)
    found, scores = search.search(queries, 20)
    decoded = search.vectors(np.arange(400)).astype(np.float64)
    expected = queries.astype(np.float64) @ decoded.T
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :20], atol=1e-4)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, found, 1), atol=1e-4)


def test_later_vectors_are_coded_by_the_same_codebook() -> None:
    vectors = vectors_of(0, 400)
    quantizer = ProductQuantizer.train(vectors, 8, most=16384, seed=42)
    search = learned()
    new = vectors_of(3, 30)
    search.add(np.arange(400, 430), new, threads=2)
    both = np.concatenate([vectors, new])
    np.testing.assert_array_equal(search.vectors(np.arange(430)), quantizer.decode(quantizer.encode(both)))


def test_learning_does_not_depend_on_threads_or_on_steps() -> None:
    steps = PQSearch(24)
    for start in range(0, 400, 90):
        steps.add(np.arange(start, min(start + 90, 400)), vectors_of(0, 400)[start : start + 90])
    steps.train(threads=2)
    assert_same(learned(), steps)


@pytest.mark.parametrize("rescore", [0, 30])
def test_bits_do_not_depend_on_the_batch_or_on_threads(rescore: int) -> None:
    search, queries = learned(rescore=rescore), vectors_of(5, 5)
    found, scores = search.search(queries, 20, threads=1)
    for i in range(5):
        alone = search.search(queries[i : i + 1], 20, threads=2)
        np.testing.assert_array_equal(alone[0][0], found[i])
        np.testing.assert_array_equal(alone[1][0], scores[i])


def test_rescoring_orders_the_best_by_their_bytes() -> None:
    queries, vectors = vectors_of(5, 8), vectors_of(0, 400)
    exact = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]  # one query is zero

    def hits(search: PQSearch) -> float:
        found, _ = search.search(queries, 10)
        return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True)]))

    plain, rescored = learned(), learned(rescore=100)
    assert hits(rescored) >= 9.8 > hits(plain)  # bytes are off by a hundredth, codes by a third
    assert rescored.info()["bytes_per_vector"] == plain.info()["bytes_per_vector"] + 24 + 4
    steps = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert (np.abs(rescored.vectors(np.arange(400)) - vectors) <= 0.501 * steps).all()
    # No more are given than are asked for, and none is lost where more are asked for than rescored.
    assert (np.sort(rescored.search(queries, 400)[0], axis=1) == np.arange(400)).all()


def test_ties_go_to_the_earlier_vector() -> None:
    for rescore in (0, 7):
        search = PQSearch(8, PQSettings(rescore=rescore))
        search.add(np.arange(300)[::-1], np.ones((300, 8), np.float32))
        search.train()
        assert search.search(np.ones((1, 8), np.float32), 4)[0].tolist() == [[299, 298, 297, 296]]


@pytest.mark.parametrize("rescore", [0, 30])
@pytest.mark.parametrize("allowed", [[], [4], [1, 4, 4, 999, -3], list(range(0, 400, 3))])
def test_allowed_labels_alone_are_returned(rescore: int, allowed: list[int]) -> None:
    search, queries = learned(rescore=rescore), vectors_of(5, 3)
    present = sorted({label for label in allowed if 0 <= label < 400})
    found, scores = search.search(queries, 150, allowed=np.array(allowed, np.int64))
    everything, all_scores = search.search(queries, 400)
    for i, row in enumerate(found):
        wanted = [label for label in everything[i].tolist() if label in present]
        assert row.tolist() == wanted + [-1] * (150 - len(wanted))
        kept = np.isin(everything[i], present)
        np.testing.assert_array_equal(scores[i, : len(wanted)], all_scores[i, kept])


@pytest.mark.parametrize("rescore", [0, 30])
def test_removed_vectors_are_gone_and_the_others_keep_their_scores(rescore: int) -> None:
    search, queries = learned(rescore=rescore), vectors_of(5, 3)
    before, scores = search.search(queries, 400)
    gone = np.arange(0, 400, 7)
    search.remove(gone)
    found, kept = search.search(queries, len(search))
    for i in range(3):
        stays = ~np.isin(before[i], gone)
        assert found[i].tolist() == before[i][stays].tolist()
        np.testing.assert_array_equal(kept[i], scores[i][stays])
    assert search.existing(np.array([0, 1, 7, 8])).tolist() == [1, 8]
    assert search.can_add(gone) and not search.can_add(np.array([1]))
    with pytest.raises(KeyError, match="label 7 is not here"):
        search.remove(np.array([7]))
    search.remove(search.labels())
    search.add(np.arange(3), vectors_of(0, 3))
    assert len(search) == 3 and search.fitted_on == 400


def test_removing_before_the_learning() -> None:
    search = PQSearch(24)
    search.add(np.arange(400), vectors_of(0, 400))
    search.remove(np.arange(300))
    search.train()
    assert search.fitted_on == 0 and len(search) == 100


# -- keeping ------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"rescore": 30}, {"subvector_size": 5}, {"train_size": 300}])
def test_saved_and_loaded_is_the_same(settings: Any, tmp_path: Path) -> None:
    search = learned(**settings)
    search.remove(np.array([5, 9]))
    search.save(tmp_path)
    loaded = PQSearch.load(tmp_path, 24, SavedState(search.settings, search.fitted_on))
    assert_same(search, loaded)
    for one in (search, loaded):
        one.add(np.arange(400, 420), vectors_of(4, 20))
        one.remove(np.array([3, 410]))
    assert_same(search, loaded)


def test_floats_are_saved_where_nothing_is_learned(tmp_path: Path) -> None:
    search = PQSearch(24, PQSettings(train_size=300))
    search.add(np.arange(280), vectors_of(0, 280))
    search.save(tmp_path)
    loaded = PQSearch.load(tmp_path, 24, SavedState(search.settings))
    assert_same(search, loaded)
    for one in (search, loaded):
        one.add(np.arange(280, 300), vectors_of(1, 20))
    assert loaded.fitted_on == 300
    assert_same(search, loaded)


def test_load_refuses_what_does_not_fit(tmp_path: Path) -> None:
    search = learned(rescore=10)
    search.save(tmp_path)
    saved = SavedState(search.settings, 400)
    other = SavedState(PQSettings(rescore=10, subvector_size=4), 400)
    with pytest.raises(ValueError, match=r"vector_centroids\.npy does not fit: .* for dimension=40"):
        PQSearch.load(tmp_path, 40, saved)
    with pytest.raises(ValueError, match="has subvectors of 8 floats, but subvector_size=4 is wanted"):
        PQSearch.load(tmp_path, 24, other)
    for name in ("vector_codes.npy", "vector_bytes.npy", "vector_steps.npy", "vector_labels.npy"):
        whole = (tmp_path / name).read_bytes()
        np.save(tmp_path / name, np.load(tmp_path / name)[:-1])
        with pytest.raises(ValueError, match=r"must be (uint8|int8|float32) \((400|399)"):
            PQSearch.load(tmp_path, 24, saved)
        (tmp_path / name).write_bytes(whole[:-3])
        with pytest.raises(ValueError, match=r"is (truncated|not a .npy file)"):
            PQSearch.load(tmp_path, 24, saved)
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "vector_centroids.npy").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"vector_centroids\.npy is (truncated|not a .npy file)"):
        PQSearch.load(tmp_path, 24, saved)


# -- failing ------------------------------------------------------------------


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_add_whose_learning_fails_adds_nothing(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = PQSearch(24, PQSettings(train_size=300))
    search.add(np.arange(280), vectors_of(0, 280))

    def fails(*args: Any, **settings: Any) -> Any:
        raise error

    monkeypatch.setattr(ProductQuantizer, "train", fails)
    with pytest.raises(error):
        search.add(np.arange(280, 320), vectors_of(1, 40))
    monkeypatch.undo()
    assert search.labels().tolist() == list(range(280)) and search.fitted_on == 0
    search.add(np.arange(280, 320), vectors_of(1, 40))
    assert search.fitted_on == 300 and len(search) == 320


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subvector_size": 0}, "subvector_size must be between 1 and 64, got 0"),
        ({"subvector_size": 2.0}, "subvector_size must be an int, got float 2.0"),
        ({"subvector_size": 65}, "subvector_size must be between 1 and 64, got 65"),
        ({"rescore": -1}, "rescore must be at least 0, got -1"),
        ({"rescore": True}, "rescore must be an int, got bool True"),
        ({"train_size": 255}, "train_size must be between 256 and 100000, got 255"),
        ({"train_size": 100_001}, "train_size must be between 256 and 100000, got 100001"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        PQSettings(**settings)
