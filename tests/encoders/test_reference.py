"""The preset "reference" against the C++ program: golden files, its oracle, and muvfde if it is installed."""

import itertools
import json
import random
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from builders.fde_oracle import assert_close
from builders.muvfde import muvfde_fdes
from builders.paths import GOLDEN

from muvera import FDEConfig, FDEEncoder
from muvera.encoders.fde import reference_draws
from muvera.encoders.fde.reference_draws import count_sketch, standard_normals


def config_of(case: dict[str, Any]) -> FDEConfig:
    """Return our configuration of a case of the golden file."""
    changes: dict[str, Any] = {
        "num_repetitions": case["num_repetitions"],
        "num_simhash_projections": case["num_simhash_projections"],
        "projection": case["kind"],
        "projection_dimension": case["projection_dimension"] if case["kind"] == "count_sketch" else None,
        "fill_empty_partitions": case["fill"],
        "seed": case["seed"] % 2**32,  # the program uses signed seeds modulo 2**32
    }
    if case["final_dimension"]:
        changes |= {"final_projection": "count_sketch", "final_projection_dimension": case["final_dimension"]}
    return FDEConfig.preset("reference", case["dimension"], **changes)


def our_fdes(config: FDEConfig, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoder = FDEEncoder(config)
    return encoder.encode_documents(tokens)[0], encoder.encode_queries(tokens)[0]


def cases() -> Iterator[dict[str, Any]]:
    """Yield cells, projections and fill in all combinations, with drawn dimensions, seeds and final projections."""
    rng = random.Random(0)
    kinds = [("identity", 0), ("count_sketch", 7), ("count_sketch", 40)]
    for k, (kind, p), fill in itertools.product((0, 1, 3, 6), kinds, [False, True]):
        yield {
            "dimension": rng.choice([16, 33]), "num_repetitions": 3, "num_simhash_projections": k, "kind": kind,
            "projection_dimension": p, "fill": fill, "final_dimension": rng.choice([0, 50]),
            "seed": rng.choice([1, 42]),
        }  # fmt: skip


def tokens_for(case: dict[str, Any]) -> np.ndarray:
    """Return tokens with a zero token, which lies on every hyperplane."""
    rng = np.random.default_rng([case["num_simhash_projections"], case["dimension"]])
    tokens = rng.standard_normal((9, case["dimension"])).astype(np.float32)
    tokens[4] = 0
    return tokens


def oracle_fdes(case: dict[str, Any], tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return document and query FDE in slow float64 loops, from our draws.

    Cells are numbered by the inverse Gray code, the first hyperplane in the high bit; an empty document
    cell takes the first token whose bits differ least.
    """
    repetitions, k, dimension = case["num_repetitions"], case["num_simhash_projections"], case["dimension"]
    planes = reference_draws.hyperplanes(case["seed"], dimension, repetitions, k)
    planes = planes.reshape(repetitions, k, dimension).astype(np.float64)
    inner = None
    if case["kind"] == "count_sketch":
        inner = reference_draws.count_sketches(
            case["seed"], dimension, repetitions, case["projection_dimension"]
        )
    documents: list[np.ndarray] = []
    queries: list[np.ndarray] = []
    for r in range(repetitions):
        bits = tokens.astype(np.float64) @ planes[r].T > 0
        means, sums = np.zeros((2, 2**k, dimension))
        for cell in range(2**k):
            code = cell ^ (cell >> 1)
            cell_bits = [(code >> (k - 1 - j)) & 1 for j in range(k)]
            distances = (bits != cell_bits).sum(axis=1)
            inside = np.flatnonzero(distances == 0)
            if len(inside):
                sums[cell] = tokens[inside].astype(np.float64).sum(axis=0)
                means[cell] = sums[cell] / len(inside)
            elif case["fill"]:
                means[cell] = tokens[np.argmin(distances)]
        for blocks, cells in ((documents, means), (queries, sums)):
            blocks.append(cells.ravel() if inner is None else (cells @ inner[r].T).ravel())
    fdes = [np.concatenate(blocks) for blocks in (documents, queries)]
    if case["final_dimension"]:
        targets, signs = count_sketch(case["seed"], len(fdes[0]), case["final_dimension"])
        fdes = [np.bincount(targets, signs * fde, case["final_dimension"]) for fde in fdes]
    return fdes[0], fdes[1]


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: "-".join(map(str, case.values())))
def test_oracle(case: dict[str, Any]) -> None:
    tokens = tokens_for(case)
    for ours, wanted in zip(our_fdes(config_of(case), tokens), oracle_fdes(case, tokens), strict=True):
        assert_close(ours, wanted)
    # The program reads out of bounds with fill and returns NaN for k = 0.
    for fde in our_fdes(config_of(case), tokens[:0]):
        assert not fde.any()


def test_golden_vectors_of_the_program() -> None:
    with np.load(GOLDEN / "muvfde.npz") as golden:
        for i, text in enumerate(golden["settings"]):
            document, query = our_fdes(config_of(json.loads(str(text))), golden[f"tokens_{i}"])
            assert_close(document, golden[f"document_{i}"])
            assert_close(query, golden[f"query_{i}"])


@pytest.mark.skipif(find_spec("muvfde") is None, reason="muvfde is not installed")
def test_muvfde() -> None:
    large = {**next(cases()), "num_simhash_projections": 2, "final_dimension": 1_000_003}
    for case in [*cases(), large]:
        tokens = tokens_for(case)
        for ours, theirs in zip(our_fdes(config_of(case), tokens), muvfde_fdes(tokens, case), strict=True):
            assert_close(ours, theirs)


# -- draws of libstdc++, from a C++ program -----------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1])
def test_normals_of_libstdcxx(seed: int) -> None:
    with np.load(GOLDEN / "libstdcxx.npz") as golden:
        wanted = golden[f"normals_{seed}"]
    drawn = standard_normals(seed, len(wanted))
    assert drawn.dtype == np.float32
    # glibc's logf is off by one unit for some arguments, which the square root and the product carry on.
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
