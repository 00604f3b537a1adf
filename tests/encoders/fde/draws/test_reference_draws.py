"""Our draws for the C++ reference, through the oracle, against muvfde, live and golden."""

import itertools
import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from builders import peer_oracles as oracle
from builders.paths import GOLDEN
from builders.peer_programs import muvfde_fdes, needs_muvfde, reference_cases

from muvera.encoders.fde.draws import reference
from muvera.encoders.fde.draws.sizes import DrawSizes

FILE = GOLDEN / "muvfde.npz"

# float32 sums of at most a few dozen terms, relative to the largest entry.
TOLERANCE = 2e-6


def ours(tokens: np.ndarray, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Document and query FDE of the oracle on our draws."""
    sizes = DrawSizes(**{field.name: settings[field.name] for field in fields(DrawSizes)})
    planes = reference.hyperplanes(sizes)
    inner = reference.projections(sizes, kind=settings["kind"])
    final = None
    if settings["final_dimension"]:
        width = tokens.shape[1] if inner is None else sizes.projection_dimension
        targets, signs = reference.final_count_sketch(
            input_dimension=sizes.num_repetitions * 2**sizes.num_simhash_projections * width,
            final_dimension=settings["final_dimension"],
            seed=settings["seed"],
        )
        final = (targets, signs, settings["final_dimension"])
    document = oracle.reference_document(tokens, planes, inner, fill=settings["fill"], final=final)
    return document, oracle.reference_query(tokens, planes, inner, final)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


CASES = reference_cases(
    [("identity", 0), ("count_sketch", 7), ("count_sketch", 16)], [(16, 1), (33, 42), (128, 2**31 - 8)]
)


@needs_muvfde
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(str(v) for v in c.values()))
def test_oracle_equals_muvfde(case: dict[str, Any]) -> None:
    rng = np.random.default_rng([case["num_simhash_projections"], case["dimension"]])
    tokens = rng.standard_normal((9, case["dimension"])).astype(np.float32)
    tokens[4] = 0
    document, query = muvfde_fdes(tokens, case)
    our_document, our_query = ours(tokens, case)
    assert_close(our_document, document)
    assert_close(our_query, query)


@needs_muvfde
def test_large_final_dimension_tells_the_integer_algorithm() -> None:
    """At a million targets, GCC 10's division and GCC 11's multiplication rarely agree."""
    case = {**CASES[0], "num_simhash_projections": 2, "final_dimension": 1_000_003}
    tokens = np.random.default_rng(0).standard_normal((9, 16)).astype(np.float32)
    document, query = muvfde_fdes(tokens, case)
    our_document, our_query = ours(tokens, case)
    assert_close(our_document, document)
    assert_close(our_query, query)


@needs_muvfde
def test_empty_document_without_fill() -> None:
    nothing = np.zeros((0, 16), dtype=np.float32)
    for k in (0, 2):
        case = {**CASES[0], "num_simhash_projections": k}
        document, query = muvfde_fdes(nothing, case)
        our_document, our_query = ours(nothing, case)
        np.testing.assert_array_equal(our_document, document)
        np.testing.assert_array_equal(our_query, query)


def test_golden() -> None:
    with np.load(FILE) as golden:
        for i, text in enumerate(golden["settings"]):
            document, query = ours(golden[f"tokens_{i}"], json.loads(str(text)))
            assert_close(document, golden[f"document_{i}"])
            assert_close(query, golden[f"query_{i}"])


def test_a_token_agrees_with_its_own_cell() -> None:
    """A wrong inverse of the Gray code passes for k < 3 and fails here."""
    for k in range(8):
        for bits in itertools.product([0, 1], repeat=k):
            assert oracle.gray_bits(oracle.gray_cell(list(bits)), k) == list(bits)
            assert oracle.binary_bits(oracle.binary_cell(list(bits)), k) == list(bits)


def test_repetitions_are_independent_of_their_number() -> None:
    sizes = DrawSizes(
        dimension=8, num_repetitions=2, num_simhash_projections=3, projection_dimension=8, seed=5
    )
    few, many = (reference.hyperplanes(replace(sizes, num_repetitions=n)) for n in (2, 4))
    np.testing.assert_array_equal(few, many[:2])
    # The next seed is the same sequence from its second repetition on.
    shifted = reference.hyperplanes(replace(sizes, num_repetitions=3, seed=6))
    np.testing.assert_array_equal(shifted, many[1:])


def test_sketch_has_one_sign_per_coordinate() -> None:
    sizes = DrawSizes(
        dimension=40, num_repetitions=3, num_simhash_projections=2, projection_dimension=8, seed=1
    )
    sketch = reference.projections(sizes, kind="count_sketch")
    assert sketch is not None
    assert sketch.shape == (3, 8, 40)
    np.testing.assert_array_equal(np.abs(sketch).sum(axis=1), np.ones((3, 40)))
