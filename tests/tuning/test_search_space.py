"""The encoders that are tried, and the bytes that storages say."""

import numpy as np
import pytest

from muvera import FDEConfig
from muvera.mips import HNSWSearch, HNSWSettings
from muvera.tuning.hnsw_settings import select_hnsw_settings
from muvera.tuning.plot import _COLORS
from muvera.tuning.search_space import STORAGES, encoder_candidates


@pytest.mark.parametrize("dimension", [1, 4, 16, 96, 128, 768])
def test_encoders_differ_and_are_valid_for_every_dimension(dimension: int) -> None:
    found = encoder_candidates(dimension)
    assert len({each.config for each in found}) == len({each.name for each in found}) == len(found)
    assert all(each.config.dimension == dimension for each in found)
    floats = [each.floats for each in found]
    assert floats == sorted(floats) and floats[0] <= 128
    assert all(each.source.vector_dimension >= each.floats for each in found)
    assert FDEConfig(dimension=dimension) in {each.config for each in found}


@pytest.mark.parametrize(("dimension", "covariance"), [(16, True), (128, True), (768, False)])
def test_every_kind_is_tried(dimension: int, covariance: bool) -> None:
    found = encoder_candidates(dimension)
    kinds = {each.kind for each in found}
    assert kinds - {"covariance"} == {"mean", "FDE", "compact", "learned"}
    assert ("covariance" in kinds) == covariance
    assert kinds <= set(_COLORS)
    for each in found:
        # Leading columns of the same vector: nothing but the size is another.
        size = "compact_dimension" if each.kind in ("compact", "covariance") else "vector_dimension"
        if each.source != each.config:
            assert {**each.source.to_dict(), size: 0} == {**each.config.to_dict(), size: 0}


@pytest.mark.parametrize("floats", [7, 64, 130])
@pytest.mark.parametrize("storage", STORAGES, ids=lambda storage: storage.name)
def test_sizes_are_those_that_searches_tell(storage: object, floats: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, floats)).astype(np.float32)
    search = storage.make_search(floats)  # type: ignore[attr-defined]
    search.add(np.arange(300), vectors)
    search.train()
    assert search.info()["bytes_per_vector"] == storage.bytes_per_vector(floats, 300)  # type: ignore[attr-defined]


def test_size_in_a_graph() -> None:
    graph = HNSWSearch(40, HNSWSettings(m=24))
    many = 100_000
    assert STORAGES[0].bytes_per_vector(40, many, 24) == graph.info()["bytes_per_vector"]
    assert STORAGES[1].bytes_per_vector(40, many, 24) == STORAGES[1].bytes_per_vector(40, 1)


def test_the_cheapest_graph_that_finds_enough() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(size=(300, 8)).astype(np.float32)
    settings, share = select_hnsw_settings(easy, easy[:20], 20)
    assert settings == {"m": 16, "ef": 100} and share >= 0.98


def test_a_graph_never_walks_with_fewer_than_candidates() -> None:
    vectors = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    settings, _ = select_hnsw_settings(vectors, vectors[:5], 250, [16])
    assert settings["m"] == 16 and settings["ef"] >= 250
