"""``muvera load``: token embeddings into a vector database, with the encoder that searches them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ConfigFile, Format, Json, Part, Quiet, ReaderOption, Source, Threads
from .output import note, print_json, progress_bar, seconds

if TYPE_CHECKING:
    from ..encoders.base import Encoder
    from ..engines import EngineIndex

__all__ = ["load", "open_collection"]

# Tokens in memory at a time: few enough that the bar moves from the first second.
_BLOCK_BYTES = 16 << 20


def load(
    source: Source,
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="postgresql://USER@HOST/DATABASE#NAME, qdrant://HOST:6333#NAME, qdrant-edge:FOLDER#NAME, "
            "lancedb:FOLDER#NAME or milvus:FILE.db#NAME.",
        ),
    ],
    metadata: Annotated[
        Path | None,
        typer.Option(help="JSON lines, an object for each document in SOURCE's order, for --where."),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Use the encoder in this folder: an index's, or one of encode --save-encoder."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Of a new collection's encoder; the names are those of index.")
    ] = "learned",
    config: ConfigFile = None,
    tokens: Annotated[
        bool, typer.Option("--tokens/--no-tokens", help="Keep the tokens there too, to rank exactly.")
    ] = True,
    precision: Annotated[
        str | None, typer.Option(help="float32 or float16, of the vectors there. Default: the engine's own.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write documents that are there again. Default: leave them.")
    ] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the collection first.")] = False,
    format: Format = None,
    part: Part = None,
    option: ReaderOption = None,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Load documents into a vector database; a load that was interrupted goes on where it was.

    \b
    Example: an index's documents into PostgreSQL, and queries answered from there.
      muvera load my.index --to postgresql://me@localhost/search#docs
      muvera search postgresql://me@localhost/search#docs queries.npy
    """
    from ..engines import open_engine
    from .sources import open_documents, stream

    begun = time.perf_counter()
    opened = open_documents(source, format, part, option)
    engine = open_engine(to)
    try:
        if drop:
            engine.drop()
        chosen = (encoder, preset, config, tokens, precision)
        index = _index(engine, source, opened, chosen, (format, part, option), quiet)
        values = None if metadata is None else _metadata(metadata)
        with progress_bar(opened.num_documents, "documents", "loading", quiet) as advance:
            report = index.add(
                stream(opened, _BLOCK_BYTES), values, resume=not replace, threads=threads, progress=advance
            )
        facts = {**index.info().to_dict(), **report.to_dict()}
    finally:
        engine.close()
    duration = time.perf_counter() - begun
    if json_:
        print_json({**facts, "seconds": round(duration, 3)})
        return
    skipped = f", {report.skipped:,} were there" if report.skipped else ""
    empty = f", {report.without_tokens:,} have no tokens" if report.without_tokens else ""
    typer.echo(
        f"{engine.location}: {report.added:,} documents loaded{skipped}{empty}; {facts['documents']:,} in all."
    )
    if not quiet:
        note(f"in {seconds(duration)}; search it with: muvera search {engine.location} QUERIES")


def _index(
    engine: Any,
    source: Path,
    opened: Any,
    chosen: tuple[Path | None, str, Path | None, bool, str | None],
    reading: tuple[str | None, str | None, list[str] | None],
    quiet: bool,
) -> EngineIndex:
    """Return the collection, whose encoder is fitted on all documents where it is new."""
    from ..engines import EngineIndex
    from .sources import open_documents

    folder, preset, config, tokens, precision = chosen
    new = engine.describe() is None
    given: dict[str, Any] = {"tokens": "engine" if tokens else None, "precision": _precision(precision)}
    if new or folder is not None or config is not None or preset != "learned":
        ready = _encoder(source, opened.dimension, folder, preset, config)
        if ready.needs_fit and new:
            engine.require_dimension(ready.config.vector_dimension, precision)
            _fit(ready, open_documents(source, *reading), opened.num_documents, quiet)
        given["encoder"] = ready.config if ready.needs_fit else ready
    return EngineIndex(engine, **given)


def _precision(value: str | None) -> Any:
    if value not in (None, "float32", "float16"):
        raise ValueError(f"--precision must be float32 or float16, got {value!r}.")
    return value


def _encoder(source: Path, dimension: int, folder: Path | None, preset: str, config: Path | None) -> Encoder:
    """Return the encoder to use: one that is fitted, that of an index, or a new one."""
    from ..encoders.registry import make_encoder
    from .encoder_folder import load_encoder
    from .index_source import is_index
    from .settings import configuration

    if folder is not None:
        if config is not None or preset != "learned":
            raise ValueError("--encoder has its configuration. Leave out --preset and --config.")
        return load_encoder(folder)
    if config is None and preset == "learned" and is_index(source):
        from ..index.muvera_index import MuveraIndex

        own = MuveraIndex.load(source.expanduser()).encoder
        if own is not None:
            return own
    return make_encoder(configuration(dimension, preset, config, {})[0])


def _fit(encoder: Encoder, source: Any, total: int | None, quiet: bool) -> None:
    from .sources import stream

    with progress_bar(total, "documents", "learning", quiet) as advance:

        def batches() -> Iterator[Any]:
            for batch in stream(source, _BLOCK_BYTES):
                yield batch
                advance(len(batch))

        encoder.fit(batches())


def _metadata(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path} line {number} is not JSON: {error}.") from None
            if not isinstance(value, dict):
                raise ValueError(f"{path} line {number} must be a JSON object, got {type(value).__name__}.")
            yield value


def open_collection(url: str) -> EngineIndex:
    """Open a collection to search it, or raise where there is none."""
    from ..engines import EngineError, EngineIndex

    index = EngineIndex(url)
    if index.info().description is None:
        raise EngineError(f"There is nothing in {index.engine.location}. Load documents with muvera load.")
    return index
