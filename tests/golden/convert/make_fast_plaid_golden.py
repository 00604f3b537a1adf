"""Make fast_plaid_<version>/, small indexes as the installed fast-plaid writes them.

Run it once with fast-plaid==1.4.6.2110 (a pair of files a chunk) and once with
fast-plaid==1.7.0.2110 (one merged file)::

    python make_fast_plaid_golden.py

The index is created, added to and deleted from, so that it has several chunks, a buffer and renumbered
documents.  expected.npz contains the vectors that the library's own get_embeddings returns (unnormalized
since 1.4.6).  ``_small`` also keeps exact vectors.
"""

import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from fast_plaid import search

HERE = Path(__file__).parent
DIM, NBITS = 16, 4
KEEP = ("metadata.json", "centroids.npy", "bucket_weights.npy", "bucket_cutoffs.npy", "avg_residual.npy")


def documents(count: int, seed: int) -> list[torch.Tensor]:
    """Unit vectors around a few centres, 1 to 6 a document."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(5).normal(size=(8, DIM))
    made = []
    for _ in range(count):
        length = int(rng.integers(1, 7))
        rows = centres[rng.integers(0, 8, length)] + 0.5 * rng.normal(size=(length, DIM))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        made.append(torch.from_numpy(rows.astype(np.float32)))
    return made


def save(built: Path, name: str, decoded: list[torch.Tensor]) -> None:
    """Copy the index without files that no reader needs, and save the vectors that the library decodes."""
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for file in sorted(built.iterdir()):
        if not file.name.startswith(("ivf", "plaid.lock", "cluster_threshold")):
            shutil.copy(file, target)
    for file in target.glob("*.manifest.json"):  # times of this run
        entries = json.loads(file.read_text())
        for entry in entries.values():
            entry["mtime"] = None if entry["mtime"] is None else 0
        file.write_text(json.dumps(entries))
    lengths = [len(document) for document in decoded]
    np.savez_compressed(target / "expected.npz", decoded=torch.cat(decoded).numpy(), lengths=lengths)


def main() -> None:
    torch.manual_seed(0)
    root = Path(tempfile.mkdtemp())
    release = version("fast-plaid").rsplit(".", 1)[0]

    index = search.FastPlaid(index=str(root / "small"), device="cpu")
    index.create(documents_embeddings=documents(12, 1), nbits=NBITS)
    index.search(queries_embeddings=documents(1, 9), top_k=1)
    save(root / "small", f"fast_plaid_{release}_small", index.get_embeddings(list(range(12))))

    index = search.FastPlaid(index=str(root / "chunks"), device="cpu")
    index.create(documents_embeddings=documents(50, 1), nbits=NBITS, batch_size=20, start_from_scratch=0)
    index.update(documents_embeddings=documents(7, 2), start_from_scratch=0)
    index.delete(subset=[0, 21, 55])
    index.search(queries_embeddings=documents(1, 9), top_k=1)
    save(root / "chunks", f"fast_plaid_{release}", index.get_embeddings(list(range(54))))


if __name__ == "__main__":
    main()
