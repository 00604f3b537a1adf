"""Token embeddings of a text collection: ``python -m experiments encode DIR``.

Reads a folder in BEIR's layout, ``corpus.jsonl``, ``queries.jsonl`` and
``qrels/SPLIT.tsv``, and embeds all documents and the judged queries.  Writes

- ``{docs,queries}_tokens.npy``: float16 (n_tokens, dimension) unit rows, texts in the
  order of the files;
- ``{docs,queries}_lens.npy``: int32 tokens per text; ``{docs,queries}_ids.json``;
- with MiniLM also ``_token_ids.npy`` (int32 vocabulary ids) and ``_pooled.npy``
  (float32, one vector per text);
- ``reduction.npy`` if wide vectors were reduced.

The work is stored in shards, so an interrupted command continues after the last
complete shard.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from muvera.texts.encoders.base import TextEncoder, TextSide
from muvera.texts.encoders.libraries import SentenceTransformersEncoder
from muvera.texts.encoders.minilm import MiniLMEncoder, unit_vectors

from .loading import read_judgements, read_rows

Texts = list[tuple[str, str]]


def encode_texts(
    folder: Path, out: Path | None, model: str, dimension: int | None, split: str, cache: Path
) -> Path:
    """Encode a collection unless its embeddings exist, and return their folder.

    `folder` has texts in BEIR's layout, `model` is "minilm" or a checkpoint for
    ``SentenceTransformersEncoder``.  `out` is by default in the cache under a checksum
    of the texts, where all commands find it.  Vectors wider than `dimension` are
    reduced; queries are those with judgements of `split`.
    """
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / f"{split}.tsv"):
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: texts are corpus.jsonl, queries.jsonl and qrels/{split}.tsv."
            )
    documents, queries = read_texts(folder, split)
    if out is None:
        content = f"{_checksum(documents, queries)} {model} {dimension}"
        name = f"{folder.resolve().name}-{Path(model).name}"
        out = cache.expanduser() / "embeddings" / hashlib.sha256(content.encode()).hexdigest()[:8] / name
    if not (out / "queries_ids.json").exists() or (out / "shards").exists():
        embed(_encoder(model), model, documents, queries, out, dimension)
    return out


def _encoder(model: str) -> TextEncoder:
    return MiniLMEncoder() if model == "minilm" else SentenceTransformersEncoder(model)


def read_texts(folder: Path, split: str) -> tuple[Texts, Texts]:
    """Return the documents and the judged queries of a split, in file order.

    Both are pairs (id, text); a document's text is title, space, body.
    """
    judged = {query for query, _, _ in read_judgements(folder / "qrels" / f"{split}.tsv")}
    queries = [row for row in read_rows(folder / "queries.jsonl") if row[0] in judged]
    return list(read_rows(folder / "corpus.jsonl")), queries


def embed(
    encoder: TextEncoder,
    model: str,
    documents: Texts,
    queries: Texts,
    out: Path,
    dimension: int | None = 128,
    shard_size: int = 256,
) -> None:
    """Embed (id, text) pairs into a folder.

    An interrupted call of the same model is continued.

    The folder's files are replaced at the end; an interruption loses the work of at
    most `shard_size` texts. Vectors wider than `dimension` are reduced by PCA without
    centering, fitted on the documents.
    """
    out.mkdir(parents=True, exist_ok=True)
    shards = out / "shards"
    shards.mkdir(exist_ok=True)
    plan = {"model": model, "shard_size": shard_size, "texts": _checksum(documents, queries)}
    if (shards / "plan.json").exists() and json.loads((shards / "plan.json").read_text("utf-8")) != plan:
        raise ValueError(
            f"{shards} holds shards of other texts, another model or another shard size. "
            "Delete that folder, or write to another one."
        )
    _write(shards / "plan.json", plan)
    sides: list[tuple[TextSide, str, Texts]] = [
        ("document", "docs", documents),
        ("query", "queries", queries),
    ]
    for side, name, texts in sides:
        for start in tqdm(range(0, len(texts), shard_size), desc=name):
            path = shards / f"{name}-{start:08d}.npz"
            if not path.exists():
                block = [text for _, text in texts[start : start + shard_size]]
                _write(path, _encode(encoder, side, block))
    reduction = None
    if dimension is not None and next(_read_shards(shards, "docs"))["tokens"].shape[1] > dimension:
        reduction = fit_reduction((shard["tokens"] for shard in _read_shards(shards, "docs")), dimension)
        _write(out / "reduction.npy", reduction)
    for _, name, texts in sides:
        arrays: dict[str, list[NDArray[Any]]] = {}
        for shard in _read_shards(shards, name):
            if reduction is not None:
                shard["tokens"] = reduced(shard["tokens"], reduction)
            for key, array in shard.items():
                arrays.setdefault(key, []).append(array)
        for key, blocks in arrays.items():
            _write(out / f"{name}_{key}.npy", np.concatenate(blocks))
        _write(out / f"{name}_ids.json", [text_id for text_id, _ in texts])
    shutil.rmtree(shards)


def fit_reduction(samples: Iterable[NDArray[np.floating[Any]]], dimension: int) -> NDArray[np.float32]:
    """Return the map (dim_in, dimension) that keeps most of the vectors' energy.

    This is PCA without centering.

    Its columns are the leading eigenvectors of the uncentered second moment.  On
    average no map of this size preserves inner products better.  Each column's largest
    entry is positive.
    """
    moment: NDArray[np.float64] | None = None
    for sample in samples:
        rows = np.asarray(sample, dtype=np.float64)
        moment = rows.T @ rows if moment is None else moment + rows.T @ rows
    assert moment is not None
    if not 1 <= dimension <= len(moment):
        raise ValueError(
            f"dimension must be between 1 and {len(moment)}, the samples' width, got {dimension}."
        )
    components = np.linalg.eigh(moment)[1][:, ::-1][:, :dimension]
    largest = components[np.abs(components).argmax(axis=0), np.arange(dimension)]
    return np.asarray(components * np.sign(largest), np.float32)


def reduced(vectors: NDArray[np.floating[Any]], reduction: NDArray[np.float32]) -> NDArray[np.float16]:
    """Reduce vectors (n, dim_in) to unit vectors of fewer dimensions."""
    return unit_vectors(np.asarray(vectors, np.float32) @ reduction).astype(np.float16)


def _encode(encoder: TextEncoder, side: TextSide, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    extra: dict[str, NDArray[Any]] = {}
    if isinstance(encoder, MiniLMEncoder):
        states = encoder.read(texts, side)
        vectors = [state.vectors for state in states]
        extra["token_ids"] = np.concatenate([state.token_ids for state in states])
        extra["pooled"] = np.stack([state.pooled for state in states])
    else:
        encode = encoder.encode_documents if side == "document" else encoder.encode_queries
        vectors = [np.asarray(tokens) for tokens in encode(texts)]
    tokens = np.concatenate(vectors).astype(np.float16)
    return {"tokens": tokens, "lens": np.array([len(rows) for rows in vectors], np.int32), **extra}


def _read_shards(shards: Path, name: str) -> Iterator[dict[str, NDArray[Any]]]:
    for path in sorted(shards.glob(f"{name}-*.npz")):
        with np.load(path) as file:
            yield dict(file)


def _checksum(documents: Texts, queries: Texts) -> str:
    return hashlib.sha256(json.dumps([documents, queries]).encode()).hexdigest()


def _write(path: Path, value: Any) -> None:
    """Write an array, arrays by name, or JSON; an existing file is complete."""
    partial = path.with_suffix(".partial")
    if path.suffix == ".json":
        partial.write_text(json.dumps(value), encoding="utf-8")
    else:
        with partial.open("wb") as file:
            np.savez(file, **value) if path.suffix == ".npz" else np.save(file, value)
    partial.replace(path)
