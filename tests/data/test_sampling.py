"""Batches of documents, and a sample of them."""

import numpy as np
import pytest

from muvera import MultiVectors
from muvera.data import sampling
from muvera.data.sampling import DocumentSample, as_batches


def test_what_is_read_as_batches() -> None:
    one = MultiVectors.from_arrays([np.ones((2, 3)), np.ones((1, 3))])
    assert [len(batch) for batch in as_batches(one)] == [2]
    assert [len(batch) for batch in as_batches(iter([one, one]))] == [2, 2]
    assert [len(batch) for batch in as_batches([np.ones((2, 3))] * 5)] == [5]
    assert [len(batch) for batch in as_batches(np.ones((4, 2, 3)))] == [4]
    assert list(as_batches([])) == []


def test_a_sample_is_bounded_uniform_and_reads_all() -> None:
    many = [np.full((1, 2), i, np.float32) for i in range(1000)]
    taken = []
    for seed in range(60):
        sample = DocumentSample(512, seed, most=10)
        parts = [MultiVectors.from_arrays(many[i : i + 90]) for i in range(0, 1000, 90)]
        assert sum(len(batch) for batch in sample.sample_while_yielding(parts)) == 1000
        kept = sample.documents(2)
        assert len(kept) == len({float(row[0]) for row in kept.tokens}) == 10
        taken.append(kept.tokens[:, 0].mean())
    # 600 draws from 0..999: the mean's standard deviation is 12.
    assert abs(np.mean(taken) - 499.5) < 50


def test_a_sample_of_long_documents_is_smaller_and_still_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_TOKEN_BYTES", 100 * 8)
    # The later ones are ten times as long: of some hundred tokens' worth of them ten find room.
    many = [np.full((1 if i < 500 else 10, 2), i, np.float32) for i in range(1000)]
    late = []
    for seed in range(60):
        sample = DocumentSample(512, seed)
        passed = sample.sample_while_yielding([MultiVectors.from_arrays(many)])
        assert sum(len(batch) for batch in passed) == 1000
        kept = sample.documents(2)
        assert kept.num_tokens <= 100 and 10 <= len(kept) == len(
            set(kept.tokens[kept.offsets[:-1], 0].tolist())
        )
        late.append(float((kept.lengths == 10).mean()))
        again = DocumentSample(512, seed)
        for _ in again.sample_while_yielding(
            [MultiVectors.from_arrays(many[:77]), MultiVectors.from_arrays(many[77:])]
        ):
            pass
        assert again.documents(2).tokens.tobytes() == kept.tokens.tobytes()
    # Half of all are late; shrinking favors neither, but ends when enough long ones were dropped.
    assert 0.3 < np.mean(late) < 0.6
