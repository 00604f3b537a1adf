"""Measuring encoders: what is timed was done once before."""

from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real, queries_like_real
from numpy.typing import NDArray

from muvera import MeanConfig, MeanEncoder
from muvera.tuning.evaluate import Evaluator
from muvera.tuning.sample import draw_sample
from muvera.tuning.search_space import STORAGES, EncoderCandidate

pytestmark = pytest.mark.compiled("encodes a few hundred documents")


class _Recorder(MeanEncoder):
    """Keeps how many texts each call had."""

    calls: list[tuple[str, int]]

    def _encode(self, values: Any, side: Any, out: Any, threads: int | None) -> NDArray[np.float32]:
        self.calls.append((side, len(values)))
        return super()._encode(values, side, out, threads)


def test_nothing_is_timed_before_it_was_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = documents_like_real(120)
    filled = np.flatnonzero(documents.lengths > 0)
    sample = draw_sample(documents, filled, queries_like_real(documents, 40), len(filled), 0)
    evaluator = Evaluator(sample, 20, 1, lambda _: None)
    config = MeanConfig(dimension=documents.dimension)
    recorder = _Recorder(config)
    recorder.calls = []
    recorder.fit(sample.documents[sample.fitting], threads=1)
    monkeypatch.setattr(evaluator, "encoder", lambda _: recorder)
    mean = EncoderCandidate("mean", config, config)
    found = evaluator.measure(config, [(mean, storage) for storage in STORAGES[:2]])
    whole = [("documents", len(sample.documents)), ("queries", len(sample.selection.queries))]
    assert recorder.calls[:3] == [("documents", 1), ("queries", 1), whole[0]] and whole[1] in recorder.calls
    assert len(found) == 2 and all(each.encode_seconds > 0 and each.query_seconds > 0 for each in found)
