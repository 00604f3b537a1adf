"""Build the bundled demo sample again: ``python -m experiments.demo.make_demo_sample``.

The sample's ``ids.json`` names the documents, objects of the Python standard library,
and ``queries.json`` has a newcomer's questions with their answers.  The command reads
the docstrings and encodes everything as MiniLM token states of 128 dimensions.  It
writes the other files, and prints the rank of each question's best answer under exact
MaxSim.  The numbers in the sample's README are to be updated by hand.
"""

from __future__ import annotations

import builtins
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.encode import fit_reduction, reduced
from muvera.texts.encoders.minilm import MiniLMEncoder, TokenStates

DIM = 128
SAMPLE = Path(__file__).parents[2] / "muvera" / "data" / "sample"

# Short documents limit the sample to a few megabytes.
MAX_CHARACTERS, MIN_WORDS = 130, 5

_SIGNATURE = re.compile(r"^[\w.]+\(.*\)(?: *-+> *(.*))?$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])")


def collect_documents(ids: Iterable[str]) -> dict[str, str]:
    """Return texts by dotted name.

    A text is the name, and the first sentences of the object's docstring.
    """
    return {name: f"{name}: {_summary(inspect.cleandoc(_object(name).__doc__ or ''))}" for name in ids}


def _object(name: str) -> Any:
    """Return an object of the standard library by its dotted name.

    Names of ``builtins`` have no prefix.
    """
    built_in = hasattr(builtins, name.partition(".")[0])
    return pkgutil.resolve_name(f"builtins.{name}" if built_in else name)


def _summary(docstring: str) -> str:
    """Return a docstring's first sentences, without signatures, examples and tables."""
    lines = docstring.split("\n")
    while lines and (signature := _SIGNATURE.match(lines[0].strip() or "f()")):
        lines.pop(0)
        # After the arrow follows a type ("-> list of strings") or the whole
        # description.
        if len((signature[1] or "").split()) >= MIN_WORDS:
            lines.insert(0, signature[1])
    prose = re.split(r"\n *(?:>>>|---|===)", "\n".join(lines))[0]
    paragraphs = [" ".join(paragraph.split()) for paragraph in prose.split("\n\n")]
    sentences = [sentence for text in paragraphs for sentence in _SENTENCE_END.split(text) if sentence]
    text = sentences[0]
    for sentence in sentences[1:]:
        if sentence.endswith(":") or len(text) + 1 + len(sentence) > MAX_CHARACTERS:
            break
        text = f"{text} {sentence}"
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rsplit(" ", 1)[0] + " ..."


def write_sample(folder: Path) -> None:
    """Encode a folder's documents and queries, and write the sample's files there."""
    documents = collect_documents(_read_json(folder / "ids.json"))
    queries = _read_json(folder / "queries.json")
    missing = sorted({answer for query in queries for answer in query["relevant"]} - documents.keys())
    if missing:
        raise ValueError(f"Expected answers are not among the documents: {', '.join(missing)}.")
    encoder = MiniLMEncoder()
    document_states = encoder.read(list(documents.values()), "document")
    query_states = encoder.read([query["text"] for query in queries], "query")
    reduction = fit_reduction((states.vectors for states in document_states), DIM)
    _write_vectors(folder, "", document_states, reduction)
    _write_vectors(folder, "query_", query_states, reduction)
    _write_json(folder / "texts.json", list(documents.values()))
    wordpiece = encoder._tokenizer.id_to_token
    document_words, query_words = (
        [[wordpiece(int(index)) for index in one.token_ids] for one in side]
        for side in (document_states, query_states)
    )
    _write_json(folder / "token_strings.json", document_words)
    for query, words in zip(queries, query_words, strict=True):
        query["token_strings"] = words
    _write_json(folder / "queries.json", queries)


def best_ranks(folder: Path) -> list[int]:
    """Return the rank of each query's best placed answer under exact MaxSim.

    The top has rank 1.  NumPy computes the ranks.
    """
    ids, queries = _read_json(folder / "ids.json"), _read_json(folder / "queries.json")
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


def _write_vectors(
    folder: Path, prefix: str, states: Sequence[TokenStates], reduction: NDArray[np.float32]
) -> None:
    vectors = reduced(np.concatenate([one.vectors for one in states]), reduction)
    np.save(folder / f"{prefix}tokens.npy", vectors)
    np.save(folder / f"{prefix}lengths.npy", np.array([len(one.vectors) for one in states], np.int32))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    """Build the sample in the folder of the first argument.

    Default: the bundled folder.
    """
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE
    write_sample(folder)
    for query, rank in zip(_read_json(folder / "queries.json"), best_ranks(folder), strict=True):
        print(f"{rank:4d}  {query['text']}  ({', '.join(query['relevant'])})")


if __name__ == "__main__":
    main()
