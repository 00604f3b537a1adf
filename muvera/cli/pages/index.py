"""``muvera pages index``: encode the pages of documents and index them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from ..options import JsonOption, ThreadsOption, new_encoder, only_given
from ..printing import clock, megabytes, note, seconds, show, warn, wrapped

if TYPE_CHECKING:
    from ...texts.encoders.pages import PageEncoder

# Seconds between two lines about the progress.
_NOTE_SECONDS = 15.0


DocumentsArgument = Annotated[
    Path, Argument(metavar="SOURCE", help="A PDF, a picture, or a folder of them and of folders.")
]


def index(
    source: DocumentsArgument,
    out: Annotated[Path, Argument(metavar="OUT", help="Folder of the index: a new one, or one to continue.")],
    encoder: Annotated[str, new_encoder("page")] = "colmodernvbert",
    factor: Annotated[
        float | None, Option(min=1, help="Patches that one mean replaces in the ranking (default: 3).")
    ] = None,
    patches: Annotated[
        Literal["int8", "4bit", "2bit", "1bit"] | None,
        Option(help="Codes of all patches, on disk (default: int8)."),
    ] = None,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Encode the pages of PDFs and pictures, and index them.

    Each document or page that cannot be read gets a warning. The index is saved about
    every ten seconds. Run an interrupted command again to continue, and run it again to
    add new documents. Changed documents are not encoded again: use muvera pages delete
    first.

    \b
    Example:
      muvera pages index REPORTS my-pages
      muvera pages search my-pages "revenue by region"
    """
    from ...texts.encoders.registry import as_page_encoder

    options = only_given(factor=factor, patches=patches)
    encode_documents(source, out, as_page_encoder(encoder), threads, json_, **options)


def encode_documents(
    source: Path, out: Path, model: PageEncoder, threads: int | None, json_: bool, **options: float | str
) -> None:
    """Encode documents into a new index or an existing one, and report.

    `options` are those of :func:`muvera.pages.indexing.index_documents`.
    """
    from ...pages.indexing import Progress, index_documents
    from ...texts.encoders.pages import FastembedPageEncoder
    from ...utils.checks import as_path, counted

    as_path(source, "source")  # both refuse a URL
    as_path(out, "out")
    if isinstance(model, FastembedPageEncoder) and model.download_gigabytes:
        note(
            f"muvera: the model {model.name} is not on this machine yet. Its first use downloads "
            f"{model.download_gigabytes:g} GB from Hugging Face."
        )
    begun = told = time.monotonic()
    skipped: list[str] = []

    def skip(reason: str) -> None:
        skipped.append(reason)
        warn(reason)

    def tell(state: Progress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _NOTE_SECONDS or state.done == state.total:
            told = now
            left = "" if not state.seconds_left else f", {clock(state.seconds_left)} left"
            note(
                f"{state.done:,} of {counted(state.total, 'page')}, {state.pages_per_hour:,.0f} pages an "
                f"hour{left}"
            )

    try:
        built = index_documents(
            source, out, model, progress=tell, skipped=skip, threads=threads, **options
        )  # fmt: skip
    except KeyboardInterrupt:
        note(f"muvera: {out} keeps the encoded pages. Run the command again to continue.")
        raise
    duration = time.monotonic() - begun
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    facts = {"index": str(out), "pages": len(built), "skipped": skipped, "bytes": size}
    encoded = f"encoded by {built.encoder_name}"
    line = f"{out}: {counted(len(built), 'page')}, {encoded}, {megabytes(size)}, in {seconds(duration)}"
    show(json_, {**facts, "encoder": built.encoder_name, "seconds": round(duration, 3)}, wrapped(line))
