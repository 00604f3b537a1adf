"""Make ``ours.npz``: small FDEs of this library's own settings, which show every change to them.

    python tests/golden/make_our_golden.py

The file holds ``tokens`` and ``lengths`` of a collection, ``settings`` (a JSON text of ``FDEConfig.to_dict``
per case), their ``hashes``, and ``documents_i`` and ``queries_i``, the FDEs of case i fitted on the
collection.  Make it again only if FDEs are meant to change: stored FDEs cannot be compared with new ones.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from muvera import FDEConfig, FDEEncoder, MultiVectors

#: Structured and dense hyperplanes, every projection, both final projections, with and without blocks.
WHOLE: Any = {"split_mean": False, "document_cells": "unit"}
SPLIT: Any = {"split_mean": True, "document_cells": "length"}
CASES = [
    FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=2, **WHOLE),
    FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=2, projection="identity", **WHOLE),
    FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=5, hyperplanes="gaussian",
              projection_dimension=5, final_projection="rademacher", final_projection_dimension=40, **WHOLE),
    FDEConfig.preset("paper", 96, num_repetitions=3, num_simhash_projections=3),
    FDEConfig.preset("paper", 96, num_repetitions=3, projection="count_sketch",
                     final_projection="count_sketch", final_projection_dimension=60),
    FDEConfig(dimension=96, num_repetitions=3, num_simhash_projections=2, **SPLIT),
]  # fmt: skip


def main() -> None:
    """Write the file beside this script."""
    rng = np.random.default_rng(20240529)
    lengths = np.array([7, 1, 0, 12, 3])
    tokens = (rng.standard_normal((lengths.sum(), 96)) + 0.5).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    documents = MultiVectors.from_flat(tokens, lengths)
    out: dict[str, Any] = {"tokens": tokens, "lengths": lengths}
    for i, config in enumerate(CASES):
        encoder = FDEEncoder(config).fit(documents)
        out[f"documents_{i}"] = encoder.encode_documents(documents)
        out[f"queries_{i}"] = encoder.encode_queries(documents)
    out["settings"] = np.array([json.dumps(config.to_dict()) for config in CASES])
    out["hashes"] = np.array([config.hash for config in CASES])
    np.savez_compressed(Path(__file__).with_name("ours.npz"), **out)


if __name__ == "__main__":
    main()
