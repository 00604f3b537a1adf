"""Geometry of tokens whose geometry is known, and cells against a count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from muvera import MultiVectors
from muvera.diagnostics.geometry import cell_use, token_geometry


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def cone(rng: np.random.Generator, count: int, dimension: int, mean_cosine: float) -> np.ndarray:
    """Unit tokens around one direction: |mu|**2 / (|mu|**2 + |noise|**2) is their mean cosine."""
    noise = np.sqrt(1 / mean_cosine - 1) if mean_cosine else 1.0
    mu = unit(rng.normal(size=(1, dimension))) if mean_cosine else np.zeros((1, dimension))
    return unit(mu + noise * rng.normal(size=(count, dimension)) / np.sqrt(dimension))


@pytest.mark.parametrize("mean_cosine", [0.0, 0.3, 0.95])
def test_a_cone_is_measured(mean_cosine: float) -> None:
    """Margin .01: the norm of d coordinates varies by 1 / sqrt(2 d), which moves the mean by O(1 / d)."""
    geometry = token_geometry(cone(np.random.default_rng(3), 5000, 128, mean_cosine))
    assert geometry.mean_cosine == pytest.approx(mean_cosine, abs=0.01)
    # |mean|**2 is the mean cosine of all pairs, including a token with itself.
    itself = (1 - geometry.mean_cosine) / 5000
    assert geometry.mean_norm**2 == pytest.approx(geometry.mean_cosine + itself, abs=1e-9)
    # Off the axis the cone fills all dimensions.
    assert geometry.centered_effective_rank == pytest.approx(128 / (1 + 128 / 5000), rel=0.03)
    # About zero, every dimension has an equal part of 1 - c, and the axis has c in addition.
    part = (1 - mean_cosine) / 128
    expected = 1 / ((mean_cosine + part) ** 2 + 127 * part**2)
    assert geometry.effective_rank == pytest.approx(expected, rel=0.05)
    assert geometry.unit_norms


@pytest.mark.parametrize("spectrum", [np.ones(48), 0.8 ** np.arange(48), np.array([9.0, 1, 1, 1, 1])])
def test_the_participation_ratio_of_a_known_spectrum(spectrum: np.ndarray) -> None:
    """Margin 4 %: the standard deviation of an eigenvalue's square is sqrt(8 / n) = 2 %."""
    rng = np.random.default_rng(1)
    tokens = rng.normal(size=(20_000, len(spectrum))) * np.sqrt(spectrum)
    tokens = tokens @ np.linalg.qr(rng.normal(size=(len(spectrum),) * 2))[0]
    expected = pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=0.04)
    assert token_geometry(tokens).effective_rank == expected
    shift = 10 * rng.normal(size=len(spectrum))
    assert token_geometry(tokens + shift).centered_effective_rank == expected


@given(seed=seeds, count=st.integers(2, 30), dimension=st.integers(1, 9))
def test_cosines_are_those_of_all_pairs(seed: int, count: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(count, dimension)) * rng.uniform(0.1, 9, (count, 1))
    cosines = (unit(tokens) @ unit(tokens).T)[~np.eye(count, dtype=bool)]
    geometry = token_geometry(tokens)
    assert geometry.mean_cosine == pytest.approx(cosines.mean(), abs=1e-9)
    # A variance as a difference of squares loses half the digits.
    assert geometry.cosine_deviation == pytest.approx(cosines.std(), abs=1e-6)
    centered = tokens - tokens.mean(0)
    values = np.linalg.eigvalsh(centered.T @ centered)
    rank = values.sum() ** 2 / (values**2).sum()
    assert geometry.centered_effective_rank == pytest.approx(rank, rel=1e-6)


def test_norms_and_zero_vectors() -> None:
    geometry = token_geometry(np.array([[3.0, 4], [0, 0], [1, 0], [0, 2]]))
    assert geometry.norms == pytest.approx((1.0, 8 / 3, 5.0))
    assert (geometry.tokens, geometry.zero_tokens, geometry.unit_norms) == (3, 1, False)
    assert not token_geometry(np.array([[1.0, 0], [0, 0], [0, 1]])).unit_norms
    assert token_geometry(np.array([[1.003, 0], [0, 0.997]])).unit_norms
    with pytest.raises(ValueError, match=r"2 tokens .*1"):
        token_geometry(np.array([[0.0, 0], [1, 0]]))


@given(seed=seeds, bits=st.integers(0, 4), repetitions=st.integers(1, 3), centered=st.booleans())
def test_cells_are_those_of_a_count(seed: int, bits: int, repetitions: int, centered: bool) -> None:
    rng = np.random.default_rng(seed)
    texts = [rng.normal(size=(n, 5)).astype(np.float32) for n in (3, 0, 1, 7)]
    planes = rng.normal(size=(repetitions * bits, 5)).astype(np.float32)
    center = rng.normal(size=5).astype(np.float32) if centered else None
    used, effective = [], []
    for r in range(repetitions):
        rows = planes[r * bits : (r + 1) * bits]
        codes = [
            [tuple(row @ (token - (0 if center is None else center)) > 0 for row in rows) for token in text]
            for text in texts
        ]
        used += [len(set(code)) / 2**bits for code in codes if code]
        every = [code for text in codes for code in text]
        shares = np.array([every.count(code) / len(every) for code in set(every)])
        effective.append(2 ** -(shares * np.log2(shares)).sum())
    use = cell_use(MultiVectors.from_arrays(texts), planes, repetitions, center)
    assert use.cells == 2**bits
    assert use.used_per_document == pytest.approx(np.mean(used))
    assert use.effective_cells == pytest.approx(np.mean(effective))


def test_centering_spreads_a_cone_over_the_cells() -> None:
    rng = np.random.default_rng(2)
    tokens = cone(rng, 4000, 64, 0.8)
    documents = MultiVectors.from_flat(tokens, np.full(100, 40))
    planes = rng.normal(size=(20 * 4, 64))
    plain, centered = (cell_use(documents, planes, 20, center) for center in (None, tokens.mean(0)))
    assert plain.effective_cells < 8 < 15 < centered.effective_cells <= 16
    assert plain.used_per_document < centered.used_per_document
