"""SampleProfile: an index warns about documents that differ from its sample, and rebuild() fits again."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from muvera import FDEConfig, LearnedConfig, MultiVectors, MuveraIndex, top_k
from muvera.index.sample_profile import DRIFTED, SampleProfile

DIMENSION = 24
CONFIG = LearnedConfig(dimension=DIMENSION, vector_dimension=48, num_landmarks=128, num_features=128)


def kind(which: int, count: int, seed: int = 0) -> MultiVectors:
    """Return documents about topics of one kind, with half of the space to themselves."""
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
    queries = [text[:4] + 0.1 for text in kind(which, 40, seed=9)]
    exact, rankings = top_k(queries, documents, 10), index.search(queries, 10, candidates=50)
    return float(
        np.mean([len(np.intersect1d(a.ids, b.ids)) / 10 for a, b in zip(exact, rankings, strict=True)])
    )


@pytest.mark.compiled("learns from hundreds of documents")
def test_drift_and_rebuild(tmp_path: Path) -> None:
    old, alike, new = kind(0, 400), kind(0, 100, seed=1), kind(1, 250)
    index = MuveraIndex.build(old, CONFIG, exact_tokens=0)
    assert index.info().drift is None and not index.info().warnings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.add(alike)
    assert (index.info().drift or 1) < 0.15
    with pytest.warns(UserWarning, match=r"350 documents .*rebuild\(\)"):
        index.add(new)
    drift = index.info().drift
    assert drift is not None and drift > DRIFTED
    assert len(index.info().warnings) == 1 and index.info().to_dict()["drift"] == drift
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        index.update(new[:5])
    index.save(tmp_path / "index")
    loaded = MuveraIndex.load(tmp_path / "index")
    assert loaded.info().drift == index.info().drift and loaded.info().warnings == index.info().warnings
    everything = MultiVectors.concatenate([old, alike, new])
    before = recall(loaded, everything, 1)
    loaded.rebuild()
    assert loaded.info().drift is None and not loaded.info().warnings
    assert recall(loaded, everything, 1) > max(before + 0.02, 0.9)
    for which in (0, 1):
        loaded.add(kind(which, 60, seed=2))
    assert 0 < (loaded.info().drift or 1) < drift


def test_distances() -> None:
    profile = SampleProfile.of(kind(0, 300))
    distances = []
    for which, count in ((0, 49), (0, 1), (1, 1200)):
        profile.count(kind(which, count, seed=3))
        distances.append(profile.distance)
    few, alike, unlike = distances
    assert few is None and alike is not None and alike < 0.15
    assert unlike is not None and unlike > 0.6 and profile.warning is not None
    small = SampleProfile.of(kind(0, 20))
    small.count(kind(0, 200, seed=3))
    assert small.distance is None and small.warning is None
    with pytest.raises(ValueError, match="32 directions and 8 intervals has 40 counts, got 39 and 40"):
        SampleProfile(profile.directions, profile.edges, profile.sample[:-1], profile.added)
    index = MuveraIndex.build(kind(0, 80), FDEConfig(dimension=DIMENSION), exact_tokens=0)
    index.add(kind(1, 80))
    assert index.info().drift is None  # no maps are learned
