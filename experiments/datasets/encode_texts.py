"""Which texts are encoded by which model, and where the embeddings go."""

from __future__ import annotations

import hashlib
from pathlib import Path

from muvera.texts.encoders.base import TextEncoder
from muvera.texts.encoders.minilm import MiniLMEncoder
from muvera.texts.encoders.models import SentenceTransformersEncoder

from .embed_collection import embed, read_texts, texts_digest
from .public_texts import fetch_texts

__all__ = ["encode_texts"]


def encode_texts(
    texts: str, out: Path | None, model: str, dimension: int | None, split: str, cache: Path
) -> Path:
    """Encode a collection unless that has been done.

    Parameters
    ----------
    texts : str
        A folder in BEIR's layout, or a name of ir_datasets.
    out : Path, optional
        Default: under ``embeddings`` and a checksum in the cache, named after the texts and the model,
        where all commands find it again.
    model : str
        "minilm", or a checkpoint for :class:`muvera.texts.encoders.models.SentenceTransformersEncoder`.
    dimension : int, optional
        See :func:`experiments.datasets.embed_collection.embed`.
    split : str
        Judgements whose queries are encoded.
    cache : Path

    Returns
    -------
    Path
        The folder of embeddings.

    Raises
    ------
    FileNotFoundError
        Where the folder has no judgements of that split.
    """
    folder = Path(texts) if Path(texts).is_dir() else fetch_texts(texts, cache)
    judged = folder / "qrels" / f"{split}.tsv"
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", judged):
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: texts are corpus.jsonl, queries.jsonl and qrels/{split}.tsv."
            )
    documents, queries = read_texts(folder, split)
    if out is None:
        content = f"{texts_digest(documents, queries)} {model} {dimension}"
        checksum = hashlib.sha256(content.encode()).hexdigest()[:8]
        name = f"{folder.resolve().name}-{Path(model).name}"
        out = cache.expanduser() / "embeddings" / checksum / name
    if (out / "queries_ids.json").exists() and not (out / "shards").exists():
        return out
    embed(_encoder(model), model, documents, queries, out, dimension=dimension)
    return out


def _encoder(model: str) -> TextEncoder:
    if model == "minilm":
        return MiniLMEncoder()
    return SentenceTransformersEncoder(model)
