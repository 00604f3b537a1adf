"""``muvera convert``, ``formats``, ``encode`` and ``load``: embeddings and vectors for other programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import tee
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

import muvera

from .shared import (
    Config,
    Encoder,
    Format,
    Json,
    Overwrite,
    ReaderOption,
    Source,
    Threads,
    given,
    progress_bar,
    seconds,
    show,
    wrapped,
)

# The names in muvera.convert.RULES, which help must not import.
_POOLINGS = "sentence-transformers, pylate, pylate-1.4, colbert or colpali"

_URLS = (
    "postgresql://USER@HOST/DATABASE#NAME, qdrant://HOST:6333#NAME, qdrant-edge:FOLDER#NAME, lancedb:FOLDER#NAME or "
    "milvus:FILE.db#NAME."
)

_UNSAVED = (
    "The encoder was fitted to these documents. To encode queries for them, save it with --save-encoder FOLDER and "
    "use it with --encoder FOLDER."
)


def convert(
    source: Source,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder (for npy and plaid) or file.")],
    to: Annotated[str, Option(help="npy, npz, safetensors, parquet, or plaid (a ColBERT index).")] = "npy",
    format: Format = None,
    option: ReaderOption = None,
    normalize: Annotated[bool, Option("--normalize", help="Scale every token to unit length.")] = False,
    drop_zero_rows: Annotated[bool, Option("--drop-zero-rows", help="Drop zero tokens (padding).")] = False,
    truncate_dimension: Annotated[int | None, Option(help="Keep N columns, rescaled to length 1.")] = None,
    pooling: Annotated[str | None, Option(help=f"Pool tokens by a library's rule: {_POOLINGS}.")] = None,
    pool_factor: Annotated[float, Option(help="Pooling keeps 1 / FACTOR of the tokens.")] = 2.0,
    dtype: Annotated[Literal["float32", "float16"] | None, Option(help="Type (default: SOURCE's).")] = None,
    nbits: Annotated[int | None, Option(help="Bits for plaid (default: SOURCE's codes, or 2).")] = None,
    bucket_means: Annotated[bool, Option("--bucket-means", help="For plaid: more accurate buckets.")] = False,
    isolated: Annotated[bool, Option("--isolated", help="Read SOURCE in a process with limits.")] = False,
    time_limit: Annotated[float | None, Option(min=1, help="Processor seconds (default: 600).")] = None,
    memory_limit: Annotated[int | None, Option(min=256, help="MiB of memory (default: 4096).")] = None,
    overwrite: Overwrite = False,
    json_: Json = False,
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

    limits = given(seconds=time_limit, memory_bytes=memory_limit and memory_limit << 20)
    report = pipeline.convert(
        open_index(source) if format is None and is_index(source) else source,
        out, to, format=format, overwrite=overwrite, progress=sys.stderr.isatty(),
        isolated=muvera.convert.IsolationLimits(**limits) if isolated or limits else False,
        normalize=normalize, drop_zero_rows=drop_zero_rows, truncate_dimension=truncate_dimension,
        pooling=pooling, pool_factor=pool_factor, dtype=dtype,
        **given(nbits=nbits, bucket_means=bucket_means or None), **dict(option or ()),
    )  # fmt: skip
    show(json_, report.to_dict(), wrapped(report.text, later=" " * 9))


def formats(json_: Json = False) -> None:
    """List the formats that can be read and written.

    For any other format, write two arrays with NumPy.  tokens.npy (tokens, dimension)
    contains the tokens of all texts, and lengths.npy the number of tokens of each text.

    \b
    Example:
      muvera formats
    """
    from ..convert.pipeline import WRITERS
    from ..convert.writers import VECTOR_WRITERS

    read = muvera.convert.formats()
    wide = max(map(len, read))
    lines = ["Input formats, and the files that identify each:"]
    lines += [wrapped(text, f"  {name:<{wide}}  ", " " * (wide + 4)) for name, text in read.items()]
    for command, written in (("convert", WRITERS), ("encode", VECTOR_WRITERS)):
        lines.append(wrapped(f"Output formats of muvera {command} --to: {', '.join(written)}."))
    show(json_, {"read": read, "written": list(WRITERS), "vectors": list(VECTOR_WRITERS)}, "\n".join(lines))


def encode(
    source: Source,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder, or for parquet a file.")],
    side: Annotated[Literal["documents", "queries"], Option(help="What SOURCE contains.")] = "documents",
    to: Annotated[Literal["npy", "parquet", "opensearch"], Option(help="Output format.")] = "npy",
    encoder: Encoder = None,
    config: Config = None,
    save_encoder: Annotated[Path | None, Option(help="A new folder for the encoder.")] = None,
    format: Format = None,
    option: ReaderOption = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Write one vector per text for use in another search program.

    Compare documents and queries by inner product.  Most encoders are fitted to the
    documents.  Save the encoder with --save-encoder, and encode queries with --encoder
    FOLDER.  OUT is created only when it is complete; npy is a folder with vectors.npy
    (texts, floats) and ids.json.

    \b
    Example: vectors of documents and queries from one encoder.
      muvera encode docs doc-vectors --save-encoder encoder
      muvera encode queries query-vectors --side queries --encoder encoder
    """
    import numpy as np

    from ..convert.writers import VECTOR_WRITERS, Gathered, new_target
    from ..utils.checks import counted
    from .sources import choose_encoder, fit, open_documents, open_queries, stream, to_encoder

    for path in (out, save_encoder):  # before the work
        if path is not None and not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
            raise FileExistsError(f"{path} exists. Give another name, or --overwrite to replace it.")
    opened = (open_documents if side == "documents" else open_queries)(source, format, option)
    begun = time.perf_counter()
    ready = to_encoder(choose_encoder(encoder, config, opened.dimension))
    if ready.needs_fit and side == "queries":
        raise ValueError(
            "This encoder is fitted to documents, and queries cannot replace them. Give --encoder FOLDER: the "
            "documents' index, or the folder of encode --save-encoder. Or encode both sides with an encoder that "
            "is not fitted, such as --encoder paper."
        )
    unsaved = ready.needs_fit and save_encoder is None
    fit(ready, opened, threads)
    if save_encoder is not None:
        ready.save(save_encoder, overwrite=overwrite)
    encode_side = ready.encode_documents if side == "documents" else ready.encode_queries
    floats = ready.config.vector_dimension
    count = empty = 0
    with progress_bar(opened.num_documents, "texts", "encoding") as advance:

        def vectors() -> Iterator[muvera.MultiVectors]:
            nonlocal count, empty
            for texts in stream(opened):
                ids = texts.ids if texts.has_ids else np.arange(count, count + len(texts))
                count, empty = count + len(texts), empty + int((texts.lengths == 0).sum())
                rows = encode_side(texts, threads=threads)
                yield muvera.MultiVectors.from_flat(rows, np.ones(len(texts), np.int64), ids=ids)
                advance(len(texts))

        with new_target(out, overwrite, VECTOR_WRITERS[to].own) as path:
            VECTOR_WRITERS[to].write(Gathered(vectors(), "The vectors"), path)
    duration = time.perf_counter() - begun
    facts = {"out": str(out), "to": to, "side": side, "vectors": count, "dimension": floats}
    facts |= {"without_tokens": empty, "config": ready.config.to_dict(), "seconds": round(duration, 3)}
    zeros = f", {empty:,} of them zero because their texts have no tokens" if empty else ""
    text = f"{out}: {counted(count, 'vector')} of {side}, {counted(floats, 'float')} each{zeros}"
    show(json_, facts, wrapped(f"{text}, in {seconds(duration)}"), *([_UNSAVED] if unsaved else []))


