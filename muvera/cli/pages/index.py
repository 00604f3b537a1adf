"""``muvera pages index``: encode the pages of documents and index them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from ..options import JsonOption, ThreadsOption, new_encoder, only_given
from ..printing import announce, megabytes, note, progress_bar, seconds, show, warn, wrapped

if TYPE_CHECKING:
    from ...pages.indexing import Progress
    from ...pages.page_index import PageIndex
    from ...texts.encoders.pages import PageEncoder

DocumentsArgument = Annotated[
    Path, Argument(metavar="SOURCE", help="A PDF, a picture, or a folder of them and of folders.")
]


def index(
    source: DocumentsArgument,
    out: Annotated[Path, Argument(metavar="OUT", help="Folder of the index: a new one, or one to continue.")],
    encoder: Annotated[str, new_encoder("page")] = "static",
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

    The default encoder, static, needs no model: it encodes the text layers of PDFs.
    Scans and figures need an encoder of pictures, such as colmodernvbert.

    Each document or page that cannot be read gets a warning. The index is saved about
    every ten seconds. Run an interrupted command again to continue, and run it again to
    add new documents. For changed documents, use muvera pages update.

    \b
    Example:
      muvera pages index REPORTS my-pages
      muvera pages search my-pages "revenue by region"
    """
    from ...texts.encoders.registry import as_page_encoder
    from ...utils.checks import as_path

    options = only_given(factor=factor, patches=patches)
    as_path(source, "source")  # both refuse a URL
    as_path(out, "out")
    encode_documents(source, str(out), out, as_page_encoder(encoder), threads, json_, **options)


def encode_documents(
    source: Path,
    name: str,
    out: Path | PageIndex,
    model: PageEncoder,
    threads: int | None,
    json_: bool,
    *,
    update: bool = False,
    **options: float | str,
) -> None:
    """Encode documents into a new index or an existing one, and report.

    `name` is the index as the user named it.  The other parameters are those of
    :func:`muvera.pages.indexing.index_documents`.
    """
    from ...pages.indexing import index_documents
    from ...texts.encoders.pages import FastembedPageEncoder

    if isinstance(model, FastembedPageEncoder) and model.download_gigabytes:
        note(
            f"muvera: the model {model.name} is not on this machine yet. Its first use downloads "
            f"{model.download_gigabytes:g} GB from Hugging Face."
        )
    begun = time.monotonic()
    skipped: list[str] = []

    def skip(reason: str) -> None:
        skipped.append(reason)
        warn(reason)

    try:
        with ExitStack() as bar:
            built = index_documents(
                source, out, model, update=update, progress=_bar(bar), skipped=skip, threads=threads,
                **options,
            )  # fmt: skip
    except KeyboardInterrupt:
        again = "again, from the first page" if update else "again to continue"
        note(f"muvera: {name} keeps the encoded pages. Run the command {again}.")
        raise
    _report(built, name, skipped, time.monotonic() - begun, json_)


def _bar(stack: ExitStack) -> Callable[[Progress], None]:
    """Return a function that shows the progress in a bar, which `stack` removes."""
    from ...utils.checks import counted

    advance: Callable[[int], object] | None = None

    def tell(state: Progress) -> None:
        nonlocal advance
        if advance is None:
            pages = state.total - state.done + state.encoded
            duration = state.seconds + (state.seconds_left or 0)
            announce(counted(pages, "page"), duration, lambda: state.num_bytes * pages)
            advance = stack.enter_context(progress_bar(state.total, "pages", "encoding"))
            advance(state.done - 1)
        advance(1)

    return tell


def _report(built: PageIndex, name: str, skipped: list[str], duration: float, json_: bool) -> None:
    from ...texts.engine_texts import EngineTexts
    from ...utils.checks import counted

    facts: dict[str, Any] = {"index": name, "pages": len(built), "skipped": skipped}
    without, size = 0, ""
    if not isinstance(built.texts, EngineTexts):
        num_bytes = sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())
        without, size = built.info().get("without_text", 0), f"{megabytes(num_bytes)}, "
        facts |= {"without_text": without, "bytes": num_bytes}
    encoded = f"encoded by {built.encoder_name}"
    line = f"{name}: {counted(len(built), 'page')}, {encoded}, {size}in {seconds(duration)}"
    if without:
        line += (
            f". {counted(without, 'page')} {'has' if without == 1 else 'have'} no text layer, so no search finds "
            f"{'it' if without == 1 else 'them'}. For pictures of pages, build another index with --encoder "
            "colmodernvbert."
        )
    show(json_, {**facts, "encoder": built.encoder_name, "seconds": round(duration, 3)}, wrapped(line))
