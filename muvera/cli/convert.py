"""``muvera convert``: the command, and all that it prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Format, Json, Overwrite, Quiet, ReaderOption, Source, parse_options
from .output import print_json

if TYPE_CHECKING:
    from ..convert import IsolationLimits

__all__ = ["convert"]

# Rules of muvera.convert.RULES and whole words; named here because --help loads no library.
_POOLINGS = "sentence-transformers, pylate, pylate-1.4, colbert, colpali, whole-word or colberter"


def convert(
    source: Source,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="A new folder (npy, plaid) or file (npz, safetensors, parquet)."),
    ],
    to: Annotated[
        str, typer.Option(help="What to write: npy, npz, safetensors, parquet, or plaid, ColBERT's index.")
    ] = "npy",
    format: Format = None,
    option: ReaderOption = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Bring every token to unit length.")] = False,
    drop_zero_rows: Annotated[
        str | None, typer.Option(help="Zero rows to drop: trailing, leading, all; or error.")
    ] = None,
    truncate_dimension: Annotated[
        int | None, typer.Option(help="Keep the first columns (Matryoshka models), renormalized.")
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
    nbits: Annotated[
        int | None,
        typer.Option(help="plaid: bits a coordinate, 1, 2, 4 or 8. Default: codes as they are, else 2."),
    ] = None,
    bucket_means: Annotated[
        bool, typer.Option("--bucket-means", help="plaid: buckets stand for their means, which loses less.")
    ] = False,
    isolated: Annotated[
        bool,
        typer.Option("--isolated", help="Read SOURCE in a process with limits: for files from strangers."),
    ] = False,
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds of processor time with --isolated. Default: 600.")
    ] = None,
    memory_limit: Annotated[
        int | None, typer.Option(min=256, help="MiB of memory with --isolated. Default: 4096.")
    ] = None,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert existing token embeddings to a folder that the index reads, and report on them.

    SOURCE streams through in bounded memory, and OUT appears when it is complete.

    A damaged or hostile file can end or hang the library that reads it: --isolated reads it in
    another process, so that the worst is an error here.

    \b
    A ColBERT index, then an index of it:
      muvera convert COLBERT_INDEX tokens
      muvera index tokens MY_INDEX
    A ColBERT index of an index:
      muvera convert MY_INDEX COLBERT_INDEX --to plaid
    """
    from ..convert import pipeline
    from ..utils.npy_files import load_npy
    from .index_source import is_index, open_index

    limits = _limits(isolated, time_limit, memory_limit)
    options = _given(
        normalize=normalize or None,
        drop_zero_rows=drop_zero_rows,
        truncate_dimension=truncate_dimension,
        pooling=pooling,
        pool_factor=pool_factor,
        protected=protected,
        token_ids=None if token_ids is None else load_npy(token_ids),
        vocabulary=vocabulary,
        dtype=dtype,
        nbits=nbits,
        bucket_means=bucket_means or None,
    )
    options.update(parse_options(option or []))
    # A bar belongs on a terminal only: in a log its every step is a line.
    progress = not quiet and sys.stderr.isatty()
    report = pipeline.convert(
        open_index(source) if format is None and is_index(source) else source,
        out,
        to,
        format=format,
        overwrite=overwrite,
        progress=progress,
        isolated=limits,
        **options,
    )
    if json_:
        print_json(report.to_dict())
    else:
        typer.echo(report.text)


def _limits(isolated: bool, seconds: float | None, mebibytes: int | None) -> bool | IsolationLimits:
    """Return what the process that reads may take; False where there is none."""
    if not isolated:
        if seconds is not None or mebibytes is not None:
            raise ValueError("--time-limit and --memory-limit belong to --isolated. Give that, too.")
        return False
    from ..convert import IsolationLimits

    given = _given(seconds=seconds, memory_bytes=None if mebibytes is None else mebibytes << 20)
    return IsolationLimits(**given)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
