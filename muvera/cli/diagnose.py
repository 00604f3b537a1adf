"""``muvera diagnose``: what a model's token vectors look like, and which FDEs suit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..convert.registry import READERS

if TYPE_CHECKING:
    from ..fde.config import FDEConfig
    from ..vectors import MultiVectors

__all__ = ["diagnose"]


def diagnose(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="Token embeddings: an index, a file, a folder or a vector store's folder."
        ),
    ],
    queries: Annotated[
        Path | None,
        typer.Option(help="Query embeddings of the same model. Default: windows of documents stand in."),
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", help=f"What it is, else found out: {', '.join(READERS)}.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="docs (the default) or queries, where SOURCE has both.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="NAME=VALUE for the format's reader; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A configuration to look at: a JSON object of FDEConfig's parameters."),
    ] = None,
    sample: Annotated[int, typer.Option(help="Documents to measure; time grows in proportion.")] = 1000,
    seed: Annotated[int, typer.Option(help="Fixes what is drawn.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Default: all usable cores.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Measure token embeddings, and say which configuration suits them and what to expect.

    --format and --option are for SOURCE; --queries finds its own, and of a folder that has
    documents and queries it takes the queries.

    \b
    Example:
      muvera diagnose docs --queries docs
    """
    from ..convert import read
    from ..convert.command import _parse
    from ..diagnosis import diagnose as run

    given = _parse(option or [])
    documents = read(source, format, **({} if part is None else {"part": part}), **given)
    asked = None if queries is None else _read_queries(queries)
    chosen = None if config is None else _configuration(config, documents.dim)
    diagnosis = run(documents, asked, chosen, sample=sample, seed=seed, threads=threads)
    if json_:
        typer.echo(json.dumps({"source": str(source), **diagnosis.to_dict()}, ensure_ascii=False, indent=1))
    else:
        typer.echo(diagnosis.text)


def _read_queries(path: Path) -> MultiVectors:
    """Read the queries of a place that has them beside documents, else all that it has."""
    import inspect

    from ..convert import read
    from ..convert.arrays import find, names_of
    from ..convert.registry import find_reader

    place = path.expanduser()
    present = {entry.stem for entry in place.iterdir()} if place.is_dir() else set()
    options: dict[str, Any] = {}
    if find(names_of("queries").tokens, present) is not None:
        knows = "part" in inspect.signature(find_reader(place).open_source).parameters
        options = {"part": "queries"} if knows else {}
    return read(path, **options)


def _configuration(file: Path, dimension: int) -> FDEConfig:
    from ..fde.config import FDEConfig

    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a JSON object of parameters, got {type(values).__name__}.")
    return FDEConfig.from_dict({"dimension": dimension, **values})