def load(
    source: Source,
    to: Annotated[str, Option(metavar="URL", help=_URLS)],
    encoder: Encoder = None,
    config: Config = None,
    tokens: Annotated[bool, Option(help="Also store the tokens, for exact ranking.")] = True,
    replace: Annotated[bool, Option("--replace", help="Replace existing documents (default: skip).")] = False,
    drop: Annotated[bool, Option("--drop", help="Remove the collection first.")] = False,
    format: Format = None,
    option: ReaderOption = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Load documents into a vector database.

    Run an interrupted command again to continue it.  If SOURCE is an index with an
    encoder, that encoder is the default.  If SOURCE is an index of texts, its texts and
    metadata are loaded, too.  To search texts: muvera texts search URL QUESTION

    \b
    Example: load an index's documents into PostgreSQL, and search there.
      muvera load my.index --to postgresql://me@localhost/search#docs
      muvera search postgresql://me@localhost/search#docs queries.npy
    """
    from ..engines import EngineIndex, open_engine
    from ..utils.checks import counted
    from .sources import IndexSource, choose_encoder, fit, open_documents, stream, to_encoder

    begun = time.perf_counter()
    opened: Any = open_documents(source, format, option)
    own = opened.texts if isinstance(opened, IndexSource) else None
    texts = metadata = name = None
    if own is not None:
        first, second = tee(opened.documents())
        texts, metadata = (row.text for row in first), (row.metadata for row in second)
        name = own.encoder.name
    with closing(open_engine(to)) as engine:
        if drop:
            engine.drop()
        new, given = engine.describe() is None, encoder is not None or config is not None
        chosen: Any = None
        if new or given:
            of_index = None if given else getattr(opened, "encoder", None)
            chosen = of_index or choose_encoder(encoder, config, opened.dimension)
        if new:
            chosen = to_encoder(chosen)
            engine.require_dimension(chosen.config.vector_dimension)
            fit(chosen, opened)
        index = EngineIndex(engine, chosen, tokens="engine" if tokens else None, text_encoder=name)
        with progress_bar(opened.num_documents, "documents", "loading") as advance:
            report = index.add(
                stream(opened), metadata, texts=texts, resume=not replace, threads=threads, progress=advance
            )
        facts = {**index.info().to_dict(), **report.to_dict()}
    duration = time.perf_counter() - begun
    skipped = f", {report.skipped:,} skipped" if report.skipped else ""
    empty = f", {report.without_tokens:,} without tokens" if report.without_tokens else ""
    loaded = counted(report.added, "document")
    text = f"{engine.location}: {loaded} loaded{skipped}{empty}; {facts['documents']:,} in total."
    command = "muvera search {} QUERIES" if own is None else "muvera texts search {} QUESTION"
    remark = f"in {seconds(duration)}; search with: {command.format(engine.location)}"
    show(json_, {**facts, "seconds": round(duration, 3)}, wrapped(text), remark)
