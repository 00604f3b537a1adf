"""Index the pages of a folder of PDFs and pictures; resume after an interruption."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..metadata import is_utf8
from ..texts.encoders.pages import PageEncoder
from ..texts.encoders.registry import as_page_encoder
from ..utils.checks import as_path
from .folder import is_page_index
from .page import Page
from .page_index import PageIndex
from .pictures import ENDINGS, count_pages, read_page

# Seconds between two saves, if saves are fast: the work that a kill can lose.
_SAVE_SECONDS = 10.0

# More pages of one PDF are not read: a file of 600 bytes can say that it has a million.
_MOST_PAGES = 100_000

# After this many pages in a row that cannot be read, the others of a document are
# skipped.
_UNREADABLE = 20

# Saves take at most about 1 / _SAVE_SHARE of the time.
_SAVE_SHARE = 20


class Progress(NamedTuple):
    """State of indexing a folder.

    Parameters
    ----------
    done, total : int
        Pages in the index, and pages that can be read.
    encoded : int
        Pages that were encoded since the start.
    seconds : float
        Seconds since the start.
    floats : int
        Floats of the vectors of these pages.
    """

    done: int
    total: int
    encoded: int
    seconds: float
    floats: int

    @property
    def pages_per_hour(self) -> float:
        """Pages encoded per hour."""
        return 3600 * self.encoded / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end; None before the first page."""
        left = self.total - self.done
        return left * self.seconds / self.encoded if self.encoded else None


def index_documents(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    encoder: PageEncoder | str,
    *,
    progress: Callable[[Progress], object] = lambda state: None,
    skipped: Callable[[str], object] = lambda reason: None,
    threads: int | None = None,
    **options: float | str,
) -> PageIndex:
    """Index the pages of a folder, or of one document; continue an earlier index.

    Pages that are in `out` are not encoded again, also if their document changed:
    delete them first.  The index is saved every ten seconds, less often if a save takes
    long, and when an exception or Ctrl-C ends the call.

    Parameters
    ----------
    source : path
        A PDF, a picture, or a folder of them and of folders.
    out : path
        The folder of the index: a new one, or a page index of the same encoder.
    encoder : PageEncoder or str
        The model, or its name.
    progress : callable
        Called after each page.
    skipped : callable
        Called with a sentence for each document or page that cannot be read.
    threads : int, optional
        Threads of everything except the encoder.  Default: all usable cores.
    **options
        ``factor=`` and ``patches=`` of a new index; see :class:`muvera.PageIndex`.

    Returns
    -------
    PageIndex

    Raises
    ------
    FileNotFoundError
        If `source` does not exist, or has no PDFs and pictures.
    ValueError
        If `out` is an index of another encoder or folder, or no page can be read.
    """
    place, target = as_path(source, "source").resolve(), as_path(out, "out").resolve()
    root, documents = _documents(place)
    model = as_page_encoder(encoder)
    index = PageIndex.load(target, model) if is_page_index(target) else None
    if index is not None and index.root != root:
        raise ValueError(
            f"{target} is an index of {_documents_of(index)}, but these documents are in {root}. Give another "
            "folder for the index."
        )
    counts = {path: _count(path, skipped) for path in documents}
    names = {path: path.relative_to(root).as_posix() for path in documents if counts[path]}
    present = set() if index is None else set(index.ids)
    left = [
        (path, number)
        for path, name in names.items()
        for number in range(1, counts[path] + 1)
        if f"{name}:{number}" not in present
    ]
    begun = time.monotonic()
    waiting: list[Page] = []
    total = sum(counts.values())
    done, encoded, floats, saved, duration = total - len(left), 0, 0, begun, 0.0
    failed: tuple[Path | None, int] = None, 0
    try:
        for path, number in left:
            if failed == (path, _UNREADABLE):  # a sentence has named it
                total -= 1
                continue
            page = _encoded(path, number, names[path], model, skipped)
            if page is None:
                total -= 1
                failed = path, failed[1] + 1 if failed[0] == path else 1
                if failed[1] == _UNREADABLE and number < counts[path]:
                    skipped(
                        f"The pages of {path} after page {number} are skipped, because {_UNREADABLE} pages in "
                        "a row could not be read."
                    )
                continue
            failed = None, 0
            if index is None:
                index = PageIndex(page.vectors.shape[1], model, root=root, **options)  # type: ignore[arg-type]
            waiting.append(page)
            done, encoded, floats = done + 1, encoded + 1, floats + page.vectors.size
            now = time.monotonic()
            progress(Progress(done, total, encoded, now - begun, floats))
            if now - saved > max(_SAVE_SECONDS, _SAVE_SHARE * duration):
                _save(index, waiting, target, threads)
                saved = time.monotonic()
                duration = saved - now
    finally:
        if index is not None and waiting:
            _save(index, waiting, target, threads)
    if index is None:
        raise ValueError(f"No page of {place} could be read. Give a folder of PDFs or pictures.")
    return index


def _documents_of(index: PageIndex) -> str:
    return "page vectors without documents" if index.root is None else f"the documents in {index.root}"


def _documents(place: Path) -> tuple[Path, list[Path]]:
    """Return the folder of the documents, and their paths in order."""
    if place.is_file():
        return place.parent, [place]
    if not place.is_dir():
        raise FileNotFoundError(f"{place} does not exist. Give a PDF, a picture, or a folder of them.")
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise FileNotFoundError(
            f"{place} has no PDFs and no pictures ({', '.join(ENDINGS)}). Give another folder."
        )
    return place, found


def _count(path: Path, skipped: Callable[[str], object]) -> int:
    if not is_utf8(str(path)):
        skipped(f"The name of {str(path)!a} is not UTF-8, so no index can store it. Rename the file.")
        return 0
    try:
        count = count_pages(path)
    except (ValueError, OSError) as error:
        skipped(str(error))
        return 0
    if count > _MOST_PAGES:
        skipped(
            f"{path} says that it has {count:,} pages, but at most {_MOST_PAGES:,} are read. Divide it into "
            "several files."
        )
        return 0
    return count


def _encoded(
    path: Path, number: int, name: str, encoder: PageEncoder, skipped: Callable[[str], object]
) -> Page | None:
    """Return a page with its vectors, or None if it cannot be read."""
    try:
        content = read_page(path, number)
    except (ValueError, OSError) as error:
        skipped(str(error))
        return None
    vectors, grid, special = encoder.encode_page(content.picture)
    return Page(
        vectors, name, number, grid, special, text=content.text, lines=content.lines, size=content.size
    )


def _save(index: PageIndex, waiting: list[Page], target: Path, threads: int | None) -> None:
    index.add(waiting, threads=threads)
    waiting.clear()
    index.save(target)
