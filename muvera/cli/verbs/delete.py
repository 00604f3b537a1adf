"""``delete``: delete texts or pages by id or by a condition."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from ..conditions import warn_of_unmatched
from ..options import IndexEncoderOption, JsonOption, WhereOption
from ..printing import show, wrapped
from . import NAMES, IndexArgument, named, noun, open_index


def delete(
    index: IndexArgument,
    names: Annotated[list[str] | None, Argument(metavar="ID", help=NAMES)] = None,
    where: WhereOption = None,
    encoder: IndexEncoderOption = None,
    json_: JsonOption = False,
) -> None:
    """Delete texts or pages by id or by a condition.

    PDFs and pictures are not deleted: the next muvera pages index adds their pages
    again. To remove a document for good, delete its file, too. For a changed document,
    use muvera pages update.

    \b
    Example:
      muvera texts delete my-index --where '{"year": {"$lt": 2000}}'
      muvera pages delete my-pages 2024.pdf plan.pdf:2
    """
    from ...utils.checks import counted

    if bool(names) == (where is not None):
        raise ValueError(f"Give either ids or --where, got {'both' if names else 'neither'}.")
    if where == {}:
        raise ValueError("--where {} would delete all documents. Give a condition on a field.")
    with open_index(index, encoder, change=True, encodes=False) as opened:
        ids = named(opened, names) if names else opened.select(where)
        opened.delete(ids)
        if not ids:
            warn_of_unmatched(where, opened.select)
        kind, left = noun(opened), len(opened)
    line = f"{index}: {len(ids):,} deleted; {counted(left, kind)}"
    show(json_, {"index": index, f"{kind}s": left, "deleted": len(ids)}, wrapped(line))
