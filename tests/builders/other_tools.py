"""Small indexes of RAGatouille, PyLate, byaldi, Qdrant and LanceDB, 32 columns each."""

import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np

from muvera import MultiVectors

from .foreign_indexes import random_index, write_byaldi, write_lancedb, write_plaid, write_qdrant

LENGTHS = [[5, 3], [4, 6]]


def write_other_tools(folder: Path) -> None:
    """Write all of them under the names of docs/how-to/switch.md."""
    rng = np.random.default_rng(0)
    documents = MultiVectors.from_flat(rng.normal(size=(7, 32)).astype(np.float32), [4, 3])

    path = write_plaid(
        folder / ".ragatouille" / "colbert" / "indexes" / "my_index", random_index(0, LENGTHS, 32)
    )
    metadata = json.loads((path / "metadata.json").read_text())
    metadata["config"]["checkpoint"] = "colbert-ir/colbertv2.0"
    (path / "metadata.json").write_text(json.dumps(metadata))
    (path / "collection.json").write_text(json.dumps(["one", "two", "three", "four"]))
    (path / "pid_docid_map.json").write_text(json.dumps({str(i): f"d{i // 2}" for i in range(4)}))

    path = write_plaid(folder / "pylate-index" / "index", random_index(0, LENGTHS, 32))
    names = {i: f"d{i}" for i in range(4)}
    (path / "plaid_ids_to_documents_ids.pkl").write_bytes(pickle.dumps(names))

    write_byaldi(folder / ".byaldi" / "my_index", list(documents))
    if importlib.util.find_spec("qdrant_client"):
        write_qdrant(folder / "my-qdrant", documents)
    if importlib.util.find_spec("lancedb"):
        write_lancedb(folder / "my-lancedb", documents)
