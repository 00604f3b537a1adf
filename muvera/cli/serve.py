"""``muvera serve``: an index over HTTP, with a search page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

import muvera

from .options import IndexEncoderOption
from .printing import warn
from .verbs import IndexArgument, open_index

if TYPE_CHECKING:
    from ..serve import ServerSettings

# Environment variable of the token for changes; an option would be visible in the list
# of processes.
_TOKEN = "MUVERA_TOKEN"

# Environment variable of the token for reading.
_READ_TOKEN = "MUVERA_READ_TOKEN"

# Shorter tokens could be guessed.
_MIN_TOKEN_LENGTH = 16


def serve(
    index: IndexArgument,
    encoder: IndexEncoderOption = None,
    root: Annotated[
        Path | None, Option(help="Folder of a page index's documents, to show pictures of pages.")
    ] = None,
    host: Annotated[str, Option(help="Address to listen on.")] = "127.0.0.1",
    allowed_host: Annotated[
        list[str] | None, Option(metavar="HOST", help="Host name of requests, or * (default: --host).")
    ] = None,
    port: Annotated[int, Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    writable: Annotated[bool, Option("--writable", help=f"Allow changes; set {_TOKEN}.")] = False,
    threads: Annotated[int | None, Option(min=1, help="Concurrent searches (default: one per core).")] = None,
    measure: Annotated[
        float | None,
        Option(min=0, max=1, metavar="SHARE", help="Share of the searches whose recall is measured."),
    ] = None,
) -> None:
    """Serve an index over HTTP, with a search page.

    The server answers /search, /explain, /documents, /picture, /info, /health, /metrics
    (for Prometheus) and /openapi.json; the page is at /. A change is on disk before the
    server answers. Ctrl-C, SIGTERM or SIGHUP saves the index and stops the server; if
    the save fails, the exit status is 1. Set MUVERA_READ_TOKEN to require a token for
    reading. Pictures of pages are shown from --root only. --measure searches a sample
    of the queries a second time, exactly, in the background: /metrics, /info and the
    page show the recall, and INDEX.recall.json keeps it.

    \b
    Example:
      muvera serve my-index --port 8080
      curl -s 'localhost:8080/search?q=red+apple&k=3'
      curl -s localhost:8080/search -H 'Content-Type: application/json' \\
        -d '{"query": "red apple"}'
      muvera serve my-pages --root reports
      muvera serve my-index --measure .01
    """
    from ..serve import serve as run
    from ..texts.engine_texts import EngineTexts
    from ..utils.checks import counted

    settings = _settings(host, writable, threads)
    loaded = _load(index, encoder, root, writable)
    stored = None if isinstance(loaded, muvera.MuveraIndex) else loaded.texts
    place, name = index, Path(index).resolve().name
    if isinstance(stored, EngineTexts):
        place, name = stored.index.engine.location, stored.index.engine.name  # without the password
    if isinstance(loaded, muvera.PageIndex) and root is None:
        warn(
            "Pictures of pages are not shown, as only the index names their folder. To show them, run: "
            f"muvera serve {place} --root {loaded.root or 'FOLDER'}"
        )
    noun = "page" if isinstance(loaded, muvera.PageIndex) else "document"
    address = f"[{host}]" if ":" in host else host

    def announce() -> None:
        typer.echo(f"{place}: {counted(len(loaded), noun)} at http://{address}:{port}/ (Ctrl-C stops)")

    try:
        meter = None if measure is None else _meter(loaded, measure, index)
        try:
            run(
                loaded, settings, host=host, port=port, allowed_hosts=allowed_host,
                name=name, meter=meter, announce=announce,
            )  # fmt: skip
        finally:
            if meter is not None:
                meter.close()
    finally:
        try:
            if not isinstance(loaded, muvera.MuveraIndex):
                loaded.close()
        except (OSError, ValueError) as error:
            warn(f"The index was not saved, but its journal keeps all changes: {error}")
            raise typer.Exit(1) from None


def _meter(
    loaded: muvera.TextIndex | muvera.MuveraIndex | muvera.PageIndex, share: float, index: str
) -> muvera.RecallMeter:
    """Return the meter of an index; beside a folder, a file keeps what it counts.

    Say if there is nothing to measure.
    """
    from ..diagnostics.recall_report import state_file
    from ..utils.checks import url_scheme

    state = None if url_scheme(index) else state_file(Path(index))
    meter = muvera.RecallMeter(loaded, share, min(10, len(loaded) or 10), state=state)
    if (note := meter.report().note) is not None:
        warn(note)
    return meter


def _load(
    index: str, encoder: str | None, root: Path | None, writable: bool
) -> muvera.TextIndex | muvera.MuveraIndex | muvera.PageIndex:
    """Load an index of any kind; open texts or pages to change them."""
    from ..index.generations import texts_file
    from ..pages.folder import is_page_index
    from ..utils.checks import url_scheme

    folder = None if url_scheme(index) else Path(index)
    loaded: muvera.TextIndex | muvera.MuveraIndex | muvera.PageIndex
    if folder is not None and not is_page_index(folder) and texts_file(folder) is None:
        loaded = muvera.MuveraIndex.load(folder)
    else:
        loaded = open_index(index, encoder, change=writable, root=root)
    if root is not None and not isinstance(loaded, muvera.PageIndex):
        if isinstance(loaded, muvera.TextIndex):
            loaded.close()
        raise ValueError(
            "--root is the folder of a page index's documents, but this index has none. Omit it."
        )
    return loaded


def _settings(host: str, writable: bool, threads: int | None) -> ServerSettings:
    """Return the settings of a server, with the tokens of the environment.

    Warn of short tokens, and if other machines can reach the server.
    """
    from ..serve import LOCAL, ServerSettings
    from ..utils.parallel import thread_count

    token = os.environ.get(_TOKEN) or None
    read_token = os.environ.get(_READ_TOKEN) or None
    settings = ServerSettings(token, read_token, writable, threads or thread_count(None))
    _warn_of_short_tokens((token if writable else None), read_token)
    if host not in LOCAL:
        readers = "with the token" if read_token else f"(set {_READ_TOKEN} to require a token)"
        warn(
            f"Other machines can reach this server at {host} and read the index {readers}. Nothing is "
            "encrypted."
        )
    return settings


def _warn_of_short_tokens(*tokens: str | None) -> None:
    for token in tokens:
        if token and len(token) < _MIN_TOKEN_LENGTH:
            warn(
                f"The token has {len(token)} characters and could be guessed. Use at least "
                f"{_MIN_TOKEN_LENGTH} random ones."
            )
