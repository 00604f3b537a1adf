"""Make ``pooling.npz``: results of other libraries' token pooling, for tests/convert/test_pooling.py.

Run it once for each rule, in an environment that has the library::

    python tests/golden/make_pooling_golden.py sentence-transformers

=====================  ===============================================================
sentence-transformers  sentence-transformers 6.2.0, ``HierarchicalTokenPooling``
pylate                 pylate 1.6.0, ``ColBERT.pool_embeddings_hierarchical``
pylate-1.4             the same of pylate 1.4.0
colbert                colbert-ai 0.2.22, ``checkpoint.pool_embeddings_hierarchical``
colpali                colpali-engine 0.3.18, ``HierarchicalTokenPooler``
=====================  ===============================================================

All with SciPy 1.17.1.  The file has ``tokens`` (n, 16), ``lengths``, and for each rule and case
``<rule>/<factor>/<protected>/tokens`` and ``.../lengths``.
"""

import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("pooling.npz")
LENGTHS = [4, 23, 57]
CASES = [(2, 0), (2, 1), (3, 2)]


def documents() -> list[np.ndarray]:
    """Return unit vectors around a few directions, so that they form clusters."""
    random = np.random.default_rng(3)
    arrays = []
    for length in LENGTHS:
        centers = random.standard_normal((1 + length // 6, 16))
        rows = centers[random.integers(0, len(centers), length)] + 0.6 * random.standard_normal((length, 16))
        arrays.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return arrays


def pooled(rule: str, factor: int, protected: int) -> list[np.ndarray] | None:
    """Pool with the library itself; return None if it has no such setting."""
    import torch

    tensors = [torch.from_numpy(array) for array in documents()]
    if rule == "sentence-transformers":
        from sentence_transformers.multi_vector_encoder.modules.token_pooling import HierarchicalTokenPooling

        pooler = HierarchicalTokenPooling(factor, num_protected_tokens=protected)
        return [tensor.numpy() for tensor in pooler.pool(tensors)]
    if rule in ("pylate", "pylate-1.4"):
        from pylate.models import ColBERT

        found = ColBERT.pool_embeddings_hierarchical(None, tensors, factor, protected)
        return [tensor.numpy() for tensor in found]
    if rule == "colbert":
        from colbert.modeling.checkpoint import pool_embeddings_hierarchical

        flat, lengths = pool_embeddings_hierarchical(torch.cat(tensors), LENGTHS, factor, protected)
        return np.split(flat.numpy(), np.cumsum(lengths)[:-1])
    from colpali_engine.compression.token_pooling import HierarchicalTokenPooler

    if protected:
        return None
    pooled = HierarchicalTokenPooler().pool_embeddings(tensors, pool_factor=factor)
    return [tensor.numpy() for tensor in pooled]


def main() -> None:
    """Add one rule's results to the file."""
    rule = sys.argv[1]
    content = dict(np.load(FILE)) if FILE.exists() else {}
    content["tokens"], content["lengths"] = np.concatenate(documents()), np.array(LENGTHS)
    for factor, protected in CASES:
        found = pooled(rule, factor, protected)
        if found is not None:
            key = f"{rule}/{factor}/{protected}"
            content[f"{key}/tokens"] = np.concatenate(found).astype(np.float32)
            content[f"{key}/lengths"] = np.array([len(array) for array in found])
    np.savez_compressed(FILE, **content)


if __name__ == "__main__":
    main()
