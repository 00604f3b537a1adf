"""Collections as a study needs them: token vectors with ids, texts, judgements and single vectors."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from .collections import Collection, encoded_collections, find_collections, load_collection

__all__ = ["DatasetPath", "StudyCollection", "find_places", "load_place"]

#: Judgements that are looked for first.
SPLIT = "test"


@dataclass(frozen=True)
class DatasetPath:
    """Where a collection's parts are; `embeddings` is None where only texts are there."""

    name: str
    embeddings: Path | None
    texts: Path | None


@dataclass(frozen=True, eq=False)
class StudyCollection:
    """A collection with all that systems and metrics may need.

    Parameters
    ----------
    tokens : Collection
        Documents and queries that have tokens, and the checksum of their vectors.
    document_ids, query_ids : list of str
    document_texts, query_texts : list of str, optional
    document_pooled, query_pooled : float32 (n, width), optional
        The model's own single vectors.
    judgements : list of dict, optional
        For each query the grades of documents by position.
    problems : list of str
        What is wrong with the collection's files, in sentences.
    """

    tokens: Collection
    document_ids: list[str]
    query_ids: list[str]
    document_texts: list[str] | None = None
    query_texts: list[str] | None = None
    document_pooled: NDArray[np.float32] | None = None
    query_pooled: NDArray[np.float32] | None = None
    judgements: list[dict[int, int]] | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.tokens.name

    @property
    def content(self) -> str:
        """Checksum of all that a system may be built from: sixteen hexadecimal digits."""
        digest = hashlib.sha256(self.tokens.checksum.encode())
        for texts in (self.document_texts, self.query_texts):
            digest.update(json.dumps(texts).encode())
        for pooled in (self.document_pooled, self.query_pooled):
            digest.update(b"" if pooled is None else np.ascontiguousarray(pooled).tobytes())
        return digest.hexdigest()[:16]

    def asked(self, count: int) -> StudyCollection:
        """Return the collection with at most `count` of its queries, judged ones first, in their order.

        The choice is random, and the same for the same collection.
        """
        total = len(self.query_ids)
        if total <= count:
            return self
        order = np.random.default_rng(0).permutation(total)
        if self.judgements is not None:
            judged = np.array([bool(row) for row in self.judgements])
            order = order[np.argsort(~judged[order], kind="stable")]
        picked = np.sort(order[:count])
        return replace(
            self,
            tokens=replace(
                self.tokens,
                queries=_numbered(self.tokens.queries[picked]),
                checksum=_derived(self.tokens.checksum, "queries", picked),
            ),
            query_ids=[self.query_ids[i] for i in picked],
            query_texts=None if self.query_texts is None else [self.query_texts[i] for i in picked],
            query_pooled=None if self.query_pooled is None else self.query_pooled[picked],
            judgements=None if self.judgements is None else [self.judgements[i] for i in picked],
        )

    def sampled(self, count: int | None) -> StudyCollection:
        """Return the collection with `count` of its documents; None: all.

        The choice is random, but for the documents that are relevant to a query: they come first, for
        metrics need them, up to half of the sample.  Judgements of documents that are left out go with them.
        """
        total = len(self.document_ids)
        if count is None or count >= total:
            return self
        order = np.random.default_rng(0).permutation(total)
        if self.judgements is not None:
            relevant = np.zeros(total, np.bool_)
            relevant[[p for row in self.judgements for p, grade in row.items() if grade > 0]] = True
            first = order[relevant[order]][: count // 2]
            order = np.concatenate([first, order[~np.isin(order, first)]])
        picked = np.sort(order[:count])
        places = {int(old): new for new, old in enumerate(picked)}
        judgements = None
        if self.judgements is not None:
            judgements = [{places[p]: g for p, g in row.items() if p in places} for row in self.judgements]
        return replace(
            self,
            tokens=replace(
                self.tokens,
                documents=_numbered(self.tokens.documents[picked]),
                checksum=_derived(self.tokens.checksum, "documents", picked),
            ),
            document_ids=[self.document_ids[i] for i in picked],
            document_texts=None if self.document_texts is None else [self.document_texts[i] for i in picked],
            document_pooled=None if self.document_pooled is None else self.document_pooled[picked],
            judgements=judgements,
        )


def find_places(folders: Sequence[Path], cache: Path) -> dict[str, DatasetPath]:
    """Return what is in `folders` by name: embeddings with their texts, and texts without embeddings.

    Parameters
    ----------
    folders : sequence of Path
        Each a collection of embeddings, a folder of texts in BEIR's layout, or a folder of such, also
        under ``embeddings`` and ``beir``.
    cache : Path
        Embeddings that ``python -m experiments encode`` has put there belong to their texts.

    Raises
    ------
    FileNotFoundError
        For a folder with neither.
    """
    embeddings: dict[str, Path] = {}
    texts: dict[str, Path] = {}
    fetched = cache.expanduser() / "texts"
    texts |= _text_folders(fetched)
    for folder in folders:
        here = _text_folders(folder)
        texts |= here
        try:
            embeddings |= find_collections([folder])
        except FileNotFoundError:
            if not here:
                raise
    encoded = encoded_collections(cache).items()
    embeddings = {name: path for name, path in encoded if _texts_of(name, texts)} | embeddings
    places = {
        name: DatasetPath(name, path, _texts_of(name, texts) or _own_texts(path))
        for name, path in embeddings.items()
    }
    used = {place.texts for place in places.values()}
    # What was fetched for another run is not asked for in this one.
    alone = {name: path for name, path in texts.items() if path not in used and path.parent != fetched}
    return places | {name: DatasetPath(name, None, path) for name, path in alone.items()}


def load_place(place: DatasetPath) -> StudyCollection:
    """Load a collection with all that is there of it.

    Raises
    ------
    FileNotFoundError
        Where there are no embeddings.
    """
    if place.embeddings is None:
        raise FileNotFoundError(
            f"{place.name} has texts in {place.texts}, but no embeddings. "
            f"Run: python -m experiments encode {place.texts}"
        )
    tokens = load_collection(place.embeddings)
    sides = {side: _side(place.embeddings, side) for side in ("docs", "queries")}
    document_ids = _ids(sides["docs"], len(tokens.documents), tokens.document_ids)
    query_ids = _ids(sides["queries"], len(tokens.queries), tokens.query_ids)
    loaded = StudyCollection(
        tokens,
        document_ids,
        query_ids,
        document_pooled=sides["docs"].get("pooled"),
        query_pooled=sides["queries"].get("pooled"),
    )
    return loaded if place.texts is None else _with_texts(loaded, place.texts)


def _side(path: Path, side: str) -> dict[str, Any]:
    """Read ids and pooled vectors of the texts that have tokens."""
    lengths = path / f"{side}_lens.npy"
    if not lengths.exists():
        return {}
    filled = np.flatnonzero(np.load(lengths, allow_pickle=False) > 0)
    found: dict[str, Any] = {}
    if (path / f"{side}_ids.json").exists():
        names = json.loads((path / f"{side}_ids.json").read_text(encoding="utf-8"))
        found["ids"] = [str(names[i]) for i in filled]
    if (path / f"{side}_pooled.npy").exists():
        found["pooled"] = np.asarray(
            np.load(path / f"{side}_pooled.npy", allow_pickle=False)[filled], np.float32
        )
    return found


def _ids(side: dict[str, Any], count: int, own: Any) -> list[str]:
    if "ids" in side:
        return list(side["ids"])
    return [str(name) for name in (range(count) if own is None else own)]


def _with_texts(loaded: StudyCollection, folder: Path) -> StudyCollection:
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


def _text_folders(folder: Path) -> dict[str, Path]:
    places = [folder]
    for parent in (folder, folder / "beir"):
        places += sorted(child for child in parent.iterdir() if child.is_dir()) if parent.is_dir() else []
    return {
        place.resolve().name: place
        for place in places
        if (place / "corpus.jsonl").exists() and (place / "queries.jsonl").exists()
    }


def _texts_of(name: str, texts: dict[str, Path]) -> Path | None:
    """Return the texts that embeddings called NAME-MODEL belong to: the longest name that fits."""
    fitting = [text for text in texts if name == text or name.startswith(f"{text}-")]
    return texts[max(fitting, key=len)] if fitting else None


def _own_texts(path: Path) -> Path | None:
    return path if (path / "qrels").is_dir() or (path / "corpus.jsonl").exists() else None


def _numbered(texts: MultiVectors) -> MultiVectors:
    """Let positions be the ids again."""
    return MultiVectors(texts.tokens, texts.offsets)


def _derived(checksum: str, what: str, picked: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(f"{checksum} {what} ".encode())
    digest.update(np.ascontiguousarray(picked, np.int64).tobytes())
    return digest.hexdigest()[:16]
