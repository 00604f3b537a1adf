"""Make these index folders and ``../pooling.npz`` with their libraries.

Run ``python make_goldens.py KIND [RULE]``.

Each kind needs an environment of its own:

=========== ============================================================================
colbert     colbert-ai==0.2.22 faiss-cpu torch
fast_plaid  fast-plaid==1.4.6.2110 (files per chunk), then 1.7.0.2110 (one merged file)
pylate      pylate==1.6.0 voyager==2.1.0 scann==1.4.2 faiss-cpu
torch       torch==2.11
pooling     scipy==1.17.1 and the library of the rule
=========== ============================================================================

Random unit vectors replace the models.  expected.npz has what the library's own
decompression returns, or the given vectors; pooling.npz ``tokens``, ``lengths``, and
the two of each case under ``<rule>/<factor>/<protected>/``.
"""

import json
import os
import pickle
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent


def rows_around(centers: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    rows = centers[rng.integers(0, 8, count)] + 0.5 * rng.normal(size=(count, centers.shape[1]))
    units: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return units


def keep(built: Path, name: str, *drop: str) -> Path:
    """Copy an index without the files that no reader needs."""
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(built, target, ignore=shutil.ignore_patterns(*drop))
    return target


def forget_run(target: Path, **config: str) -> None:
    """Replace the folder and the time of this run in a PLAID index."""
    for name in ("metadata.json", "plan.json"):
        content = json.loads((target / name).read_text())
        content["config"].update(config)
        (target / name).write_text(json.dumps(content, indent=1) + "\n")


def make_colbert(root: Path) -> None:
    """Three chunks, two bits."""
    from colbert.data.collection import Collection
    from colbert.indexing import collection_indexer
    from colbert.indexing.codecs.residual import ResidualCodec
    from colbert.indexing.codecs.residual_embeddings import ResidualEmbeddings
    from colbert.infra import ColBERTConfig, Run, RunConfig

    lengths = [3, 41, 27, 34, 9, 52, 65, 46, 33, 28, 44, 1]
    rng = np.random.default_rng(3)
    tokens = torch.from_numpy(rows_around(rng.normal(size=(8, 32)), sum(lengths), rng))
    passages = torch.split(tokens, lengths)

    def encode(numbers: list[str]) -> tuple[Any, Any]:
        chosen = [passages[int(number)] for number in numbers]
        return (torch.cat(chosen), [len(passage) for passage in chosen]) if chosen else (None, None)

    collection_indexer.Checkpoint = lambda *_, **__: SimpleNamespace()
    collection_indexer.CollectionEncoder = lambda *_: SimpleNamespace(encode_passages=encode)
    config = ColBERTConfig(
        dim=32, nbits=2, kmeans_niters=4, root=str(root), index_name="golden", experiment="e", rank=0,
        nranks=1,
        avoid_fork_if_possible=True, index_bsize=5, checkpoint="none",
    )  # fmt: skip
    Collection.get_chunksize = lambda self: 5
    with Run().context(RunConfig(root=str(root), experiment="e", rank=0, nranks=1)):
        numbers = [str(i) for i in range(len(lengths))]
        indexer = collection_indexer.CollectionIndexer(config=config, collection=numbers, verbose=0)
        Path(config.index_path_).mkdir(parents=True)  # the library leaves this to its launcher
        indexer.run([[]])
        path = Path(config.index_path_)
    target = keep(path, "colbert")
    forget_run(target, root="experiments", name="golden")
    codec = ResidualCodec.load(index_path=str(path))
    chunks = [codec.decompress(ResidualEmbeddings.load(str(path), i)) for i in range(3)]
    decoded = np.concatenate([chunk.float().numpy() for chunk in chunks])
    np.savez_compressed(target / "expected.npz", decoded=decoded, lengths=lengths)


def make_fast_plaid(root: Path) -> None:
    """A small index with exact vectors.

    And one that is added to and deleted from, so that it has chunks.
    """
    from fast_plaid.search import FastPlaid

    centers = np.random.default_rng(5).normal(size=(8, 16))

    def documents(count: int, seed: int) -> list[torch.Tensor]:
        rng = np.random.default_rng(seed)
        return [torch.from_numpy(rows_around(centers, int(rng.integers(1, 7)), rng)) for _ in range(count)]

    def save(name: str, index: Any, count: int) -> None:
        index.search(queries_embeddings=documents(1, 9), top_k=1)
        target = keep(root / name, name, "ivf*", "plaid.lock*", "cluster_threshold*")
        for file in target.glob("*.manifest.json"):
            entries = json.loads(file.read_text())
            for entry in entries.values():
                entry["mtime"] = None if entry["mtime"] is None else 0
            file.write_text(json.dumps(entries))
        decoded = index.get_embeddings(list(range(count)))
        lengths = [len(document) for document in decoded]
        np.savez_compressed(target / "expected.npz", decoded=torch.cat(decoded).numpy(), lengths=lengths)

    name = f"fast_plaid_{version('fast-plaid').rsplit('.', 1)[0]}"
    small = FastPlaid(index=str(root / f"{name}_small"), device="cpu")
    small.create(documents_embeddings=documents(12, 1), nbits=4)
    save(f"{name}_small", small, 12)
    chunks = FastPlaid(index=str(root / name), device="cpu")
    chunks.create(documents_embeddings=documents(50, 1), nbits=4, batch_size=20, start_from_scratch=0)
    chunks.update(documents_embeddings=documents(7, 2), start_from_scratch=0)
    chunks.delete(subset=[0, 21, 55])
    save(name, chunks, 54)


def make_pylate(root: Path) -> None:
    """The same documents in every kind of index.

    "doc-2" is removed again, which ScaNN cannot do.
    """
    from pylate import indexes
    from pylate.indexes.stanford_plaid import StanfordPLAID

    rng = np.random.default_rng(5)
    centers = rng.normal(size=(8, 16))
    ids = [f"doc-{i}" for i in range(40)]
    arrays = [rows_around(centers, int(rng.integers(1, 15)), rng) for _ in ids]
    np.savez_compressed(
        HERE / "pylate_expected.npz", tokens=np.concatenate(arrays), lengths=[len(array) for array in arrays],
        ids=ids, removed="doc-2",
    )  # fmt: skip

    def build(index: Any, kind: str, *drop: str) -> Path:
        index.add_documents(documents_ids=ids, documents_embeddings=arrays)
        if kind == "scann":
            index.save()
        else:
            index.remove_documents(["doc-2"])
        return keep(root / kind, f"pylate_{kind}", "plaid.lock", "ivf*", *drop)

    place = {"index_folder": str(root), "override": True}
    voyager = indexes.Voyager(index_name="voyager", embedding_size=16, M=4, ef_construction=20, **place)
    build(voyager, "voyager")
    fast = indexes.PLAID(index_name="fast_plaid", nbits=4, device="cpu", show_progress=False, **place)
    build(fast, "fast_plaid", "*manifest.json", "merged_*", "cluster_threshold*")
    plaid = StanfordPLAID(index_name="stanford_plaid", embedding_size=16, nbits=2, **place)
    target = build(plaid, "stanford_plaid")
    forget_run(target, root="indexes", index_root="indexes", name="golden")
    scann = indexes.ScaNN(index_name="scann", embedding_size=16, num_leaves=8, **place)
    build(scann, "scann", "*.pb", "*.pbtxt", "*hashed*", "*tokenization*", "dataset*", "*.npy.tmp")


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo this must never run",)


def make_torch(root: Path) -> None:
    """Every dtype, views, containers, and files that must be refused."""
    base = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)) * 40
    kinds = [
        "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool",
        "uint16",
    ]  # fmt: skip
    tensors = {kind: (base.abs() if kind[0] == "u" else base).to(getattr(torch, kind)) for kind in kinds}
    tensors |= {"sliced": base[2:5, 1:4], "transposed": base.T, "scalar": base[3, 2], "empty": base[:0]}
    tensors["gradient"] = base.clone().requires_grad_()
    containers = {
        "pair": (base[:2], base.half()),
        "list": list(torch.unbind(base.bfloat16().reshape(3, 2, 5))),
        "dict": {"a": base, "n": 3},
        "malicious": Malicious(),
        "module": torch.nn.Linear(2, 2),
    }
    for name, value in (tensors | containers).items():
        torch.save(value, root / f"{name}.pt", pickle_module=pickle)
    with (root / "stream.pt").open("wb") as stream:  # its root folder is then "archive"
        torch.save(base, stream)
    torch.save(base, root / "legacy.pt", _use_new_zipfile_serialization=False)
    tensors["bfloat16"] = tensors["bfloat16"].float()
    arrays: dict[str, Any] = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    np.savez_compressed(root / "expected.npz", base=base.numpy(), **arrays)
    keep(root, "torch_files")


