"""``muvera index``: from token embeddings to an index folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..utils.checks import counted
from .options import (
    PRESETS_TO_START_FROM,
    ConfigFile,
    Dimension,
    Format,
    Json,
    Planes,
    Quiet,
    ReaderOption,
    Repetitions,
    Source,
    Threads,
)
from .output import megabytes, note, print_json, progress_bar, seconds, warn

if TYPE_CHECKING:
    from ..data.multivectors import MultiVectors
    from ..encoders.base import Encoder, EncoderConfig
    from ..index.info import IndexInfo

__all__ = ["index"]

# Vectors that take more than this are worth a warning.
_MUCH_MEMORY = 8 << 30


def index(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The index's folder, which is made.")],
    format: Format = None,
    part: Annotated[
        str | None, typer.Option(help="docs (the default) or queries, where SOURCE has both.")
    ] = None,
    option: ReaderOption = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help=f"How documents become vectors: {PRESETS_TO_START_FROM}. Default: moments; with --config or an "
            "FDE's option: fde."
        ),
    ] = None,
    config: ConfigFile = None,
    num_repetitions: Repetitions = None,
    num_simhash_projections: Planes = None,
    projection_dimension: Dimension = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="auto, exact (reads every vector), hnsw (searches a graph) or usearch (a graph in half the memory)."
        ),
    ] = None,
    exact_tokens: Annotated[
        int | None,
        typer.Option(help="Search at most this many tokens exactly, without vectors; 0: never."),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="How tokens are stored: float32, float16, or as codes: int8 (half of float16), 4bit, 2bit or 1bit "
            "(1/4, 1/7 and 1/13 of it; fewer bits lower recall). Default: float16 stays float16, all else float32."
        ),
    ] = None,
    keep_exact: Annotated[
        bool,
        typer.Option(
            "--keep-exact", help="Also store exact tokens beside codes; they rank the best few again."
        ),
    ] = False,
    keep_codes: Annotated[
        bool, typer.Option("--keep-codes", help="Keep the codes of a PLAID index as they are.")
    ] = False,
    threads: Threads = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the index in OUT, once the new one is complete.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build an index of token embeddings, a batch at a time.

    OUT appears when it is complete.  --config may also hold backend, hnsw, usearch, exact_tokens, tokens and
    keep_exact.

    \b
    Example: an index of your own arrays, one (tokens, dimension) array a document.
      python -c "import numpy as np, muvera; r = np.random.default_rng(0); \\
      muvera.MultiVectors.from_arrays(r.normal(size=(50, 9, 32))).save('docs')"
      muvera index docs docs.index
      muvera search docs.index docs -k 3
    """
    from ..index.muvera_index import MuveraIndex
    from .settings import configuration
    from .sources import open_documents, stream

    _require_place(out, overwrite)
    opened = open_documents(source, format, part, option)
    changes: dict[str, Any] = {
        "num_repetitions": num_repetitions,
        "num_simhash_projections": num_simhash_projections,
        "projection_dimension": projection_dimension,
    }
    if encoder is None:
        chosen = config is not None or any(value is not None for value in changes.values())
        encoder = "fde" if chosen else "moments"
    changes |= {
        "backend": backend,
        "exact_tokens": exact_tokens,
        "tokens": tokens,
        "keep_exact": keep_exact or None,
    }
    configured, settings = configuration(opened.dimension, encoder, config, changes)
    _require_library(settings.get("backend"))
    begun = time.perf_counter()
    ready = _learned(opened, configured, settings, threads, quiet)
    if not quiet:
        warn(_large(opened, configured))
    with progress_bar(opened.num_documents, "documents", "indexing", quiet) as advance:
        options = {**settings, "path": out, "overwrite": overwrite, "threads": threads, "progress": advance}
        if keep_codes:
            built = MuveraIndex.from_plaid(opened, ready, **options).info()
        else:
            built = MuveraIndex.build(_filled(stream(opened)), ready, **options).info()
    duration = time.perf_counter() - begun
    if json_:
        facts = {"index": str(out), "source": str(source), "seconds": round(duration, 3)}
        print_json({**facts, **built.to_dict()})
        return
    if not quiet:
        warn(list(built.warnings))
        if built.vectors is None and settings.get("backend", "auto") != "auto":
            note(
                f"So few tokens are all read: backend {settings['backend']} is used from "
                f"{built.exact_tokens + 1:,} tokens on (--exact-tokens 0: always)."
            )
    typer.echo(
        f"{out}: {counted(built.documents, 'document')}, {counted(built.tokens, 'token')} of "
        f"{counted(built.dimension, 'dimension')}, {megabytes(built.bytes_per_document)} per document"
        f"{without_exact(built)}, in {seconds(duration)}"
    )
    typer.echo(f"searched {described(built)}")


