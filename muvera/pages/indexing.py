"""Index the pages of a folder of PDFs and pictures; resume after an interruption."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..metadata import is_utf8
from ..texts.encoders.base import TableEncoder
from ..texts.encoders.pages import PageEncoder, TextLayerEncoder
from ..texts.encoders.registry import as_page_encoder
from ..texts.engine_texts import EngineTexts
from ..utils.checks import as_path, counted
from ..utils.hints import Argument, Message
from .folder import is_page_index
from .page import DOCUMENT, Page, own_metadata
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

# Names of documents in one condition, which databases limit.
_NAMES = 500

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
    update: bool = False,
    progress: Callable[[Progress], object] = lambda state: None,
    skipped: Callable[[str], object] = lambda reason: None,
    threads: int | None = None,
    **options: float | str,
) -> PageIndex:
    """Index the pages of a folder, or of one document; continue an earlier index.

    The index is saved every ten seconds, less often if a save takes long, and when an
    exception or Ctrl-C ends the call.

    Parameters
    ----------
    source : path
        A PDF, a picture, or a folder of them and of folders; for an index that exists,
        in the folder of its documents.
    out : path or PageIndex
        The folder of the index: a new one, or a page index of the same encoder.  Or a
        page index, such as one that is open in a database.
    encoder : PageEncoder, TableEncoder or str
        The model, or its name; a given index uses its encoder.  Default: "static",
        which needs no model: it encodes the text layers of PDFs.  A page without a text
        layer is stored, but no search returns it; a database does not store it.
    update : bool
        Encode pages that are in `out` again, too, and replace them; metadata that was
        added to them stays.  At the end, delete pages that a document no longer has.
        Default: pages in `out` are not encoded again, also if their document changed.
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
    documents = _documents(place)
    model = out.encoder if isinstance(out, PageIndex) else as_page_encoder(encoder)
    if isinstance(model, TextLayerEncoder) and options:
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
    root = _root(place, index, target)
    sources = _sources(documents, root, skipped)
    present = set() if index is None or update else _present(index, [each.id for each in sources])
    left = [each for each in sources if each.id not in present]
    writer = _Writer(index, target, model, root, options, update, threads)
    blank, num_bytes, encoded, begun = set[str](), 0.0, 0, time.monotonic()
    done, total = len(sources) - len(left), len(sources)
    try:
        for page in _read(left, model, skipped):
            if page is None:
                total -= 1
                continue
            if not writer.stores(page):
                total -= 1
                blank.add(_id_of(page))
                continue
            writer.put(page)
            done, encoded, num_bytes = done + 1, encoded + 1, num_bytes + _bytes_on_disk(page)
            progress(Progress(done, total, encoded, time.monotonic() - begun, int(num_bytes)))
            writer.save_if_due()
    finally:
        writer.save()
    if update and writer.index is not None:
        _delete_gone(writer.index, sources, blank)
        writer.index.save(target)
    if blank:
        skipped(
            f"{counted(len(blank), 'page')} without a text layer cannot be found, so the database has no record."
        )
    if writer.index is None:
        raise _nothing_found(place, model, writer.waiting)
    return writer.index


def _root(place: Path, index: PageIndex | None, target: Path | None) -> Path:
    """Return the folder that documents are named by; refuse that of another index."""
    folder = place.parent if place.is_file() else place
    if index is None:
        return folder
    if index.root is None or index.root not in (folder, *folder.parents):
        raise ValueError(
            f"{target or 'This'} is an index of {_documents_of(index)}, but these documents are in {folder}. Give "
            "documents of its folder, or another index; if the folder was moved, give its new path as root."
        )
    return index.root


def _nothing_found(place: Path, model: PageEncoder, pages: Sequence[Page]) -> ValueError:
    """Return the error for documents of which no page can be found."""
    if not pages:
        return ValueError(f"No page of {place} could be read. Give a folder of PDFs or pictures.")
    return ValueError(
        Message(
            f"No page of {place} has a text layer, which the encoder {model.name!r} reads. Give ",
            Argument("encoder", "'colmodernvbert'"),
            ", which reads pictures of pages.",
        )
    )


class _Source(NamedTuple):
    """Where a page comes from: number `number` of the `length` pages of `path`."""

    path: Path
    number: int
    length: int
    #: The path as the index names it.
    name: str

    @property
    def id(self) -> str:
        return f"{self.name}:{self.number}"


def _sources(documents: list[Path], root: Path, skipped: Callable[[str], object]) -> list[_Source]:
    sources = []
    for path in documents:
        count = _count(path, skipped)
        if count:
            name = path.relative_to(root).as_posix()
            sources += [_Source(path, number, count, name) for number in range(1, count + 1)]
    return sources


