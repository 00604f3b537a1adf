"""The bundled sample, see ``sample/README.md``.

It has short texts and questions with token vectors of a real model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .multivectors import MultiVectors

FOLDER = Path(__file__).parent / "sample"


@dataclass(frozen=True, eq=False)
class DemoSample:
    """Documents and queries, each with its text and the string of every token."""

    documents: MultiVectors
    queries: MultiVectors
    texts: list[str]
    query_texts: list[str]
    token_strings: list[list[str]]
    query_token_strings: list[list[str]]
    #: For each query, the ids of the documents that answer it.
    relevant: list[list[str]]


def load_demo_sample() -> DemoSample:
    """Read the bundled sample."""
    queries = _read("queries.json")
    return DemoSample(
        documents=MultiVectors.from_flat(_read("tokens.npy"), _read("lengths.npy"), ids=_read("ids.json")),
        queries=MultiVectors.from_flat(
            _read("query_tokens.npy"), _read("query_lengths.npy"), ids=[query["id"] for query in queries]
        ),
        texts=_read("texts.json"),
        query_texts=[query["text"] for query in queries],
        token_strings=_read("token_strings.json"),
        query_token_strings=[query["token_strings"] for query in queries],
        relevant=[query["relevant"] for query in queries],
    )


def _read(name: str) -> Any:
    path = FOLDER / name
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    return json.loads(path.read_text(encoding="utf-8"))
