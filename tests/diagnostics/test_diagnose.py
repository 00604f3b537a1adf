"""diagnose: synthetic cones, the bundled sample, bad input, and what the words say."""

import dataclasses
import importlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT
from builders.realistic_collections import documents_like_real

from muvera import FDEConfig, LearnedConfig, LearnedEncoder, MultiVectors, diagnose
from muvera.convert import read
from muvera.diagnostics.configurations import GIVEN, PAPER
from muvera.diagnostics.diagnosis import MeasuredEncoder
from muvera.diagnostics.report import render
from muvera.encoders.registry import config_from_dict

MODULE = importlib.import_module("muvera.diagnostics.diagnose")
SAMPLE = ROOT / "muvera" / "data" / "sample"


def cones(mean_cosine: float, count: int = 60, dimension: int = 32, seed: int = 0) -> MultiVectors:
    """Documents of 8 unit tokens around one direction; see the tests of the geometry."""
    rng = np.random.default_rng(seed)
    axis = np.eye(1, dimension) * np.sqrt(mean_cosine)
    tokens = axis + np.sqrt(1 - mean_cosine) * rng.normal(size=(8 * count, dimension)) / np.sqrt(dimension)
    return MultiVectors.from_flat(tokens / np.linalg.norm(tokens, axis=1, keepdims=True), np.full(count, 8))


@pytest.mark.parametrize(("mean_cosine", "anisotropy"), [(0.0, "low"), (0.4, "medium"), (0.8, "high")])
def test_the_mean_cosine_names_the_anisotropy(mean_cosine: float, anisotropy: str) -> None:
    found = diagnose(cones(mean_cosine))
    assert found.anisotropy == anisotropy
    # 480 tokens of 32 dimensions: the mean moves by 1/480 and a norm by 1/8, hence the margin.
    assert found.geometry.mean_cosine == pytest.approx(mean_cosine, abs=0.03)
    assert found.geometry.unit_norms
    assert f"Anisotropy is {anisotropy}" in found.text
    assert ("center=True" in found.text) == (anisotropy == "high")


def test_centering_pays_on_a_narrow_cone() -> None:
    found = diagnose(cones(0.8, count=150))
    assert found.centered_cells.effective_cells > 1.5 * found.cells.effective_cells
    paper, small, large = (row.recall[50] for row in found.encoders[:3])
    assert paper is not None and small is not None and large is not None
    assert min(small, large) > paper
    assert found.recommended in found.encoders[1:]


def test_norms_that_are_not_one() -> None:
    documents = cones(0.1)
    scaled = MultiVectors.from_flat(documents.tokens * 3, documents.lengths)
    found = diagnose(scaled)
    assert not found.geometry.unit_norms
    assert found.geometry.norms == pytest.approx((3, 3, 3), rel=1e-5)
    assert "Norms are not 1" in found.text
    plain = diagnose(documents)
    assert "Norms are not 1" not in plain.text
    assert found.geometry.mean_cosine == pytest.approx(plain.geometry.mean_cosine, abs=1e-6)
    assert found.maxsim.best == pytest.approx(9 * plain.maxsim.best, rel=1e-4)


def test_the_same_seed_says_the_same() -> None:
    documents = cones(0.3, count=90)
    first = diagnose(documents, sample=70, seed=5, threads=1)
    assert diagnose(documents, sample=70, seed=5, threads=2).to_dict() == first.to_dict()
    assert diagnose(documents, sample=70, seed=6).to_dict() != first.to_dict()


def test_queries_are_used_and_windows_are_said_to_stand_in() -> None:
    documents, queries = cones(0.2), cones(0.2, count=12, seed=9)
    given, cut = diagnose(documents, queries), diagnose(documents)
    assert (given.pseudo_queries, given.queries, cut.pseudo_queries, cut.queries) == (False, 12, True, 60)
    assert given.query_cosine == pytest.approx(0.2, abs=0.05)  # 96 query tokens
    assert cut.query_cosine is None
    assert "may be harder" in cut.text and "may be harder" not in given.text
    with_empty = MultiVectors.from_arrays([np.empty((0, 32)), *queries])
    assert diagnose(documents, with_empty).queries == 12


