"""Reader of JSON and JSON lines.

They have documents, answers of embedding APIs, or rows of vector stores, also as
Elasticsearch's bulk files, in which each document follows an action.  JSON lines are
read line by line, and a single JSON value whole.  One table of field paths covers
all stores.  A path such as ``vectors.colbert`` descends into objects; in a list of
objects, it selects one value per object.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.checks import require_choice
from ...utils.hints import Argument, Message
from ..cells import CELL_TYPES, NBITS, cell_type_of, is_hex, unpacked
from ..sources import IF_TEXTS, Document, Reader, ReadError, RowSource, Source, choose, naming_errors

#: Paths to a list of rows: Qdrant, Elasticsearch, APIs, Weaviate, Vespa and others.
_ROWS = ("result.points", "hits.hits", "points", "result", "data", "objects", "documents", "rows")
#: Objects of a row that contain named vectors: Elasticsearch, Vespa, Weaviate and
#: Qdrant.  "" is the row.
_CONTAINERS = ("_source", "fields", "vectors", "vector", "")
#: Containers of stores whose integers and hex strings may be packed signs: Vespa,
#: Elasticsearch and OpenSearch.
_PACKED = ("fields", "_source")
#: Preferred names if several fields could be token vectors.
_TOKENS = (
    "tokens", "embeddings", "embedding", "colbert_vecs", "token_embeddings", "vectors", "vector", "colbert",
)  # fmt: skip
_IDS = ("id", "_id", "doc_id", "docid", "document_id", "pid", "key", "uuid", "put")

#: Actions of Elasticsearch's and OpenSearch's bulk files; the first two have a
#: document in the next line.
_ACTIONS = ("index", "create", "update", "delete")

_Rows = Iterator[tuple[str, dict[str, Any]]]


def _open(
    path: Path, *, field: str | None = None, id_field: str | None = None, cell_type: str | None = None
) -> Source:
    """Open a .jsonl, .ndjson or .json file, which may be compressed by gzip.

    `field` and `id_field` are paths in a row (default: detected).  `cell_type` says
    what integers and hex strings of a tensor are: "bits" (8 signs in each byte),
    "int8", "bfloat16", "float" or "double".  By default, it is the type that Vespa
    writes, and int8 is read as bits.
    """
    if cell_type is not None:
        require_choice("cell_type", cell_type, CELL_TYPES)
    rows = _rows_of(path)
    if field is None:
        field = _first_field(rows())
    used: list[str] = []

    def documents() -> Iterator[Document]:
        for where, row in rows():
            with naming_errors(where, "jsonl"):
                tokens, cell = _tokens(row, field, cell_type)
                document = Document(tokens, where, _id(row, id_field))
            used[:] = [cell]
            yield document

    source = RowSource(documents, name="jsonl")  # reads the first document with tokens
    source.nbits = NBITS.get(used[0])
    source.lossy = source.nbits is not None
    return source


# -- rows of a file ---------------------------------------------------------------


def _rows_of(path: Path) -> Callable[[], _Rows]:
    """Return a function that reads the rows from the beginning."""

    def lines() -> _Rows:
        action: dict[str, Any] | None = None
        with _open_text(path) as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                where = f"line {number}"
                with naming_errors(where, "jsonl"):
                    value = json.loads(line)
                    if action is not None:
                        rows: list[dict[str, Any]] = [{**action, "_source": value}]
                        action = None
                    elif _is_action(value):
                        action = _action(value)
                        continue
                    else:
                        # A line with an empty list is a document without tokens.
                        rows = _rows_in(value) if value != [] else [{"tokens": []}]
                yield from ((where, row) for row in rows)
        if action is not None:
            raise ReadError("its last action has no document in the next line. Copy or export it again.")

    if not path.name.removesuffix(".gz").endswith(".json"):
        return lines
    try:
        with _open_text(path) as stream:
            content = json.loads(stream.read())
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data"):
            return lines  # JSON lines under another name
        raise
    rows = _rows_in(content)
    return lambda: ((f"row {i}", row) for i, row in enumerate(rows))


def _is_action(value: object) -> bool:
    """Return True for an action of a bulk file, such as ``{"index": {"_id": "7"}}``."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((name, target),) = value.items()
    return name in _ACTIONS and isinstance(target, dict) and not any(map(_is_matrix, target.values()))


