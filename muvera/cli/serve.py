"""``muvera serve``: an index over HTTP, with a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .output import warn

__all__ = ["serve"]

#: The environment's variable of the token; an option would show it to everybody who lists processes.
TOKEN = "MUVERA_TOKEN"

#: Characters of a token that cannot be guessed.
LONG_ENOUGH = 16


def serve(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of an index.")],
    encoder: Annotated[
        str | None, typer.Option(help="Text encoder. Default: the one that the index was built with.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    writable: Annotated[
        bool, typer.Option("--writable", help=f"Let those change documents who know the token in {TOKEN}.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="File of the token, instead of the variable.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Searches at a time. Default: one a core.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 30.0,
) -> None:
    """Serve an index: /search, /explain, /documents, /info, /health, /openapi.json, and a page at /.

    What is changed is saved at a graceful stop (Ctrl-C or SIGTERM).

    \b
    Example:
      muvera serve my-index --port 8080
      curl -s localhost:8080/search -H 'Content-Type: application/json' -d '{"query": "red apple"}'
    """
    from ..index.manifest import TEXTS
    from ..index.muvera_index import MuveraIndex
    from ..serve.run import ServerSettings
    from ..serve.run import serve as run
    from ..texts.text_index import TextIndex
    from ..utils.parallel import thread_count

    token = os.environ.get(TOKEN) if token_file is None else token_file.read_text(encoding="utf-8").strip()
    settings = ServerSettings(
        token=token or None, writable=writable, threads=threads or thread_count(None), timeout=timeout
    )
    if writable and token and len(token) < LONG_ENOUGH:
        warn(
            [
                f"The token has {len(token)} characters and could be guessed. Give at least {LONG_ENOUGH} random ones."
            ]
        )
    vectors = MuveraIndex.load(index)
    has_texts = vectors._attachment(TEXTS) is not None
    loaded: TextIndex | MuveraIndex = TextIndex.load(index, encoder) if has_texts else vectors
    at = f"[{host}]" if ":" in host else host

    def announce() -> None:
        typer.echo(f"{index}: {len(loaded):,} documents at http://{at}:{port}/ (Ctrl-C stops)")

    run(loaded, settings, host=host, port=port, save=lambda: loaded.save(index), announce=announce)
