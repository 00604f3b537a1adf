"""Index the pages of a folder of PDFs and pictures; resume after an interruption."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..metadata import is_utf8
from ..texts.encoders.base import TableEncoder
from ..texts.encoders.pages import PageEncoder, TextLayerEncoder
from ..texts.encoders.registry import as_page_encoder
from ..texts.engine_texts import EngineTexts
from ..utils.checks import as_path, counted
from ..utils.hints import Argument, Message
from .folder import is_page_index
from .page import Page
from .page_index import PageIndex
from .pictures import ENDINGS, count_pages, read_page, read_text

# Seconds between two saves, if saves are fast: the work that a kill can lose.
_SAVE_SECONDS = 10.0

# More pages of one PDF are not read: a file of 600 bytes can say that it has a million.
_MOST_PAGES = 100_000

# Bytes on disk of a float of a page's vectors, as codes and codes of means, and of a
# character of a text layer, as rows of a table and lists of words.
_BYTES_OF_FLOAT, _BYTES_OF_CHARACTER = 1.4, 3

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
    num_bytes : int
        About how many bytes these pages take on disk.
    """

    done: int
    total: int
    encoded: int
    seconds: float
    num_bytes: int

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
    out: str | os.PathLike[str] | PageIndex,
    encoder: PageEncoder | TableEncoder | str = "static",
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
    out : path or PageIndex
        The folder of the index: a new one, or a page index of the same encoder.  Or a
        page index, such as one that is open in a database.
    encoder : PageEncoder, TableEncoder or str
        The model, or its name; a given index uses its encoder.  Default: "static",
        which needs no model: it encodes the text layers of PDFs.  A page without a text
        layer is stored, but no search returns it; a database does not store it.
    progress : callable
        Called after each page.
    skipped : callable
        Called with a sentence for each document or page that cannot be read.
    threads : int, optional
        Threads of everything except the encoder.  Default: all usable cores.
    **options
        ``factor=`` and ``patches=`` of a new index, except for text layers; see
        :class:`muvera.PageIndex`.

    Returns
    -------
    PageIndex

    Raises
    ------
    FileNotFoundError
        If `source` does not exist, or has no PDFs and pictures.
    ValueError
        If `out` is an index of another encoder or folder, or no page can be read, or
        none has a text layer that `encoder` needs.
    """
    place = as_path(source, "source").resolve()
    target = None if isinstance(out, PageIndex) else as_path(out, "out").resolve()
    root, documents = _documents(place)
    model = out.encoder if isinstance(out, PageIndex) else as_page_encoder(encoder)
    reads_text = isinstance(model, TextLayerEncoder)
    if reads_text and options:
        raise ValueError(
            Message(
                f"The encoder {model.name!r} reads text layers, which have no patches. Omit ",
                Argument(next(iter(options)), ""),
                ".",
            )
        )
    index = out if isinstance(out, PageIndex) else None
    if target is not None and is_page_index(target):
        index = PageIndex.load(target, model)
    if index is not None and index.root != root:
        raise ValueError(
            f"{target or index} is an index of {_documents_of(index)}, but these documents are in {root}. Give "
            "another index, or their folder as root."
        )
    counts = {path: _count(path, skipped) for path in documents}
    names = {path: path.relative_to(root).as_posix() for path in documents if counts[path]}
    pages = [(path, number) for path in names for number in range(1, counts[path] + 1)]
    ids = [f"{names[path]}:{number}" for path, number in pages]
    present = set() if index is None else _present(index, ids)
    left = [page for page, id in zip(pages, ids, strict=True) if id not in present]
    in_database = index is not None and isinstance(index.texts, EngineTexts)
    blank = 0
    begun = time.monotonic()
    waiting: list[Page] = []
    total = sum(counts.values())
    done, encoded, num_bytes, saved, duration = total - len(left), 0, 0.0, begun, 0.0
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
            if in_database and page.vectors is None and not page.text.strip():
                total, blank = total - 1, blank + 1
                continue
            waiting.append(page)
            if index is None and (page.vectors is not None or page.text):
                index = PageIndex(_dimension(model, page), model, root=root, **options)  # type: ignore[arg-type]
            num_bytes += (
                _BYTES_OF_CHARACTER * len(page.text)
                if page.vectors is None
                else _BYTES_OF_FLOAT * page.vectors.size
            )
            done, encoded = done + 1, encoded + 1
            now = time.monotonic()
            progress(Progress(done, total, encoded, now - begun, int(num_bytes)))
            if index is None:
                continue
            if now - saved > max(_SAVE_SECONDS, _SAVE_SHARE * duration):
                _save(index, waiting, target, threads)
                saved = time.monotonic()
                duration = saved - now
    finally:
        if index is not None and waiting:
            _save(index, waiting, target, threads)
    if blank:
        skipped(
            f"{counted(blank, 'page')} without a text layer cannot be found, so the database has no record."
        )
    if index is None:
        if waiting:
            raise ValueError(
                Message(
                    f"No page of {place} has a text layer, which the encoder {model.name!r} reads. Give ",
                    Argument("encoder", "'colmodernvbert'"),
                    ", which reads pictures of pages.",
                )
            )
        raise ValueError(f"No page of {place} could be read. Give a folder of PDFs or pictures.")
    return index


def _dimension(model: PageEncoder, page: Page) -> int:
    if isinstance(model, TextLayerEncoder):
        return model.text.codec.dimension
    return int(page.vectors.shape[1])


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
    """Return a page with its vectors, or None if it cannot be read.

    The index encodes the text layer of a page without vectors.
    """
    try:
        if isinstance(encoder, TextLayerEncoder):
            text, size = read_text(path, number)
            return Page(None, name, number, text=text, size=size)
        content = read_page(path, number)
    except (ValueError, OSError) as error:
        skipped(str(error))
        return None
    vectors, grid, special = encoder.encode_page(content.picture)
    return Page(
        vectors, name, number, grid, special, text=content.text, lines=content.lines, size=content.size
    )


def _present(index: PageIndex, ids: list[str]) -> set[int | str]:
    """Return which of `ids` are in an index, and perhaps other ids of it."""
    if not isinstance(index.texts, EngineTexts):
        return set(index.ids)
    return set(index.texts.index.engine.read(ids, "id")) if len(index) else set()


def _save(index: PageIndex, waiting: list[Page], target: Path | None, threads: int | None) -> None:
    index.add(waiting, threads=threads)
    waiting.clear()
    index.save(target)
