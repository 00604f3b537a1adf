"""Make golden files of vectors again, from their own inputs.

Run ``python tests/golden/make_golden.py NAME ...``.

=========  =============================================================================
ours       FDEs of this library's own settings, which show every change to them:
           ``tokens`` and ``lengths`` of a collection, ``settings`` (a JSON text per
           case), their ``hashes``, and ``documents_i`` and ``queries_i`` of case i.
           Make it again only if FDEs are meant to change: stored FDEs cannot be
           compared with new ones
fitted     the same of encoders whose fits use BLAS, one of each preset and of
           combinations: ``documents_i`` and ``queries_i`` are from the first 8 of 80
           texts
muvfde     FDEs of the PyPI package muvfde 0.0.9, a binding of the C++ reference (GCC
           14.2's libstdc++): ``settings``, a JSON text per case, and ``tokens_i``,
           ``document_i`` and ``query_i`` of case i
libstdcxx  draws of a C++ program, ``libstdcxx_draws.cc`` (g++ 12.4, glibc 2.41,
           ``-O2``): ``normals_SEED`` and ``sketch_SEED_SIZE``, pairs in rows
=========  =============================================================================

To add a case, add its inputs to the file first.
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


def ours(file: dict[str, Any], shown: int | None = None) -> None:
    """Replace the FDEs of this library, of the first `shown` texts."""
    documents = MultiVectors.from_flat(file["tokens"], file["lengths"])
    configs = [FDEConfig.from_dict(json.loads(setting)) for setting in file["settings"]]
    for i, config in enumerate(configs):
        encoder = FDEEncoder(config).fit(documents)
        file[f"documents_{i}"] = encoder.encode_documents(documents[:shown])
        file[f"queries_{i}"] = encoder.encode_queries(documents[:shown])
    file["settings"] = np.array([json.dumps(config.to_dict()) for config in configs])
    file["hashes"] = np.array([config.hash for config in configs])


def fitted(file: dict[str, Any]) -> None:
    """Replace the FDEs of encoders whose fits use BLAS."""
    ours(file, 8)


def muvfde(file: dict[str, Any]) -> None:
    """Replace the FDEs of muvfde.

    Token 3 of each case is zero, so it lies on every hyperplane.
    """
    for i, setting in enumerate(file["settings"]):
        file[f"document_{i}"], file[f"query_{i}"] = muvfde_fdes(file[f"tokens_{i}"], json.loads(setting))


def libstdcxx(file: dict[str, Any]) -> None:
    """Replace the draws.

    Of all sizes, 1,600,000,001 redraws a quarter of its integers, the others almost
    none.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "draws"
        subprocess.run(["g++", "-O2", "-o", program, HERE / "libstdcxx_draws.cc"], check=True)
        for name, draws in file.items():
            kind, seed, *size = name.split("_")
            command = [str(program), kind, seed, str(len(draws)), *size]
            output = subprocess.run(command, check=True, capture_output=True).stdout
            file[name] = np.frombuffer(output, draws.dtype).reshape(draws.shape)


MAKERS = {"ours": ours, "fitted": fitted, "muvfde": muvfde, "libstdcxx": libstdcxx}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        arrays = dict(np.load(HERE / f"{name}.npz"))
        MAKERS[name](arrays)
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
