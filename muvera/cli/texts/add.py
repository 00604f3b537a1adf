"""``muvera texts add``: texts with new ids."""

from __future__ import annotations

from ..options import IndexEncoderOption, JsonOption
from ..verbs import IndexArgument
from .changes import (
    DuplicatesOption,
    IdColumnOption,
    MetadataColumnsOption,
    TextColumnsOption,
    TextsArgument,
    TitleColumnOption,
    in_batches,
    in_windows,
    open_texts,
    read_file,
    report,
)


def add(
    index: IndexArgument,
    source: TextsArgument,
    text: TextColumnsOption = None,
    id: IdColumnOption = None,
    metadata: MetadataColumnsOption = None,
    title: TitleColumnOption = None,
    duplicates: DuplicatesOption = None,
    encoder: IndexEncoderOption = None,
    json_: JsonOption = False,
) -> None:
    """Add texts with new ids.

    If the command is killed, complete batches of 64 texts stay.  muvera texts update
    with the same file adds the rest.

    \b
    Example:
      muvera texts add my-index more.csv --text title,body --id url
    """
    content = read_file(source, text, id, metadata, title, duplicates)
    with open_texts(index, encoder, change=True) as opened:
        for used in opened.get(content.ids or [], missing="ignore"):
            raise ValueError(f"{index} contains the id {used.id!r}. Use muvera texts update to replace it.")
        in_batches(opened, opened.add, content.texts or [], content.ids, content.metadata)
        long = in_windows(opened, content.texts or [])
        report(json_, index, opened, added=len(content.metadata), **long)
