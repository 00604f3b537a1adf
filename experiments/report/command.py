"""``python -m experiments page``: write a run's page, and its figures for documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muvera.utils.atomic_files import write_bytes

from .run_folder import load_run

__all__ = ["page"]


def page(
    run_folder: Annotated[Path, typer.Argument(help="What a run has written: manifest.json, summary.json.")],
    out: Annotated[Path | None, typer.Option(help="Default: page.html in the run's folder.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for SVG figures.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this figure, such as end_to_end-speed; may be repeated.")
    ] = None,
) -> None:
    """Write one HTML page of a run that needs no other file and no network."""
    target = out or run_folder / "page.html"
    try:
        run = load_run(run_folder)
        # Here, so that the other commands do without the plotting library.
        from .assembly import page_of
        from .figures import write_figures

        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, page_of(run).encode())
        typer.echo(f"{target} ({target.stat().st_size / 1e6:.2f} MB)")
        if figures is not None:
            for path in write_figures(run, figures, only or ()):
                typer.echo(str(path))
    except ModuleNotFoundError as error:
        needs = f"The page needs {error.name}: pip install 'muvera-toolkit[experiments]'."
        typer.echo(f"error: {needs}", err=True)
        raise typer.Exit(2) from None
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
