"""Size and time of a text index, before it is built."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

from muvera import TextIndex
from muvera.texts.estimate import expected_bytes, expected_seconds


def some_texts(count: int) -> list[str]:
    """Texts of 5 to 60 words from a vocabulary of 3,000."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, count)
    return [" ".join(f"word{i}" for i in rng.zipf(1.4, length) % 3000) for length in lengths]


@pytest.mark.parametrize("settings", [{}, {"tokens": "float16"}, {"tokens": "2bit"}, {"backend": "exact"}])
def test_expected_bytes_are_within_a_factor_of_one_and_a_half(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Of an index of 8 times as many texts as the sample."""
    texts, encoder = some_texts(1024), HashEncoder(64)
    TextIndex.build(texts, encoder, path=tmp_path / "index", vectors="mean", **settings)
    size = sum(file.stat().st_size for file in (tmp_path / "index").rglob("*") if file.is_file())
    expected = expected_bytes(texts, texts[::8], encoder, "mean", **settings)
    assert size / 1.5 < expected < 1.5 * size


def test_a_slow_encoder_encodes_few_texts_for_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is in proportion to the characters."""
    now = [0.0]
    monkeypatch.setattr("muvera.texts.estimate.time.perf_counter", lambda: now[0])

    class Slow(HashEncoder):
        def encode_documents(self, texts: Any) -> Any:
            now[0] += sum(map(len, texts)) / 1000
            return super().encode_documents(texts)

    texts = ["x" * 99] * 10_000
    expected = expected_seconds(texts, Slow(16))
    assert len(expected.sample) == 32
    assert 990 < expected.seconds < 1010
