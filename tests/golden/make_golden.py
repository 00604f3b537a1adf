"""Make golden files of vectors: ``python tests/golden/make_golden.py NAME ...``.

=========  ==========================================================================================
ours       FDEs of this library's own settings, which show every change to them: ``tokens`` and ``lengths``
           of a collection, ``settings`` (a JSON text per case), their ``hashes``, and ``documents_i`` and
           ``queries_i`` of case i.  Make it again only if FDEs are meant to change: stored FDEs cannot be
           compared with new ones
muvfde     FDEs of the PyPI package muvfde 0.0.9, a binding of the C++ reference (GCC 14.2's libstdc++):
           ``settings``, a JSON text per case, and ``tokens_i``, ``document_i`` and ``query_i`` of case i
libstdcxx  draws of a C++ program, ``libstdcxx_draws.cc`` (g++ 12.4, glibc 2.41, ``-O2``):
           ``normals_SEED`` and ``sketch_SEED_SIZE``, pairs in rows
=========  ==========================================================================================

The committed files were made by the versions in parentheses.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from builders.muvfde import muvfde_fdes  # noqa: E402

from muvera import FDEConfig, FDEEncoder, MultiVectors  # noqa: E402

#: Every projection, a final projection, with and without blocks.
WHOLE: Any = {"split_mean": False, "document_cells": "unit"}
SPLIT: Any = {"split_mean": True, "document_cells": "length"}
OUR_CASES = [
    FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=2, **WHOLE),
    FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=2, projection="identity", **WHOLE),
    FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=5,
              projection_dimension=5, **WHOLE),
    FDEConfig.preset("paper", 96, num_repetitions=3, num_simhash_projections=3),
    FDEConfig.preset("paper", 96, num_repetitions=3, projection="count_sketch",
                     final_projection_dimension=60),
    FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=2, **SPLIT),
]  # fmt: skip

#: Hyperplanes, projection and its columns, filling, and floats after the final projection of each case.
MUVFDE_CASES = [
    (0, "identity", 0, False, 0),
    (1, "count_sketch", 3, True, 0),
    (3, "identity", 0, True, 0),
    (4, "count_sketch", 8, False, 0),
    (5, "count_sketch", 4, True, 0),
    (4, "identity", 0, True, 100),
    (3, "count_sketch", 12, True, 33),
]


def ours() -> dict[str, np.ndarray]:
    """Return FDEs of this library."""
    rng = np.random.default_rng(20240529)
    lengths = np.array([7, 1, 0, 12, 3])
    tokens = (rng.standard_normal((lengths.sum(), 96)) + 0.5).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    documents = MultiVectors.from_flat(tokens, lengths)
    out: dict[str, Any] = {"tokens": tokens, "lengths": lengths}
    for i, config in enumerate(OUR_CASES):
        encoder = FDEEncoder(config).fit(documents)
        out[f"documents_{i}"] = encoder.encode_documents(documents)
        out[f"queries_{i}"] = encoder.encode_queries(documents)
    out["settings"] = np.array([json.dumps(config.to_dict()) for config in OUR_CASES])
    out["hashes"] = np.array([config.hash for config in OUR_CASES])
    return out


def muvfde() -> dict[str, np.ndarray]:
    """Return FDEs of muvfde."""
    out: dict[str, np.ndarray] = {}
    settings = []
    for i, (k, kind, p, fill, final) in enumerate(MUVFDE_CASES):
        case: dict[str, Any] = {
            "dimension": 12,
            "num_repetitions": 3,
            "num_simhash_projections": k,
            "kind": kind,
            "projection_dimension": p,
            "fill": fill,
            "final_dimension": final,
            "seed": [1, 42, 2**31 - 3, -1][i % 4],
        }
        settings.append(json.dumps(case))
        tokens = np.random.default_rng(i).standard_normal((7, 12)).astype(np.float32)
        tokens[3] = 0  # on every hyperplane
        out[f"tokens_{i}"] = tokens
        out[f"document_{i}"], out[f"query_{i}"] = muvfde_fdes(tokens, case)
    return {"settings": np.array(settings), **out}


def libstdcxx() -> dict[str, np.ndarray]:
    """Return draws of libstdc++."""
    out: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "draws"
        subprocess.run(["g++", "-O2", "-o", program, HERE / "libstdcxx_draws.cc"], check=True)

        def run(*arguments: object) -> bytes:
            return subprocess.run([program, *map(str, arguments)], check=True, capture_output=True).stdout

        for seed in (0, 1, 42, 2**32 - 1):
            out[f"normals_{seed}"] = np.frombuffer(run("normals", seed, 501), "<f4")
        # The last size redraws a quarter of its integers, the others almost none.
        for seed, size in ((1, 1), (1, 16), (2, 12), (3, 10_240), (4, 1_000_003), (5, 1_600_000_001)):
            out[f"sketch_{seed}_{size}"] = np.frombuffer(run("sketch", seed, 200, size), "<i4").reshape(-1, 2)
    return out


MAKERS = {"ours": ours, "muvfde": muvfde, "libstdcxx": libstdcxx}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        arrays: dict[str, Any] = MAKERS[name]()
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
