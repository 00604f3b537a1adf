"""Make ``tests/golden/index/``: a small saved index per backend and encoder.

Later versions must read them.

    PYTHONPATH=.:tests python -m builders.golden_indexes [NAME ...]

Each folder holds documents with string ids; some were deleted and some replaced after
the first save, so the tokens are in two generations.  ``index/queries`` holds queries,
``index/NAME.json`` the expected answers.  Add a folder for a new backend, encoder or
format version; make an old one again only if no released version wrote it
(docs/index-format.md).
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from builders.paths import ROOT
from muvera import FDEConfig, FDEEncoder, Landmarks, LearnedProjection, MultiVectors, MuveraIndex

FOLDER = ROOT / "tests" / "golden" / "index"

DIMENSION, K, CANDIDATES = 8, 5, 12

#: Small encoders by preset.
ENCODERS: dict[str, FDEConfig] = {
    "fde": FDEConfig(DIMENSION, cells=Landmarks(48), projection=LearnedProjection(24)),
    "moments": FDEConfig.preset("moments", DIMENSION, final_projection_dimension=24),
    "mean": FDEConfig.preset("mean", DIMENSION),
    "simhash": FDEConfig.preset(
        "simhash", DIMENSION, num_repetitions=3, num_simhash_projections=2, projection_dimension=4
    ),
}

BACKENDS: dict[str, dict[str, Any]] = {
    "tokens": {"exact_tokens": 10_000},
    "exact": {"backend": "exact", "exact_tokens": 0},
    "codes": {"backend": "exact", "tokens": "2bit", "exact_tokens": 0},
    "codes-and-tokens": {"backend": "exact", "tokens": "int8", "keep_exact": True, "exact_tokens": 0},
    "hnsw": {"backend": "hnsw", "hnsw": {"m": 4, "ef": 40}, "exact_tokens": 0},
    "scan": {"backend": "scan", "exact_tokens": 0},
}

#: Names of folders: backend and encoder.
CASES = (
    *("tokens-fde", "exact-fde", "exact-simhash", "exact-moments"),
    *("codes-mean", "codes-and-tokens-simhash", "hnsw-moments", "scan-fde"),
)


def documents(count: int) -> MultiVectors:
    """Return documents around a few topics, one of them without tokens."""
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
    rng = np.random.default_rng(8)
    texts = [documents(40)[i].astype(np.float32) for i in (1, 5, 12, 20, 33)]
    noise = [0.1 * rng.standard_normal(text.shape).astype(np.float32) for text in texts]
    return MultiVectors.from_arrays([text + own for text, own in zip(texts, noise, strict=True)])


def make(name: str, folder: Path) -> None:
    backend, _, encoder = name.rpartition("-")
    texts = documents(40)
    fitted = FDEEncoder(ENCODERS[encoder]).fit(documents(300))
    index = MuveraIndex.build(texts[:-4], fitted, threads=1, path=folder, **BACKENDS[backend])
    index.delete(texts.ids[[2, 9]])
    index.update(texts[[5]].with_ids(texts.ids[[6]]), threads=1)
    index.add(texts[-4:], threads=1)
    index.save(folder)
    (folder / ".lock").unlink(missing_ok=True)


def answers(index: MuveraIndex) -> list[dict[str, Any]]:
    texts = MultiVectors.load(FOLDER / "queries")
    return [ranking.to_dict() for ranking in index.search(texts, K, candidates=CANDIDATES)]


if __name__ == "__main__":
    queries().save(FOLDER / "queries", overwrite=True)
    for name in sys.argv[1:] or CASES:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        make(name, FOLDER / name)
        rankings = answers(MuveraIndex.load(FOLDER / name))
        (FOLDER / f"{name}.json").write_text(json.dumps(rankings, indent=1) + "\n")
