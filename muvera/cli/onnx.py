"""``muvera onnx``: a fitted encoder for programs in other languages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from .options import JsonOption, OverwriteOption
from .printing import show, wrapped


def onnx(
    encoder: Annotated[
        Path, Argument(metavar="ENCODER", help="Folder of an index, or of encode --save-encoder.")
    ],
    out: Annotated[Path, Argument(metavar="OUT", help="A new ONNX file.")],
    side: Annotated[Literal["queries", "documents"], Option(help="What the file encodes.")] = "queries",
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Write a fitted encoder as an ONNX file for other languages.

    ONNX Runtime turns token vectors into the same vectors as encode does.  The inputs
    of the file are tokens, float32 (texts, n, dimension), and mask, int64 (texts, n): 1
    for a token, and 0 for a row that only fills a text up.  The output is fde.

    \b
    Example: vectors of documents, and the encoder of their queries.
      muvera encode docs vectors
      muvera onnx vectors.encoder queries.onnx
    """
    from .sources import encoder_of

    ready = encoder_of(encoder)
    ready.to_onnx(out, side, overwrite=overwrite)
    config, size = ready.config, out.stat().st_size
    facts = {"out": str(out), "side": side, "bytes": size, "columns": config.dimension}
    facts |= {"dimension": config.vector_dimension, "config": config.to_dict()}
    text = (
        f"{out}: encodes {side} of {config.dimension} columns as {config.vector_dimension:,} floats, "
        f"{size / 1e6:.1f} MB"
    )
    show(json_, facts, wrapped(text))
