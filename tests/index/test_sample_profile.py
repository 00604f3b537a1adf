"""Documents unlike those that maps were learned from: the index says so, and rebuilding mends it."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from muvera import FDEConfig, LearnedConfig, MultiVectors, MuveraIndex, top_k
from muvera.index.sample_profile import DRIFTED, SampleProfile

DIMENSION = 24
CONFIG = LearnedConfig(dimension=DIMENSION, vector_dimension=48, num_landmarks=256, num_features=256)

learns = pytest.mark.compiled("learns from hundreds of documents")


def kind(which: int, count: int, seed: int = 0) -> MultiVectors:
    """Documents about topics of one kind: kinds have their own topics, and half of the space to themselves."""
    topics = np.random.default_rng(which).standard_normal((60, DIMENSION))
    topics[:, which * 8 : which * 8 + 16] *= 0.1
    rng = np.random.default_rng((which, seed))
    lengths = rng.integers(2, 9, count)
    first = np.repeat(rng.integers(0, 60, count), lengths)
    other = rng.integers(0, 60, len(first))
    tokens = topics[first] + 0.6 * topics[other] + 0.2 * rng.standard_normal((len(first), DIMENSION))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    ids = [f"{which}-{seed}-{i}" for i in range(count)]
    return MultiVectors.from_flat(tokens.astype(np.float32), lengths, ids=ids)


def recall(index: MuveraIndex, documents: MultiVectors, which: int) -> float:
    """Share of the ten best among fifty candidates, for queries of one kind."""
    queries = [text[:4] + 0.1 for text in kind(which, 40, seed=9)]
    exact = [set(ranking.ids) for ranking in top_k(queries, documents, 10)]
    found = [set(ranking.ids) for ranking in index.search(queries, 10, candidates=50)]
    return float(np.mean([len(a & b) / 10 for a, b in zip(exact, found, strict=True)]))


@learns
@pytest.mark.parametrize("first", [0, 1])
def test_unlike_documents_are_noticed_and_mended(first: int, tmp_path: Path) -> None:
    old, new = kind(first, 500), kind(1 - first, 300)
    index = MuveraIndex.build(old, CONFIG, exact_tokens=0)
    assert index.info().drift is None and not index.info().warnings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.add(kind(first, 100, seed=1))
    alike = index.info().drift
    assert alike is not None and alike < 0.15
    with pytest.warns(UserWarning, match=r"400 documents that came since .* are unlike .* rebuild\(\)"):
        index.add(new)
    drift = index.info().drift
    assert drift is not None and drift > DRIFTED
    assert "distance" in index.info().warnings[0] and index.info().to_dict()["drift"] == drift
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        index.update(new[:5])
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    assert loaded.info().drift == index.info().drift and loaded.info().warnings == index.info().warnings
    everything = MultiVectors.from_arrays(
        [*old, *kind(first, 100, seed=1), *new],
        ids=[*old.ids, *kind(first, 100, seed=1).ids, *new.ids],
    )
    before = recall(loaded, everything, 1 - first)
    loaded.rebuild()
    assert loaded.info().drift is None and not loaded.info().warnings
    after = recall(loaded, everything, 1 - first)
    assert after > before + 0.02 and after > 0.9
    loaded.add(kind(first, 60, seed=2))
    loaded.add(kind(1 - first, 60, seed=2))
    again = loaded.info().drift
    assert again is not None and again < drift


def test_without_learned_maps_there_is_no_distance() -> None:
    index = MuveraIndex.build(kind(0, 80), FDEConfig(dimension=DIMENSION), exact_tokens=0)
    index.add(kind(1, 80))
    assert index.info().drift is None


def test_chance_is_no_distance() -> None:
    profile = SampleProfile.of(kind(0, 300))
    found = []
    for which, count in ((0, 49), (0, 1), (1, 1200)):
        profile.count(kind(which, count, seed=3))
        found.append(profile.distance)
    few, alike, unlike = found
    assert few is None
    assert alike is not None and alike < 0.15
    assert unlike is not None and unlike > 0.6 and profile.warning is not None


def test_a_handful_of_sampled_documents_says_nothing() -> None:
    profile = SampleProfile.of(kind(0, 20))
    profile.count(kind(0, 200, seed=3))
    assert profile.distance is None and profile.warning is None


def test_damaged_counts_are_refused() -> None:
    profile = SampleProfile.of(kind(0, 60))
    with pytest.raises(ValueError, match="32 directions and 8 intervals has 40 counts, got 39 and 40"):
        SampleProfile(profile.directions, profile.edges, profile.sample[:-1], profile.added)
