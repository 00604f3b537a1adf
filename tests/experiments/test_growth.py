"""Documents made of real ones, exact best ones of many, and what is measured of an index of them."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.bench import growth
from experiments.bench.grown_documents import BLOCK, LONGEST, SHORTEST, GrownDocuments
from experiments.datasets.collection import Collection, tokens_checksum
from muvera import MultiVectors, chamfer_matrix


@pytest.fixture(scope="module")
def real() -> MultiVectors:
    """Documents whose tokens vary less within one than among all."""
    rng = np.random.default_rng(0)
    centers = np.repeat(rng.standard_normal((40, 8)), 9, axis=0)
    centers[:, 0] += 2
    tokens = centers + 0.7 * rng.standard_normal((360, 8))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return MultiVectors.from_flat(tokens.astype(np.float32), [9] * 40)


def joined(documents: GrownDocuments, stop: int, start: int = 0) -> MultiVectors:
    return MultiVectors.concatenate(list(documents.batches(stop, start)))


def test_a_document_is_a_function_of_its_number_and_the_seed(real: MultiVectors) -> None:
    documents = GrownDocuments(real)
    few, many = joined(documents, BLOCK + 3), joined(documents, BLOCK + 40, start=7)
    assert (len(few), few.ids.tolist()) == (BLOCK + 3, list(range(BLOCK + 3)))
    assert many.ids.tolist() == list(range(7, BLOCK + 40))
    for a, b in zip(few[7:], many, strict=False):
        np.testing.assert_array_equal(a, b)
    one = next(documents.batches(BLOCK + 3, threads=1))
    np.testing.assert_array_equal(one.tokens, few[:BLOCK].tokens)
    np.testing.assert_allclose(np.asarray(few[3], np.float32), real[3], atol=1e-3)
    assert set(few.lengths[40:].tolist()) == set(range(SHORTEST, LONGEST + 1))
    other = next(GrownDocuments(real, seed=1).batches(60, 40))
    assert not np.array_equal(other[0][:5], few[40][:5])


def test_made_documents_vary_as_real_ones_do(real: MultiVectors) -> None:
    """Variance of documents' means and of tokens about them; 4,000 documents estimate it to some per cent."""

    def variances(texts: MultiVectors) -> tuple[float, float]:
        means = np.stack([np.asarray(text, np.float32).mean(axis=0) for text in texts])
        within = np.concatenate(
            [np.asarray(text, np.float32) - mean for text, mean in zip(texts, means, strict=True)]
        )
        return float(means.var(axis=0).sum()), float((within**2).sum(axis=1).mean())

    between, within = variances(real)
    made = joined(GrownDocuments(real), 4000)[40:]
    norms = np.linalg.norm(np.asarray(made.tokens, np.float32), axis=1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)
    found = variances(made)
    assert found[0] == pytest.approx(between, rel=0.25)  # these have ten times the tokens, and length 1 again
    assert found[1] == pytest.approx(within, rel=0.25)


def collection_of(real: MultiVectors) -> Collection:
    queries = MultiVectors.from_arrays([real[i][:3] for i in range(6)])
    names = [str(i) for i in range(40)]
    return Collection("small", real, queries, tokens_checksum(real, queries), names, names[:6])


def test_exact_best_documents_go_on_where_they_were(
    real: MultiVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "_KEPT_AFTER", 1)
    collection = collection_of(real)
    whole = chamfer_matrix(collection.queries, joined(GrownDocuments(real), 5000))
    expected = np.argsort(-whole, axis=1, kind="stable")[:, : growth.K]
    growth.best_documents(collection, collection.queries, 300, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["300.npz"]
    read: list[tuple[int, int]] = []
    batches = GrownDocuments.batches

    def noted(self: GrownDocuments, stop: int, start: int = 0) -> Any:
        read.append((start, stop))
        return batches(self, stop, start)

    monkeypatch.setattr(GrownDocuments, "batches", noted)
    np.testing.assert_array_equal(
        growth.best_documents(collection, collection.queries, 5000, tmp_path), expected
    )
    assert read == [(300, 5000)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["300.npz", "5000.npz"]
    growth.best_documents(collection, collection.queries, 5000, tmp_path)
    assert read[1:] == [(5000, 5000)]


def test_a_size_is_measured_once(real: MultiVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "load_collection", lambda path: path)

    class Process:
        """In this process, for the material is here."""

        exitcode = 0

        def __init__(self, target: Any, args: Any) -> None:
            self.start = lambda: target(*args)

        def join(self) -> None:
            """Nothing is to be waited for."""

    context = type("Context", (), {"Process": Process})
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: context)
    settings = growth.GrowthSettings("small", encoder="mean", judged=3)
    path: Any = collection_of(real)
    found = [growth.measure_size(path, settings, count, tmp_path) for count in (400, 800)]
    again = growth.measure_size(path, settings, 800, tmp_path)
    assert again == found[1] == json.loads(json.dumps(found[1]))
    assert not list(tmp_path.glob("*.index"))
    other = growth.measure_size(path, replace(settings, judged=2), 400, tmp_path)  # builds it again
    assert other["build_seconds"] != found[0]["build_seconds"]
    assert other["add_seconds"] == found[0]["add_seconds"]
    assert found[1]["quick_recall"] > 0.9
    assert 0 < found[1]["save_bytes"] < 2 * found[1]["disk_bytes"] + found[1]["exact_bytes"] * 3
    alone = growth.measure_size(path, replace(settings, keep_exact=False), 400, tmp_path)
    assert alone["exact_bytes"] == 0 < alone["quick_recall"]