def described(facts: IndexInfo) -> str:
    """Return how an index searches, and what share of the exact best documents are candidates."""
    vectors = facts.vectors
    if vectors is None:
        codes = coded(facts)
        return (
            f"by all tokens, which are read as {codes} codes; without vectors"
            if codes
            else "exactly, without vectors"
        )
    what = "FDEs" if facts.encoder["encoder"] == "fde" else f"{facts.encoder['encoder']} vectors"
    text = f"through {what} of {facts.encoder['vector_dimension']:,} floats"
    if vectors["kind"] == "exact":
        text += ", all of which are read"
    else:
        recall = "an unknown share" if vectors["recall"] is None else f"{vectors['recall']:.1%}"
        text += f" in a graph, which finds {recall} of the best vectors"
    first = facts.first_stage
    if first is None:
        return text
    source = "windows of document tokens" if first.pseudo_queries else "queries"
    return (
        f"{text}; {first.candidates} candidates have {first.recall:.1%} of the exact {first.k} best documents "
        f"({first.queries} {source})"
    )


def coded(facts: IndexInfo) -> str | None:
    """Return the name of the codes that a search reads instead of tokens, or None where it reads tokens."""
    from ..reranking.codecs import FLOATS

    codec: str = facts.token_codec["codec"]
    return None if codec in FLOATS else codec


def without_exact(facts: IndexInfo) -> str:
    """Return what bytes per document leave out, where exact tokens lie beside codes."""
    return " without exact tokens" if facts.token_codec["exact_bytes_per_token"] else ""


def _require_place(out: Path, overwrite: bool) -> None:
    """Fail before the work where OUT cannot be written; only an index is ever replaced."""
    from ..index.manifest import read_manifest

    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise FileExistsError(f"{out} exists. Give another name, or --overwrite to replace the index.")
        read_manifest(out)
    elif out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; an index is a folder. Give another name.")


def _require_library(backend: str | None) -> None:
    """Fail before the work where a backend's library is missing, also where it is needed only later."""
    from ..mips import GRAPHS
    from ..utils.optional_imports import import_extra

    if backend is not None and backend in tuple(GRAPHS):
        import_extra(GRAPHS[backend], GRAPHS[backend], f"Backend {backend!r}")


def _learned(
    opened: Any, config: EncoderConfig, settings: dict[str, Any], threads: int | None, quiet: bool
) -> EncoderConfig | Encoder:
    """Return an encoder fitted on a sample of all documents, or the configuration if there are few."""
    from ..encoders.registry import make_encoder
    from ..index.settings import EXACT_TOKENS
    from ..index.two_stage_search import MIN_FIT_DOCUMENTS
    from .sources import stream

    small = opened.num_tokens is not None and opened.num_tokens <= settings.get("exact_tokens", EXACT_TOKENS)
    few = opened.num_documents is not None and opened.num_documents < MIN_FIT_DOCUMENTS
    encoder = make_encoder(config)
    if small or (few and config.needs_fit_sample) or not encoder.needs_fit:
        return config
    with progress_bar(opened.num_documents, "documents", "learning", quiet) as advance:

        def batches() -> Iterator[MultiVectors]:
            for batch in _filled(stream(opened)):
                yield batch
                advance(len(batch))

        return encoder.fit(batches(), threads=threads)


def _large(opened: Any, config: EncoderConfig) -> list[str]:
    """Return a warning if the vectors will take much memory, with what takes less."""
    if opened.num_documents is None:
        return []
    size = 4 * config.vector_dimension * opened.num_documents
    if size < _MUCH_MEMORY:
        return []
    return [
        f"{opened.num_documents:,} vectors of {config.vector_dimension:,} floats take {size / 2**30:.0f} GiB of "
        "memory. Vectors of --encoder moments or learned are smaller."
    ]


def _filled(batches: Iterator[MultiVectors]) -> Iterator[MultiVectors]:
    count = 0
    for batch in batches:
        count += len(batch)
        yield batch
    if count == 0:
        raise ValueError("The source has no documents, so there is nothing to index.")
