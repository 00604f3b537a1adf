"""What fitted encoders promise as a whole, by the documents that they find.

The real vectors are those of the bundled sample, with its questions and with windows of
its documents.  The made ones are noisy parts of documents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real, queries_like_real
from numpy.typing import NDArray

from muvera import FDEEncoder, MultiVectors, chamfer_matrix
from muvera.data.demo_sample import load_demo_sample

#: Documents of the sample: enough to separate its parts, and the fits take seconds.
DOCUMENTS = 400

#: The default with fewer landmarks and floats, which suit the collections.
SIZES: dict[str, dict[str, Any]] = {
    "real": {"num_landmarks": 128, "final_projection_dimension": 256},
    "made": {"num_landmarks": 256, "final_projection_dimension": 64},
}

#: The least that Chamfer's ten best lose if an encoder lacks a part.
PART = 0.02

#: Recalls of two fits that only rounding or the draw of windows distinguishes.
NOISE = 0.01

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Texts(NamedTuple):
    """Documents and queries."""

    documents: MultiVectors
    queries: MultiVectors

    def changed(self, change: Change) -> Texts:
        """Return the texts with `change` applied to all tokens."""
        sides = (
            MultiVectors.from_flat(change(np.asarray(side.tokens, np.float32)), side.lengths) for side in self
        )
        return Texts(*sides)


@cache
def texts(kind: str) -> Texts:
    if kind == "made":
        documents = documents_like_real(700, 3)
        documents = documents[np.flatnonzero(documents.lengths)]
        return Texts(documents, queries_like_real(documents, 150, 4))
    sample, rng = load_demo_sample(), np.random.default_rng(5)
    arrays = [np.asarray(text, np.float32) for text in sample.documents][:DOCUMENTS]
    windows = []
    for tokens in arrays:
        length = min(len(tokens), 12)
        start = int(rng.integers(0, len(tokens) - length + 1))
        noise = 0.05 * rng.standard_normal((length, tokens.shape[1]))
        windows.append(tokens[start : start + length] + noise.astype(np.float32))
    questions = [np.asarray(text, np.float32) for text in sample.queries]
    return Texts(MultiVectors.from_arrays(arrays), MultiVectors.from_arrays(questions + windows))


@cache
def best_of(kind: str) -> NDArray[np.int64]:
    """Return the ten best documents of each query by exact Chamfer."""
    return ten_best(chamfer_matrix(texts(kind).queries, texts(kind).documents))


def ten_best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.asarray(np.argsort(-scores, axis=1, kind="stable")[:, :10])


def fit(preset: str, values: Texts, **changes: Any) -> FDEEncoder:
    encoder = FDEEncoder.preset(preset, values.documents.dimension, **changes)
    return encoder.fit(values.documents)


@cache
def fitted(kind: str, preset: str = "fde", **changes: Any) -> FDEEncoder:
    sizes = SIZES[kind]
    if preset == "moments":
        sizes = {"final_projection_dimension": sizes["final_projection_dimension"]}
    elif preset != "fde":
        sizes = {}
    return fit(preset, texts(kind), **{**sizes, **changes})


def found(encoder: FDEEncoder, values: Texts) -> NDArray[np.float32]:
    """Return the products of all vectors, (queries, documents)."""
    documents, queries = encoder.encode_documents(values.documents), encoder.encode_queries(values.queries)
    return np.asarray(queries @ documents.T)


def recall(scores: NDArray[np.float32], best: NDArray[np.int64]) -> float:
    """Return the share of the ten best that are the ten best by `scores`."""
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, ten_best(scores), strict=True)]))


def recall_of(kind: str, encoder: FDEEncoder) -> float:
    return recall(found(encoder, texts(kind)), best_of(kind))


def weighted(encoder: FDEEncoder, part: str, factor: float) -> FDEEncoder:
    """Return an encoder whose products with one block are multiplied by `factor`."""
    learned = encoder.arrays["learned"]
    changed = replace(learned, **{part: getattr(learned, part) * np.float32(factor)})
    return FDEEncoder(encoder.config, **{**encoder.arrays, "learned": changed})


# -- parts -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("part", ["cell_scales", "triangle_scales", "sum_scales"])
def test_no_part_has_twice_or_half_of_its_weight(kind: str, part: str) -> None:
    """Cells, covariances and means: with its fitted weight, each finds the most.

    Without one of them, an encoder finds clearly less.
    """
    encoder = fitted(kind)
    whole = recall_of(kind, encoder)
    assert whole >= recall_of(kind, weighted(encoder, part, 2))
    assert whole >= recall_of(kind, weighted(encoder, part, 0.5))
    assert whole - PART > recall_of(kind, weighted(encoder, part, 0))


@pytest.mark.parametrize("kind", SIZES)
def test_the_default_finds_at_least_what_simpler_encoders_find(kind: str) -> None:
    """Each step of the default is left out once, with as many floats."""
    whole = recall_of(kind, fitted(kind))
    assert whole >= recall_of(kind, fitted(kind, "moments"))
    assert whole - PART > recall_of(kind, fitted(kind, moments="mean"))
    assert whole - PART > recall_of(kind, fitted(kind, "mean"))
    assert whole - PART > recall_of(kind, fitted(kind, "paper"))


def test_the_learned_projection_finds_more_than_the_columns_that_it_reads() -> None:
    """Its regression weighs 8,513 columns better than seven coefficients do."""
    plain = fitted("real", final_projection=None, final_projection_dimension=None)
    assert plain.config.vector_dimension == 8513
    assert recall_of("real", fitted("real")) - PART > recall_of("real", plain)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("final_projection_dimension", (32, 64, 256)),
        ("num_directions", (16, 64, 128)),
    ],
)
def test_more_of_a_part_finds_more(name: str, values: tuple[int, ...]) -> None:
    recalls = [recall_of("real", fitted("real", **{name: value})) for value in values]
    assert recalls == sorted(recalls)
    assert recalls[-1] - recalls[0] > PART


def test_more_documents_in_the_fit_find_more() -> None:
    values = texts("real")
    few, some = (fit("fde", Texts(values.documents[:n], values.queries), **SIZES["real"]) for n in (50, 150))
    recalls = [recall_of("real", encoder) for encoder in (few, some, fitted("real"))]
    assert recalls[0] + PART < recalls[1] and recalls[1] + PART < recalls[2]


def test_a_fit_to_queries_of_another_kind_finds_more_of_their_documents() -> None:
    """Queries that vary in three directions, unlike windows of documents."""
    values, rng = texts("made"), np.random.default_rng(0)
    asked = np.array(values.documents.tokens[rng.integers(0, values.documents.num_tokens, 1600)], np.float32)
    asked[:, 3:] = 0
    queries = MultiVectors.from_flat(asked, [4] * 400)
    narrow = Texts(values.documents, queries[:150])
    best = ten_best(chamfer_matrix(narrow.queries, narrow.documents))
    known = FDEEncoder(fitted("made").config).fit(values.documents, queries[150:])
    assert recall(found(known, narrow), best) - 0.1 > recall(found(fitted("made"), narrow), best)


# -- changes that must not matter ------------------------------------------------------


@pytest.mark.parametrize("preset", ["fde", "moments", "mean"])
def test_fits_turn_with_the_tokens(preset: str) -> None:
    """No coordinate is special, up to rounding to bytes."""
    values, encoder = texts("real"), fitted("real", preset)
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((128, 128)))[0].astype(np.float32)
    turned = values.changed(lambda tokens: tokens @ axes)
    scores = found(fit(preset, turned, **_sizes(encoder)), turned)
    assert abs(recall(scores, best_of("real")) - recall_of("real", encoder)) < NOISE
    for query, usual in zip(scores, found(encoder, values), strict=True):
        assert np.corrcoef(query, usual)[0, 1] > 0.99


@pytest.mark.parametrize("preset", ["fde", "moments", "mean"])
def test_fits_scale_with_the_tokens(preset: str) -> None:
    """Products grow by the square of the scale, up to rounding to bytes."""
    values, encoder = texts("real"), fitted("real", preset)
    scaled = values.changed(lambda tokens: 4 * tokens)
    scores = found(fit(preset, scaled, **_sizes(encoder)), scaled)
    wanted = 16 * found(encoder, values)
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("preset", ["fde", "moments", "mean"])
def test_the_order_of_documents_hardly_matters_to_a_fit(preset: str) -> None:
    """It decides which windows and landmarks are drawn."""
    values, encoder = texts("real"), fitted("real", preset)
    order = np.random.default_rng(2).permutation(len(values.documents))
    other = fit(preset, Texts(values.documents[order], values.queries), **_sizes(encoder))
    assert abs(recall_of("real", other) - recall_of("real", encoder)) < NOISE
    for query, usual in zip(found(other, values), found(encoder, values), strict=True):
        assert np.corrcoef(query, usual)[0, 1] > 0.95


def _sizes(encoder: FDEEncoder) -> dict[str, Any]:
    """Return the sizes of an encoder's steps, as arguments of its preset."""
    entries = encoder.config.to_dict()
    return {name: entries[name] for name in SIZES["real"] if entries.get(name) is not None}
