"""Embed a text collection in BEIR's format: ``python -m experiments encode DIR``.

Reads ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv`` (only queries with a judgement are
embedded), writes

- ``{docs,queries}_tokens.npy``: float16 (n_tokens, dimension) unit rows, texts in the order of the files;
- ``{docs,queries}_lens.npy``: int32 tokens per text; ``{docs,queries}_ids.json``;
- with MiniLM also ``_token_ids.npy`` (int32 vocabulary ids) and ``_pooled.npy`` (float32, one vector per
  text);
- ``reduction.npy``: the float32 map to ``--dimension`` dimensions, fitted on the collection's documents, if one
  was needed.

Work is kept in shards under ``OUT/shards`` at the model's own width until all are there, since the
reduction needs to see every document. A command that was stopped goes on after the last whole shard.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera.texts.encoders.base import Side, TextEncoder
from muvera.texts.encoders.minilm import MiniLMEncoder, Reduction

from .reduction import fit_reduction

Texts = list[tuple[str, str]]
Arrays = dict[str, npt.NDArray[Any]]


def read_texts(folder: Path, split: str) -> tuple[Texts, Texts]:
    """Read a collection's documents and the queries that a split judges.

    Parameters
    ----------
    folder : Path
        Folder in BEIR's format. A document's text is its title, a space and its body.
    split : str
        Name of the judgements' file under ``qrels/``, without ``.tsv``.

    Returns
    -------
    documents, queries : lists of (id, text)
        In the order of the files.
    """
    judged = {
        line.split("\t")[0]
        for line in (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    }
    documents = [
        (row["_id"], f"{row.get('title') or ''} {row['text']}".strip())
        for row in _json_lines(folder / "corpus.jsonl")
    ]
    queries = [
        (row["_id"], row["text"]) for row in _json_lines(folder / "queries.jsonl") if row["_id"] in judged
    ]
    return documents, queries


def embed(
    encoder: TextEncoder,
    model: str,
    documents: Texts,
    queries: Texts,
    out: Path,
    dimension: int | None = 128,
    shard_size: int = 256,
) -> None:
    """Embed documents and queries into a folder, going on where an earlier call was stopped.

    Parameters
    ----------
    encoder : TextEncoder
        The model.
    model : str
        Its name, so that shards of another model are not taken for this one's.
    documents, queries : lists of (id, text)
        What to embed.
    out : Path
        Folder to write; its files are replaced when all the work is done.
    dimension : int, optional
        Wider token vectors are reduced to this by PCA without centering, fitted on the documents.  None:
        they are kept as they are.
    shard_size : int, default=256
        Texts per shard: at most this much work is lost when the command is stopped.
    """
    out.mkdir(parents=True, exist_ok=True)
    shards = out / "shards"
    sides: list[tuple[Side, str, Texts]] = [("document", "docs", documents), ("query", "queries", queries)]
    _claim(shards, {"model": model, "shard_size": shard_size, "texts": texts_digest(documents, queries)})
    for side, name, texts in sides:
        _encode_shards(encoder, side, [text for _, text in texts], shards, name, shard_size)

    reduction = None
    if dimension is not None and next(_read_shards(shards, "docs"))["tokens"].shape[1] > dimension:
        reduction = fit_reduction((shard["tokens"] for shard in _read_shards(shards, "docs")), dimension)
        _save(out / "reduction.npy", reduction.components)
    for _, name, texts in sides:
        _assemble(shards, name, out, reduction)
        _write_json(out / f"{name}_ids.json", [text_id for text_id, _ in texts])
    shutil.rmtree(shards)


def _encode_shards(
    encoder: TextEncoder,
    side: Side,
    texts: Sequence[str],
    shards: Path,
    name: str,
    shard_size: int,
) -> None:
    with tqdm(total=len(texts), unit=side, desc=name) as bar:
        for start in range(0, len(texts), shard_size):
            part = texts[start : start + shard_size]
            path = shards / f"{name}-{start:08d}.npz"
            if not path.exists():
                # Written beside and renamed: a shard that exists is whole.
                beside = path.with_suffix(".partial")
                arrays: dict[str, Any] = _encode(encoder, side, part)
                with beside.open("wb") as file:
                    np.savez(file, **arrays)
                beside.replace(path)
            bar.update(len(part))


def _encode(encoder: TextEncoder, side: Side, texts: Sequence[str]) -> Arrays:
    extra: Arrays = {}
    if isinstance(encoder, MiniLMEncoder):
        states = encoder.read(texts, side)
        vectors = [one.vectors for one in states]
        extra["token_ids"] = np.concatenate([one.token_ids for one in states])
        extra["pooled"] = np.stack([one.pooled for one in states])
    else:
        encode = encoder.encode_documents if side == "document" else encoder.encode_queries
        vectors = [np.asarray(tokens) for tokens in encode(texts)]
    return {
        "tokens": np.concatenate(vectors).astype(np.float16),
        "lens": np.asarray([len(one) for one in vectors], dtype=np.int32),
        **extra,
    }


def _assemble(shards: Path, name: str, out: Path, reduction: Reduction | None) -> None:
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for shard in _read_shards(shards, name):
        if reduction is not None:
            shard["tokens"] = reduction(shard["tokens"]).astype(np.float16)
        for key, array in shard.items():
            parts.setdefault(key, []).append(array)
    for key, arrays in parts.items():
        _save(out / f"{name}_{key}.npy", np.concatenate(arrays))


def _read_shards(shards: Path, name: str) -> Iterator[Arrays]:
    for path in sorted(shards.glob(f"{name}-*.npz")):
        with np.load(path) as file:
            yield dict(file)


def _claim(shards: Path, plan: dict[str, Any]) -> None:
    """Make the shard folder, or check that the shards in it belong to the same work."""
    shards.mkdir(exist_ok=True)
    path = shards / "plan.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != plan:
        raise ValueError(
            f"{shards} holds shards of other texts, another model or another shard size. "
            "Delete that folder, or write to another one."
        )
    _write_json(path, plan)


def texts_digest(documents: Texts, queries: Texts) -> str:
    """Return a checksum of all ids and texts, hexadecimal."""
    return hashlib.sha256(json.dumps([documents, queries]).encode()).hexdigest()


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    beside = path.with_suffix(".partial")
    with beside.open("wb") as file:
        np.save(file, array)
    beside.replace(path)


def _write_json(path: Path, value: Any) -> None:
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(value), encoding="utf-8")
    beside.replace(path)
