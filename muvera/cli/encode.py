"""``muvera encode`` and ``muvera load``: document vectors for other vector searches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import tee
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from .options import Config, Format, Json, Overwrite, ReaderOption, Source, Threads
from .options import Encoder as EncoderOption
from .output import progress_bar, seconds, show, wrapped


def encode(
    source: Source,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder, or for parquet a file.")],
    side: Annotated[Literal["documents", "queries"], Option(help="What SOURCE contains.")] = "documents",
    to: Annotated[Literal["npy", "parquet", "opensearch"], Option(help="Output format.")] = "npy",
    encoder: EncoderOption = None,
    config: Config = None,
    save_encoder: Annotated[Path | None, Option(help="A new folder for the encoder.")] = None,
    format: Format = None,
    option: ReaderOption = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Write one vector per text for use in another search program.

    Compare documents and queries by inner product.  Most encoders are fitted to the documents.  Save the
    encoder with --save-encoder, and encode queries with --encoder FOLDER.  OUT is created only when it is
    complete; npy is a folder with vectors.npy (texts, floats) and ids.json.

    \b
    Example: vectors of documents and queries from one encoder.
      muvera encode docs doc-vectors --save-encoder encoder
      muvera encode queries query-vectors --side queries --encoder encoder
    """
    import numpy as np

    from ..convert.writers import VECTOR_WRITERS, write_documents
    from ..data.multivectors import MultiVectors
    from ..encoders.base import EncoderConfig
    from ..encoders.registry import make_encoder
    from ..utils.checks import counted
    from .sources import choose_encoder, fit, open_documents, open_queries, stream

    for path in (out, save_encoder):  # before the work
        if path is not None and not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
            raise FileExistsError(f"{path} exists. Give another name, or --overwrite to replace it.")
    opened = (open_documents if side == "documents" else open_queries)(source, format, option)
    begun = time.perf_counter()
    chosen = choose_encoder(encoder, config, opened.dimension)
    ready = make_encoder(chosen) if isinstance(chosen, EncoderConfig) else chosen
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

        def vectors() -> Iterator[MultiVectors]:
            nonlocal count, empty
            for texts in stream(opened):
                ids = texts.ids if texts.has_ids else np.arange(count, count + len(texts))
                count, empty = count + len(texts), empty + int((texts.lengths == 0).sum())
                rows = encode_side(texts, threads=threads)
                yield MultiVectors.from_flat(rows, np.ones(len(texts), np.int64), ids=ids)
                advance(len(texts))

        write_documents(VECTOR_WRITERS[to], vectors(), out, overwrite=overwrite, place="The vectors")
    duration = time.perf_counter() - begun
    facts = {"out": str(out), "to": to, "side": side, "vectors": count, "dimension": floats}
    facts |= {"without_tokens": empty, "config": ready.config.to_dict(), "seconds": round(duration, 3)}
    zeros = f", {empty:,} of them zero because their texts have no tokens" if empty else ""
    written = f"{counted(count, 'vector')} of {side}, {counted(floats, 'float')} each"
    remark = (
        "The encoder was fitted to these documents. To encode queries for them, save it with --save-encoder "
        "FOLDER and use it with --encoder FOLDER."
    )
    text = f"{out}: {written}{zeros}, in {seconds(duration)}"
    show(json_, facts, wrapped(text), *([remark] if unsaved else []))


def load(
    source: Source,
    to: Annotated[
        str,
        Option(
            metavar="URL",
            help="postgresql://USER@HOST/DATABASE#NAME, qdrant://HOST:6333#NAME, qdrant-edge:FOLDER#NAME, "
            "lancedb:FOLDER#NAME or milvus:FILE.db#NAME.",
        ),
    ],
    encoder: EncoderOption = None,
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

    Run an interrupted command again to continue it.  If SOURCE is an index with an encoder, that encoder is
    the default.  If SOURCE is an index of texts, its texts and metadata are loaded, too.  To search texts:
    muvera texts search URL QUESTION

    \b
    Example: load an index's documents into PostgreSQL, and search there.
      muvera load my.index --to postgresql://me@localhost/search#docs
      muvera search postgresql://me@localhost/search#docs queries.npy
    """
    from ..encoders.base import EncoderConfig
    from ..encoders.registry import make_encoder
    from ..engines import EngineIndex, open_engine
    from ..utils.checks import counted
    from .sources import IndexSource, choose_encoder, fit, open_documents, stream

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
        if new and isinstance(chosen, EncoderConfig):
            engine.require_dimension(chosen.vector_dimension)
            chosen = fit(make_encoder(chosen), opened)
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
