"""Make ``tests/golden/index/``: a small saved index a backend and an encoder, which every later version reads.

    PYTHONPATH=.:tests python -m builders.golden_indexes [NAME ...]

Each folder holds documents with string ids, of which some were deleted and some replaced after the first
save, so that its tokens lie in two generations.  ``index/queries`` holds queries, and ``index/NAME.json``
what the index answered when it was made.  Add a folder for a new backend, encoder or format version; make
an old one again only while nothing was released that wrote its version (docs/index-format.md).
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from builders.paths import ROOT
from muvera import FDEConfig, LearnedConfig, MultiVectors, MuveraIndex
from muvera.encoders.base import EncoderConfig
from muvera.encoders.moments.config import MeanConfig
from muvera.encoders.registry import make_encoder

FOLDER = ROOT / "tests" / "golden" / "index"

DIMENSION, K, CANDIDATES = 8, 5, 12

_FDE: dict[str, Any] = {"num_repetitions": 3, "num_simhash_projections": 2, "projection_dimension": 4}
_SMALL: dict[str, Any] = {"vector_dimension": 24, "num_landmarks": 48, "num_features": 48}

ENCODERS: dict[str, EncoderConfig] = {
    "fde": FDEConfig(dimension=DIMENSION, **_FDE),
    "compact": FDEConfig(dimension=DIMENSION, compact_dimension=24, **_FDE),
    "learned": LearnedConfig(dimension=DIMENSION, **_SMALL),
    "mean": MeanConfig(dimension=DIMENSION),
}

BACKENDS: dict[str, dict[str, Any]] = {
    "tokens": {"exact_tokens": 10_000},
    "exact": {"backend": "exact", "exact_tokens": 0},
    "int8": {"backend": "int8", "exact_tokens": 0},
    "pq": {"backend": "pq", "pq": {"subvector_size": 4, "rescore": 20}, "exact_tokens": 0},
    "codes": {"backend": "exact", "tokens": "2bit", "exact_tokens": 0},
    "codes-and-tokens": {
        "backend": "exact",
        "tokens": {"codec": "int8", "keep_exact": True},
        "exact_tokens": 0,
    },
    "hnsw": {"backend": "hnsw", "hnsw": {"m": 4, "ef": 40}, "exact_tokens": 0},
    "usearch": {"backend": "usearch", "usearch": {"m": 4, "ef": 40}, "exact_tokens": 0},
    "usearch-int8": {
        "backend": "usearch",
        "usearch": {"m": 4, "ef": 40, "precision": "int8"},
        "exact_tokens": 0,
    },
}

#: Names to (backend, encoder).
CASES = {
    "tokens-fde": ("tokens", "fde"),
    "exact-mean": ("exact", "mean"),
    "usearch-learned": ("usearch", "learned"),
    "usearch-int8-learned": ("usearch-int8", "learned"),
    "codes-fde": ("codes", "fde"),
    "codes-and-tokens-fde": ("codes-and-tokens", "fde"),
    **{
        f"{backend}-{encoder}": (backend, encoder)
        for backend in ("exact", "int8", "pq", "hnsw")
        for encoder in ("fde", "compact", "learned")
    },
}


def documents(count: int) -> MultiVectors:
    """Documents around a few topics, one of them without tokens."""
    rng = np.random.default_rng(7)
    topics = rng.standard_normal((6, DIMENSION))
    lengths = rng.integers(1, 4, count)
    lengths[3] = 0
    tokens = np.repeat(topics[rng.integers(0, 6, count)], lengths, axis=0)
    tokens = tokens + 0.6 * rng.standard_normal(tokens.shape)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    names = [f"text {i}" if i % 7 else f"text {i} \u2713" for i in range(count)]
    return MultiVectors.from_flat(tokens.astype(np.float16), lengths, ids=names)


def queries() -> MultiVectors:
    """Single tokens and pairs of tokens of documents, disturbed."""
    rng = np.random.default_rng(8)
    texts = documents(40)
    picked = [texts[i] for i in (1, 5, 12, 20, 33)]
    return MultiVectors.from_arrays(
        [
            text.astype(np.float32) + 0.1 * rng.standard_normal(text.shape).astype(np.float32)
            for text in picked
        ]
    )


def make(name: str, folder: Path) -> None:
    """Write one index."""
    backend, encoder = CASES[name]
    texts = documents(300 if backend == "pq" else 40)  # codes are learned from 256
    config = ENCODERS[encoder]
    fitted = make_encoder(config).fit(documents(300))
    index = MuveraIndex.build(texts[:-4], config, encoder=fitted, threads=1, path=folder, **BACKENDS[backend])
    index.delete(texts.ids[[2, 9]])
    index.update(texts[[5]].with_ids(texts.ids[[6]]), threads=1)
    index.add(texts[-4:], threads=1)
    index.save(folder)
    (folder / ".lock").unlink(missing_ok=True)


def answers(index: MuveraIndex) -> list[dict[str, Any]]:
    """What an index answers to the queries."""
    return [
        ranking.to_dict()
        for ranking in index.search(MultiVectors.load(FOLDER / "queries"), K, candidates=CANDIDATES)
    ]


def main() -> None:
    """Write the folders."""
    FOLDER.mkdir(exist_ok=True)
    queries().save(FOLDER / "queries", overwrite=True)
    for name in sys.argv[1:] or CASES:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        make(name, FOLDER / name)
        found = answers(MuveraIndex.load(FOLDER / name))
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
