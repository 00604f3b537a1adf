"""Arguments and options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, BadParameter, Option


def _pair(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE; true, false and numbers are converted, other values stay text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadParameter(f"it must be NAME=VALUE, got {text!r}.")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    return name.replace("-", "_"), parsed if isinstance(parsed, (bool, int, float)) else value


def _condition(text: str) -> Any:
    """Parse a condition in JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadParameter(
            f'it must be JSON, such as {{"year": {{"$gte": 2000}}}}, got {text!r}: {error}.'
        ) from None


Source = Annotated[Path, Argument(metavar="SOURCE", help="Token embeddings: an index, a file or a folder.")]
Format = Annotated[
    str | None, Option("--format", "-f", help="Input format (default: detected; see muvera formats).")
]
ReaderOption = Annotated[
    list[Any] | None,
    Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        parser=_pair,
        help="Option of the format's reader, such as part=queries if the input also has documents; can be repeated.",
    ),
]
Queries = Annotated[
    Path | None, Option(help="Query embeddings of the same model (default: windows of document tokens).")
]
_ENCODERS = "moments, learned, mean, fde, paper or reference; or the folder of an index or of a saved encoder"
Encoder = Annotated[str | None, Option(help=f"{_ENCODERS} (default: moments).")]
IndexEncoder = Annotated[
    str | None,
    Option("--encoder", help=f"{_ENCODERS} (default: moments, or learned if its recall is clearly higher)."),
]
Config = Annotated[
    Path | None, Option(help='JSON file with parameters, such as {"num_repetitions": 40} for fde.')
]
Backend = Annotated[
    Literal["auto", "exact", "scan", "hnsw"] | None,
    Option(help="exact reads every vector, scan reads 4-bit codes, hnsw searches a graph (default: auto)."),
]
Tokens = Annotated[
    Literal["float32", "float16", "int8", "4bit", "2bit", "1bit"] | None,
    Option(
        help="How tokens are stored: as floats, or as codes: int8, 4bit, 2bit or 1bit, with about 1/2, 1/4, 1/7 or "
        "1/13 of the bytes of float16. Fewer bits lower recall."
    ),
]
TextEncoder = Annotated[
    str | None, Option(help="Text encoder (default: that of the index, if it is colbert-small or minilm).")
]
JournalEncoder = Annotated[
    str | None,
    Option(
        "--encoder",
        help="Text encoder; needed only to encode texts in the journal (default: that of the index, if it is "
        "colbert-small or minilm).",
    ),
]
Where = Annotated[
    Any,
    Option(
        metavar="JSON", parser=_condition, help='Condition on the metadata, such as {"year": {"$gte": 2000}}.'
    ),
]
Recall = Annotated[float | None, Option(help="Target mean recall, such as 0.95, instead of --candidates.")]
Threads = Annotated[int | None, Option(help="Number of threads (default: all cores).")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace an existing OUT.")]
Json = Annotated[bool, Option("--json", help="Print one JSON document instead of text.")]


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None, so that the library's defaults apply to the others."""
    return {name: value for name, value in values.items() if value is not None}
