"""``muvera texts delete``: delete texts by id or by a condition."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from ..conditions import warn_of_unmatched
from ..options import IndexEncoderOption, JsonOption, WhereOption
from .changes import IndexArgument, open_texts, report, stored_ids


def delete(
    index: IndexArgument,
    ids: Annotated[list[str] | None, Argument(metavar="ID", help="Ids of texts.")] = None,
    where: WhereOption = None,
    encoder: IndexEncoderOption = None,
    json_: JsonOption = False,
) -> None:
    """Delete texts by id or by a condition; from a database only by id.

    \b
    Example:
      muvera texts delete my-index --where '{"year": {"$lt": 2000}}'
    """
    if bool(ids) == (where is not None):
        raise ValueError(f"Give either ids or --where, got {'both' if ids else 'neither'}.")
    if where == {}:
        raise ValueError("--where {} would delete all texts. Give a condition on a field.")
    with open_texts(index, encoder, change=True, encodes=False) as opened:
        # `get` names an unknown id as it was typed.
        names = [text.id for text in opened.get(stored_ids(opened, ids))] if ids else opened.select(where)
        opened.delete(names)
        if not names:
            warn_of_unmatched(where, opened.select)
        report(json_, index, opened, deleted=len(names))