def test_spread_of_maxsim() -> None:
    """One query token against documents of one token: the scores are the cosines."""
    tokens = np.zeros((30, 1, 31), np.float32)
    tokens[np.arange(30), 0, np.arange(30)] = np.sqrt(1 - np.linspace(0, 1, 30) ** 2)
    tokens[:, 0, 30] = np.linspace(0, 1, 30)
    found = diagnose(tokens, [np.eye(31)[30:]])
    assert (found.maxsim.best, found.maxsim.tenth) == pytest.approx((1, 20 / 29), abs=1e-6)
    assert found.maxsim.median == pytest.approx(0.5, abs=1e-6)


def test_empty_documents_are_counted_and_left_out() -> None:
    full = cones(0.2)
    arrays = [np.empty((0, 32), np.float32), *full, np.empty((0, 32), np.float32)]
    found = diagnose(MultiVectors.from_arrays(arrays))
    assert (found.documents, found.empty_documents, found.sampled_documents) == (62, 2, 60)
    assert found.tokens_per_document == {"min": 8, "median": 8.0, "p95": 8.0, "max": 8}


@pytest.mark.parametrize(("count", "cutoffs"), [(2, []), (19, []), (20, [10]), (99, [10]), (100, [10, 50])])
def test_few_documents_have_no_deep_recall(count: int, cutoffs: list[int]) -> None:
    """More than half of the documents would be read: no measure of an FDE."""
    found = diagnose(cones(0.2, count=count))
    for row in found.encoders:
        assert [cutoff for cutoff, value in row.recall.items() if value is not None] == cutoffs
    assert ("not measured: it needs at least 20 documents" in found.text) == (not cutoffs)


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long or wide the tokens: at least 2 documents and 20 queries, and no more than can be."""
    monkeypatch.setattr("muvera.diagnostics.diagnose._ENTRIES", 32 * 100)
    monkeypatch.setattr("muvera.diagnostics.diagnose._PRODUCTS", 1)
    found = diagnose(cones(0.2))
    assert (found.geometry.tokens, found.queries) == (96, 20)
    monkeypatch.setattr("muvera.diagnostics.diagnose._TOKENS", 1)
    assert diagnose(cones(0.2)).geometry.tokens == 16


def test_your_configuration_is_measured_too() -> None:
    mine = FDEConfig(dimension=32, num_repetitions=2, num_simhash_projections=2)
    found = diagnose(cones(0.2), config=mine)
    names = ["FDE of the paper", "FDE 2,593", "FDE 5,153", "mean 33", "covariance 561"]
    assert [row.name for row in found.encoders] == [*names, "given"]
    assert found.encoders[-1].config == found.config == mine
    assert found.cells.cells == 4
    assert len(diagnose(cones(0.2), config=FDEConfig(dimension=32)).encoders) == len(names)


def test_a_large_collection_is_told_what_a_sample_is() -> None:
    found = diagnose(cones(0.2, count=150), sample=120)
    assert found.exact_search
    grown = " ".join(render(dataclasses.replace(found, exact_search=False, tokens=10**6)).split())
    assert "it needs no vectors" in found.text
    assert "it needs no vectors" not in grown
    assert "Sample more documents" in grown and "Sample more documents" not in found.text
    assert "among all 150 the same number of candidates finds less" in grown


def test_tokens_without_any_structure_are_found_by_no_encoder() -> None:
    """Random directions: no document is nearer than another, and a sketch finds no best."""
    rng = np.random.default_rng(0)
    odd = diagnose(MultiVectors.from_arrays(list(rng.normal(size=(200, 20, 64)))))
    odd = dataclasses.replace(odd, encoders=odd.encoders[:3], recommended=odd.encoders[2])
    assert "Every encoder finds few of the exact best" in render(
        dataclasses.replace(odd, exact_search=False, tokens=10**6)
    )
    topics = np.repeat(rng.normal(size=(15, 1, 64)), 12, axis=0)
    found = diagnose(topics + 0.5 * rng.normal(size=(180, 20, 64)))
    assert "Every encoder finds few of the exact best" not in found.text


def test_it_is_plain_json() -> None:
    values = json.loads(json.dumps(diagnose(cones(0.2)).to_dict(), allow_nan=False))
    assert values["encoders"][1]["floats"] == 2593
    assert config_from_dict(values["recommended"]["config"]).dimension == 32
    assert values["text"].startswith("documents      60")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"documents": [np.ones((3, 4))]}, ValueError, "at least 2 documents with tokens, got 1"),
        ({"documents": np.full((3, 2, 4), np.nan)}, ValueError, "sample of documents.0. .id 0. has nan"),
        ({"documents": np.zeros((3, 2, 4))}, ValueError, "at least 2 tokens that are not zero, got 0"),
        ({"queries": np.full((3, 2, 32), np.inf)}, ValueError, "queries.0. .id 0. has inf"),
        ({"queries": np.ones((3, 2, 31))}, ValueError, "queries have 31 columns, but documents have 32"),
        ({"queries": [np.empty((0, 32))]}, ValueError, "queries have no tokens at all"),
        ({"config": FDEConfig(dimension=16)}, ValueError, "documents has 32 columns"),
        ({"config": "paper"}, TypeError, "config must be an FDEConfig, got str"),
        ({"sample": 1}, ValueError, "sample must be at least 2, got 1"),
        ({"sample": 10.0}, TypeError, "sample must be an int, got float"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_bad_input(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        diagnose(**{"documents": cones(0.2, count=5), **changes})


@pytest.mark.compiled("14,009 tokens")
def test_the_bundled_sample() -> None:
    found = diagnose(read(SAMPLE), read(SAMPLE, part="queries"))
    assert (found.documents, found.tokens, found.queries) == (677, 14_009, 24)
    assert found.anisotropy == "low" and found.geometry.unit_norms and found.exact_search
    default = found.encoders[2].recall
    # 240 answers: a standard error of .02 around what is measured, .95 at 50.
    assert default[50] is not None and default[50] > 0.88


def test_maps_are_learned_from_documents_that_no_query_was_cut_out_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The best encoder is recommended, whatever its kind."""
    small = {
        PAPER: FDEConfig.preset("paper", 16),
        "FDE": FDEConfig(dimension=16),
        "learned 64": LearnedConfig(dimension=16, vector_dimension=64, num_landmarks=256, num_features=128),
    }
    monkeypatch.setattr("muvera.diagnostics.diagnose.encoders_to_measure", lambda _: small)
    evaluators, fitted = [], []
    fit = LearnedEncoder.fit
    real: Callable[..., MeasuredEncoder] = MODULE._measure

    def measure(*arguments: Any) -> MeasuredEncoder:
        evaluators.append(arguments[2])
        return real(*arguments)

    def noted(self: LearnedEncoder, documents: MultiVectors, *rest: Any, **settings: Any) -> LearnedEncoder:
        fitted.append(documents.ids)
        return fit(self, documents, *rest, **settings)

    monkeypatch.setattr(MODULE, "_measure", measure)
    monkeypatch.setattr(LearnedEncoder, "fit", noted)
    documents = documents_like_real(500, 16)
    steps: list[int] = []
    found = diagnose(documents, progress=steps.append)
    assert [row.name for row in found.encoders] == list(small) and steps == [1, 1, 1, 1]
    assert len(fitted[0]) == round(0.75 * found.sampled_documents)
    sources = evaluators[0].documents.ids[evaluators[0].source_documents]
    assert len(sources) > 100 and not np.isin(sources, fitted[0]).any()
    assert found.intrinsic_dimension is not None and found.intrinsic_dimension.neighbors == 47
    best = max(row.recall[50] or 0.0 for row in found.encoders[1:])
    chosen = found.recommended
    assert (chosen.recall[50] or 0.0) >= best - 0.02 and chosen.name != PAPER
    few = diagnose(documents[:300])
    assert [row.name for row in few.encoders] == [PAPER, "FDE"]


