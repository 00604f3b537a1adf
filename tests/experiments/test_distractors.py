"""Candidates needed as distractors are added."""

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.__main__ import app
from experiments.bench.distractors import (
    KINDS,
    Kind,
    documents_of,
    fitted_encoders,
    measure,
    needed_rank,
)
from experiments.datasets.synthetic import synthetic_collection
from muvera import MultiVectors

NAMES = ("mean", "FDE, 640 + d + 1")


@pytest.mark.parametrize("kind", KINDS)
def test_real_documents_come_first_and_distractors_stay(kind: Kind) -> None:
    real = synthetic_collection("quick-wide", documents=60).documents
    few, more = (MultiVectors.concatenate(list(documents_of(real, kind, 0, stop))) for stop in (80, 100))
    assert len(few) == 80
    assert len(more) == 100
    np.testing.assert_array_equal(more[:60].tokens, real.tokens.astype(more.tokens.dtype))
    first = int(few.lengths[:80].sum()) if kind == "made" else int(few.lengths[:60].sum())
    np.testing.assert_array_equal(few.tokens[:first], more.tokens[:first])
    np.testing.assert_allclose(np.linalg.norm(more.tokens.astype(np.float32), axis=1), 1, atol=2e-3)


def test_noise_has_the_mean_and_covariance_of_the_tokens() -> None:
    real = synthetic_collection("quick-cone", documents=200).documents
    noise = MultiVectors.concatenate(list(documents_of(real, "noise", 200, 1200))).tokens.astype(np.float64)
    tokens = real.tokens.astype(np.float64)
    assert np.linalg.norm(noise.mean(axis=0) - tokens.mean(axis=0)) < 0.05
    assert np.linalg.norm(np.cov(noise.T) - np.cov(tokens.T)) < 0.35 * np.linalg.norm(np.cov(tokens.T))
    with pytest.raises(ValueError, match=r"^start must be 0 or 200, the number of real documents, got 7\.$"):
        next(documents_of(real, "noise", 7, 300))


def test_candidates_do_not_fall_where_noise_is_added() -> None:
    collection = synthetic_collection("quick-wide")
    encoders = fitted_encoders(collection.documents, NAMES)
    found = measure(collection, [150, 600], encoders, "noise")
    assert [(one.encoder, one.documents) for one in found] == [
        (NAMES[0], 150), (NAMES[0], 600), (NAMES[1], 150), (NAMES[1], 600),
    ]  # fmt: skip
    assert found[0].floats == 129
    for before, after in (found[:2], found[2:]):
        assert 10 <= before.candidates <= after.candidates <= 600
        assert before.distractors == 0
        assert 0 <= after.recall <= 1
    with pytest.raises(
        ValueError,
        match=r"^Every size must be at least 150, the number of documents of quick-wide, got 20\.$",
    ):
        measure(collection, [20], encoders)


def test_ranks() -> None:
    assert needed_rank(np.array([[1, 2, 3, 100]]), 0.75) == 3
    assert needed_rank(np.array([[1, 2, 3, 100]]), 0.76) == 100


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(ValueError, match="There is no encoder 'means'"):
        fitted_encoders(synthetic_collection("quick-wide").documents, ["means"])


def test_bad_input_is_one_sentence() -> None:
    result = CliRunner().invoke(app, ["distractors", "--collection", "nothing-of-this-name"])
    assert result.exit_code == 2
    assert "nothing-of-this-name" in result.output
