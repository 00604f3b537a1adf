"""diagnose: synthetic cones, the bundled sample, recall against a count, bad input."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from muvera import FDEConfig, MultiVectors, diagnose
from muvera.diagnostics.diagnose import MeasuredEncoder, _recommended, draw_sample, token_geometry
from muvera.fde.config import PRESETS
from muvera.fde.encoder import FDEEncoder


def cones(mean_cosine: float, count: int = 60, dimension: int = 32, seed: int = 0) -> MultiVectors:
    """Documents of 8 unit tokens around one direction.

    See the tests of the geometry.
    """
    rng = np.random.default_rng(seed)
    axis = np.eye(1, dimension) * np.sqrt(mean_cosine)
    tokens = axis + np.sqrt(1 - mean_cosine) * rng.normal(size=(8 * count, dimension)) / np.sqrt(dimension)
    return MultiVectors.from_flat(tokens / np.linalg.norm(tokens, axis=1, keepdims=True), np.full(count, 8))


@pytest.mark.parametrize(("mean_cosine", "anisotropy"), [(0.0, "low"), (0.4, "medium"), (0.8, "high")])
def test_the_mean_cosine_decides_the_anisotropy(mean_cosine: float, anisotropy: str) -> None:
    diagnosis = diagnose(cones(mean_cosine))
    assert diagnosis.anisotropy == anisotropy and diagnosis.geometry.unit_norms
    # 480 tokens of 32 dimensions: the mean moves by 1/480 and a norm by 1/8, hence
    # the margin.
    assert diagnosis.geometry.mean_cosine == pytest.approx(mean_cosine, abs=0.03)


def test_results_depend_on_the_seed_not_on_threads() -> None:
    documents = cones(0.3, count=90)
    first = diagnose(documents, sample=70, seed=5, threads=1)
    assert diagnose(documents, sample=70, seed=5, threads=2).to_dict() == first.to_dict()
    assert diagnose(documents, sample=70, seed=6).to_dict() != first.to_dict()
    values = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert FDEConfig.from_dict(values["recommended"]["config"]) == first.recommended.config
    assert first.documents == 90 and first.sampled_documents == 70 and first.exact_search


def test_given_queries_windows_and_empty_documents() -> None:
    documents, queries = cones(0.2), cones(0.2, count=12, seed=9)
    given, cut = diagnose(documents, queries), diagnose(documents)
    assert (given.pseudo_queries, given.queries, cut.pseudo_queries, cut.queries) == (False, 12, True, 60)
    empty = np.empty((0, 32), np.float32)
    some = diagnose([empty, *documents], [empty, *queries])
    assert (some.queries, some.documents, some.empty_documents, some.sampled_documents) == (12, 61, 1, 60)
    assert some.tokens_per_document == {"min": 8, "median": 8.0, "p95": 8.0, "max": 8}


def test_spread_of_maxsim() -> None:
    """One query token and documents of one token: the scores are the cosines."""
    tokens = np.zeros((30, 1, 31), np.float32)
    tokens[np.arange(30), 0, np.arange(30)] = np.sqrt(1 - np.linspace(0, 1, 30) ** 2)
    tokens[:, 0, 30] = np.linspace(0, 1, 30)
    spread = diagnose(tokens, [np.eye(31)[30:]]).maxsim
    assert (spread.best, spread.tenth, spread.median) == pytest.approx((1, 20 / 29, 0.5), abs=1e-6)


@pytest.mark.parametrize(("count", "cutoffs"), [(2, []), (20, [10]), (100, [10, 50])])
def test_few_documents_have_no_deep_recall(count: int, cutoffs: list[int]) -> None:
    diagnosis = diagnose(cones(0.2, count=count))
    assert [row.name for row in diagnosis.encoders] == ["mean", "simhash", "paper"]
    for row in diagnosis.encoders:
        assert [cutoff for cutoff, value in row.recall.items() if value is not None] == cutoffs
    if count < 100:
        assert diagnosis.recommended.config == FDEConfig(32)
    assert diagnosis.text


@pytest.mark.parametrize("windows", [False, True])
def test_ranks_are_those_of_a_count(windows: bool) -> None:
    rng = np.random.default_rng(0)
    documents = MultiVectors.from_arrays([rng.normal(size=(rng.integers(1, 9), 8)) for _ in range(30)])
    queries = None if windows else MultiVectors.from_arrays(list(rng.normal(size=(12, 4, 8))))
    settings: dict[str, Any] = {"size": 30, "most_queries": 200, "min_fitting": 256, "seed": 0}
    drawn = draw_sample(documents, queries, least=(2, 1), threads=1, **settings)
    config = FDEConfig.preset("simhash", 8, num_repetitions=3, num_simhash_projections=2)
    encoder = FDEEncoder(config).fit(documents)
    vectors = encoder.encode_documents(drawn.documents), encoder.encode_queries(drawn.queries)
    products, expected = vectors[1] @ vectors[0].T, []
    for i, query in enumerate(drawn.queries):
        exact = np.array([(query @ text.T).max(axis=1).sum() for text in drawn.documents])
        if windows:
            exact[drawn.sources[i]] = products[i, drawn.sources[i]] = -np.inf
        order = np.argsort(-products[i]).tolist()
        expected.append([order.index(best) for best in np.argsort(-exact)[:10].tolist()])
    np.testing.assert_array_equal(drawn.ranks(config), expected)


def test_fitted_encoders_need_documents_beside_those_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = {"num_landmarks": 64, "final_projection_dimension": 24}
    monkeypatch.setitem(PRESETS, "fde", small)
    monkeypatch.setattr("muvera.diagnostics.diagnose._MEASURED", ("paper", "fde"))
    documents = documents_like_real(380)
    steps: list[int] = []
    diagnosis = diagnose(documents, progress=steps.append)
    assert [row.name for row in diagnosis.encoders] == ["paper", "fde"] and steps == [1, 1, 1]
    assert diagnosis.encoders[1].config == FDEConfig.preset("fde", 16, **small)
    assert diagnosis.recommended.name == "fde"  # the paper's encoder never is
    grown = dataclasses.replace(diagnosis, exact_search=False, documents=10**6)
    assert "encoder='fde'" in grown.text and "1,000,000" in grown.text
    assert [row.name for row in diagnose(documents[:300]).encoders] == ["paper"]


@pytest.mark.parametrize(
    ("best", "recalls"), [("fde", (0.9, 0.85, 0.95)), ("mean", (0.9, 0.94, 0.95)), ("fde", (1.0, 0.5, 0.9))]
)
def test_the_smallest_of_the_best_is_recommended(best: str, recalls: tuple[float, ...]) -> None:
    rows = [
        MeasuredEncoder(name, FDEConfig.preset(name, 8), {10: None, 50: recall, 100: None})
        for name, recall in zip(("paper", "mean", "fde"), recalls, strict=True)
    ]
    assert _recommended(rows, 8).name == best


@pytest.mark.parametrize(
    ("best", "moments", "fde"),
    [
        ("fde", (0.700, 0.946, 0.978), (0.764, 0.966, 0.986)),
        ("moments", (0.700, 0.966, 0.978), (0.764, 0.946, 0.986)),  # recall at 50 decides
        ("fde", (0.700, 1.0, 1.0), (0.764, 1.0, 1.0)),
    ],
)
def test_of_two_encoders_of_equal_size_the_better_one_is_recommended(
    best: str, moments: tuple[float, ...], fde: tuple[float, ...]
) -> None:
    rows = [
        MeasuredEncoder(name, FDEConfig.preset(name, 128), dict(zip((10, 50, 100), recalls, strict=True)))
        for name, recalls in (("moments", moments), ("fde", fde))
    ]
    assert len({row.config.vector_dimension for row in rows}) == 1
    assert _recommended(rows, 128).name == best
    assert _recommended(rows[::-1], 128).name == best


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"documents": np.full((3, 2, 4), np.nan)}, "documents.0. .id 0. has nan"),
        ({"documents": []}, "documents must have a token"),
        ({"queries": np.ones((3, 2, 31))}, "31 columns.*32"),
        ({"sample": 1}, "sample .*2.* 1"),
        ({"seed": -1}, "seed .*-1"),
    ],
    ids=["nan", "no documents", "other width", "sample", "seed"],
)
def test_bad_input(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        diagnose(**{"documents": cones(0.2, count=5), **changes})


@given(seed=seeds, count=st.integers(2, 30), dimension=st.integers(1, 9))
def test_geometry_is_that_of_all_pairs_and_eigenvalues(seed: int, count: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(count, dimension)) + rng.uniform(0, 4) * rng.normal(size=dimension)
    tokens *= rng.uniform(0.1, 9, (count, 1))
    units = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    cosines = (units @ units.T)[~np.eye(count, dtype=bool)]
    geometry = token_geometry(tokens)
    assert geometry.mean_cosine == pytest.approx(cosines.mean(), abs=1e-9)
    # A variance as a difference of squares loses half the digits.
    assert geometry.cosine_deviation == pytest.approx(cosines.std(), abs=1e-6)
    # The participation ratio of the eigenvalues, about zero and about the mean.
    ranks = geometry.effective_rank, geometry.centered_effective_rank
    for rows, rank in zip((tokens, tokens - tokens.mean(0)), ranks, strict=True):
        values = np.linalg.eigvalsh(rows.T @ rows)
        assert rank == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-6)


def test_norms_and_zero_vectors() -> None:
    geometry = token_geometry(np.array([[3.0, 4], [0, 0], [1, 0], [0, 2]]))
    assert geometry.norms == pytest.approx((1.0, 8 / 3, 5.0))
    assert (geometry.zero_tokens, geometry.unit_norms) == (1, False)
    assert not token_geometry(np.array([[1.0, 0], [0, 0], [0, 1]])).unit_norms
    assert token_geometry(np.array([[1.003, 0], [0, 0.997]])).unit_norms
    with pytest.raises(ValueError, match=r"2 nonzero rows, got 1"):
        token_geometry(np.array([[0.0, 0], [1, 0]]))