def _read(
    sources: list[_Source], encoder: PageEncoder, skipped: Callable[[str], object]
) -> Iterator[Page | None]:
    """Yield each page with its vectors, or None if it cannot be read or is skipped."""
    failed, failures = None, 0
    for source in sources:
        if source.path != failed:
            failed, failures = source.path, 0
        if failures == _UNREADABLE:  # a sentence has named it
            yield None
            continue
        page = _encoded(source, encoder, skipped)
        failures = failures + 1 if page is None else 0
        if failures == _UNREADABLE and source.number < source.length:
            skipped(
                f"The pages of {source.path} after page {source.number} are skipped, because {_UNREADABLE} "
                "pages in a row could not be read."
            )
        yield page


class _Writer:
    """Writes pages to an index, which the first page that can be found creates."""

    def __init__(
        self,
        index: PageIndex | None,
        target: Path | None,
        model: PageEncoder,
        root: Path,
        options: dict[str, Any],
        update: bool,
        threads: int | None,
    ) -> None:
        self.index, self.waiting = index, list[Page]()
        self._target, self._model, self._root = target, model, root
        self._options, self._update, self._threads = options, update, threads
        self._in_database = index is not None and isinstance(index.texts, EngineTexts)
        self._saved, self._duration = time.monotonic(), 0.0

    def stores(self, page: Page) -> bool:
        """Return False for a page that no search finds and a database cannot store."""
        if not self._in_database or not isinstance(self._model, TextLayerEncoder):
            return True
        return bool(page.text.strip()) and any(map(len, self._model.text.document_rows([page.text])))

    def put(self, page: Page) -> None:
        self.waiting.append(page)
        if self.index is None and (page.vectors is not None or page.text):
            dimension = _dimension(self._model, page)
            self.index = PageIndex(dimension, self._model, root=self._root, **self._options)

    def save_if_due(self) -> None:
        begun = time.monotonic()
        due = begun - self._saved > max(_SAVE_SECONDS, _SAVE_SHARE * self._duration)
        if due and self.index is not None:
            self.save()
            self._saved = time.monotonic()
            self._duration = self._saved - begun

    def save(self) -> None:
        if self.index is not None and self.waiting:
            if self._update:
                stored = self.index.get(map(_id_of, self.waiting), missing="ignore")
                metadata = {page.id: own_metadata(page.metadata) for page in stored}
                pages = [replace(page, metadata=metadata.get(_id_of(page), {})) for page in self.waiting]
                self.index.update(pages, threads=self._threads)
            else:
                self.index.add(self.waiting, threads=self._threads)
            self.waiting.clear()
            self.index.save(self._target)


def _delete_gone(index: PageIndex, sources: list[_Source], blank: Set[str]) -> None:
    """Delete pages after the end of their document, and those that are `blank` now."""
    lengths = {source.name: source.length for source in sources}
    names = list(lengths)
    gone = [page.id for page in index.get(sorted(blank), missing="ignore")]
    for start in range(0, len(names), _NAMES):
        for id in index.select({DOCUMENT: {"$in": names[start : start + _NAMES]}}):
            name, _, number = str(id).rpartition(":")
            if number.isdecimal() and int(number) > lengths.get(name, _MOST_PAGES):
                gone.append(id)
    index.delete(gone, missing="ignore")  # another program may have deleted some


def _id_of(page: Page) -> str:
    return f"{page.document}:{page.number}"


def _bytes_on_disk(page: Page) -> float:
    """Return about how many bytes a page takes in an index."""
    if page.vectors is None:
        return _BYTES_OF_CHARACTER * len(page.text)
    return _BYTES_OF_FLOAT * int(page.vectors.size)


def _dimension(model: PageEncoder, page: Page) -> int:
    if isinstance(model, TextLayerEncoder):
        return model.text.codec.dimension
    return int(page.vectors.shape[1])


def _documents_of(index: PageIndex) -> str:
    return "page vectors without documents" if index.root is None else f"the documents in {index.root}"


def _documents(place: Path) -> list[Path]:
    """Return the paths of the documents in order."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise FileNotFoundError(f"{place} does not exist. Give a PDF, a picture, or a folder of them.")
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise FileNotFoundError(
            f"{place} has no PDFs and no pictures ({', '.join(ENDINGS)}). Give another folder."
        )
    return found


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


def _encoded(source: _Source, encoder: PageEncoder, skipped: Callable[[str], object]) -> Page | None:
    """Return a page with its vectors, or None if it cannot be read.

    The index encodes the text layer of a page without vectors.
    """
    path, number, name = source.path, source.number, source.name
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