def _action(value: dict[str, Any]) -> dict[str, Any]:
    """Return the id of an action as fields of a row."""
    ((name, target),) = value.items()
    if name not in ("index", "create"):
        raise ReadError(
            f"it has the action {name!r}, but only files of index and create are read. Export the documents "
            "again."
        )
    return {"_id": target["_id"]} if "_id" in target else {}


def _open_text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(gzip.open(path) if path.suffix == ".gz" else path.open("rb"), encoding="utf-8")


def _rows_in(value: object) -> list[dict[str, Any]]:
    """Return the rows in a JSON value.

    If the value is itself a row, return only that.
    """
    if isinstance(value, list):
        rows = [value] if _is_matrix(value) else value
        return [row if isinstance(row, dict) else {"tokens": row} for row in rows]
    if not isinstance(value, dict):
        raise ReadError(
            f"it must be a list or object with documents, got {json.dumps(value)[:40]}. Copy or export it "
            "again."
        )
    if any(value.get(key) == [] or _is_matrix(value.get(key)) for key in _TOKENS):
        return [value]
    for path in _ROWS:
        rows = _at(value, path)
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) and (rows or "." in path):
            # APIs number their answers and may return them in any order.
            numbered = all(isinstance(row.get("index"), int) for row in rows)
            return sorted(rows, key=lambda row: int(row["index"])) if numbered else rows
    for key in _TOKENS:
        if isinstance(value.get(key), list) and value[key] and _is_matrix(value[key][0]):
            return [{"tokens": row} for row in value[key]]
    mapped = all(tokens == [] or _is_matrix(tokens) for tokens in value.values())
    if mapped and any(value.values()) and not set(_TOKENS) & set(value):
        return [{"id": key, "tokens": tokens} for key, tokens in value.items()]
    return [value]


# -- fields of a row --------------------------------------------------------------


def _at(value: object, path: str) -> Any:
    """Return the value at a path; None if the path does not exist."""
    if isinstance(value, list):
        return [_at(item, path) for item in value]
    if not isinstance(value, dict):
        return None
    if path in value:
        return value[path]
    step, _, rest = path.partition(".")
    return _at(value.get(step), rest) if rest else None


def _first_field(rows: _Rows) -> str:
    """Return the path to the token vectors in the first row that has some."""
    fields = None
    for where, row in rows:
        fields = fields or ", ".join(row) or "nothing"
        with naming_errors(where, "jsonl"):
            field = _field(row)
        if field is not None:
            return field
    if fields is None:
        raise ReadError("it has no documents.")
    raise ReadError(
        Message(
            "it has no row with token vectors, which are lists of lists of numbers; its first has the fields "
            f"{fields}. Give their path with ",
            Argument("field", ""),
            ", and for hex strings also ",
            Argument("cell_type", ""),
            f". {IF_TEXTS}",
        )
    )


def _field(row: dict[str, Any]) -> str | None:
    for container in _CONTAINERS:
        fields = row.get(container) if container else row
        if not isinstance(fields, dict):
            continue
        blocks = {key: _tensor(value)[0] for key, value in fields.items()}
        candidates = [key for key, value in blocks.items() if _is_matrix(value)]
        for key, value in fields.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):  # Milvus' structs
                candidates += [f"{key}.{name}" for name, vector in value[0].items() if _is_vector(vector)]
        # Lists of strings are rarely hex, but tensors and rank_vectors may be.
        candidates = candidates or [
            key
            for key, value in blocks.items()
            if (value is not fields[key] and value and is_hex(value[0]))
            or ((container in _PACKED or key in _TOKENS) and _is_hex_matrix(value))
        ]
        if candidates:
            chosen = choose(None, candidates, "token field", "field", _TOKENS)
            return f"{container}.{chosen}" if container else chosen
    return None


def _is_vector(value: object) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) in (int, float)


def _is_matrix(value: object) -> bool:
    return isinstance(value, list) and bool(value) and _is_vector(value[0])


