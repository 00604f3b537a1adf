"""``muvera texts update``: replace texts and metadata by id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import muvera

from ..options import IndexEncoderOption, JsonOption
from ..verbs import IndexArgument, stored_ids
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

if TYPE_CHECKING:
    from ...texts.text_files import TextFile


def update(
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
    """Replace texts and metadata by id, and add texts with new ids.

    Only new and different texts are encoded.  Metadata replaces the stored metadata,
    unless TEXTS has none.  A file without texts changes only the fields that it
    contains; null removes a field.

    \b
    Example:
      muvera texts update my-index pages.csv --text title,body --id url
    """
    content = read_file(source, text, id, metadata, title, duplicates, optional_text=True)
    if content.ids is None:
        raise ValueError(f"{source} has no ids, which an update needs. Name their column with --id.")
    with open_texts(index, encoder, change=True, encodes=content.texts is not None) as opened:
        report(json_, index, opened, **_update(opened, content))


def _update(index: muvera.TextIndex, content: TextFile) -> dict[str, int]:
    """Encode new and different texts, change the metadata of others, and count them."""
    ids = stored_ids(index, content.ids or [])
    replaces = content.texts and any(content.metadata)
    stored = {row.id: row for row in index.get(ids, missing="ignore" if content.texts else "raise")}
    contents = content.texts or [stored[name].text for name in ids]
    encode: dict[Any, tuple[str, dict[str, Any]]] = {}
    change: dict[Any, dict[str, Any]] = {}
    for name, text, row in zip(ids, contents, content.metadata, strict=True):
        before = stored[name].metadata if name in stored else {}
        merged = row if replaces else {**before, **row}
        values = {key: value for key, value in merged.items() if value is not None}
        if name not in stored or text != stored[name].text:
            encode[name] = text, values
        elif values != before:
            change[name] = {**dict.fromkeys(before), **values}  # None removes a field
    if change:
        index.update(ids=list(change), metadata=list(change.values()))
    texts, metadata = zip(*encode.values(), strict=True) if encode else ((), ())
    in_batches(index, index.update, texts, list(encode), metadata)
    added = len(encode.keys() - stored.keys())
    return {
        "added": added,
        "replaced": len(encode) - added,
        "metadata_changed": len(change),
        "unchanged": len(ids) - len(encode) - len(change),
        **in_windows(index, texts),
    }
