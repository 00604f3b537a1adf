"""Small indexes of RAGatouille, PyLate, byaldi, Qdrant and LanceDB, 32 columns each."""

import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np

from .foreign_indexes import random_index, write_byaldi, write_plaid

LENGTHS = [[5, 3], [4, 6]]


def write_other_tools(folder: Path) -> None:
    """Write all of them under the names of docs/how-to/switch.md."""
    rng = np.random.default_rng(0)
    documents = [rng.normal(size=(count, 32)).astype(np.float32) for count in (4, 3)]

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

    write_byaldi(folder / ".byaldi" / "my_index", documents)
    if importlib.util.find_spec("qdrant_client"):
        from qdrant_client import QdrantClient, models

        client = QdrantClient(path=str(folder / "my-qdrant"))
        several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        columns = models.VectorParams(size=32, distance=models.Distance.DOT, multivector_config=several)
        client.create_collection("docs", vectors_config=columns)
        points = [models.PointStruct(id=i, vector=row.tolist()) for i, row in enumerate(documents)]
        client.upsert("docs", points)
        client.close()
    if importlib.util.find_spec("lancedb"):
        import lancedb

        rows = [{"id": f"d{i}", "vector": row.tolist()} for i, row in enumerate(documents)]
        import pyarrow

        kind = pyarrow.list_(pyarrow.list_(pyarrow.float32(), 32))
        schema = pyarrow.schema([("id", pyarrow.string()), ("vector", kind)])
        lancedb.connect(str(folder / "my-lancedb")).create_table("docs", rows, schema=schema)
