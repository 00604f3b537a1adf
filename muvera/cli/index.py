"""``muvera index`` and ``muvera info``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from .options import (
    Backend,
    Config,
    Format,
    IndexEncoder,
    Json,
    Overwrite,
    ReaderOption,
    Source,
    Threads,
    Tokens,
    given,
)
from .output import WARNING, megabytes, progress_bar, report_text, seconds, show, wrapped

if TYPE_CHECKING:
    from ..encoders.base import EncoderConfig
    from ..index.settings import IndexInfo


def index(
    source: Source,
    out: Annotated[Path, Argument(metavar="OUT", help="A new folder for the index.")],
    format: Format = None,
    option: ReaderOption = None,
    encoder: IndexEncoder = None,
    config: Config = None,
    backend: Backend = None,
    exact_tokens: Annotated[
        int | None,
        Option(
            help="Up to this many tokens, search exactly and build no vectors (default: 20,000; 0: never)."
        ),
    ] = None,
    tokens: Tokens = None,
    keep_exact: Annotated[
        bool, Option("--keep-exact", help="Store exact tokens in addition to codes, to rerank the best.")
    ] = False,
    keep_codes: Annotated[bool, Option("--keep-codes", help="Keep the codes of a PLAID index.")] = False,
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
    from ..utils.checks import as_path
    from .sources import choose_encoder, open_documents, stream

    require_place(as_path(out, "OUT"), overwrite)
    opened = open_documents(source, format, option)
    chosen: Any = choose_encoder(encoder, config, opened.dimension)
    settings = IndexSettings.of(
        **given(backend=backend, exact_tokens=exact_tokens, tokens=tokens, keep_exact=keep_exact)
    )
    begun = time.perf_counter()
    if isinstance(chosen, EncoderConfig):
        default = encoder is None and chosen == MomentsConfig(dimension=opened.dimension)
        chosen = _fitted(chosen, opened, settings, threads, default)
    with progress_bar(opened.num_documents, "documents", "indexing") as advance:
        build: Any = MuveraIndex.from_plaid if keep_codes else MuveraIndex.build
        built = build(
            opened if keep_codes else stream(opened), chosen, settings=settings, path=out, overwrite=overwrite,
            threads=threads, progress=advance,
        ).info()  # fmt: skip
    duration = time.perf_counter() - begun
    facts = {"index": str(out), "source": str(source), "seconds": round(duration, 3)}
    remarks = [WARNING + warning for warning in built.warnings]
    show(
        json_,
        {**facts, **built.to_dict()},
        wrapped(f"{out}: {_built(built)}; in {seconds(duration)}"),
        *remarks,
    )


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
    path: Annotated[Path, Argument(metavar="PATH", help="An index, an encoder's folder, or embeddings.")],
    format: Format = None,
    option: ReaderOption = None,
    full: Annotated[
        bool, Option("--full", help="Compare all checksums of an index, or measure all embeddings.")
    ] = False,
    json_: Json = False,
) -> None:
    """Describe an index, an encoder or token embeddings.

    For an index: sizes, settings and the recall of its candidates.  For embeddings: format and size.

    \b
    Example:
      muvera info my.index
    """
    from ..encoders.registry import is_encoder_folder, load_encoder
    from .sources import is_index

    survey: list[str] = []
    if format is None and is_index(path):
        facts = _index_facts(path, full)
    elif format is None and is_encoder_folder(path):
        config = load_encoder(path).config
        values = {**config.to_dict(), "vector_dimension": config.vector_dimension}
        facts = {"kind": "encoder", "encoder": values}
    else:
        facts, survey = _embedding_facts(path, format, option, full)
    lines = [f"{path}: {facts['kind']}", *_fact_lines(_labelled(facts))]
    remarks = [WARNING + warning for warning in facts.get("warnings", ())]
    if facts.get("documents", 0) is None and not full:
        remarks.append("--full counts documents and tokens.")
    show(json_, {"path": str(path), **facts}, "\n".join([*lines, *survey]), *remarks)


def _index_facts(path: Path, full: bool) -> dict[str, Any]:
    from ..index.generations import texts_file
    from ..index.muvera_index import MuveraIndex
    from ..texts.database import DocumentDatabase

    facts = MuveraIndex.load(path, verify_files=full or None).info().to_dict()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    texts: dict[str, Any] = {}
    if (file := texts_file(path)) is not None:
        with closing(DocumentDatabase.open(file)) as database:
            texts = {"texts": len(database), "text_encoder": database.text_encoder}
    return {"kind": "index", "bytes_on_disk": size, "verified": full, **texts, **facts}


def _embedding_facts(
    path: Path, format: str | None, option: list[Any] | None, full: bool
) -> tuple[dict[str, Any], list[str]]:
    from ..convert import survey
    from .sources import open_documents

    source = open_documents(path, format, option)
    facts = {"kind": "embeddings", "format": source.name, "documents": source.num_documents}
    facts |= {"tokens": source.num_tokens, "dimension": source.dimension}
    facts |= {"lossy": source.lossy, "nbits": source.nbits}
    if not full:
        return facts, []
    report = survey(source)
    return {**facts, "survey": report.to_dict()}, [report_text(report)]


def _labelled(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts to print; some labels are clearer than the names in JSON."""
    shown = {name: value for name, value in facts.items() if name not in ("kind", "survey", "warnings")}
    if facts["kind"] != "index":
        return shown
    shown["exact_tokens"] = f"{facts['exact_tokens']:,} tokens"
    labels = {"exact_tokens": "exact search up to"}
    if facts["vectors"] is None:
        labels["encoder"] = "encoder (not in use)"
    return {labels.get(name, name): value for name, value in shown.items()}


def _fact_lines(facts: dict[str, Any], indent: int = 0) -> Iterator[str]:
    """Yield a line for each fact that is not None; the lines of a nested dictionary are indented."""
    for name, value in facts.items():
        start = " " * indent + name.replace("_", " ")
        if isinstance(value, dict):
            yield start
            yield from _fact_lines(value, indent + 2)
        elif isinstance(value, float):
            yield f"{start:<26}{value:.4g}"
        elif value is not None:
            yield f"{start:<26}{value:,}" if type(value) is int else f"{start:<26}{value}"


def _built(facts: IndexInfo) -> str:
    """Describe the size of an index, how it searches, and the recall of its candidates."""
    from ..utils.checks import counted

    sizes = [counted(facts.documents, "document"), counted(facts.tokens, "token")]
    text = (
        f"{', '.join(sizes)} of {counted(facts.dimension, 'dimension')}, {megabytes(facts.bytes_per_document)} per "
        "document"
    )
    if facts.token_codec["exact_bytes_per_token"]:
        text += " without exact tokens"
    if facts.vectors is None:
        return f"{text}; searches read all tokens"
    encoder, first = facts.encoder, facts.first_stage
    text += f"; searches use {encoder['encoder']} vectors of {encoder['vector_dimension']:,} floats ({facts.search})"
    if first is not None:
        text += f"; {first.candidates} candidates contain {first.recall:.1%} of the exact top {first.k}"
    return text
