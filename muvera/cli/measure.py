"""``muvera diagnose`` and ``muvera tune``: measure encoders on a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from .options import Format, Json, Queries, ReaderOption, Source, Threads
from .output import progress_bar, show


def diagnose(
    source: Source,
    queries: Queries = None,
    format: Format = None,
    option: ReaderOption = None,
    sample: Annotated[int, Option(help="Documents to measure; time grows in proportion.")] = 1000,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Measure token embeddings, and recommend an encoder.

    --format and --option apply to SOURCE; the format of --queries is detected.  If a folder
    contains documents and queries, --queries reads its queries.

    \b
    Example:
      muvera diagnose docs --queries docs
    """
    from ..diagnostics.diagnose import diagnose as run

    diagnosis = _measured(run, source, queries, format, option, sample=sample, threads=threads)
    show(json_, {"source": str(source), **diagnosis.to_dict()}, diagnosis.text)


def tune(
    source: Source,
    queries: Queries = None,
    format: Format = None,
    option: ReaderOption = None,
    target_recall: Annotated[
        float | None, Option(help="Choose the smallest vectors with this recall (default: the best vectors).")
    ] = None,
    max_bytes: Annotated[int | None, Option(help="Maximum bytes of a document's vector.")] = None,
    candidates: Annotated[
        int | None, Option(help="Documents to rank exactly (default: 100, at most a quarter of the sample).")
    ] = None,
    sample: Annotated[int, Option(help="Documents to measure; time grows in proportion.")] = 1500,
    out: Annotated[Path | None, Option(help="A file for muvera index --config.")] = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Choose the encoder for your documents and queries.

    Many encoders are compared on a sample, which takes a few minutes.  Held-out queries estimate the recall of
    the choice.

    --format and --option apply to SOURCE; the format of --queries is detected.  If a folder contains documents
    and queries, --queries reads its queries.

    \b
    Example:
      muvera tune docs --queries queries --max-bytes 1024 --out tuned.json
      muvera index docs docs.index --config tuned.json
    """
    from ..tuning.tune import tune as run

    if out is not None and not out.parent.is_dir():  # before the work
        raise FileNotFoundError(f"The folder {out.parent} of {out.name} does not exist. Create it first.")
    tuning = _measured(
        run, source, queries, format, option, target_recall=target_recall, max_bytes=max_bytes,
        candidates=candidates, sample=sample, threads=threads,
    )  # fmt: skip
    remarks = []
    if out is not None:
        tuning.save(out)
        remarks = [f"wrote {out}, for: muvera index {source} INDEX --config {out}"]
    show(json_, {"source": str(source), **tuning.to_dict()}, tuning.text, *remarks)


def _measured(
    run: Any, source: Path, queries: Path | None, format: str | None, option: Any, **settings: Any
) -> Any:
    """Read documents and queries, and measure them with `run`."""
    from ..convert import read
    from .sources import open_documents, open_queries

    with progress_bar(None, "steps", "measuring") as advance:
        documents = read(open_documents(source, format, option))
        query_vectors = None if queries is None else read(open_queries(queries))
        return run(documents, query_vectors, progress=advance, **settings)
