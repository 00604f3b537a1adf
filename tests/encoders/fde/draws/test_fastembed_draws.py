"""Our draws for fastembed, alone and through the oracle, against the program, live and golden."""

import json

import numpy as np
import pytest
from builders import peer_oracles as oracle
from builders.paths import GOLDEN
from builders.peer_programs import fastembed_encoder, needs_fastembed

from muvera.encoders.fde.draws import fastembed
from muvera.encoders.fde.draws.sizes import DrawSizes

FILE = GOLDEN / "fastembed.npz"

# Float64 throughout but for our float32 scale of the projection.
TOLERANCE = 2e-7

CASES = [
    {
        "dimension": dimension,
        "num_repetitions": repetitions,
        "num_simhash_projections": k,
        "projection_dimension": p,
        "seed": seed,
    }
    for dimension, k, p, repetitions, seed in [
        (16, 0, 4, 3, 42),
        (16, 1, 16, 3, 42),
        (33, 3, 8, 2, 0),
        (16, 4, 5, 3, 7),
        (16, 6, 16, 2, 42),
        (128, 5, 16, 4, 42),
    ]
]

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))


def ours(tokens: np.ndarray, **settings: int) -> tuple[np.ndarray, np.ndarray]:
    """Document and query FDE of the oracle on our draws."""
    sizes = DrawSizes(**settings)
    planes, inner = fastembed.hyperplanes(sizes), fastembed.projections(sizes)
    return oracle.fastembed_document(tokens, planes, inner), oracle.fastembed_query(tokens, planes, inner)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


@needs_fastembed
@each_case
def test_draws_equal_fastembed(case: dict[str, int]) -> None:
    program = fastembed_encoder(case)
    p = case["projection_dimension"]
    planes = fastembed.hyperplanes(DrawSizes(**case))
    theirs = np.stack([simhash.simhash_vectors.T for simhash in program.simhash_projections])
    assert planes.dtype == np.float64
    np.testing.assert_array_equal(planes, theirs)
    inner = fastembed.projections(DrawSizes(**case))
    if p == case["dimension"]:
        assert inner is None
    else:
        assert inner is not None
        assert inner.dtype == np.float32
        signs = program.dim_reduction_projections.transpose(0, 2, 1)
        np.testing.assert_array_equal(inner, (signs / np.sqrt(p)).astype(np.float32))


@needs_fastembed
@each_case
@pytest.mark.parametrize("count", [1, 9, 60])
def test_oracle_equals_fastembed(count: int, case: dict[str, int]) -> None:
    d = case["dimension"]
    tokens = np.random.default_rng([count, d]).standard_normal((count, d)).astype(np.float32)
    tokens[count // 2] = 0
    program = fastembed_encoder(case)
    document, query = ours(tokens, **case)
    assert_close(document, program.process_document(tokens))
    assert_close(query, program.process_query(tokens))


def test_the_tie_rule_shows() -> None:
    """The lowest token index, which the other two programs take, gives another FDE on such data."""
    tokens = np.random.default_rng([9, 16]).standard_normal((9, 16)).astype(np.float32)
    sizes = DrawSizes(
        dimension=16, num_repetitions=2, num_simhash_projections=4, projection_dimension=16, seed=42
    )
    planes = fastembed.hyperplanes(sizes)
    identity = np.broadcast_to(np.eye(16), (2, 16, 16))
    theirs = oracle.fastembed_document(tokens, planes, identity)
    assert not np.allclose(theirs, oracle.weaviate_document(tokens, planes, identity))


@needs_fastembed
def test_an_empty_collection_is_an_error_on_both_sides() -> None:
    program = fastembed_encoder(CASES[0])
    nothing = np.zeros((0, 16), dtype=np.float32)
    with pytest.raises(ValueError, match="empty"):
        program.process_document(nothing)
    with pytest.raises(ValueError, match="empty"):
        oracle.fastembed_document(nothing, np.zeros((1, 0, 16)), None)


def test_golden() -> None:
    """Also tells a NumPy whose ``Generator`` draws other numbers than the one of the golden file."""
    with np.load(FILE) as golden:
        for i, text in enumerate(golden["settings"]):
            document, query = ours(golden[f"tokens_{i}"], **json.loads(str(text)))
            assert_close(document, golden[f"document_{i}"])
            assert_close(query, golden[f"query_{i}"])
