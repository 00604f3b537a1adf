"""The presets against the programs that they reproduce: their oracles, golden files, and muvfde itself."""

import itertools
import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from builders import peer_oracles as peers
from builders.paths import GOLDEN
from builders.peer_programs import (
    fastembed_encoder,
    muvfde_fdes,
    needs_fastembed,
    needs_muvfde,
    reference_cases,
)

from muvera import FDEConfig, FDEEncoder, MultiVectors
from muvera.encoders.fde.config import PRESETS
from muvera.encoders.fde.draws import fastembed, reference, weaviate
from muvera.encoders.fde.draws.sizes import DrawSizes

# float32 sums of at most a few dozen terms, relative to the largest entry.
TOLERANCE = 3e-6


def assert_close(actual: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=TOLERANCE * max(1.0, np.abs(wanted).max()))


def tokens_for(case: dict[str, Any], count: int = 9) -> np.ndarray:
    """Tokens with a zero among them, which lies on every hyperplane."""
    rng = np.random.default_rng([count, case["num_simhash_projections"], case["dimension"]])
    tokens = rng.standard_normal((count, case["dimension"])).astype(np.float32)
    tokens[count // 2] = 0
    return tokens


def both_fdes(config: FDEConfig, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Document and query FDE of our encoder."""
    encoder = FDEEncoder(config)
    return encoder.encode_documents(tokens)[0], encoder.encode_queries(tokens)[0]


# -- reference --------------------------------------------------------------------


def reference_config(case: dict[str, Any]) -> FDEConfig:
    """Our configuration of one of muvfde's, in the golden file's names."""
    sketched = case["kind"] == "count_sketch"
    changes: dict[str, Any] = {
        "num_repetitions": case["num_repetitions"],
        "num_simhash_projections": case["num_simhash_projections"],
        "projection": case["kind"],
        "projection_dimension": case["projection_dimension"] if sketched else None,
        "fill_empty_partitions": case["fill"],
        # The program takes signed 32-bit seeds and uses them modulo 2**32.
        "seed": case["seed"] % 2**32,
    }
    if case["final_dimension"]:
        changes["final_projection"] = "count_sketch"
        changes["final_projection_dimension"] = case["final_dimension"]
    return FDEConfig.preset("reference", case["dimension"], **changes)


REFERENCE_CASES = reference_cases(
    [("identity", 0), ("count_sketch", 7), ("count_sketch", 40)], [(16, 1), (33, 42)]
)

each_reference_case = pytest.mark.parametrize(
    "case", REFERENCE_CASES, ids=lambda case: "-".join(map(str, case.values()))
)


@needs_muvfde
@each_reference_case
def test_reference_equals_muvfde(case: dict[str, Any]) -> None:
    tokens = tokens_for(case)
    for ours, theirs in zip(
        both_fdes(reference_config(case), tokens), muvfde_fdes(tokens, case), strict=True
    ):
        assert_close(ours, theirs)


@each_reference_case
def test_reference_equals_its_oracle(case: dict[str, Any]) -> None:
    tokens = tokens_for(case, 14)
    sizes = DrawSizes(**{field.name: case[field.name] for field in fields(DrawSizes)})
    planes = reference.hyperplanes(sizes)
    inner = reference.projections(sizes, kind=case["kind"])
    final = None
    if case["final_dimension"]:
        long = (
            3 * 2 ** case["num_simhash_projections"] * (case["dimension"] if inner is None else len(inner[0]))
        )
        targets, signs = reference.final_count_sketch(
            input_dimension=long, final_dimension=case["final_dimension"], seed=case["seed"]
        )
        final = (targets, signs, case["final_dimension"])
    document, query = both_fdes(reference_config(case), tokens)
    assert_close(document, peers.reference_document(tokens, planes, inner, fill=case["fill"], final=final))
    assert_close(query, peers.reference_query(tokens, planes, inner, final))


def test_reference_golden() -> None:
    with np.load(GOLDEN / "muvfde.npz") as golden:
        for i, text in enumerate(golden["settings"]):
            document, query = both_fdes(reference_config(json.loads(str(text))), golden[f"tokens_{i}"])
            assert_close(document, golden[f"document_{i}"])
            assert_close(query, golden[f"query_{i}"])


def test_reference_with_an_empty_document() -> None:
    """The program reads out of bounds with fill and answers NaN for k = 0; ours gives zeros."""
    for k, fill in itertools.product((0, 2), (False, True)):
        config = FDEConfig.preset(
            "reference", 16, num_simhash_projections=k, fill_empty_partitions=fill, projection="identity"
        )
        document, query = both_fdes(config, np.zeros((0, 16), np.float32))
        assert not document.any()
        assert not query.any()


def test_a_token_differs_from_its_own_cell_in_no_bit() -> None:
    """The error of several ports: an inverse of the Gray code that is right below k = 3 only."""
    config = FDEConfig.preset(
        "reference", 16, num_repetitions=2, num_simhash_projections=5, projection="identity"
    )
    encoder = FDEEncoder(config)
    for token in np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32):
        blocks = encoder.encode_queries(token[np.newaxis]).reshape(2, 32, 16)
        planes = encoder.matrices.dense_hyperplanes.reshape(2, 5, 16)
        for r in range(2):
            (cell,) = np.flatnonzero(blocks[r].any(axis=1))
            assert peers.gray_bits(int(cell), 5) == peers.sign_bits(token, planes[r])


# -- fastembed ----------------------------------------------------------------------


def fastembed_config(case: dict[str, Any]) -> FDEConfig:
    return FDEConfig.preset("fastembed", **case)


FASTEMBED_CASES = [
    {
        "dimension": dimension,
        "num_repetitions": 3,
        "num_simhash_projections": k,
        "projection_dimension": p,
        "seed": seed,
    }
    for k, (dimension, p), seed in itertools.product(
        range(7), [(16, 4), (16, 16), (33, 5), (33, 17)], [0, 42]
    )
]

each_fastembed_case = pytest.mark.parametrize(
    "case", FASTEMBED_CASES, ids=lambda case: "-".join(map(str, case.values()))
)


@needs_fastembed
@each_fastembed_case
def test_fastembed_equals_the_program(case: dict[str, Any]) -> None:
    tokens = tokens_for(case)
    program = fastembed_encoder(case)
    document, query = both_fdes(fastembed_config(case), tokens)
    assert_close(document, program.process_document(tokens))
    assert_close(query, program.process_query(tokens))


@each_fastembed_case
def test_fastembed_equals_its_oracle(case: dict[str, Any]) -> None:
    tokens = tokens_for(case, 14)
    planes, inner = fastembed.hyperplanes(DrawSizes(**case)), fastembed.projections(DrawSizes(**case))
    document, query = both_fdes(fastembed_config(case), tokens)
    assert_close(document, peers.fastembed_document(tokens, planes, inner))
    assert_close(query, peers.fastembed_query(tokens, planes, inner))


def test_fastembed_golden() -> None:
    with np.load(GOLDEN / "fastembed.npz") as golden:
        for i, text in enumerate(golden["settings"]):
            document, query = both_fdes(fastembed_config(json.loads(str(text))), golden[f"tokens_{i}"])
            assert_close(document, golden[f"document_{i}"])
            assert_close(query, golden[f"query_{i}"])


# -- weaviate -----------------------------------------------------------------------


@pytest.mark.parametrize(("k", "dimension", "p"), list(itertools.product(range(7), [12, 33], [3, 12, 16])))
def test_weaviate_equals_its_oracle(k: int, dimension: int, p: int) -> None:
    """p = 16 with 12 columns too: the program's p is 16 whatever the tokens' width."""
    case = {
        "dimension": dimension,
        "num_repetitions": 3,
        "num_simhash_projections": k,
        "projection_dimension": p,
    }
    tokens = tokens_for(case, 14)
    sizes = DrawSizes(seed=weaviate.DEFAULT_SEED, **case)
    planes, inner = weaviate.hyperplanes(sizes), weaviate.projections(sizes)
    document, query = both_fdes(FDEConfig.preset("weaviate", **case), tokens)
    assert_close(document, peers.weaviate_document(tokens, planes, inner))
    assert_close(query, peers.weaviate_query(tokens, planes, inner))


def test_weaviate_golden() -> None:
    with np.load(GOLDEN / "weaviate.npz") as golden:
        for i, text in enumerate(golden["settings"]):
            config = FDEConfig.preset("weaviate", **json.loads(str(text)))
            document, query = both_fdes(config, golden[f"tokens_{i}"])
            assert_close(document, golden[f"document_{i}"])
            assert_close(query, golden[f"query_{i}"])


# -- ours ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_the_programs_start_with(name: str) -> None:
    shapes = {
        "default": (40, 3, 16, 5249),
        "paper": (20, 5, 16, 10240),
        "reference": (20, 5, 16, 10240),
        "fastembed": (20, 5, 16, 10240),
        "weaviate": (10, 4, 16, 2560),
    }
    seeds = {"reference": reference.DEFAULT_SEED, "weaviate": weaviate.DEFAULT_SEED}
    config = FDEConfig.preset(name, 128)
    assert shapes[name] == (
        config.num_repetitions,
        config.num_simhash_projections,
        config.block_width,
        config.vector_dimension,
    )
    assert config.seed == seeds.get(name, 42)
    assert FDEEncoder(config).needs_fit == (name == "default")


def test_our_golden() -> None:
    """FDEs of the default and the paper's settings stay what they were; see the script beside the file."""
    with np.load(GOLDEN / "ours.npz") as golden:
        documents = MultiVectors.from_flat(golden["tokens"], golden["lengths"])
        for i, text in enumerate(golden["settings"]):
            config = FDEConfig.from_dict(json.loads(str(text)))
            assert str(golden["hashes"][i]) == config.hash
            encoder = FDEEncoder(config).fit(documents)
            assert_close(encoder.encode_documents(documents), golden[f"documents_{i}"])
            assert_close(encoder.encode_queries(documents), golden[f"queries_{i}"])
