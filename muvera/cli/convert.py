"""``muvera convert``: token embeddings in another format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

import muvera

from .options import (
    FormatOption,
    JsonOption,
    OverwriteOption,
    ReaderOptions,
    SourceArgument,
    only_given,
)
from .printing import show, wrapped

# The names in muvera.convert.RULES, which help must not import.
_POOLINGS = "sentence-transformers, pylate, pylate-1.4, colbert or colpali"


def convert(
    source: SourceArgument,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder (for npy and plaid) or file.")],
    to: Annotated[str, Option(help="npy, npz, safetensors, parquet, or plaid (a ColBERT index).")] = "npy",
    format: FormatOption = None,
    option: ReaderOptions = None,
    normalize: Annotated[bool, Option("--normalize", help="Scale every token to unit length.")] = False,
    drop_zero_rows: Annotated[bool, Option("--drop-zero-rows", help="Drop zero tokens (padding).")] = False,
    truncate_dimension: Annotated[int | None, Option(help="Keep N columns, rescaled to length 1.")] = None,
    pooling: Annotated[str | None, Option(help=f"Pool tokens by a library's rule: {_POOLINGS}.")] = None,
    pool_factor: Annotated[float, Option(help="Pooling keeps 1 / FACTOR of the tokens.")] = 2.0,
    dtype: Annotated[
        Literal["float32", "float16"] | None, Option(help="Type of numbers (default: SOURCE's).")
    ] = None,
    nbits: Annotated[
        int | None, Option(help="For plaid: bits per coordinate (default: SOURCE's, or 2).")
    ] = None,
    bucket_means: Annotated[bool, Option("--bucket-means", help="For plaid: more accurate buckets.")] = False,
    isolated: Annotated[bool, Option("--isolated", help="Read SOURCE in a process with limits.")] = False,
    time_limit: Annotated[float | None, Option(min=1, help="Processor seconds (default: 600).")] = None,
    memory_limit: Annotated[int | None, Option(min=256, help="MiB of memory (default: 4096).")] = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Convert token embeddings to another format.

    The default is a folder of .npy files.  SOURCE is read in batches, so memory use is
    bounded.  OUT is created only when it is complete.

    A damaged or hostile file can crash or hang the library that reads it.  With
    --isolated, or a limit of time or memory, a crash or hang becomes an error.

    \b
    Example: build an index from a ColBERT index, and export it again.
      muvera convert COLBERT_INDEX tokens
      muvera index tokens MY_INDEX
      muvera convert MY_INDEX NEW_COLBERT_INDEX --to plaid
    """
    from ..convert import pipeline
    from .sources import is_index, open_index

    limits = only_given(seconds=time_limit, memory_bytes=memory_limit and memory_limit << 20)
    report = pipeline.convert(
        open_index(source) if format is None and is_index(source) else source,
        out, to, format=format, overwrite=overwrite, progress=sys.stderr.isatty(),
        isolated=muvera.convert.IsolationLimits(**limits) if isolated or limits else False,
        normalize=normalize, drop_zero_rows=drop_zero_rows, truncate_dimension=truncate_dimension,
        pooling=pooling, pool_factor=pool_factor, dtype=dtype,
        **only_given(nbits=nbits, bucket_means=bucket_means or None), **dict(option or ()),
    )  # fmt: skip
    show(json_, report.to_dict(), wrapped(report.text, later=" " * 9))
