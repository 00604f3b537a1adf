"""``muvera load``: documents into a vector database."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from itertools import tee
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from typer import Option

from .options import (
    ConfigOption,
    EncoderOption,
    FormatOption,
    JsonOption,
    ReaderOptions,
    SourceArgument,
    ThreadsOption,
)
from .printing import progress_bar, seconds, show, wrapped

if TYPE_CHECKING:
    from ..convert import Source
    from ..engines import EngineIndex
    from ..engines.base import AddReport, Engine
    from ..fde.config import FDEConfig
    from ..fde.encoder import FDEEncoder
    from .sources import IndexSource

_URLS = (
    "postgresql://USER@HOST/DATABASE#NAME, qdrant://HOST:6333#NAME, qdrant-edge:FOLDER#NAME, "
    "lancedb:FOLDER#NAME or milvus:FILE.db#NAME."
)

_INTERRUPTED = "the collection has {:,} documents: the same command loads the rest"


def load(
    source: SourceArgument,
    to: Annotated[str, Option(metavar="URL", help=_URLS)],
    encoder: EncoderOption = None,
    config: ConfigOption = None,
    tokens: Annotated[bool, Option(help="Also store the tokens, for exact ranking.")] = True,
    replace: Annotated[bool, Option("--replace", help="Replace existing documents (default: skip).")] = False,
    drop: Annotated[bool, Option("--drop", help="Remove the collection first.")] = False,
    format: FormatOption = None,
    option: ReaderOptions = None,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Load documents into a vector database.

    Run an interrupted command again to continue it.  If SOURCE is an index with an
    encoder of vectors, that encoder is the default (for pages: simhash), and its
    calibration is loaded, too; a collection of more than 1,000 documents without one is
    calibrated.  If SOURCE is an index of texts or pages, texts and metadata are loaded.
    To search them: muvera texts search URL QUESTION, or muvera pages search URL QUERY

    \b
    Example: load an index's documents into PostgreSQL, and search there.
      muvera load my.index --to postgresql://me@localhost/search#docs
      muvera search postgresql://me@localhost/search#docs queries.npy
    """
    from ..engines import EngineError, EngineIndex, open_engine
    from ..engines.engine_index import encoder_of_pages
    from ..index.settings import IndexSettings
    from .sources import IndexSource, announce_tokens, choose_encoder, fit, open_documents, to_encoder

    begun = time.perf_counter()
    opened = open_documents(source, format, option)
    fitted = opened.encoder if isinstance(opened, IndexSource) else None
    stored = _texts_of(opened)
    with closing(open_engine(to)) as engine:
        if stored.pages is not None and not (tokens and engine.keeps_tokens):
            raise EngineError(
                f"{engine.location} would store no tokens, so it could not rank pages. Use an engine and a "
                "command that store them."
            )
        if drop:
            engine.drop()
        new = engine.describe() is None
        if isinstance(opened, IndexSource) and engine.takes_parts:
            opened.keep_parts()
        given = encoder is not None or config is not None  # otherwise, the stored encoder
        chosen = choose_encoder(encoder, config, opened.dimension) if given else None
        if stored.pages is not None:
            fitted = to_encoder(encoder_of_pages(opened.dimension, engine))
        if new:
            chosen = _new_encoder(chosen or fitted, opened)
            engine.require_dimension(chosen.config.vector_dimension)
        to_store = chosen or EngineIndex(engine).encoder
        # Engines store tokens in half precision, and vectors as floats.
        settings = IndexSettings(tokens="float16", backend="exact", exact_tokens=0)
        announce_tokens(opened, to_store, settings, threads, tokens and engine.keeps_tokens)
        if new:
            fit(to_encoder(to_store), opened)
        kept: Literal["engine"] | None = "engine" if tokens else None
        index = EngineIndex(engine, chosen, tokens=kept, text_encoder=stored.encoder, pages=stored.pages)
        report = _write(index, opened, stored, replace, threads)
        facts = {**index.info().to_dict(), **report.to_dict()}
    duration = time.perf_counter() - begun
    text = f"{engine.location}: {_loaded(report)}; {facts['documents']:,} in total."
    remark = f"in {seconds(duration)}; search with: {stored.search_command(engine.location)}"
    show(json_, {**facts, "seconds": round(duration, 3)}, wrapped(text), remark)


def _write(
    index: EngineIndex, source: Source, stored: _Texts, replace: bool, threads: int | None
) -> AddReport:
    """Write the documents of a source, and see to the collection's calibration."""
    from .sources import IndexSource, stream

    with progress_bar(source.num_documents, "documents", "loading") as advance:
        write = index.update if replace else partial(index.add, resume=True)
        try:
            report = write(
                stream(source), stored.metadata, texts=stored.texts, threads=threads, progress=advance
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_INTERRUPTED.format(len(index))) from None
        if isinstance(source, IndexSource):
            _keep_calibration(index.engine, source)
        calibrate_large(index, threads)
    return report


class _Texts(NamedTuple):
    """The texts of a source in the order of its tokens, if it has texts or pages."""

    texts: Iterable[str] | None = None
    metadata: Iterable[dict[str, Any]] | None = None
    #: Name of their encoder; "" if pages have none.
    encoder: str | None = None
    #: Folder of the documents of pages, "" if it is not known.
    pages: str | None = None

    def search_command(self, url: str) -> str:
        """Return the command that searches a collection with them."""
        if self.texts is None:
            return f"muvera search {url} QUERIES"
        if self.pages is None:
            return f"muvera texts search {url} QUESTION"
        return f"muvera pages search {url} QUERY"


def _texts_of(source: Source) -> _Texts:
    from ..texts.text_index import TextIndex
    from .sources import IndexSource

    if not isinstance(source, IndexSource) or source.texts is None:
        return _Texts()
    first, second = tee(source.documents())
    texts, metadata = (row.text for row in first), (row.metadata for row in second)
    if isinstance(source.texts, TextIndex):
        return _Texts(texts, metadata, source.texts.encoder.name)
    facts = source.texts.info()
    return _Texts(texts, metadata, facts["encoder"] or "", facts["root"] or "")


def _new_encoder(chosen: FDEConfig | FDEEncoder | None, source: Source) -> FDEEncoder:
    """Return the encoder of a new collection: the chosen one, or the default."""
    from .sources import choose_encoder, sized, to_encoder

    return to_encoder(sized(chosen or choose_encoder(None, None, source.dimension), source))


def _keep_calibration(engine: Engine, source: IndexSource) -> None:
    """Store the calibration of an index if the collection has its encoder and none."""
    numbers, stored = source.candidates_by_recall, engine.stored
    if not numbers or not stored.tokens or stored.candidates_by_recall:
        return
    if source.encoder is not None and engine.has_encoder(source.encoder):
        engine.change_description(dataclasses.replace(stored, candidates_by_recall=list(numbers.items())))


def calibrate_large(index: EngineIndex, threads: int | None) -> None:
    """Calibrate a large collection with windows of its documents, unless it is."""
    from ..index.calibration import MAX_RANKED
    from ..utils.parallel import stage

    stored = index.engine.stored
    wanted = stored.tokens and stored.pages is None and not stored.candidates_by_recall
    if wanted and len(index) > MAX_RANKED:
        with stage("calibrating"):
            index.calibrate(threads=threads)


def _loaded(report: AddReport) -> str:
    """Describe how many documents were loaded."""
    from ..utils.checks import counted

    text = f"{counted(report.added, 'document')} loaded"
    if report.skipped:
        text += f", {report.skipped:,} skipped"
    if report.without_tokens:
        text += f", {report.without_tokens:,} without tokens"
    return text
