"""Make the golden files of other MUVERA programs: ``python tests/golden/make_peer_golden.py [NAME ...]``.

=========  ==========================================================================================
muvfde     FDEs of the PyPI package muvfde 0.0.9, a binding of the C++ reference (GCC 14.2's libstdc++)
fastembed  FDEs of the PyPI package fastembed 0.9.1 (NumPy 2.4.6)
libstdcxx  draws of a C++ program, ``libstdcxx_draws.cc`` (g++ 12.4, glibc 2.41, ``-O2``)
weaviate   draws and FDEs of a Go program, ``weaviate_fde.go`` (Go 1.24.4, amd64).  Not Weaviate itself,
           which is not a library, but its rules on Go's own generator; when it was written, its FDEs were
           compared with those of Weaviate's encoder source and were the same to the bit.
=========  ==========================================================================================

In parentheses is what made the committed files.  A file of FDEs holds ``settings``, a JSON text per case,
and for case i ``tokens_i``, ``document_i`` and ``query_i``.
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

from builders.peer_programs import fastembed_encoder, muvfde_fdes  # noqa: E402


def tokens(seed: int, count: int, dimension: int) -> np.ndarray:
    """Gaussian tokens with a zero one among them, which lies on every hyperplane."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    drawn[count // 2] = 0
    return drawn


def muvfde() -> dict[str, np.ndarray]:
    """Golden FDEs of muvfde."""
    cases = [
        # k, kind, p, fill, final
        (0, "identity", 0, False, 0),
        (1, "count_sketch", 3, True, 0),
        (3, "identity", 0, True, 0),
        (4, "count_sketch", 8, False, 0),
        (5, "count_sketch", 4, True, 0),
        (4, "identity", 0, True, 100),
        (3, "count_sketch", 12, True, 33),
    ]
    out: dict[str, np.ndarray] = {}
    settings = []
    for i, (k, kind, p, fill, final) in enumerate(cases):
        case = {
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
        out[f"tokens_{i}"] = tokens(i, 7, 12)
        out[f"document_{i}"], out[f"query_{i}"] = muvfde_fdes(out[f"tokens_{i}"], case)
    return {"settings": np.array(settings), **out}


def fastembed() -> dict[str, np.ndarray]:
    """Golden FDEs of fastembed."""
    out: dict[str, np.ndarray] = {}
    settings = []
    for i, (k, p) in enumerate([(0, 4), (1, 3), (3, 12), (4, 4), (5, 5)]):
        case = {
            "dimension": 12,
            "num_repetitions": 3,
            "num_simhash_projections": k,
            "projection_dimension": p,
            "seed": [42, 7][i % 2],
        }
        settings.append(json.dumps(case))
        out[f"tokens_{i}"] = tokens(100 + i, 7, 12)
        encoder = fastembed_encoder(case)
        out[f"document_{i}"] = encoder.process_document(out[f"tokens_{i}"])
        out[f"query_{i}"] = encoder.process_query(out[f"tokens_{i}"])
    return {"settings": np.array(settings), **out}


def libstdcxx() -> dict[str, np.ndarray]:
    """Golden draws of libstdc++: ``normals_SEED`` and ``sketch_SEED_SIZE``, pairs in rows."""
    out: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "draws"
        subprocess.run(["g++", "-O2", "-o", program, HERE / "libstdcxx_draws.cc"], check=True)

        def run(*arguments: object) -> bytes:
            return subprocess.run([program, *map(str, arguments)], check=True, capture_output=True).stdout

        for seed in (0, 1, 42, 2**32 - 1):
            out[f"normals_{seed}"] = np.frombuffer(run("normals", seed, 501), "<f4")
        # The last size redraws a quarter of its integers, the others next to none.
        for seed, size in ((1, 1), (1, 16), (2, 12), (3, 10_240), (4, 1_000_003), (5, 1_600_000_001)):
            out[f"sketch_{seed}_{size}"] = np.frombuffer(run("sketch", seed, 200, size), "<i4").reshape(-1, 2)
    return out


def weaviate() -> dict[str, np.ndarray]:
    """Golden draws and FDEs by Weaviate's rules: ``hyperplanes_i`` and ``signs_i`` besides the FDEs."""
    out: dict[str, np.ndarray] = {}
    settings = []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "fde"
        subprocess.run(["go", "build", "-o", program, HERE / "weaviate_fde.go"], check=True)
        for i, (k, p, repetitions, d) in enumerate(
            [(4, 16, 2, 12), (0, 3, 2, 5), (3, 8, 3, 8), (5, 5, 2, 12)]
        ):
            case = {
                "dimension": d,
                "num_repetitions": repetitions,
                "num_simhash_projections": k,
                "projection_dimension": p,
            }
            settings.append(json.dumps(case))
            vectors = out[f"tokens_{i}"] = tokens(200 + i, 7, d)
            arguments = [str(program), *map(str, (k, p, repetitions, d))]
            result = subprocess.run(arguments, input=vectors.tobytes(), check=True, capture_output=True)
            length = repetitions * 2**k * p
            ends = np.cumsum([repetitions * k * d, repetitions * p * d, length])
            parts = np.split(np.frombuffer(result.stdout, "<f4"), ends)
            out[f"hyperplanes_{i}"] = parts[0].reshape(repetitions, k, d)
            out[f"signs_{i}"] = parts[1].reshape(repetitions, p, d).astype(np.int8)
            out[f"document_{i}"], out[f"query_{i}"] = parts[2:]
    return {"settings": np.array(settings), **out}


MAKERS = {"muvfde": muvfde, "fastembed": fastembed, "libstdcxx": libstdcxx, "weaviate": weaviate}

if __name__ == "__main__":
    for name in sys.argv[1:] or MAKERS:
        arrays: dict[str, Any] = MAKERS[name]()
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
