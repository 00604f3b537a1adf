"""``muvera index`` and ``muvera info``."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from .options import Config, Encoder, Format, Json, Overwrite, Quiet, ReaderOption, Source, Threads
from .output import megabytes, note, print_json, progress_bar, seconds, warn

if TYPE_CHECKING:
    from ..encoders.base import EncoderConfig
    from ..index.info import IndexInfo

__all__ = ["index", "info"]


def index(
    source: Source,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder for the index.")],
    format: Format = None,
    option: ReaderOption = None,
    encoder: Encoder = None,
    config: Config = None,
    backend: Annotated[
        str | None,
        Option(help="auto, exact (reads every vector), scan (reads 4-bit codes) or hnsw (searches a graph)."),
    ] = None,
    exact_tokens: Annotated[
        int | None,
        Option(help="Search without vectors, and exactly, if there are at most this many tokens; 0: never."),
    ] = None,
    tokens: Annotated[
        str | None,
        Option(
            help="How tokens are stored: float32, float16, or as codes: int8 (half of float16), 4bit, 2bit or 1bit "
            "(1/4, 1/7 or 1/13; fewer bits lower recall). Default: float16 if SOURCE is, otherwise float32."
        ),
    ] = None,
    keep_exact: Annotated[
        bool,
        Option("--keep-exact", help="With codes, also store exact tokens, which rerank the best candidates."),
    ] = False,
    keep_codes: Annotated[
        bool, Option("--keep-codes", help="Keep the codes of a PLAID index unchanged.")
    ] = False,
    threads: Threads = None,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build an index of token embeddings.

    SOURCE is read in batches, so memory use is bounded.  OUT is created only when it is complete. --config
    may also contain backend, hnsw, exact_tokens, tokens and keep_exact.

    \b
    Example: index your own arrays, one (tokens, dimension) array per document.
      python -c "import numpy as np, muvera; r = np.random.default_rng(0); \\
      muvera.MultiVectors.from_arrays(r.normal(size=(50, 9, 32))).save('docs')"
      muvera index docs docs.index
      muvera search docs.index docs -k 3
    """
    from ..encoders.base import EncoderConfig
    from ..encoders.moments import MomentsConfig
    from ..index.generations import require_place
    from ..index.muvera_index import MuveraIndex
    from ..index.settings import IndexSettings
    from ..utils.checks import counted
    from .sources import choose_encoder, open_documents, stream

    require_place(out, overwrite)
    opened = open_documents(source, format, option)
    chosen, values = choose_encoder(encoder, config, opened.dimension)
    options = {"backend": backend, "exact_tokens": exact_tokens, "tokens": tokens}
    values |= {name: value for name, value in options.items() if value is not None}
    if keep_exact:
        values["keep_exact"] = True
    settings = IndexSettings.of(**values)
    begun = time.perf_counter()
    ready: Any = chosen
    choose = encoder is None and chosen == MomentsConfig(dimension=opened.dimension)
    if isinstance(chosen, EncoderConfig):
        ready = _fitted(chosen, opened, settings, threads, quiet, choose)
    with progress_bar(opened.num_documents, "documents", "indexing", quiet) as advance:
        build: Any = MuveraIndex.from_plaid if keep_codes else MuveraIndex.build
        built = build(
            opened if keep_codes else stream(opened),
            ready,
            settings=settings,
            path=out,
            overwrite=overwrite,
            threads=threads,
            progress=advance,
        ).info()
    duration = time.perf_counter() - begun
    if json_:
        facts = {"index": str(out), "source": str(source), "seconds": round(duration, 3)}
        print_json({**facts, **built.to_dict()})
        return
    if not quiet:
        warn(*built.warnings)
        if built.vectors is None and settings.backend != "auto":
            note(
                f"This index is searched exactly; backend {settings.backend} is used above "
                f"{built.exact_tokens:,} tokens (--exact-tokens 0: always)."
            )
    typer.echo(
        f"{out}: {counted(built.documents, 'document')}, {counted(built.tokens, 'token')} of "
        f"{counted(built.dimension, 'dimension')}, {_size(built)}, in {seconds(duration)}"
    )
    typer.echo(f"searched {_search(built)}")


def _fitted(
    config: EncoderConfig, source: Any, settings: Any, threads: int | None, quiet: bool, choose: bool
) -> Any:
    """Return an encoder fitted on all documents, or `config` if there are too few or no vectors are needed.

    With `choose`, return the encoder that the default setting would choose, or None instead of `config`.
    """
    from ..encoders.registry import make_encoder
    from ..index.two_stage_search import MIN_FIT_DOCUMENTS
    from .sources import chosen_by_recall, fit

    exact = source.num_tokens is not None and source.num_tokens <= settings.exact_tokens
    few = source.num_documents is not None and source.num_documents < MIN_FIT_DOCUMENTS
    if exact or (few and config.needs_fit_sample):
        return None if choose else config
    if choose:
        return chosen_by_recall(source, quiet, threads)
    return fit(make_encoder(config), source, quiet, threads)


