"""``muvera index`` and ``muvera info``."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from .options import Backend, Config, Encoder, Format, Json, Overwrite, ReaderOption, Source, Threads, Tokens
from .output import megabytes, print_json, progress_bar, seconds, warn

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
    backend: Backend = None,
    exact_tokens: Annotated[
        int | None,
        Option(help="Search exactly, without vectors, if there are at most this many tokens; 0: never."),
    ] = None,
    tokens: Tokens = None,
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
) -> None:
    """Build an index of token embeddings.

    SOURCE is read in batches, so memory use is bounded.  OUT is created only when it is complete.

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
    chosen: Any = choose_encoder(encoder, config, opened.dimension)
    given: dict[str, Any] = {
        "backend": backend,
        "exact_tokens": exact_tokens,
        "tokens": tokens,
        "keep_exact": keep_exact,
    }
    settings = IndexSettings.of(**{name: value for name, value in given.items() if value is not None})
    begun = time.perf_counter()
    if isinstance(chosen, EncoderConfig):
        default = encoder is None and chosen == MomentsConfig(dimension=opened.dimension)
        chosen = _fitted(chosen, opened, settings, threads, default)
    with progress_bar(opened.num_documents, "documents", "indexing") as advance:
        build: Any = MuveraIndex.from_plaid if keep_codes else MuveraIndex.build
        content = opened if keep_codes else stream(opened)
        built = build(
            content,
            chosen,
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
    warn(*built.warnings)
    typer.echo(
        f"{out}: {counted(built.documents, 'document')}, {counted(built.tokens, 'token')} of "
        f"{counted(built.dimension, 'dimension')}, {_size(built)}, in {seconds(duration)}"
    )
    typer.echo(f"searched {_search(built)}")


def _fitted(config: EncoderConfig, source: Any, settings: Any, threads: int | None, default: bool) -> Any:
    """Return an encoder fitted on all documents, or `config` if the index needs no vectors or documents are too few.

    With `default`, the encoder is chosen by recall, and None is returned instead of `config`.
    """
    from ..encoders.registry import make_encoder
    from ..index.two_stage_search import MIN_FIT_DOCUMENTS
    from .sources import chosen_by_recall, fit

    exact = source.num_tokens is not None and source.num_tokens <= settings.exact_tokens
    few = source.num_documents is not None and source.num_documents < MIN_FIT_DOCUMENTS
    if exact or (few and config.needs_fit_sample):
        return None if default else config
    return chosen_by_recall(source, threads) if default else fit(make_encoder(config), source, threads)


def info(
    path: Annotated[
        Path, Argument(metavar="PATH", help="An index, an encoder's folder, or token embeddings.")
    ],
    format: Format = None,
    option: ReaderOption = None,
    full: Annotated[
        bool,
        Option(
            "--full",
            help="Read everything: checksums of an index; norms, empty texts and invalid numbers of embeddings.",
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Describe an index, an encoder or token embeddings.

    For an index: sizes, settings and the recall of its candidates.  For embeddings: format and size.

    \b
    Example:
      muvera info my.index
    """
    from ..encoders.registry import is_encoder_folder
    from .sources import is_index

    if format is None and is_index(path):
        facts, lines = _index_facts(path, full)
    elif format is None and is_encoder_folder(path):
        facts, lines = _encoder_facts(path)
    else:
        facts, lines = _embedding_facts(path, format, option, full)
    if json_:
        print_json({"path": str(path), **facts})
    else:
        typer.echo(f"{path}: " + "\n".join(lines))


def _index_facts(path: Path, full: bool) -> tuple[dict[str, Any], list[str]]:
    from ..index.manifest import read_manifest, texts_file
    from ..index.muvera_index import MuveraIndex
    from ..texts.database import TEXT_ENCODER, DocumentDatabase
    from ..utils.checks import counted

    facts = MuveraIndex.load(path, verify_files=full or None).info()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    texts: dict[str, Any] = {}
    if (file := texts_file(path)) is not None:
        with closing(DocumentDatabase.open(file)) as database:
            texts = {"texts": len(database), "text_encoder": database.property(TEXT_ENCODER)}
    codec, vectors = facts.token_codec, facts.vectors or {}
    exact = codec["exact_bytes_per_token"]
    parts = {"without tokens": facts.empty_documents, "deleted": facts.deleted_documents}
    documents = [counted(facts.documents, "document")]
    documents += [f"{count:,} {name}" for name, count in parts.items() if count]
    settings = _named({name: vectors.get(name) for name in ("m", "ef_construction", "ef")})
    limit = f"exact up to {facts.exact_tokens:,} tokens" if facts.exact_tokens else "never exact"
    rows = {
        "texts": f"{texts['texts']:,}, encoded by {texts['text_encoder']}" if texts else "",
        "tokens": f"{facts.tokens:,} of {counted(facts.dimension, 'dimension')}",
        "stored": f"{codec['bytes_per_token']:,} bytes per token ({codec['codec']})"
        + (f", and {exact:,} for exact tokens" if exact else ""),
        "search": _search(facts),
        "size": f"{_size(facts)}, {megabytes(size)} on disk",
        "settings": f"{settings}, {limit}" if settings else limit,
        "encoder": _named(facts.encoder),
        "verified": f"{counted(len(read_manifest(path)['files']), 'file')}, all checksums match"
        if full
        else "",
    }
    lines = [f"an index of {', '.join(documents)}"]
    lines += [f"{name:<12}{value}" for name, value in rows.items() if value]
    lines += [f"warning     {text}" for text in facts.warnings]
    return {"kind": "index", "bytes_on_disk": size, "verified": full, **texts, **facts.to_dict()}, lines


def _encoder_facts(path: Path) -> tuple[dict[str, Any], list[str]]:
    from ..encoders.registry import load_encoder

    config = load_encoder(path).config
    values = {**config.to_dict(), "vector_dimension": config.vector_dimension}
    return {"kind": "encoder", "encoder": values}, ["an encoder", f"encoder     {_named(values)}"]


def _embedding_facts(
    path: Path, format: str | None, option: list[str] | None, full: bool
) -> tuple[dict[str, Any], list[str]]:
    from ..convert import survey
    from ..utils.checks import counted
    from .sources import open_documents

    source = open_documents(path, format, option)
    names = ("documents", "tokens")
    counts = dict(zip(names, (source.num_documents, source.num_tokens), strict=True))
    facts = {"kind": "embeddings", "format": source.name, **counts, "dimension": source.dimension}
    facts |= {"lossy": source.lossy, "nbits": source.nbits}
    if full:
        report = survey(source)
        return {**facts, "survey": report.to_dict()}, ["token embeddings, read in full", report.text]
    shown = ", ".join(
        f"{name} unknown (count them with --full)" if count is None else counted(count, name[:-1])
        for name, count in counts.items()
    )
    bits = f", {source.nbits} bits per coordinate" if source.nbits else ""
    kind = f"lossy{bits}" if source.lossy else "exact"
    return facts, [f"{source.name} ({kind}): {shown}, {counted(source.dimension, 'dimension')}"]


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
        text += " in a graph"
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
