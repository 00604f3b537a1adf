"""Make colbert/, a small index as colbert-ai 0.2.22 writes it.

Run: pip install colbert-ai==0.2.22 faiss-cpu torch, then python make_colbert_golden.py

The encoder is replaced by random unit vectors, because the model is a download; indexing (k-means, residuals,
files) is the library's own.  expected.npz contains the vectors that the library's own decompression returns.
"""

import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from colbert.data.collection import Collection
from colbert.indexing import collection_indexer
from colbert.indexing.codecs.residual import ResidualCodec
from colbert.indexing.codecs.residual_embeddings import ResidualEmbeddings
from colbert.infra import ColBERTConfig, RunConfig
from colbert.infra.run import Run

HERE = Path(__file__).parent
DIM, NBITS = 32, 2
LENGTHS = [3, 41, 27, 34, 9, 52, 65, 46, 33, 28, 44, 1]


def vectors() -> torch.Tensor:
    """Unit vectors around a few centres, so that centroids are meaningful."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(8, DIM))
    rows = centres[rng.integers(0, 8, sum(LENGTHS))] + 0.5 * rng.normal(size=(sum(LENGTHS), DIM))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(rows.astype(np.float32))


class Encoder:
    """Stands in for the model: passage i is the i-th set of vectors."""

    def __init__(self, *_: object) -> None:
        self.parts = list(torch.split(vectors(), LENGTHS))

    def encode_passages(self, passages: list[str]) -> tuple[torch.Tensor | None, list[int] | None]:
        picked = [self.parts[int(passage)] for passage in passages]
        if not picked:
            return None, None
        return torch.cat(picked), [len(part) for part in picked]


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    collection_indexer.Checkpoint = lambda *_, **__: SimpleNamespace()
    collection_indexer.CollectionEncoder = Encoder
    config = ColBERTConfig(
        dim=DIM, nbits=NBITS, kmeans_niters=4, root=str(root), index_name="golden", experiment="e", rank=0,
        nranks=1, avoid_fork_if_possible=True, index_bsize=5, checkpoint="none",
    )  # fmt: skip
    # Three chunks: the library's default would put all of a small collection into one.
    Collection.get_chunksize = lambda self: 5
    collection = [str(i) for i in range(len(LENGTHS))]
    with Run().context(RunConfig(root=str(root), experiment="e", rank=0, nranks=1)):
        indexer = collection_indexer.CollectionIndexer(config=config, collection=collection, verbose=0)
        Path(config.index_path_).mkdir(parents=True)  # the library leaves this to its launcher
        indexer.run([[]])
        path = Path(config.index_path_)
    target = HERE / "colbert"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(path, target)
    codec = ResidualCodec.load(index_path=str(path))
    decoded = []
    for i in range(json.loads((path / "metadata.json").read_text())["num_chunks"]):
        part = codec.decompress(ResidualEmbeddings.load(str(path), i))
        decoded.append(part.float().numpy())
    for name in ("metadata.json", "plan.json"):  # they contain the folder and time of this run
        content = json.loads((target / name).read_text())
        content["config"].update(root="experiments", name="golden")
        (target / name).write_text(json.dumps(content, indent=1) + "\n")
    np.savez_compressed(target / "expected.npz", decoded=np.concatenate(decoded), lengths=LENGTHS)


if __name__ == "__main__":
    main()
