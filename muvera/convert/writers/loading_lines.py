"""Lines that load a file of FDEs into a store and search it by inner product.

The lines are exact: names of tables and columns are those that were written, and the distance
is named wherever a store's own default is another one, which would rank wrongly without a word.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Written", "loading_lines"]


class Written(NamedTuple):
    """A file or folder of documents' FDEs."""

    #: Where it is.
    out: str
    #: Floats of an FDE.
    dimension: int
    #: Whether ids are integers.
    integer_ids: bool
    #: Whether the numbers were rounded for pgvector's halfvec.
    half: bool = False


def loading_lines(to: str | None, written: Written) -> str:
    """Return the lines for a target of ``muvera encode --to``; None stands for one .npy file.

    `query` in them is the FDE of a query, float32 (dimension,).
    """
    return _LINES[to](written)


def _array(written: Written) -> str:
    return f"""\
import numpy as np
vectors = np.load({written.out!r}, mmap_mode="r")
scores = vectors @ query  # inner product
best = np.argsort(-scores)[:10]  # rows of the documents
"""


def _npy(written: Written) -> str:
    return f"""\
import json
from pathlib import Path
import numpy as np
vectors = np.load({written.out + "/vectors.npy"!r}, mmap_mode="r")
ids = json.loads(Path({written.out + "/ids.json"!r}).read_text(encoding="utf-8"))
scores = vectors @ query  # inner product
best = [ids[row] for row in np.argsort(-scores)[:10]]
"""


def _faiss(written: Written) -> str:
    imports = names = ""
    if not written.integer_ids:
        imports = "import json\nfrom pathlib import Path\n"
        names = f"""\
names = json.loads(Path({written.out + "/ids.json"!r}).read_text(encoding="utf-8"))
best = [names[row] for row in found[0]]
"""
    return f"""\
{imports}import faiss
import numpy as np
index = faiss.IndexIDMap(faiss.IndexFlatIP({written.dimension}))  # IP: inner product
index.add_with_ids(np.load({written.out + "/vectors.npy"!r}), np.load({written.out + "/ids.npy"!r}))
scores, found = index.search(query[None], 10)
{names}"""


def _parquet(written: Written) -> str:
    return f"""\
import numpy as np
import pyarrow.parquet as pq
table = pq.read_table({written.out!r}).combine_chunks()
vectors = table["fde"].chunk(0).flatten().to_numpy().reshape(-1, {written.dimension})
scores = vectors @ query  # inner product
best = table["id"].take(np.argsort(-scores)[:10]).to_pylist()
"""


def _lancedb(written: Written) -> str:
    return f"""\
import lancedb
table = lancedb.connect({written.out!r}).open_table("fdes")
# Without distance_type("dot") LanceDB ranks by Euclidean distance, which finds other documents.
found = table.search(query).distance_type("dot").limit(10).to_list()
best = [row["id"] for row in found]
"""


def _pgvector(written: Written) -> str:
    kind = "halfvec" if written.half else "vector"
    identity = "bigint" if written.integer_ids else "text"
    return f"""\
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE fdes (id {identity} PRIMARY KEY, embedding {kind}({written.dimension}));
\\copy fdes (id, embedding) FROM {_quoted(written.out)}
CREATE INDEX ON fdes USING hnsw (embedding {kind}_ip_ops);
-- <#> is the negative inner product; <-> and <=> rank FDEs wrongly. $1 is the query's FDE, '[...]'.
SELECT id FROM fdes ORDER BY embedding <#> $1 LIMIT 10;
"""


def _qdrant(written: Written) -> str:
    return f"""\
import json
from qdrant_client import QdrantClient, models
client = QdrantClient("http://localhost:6333")
params = models.VectorParams(size={written.dimension}, distance=models.Distance.DOT)  # inner product
client.create_collection("fdes", vectors_config={{"fde": params}})
with open({written.out!r}, encoding="utf-8") as lines:
    client.upload_points("fdes", (models.PointStruct(**json.loads(line)) for line in lines))
found = client.query_points("fdes", query=query.tolist(), using="fde", limit=10, with_payload=True)
best = [point.payload["id"] for point in found.points]
"""


def _milvus(written: Written) -> str:
    identity = "INT64" if written.integer_ids else "VARCHAR, max_length=65535"
    return f"""\
import json
from pathlib import Path
from pymilvus import DataType, MilvusClient
client = MilvusClient("http://localhost:19530")
schema = client.create_schema()
schema.add_field("id", DataType.{identity}, is_primary=True)
schema.add_field("fde", DataType.FLOAT_VECTOR, dim={written.dimension})
graph = client.prepare_index_params()
graph.add_index("fde", index_type="HNSW", metric_type="IP", params={{"M": 16, "efConstruction": 200}})
client.create_collection("fdes", schema=schema, index_params=graph)
client.insert("fdes", json.loads(Path({written.out!r}).read_text(encoding="utf-8"))["rows"])
found = client.search("fdes", [query.tolist()], anns_field="fde", limit=10, search_params={{"metric_type": "IP"}})
best = [hit["id"] for hit in found[0]]
"""


def _opensearch(written: Written) -> str:
    out = shlex.quote(written.out)
    send = "curl --fail-with-body -sS -H 'Content-Type: application/"
    return f"""\
OPENSEARCH=http://localhost:9200  # or https://USER:PASSWORD@HOST:9200
{send}json' -X PUT "$OPENSEARCH/fdes" --data-binary @{out}/mapping.json
for part in {out}/bulk-*.ndjson; do
  {send}x-ndjson' --data-binary @"$part" "$OPENSEARCH/fdes/_bulk?filter_path=errors,items.*.error"
done
curl --fail-with-body -sS -X POST "$OPENSEARCH/fdes/_refresh"
python -c 'import json, numpy as np
vector = np.load("queries.npy")[0].tolist()
print(json.dumps({{"size": 10, "_source": ["id"], "query": {{"knn": {{"fde": {{"vector": vector, "k": 10}}}}}}}}))' |
  {send}json' --data-binary @- "$OPENSEARCH/fdes/_search"
"""


def _quoted(text: str) -> str:
    """Return a path as SQL's string."""
    return "'" + text.replace("'", "''") + "'"


_LINES: dict[str | None, Callable[[Written], str]] = {
    None: _array,
    "npy": _npy,
    "faiss": _faiss,
    "parquet": _parquet,
    "lancedb": _lancedb,
    "pgvector": _pgvector,
    "qdrant": _qdrant,
    "milvus": _milvus,
    "opensearch": _opensearch,
}
