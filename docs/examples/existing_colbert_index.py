"""An existing index of token vectors: read, indexed, searched.

Usage: existing_colbert_index.py [FOLDER].
"""

import sys

from muvera import MuveraIndex, convert
from muvera.data.demo_sample import load_demo_sample

# Any format that `muvera formats` lists: ColBERT, fast-plaid, PyLate, WARP, npy,
# Parquet, Qdrant, ...
documents = convert.read(sys.argv[1]) if len(sys.argv) > 1 else load_demo_sample().documents
index = MuveraIndex.build(documents)
print(index)

# The first tokens of a document stand for a query; yours come from your model, (tokens,
# dimension).
query = documents[7][:8]
for name, score in index.search([query], k=3)[0]:
    print(name, round(score, 3))
print(index.explain(query, documents.ids[7]).tokens)
