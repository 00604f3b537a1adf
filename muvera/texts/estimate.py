"""Estimate the size of a text index, and the time of a build, before the build."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..fde.config import FDEConfig
from ..index.settings import IndexSettings
from .encoders.base import TextEncoder, first_stage
from .text_index import TextIndex

# Texts to estimate from, and how many are encoded at a time.
_SAMPLE, _BATCH = 128, 16

# Seconds after which no more of these texts are encoded.
_SECONDS = 2.0

# Seconds for each character beside encoding: storing it, measuring recall, saving.  It
# matters only if an encoder is as quick as a table of vectors.
_STORING = 2e-6


class Estimate(NamedTuple):
    """What a build is expected to take."""

    seconds: float
    #: Texts that were encoded for this.
    sample: list[str]


def expected_seconds(texts: Sequence[str], encoder: TextEncoder) -> Estimate:
    """Return about how long a build takes, from encoding some of the texts."""
    chosen = list(texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE])
    encoder.encode_documents(chosen[:1])  # loads what is loaded only once
    begun = time.perf_counter()
    count = 0
    while count < len(chosen) and time.perf_counter() - begun < _SECONDS:
        encoder.encode_documents(chosen[count : count + _BATCH])
        count += _BATCH
    sample = chosen[:count]
    encoding = (time.perf_counter() - begun) * _characters(texts) / _characters(sample)
    return Estimate(encoding + _STORING * _characters(texts), sample)


def expected_bytes(
    texts: Sequence[str],
    sample: Sequence[str],
    encoder: TextEncoder,
    vectors: str | None = None,
    **settings: Any,
) -> float:
    """Return about how many bytes an index of the texts takes on disk.

    Indexes of a sample and of its half are saved.  Their difference is what more texts
    add: token vectors as the encoder and the settings store them, the texts, and their
    words.  Such small indexes have no vectors of the first stage, which are added.
    """
    sizes: list[int] = []
    counts: list[int] = []
    tokens = dimension = 0
    with tempfile.TemporaryDirectory(prefix="muvera-") as folder:
        for part in (sample[::2], sample):
            place = Path(folder) / str(len(sizes))
            facts = TextIndex.build(
                part, encoder, path=place, **{**settings, "exact_tokens": 1 << 62}
            ).index.info()
            tokens, dimension = facts.tokens, facts.dimension
            sizes.append(sum(file.stat().st_size for file in place.rglob("*") if file.is_file()))
            counts.append(_characters(part))
    slope = (sizes[1] - sizes[0]) / max(1, counts[1] - counts[0])
    size = sizes[1] + slope * (_characters(texts) - counts[1])
    if tokens * _characters(texts) / counts[1] > IndexSettings.of(**settings).exact_tokens:
        config = FDEConfig.preset(vectors or first_stage(encoder) or "fde", dimension)
        size += 4 * config.vector_dimension * len(texts)
    return size


def _characters(texts: Sequence[str]) -> int:
    """Return the number of characters, and of texts, which also take room."""
    return sum(map(len, texts)) + len(texts)
