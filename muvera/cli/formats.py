"""``muvera formats``: the formats that are read and written."""

from __future__ import annotations

import textwrap

import typer

from .options import Json
from .output import print_json

__all__ = ["formats"]

_WIDTH = 100


def formats(json_: Json = False) -> None:
    """List the formats of token embeddings that are read and written, and the vector stores.

    Any other format becomes one of these by a few lines of NumPy: save the tokens of all texts
    as tokens.npy (tokens, dimension) and how many tokens each text has as lengths.npy.

    \b
    Example:
      muvera formats
    """
    from ..convert.pipeline import WRITERS
    from ..convert.registry import formats as readable
    from ..convert.writers.vectors import FORMATS

    read = readable()
    if json_:
        print_json({"read": read, "written": list(WRITERS), "stores": list(FORMATS)})
        return
    wide = max(map(len, read))
    lines = ["Formats of token embeddings that are read, and how each is recognized:"]
    for name, description in read.items():
        start = f"  {name:<{wide}}  "
        lines += textwrap.wrap(
            description,
            _WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
        )
    lines += [
        f"What muvera convert --to writes: {', '.join(WRITERS)}.",
        f"What muvera encode --to writes for: {', '.join(FORMATS)}.",
    ]
    typer.echo("\n".join(lines))