def pooled(rule: str, tensors: list[torch.Tensor], factor: int, protected: int) -> list[torch.Tensor]:
    """Pool with the library itself."""
    if rule == "sentence-transformers":
        from sentence_transformers.multi_vector_encoder.modules.token_pooling import HierarchicalTokenPooling

        return list(HierarchicalTokenPooling(factor, num_protected_tokens=protected).pool(tensors))
    if rule in ("pylate", "pylate-1.4"):
        from pylate.models import ColBERT

        return list(ColBERT.pool_embeddings_hierarchical(None, tensors, factor, protected))
    if rule == "colbert":
        from colbert.modeling.checkpoint import pool_embeddings_hierarchical

        counts = [len(tensor) for tensor in tensors]
        flat, lengths = pool_embeddings_hierarchical(torch.cat(tensors), counts, factor, protected)
        return list(torch.split(flat, [int(length) for length in lengths]))
    from colpali_engine.compression.token_pooling import HierarchicalTokenPooler

    return list(HierarchicalTokenPooler().pool_embeddings(tensors, pool_factor=factor))  # protects no token


def make_pooling(_: Path) -> None:
    """Pool by the rule of an installed library.

    The stored file is from sentence-transformers 6.2.0, pylate 1.6.0 and 1.4.0,
    colbert-ai 0.2.22 and colpali-engine 0.3.18.
    """
    rule, file = sys.argv[2], HERE.parent / "pooling.npz"
    content = dict(np.load(file))
    tensors = list(torch.split(torch.from_numpy(content["tokens"]), content["lengths"].tolist()))
    for key in {name.rpartition("/")[0] for name in content if name.startswith(f"{rule}/")}:
        found = pooled(rule, tensors, *map(int, key.split("/")[1:]))
        content[f"{key}/tokens"] = torch.cat(found).numpy().astype(np.float32)
        content[f"{key}/lengths"] = np.array([len(tensor) for tensor in found])
    np.savez_compressed(file, **content)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    globals()[f"make_{sys.argv[1]}"](Path(tempfile.mkdtemp()))
