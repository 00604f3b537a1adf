"""The encoders that are tried, and the bytes that storages say."""

import numpy as np
import pytest

from muvera import FDEConfig
from muvera.mips import HNSWSearch, PQSearch
from muvera.tuning.hnsw_settings import choose_graph
from muvera.tuning.search_space import STORAGES, arms


@pytest.mark.parametrize("dimension", [1, 4, 16, 96, 128, 768])
def test_arms_differ_and_are_valid_for_every_dimension(dimension: int) -> None:
    found = arms(dimension)
    assert len({arm.config for arm in found}) == len({arm.name for arm in found}) == len(found)
    assert all(arm.config.dimension == dimension for arm in found)
    floats = [arm.floats for arm in found]
    assert floats == sorted(floats) and floats[0] <= 128
    assert all(arm.source.vector_dimension >= arm.floats for arm in found)
    assert FDEConfig(dimension=dimension) in {arm.config for arm in found}


@pytest.mark.parametrize("floats", [7, 64, 130])
@pytest.mark.parametrize("storage", STORAGES, ids=lambda storage: storage.name)
def test_sizes_are_those_that_searches_tell(storage: object, floats: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, floats)).astype(np.float32)
    search = storage.search(floats)  # type: ignore[attr-defined]
    search.add(np.arange(300), vectors)
    if isinstance(search, PQSearch):
        search.learn()
    assert search.info()["bytes_per_vector"] == storage.size(floats)  # type: ignore[attr-defined]


def test_size_in_a_graph() -> None:
    graph = HNSWSearch(40, m=24)
    assert STORAGES[0].size(40, 24) == graph.info()["bytes_per_vector"]
    assert STORAGES[1].size(40, 24) == STORAGES[1].size(40)


def test_the_cheapest_graph_that_finds_enough() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(size=(300, 8)).astype(np.float32)
    settings, share = choose_graph(easy, easy[:20], 20)
    assert settings == {"m": 16, "ef": 100} and share >= 0.98


def test_a_graph_never_walks_with_fewer_than_candidates() -> None:
    vectors = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    settings, _ = choose_graph(vectors, vectors[:5], 250, [16])
    assert settings["m"] == 16 and settings["ef"] >= 250