def info(
    path: Annotated[
        Path, Argument(metavar="PATH", help="An index, an encoder's folder, or token embeddings.")
    ],
    format: Format = None,
    option: ReaderOption = None,
    verify: Annotated[
        bool, Option("--verify", help="Read an index in full and compare every checksum.")
    ] = False,
    survey: Annotated[
        bool, Option("--survey", help="Read embeddings in full: norms, empty texts, invalid numbers.")
    ] = False,
    json_: Json = False,
) -> None:
    """Describe an index, an encoder or token embeddings.

    For an index: sizes, settings, the recall of its vector search, and the recall of its candidates.  For
    embeddings: format and size.

    \b
    Example:
      muvera info my.index
    """
    from ..encoders.registry import is_encoder_folder
    from .sources import is_index

    if format is None and is_index(path):
        facts, lines = _index_facts(path, verify)
    elif format is None and is_encoder_folder(path):
        facts, lines = _encoder_facts(path)
    else:
        facts, lines = _embedding_facts(path, format, option, survey)
    if json_:
        print_json({"path": str(path), **facts})
    else:
        typer.echo(f"{path}: " + "\n".join(lines))


def _index_facts(path: Path, verify: bool) -> tuple[dict[str, Any], list[str]]:
    from ..index.manifest import read_manifest, texts_file
    from ..index.muvera_index import MuveraIndex
    from ..texts.database import TEXT_ENCODER, DocumentDatabase
    from ..utils.checks import counted

    loaded = MuveraIndex.load(path, verify_files=True if verify else None)
    facts = loaded.info()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    texts: dict[str, Any] = {}
    file = texts_file(path)
    if file is not None:
        with closing(DocumentDatabase.open(file)) as database:
            texts = {"texts": len(database), "text_encoder": database.property(TEXT_ENCODER)}
    codec = facts.token_codec
    exact = (
        f", and {codec['exact_bytes_per_token']:,} for exact tokens" if codec["exact_bytes_per_token"] else ""
    )
    documents = counted(facts.documents, "document")
    empty = f", {facts.empty_documents:,} of them without tokens" if facts.empty_documents else ""
    deleted = f", {facts.deleted_documents:,} deleted" if facts.deleted_documents else ""
    graph = {
        name: value for name, value in (facts.vectors or {}).items() if name in ("m", "ef_construction", "ef")
    }
    limit = f"exact up to {facts.exact_tokens:,} tokens" if facts.exact_tokens else "never exact"
    lines = [
        f"an index of {documents}{empty}{deleted}",
        *([f"texts       {texts['texts']:,}, encoded by {texts['text_encoder']}"] if texts else []),
        f"tokens      {facts.tokens:,} of {counted(facts.dimension, 'dimension')}",
        f"stored      {codec['bytes_per_token']:,} bytes per token ({codec['codec']}){exact}",
        f"search      {_search(facts)}",
        f"size        {_size(facts)}, {megabytes(size)} on disk",
        f"settings    {', '.join(filter(None, [_named(graph), limit]))}",
        f"encoder     {_named(facts.encoder)}",
        *(f"warning     {text}" for text in facts.warnings),
    ]
    if verify:
        lines.append(f"verified    {counted(len(read_manifest(path)['files']), 'file')}, all checksums match")
    return {"kind": "index", "bytes_on_disk": size, "verified": verify, **texts, **facts.to_dict()}, lines


def _encoder_facts(path: Path) -> tuple[dict[str, Any], list[str]]:
    from ..encoders.registry import load_encoder

    config = load_encoder(path).config
    values = {**config.to_dict(), "vector_dimension": config.vector_dimension}
    return {"kind": "encoder", "encoder": values}, ["an encoder", f"encoder     {_named(values)}"]


def _embedding_facts(
    path: Path, format: str | None, option: list[str] | None, survey: bool
) -> tuple[dict[str, Any], list[str]]:
    from ..convert import survey as read_all
    from .sources import open_documents

    source = open_documents(path, format, option)
    facts = {
        "kind": "embeddings",
        "format": source.name,
        "documents": source.num_documents,
        "tokens": source.num_tokens,
        "dimension": source.dimension,
        "lossy": source.lossy,
        "nbits": source.nbits,
    }
    if survey:
        report = read_all(source)
        return {**facts, "survey": report.to_dict()}, ["token embeddings, read in full", report.text]
    counts = ", ".join(
        f"{count:,} {unit}" if count is not None else f"{unit} unknown (count them with --survey)"
        for count, unit in ((source.num_documents, "documents"), (source.num_tokens, "tokens"))
    )
    bits = f", {source.nbits} bits per coordinate" if source.nbits else ""
    kind = f"lossy{bits}" if source.lossy else "exact"
    return facts, [f"{source.name} ({kind}): {counts}, {source.dimension} dimensions"]


def _search(facts: IndexInfo) -> str:
    """Describe how an index searches, and the recall of its candidates."""
    from ..reranking.codecs import FLOATS

    vectors = facts.vectors
    if vectors is None:
        codec = facts.token_codec["codec"]
        codes = None if codec in FLOATS else codec
        return f"by the {codes} codes of all tokens, without vectors" if codes else "exactly, without vectors"
    text = f"by {facts.encoder['encoder']} vectors of {facts.encoder['vector_dimension']:,} floats"
    if vectors["kind"] in ("exact", "scan"):
        text += ", all of which are read" + ("" if vectors["kind"] == "exact" else " as 4-bit codes")
    else:
        recall = "unknown" if vectors["recall"] is None else f"{vectors['recall']:.1%}"
        text += f" in a graph with recall {recall}"
    first = facts.first_stage
    if first is None:
        return text
    queries = "windows of document tokens" if first.pseudo_queries else "queries"
    return (
        f"{text}; {first.candidates} candidates contain {first.recall:.1%} of the exact top {first.k} "
        f"({first.queries} {queries})"
    )


def _size(facts: IndexInfo) -> str:
    without = " without exact tokens" if facts.token_codec["exact_bytes_per_token"] else ""
    return f"{megabytes(facts.bytes_per_document)} per document{without}"


def _named(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
