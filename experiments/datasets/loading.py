"""Read a collection's token vectors, ids, single vectors, texts and judgements."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from muvera import MultiVectors
from muvera.convert import read

from .collection import Collection, tokens_checksum
from .discovery import PLAID_QUERIES, DatasetPath, files_of_side

#: Preferred file of judgements.
SPLIT = "test"


def load_collection(path: DatasetPath) -> Collection:
    """Load a collection with all data in its folders.

    Raises
    ------
    FileNotFoundError
        If there are no embeddings.
    """
    if path.embeddings is None:
        raise FileNotFoundError(
            f"{path.name} has texts in {path.texts}, but no embeddings. Run: python -m experiments "
            f"encode {path.texts}"
        )
    (documents, document_ids), (queries, query_ids) = map(_with_tokens, _token_vectors(path.embeddings))
    extras = {}
    for side, prefix in (("document", "docs"), ("query", "queries")):
        for name, value in _extras(path.embeddings, prefix).items():
            extras[f"{side}_{name}"] = value
    extras = {"document_ids": document_ids, "query_ids": query_ids, **extras}
    checksum = tokens_checksum(documents, queries)
    loaded = Collection(path.embeddings.resolve().name, documents, queries, checksum, **extras)
    return loaded if path.texts is None else _with_texts(loaded, path.texts)


def _token_vectors(path: Path) -> tuple[MultiVectors, MultiVectors]:
    if (path / PLAID_QUERIES).exists():
        queries = MultiVectors.from_arrays(np.load(path / PLAID_QUERIES, allow_pickle=False))
        return read(path, format="plaid"), queries
    if (path / "docs_tokens.npy").exists():
        return _flat(path, "docs"), _flat(path, "queries")
    sides = []
    for side in ("documents", "queries"):
        files = files_of_side(path, side)
        if len(files) > 1:
            raise ValueError(f"{path} has both {files[0].name} and {files[1].name}. Keep one of them.")
        sides.append(read(files[0]))
    return sides[0], sides[1]


def _flat(path: Path, side: str) -> MultiVectors:
    tokens = np.load(path / f"{side}_tokens.npy", allow_pickle=False)
    return MultiVectors.from_flat(tokens, np.load(path / f"{side}_lens.npy", allow_pickle=False))


def _with_tokens(texts: MultiVectors) -> tuple[MultiVectors, list[str]]:
    """Return the texts that have tokens, and their ids."""
    filled = texts[texts.lengths > 0]
    ids = filled.ids.tolist() if texts.has_ids else range(len(filled))
    return MultiVectors(filled.tokens, filled.offsets), [str(name) for name in ids]


def _extras(path: Path, side: str) -> dict[str, Any]:
    """Read ids, pooled vectors and vocabulary ids of the texts that have tokens."""
    lengths = path / f"{side}_lens.npy"
    if not lengths.exists():
        return {}
    counts = np.load(lengths, allow_pickle=False)
    filled = np.flatnonzero(counts > 0)
    extras: dict[str, Any] = {}
    if (path / f"{side}_ids.json").exists():
        names = json.loads((path / f"{side}_ids.json").read_text(encoding="utf-8"))
        extras["ids"] = [str(names[i]) for i in filled]
    if (path / f"{side}_pooled.npy").exists():
        pooled = np.load(path / f"{side}_pooled.npy", allow_pickle=False)
        extras["pooled"] = np.asarray(pooled[filled], np.float32)
    if (path / f"{side}_token_ids.npy").exists():
        ids = np.asarray(np.load(path / f"{side}_token_ids.npy", allow_pickle=False), np.int64)
        texts = np.split(ids, np.cumsum(counts)[:-1])
        extras["token_ids"] = [texts[i] for i in filled]
    return extras


def _with_texts(loaded: Collection, folder: Path) -> Collection:
    changes: dict[str, Any] = {"problems": []}
    for side, file, ids in (
        ("document_texts", "corpus.jsonl", loaded.document_ids),
        ("query_texts", "queries.jsonl", loaded.query_ids),
    ):
        texts = dict(read_rows(folder / file)) if (folder / file).exists() else {}
        missing = [name for name in ids if name not in texts]
        changes[side] = None if missing else [texts[name] for name in ids]
        if missing and texts:
            others = len(missing) - 1
            changes["problems"].append(f"{folder / file} has no text of {missing[0]!r} and {others} others.")
    files = sorted((folder / "qrels").glob("*.tsv"), key=lambda file: (file.stem != SPLIT, file))
    if files:
        changes["judgements"], problem = _graded(files[0], loaded.document_ids, loaded.query_ids)
        changes["problems"] += [problem] if problem else []
    return replace(loaded, **changes)


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield id and text of each line of ``corpus.jsonl`` or ``queries.jsonl``.

    A text is title, space, body.
    """
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, filter(str.strip, lines)):
            whole = f"{row.get('title') or ''} {row['text']}".strip()
            yield str(row["_id"]), row["text"] if path.stem == "queries" else whole


def read_judgements(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield query, document and grade of each line of ``qrels/SPLIT.tsv``.

    The header is left out.
    """
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file, delimiter="\t"):
            if len(row) >= 3 and row[2].strip().lstrip("-").isdigit():
                yield row[0], row[1], int(row[2])


def _graded(
    path: Path, document_ids: list[str], query_ids: list[str]
) -> tuple[list[dict[int, int]] | None, str]:
    """Return grades by position for each query, or None and why they are unusable."""
    documents = {name: i for i, name in enumerate(document_ids)}
    queries = {name: i for i, name in enumerate(query_ids)}
    grades: list[dict[int, int]] = [{} for _ in query_ids]
    lines = 0
    for query, document, grade in read_judgements(path):
        lines += 1
        if query in queries and document in documents:
            grades[queries[query]][documents[document]] = grade
    if any(grades):
        return grades, ""
    return None, (
        f"None of the {lines} judgements in {path} belongs to a query and a document of the collection: "
        "their ids must be those of the embeddings."
    )
