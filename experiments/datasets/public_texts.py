"""Text collections by the names of ir_datasets, written in BEIR's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import atomic_folder
from muvera.utils.optional_imports import import_extra

__all__ = ["fetch_texts"]


def fetch_texts(name: str, cache: Path) -> Path:
    """Return a folder with a collection's texts and judgements, downloaded at the first call.

    Parameters
    ----------
    name : str
        Such as ``beir/scifact/test``.
    cache : Path
        The folder stands there under ``texts``.

    Raises
    ------
    ValueError
        For a name that ir_datasets does not have, or one without documents, queries or judgements.
    OSError
        Where the texts cannot be downloaded.
    """
    folder = cache.expanduser() / "texts" / name.replace("/", "-")
    if (folder / "corpus.jsonl").exists():
        return folder
    library = import_extra("ir_datasets", "experiments", "Downloading texts")
    try:
        dataset = library.load(name)
    except KeyError as error:
        raise ValueError(
            f"{name} is neither a folder nor a name that ir_datasets {library.__version__} has."
        ) from error
    for what in ("docs", "queries", "qrels"):
        if not getattr(dataset, f"has_{what}")():
            raise ValueError(f"{name} of ir_datasets has no {what}. Take one of its parts that has them.")
    try:
        with atomic_folder(folder) as beside:
            _write(dataset, beside)
    except Exception as error:  # many libraries stand behind it, each with errors of its own
        raise OSError(
            f"{name} could not be downloaded ({type(error).__name__}: {error}). It needs a network; "
            "without one, give a folder with corpus.jsonl, queries.jsonl and qrels/."
        ) from error
    return folder


def _write(dataset: Any, folder: Path) -> None:
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for document in dataset.docs_iter():
            file.write(_line(document.doc_id, document.default_text()))
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for query in dataset.queries_iter():
            file.write(_line(query.query_id, query.default_text()))
    (folder / "qrels").mkdir()
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for one in dataset.qrels_iter():
            file.write(f"{one.query_id}\t{one.doc_id}\t{one.relevance}\n")


def _line(name: str, text: str) -> str:
    return json.dumps({"_id": name, "text": text}, ensure_ascii=False) + "\n"
