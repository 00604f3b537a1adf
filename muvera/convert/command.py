"""``muvera convert``: the command, and all that it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .convert import convert as run
from .pooling import RULES
from .registry import READERS, WRITERS

__all__ = ["convert"]

_FORMATS = ", ".join(READERS)
_POOLINGS = ", ".join([*RULES, "whole-word", "colberter"])


def convert(
    source: Annotated[Path, typer.Argument(help="An index, a file, a folder or a vector store's folder.")],
    out: Annotated[Path, typer.Argument(help="A new folder (npy) or file (npz, safetensors, parquet).")],
    to: Annotated[str, typer.Option(help=f"What to write: {', '.join(WRITERS)}.")] = "npy",
    format: Annotated[
        str | None, typer.Option("--format", "-f", help=f"What SOURCE is, else found out: {_FORMATS}.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="NAME=VALUE for the format's reader; may be repeated."),
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Bring every token to unit length.")] = False,
    drop_zero_rows: Annotated[
        str | None, typer.Option(help="Zero rows to drop: trailing, leading, all; or error.")
    ] = None,
    truncate_dims: Annotated[
        int | None, typer.Option(help="Keep the first columns (Matryoshka models), renormalised.")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help=f"Pool tokens as one of {_POOLINGS} does.")] = None,
    pool_factor: Annotated[float, typer.Option(help="Pooling keeps 1 / FACTOR of the tokens.")] = 2.0,
    protected: Annotated[
        int | None, typer.Option(help="Leading tokens that pooling leaves alone; else the rule's.")
    ] = None,
    token_ids: Annotated[
        Path | None, typer.Option(help="A .npy with every token's vocabulary id, for whole words.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="vocab.txt or tokenizer.json, for whole words.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float16; else the source's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Convert existing token embeddings to a folder that the index reads, and report on them.

    SOURCE streams through in bounded memory, and OUT appears when it is complete.
    """
    try:
        options = _given(
            normalize=normalize or None,
            drop_zero_rows=drop_zero_rows,
            truncate_dims=truncate_dims,
            pooling=pooling,
            pool_factor=pool_factor,
            protected=protected,
            token_ids=None if token_ids is None else np.load(token_ids, mmap_mode="r", allow_pickle=False),
            vocabulary=vocabulary,
            dtype=dtype,
        )
        options.update(_parse(option or []))
        # A bar belongs on a terminal only: in a log its every step is a line.
        progress = not quiet and sys.stderr.isatty()
        report = run(source, out, to, format=format, overwrite=overwrite, progress=progress, **options)
    except (ValueError, TypeError, OSError, ImportError) as error:
        typer.echo(f"muvera convert: {_one_line(error)}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("muvera convert: interrupted; nothing was written.", err=True)
        raise typer.Exit(130) from None
    typer.echo(json.dumps(report.as_dict(), ensure_ascii=False) if json_ else report.as_text())


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _parse(pairs: list[str]) -> dict[str, Any]:
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
