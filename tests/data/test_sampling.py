"""Batches of documents, samples of them, and windows as queries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from muvera import MultiVectors
from muvera.data import batches
from muvera.data.batches import DocumentSample, pseudo_queries


def sampled(texts: list[np.ndarray], seed: int, batch: int, most: int = 4096) -> MultiVectors:
    sample = DocumentSample(512, seed, most)
    batches = [MultiVectors.from_arrays(texts[i : i + batch]) for i in range(0, len(texts), batch)]
    assert sum(len(part) for part in sample.sample_while_yielding(batches)) == len(texts)
    return sample.documents(2)


def test_a_sample_is_bounded_and_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [np.full((1, 2), i, np.float32) for i in range(1000)]
    samples = [sampled(texts, seed, 90, most=10).tokens[:, 0] for seed in range(60)]
    assert {len(set(sample.tolist())) for sample in samples} == {10}
    # 600 draws from 0..999: the mean's standard deviation is 12.
    assert abs(np.mean(samples) - 499.5) < 50
    monkeypatch.setattr(batches, "_TOKEN_BYTES", 100 * 8)
    # The later half is ten times as long: ten of them fit into a hundred tokens.
    texts = [np.full((1 if i < 500 else 10, 2), i, np.float32) for i in range(1000)]
    late = []
    for seed in range(60):
        sample = sampled(texts, seed, 1000)
        assert sample.num_tokens <= 100 and len(sample) >= 10
        assert len(sample) == len(set(sample.tokens[sample.offsets[:-1], 0].tolist()))
        assert sampled(texts, seed, 77).tokens.tobytes() == sample.tokens.tobytes()
        late.append(float((sample.lengths == 10).mean()))
    # Half of all are late; shrinking favors neither, but ends once enough long ones are
    # dropped.
    assert 0.3 < np.mean(late) < 0.6


@given(seed=seeds, length=st.integers(1, 12), count=st.integers(1, 9))
def test_windows_lie_in_their_documents(seed: int, length: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    documents = MultiVectors.from_arrays([rng.normal(size=(rng.integers(1, 9), 4)) for _ in range(9)])
    queries, sources = pseudo_queries(documents, count, length, rng)
    assert len(queries) == len(set(sources.tolist())) == count
    for query, source in zip(queries, sources, strict=True):
        text = documents[int(source)]
        assert len(query) == min(length, len(text))
        assert any(np.array_equal(text[i : i + len(query)], query) for i in range(len(text)))
