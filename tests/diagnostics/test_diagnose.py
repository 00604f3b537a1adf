"""diagnose: synthetic cones, the bundled sample, bad input, and what the words say."""

import dataclasses
import json

import numpy as np
import pytest
from builders.paths import ROOT

from muvera import FDEConfig, MultiVectors, diagnose
from muvera.convert import read
from muvera.diagnostics.report import render

SAMPLE = ROOT / "muvera" / "data" / "sample"


def cones(mean_cosine: float, count: int = 60, dimension: int = 32, seed: int = 0) -> MultiVectors:
    """Documents of 8 unit tokens around one direction; see the tests of the geometry."""
    rng = np.random.default_rng(seed)
    axis = np.eye(1, dimension) * np.sqrt(mean_cosine)
    tokens = axis + np.sqrt(1 - mean_cosine) * rng.normal(size=(8 * count, dimension)) / np.sqrt(dimension)
    return MultiVectors.from_flat(tokens / np.linalg.norm(tokens, axis=1, keepdims=True), np.full(count, 8))


@pytest.mark.parametrize(
    ("mean_cosine", "kind"), [(0.0, "ordinary"), (0.4, "wide cone"), (0.8, "narrow cone")]
)
def test_a_cone_gets_its_name(mean_cosine: float, kind: str) -> None:
    found = diagnose(cones(mean_cosine))
    assert found.kind == kind
    # 480 tokens of 32 dimensions: the mean moves by 1/480 and a norm by 1/8, hence the margin.
    assert found.geometry.mean_cosine == pytest.approx(mean_cosine, abs=0.03)
    assert found.geometry.unit
    assert ("Tokens lie in a narrow cone" in found.text) == (kind == "narrow cone")
    assert "center=True" in found.text if kind == "narrow cone" else "center=True" not in found.text


def test_centering_pays_on_a_narrow_cone() -> None:
    found = diagnose(cones(0.8, count=150))
    assert found.centered_cells.effective_cells > 1.5 * found.cells.effective_cells
    paper, small, large = (row.recall[50] for row in found.recall)
    assert paper is not None and small is not None and large is not None
    assert min(small, large) > paper
    assert found.recommended in found.recall[1:]


def test_norms_that_are_not_one() -> None:
    documents = cones(0.1)
    scaled = MultiVectors.from_flat(documents.tokens * 3, documents.lengths)
    found = diagnose(scaled)
    assert not found.geometry.unit
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
    assert (given.pseudo, given.queries, cut.pseudo, cut.queries) == (False, 12, True, 60)
    assert given.query_cosine == pytest.approx(0.2, abs=0.05)  # 96 query tokens
    assert cut.query_cosine is None
    assert "may be easier" in cut.text and "may be easier" not in given.text
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


@pytest.mark.parametrize(("count", "depths"), [(2, []), (19, []), (20, [10]), (99, [10]), (100, [10, 50])])
def test_few_documents_have_no_deep_recall(count: int, depths: list[int]) -> None:
    """More than half of the documents would be read: no measure of an FDE."""
    found = diagnose(cones(0.2, count=count))
    for row in found.recall:
        assert [depth for depth, value in row.recall.items() if value is not None] == depths
    assert ("too few" in found.text) == (not depths)


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
    assert [row.name for row in found.recall] == ["paper", "default at 2,560", "default at 10,240", "yours"]
    assert found.recall[3].config == found.config == mine
    assert found.cells.cells == 4
    assert len(diagnose(cones(0.2), config=FDEConfig(dimension=32)).recall) == 3


def test_a_large_collection_is_told_what_a_sample_is() -> None:
    found = diagnose(cones(0.2, count=150), sample=120)
    assert found.exact
    grown = render(dataclasses.replace(found, exact=False, tokens=10**6))
    assert "no FDE is needed" in found.text
    assert "no FDE is needed" not in grown
    assert "muvera tune" in grown and "muvera tune" not in found.text
    assert "among all 150 the same number finds less" in grown


def test_tokens_without_any_structure_are_called_odd() -> None:
    """Random directions: no document is nearer than another, and an estimate finds no best."""
    rng = np.random.default_rng(0)
    odd = diagnose(MultiVectors.from_arrays(list(rng.normal(size=(200, 20, 64)))))
    assert "FDEs find few of the exact best" in render(dataclasses.replace(odd, exact=False, tokens=10**6))
    topics = np.repeat(rng.normal(size=(15, 1, 64)), 12, axis=0)
    found = diagnose(topics + 0.5 * rng.normal(size=(180, 20, 64)))
    assert "FDEs find few of the exact best" not in found.text


def test_it_is_plain_json() -> None:
    values = json.loads(json.dumps(diagnose(cones(0.2)).to_dict(), allow_nan=False))
    assert values["recall"][1]["floats"] == 2560
    assert FDEConfig.from_dict(values["recommended"]["config"]).dimension == 32
    assert values["text"].startswith("documents      60")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"documents": [np.ones((3, 4))]}, ValueError, "at least 2 documents with tokens, got 1"),
        ({"documents": np.full((3, 2, 4), np.nan)}, ValueError, "sample of documents.0. .id 0. has nan"),
        ({"documents": np.zeros((3, 2, 4))}, ValueError, "at least 2 tokens that are not zero, got 0"),
        ({"queries": np.full((3, 2, 32), np.inf)}, ValueError, "queries.0. .id 0. has inf"),
        ({"queries": np.ones((3, 2, 31))}, ValueError, "queries has 31 columns, but config has dimension=32"),
        ({"queries": [np.empty((0, 32))]}, ValueError, "queries have no tokens at all"),
        ({"config": FDEConfig(dimension=16)}, ValueError, "documents has 32 columns"),
        ({"config": "paper"}, TypeError, "config must be an FDEConfig, got str"),
        ({"sample": 1}, ValueError, "sample must be at least 2, got 1"),
        ({"sample": 10.0}, TypeError, "sample must be an int, got float"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_bad_input(changes: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        diagnose(**{"documents": cones(0.2, count=5), **changes})


@pytest.mark.compiled("14,009 tokens")
def test_the_bundled_sample() -> None:
    found = diagnose(read(SAMPLE), read(SAMPLE, part="queries"))
    assert (found.documents, found.tokens, found.queries) == (677, 14_009, 24)
    assert found.kind == "ordinary" and found.geometry.unit and found.exact
    default = found.recall[2].recall
    # 240 answers: a standard error of .02 around what is measured, .95 at 50.
    assert default[50] is not None and default[50] > 0.88
