"""``muvera encode``: from token embeddings to vectors, for another vector search."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    ConfigFile,
    Dimension,
    Format,
    Json,
    Overwrite,
    Planes,
    Preset,
    Quiet,
    ReaderOption,
    Repetitions,
    Source,
    Threads,
)
from .output import note, print_json, progress_bar, seconds

if TYPE_CHECKING:
    from ..convert.writers.vectors import Vectors
    from ..data.multivectors import MultiVectors
    from ..encoders.base import Encoder

__all__ = ["encode"]

# Vectors in memory at a time, and tokens: few enough that the bar moves from the first second.
_BLOCK_BYTES = 16 << 20


def encode(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new .npy file, or what --to writes.")],
    side: Annotated[
        str, typer.Option(help="documents or queries; their vectors differ, and both come from one encoder.")
    ] = "documents",
    to: Annotated[
        str | None,
        typer.Option(help="With ids: npy (a folder), parquet or opensearch."),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Use the encoder in this folder: an index's, or one of --save-encoder."),
    ] = None,
    save_encoder: Annotated[
        Path | None, typer.Option(help="Keep the encoder in this new folder, to encode queries with.")
    ] = None,
    format: Format = None,
    part: Annotated[
        str | None, typer.Option(help="docs or queries, where SOURCE has both. Default: as --side says.")
    ] = None,
    option: ReaderOption = None,
    preset: Preset = "moments",
    config: ConfigFile = None,
    num_repetitions: Repetitions = None,
    num_simhash_projections: Planes = None,
    projection_dimension: Dimension = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a float32 vector for each text; documents and queries meet by inner product.

    Most encoders learn from the documents: keep what they learned with --save-encoder, and encode
    queries with --encoder.  Without --to, OUT is one .npy file (texts, floats), rows in SOURCE's
    order.  It appears when it is complete.

    \b
    Example: vectors of documents and queries from one encoder.
      muvera encode docs docs.npy --save-encoder encoder
      muvera encode queries queries.npy --side queries --encoder encoder
    """
    if side not in ("documents", "queries"):
        raise ValueError(f"--side must be documents or queries, got {side!r}.")
    from .sources import open_documents, open_queries

    def opened() -> Any:
        return (open_documents if side == "documents" else open_queries)(source, format, part, option)

    _require_places(out, to, save_encoder, overwrite)
    first = opened()
    changes = {
        "num_repetitions": num_repetitions,
        "num_simhash_projections": num_simhash_projections,
        "projection_dimension": projection_dimension,
    }
    if encoder is not None:
        if config is not None or preset != "moments" or any(v is not None for v in changes.values()):
            raise ValueError("--encoder has its configuration. Leave out --preset, --config and their like.")
        from .encoder_folder import load_encoder

        ready = load_encoder(encoder)
    else:
        ready = _new_encoder(first.dimension, preset, config, changes, side)
    begun = time.perf_counter()
    if ready.needs_fit:
        _fit(ready, opened(), first.num_documents, quiet)
        if save_encoder is None and not quiet:
            note(
                "muvera: note: These vectors depend on what was learned from this collection. To encode queries "
                "for them, keep it with --save-encoder FOLDER and give it with --encoder FOLDER then."
            )
    with progress_bar(first.num_documents, "texts", "encoding", quiet) as advance:
        encoded = _Encoded(first, ready, side, threads, advance)
        _write(encoded, out, to, overwrite)
    if save_encoder is not None:
        ready.save(save_encoder, overwrite=overwrite)
    duration = time.perf_counter() - begun
    facts = {
        "out": str(out),
        "to": to or "npy file",
        "side": side,
        "vectors": encoded.count,
        "dimension": ready.config.vector_dimension,
        "without_tokens": encoded.empty,
        "config": ready.config.to_dict(),
        "seconds": round(duration, 3),
    }
    if json_:
        print_json(facts)
        return
    zeros = f", {encoded.empty} of them zero for want of tokens" if encoded.empty else ""
    typer.echo(
        f"{out}: {encoded.count:,} vectors of {side}, {ready.config.vector_dimension:,} floats each{zeros}, "
        f"in {seconds(duration)}"
    )


def _require_places(out: Path, to: str | None, save_encoder: Path | None, overwrite: bool) -> None:
    """Fail before the work where a name is taken; only what this command makes is ever replaced."""
    from .encoder_folder import is_encoder_folder

    for path, ours in (
        (out, any((out / name).exists() for name in ("vectors.npy", "fdes.lance", "bulk-00000.ndjson"))),
        (save_encoder, save_encoder is not None and is_encoder_folder(save_encoder)),
    ):
        if path is None or not path.exists() or (path.is_dir() and not any(path.iterdir())):
            continue
        if not overwrite:
            raise FileExistsError(f"{path} exists. Give another name, or --overwrite to replace it.")
        if path.is_dir() and not ours:
            raise FileExistsError(
                f"{path} holds something else than vectors or an encoder. Give another name."
            )


def _new_encoder(
    dimension: int, preset: str, config: Path | None, changes: dict[str, Any], side: str
) -> Encoder:
    from ..encoders.registry import make_encoder
    from .settings import configuration

    fde, settings = configuration(dimension, preset, config, changes)
    if settings:
        raise ValueError(
            f"{config} says {', '.join(settings)}, which belong to an index and not to an encoder."
        )
    encoder = make_encoder(fde)
    if encoder.needs_fit and side == "queries":
        raise ValueError(
            "This configuration learns from documents, and queries do not replace them. "
            "Give --encoder FOLDER: the documents' index, or what encode --save-encoder kept. Or encode "
            "both sides with a configuration without it, such as --preset paper."
        )
    return encoder


def _fit(encoder: Encoder, source: Any, total: int | None, quiet: bool) -> None:
    from .sources import stream

    with progress_bar(total, "texts", "learning", quiet) as advance:

        def batches() -> Iterator[MultiVectors]:
            for batch in stream(source, _BLOCK_BYTES):
                yield batch
                advance(len(batch))

        encoder.fit(batches())


class _Encoded:
    """Blocks of vectors with their ids; positions count on where the source has none."""

    def __init__(self, source: Any, encoder: Encoder, side: str, threads: int | None, advance: Any) -> None:
        self._source, self._encoder, self._advance = source, encoder, advance
        self._side, self._threads = side, threads
        self.dimension = encoder.config.vector_dimension
        self.count = 0
        self.empty = 0
        self.integer_ids = True

    def __iter__(self) -> Iterator[Vectors]:
        import numpy as np

        from ..convert.writers.vectors import Vectors
        from .sources import stream

        method = getattr(self._encoder, f"encode_{self._side}")
        step = max(1, _BLOCK_BYTES // (4 * self.dimension))
        for batch in stream(self._source, _BLOCK_BYTES):
            self.integer_ids = not batch.has_ids or batch.ids.dtype.kind == "i"
            for start in range(0, len(batch), step):
                texts = batch[start : start + step]
                positions = np.arange(self.count, self.count + len(texts))
                vectors = method(texts, threads=self._threads)
                self.count += len(texts)
                self.empty += int((texts.lengths == 0).sum())
                yield Vectors(vectors, texts.ids if batch.has_ids else positions)
                self._advance(len(texts))


def _write(encoded: _Encoded, out: Path, to: str | None, overwrite: bool) -> None:
    from ..convert.writers.vectors import write_array, write_vectors

    if to is None:
        write_array(iter(encoded), out, encoded.dimension, overwrite=overwrite)
    else:
        write_vectors(iter(encoded), out, to, overwrite=overwrite)
