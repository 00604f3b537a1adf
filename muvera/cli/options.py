"""Arguments and options that several commands have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "PRESETS_TO_START_FROM",
    "ConfigFile",
    "Dimension",
    "Format",
    "Json",
    "Overwrite",
    "Part",
    "Planes",
    "Preset",
    "QueryEmbeddings",
    "Quiet",
    "ReaderOption",
    "Repetitions",
    "Source",
    "Threads",
    "parse_options",
]

Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="Token embeddings: an index, a file, a folder or a vector store's folder.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", "-f", help="Its format. Default: found out; muvera formats lists them."),
]
Part = Annotated[
    str | None, typer.Option("--part", help="docs (the default) or queries, where SOURCE has both.")
]
QueryEmbeddings = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        help="Query embeddings of the same model. Default: windows of document tokens stand in for them.",
    ),
]
ReaderOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="NAME=VALUE for the format's reader; may be repeated."),
]
PRESETS_TO_START_FROM = "moments, learned, mean, fde, paper or reference"
Preset = Annotated[str, typer.Option(help=f"What to start from: {PRESETS_TO_START_FROM}.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="JSON object of FDEConfig's or LearnedConfig's parameters, such as {\"num_repetitions\": 40}.",
    ),
]
Repetitions = Annotated[
    int | None, typer.Option("--num-repetitions", help="R. More find more; size and time grow in proportion.")
]
Planes = Annotated[
    int | None,
    typer.Option("--num-simhash-projections", help="k, for 2**k cells. One more doubles the size."),
]
Dimension = Annotated[
    int | None, typer.Option("--projection-dimension", help="p, columns that a token keeps in a cell.")
]
Threads = Annotated[int | None, typer.Option(help="Default: all usable cores.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT, once the new one is complete.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no notes.")]


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """Return NAME=VALUE pairs with true, false and numbers as such, all else as text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--option must be NAME=VALUE, got {pair!r}.")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        simple = isinstance(parsed, (bool, int, float))
        options[name.replace("-", "_")] = parsed if simple else value
    return options
