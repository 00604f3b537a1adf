"""``muvera index``, ``info``, ``search``, ``serve``, ``mcp``, ``diagnose`` and ``tune``."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

import muvera

from .shared import (
    WARNING,
    Backend,
    Config,
    Encoder,
    Format,
    Json,
    Out,
    Overwrite,
    Queries,
    ReaderOption,
    Recall,
    Source,
    TextEncoder,
    Threads,
    Tokens,
    Where,
    given,
    megabytes,
    progress_bar,
    seconds,
    show,
    warn,
    warn_of_unmatched,
    wrapped,
)

# Queries per step of the progress bar; rankings do not depend on it.
_QUERIES_AT_ONCE = 256

# Environment variables of the tokens; an option would be visible in the list of
# processes.
_TOKEN, _READ_TOKEN = "MUVERA_TOKEN", "MUVERA_READ_TOKEN"

# Shorter tokens could be guessed.
_MIN_TOKEN_LENGTH = 16

_Sample = Annotated[int, Option(help="Documents to measure; time grows in proportion.")]


def index(
    source: Source,
    out: Out,
    format: Format = None,
    option: ReaderOption = None,
    encoder: Encoder = None,
    config: Config = None,
    backend: Backend = None,
    exact_tokens: Annotated[
        int | None, Option(help="Search up to N tokens exactly (default: 20,000; 0: never).")
    ] = None,
    tokens: Tokens = None,
    keep_exact: Annotated[bool, Option("--keep-exact", help="Store exact tokens beside codes.")] = False,
    keep_codes: Annotated[bool, Option("--keep-codes", help="Keep the codes of a PLAID index.")] = False,
    threads: Threads = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Build an index of token embeddings.

    SOURCE is read in batches, so memory use is bounded.  OUT is created only when it is
    complete.

    \b
    Example: index your own arrays, one (tokens, dimension) array per document.
      python -c "import numpy as np, muvera; r = np.random.default_rng(0); \\
      muvera.MultiVectors.from_arrays(r.normal(size=(50, 9, 32))).save('docs')"
      muvera index docs docs.index
      muvera search docs.index docs -k 3
    """
    from ..index.generations import require_place
    from ..utils.checks import as_path
    from .sources import choose_encoder, fit_for_index, open_documents, stream

    require_place(as_path(out, "OUT"), overwrite)
    opened = open_documents(source, format, option)
    chosen = choose_encoder(encoder, config, opened.dimension)
    settings = muvera.IndexSettings.of(
        **given(backend=backend, exact_tokens=exact_tokens, tokens=tokens, keep_exact=keep_exact)
    )
    begun = time.perf_counter()
    fitted = fit_for_index(chosen, opened, settings.exact_tokens, threads)
    with progress_bar(opened.num_documents, "documents", "indexing") as advance:
        build: Any = muvera.MuveraIndex.from_plaid if keep_codes else muvera.MuveraIndex.build
        built = build(
            opened if keep_codes else stream(opened), fitted, settings=settings, path=out, overwrite=overwrite,
            threads=threads, progress=advance,
        ).info()  # fmt: skip
    duration = time.perf_counter() - begun
    facts = {"index": str(out), "source": str(source), "seconds": round(duration, 3), **built.to_dict()}
    text = wrapped(f"{out}: {_built(built)}; in {seconds(duration)}")
    show(json_, facts, text, *(WARNING + warning for warning in built.warnings))


def _built(facts: muvera.IndexInfo) -> str:
    """Describe the size of an index, how it searches, and the recall of its candidates."""
    from ..utils.checks import counted

    text = (
        f"{counted(facts.documents, 'document')}, {counted(facts.tokens, 'token')} of "
        f"{counted(facts.dimension, 'dimension')}, {megabytes(facts.bytes_per_document)} per document"
    )
    if facts.token_codec["exact_bytes_per_token"]:
        text += " without exact tokens"
    if facts.vectors is None:
        return f"{text}; searches read all tokens"
    encoder, first = facts.encoder, facts.first_stage
    text += f"; searches use FDEs of {encoder['vector_dimension']:,} floats ({facts.search})"
    if first is not None:
        text += f"; {first.candidates} candidates contain {first.recall:.1%} of the exact top {first.k}"
    return text


