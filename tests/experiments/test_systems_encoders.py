"""Encoders fitted on a share of the documents, tuned, in two parts, and exact ranking alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.small_search_space import use_small_encoders
from builders.system_inputs import exact_scores, material, some_documents, unit_texts

from experiments.systems.base import NotApplicableError
from experiments.systems.encoder_settings import fit_sample
from experiments.systems.registry import SYSTEMS
from muvera import FDEConfig, FDEEncoder, MultiVectors
from muvera.mips.exact import bytes_in_memory
from muvera.tuning.search_space import STORAGES

SMALL = {"num_repetitions": 4, "num_simhash_projections": 2, "projection_dimension": 4}
QUERIES = unit_texts(50, [4, 1, 9, 20])


def built(name: str, documents: MultiVectors, folder: Path, **build: Any) -> Any:
    system: Any = SYSTEMS[name](**build)
    system.build(material(documents, folder))
    return system


def test_a_sample_is_seeded_and_of_the_size_that_was_asked_for() -> None:
    sample = fit_sample(100, 0.25, 3)
    assert sample is not None and len(sample) == 25 and (np.diff(sample) > 0).all()
    np.testing.assert_array_equal(sample, fit_sample(100, 0.25, 3))
    assert fit_sample(100, None, 3) is None
    with pytest.raises(ValueError, match=r"share of the documents above 0 and below 1, got 1\.5"):
        fit_sample(100, 1.5, 3)


@pytest.mark.compiled("encodes documents")
def test_an_encoder_is_fitted_on_the_share_that_it_names(tmp_path: Path) -> None:
    documents = some_documents(0, 40)
    system = built("fde", documents, tmp_path, fit_on=0.5, **SMALL)
    sample = system.fitted_on()
    assert len(sample) == 20
    config: dict[str, Any] = {"dimension": 16, "seed": 7, **SMALL}
    encoder = FDEEncoder(FDEConfig(**config)).fit(documents[sample])
    scores = encoder.encode_queries(QUERIES) @ encoder.encode_documents(documents).T
    answers = system.search(QUERIES, 5)
    np.testing.assert_array_equal(answers.ids, np.argsort(-scores, axis=1, kind="stable")[:, :5])
    assert built("fde", documents, tmp_path, **SMALL).fitted_on() is None
    assert "fit_seconds" not in system.facts()


@pytest.mark.compiled("encodes documents")
def test_learned_maps_say_what_they_cost(tmp_path: Path) -> None:
    documents = some_documents(0, 300)
    facts = built("fde", documents, tmp_path, compact_dimension=8, **SMALL).facts()
    assert facts["vector_dimension"] == 8
    assert facts["fit_seconds"] > 0 and facts["encode_ms_per_document"] > 0


@pytest.mark.compiled("encodes documents")
def test_coefficients_can_stay_uncalibrated(tmp_path: Path) -> None:
    documents = some_documents(0, 40)
    found = [built("fde", documents, tmp_path, calibrated=value, **SMALL) for value in (True, False)]
    scores = [system.search(QUERIES, 5).scores for system in found]
    assert not np.allclose(*scores)
    with pytest.raises(ValueError, match=r"calibrated=False needs an FDE with split_mean=True"):
        built("fde", documents, tmp_path, preset="mean", calibrated=False)


@pytest.mark.compiled("encodes documents")
def test_the_mean_is_an_encoder_of_the_experiments(tmp_path: Path) -> None:
    documents = some_documents(0, 40)
    facts = built("fde", documents, tmp_path, preset="covariance").facts()
    assert facts["vector_dimension"] == 16 * 17 // 2 + 17


def test_queries_to_fit_on_must_be_set_aside(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="give the experiment training_queries"):
        built("fde", some_documents(0, 10), tmp_path, fit_with_queries=True, **SMALL)


@pytest.mark.compiled("encodes documents")
def test_maps_are_fitted_on_training_queries_too(tmp_path: Path) -> None:
    documents = some_documents(0, 300)
    given = material(documents, tmp_path)
    object.__setattr__(given, "training_queries", some_documents(9, 60))
    found = []
    for fit_with_queries in (False, True):
        system: Any = SYSTEMS["fde"](compact_dimension=8, fit_with_queries=fit_with_queries, **SMALL)  # type: ignore[call-arg]
        system.build(given)
        found.append(system.search(QUERIES, 20).scores)
    assert not np.array_equal(*found)


@pytest.mark.compiled("ranks candidates")
def test_every_way_of_ranking_gives_exact_chamfer_and_counts_its_products(tmp_path: Path) -> None:
    documents = some_documents(0, 80)
    system = built("reranking", documents, tmp_path, **SMALL)
    exact = exact_scores(QUERIES, documents)
    for query in ({"early_exit": False}, {"matrix": True}, {}):
        answers = system.search(QUERIES, 5, candidates=80, **query)
        np.testing.assert_array_equal(answers.ids, np.argsort(-exact, axis=1)[:, :5])
        made = answers.facts["products made"]
        assert made.shape == (len(QUERIES),)
        assert (made == 1).all() if query else (made <= 1).all()
    hasty = system.search(QUERIES, 5, candidates=80, patience=10)
    assert (hasty.facts["products made"] < 1).all()
    np.testing.assert_allclose(hasty.scores, np.take_along_axis(exact, hasty.ids, axis=1), rtol=1e-5)


@pytest.mark.compiled("fits maps")
def test_two_parts_stand_side_by_side_and_are_weighted(tmp_path: Path) -> None:
    documents = some_documents(0, 300)
    costs = {"num_landmarks": 256, "num_features": 128}
    both = built("two_parts", documents, tmp_path, compact=16, learned=32, fit_on=0.9, **costs)
    assert both.facts()["vector_dimension"] == 48
    alone = built("two_parts", documents, tmp_path, learned=32, fit_on=0.9, **costs)
    plain = built("fde", documents, tmp_path, encoder="learned", vector_dimension=32, fit_on=0.9, **costs)
    k = len(documents)
    found = [one.search(QUERIES, k) for one in (alone, plain)]
    np.testing.assert_array_equal(found[0].ids[:, 0], found[1].ids[:, 0])  # a weight changes no order
    exact = exact_scores(QUERIES, documents)
    in_order = np.take_along_axis(exact, both.search(QUERIES, k).ids, axis=1)
    assert np.corrcoef(np.tile(np.arange(k), len(QUERIES)), in_order.ravel())[0, 1] < -0.2


@pytest.mark.parametrize("build", [{}, {"compact": -1, "learned": 2}])
def test_two_parts_need_a_float(build: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must give at least one float together"):
        SYSTEMS["two_parts"](**build)


@pytest.mark.compiled("tunes on hundreds of documents")
def test_what_is_tuned_fits_in_the_bytes_and_is_tuned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_encoders(monkeypatch)
    documents = some_documents(0, 300)
    given = material(documents, tmp_path)
    found = []
    for preset in ("weaviate", "learned"):
        system: Any = SYSTEMS["tuned"](in_bytes_of=preset, sample=200, candidates=20)  # type: ignore[call-arg]
        system.build(given)
        found.append((system.facts(), system.bytes_per_document()))
    assert len(given.shared) == 1
    (_, most), (_, least) = found
    assert most <= bytes_in_memory(2560) and least <= bytes_in_memory(1024)
    storages = {storage.name: storage for storage in STORAGES}
    for facts, size in found:
        storage = storages[str(facts["choice"]).rpartition(", ")[2]]
        assert size == storage.bytes_per_vector(int(float(facts["vector_dimension"])), 0)
    answers = system.search(QUERIES, 5)
    assert (answers.ids >= 0).all()


def test_the_preset_beside_tuning_is_checked() -> None:
    with pytest.raises(ValueError, match=r"no preset 'learnd'\. Did you mean 'learned'"):
        SYSTEMS["tuned"](in_bytes_of="learnd")  # type: ignore[call-arg]
