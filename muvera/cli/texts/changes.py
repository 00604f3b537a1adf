"""Open a text index, change it in batches, and report on the change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

import muvera

from ..printing import announce, note, progress_bar, show, warn, wrapped
from ..verbs import open_index

if TYPE_CHECKING:
    from ...texts.encoders.base import TextEncoder
    from ...texts.text_files import TextFile

# An estimate for fewer texts would encode most of them.
_FEW_TEXTS = 256

# Number of texts per change: a killed command loses the encoding of fewer texts.  The
# encoder of vectors is fitted to the first change of a new collection.
_BATCH, _FIRST = 64, 4096

TextsArgument = Annotated[
    Path,
    Argument(metavar="TEXTS", help="CSV, JSON lines, a JSON array, a BEIR folder, or one text per line."),
]

TextColumnsOption = Annotated[
    Any,
    Option(
        "--text",
        metavar="COLUMNS",
        parser=lambda names: names.split(","),
        help="Columns to search, such as title,body (default: title, if any, and text).",
    ),
]

IdColumnOption = Annotated[str | None, Option("--id", help="Column of the id (default: id or _id).")]

MetadataColumnsOption = Annotated[
    Any,
    Option(
        "--metadata",
        metavar="COLUMNS",
        parser=lambda names: {"rest": None, "none": []}.get(names, names.split(",")),
        help="Columns to keep as metadata, such as year,author; or none (default: all other columns).",
    ),
]


TitleColumnOption = Annotated[
    str | None,
    Option("--title", metavar="COLUMN", help="Column of the title that hits show (default: title or name)."),
]

DuplicatesOption = Annotated[
    Literal["skip", "last"] | None,
    Option(help="Of rows with the same id, keep the first (skip) or the last (default: refuse them)."),
]


def open_texts(
    index: str, encoder: str | None, *, change: bool = False, encodes: bool = True
) -> muvera.TextIndex:
    """Open a text index as :func:`muvera.cli.verbs.open_index`; refuse pages."""
    opened = open_index(index, encoder, change=change, encodes=encodes)
    if isinstance(opened, muvera.PageIndex):
        raise ValueError(f"{index} is a page index, but this command needs texts. Use muvera pages.")
    return opened


def read_file(
    source: Path,
    text: Sequence[str] | None,
    id: str | None,
    metadata: Sequence[str] | None,
    title: str | None,
    duplicates: Literal["skip", "last"] | None,
    *,
    optional_text: bool = False,
) -> TextFile:
    """Read a text file, and warn about skipped rows and mixed columns.

    The parameters are described at :func:`muvera.texts.text_files.read_texts`.
    """
    from ...texts.text_files import read_texts
    from ...utils.checks import counted

    content = read_texts(
        source, text or (), id, metadata, title=title, duplicates=duplicates, optional_text=optional_text
    )
    if content.empty_rows:
        skipped = "was" if content.empty_rows == 1 else "were"
        warn(f"{counted(content.empty_rows, 'empty row')} of {source} {skipped} skipped.")
    if content.repeats:
        verb = "repeats" if content.repeats == 1 else "repeat"
        left = "the last row of each id is" if duplicates == "last" else "the first row of each id is"
        warn(f"{counted(content.repeats, 'row')} of {source} {verb} an id; {left} kept.")
    for remark in content.remarks:
        warn(remark)
    return content


def announce_texts(
    texts: Sequence[str], encoder: TextEncoder, vectors: str | None = None, **settings: Any
) -> None:
    """Announce the time and the size of a long job with texts."""
    from ...texts.estimate import expected_bytes, expected_seconds
    from ...utils.checks import counted

    if len(texts) <= _FEW_TEXTS:
        return
    with progress_bar(None, "texts", "estimating"):
        expected = expected_seconds(texts, encoder)
    announce(
        counted(len(texts), "text"),
        expected.seconds,
        lambda: expected_bytes(texts, expected.sample, encoder, vectors, **settings),
    )


def in_batches(
    index: muvera.TextIndex,
    change: Callable[..., object],
    texts: Sequence[str],
    ids: list[Any] | None,
    metadata: Sequence[Any],
) -> None:
    """Call `change` with a few texts at a time; an error undoes no earlier call."""
    from ...texts.engine_texts import EngineTexts
    from ...texts.store import TextStore
    from ..load import calibrate_large

    stored = index.texts
    new = isinstance(stored, EngineTexts) and stored.index.engine.description is None
    tokens = stored.vectors.settings.tokens if isinstance(stored, TextStore) else None
    announce_texts(texts, index.encoder, tokens=tokens)
    with progress_bar(len(texts), "texts", "encoding") as advance:
        for start in [0, *range(_FIRST if new else _BATCH, len(texts), _BATCH)] if texts else []:
            rows = slice(start, _FIRST if new and not start else start + _BATCH)
            try:
                change(texts[rows], ids=None if ids is None else ids[rows], metadata=metadata[rows])
            except BaseException:
                if start:
                    done = f"The first {start:,} of {len(texts):,} texts to encode are stored."
                    note(f"muvera: {done} muvera texts update stores the rest of a file with ids.")
                raise
            advance(len(texts[rows]))
        if isinstance(stored, EngineTexts) and new and texts:
            calibrate_large(stored.index, None)


def in_windows(index: muvera.TextIndex, texts: Iterable[str]) -> dict[str, int]:
    """Count the texts that the index has encoded in windows, if there are any."""
    from ...texts.encoders.base import count_long

    long = count_long(index.encoder, texts)
    return {"in_windows": long} if long else {}


def report(json_: bool, name: str, index: muvera.TextIndex, **counts: int) -> None:
    """Print how many texts were changed, and how many the index has.

    `name` is the index as the user named it.  `counts` are numbers of texts, such as
    ``deleted=3``.
    """
    from ...utils.checks import counted

    shown = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())
    line = f"{name}: {shown}; {counted(len(index), 'text')}"
    show(json_, {"index": name, "texts": len(index), **counts}, wrapped(line))
