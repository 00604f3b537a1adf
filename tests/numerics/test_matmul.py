"""Products whose bits depend on the matrices alone."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real
from threadpoolctl import threadpool_info, threadpool_limits

from muvera import FDEConfig, FDEEncoder, LearnedConfig, LearnedEncoder
from muvera.encoders.matmul import one_blas_thread, product


@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 1, 1), (200, 300, 33), (391, 17, 5)])
def test_a_product_is_numpys_up_to_rounding(rows: int, depth: int, columns: int) -> None:
    rng = np.random.default_rng(rows)
    left, right = rng.normal(size=(rows, depth)), rng.normal(size=(depth, columns))
    found = product(left.astype(np.float32), right.astype(np.float32), 1)
    # Some roundings of 2**-24 of sums of `depth` products of size one.
    np.testing.assert_allclose(found, left @ right, atol=1e-5 * np.sqrt(depth) * 3)


def test_threads_and_order_in_memory_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(400, 400)).astype(np.float32) for _ in range(2))
    one = product(left, right, 1)
    assert product(left, right, 2).tobytes() == one.tobytes()
    assert product(np.asfortranarray(left), right.T.copy().T, 2).tobytes() == one.tobytes()
    assert product(left[7:9], right, 1).tobytes() == one[7:9].tobytes()


def test_blas_has_as_many_threads_as_before() -> None:
    def threads() -> list[int]:
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    before = threads()
    with pytest.raises(KeyError), one_blas_thread():
        assert set(threads()) == {1}
        raise KeyError
    assert threads() == before


@pytest.mark.parametrize("library", ["scipy.linalg", "milvus_lite"])
def test_a_blas_is_limited_though_it_is_loaded_later(library: str) -> None:
    if find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"{library} is not installed")
    code = f"""
import warnings
from muvera.encoders.matmul import one_blas_thread
with one_blas_thread():
    pass
warnings.simplefilter("ignore")
import {library}
from threadpoolctl import threadpool_info
with one_blas_thread():
    print(sorted({{one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}}))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=100
    )
    assert ran.stdout == "[1]\n"


def test_the_limit_ends_with_the_last_of_several_threads() -> None:
    def threads() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    with threadpool_limits(2, "blas"):
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        between = threads()
        second.__exit__(None, None, None)
        assert between == {1}
        assert threads() == {2}


@pytest.mark.compiled("fits with hundreds of landmarks")
def test_what_is_learned_does_not_depend_on_cores() -> None:
    documents = documents_like_real(120)
    dimension = documents.dimension
    small = LearnedConfig(dimension=dimension, vector_dimension=32, num_landmarks=600, num_features=400)
    compact = FDEConfig(dimension=dimension, compact_dimension=32, num_simhash_projections=3)
    makers: list[Callable[[], Any]] = [lambda: LearnedEncoder(small), lambda: FDEEncoder(compact)]
    for make in makers:
        found = []
        for cores in (1, 2):
            with threadpool_limits(cores, "blas"):
                found.append(make().fit(documents, threads=cores).encode_documents(documents).tobytes())
        assert found[0] == found[1]