def _is_hex_matrix(value: object) -> bool:
    """Return True for a list of equally long hex strings."""
    if not isinstance(value, list) or not value or not all(map(is_hex, value)):
        return False
    return len(set(map(len, value))) == 1


def _tensor(value: object) -> tuple[Any, str]:
    """Return the blocks of a Vespa tensor, ordered by their numbers, and its type.

    Other values are returned unchanged, with the type "".
    """
    declared = str(value.get("type", "")) if isinstance(value, dict) else ""
    blocks = value.get("blocks", value) if isinstance(value, dict) else None
    if isinstance(blocks, list):
        addresses = [block["address"] for block in blocks]
        keys = [str(key) for address in addresses for key in address.values()]
        if len(set(keys)) != len(blocks) or len(keys) != len(blocks):
            raise ReadError(
                "it has two blocks at one address, or addresses of several dimensions. Export a tensor with "
                "one mapped dimension, the tokens."
            )
        blocks = {key: block["values"] for key, block in zip(keys, blocks, strict=True)}
    if blocks is None or not all(map(str.isdecimal, blocks)):
        return value, ""
    return [blocks[key] for key in sorted(blocks, key=int)], declared


def _tokens(row: dict[str, Any], field: str, cell_type: str | None) -> tuple[Any, str]:
    """Return the token vectors of a row, float32 (t, dimension), and the cells' type.

    (0, 0) for null or an absent named vector.
    """
    value = _at(row, field)
    if value is None and field not in row and "." not in field:
        raise ReadError(f"it has no {field!r}, only {', '.join(row)}. For no tokens, set it to null.")
    rows, declared = _tensor(value)
    cell = cell_type or "float"
    if not rows:
        return np.empty((0, 0), np.float32), cell
    _require_equal_lengths(rows, field)
    # Vespa omits the type in its short form, and the blocks if no dimension is mapped.
    # Elasticsearch writes rank_vectors of bits as integers or hex strings.
    packed = field.partition(".")[0] in _PACKED and _is_matrix(rows)
    if cell_type is None and (rows is not value or packed or _is_hex_matrix(rows)):
        cell = cell_type_of(rows, declared, field)
    array = np.asarray(rows) if cell_type is None and rows is value else unpacked(rows, cell, field)
    if array.ndim != 2 or array.dtype.kind not in "if":
        raise ReadError(
            Message(
                f"it has in {field} {array.dtype} of shape {array.shape}, but token vectors are a list "
                "of equally long lists of numbers. Choose another path with ",
                Argument("field", ""),
                ".",
            )
        )
    with np.errstate(over="ignore"):  # the document is refused later, with its number
        return array.astype(np.float32), cell


def _require_equal_lengths(rows: Any, field: str) -> None:
    """Raise ReadError if some tokens have more numbers, or hex digits, than others."""
    lengths = {len(row) for row in rows if isinstance(row, (list, str))} if isinstance(rows, list) else ()
    if len(lengths) > 1:
        unit = "hex digits" if isinstance(rows[0], str) else "numbers"
        raise ReadError(
            f"it has in {field} a token of {min(lengths)} {unit} and one of {max(lengths)}, but all must "
            "have the same number. Export it again."
        )


def _id(row: dict[str, Any], id_field: str | None) -> int | str | None:
    for path in _IDS if id_field is None else (id_field,):
        value = _at(row, path)
        if isinstance(value, str) and re.match(r"id:[^:]*:[^:]*:[^:]*:", value):
            return value.split(":", 4)[4]  # the user's part of Vespa's id
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            return value
        if value is not None:
            raise ReadError(f"it has {path}={value!r}, but an id must be an integer or a string.")
    if id_field is not None:
        raise ReadError(f"it has no id in {id_field!r}; its fields are {', '.join(row)}.")
    return None


def _matches(path: Path) -> bool:
    return path.is_file() and path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson", ".json"))


READERS = (
    Reader(
        "jsonl",
        _matches,
        _open,
        "rows.jsonl -o field=vectors.colbert",
        "a .jsonl, .ndjson or .json file (also .gz) of documents, an API's embeddings, or a vector store's "
        "rows (Qdrant, Weaviate, Milvus, Vespa, Elasticsearch and OpenSearch with bulk files)",
    ),
)