def info(
    path: Annotated[Path, Argument(metavar="PATH", help="An index, an encoder's folder, or embeddings.")],
    format: Format = None,
    option: ReaderOption = None,
    full: Annotated[bool, Option("--full", help="Compare all checksums, or measure all tokens.")] = False,
    json_: Json = False,
) -> None:
    """Describe an index, an encoder or token embeddings.

    For an index: sizes, settings and the recall of its candidates.  For embeddings:
    format and size.

    \b
    Example:
      muvera info my.index
    """
    from ..fde.files import is_encoder_folder
    from ..index.generations import texts_file
    from ..texts.database import DocumentDatabase
    from .sources import is_index, open_documents

    facts: dict[str, Any]
    remarks: list[str] = []
    counts = ""
    labels = {"exact_tokens": "exact up to (tokens)"}
    if format is None and is_index(path):
        described = muvera.MuveraIndex.load(path, verify_files=full or None).info()
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        facts = {"kind": "index", "bytes_on_disk": size, "verified": full}
        if (file := texts_file(path)) is not None:
            with closing(DocumentDatabase.open(file)) as database:
                facts |= {"texts": len(database), "text_encoder": database.text_encoder}
        facts |= described.to_dict()
        remarks += [WARNING + warning for warning in described.warnings]
        if described.vectors is None:
            labels["encoder"] = "encoder (not in use)"
    elif format is None and is_encoder_folder(path):
        config = muvera.load_encoder(path).config
        values = {**config.to_dict(), "vector_dimension": config.vector_dimension}
        facts = {"kind": "encoder", "encoder": values}
    else:
        source = open_documents(path, format, option)
        facts = {"kind": "embeddings", "format": source.name, "documents": source.num_documents}
        facts |= {"tokens": source.num_tokens, "dimension": source.dimension}
        facts |= {"lossy": source.lossy, "nbits": source.nbits}
        if full:
            report = muvera.convert.survey(source)
            facts["survey"], counts = report.to_dict(), "\n" + wrapped(report.text, later=" " * 9)
        elif source.num_documents is None:
            remarks.append("--full counts documents and tokens.")
    hidden = ("kind", "survey", "warnings")
    shown = {labels.get(name, name): value for name, value in facts.items() if name not in hidden}
    text = "\n".join([f"{path}: {facts['kind']}", *_fact_lines(shown)])
    show(json_, {"path": str(path), **facts}, text + counts, *remarks)


def _fact_lines(facts: dict[str, Any], indent: int = 0) -> Iterator[str]:
    """Yield a line for each fact that is not None.

    The lines of a nested dictionary are indented.
    """
    for name, value in facts.items():
        start = " " * indent + name.replace("_", " ")
        if isinstance(value, dict):
            yield start
            yield from _fact_lines(value, indent + 2)
        elif isinstance(value, float):
            yield f"{start:<26}{value:.4g}"
        elif value is not None:
            yield f"{start:<26}{value:,}" if type(value) is int else f"{start:<26}{value}"


