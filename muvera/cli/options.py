"""Arguments and options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

__all__ = [
    "Backend",
    "Config",
    "Encoder",
    "Format",
    "Json",
    "Overwrite",
    "Queries",
    "ReaderOption",
    "Recall",
    "Source",
    "TextEncoder",
    "TextEncoderOfUnsaved",
    "Threads",
    "Tokens",
    "Where",
    "parse_json",
    "parse_options",
]

Source = Annotated[
    Path,
    Argument(
        metavar="SOURCE", help="Token embeddings: an index, a file, a folder or a vector store's folder."
    ),
]
Format = Annotated[
    str | None,
    Option("--format", "-f", help="Input format (default: auto-detect; see muvera formats)."),
]
ReaderOption = Annotated[
    list[str] | None,
    Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="Option of the format's reader, such as part=queries if the input also has documents; can be repeated.",
    ),
]
Queries = Annotated[
    Path | None,
    Option("--queries", help="Query embeddings of the same model (default: windows of document tokens)."),
]
Encoder = Annotated[
    str | None,
    Option(
        "--encoder",
        help="moments, learned, mean, fde, paper or reference; or the folder of an index or of a saved encoder "
        "(default: moments; muvera index also tries learned).",
    ),
]
Config = Annotated[
    Path | None,
    Option("--config", help='JSON file with parameters, such as {"num_repetitions": 40} with --encoder fde.'),
]
Backend = Annotated[
    Literal["auto", "exact", "scan", "hnsw"] | None,
    Option(
        "--backend",
        metavar="NAME",
        help="auto (default), exact (reads every vector), scan (reads 4-bit codes) or hnsw (searches a graph).",
    ),
]
Tokens = Annotated[
    Literal["float32", "float16", "int8", "4bit", "2bit", "1bit"] | None,
    Option(
        "--tokens",
        metavar="KIND",
        help="How tokens are stored: float32, float16, or as codes: int8 (half of float16), 4bit, 2bit or 1bit "
        "(1/4, 1/7 or 1/13; fewer bits lower recall).",
    ),
]
TextEncoder = Annotated[
    str | None,
    Option("--encoder", help="Text encoder (default: that of the index, if it is colbert-small or minilm)."),
]
TextEncoderOfUnsaved = Annotated[
    str | None,
    Option(
        "--encoder",
        help="Text encoder; needed only for unsaved texts, and only if it is not colbert-small or minilm.",
    ),
]
Where = Annotated[
    str | None,
    Option("--where", help='Condition on the metadata, as JSON: \'{"year": {"$gte": 2000}}\'.'),
]
Recall = Annotated[
    float | None,
    Option("--recall", help="Target mean recall, such as 0.95, instead of --candidates."),
]
Threads = Annotated[int | None, Option("--threads", help="Number of threads (default: all cores).")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace an existing OUT.")]
Json = Annotated[bool, Option("--json", help="Print one JSON document instead of text.")]


def parse_options(pairs: list[str] | None) -> dict[str, Any]:
    """Return NAME=VALUE pairs; true, false and numbers are converted, other values stay text."""
    options: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--option must be NAME=VALUE, got {pair!r}.")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        options[name.replace("-", "_")] = parsed if isinstance(parsed, (bool, int, float)) else value
    return options


def parse_json(option: str, text: str | None) -> Any:
    """Return the value of an option in JSON; None if the option is not used."""
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise ValueError(
            f'{option} must be JSON, such as {{"year": {{"$gte": 2000}}}}, got {text!r}: {error}.'
        ) from None