@pytest.mark.parametrize(
    ("recall", "name"),
    [((0.9, 0.85, 0.95), "large"), ((0.9, 0.94, 0.95), "small"), ((1.0, 0.5, 0.9), "large")],
)
def test_the_smallest_of_the_best_is_recommended(recall: tuple[float, ...], name: str) -> None:
    configs = [
        FDEConfig.preset("paper", 8),
        FDEConfig(dimension=8, num_simhash_projections=3),
        FDEConfig(dimension=8),
    ]
    rows = [
        MeasuredEncoder(name, config, {10: None, 50: value, 100: None})
        for name, config, value in zip((PAPER, "small", "large"), configs, recall, strict=True)
    ]
    assert MODULE._recommended(rows).name == name


def test_the_load_of_cells_is_compared_with_their_capacity() -> None:
    """Eight tokens a document: few in each of 32 cells, many in each of two."""
    documents, queries = cones(0.2, count=120), cones(0.2, count=20, seed=9)
    roomy = diagnose(documents, queries, FDEConfig(dimension=32, num_simhash_projections=5))
    assert roomy.tokens_per_cell == pytest.approx(8 / (32 * roomy.centered_cells.used_per_document))
    crowded = diagnose(documents, queries, FDEConfig(dimension=32, num_simhash_projections=1))
    assert crowded.tokens_per_cell > 3 > roomy.tokens_per_cell
    assert roomy.capacity is not None and crowded.capacity is not None
    for found in (roomy, crowded):
        assert found.capacity is not None
        over = found.tokens_per_cell > found.capacity.largest_load
        assert ("at which the best tokens stand out" in " ".join(found.text.split())) == over
    longer = MultiVectors.from_flat(documents.tokens * 3, documents.lengths)
    assert diagnose(longer).capacity is None