def search(
    index: Annotated[str, Argument(metavar="INDEX", help="Folder of an index, or a URL of muvera load.")],
    queries: Annotated[Path, Argument(metavar="QUERIES", help="Query embeddings in any format.")],
    k: Annotated[int, Option("--k", "-k", help="Maximum number of documents per query.")] = 10,
    candidates: Annotated[int | None, Option(help="Documents to rank (default: 100, at least k).")] = None,
    recall: Recall = None,
    where: Where = None,
    rerank: Annotated[
        Literal["auto", "here", "none"],
        Option(help="Where to rank a URL's candidates: in the database if it can, here, or not at all."),
    ] = "auto",
    trec: Annotated[bool, Option("--trec", help="Print a TREC run.")] = False,
    format: Format = None,
    option: ReaderOption = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Print the best documents for each query.

    Each line has rank, Chamfer score and id.  A score is a sum over query tokens;
    higher is better.  A query without tokens has an empty ranking.  If QUERIES also
    contains documents, its queries are read.  --where and --rerank work only with a
    URL.

    \b
    Example: the queries of a ColBERTv2 index, as a TREC run.
      muvera index colbert_index my.index
      muvera search my.index colbert_index/query_embedding.npy --trec > run.txt
    """
    if trec and json_:
        raise ValueError("--trec prints only a run. Omit --json.")
    from ..engines import EngineIndex
    from ..index.generations import texts_file
    from ..utils.checks import counted, url_scheme
    from .sources import open_queries

    if recall is None and candidates is None:
        candidates = max(100, k)
    plan: dict[str, Any] = {"k": k, "candidates": candidates, "recall": recall, "threads": threads}
    opened: Any
    if url_scheme(index):
        opened = EngineIndex(index)
        plan |= {"where": where, "rerank": None if rerank == "none" else rerank}
        index = str(opened.engine.location)
    elif where is not None or rerank != "auto":
        raise ValueError(
            f"--where and --rerank need the URL of an engine, got {index}. Omit them, or search a URL."
        )
    else:
        opened = nullcontext(muvera.MuveraIndex.load(index))
        if not queries.exists() and texts_file(Path(index)) is not None:
            raise ValueError(
                f"The file {str(queries)!r} does not exist, and this command needs token vectors. {index} is an index "
                f"of texts: muvera texts search {index} {shlex.quote(str(queries))} answers a question."
            )
    with opened as searched:
        texts = muvera.convert.read(open_queries(queries, format, option))
        begun = time.perf_counter()
        rankings: list[muvera.Ranking] = []
        with progress_bar(len(texts), "queries", "searching") as advance:
            for start in range(0, len(texts), _QUERIES_AT_ONCE):
                block = texts[start : start + _QUERIES_AT_ONCE]
                rankings += searched.search(block, **plan)
                advance(len(block))
        duration = time.perf_counter() - begun
        documents = len(searched)
        unmatched = where and texts.num_tokens and not any(map(len, rankings))
        if unmatched:
            query = texts[[int(texts.lengths.argmax())]]
            warn_of_unmatched(
                where, lambda condition: len(searched.search(query, 1, where=condition, rerank=None)[0])
            )
    names = texts.ids.tolist()
    answers = list(zip(names, rankings, strict=True))
    results = [
        {"id": name, "results": [{"id": id, "score": score} for id, score in ranking]}
        for name, ranking in answers
    ]
    facts = {"index": index, "k": k, "candidates": candidates, "recall": recall}
    lines = _run(answers) if trec else _rankings(answers)
    sizes = f"{counted(len(names), 'query', 'queries')} among {counted(documents, 'document')}"
    sizes += ", of which none satisfies --where," if unmatched else ""
    remarks = [] if trec else [f"{sizes} in {seconds(duration)}"]
    show(json_, {**facts, "seconds": round(duration, 4), "queries": results}, "\n".join(lines), *remarks)


def _rankings(answers: list[tuple[Any, muvera.Ranking]]) -> Iterator[str]:
    for query, ranking in answers:
        yield f"query {query}"
        for rank, (id, score) in enumerate(ranking, start=1):
            yield f"{rank:4d}  {score:10.4f}  {id}"


def _run(answers: list[tuple[Any, muvera.Ranking]]) -> Iterator[str]:
    """Yield one line per result: query, Q0, document, rank, score, name of the run."""
    for query, ranking in answers:
        for name in (query, *ranking.ids.tolist()):
            if len(str(name).split()) != 1:
                raise ValueError(
                    f"id {str(name)!r} has white space, which separates the columns of a TREC run. Use --json."
                )
        scores = ranking.scores.astype("U").tolist()  # NumPy writes float32 with the fewest digits
        for rank, (name, score) in enumerate(zip(ranking.ids.tolist(), scores, strict=True), start=1):
            yield f"{query} Q0 {name} {rank} {score} muvera"


def serve(
    index: Annotated[Path, Argument(metavar="INDEX", help="Folder of an index.")],
    encoder: TextEncoder = None,
    host: Annotated[str, Option(help="Address to listen on.")] = "127.0.0.1",
    allowed_host: Annotated[
        list[str] | None, Option(metavar="HOST", help="Host name of requests, or * (default: --host).")
    ] = None,
    port: Annotated[int, Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    writable: Annotated[bool, Option("--writable", help=f"Allow changes; set {_TOKEN}.")] = False,
    threads: Annotated[int | None, Option(min=1, help="Concurrent searches (default: one per core).")] = None,
) -> None:
    """Serve an index over HTTP, with a search page.

    The server answers /search, /explain, /documents, /info, /health and /openapi.json;
    the page is at /. A change is on disk before the server answers. Ctrl-C, SIGTERM or
    SIGHUP saves the index and stops the server; if the save fails, the exit status is
    1. Set MUVERA_READ_TOKEN to require a token for reading.

    \b
    Example:
      muvera serve my-index --port 8080
      curl -s localhost:8080/search -H 'Content-Type: application/json' \\
        -d '{"query": "red apple"}'
    """
    from ..index.generations import texts_file
    from ..serve import LOCAL, ServerSettings
    from ..serve import serve as run
    from ..utils.checks import counted
    from ..utils.parallel import thread_count

    token, read_token = os.environ.get(_TOKEN) or None, os.environ.get(_READ_TOKEN) or None
    settings = ServerSettings(token, read_token, writable, threads or thread_count(None))
    for value in ((token if writable else None), read_token):
        if value and len(value) < _MIN_TOKEN_LENGTH:
            warn(
                f"The token has {len(value)} characters and could be guessed. Use at least {_MIN_TOKEN_LENGTH} "
                "random ones."
            )
    if host not in LOCAL:
        readers = "with the token" if read_token else f"(set {_READ_TOKEN} to require a token)"
        warn(
            f"Other machines can reach this server at {host} and read the index {readers}. Nothing is encrypted."
        )
    loaded: muvera.TextIndex | muvera.MuveraIndex
    if texts_file(index) is None:
        loaded = muvera.MuveraIndex.load(index)
    else:
        loaded = (muvera.TextIndex.open if writable else muvera.TextIndex.load)(index, encoder)
    address = f"[{host}]" if ":" in host else host

    def announce() -> None:
        documents = counted(len(loaded), "document")
        typer.echo(f"{index}: {documents} at http://{address}:{port}/ (Ctrl-C stops)")

    try:
        run(loaded, settings, host=host, port=port, allowed_hosts=allowed_host, announce=announce)
    finally:
        try:
            if isinstance(loaded, muvera.TextIndex):
                loaded.close()
        except (OSError, ValueError) as error:
            warn(f"The index was not saved, but its journal keeps all changes: {error}")
            raise typer.Exit(1) from None


def mcp(
    index: Annotated[Path, Argument(metavar="INDEX", help="Folder of an index of texts.")],
    encoder: TextEncoder = None,
    writable: Annotated[bool, Option("--writable", help="Also offer the tool add.")] = False,
) -> None:
    """Serve an index of texts to agents (Model Context Protocol).

    Agents call the tools over standard input and output. The tools are search, get and
    explain. Answers have ids, titles and the best passages with their character
    positions. Needs the extra mcp.

    \b
    Example: on the command line, and in a client's configuration.
      muvera mcp /path/to/my-index
      {"mcpServers": {"my-texts": {
        "command": "muvera", "args": ["mcp", "/path/to/my-index"]}}}
    """
    from ..utils.checks import import_extra

    import_extra("mcp.server", "mcp", "muvera mcp")
    from ..integrations.mcp import make_server

    with (muvera.TextIndex.open if writable else muvera.TextIndex.load)(index, encoder) as opened:
        make_server(opened, writable=writable).run()


def diagnose(
    source: Source,
    queries: Queries = None,
    format: Format = None,
    option: ReaderOption = None,
    sample: _Sample = 1000,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Measure token embeddings, and recommend an encoder.

    \b
    Example:
      muvera diagnose docs --queries docs
    """
    diagnosis = _measured(muvera.diagnose, source, queries, format, option, sample=sample, threads=threads)
    show(json_, {"source": str(source), **diagnosis.to_dict()}, wrapped(diagnosis.text))


def tune(
    source: Source,
    queries: Queries = None,
    format: Format = None,
    option: ReaderOption = None,
    target_recall: Annotated[
        float | None, Option(help="Choose the smallest vectors with this recall.")
    ] = None,
    max_bytes: Annotated[int | None, Option(help="Maximum bytes of a document's vector.")] = None,
    candidates: Annotated[int | None, Option(help="Documents to rank (default: 100, or fewer).")] = None,
    sample: _Sample = 1500,
    out: Annotated[Path | None, Option(help="A file for muvera index --config.")] = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Choose the encoder for your documents and queries.

    Many encoders are compared on a sample, which takes a few minutes.  Held-out queries
    estimate the recall of the choice.

    \b
    Example:
      muvera tune docs --queries queries --max-bytes 1024 --out tuned.json
      muvera index docs docs.index --config tuned.json
    """
    if out is not None and not out.parent.is_dir():  # before the work
        raise FileNotFoundError(f"The folder {out.parent} of {out.name} does not exist. Create it first.")
    tuning = _measured(
        muvera.tune, source, queries, format, option, target_recall=target_recall, max_bytes=max_bytes,
        candidates=candidates, sample=sample, threads=threads,
    )  # fmt: skip
    remarks = []
    if out is not None:
        tuning.save(out)
        remarks = [f"wrote {out}, for: muvera index {source} INDEX --config {out}"]
    show(json_, {"source": str(source), **tuning.to_dict()}, wrapped(tuning.text), *remarks)


def _measured(
    run: Any, source: Path, queries: Path | None, format: str | None, option: Any, **settings: Any
) -> Any:
    """Read documents and queries, and measure them with `run`."""
    from .sources import open_documents, open_queries

    with progress_bar(None, "steps", "measuring") as advance:
        documents = muvera.convert.read(open_documents(source, format, option))
        query_vectors = None if queries is None else muvera.convert.read(open_queries(queries))
        return run(documents, query_vectors, progress=advance, **settings)
