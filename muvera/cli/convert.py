"""``muvera convert`` and ``muvera formats``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from .options import Format, Json, Overwrite, ReaderOption, Source, given
from .output import report_text, show, wrapped

# The names in muvera.convert.RULES, which help must not import.
_POOLINGS = "sentence-transformers, pylate, pylate-1.4, colbert or colpali"


def convert(
    source: Source,
    out: Annotated[
        Path,
        Argument(metavar="OUT", help="A new folder (npy, plaid) or file (npz, safetensors, parquet)."),
    ],
    to: Annotated[str, Option(help="npy, npz, safetensors, parquet, or plaid (a ColBERT index).")] = "npy",
    format: Format = None,
    option: ReaderOption = None,
    normalize: Annotated[bool, Option("--normalize", help="Scale every token to unit length.")] = False,
    drop_zero_rows: Annotated[bool, Option("--drop-zero-rows", help="Drop zero tokens (padding).")] = False,
    truncate_dimension: Annotated[int | None, Option(help="Keep the first columns, at unit length.")] = None,
    pooling: Annotated[str | None, Option(help=f"Pool tokens by a library's rule: {_POOLINGS}.")] = None,
    pool_factor: Annotated[float, Option(help="Pooling keeps 1 / FACTOR of the tokens.")] = 2.0,
    dtype: Annotated[
        Literal["float32", "float16"] | None,
        Option(help="Type of the tokens in OUT (default: as in SOURCE)."),
    ] = None,
    nbits: Annotated[
        int | None, Option(help="For plaid: bits per coordinate (default: keep SOURCE's codes, otherwise 2).")
    ] = None,
    bucket_means: Annotated[
        bool, Option("--bucket-means", help="For plaid: decode buckets to their means (more accurate).")
    ] = False,
    isolated: Annotated[
        bool, Option("--isolated", help="Read SOURCE in a process with limited time and memory.")
    ] = False,
    time_limit: Annotated[
        float | None, Option(min=1, help="Processor seconds (default: 600); implies --isolated.")
    ] = None,
    memory_limit: Annotated[
        int | None, Option(min=256, help="MiB of memory (default: 4096); implies --isolated.")
    ] = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Convert token embeddings to another format.

    The default is a folder of .npy files.  SOURCE is read in batches, so memory use is bounded.  OUT is
    created only when it is complete.

    A damaged or hostile file can crash or hang the library that reads it.  With --isolated, a crash
    or hang becomes an error.

    \b
    Example: build an index from a ColBERT index, and export it again.
      muvera convert COLBERT_INDEX tokens
      muvera index tokens MY_INDEX
      muvera convert MY_INDEX NEW_COLBERT_INDEX --to plaid
    """
    from ..convert import IsolationLimits, pipeline
    from .sources import is_index, open_index

    limits = given(seconds=time_limit, memory_bytes=memory_limit and memory_limit << 20)
    report = pipeline.convert(
        open_index(source) if format is None and is_index(source) else source,
        out, to, format=format, overwrite=overwrite, progress=sys.stderr.isatty(),
        isolated=IsolationLimits(**limits) if isolated or limits else False,
        normalize=normalize, drop_zero_rows=drop_zero_rows, truncate_dimension=truncate_dimension,
        pooling=pooling, pool_factor=pool_factor, dtype=dtype,
        **given(nbits=nbits, bucket_means=bucket_means or None), **dict(option or ()),
    )  # fmt: skip
    show(json_, report.to_dict(), report_text(report))


def formats(json_: Json = False) -> None:
    """List the formats that can be read and written.

    For any other format, write two arrays with NumPy.  tokens.npy (tokens, dimension) contains the tokens
    of all texts, and lengths.npy the number of tokens of each text.

    \b
    Example:
      muvera formats
    """
    from ..convert import formats as readable
    from ..convert.pipeline import WRITERS
    from ..convert.writers import VECTOR_WRITERS

    read = readable()
    wide = max(map(len, read))
    lines = ["Input formats, and the files that identify each:"]
    for name, description in read.items():
        start = f"  {name:<{wide}}  "
        lines.append(wrapped(description, start, " " * len(start)))
    lines.append(wrapped(f"Output formats of muvera convert --to: {', '.join(WRITERS)}."))
    lines.append(wrapped(f"Output formats of muvera encode --to: {', '.join(VECTOR_WRITERS)}."))
    show(json_, {"read": read, "written": list(WRITERS), "vectors": list(VECTOR_WRITERS)}, "\n".join(lines))
