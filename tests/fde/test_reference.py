"""The preset "reference": FDEs and draws of the C++ program.

They are from golden files and from muvfde.
"""

import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from builders.muvfde import muvfde_fdes
from builders.paths import GOLDEN
from builders.token_collections import assert_close

from muvera import FDEConfig, FDEEncoder
from muvera.fde.reference import count_sketch, standard_normals

pytestmark = pytest.mark.golden


def config_of(case: dict[str, Any]) -> FDEConfig:
    """Return our configuration of a case.

    The program uses signed seeds modulo 2**32.
    """
    final = case["final_dimension"] or None
    return FDEConfig.preset(
        "reference", case["dimension"], num_repetitions=case["num_repetitions"],
        num_simhash_projections=case["num_simhash_projections"], projection=case["kind"],
        projection_dimension=case["projection_dimension"] or None, fill_empty_partitions=case["fill"],
        final_projection=final and "count_sketch", final_projection_dimension=final,
        seed=case["seed"] % 2**32,
    )  # fmt: skip


def our_fdes(config: FDEConfig, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoder = FDEEncoder(config)
    return encoder.encode_documents(tokens)[0], encoder.encode_queries(tokens)[0]


def cases_of_the_program() -> list[dict[str, Any]]:
    with np.load(GOLDEN / "muvfde.npz") as golden:
        return [json.loads(str(text)) for text in golden["settings"]]


@pytest.mark.parametrize("number", range(len(cases_of_the_program())))
def test_golden_vectors_of_the_program(number: int) -> None:
    with np.load(GOLDEN / "muvfde.npz") as golden:
        config, tokens = config_of(cases_of_the_program()[number]), golden[f"tokens_{number}"]
        for ours, side in zip(our_fdes(config, tokens), ("document", "query"), strict=True):
            assert_close(ours, golden[f"{side}_{number}"])
    # The program reads out of bounds with fill and returns NaN for k = 0.
    assert not any(fde.any() for fde in our_fdes(config, tokens[:0]))


@pytest.mark.skipif(find_spec("muvfde") is None, reason="muvfde is not installed")
def test_muvfde() -> None:
    cases = cases_of_the_program()
    cases.append({**cases[-1], "num_simhash_projections": 2, "final_dimension": 1_000_003})
    for case in cases:
        tokens = np.random.default_rng(0).standard_normal((9, case["dimension"])).astype(np.float32)
        tokens[4] = 0  # on every hyperplane
        for ours, theirs in zip(our_fdes(config_of(case), tokens), muvfde_fdes(tokens, case), strict=True):
            assert_close(ours, theirs)


# -- draws of libstdc++, from a C++ program -----------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1])
def test_normals_of_libstdcxx(seed: int) -> None:
    with np.load(GOLDEN / "libstdcxx.npz") as golden:
        wanted = golden[f"normals_{seed}"]
    drawn = standard_normals(seed, len(wanted))
    assert drawn.dtype == np.float32
    # glibc's logf is off by one unit for some arguments, and later operations carry
    # that on.
    assert np.abs(drawn.view(np.int32).astype(np.int64) - wanted.view(np.int32)).max() <= 3
    assert np.mean(drawn == wanted) > 0.98
    for count in (0, 1, 2, 7):
        np.testing.assert_array_equal(standard_normals(seed, count), drawn[:count])
    np.testing.assert_array_equal(standard_normals(seed - 2**32, 10), drawn[:10])


@pytest.mark.parametrize(
    ("seed", "size"), [(1, 1), (1, 16), (2, 12), (3, 10_240), (4, 1_000_003), (5, 1_600_000_001)]
)
def test_sketches_of_libstdcxx(seed: int, size: int) -> None:
    with np.load(GOLDEN / "libstdcxx.npz") as golden:
        wanted = golden[f"sketch_{seed}_{size}"]
    targets, signs = count_sketch(seed, len(wanted), size)
    np.testing.assert_array_equal(targets, wanted[:, 0])
    np.testing.assert_array_equal(signs, wanted[:, 1])