def test_cells_are_advised_on_only_where_an_fde_is_to_be_used() -> None:
    """No word of finer cells beside the mean token, unless the caller gave the FDE that is too small."""
    documents, queries = cones(0.2, count=120), cones(0.2, count=20, seed=9)
    given = diagnose(documents, queries, FDEConfig(dimension=32, num_simhash_projections=1))
    by_kind = {row.name.split()[0]: row for row in given.encoders}
    without = tuple(row for row in given.encoders if row.name != GIVEN)
    for kind, advised in (("FDE", True), ("mean", False), ("covariance", False)):
        text = render(dataclasses.replace(given, encoders=without, recommended=by_kind[kind]))
        assert ("the best tokens stand out" in " ".join(text.split())) == advised
    text = render(dataclasses.replace(given, recommended=by_kind["mean"]))
    assert "the best tokens stand out" in " ".join(text.split())


def test_every_encoder_is_measured_and_the_best_is_named() -> None:
    """Where documents differ by their mean tokens alone, 33 floats find what thousands find."""
    rng = np.random.default_rng(3)
    topics = np.repeat(rng.normal(size=(700, 1, 32)), 6, axis=0).reshape(700, 6, 32)
    found = diagnose(topics + 0.05 * rng.normal(size=(700, 6, 32)), sample=700)
    kinds = {row.name.split()[0] for row in found.encoders}
    assert kinds == {"FDE", "mean", "covariance", "compact_covariance", "compact", "learned"}
    assert found.recommended.name == "mean 33"
    text = " ".join(render(dataclasses.replace(found, exact_search=False, tokens=10**6)).split())
    assert "Use MeanConfig(dimension=32) (muvera index --preset mean), 33 floats" in text
    assert "stand out" not in text
