"""Reading a collection's files: token vectors, ids, single vectors, texts and judgements."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from muvera import MultiVectors
from muvera.convert import read

from .collection import Collection, tokens_checksum
from .discovery import PLAID_QUERIES, DatasetPath, files_of_side

__all__ = ["load_collection"]

#: Judgements that are looked for first.
SPLIT = "test"


def load_collection(path: DatasetPath) -> Collection:
    """Load a collection with all that is there of it.

    Raises
    ------
    FileNotFoundError
        Where there are no embeddings.
    """
    if path.embeddings is None:
        raise FileNotFoundError(
            f"{path.name} has texts in {path.texts}, but no embeddings. "
            f"Run: python -m experiments encode {path.texts}"
        )
    (documents, document_ids), (queries, query_ids) = map(_with_tokens, _token_vectors(path.embeddings))
    beside = {side: _beside_tokens(path.embeddings, side) for side in ("docs", "queries")}
    loaded = Collection(
        path.embeddings.resolve().name,
        documents,
        queries,
        tokens_checksum(documents, queries),
        beside["docs"].get("ids", document_ids),
        beside["queries"].get("ids", query_ids),
        document_pooled=beside["docs"].get("pooled"),
        query_pooled=beside["queries"].get("pooled"),
        document_token_ids=beside["docs"].get("token_ids"),
        query_token_ids=beside["queries"].get("token_ids"),
    )
    return loaded if path.texts is None else _with_texts(loaded, path.texts)


def _token_vectors(path: Path) -> tuple[MultiVectors, MultiVectors]:
    if (path / PLAID_QUERIES).exists():
        documents = read(path, format="plaid")
        queries = MultiVectors.from_arrays(np.load(path / PLAID_QUERIES, allow_pickle=False))
    elif (path / "docs_tokens.npy").exists():
        documents, queries = _flat(path, "docs"), _flat(path, "queries")
    else:
        documents, queries = (read(_file_of_side(path, side)) for side in ("documents", "queries"))
    return documents, queries


def _with_tokens(texts: MultiVectors) -> tuple[MultiVectors, list[str]]:
    """Return the texts that have tokens, as a search does, and their ids."""
    filled = texts[texts.lengths > 0]
    ids = filled.ids.tolist() if texts.has_ids else range(len(filled))
    return MultiVectors(filled.tokens, filled.offsets), [str(name) for name in ids]


def _file_of_side(path: Path, side: str) -> Path:
    found = files_of_side(path, side)
    if len(found) > 1:
        raise ValueError(f"{path} has both {found[0].name} and {found[1].name}. Leave one of them there.")
    return found[0]


def _flat(path: Path, side: str) -> MultiVectors:
    tokens = np.load(path / f"{side}_tokens.npy", allow_pickle=False)
    return MultiVectors.from_flat(tokens, np.load(path / f"{side}_lens.npy", allow_pickle=False))


def _beside_tokens(path: Path, side: str) -> dict[str, Any]:
    """Read ids, pooled vectors and the tokens' vocabulary ids of the texts that have tokens."""
    lengths = path / f"{side}_lens.npy"
    if not lengths.exists():
        return {}
    counts = np.load(lengths, allow_pickle=False)
    filled = np.flatnonzero(counts > 0)
    found: dict[str, Any] = {}
    if (path / f"{side}_ids.json").exists():
        names = json.loads((path / f"{side}_ids.json").read_text(encoding="utf-8"))
        found["ids"] = [str(names[i]) for i in filled]
    if (path / f"{side}_pooled.npy").exists():
        pooled = np.load(path / f"{side}_pooled.npy", allow_pickle=False)
        found["pooled"] = np.asarray(pooled[filled], np.float32)
    if (path / f"{side}_token_ids.npy").exists():
        ids = np.asarray(np.load(path / f"{side}_token_ids.npy", allow_pickle=False), np.int64)
        texts = np.split(ids, np.cumsum(counts)[:-1])
        found["token_ids"] = [texts[i] for i in filled]
    return found


def _with_texts(loaded: Collection, folder: Path) -> Collection:
    problems: list[str] = []
    texts: dict[str, list[str] | None] = {}
    for side, file, ids in (
        ("document_texts", "corpus.jsonl", loaded.document_ids),
        ("query_texts", "queries.jsonl", loaded.query_ids),
    ):
        known = _read_texts(folder / file) if (folder / file).exists() else {}
        missing = [name for name in ids if name not in known]
        texts[side] = None if missing else [known[name] for name in ids]
        if missing and known:
            problems.append(f"{folder / file} has no text of {missing[0]!r} and {len(missing) - 1} others.")
    judgements = None
    path = _judgements_file(folder)
    if path is not None:
        judgements, problem = _read_judgements(path, loaded.document_ids, loaded.query_ids)
        problems += [problem] if problem else []
    return replace(
        loaded,
        judgements=judgements,
        problems=problems,
        document_texts=texts["document_texts"],
        query_texts=texts["query_texts"],
    )


def _read_texts(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return {str(row["_id"]): f"{row.get('title') or ''} {row['text']}".strip() for row in rows}


def _judgements_file(folder: Path) -> Path | None:
    if (folder / "qrels" / f"{SPLIT}.tsv").exists():
        return folder / "qrels" / f"{SPLIT}.tsv"
    return next(iter(sorted((folder / "qrels").glob("*.tsv"))), None)


def _read_judgements(
    path: Path, document_ids: list[str], query_ids: list[str]
) -> tuple[list[dict[int, int]] | None, str]:
    """Return grades by position for each query, or None and why they cannot be used."""
    documents = {name: i for i, name in enumerate(document_ids)}
    queries = {name: i for i, name in enumerate(query_ids)}
    found: list[dict[int, int]] = [{} for _ in query_ids]
    lines = 0
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file, delimiter="\t"):
            if len(row) < 3 or not row[2].strip().lstrip("-").isdigit():
                continue  # the header
            lines += 1
            if row[0] in queries and row[1] in documents:
                found[queries[row[0]]][documents[row[1]]] = int(row[2])
    if not any(found):
        return None, (
            f"None of the {lines} judgements in {path} is of a query and a document that are here: their ids "
            "must be those of the embeddings."
        )
    return found, ""
