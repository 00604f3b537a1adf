"""Table of the formats, and detection of the format of a path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data.multivectors import MultiVectors
from ..utils.checks import as_path, require_choice, require_int
from .damage import IF_TEXTS, naming_errors
from .isolation import IsolationLimits, isolated_source
from .readers import arrow, containers, json_lines, plaid, pylate, qdrant
from .readers.in_memory import open_object
from .sources import Reader, Source

#: Reader by format, in the order of detection.  An index that also contains another format's files
#: comes before that format; a folder of plain arrays comes after every kind of index.
READERS: dict[str, Reader] = {
    entry.name: entry
    for module in (pylate, plaid, qdrant, containers, json_lines, arrow)
    for entry in module.READERS
}


def formats() -> dict[str, str]:
    """Return the name of every readable format, with the files that identify it."""
    return {name: entry.description for name, entry in READERS.items()}


def find_reader(path: Path, format: str | None = None) -> Reader:
    """Return the reader of `format`, by default of the format of `path`, detected from its files."""
    if not path.exists():
        as_path(path)  # refuses a URL
        raise FileNotFoundError(
            f"{path} does not exist. Give a file or folder of embeddings; encode texts with your model first."
        )
    if format is not None:
        name = format.lower().replace("-", "_")
        require_choice("format", name, READERS)
        return READERS[name]
    for entry in READERS.values():
        if entry.matches(path):
            return entry
    content = f" {IF_TEXTS}"
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir()) or ["nothing"]
        content = f" It contains {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."
    raise ValueError(
        f"{path} is in no known format.{content} muvera.convert.formats() lists the known ones. If it is in "
        "one of them under other file names, give the format."
    )


def open_source(
    path_or_object: Any,
    format: str | None = None,
    *,
    isolated: bool | IsolationLimits = False,
    **options: Any,
) -> Source:
    """Return the source of a path, or of embeddings in memory.

    Parameters
    ----------
    path_or_object : path or object
        A str is a path.  A :class:`Source` is returned unchanged.
    format : str, optional
        A key of :data:`READERS`.  Default: detected from the path.
    isolated : bool or IsolationLimits
        As for :func:`~muvera.convert.read`, which raises the same errors.
    **options
        Options of the format's reader; see its ``open_source``.
    """
    kind = type(path_or_object).__name__
    if not isinstance(path_or_object, (str, os.PathLike)):
        if isolated or format is not None:
            raise TypeError(f"isolated=True and format= need a path, but got {kind}, which is in memory.")
        if isinstance(path_or_object, Source):
            _check_options(options, [], path_or_object.name)
            return path_or_object
        _check_options(options, ["mask", "ids"], "memory")
        return open_object(path_or_object, **options)
    path = Path(path_or_object).expanduser()
    if isolated:
        limits = IsolationLimits() if isolated is True else isolated
        return NamedSource(isolated_source(path, format, options, limits), str(path))
    entry = find_reader(path, format)
    _check_options(options, entry.options, entry.name)
    with naming_errors(str(path), entry.name):
        return NamedSource(entry.open_source(path, **options), str(path))


class NamedSource(Source):
    """Wrapper of a reader's source: its errors name the file, and it refuses numbers that are not finite."""

    def __init__(self, source: Source, place: str) -> None:
        if source.dimension < 1:
            raise ValueError("its token vectors have no columns")
        self.source = source
        self.place = place
        for name in ("name", "dimension", "num_documents", "num_tokens", "lossy", "nbits", "note"):
            setattr(self, name, getattr(source, name))

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the source's batches; see :meth:`Source.batches`."""
        require_int("max_tokens", max_tokens, 1)
        batches = self.source.batches(max_tokens)
        count = 0
        while True:
            with naming_errors(self.place, self.name):
                batch = next(batches, None)
            self.dropped_rows = self.source.dropped_rows
            if batch is None:
                return
            batch.require_finite(first=count, place=self.place)
            count += len(batch)
            yield batch


def _check_options(options: dict[str, Any], known: list[str], name: str) -> None:
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise TypeError(f"The {name} reader has no option {option!r}; {has}.")
