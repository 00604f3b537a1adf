"""Arguments and options of several commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, BadParameter, Option

from ..texts.encoders.names import Kind, built_in, completions, described


def pair(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE; convert true, false and numbers, but no other value."""
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
    example = '{"year": {"$gte": 2000}}'
    try:
        condition = json.loads(text)
    except ValueError as error:
        raise BadParameter(f"it must be JSON, such as {example}, got {text!r}: {error}.") from None
    if not isinstance(condition, dict):
        raise BadParameter(f"it must be a JSON object, such as {example}, got {text}.")
    return condition


SourceArgument = Annotated[
    Path, Argument(metavar="SOURCE", help="Token embeddings: an index, a file or a folder.")
]

OutArgument = Annotated[Path, Argument(metavar="OUT", help="A new folder for the index.")]

FormatOption = Annotated[
    str | None, Option("--format", "-f", help="Name in muvera formats (default: detected).")
]

ReaderOptions = Annotated[
    list[Any] | None,
    Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        parser=pair,
        help="Option of the format's reader, such as part=queries if the input also has documents; "
        "can be repeated.",
    ),
]

QueriesOption = Annotated[
    Path | None,
    Option(
        help="Query embeddings in any format; documents in them are ignored (default: windows of documents)."
    ),
]

EncoderOption = Annotated[
    str | None,
    Option(
        help="fde, moments, mean, simhash, paper or reference; or the folder of an index or of a saved "
        "encoder (default: fde)."
    ),
]

ConfigOption = Annotated[Path | None, Option(help='JSON file, such as {"num_repetitions": 40} for simhash.')]

BackendOption = Annotated[
    Literal["auto", "exact", "scan", "hnsw"] | None,
    Option(help="exact reads every vector, scan reads 4-bit codes, hnsw searches a graph (default: auto)."),
]

TokensOption = Annotated[
    Literal["float32", "float16", "int8", "4bit", "2bit", "1bit"] | None,
    Option(
        help="How tokens are stored: as floats, or as codes with 1/2 (int8) to 1/13 (1bit) of float16's "
        "bytes."
    ),
]


def _completing(kind: Kind | None) -> Callable[[str], list[tuple[str, str]]]:
    def complete(incomplete: str) -> list[tuple[str, str]]:
        return completions(kind, incomplete)

    return complete


def new_encoder(kind: Kind) -> Any:
    """Return the option for the encoder of a new index."""
    return Option(
        "--encoder", help=f"{kind.capitalize()} encoder: {described(kind)}.", autocompletion=_completing(kind)
    )


IndexEncoderOption = Annotated[
    str | None,
    Option(
        "--encoder",
        help="Encoder of queries and new documents (default: the index's, if it is one of "
        f"{', '.join(built_in())}).",
        autocompletion=_completing(None),
    ),
]

WhereOption = Annotated[
    Any,
    Option(
        metavar="JSON", parser=_condition, help='Condition on the metadata, such as {"year": {"$gte": 2000}}.'
    ),
]

WordsOption = Annotated[
    float | None,
    Option(help="Weight of shared words (BM25), from 0 to below 1 (default: by encoder; pages: 0.2)."),
]

GroupByOption = Annotated[
    str | None,
    Option(
        metavar="FIELD", help="Only the best of each value of this metadata field; of pages also document."
    ),
]

RecallOption = Annotated[
    float | None, Option(help="Target mean recall, such as 0.95, instead of --candidates.")
]

SampleOption = Annotated[int, Option(help="Documents to measure; time grows in proportion.")]

ThreadsOption = Annotated[int | None, Option(help="Number of threads (default: all cores).")]

OverwriteOption = Annotated[bool, Option("--overwrite", help="Replace an existing OUT.")]

JsonOption = Annotated[bool, Option("--json", help="Print one JSON document instead of text.")]


def only_given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None; for others the library has defaults."""
    return {name: value for name, value in values.items() if value is not None}
