"""Pictures, text and size of the pages of PDFs and picture files.

PDFium is not thread-safe, so one thread at a time uses it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..utils.checks import import_extra
from .page import Line

if TYPE_CHECKING:
    from PIL.Image import Image
    from pypdfium2 import PdfPage, PdfTextPage

#: Endings of the files that have pages.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
ENDINGS = (".pdf", *PICTURES)

#: Pixels of the longer side of a page for its encoder.  No encoder here reads more.
ENCODED_PIXELS = 2048

# Longest side of a picture that is drawn, in pixels: a page can be a mile long.
_MAX_PIXELS = 8192

# Pixels of a picture file that are decoded, in up to 8 bytes each: more than an A3 page
# at 600 dpi has.  A file of 22 kB can have 170 million.
_MAX_DECODED = 80_000_000

# A text run continues the line if it is this near, in heights of the line.
_GAP = 2.0

# PDFium maps points to whole numbers; a page has this many of them on each side.
_STEPS = 10_000

# The color of a map, and its opacity at the maximum.
_COLOR = (255, 120, 0)
_OPACITY = 0.65

_PDFIUM = RLock()


class PageContent(NamedTuple):
    """What a document says about one of its pages."""

    picture: Image
    text: str = ""
    lines: Sequence[Line] = ()
    size: tuple[float, float] | None = None


def locate(document: str, root: Path | None) -> Path:
    """Return the path of a document; relative names are in `root`."""
    path = Path(document)
    return path if path.is_absolute() or root is None else root / path


def count_pages(path: Path) -> int:
    """Return the number of pages of a PDF or of pictures in a file.

    Raise ValueError or OSError, with a sentence that names the file, if it cannot be
    read.
    """
    if path.suffix.lower() == ".pdf":
        with _opened_pdf(path) as pdf:
            return len(pdf)
    with _opened_picture(path) as picture:
        return int(getattr(picture, "n_frames", 1))


def read_page(path: Path, number: int) -> PageContent:
    """Return the picture, the words and the text lines of a page; `number` begins at 1.

    `path` is a PDF or a file of pictures.  It raises the errors of :func:`count_pages`.
    """
    if path.suffix.lower() != ".pdf":
        return PageContent(read_picture(str(path), number, None, ENCODED_PIXELS))
    with _opened_pdf(path) as pdf, _readable(path, number):
        page = pdf[_require_page(path, number, len(pdf))]
        width, height = page.get_size()
        picture = _drawn(page, ENCODED_PIXELS / max(width, height))
        layer = page.get_textpage()
        return PageContent(picture, _text(layer), _lines(page, layer), (width, height))


def read_text(path: Path, number: int) -> tuple[str, tuple[float, float] | None]:
    """Return the text layer of a page, and its size in points; a picture has neither.

    `number` begins at 1.  It raises the errors of :func:`count_pages`.
    """
    if path.suffix.lower() != ".pdf":
        return "", None
    with _opened_pdf(path) as pdf, _readable(path, number):
        page = pdf[_require_page(path, number, len(pdf))]
        return _text(page.get_textpage()), page.get_size()


def _text(layer: Any) -> str:
    text: str = layer.get_text_range(errors="ignore")
    return text.replace("\r\n", "\n").strip()


def read_picture(document: str, number: int, root: Path | None, width: int) -> Image:
    """Return the picture of a page; `number` begins at 1.

    `document` is the path of a PDF or of a file of pictures, and `root` the folder of
    relative paths.  `width` is in pixels; a picture file is only made smaller.  It
    raises the errors of :func:`count_pages`.
    """
    path = locate(document, root)
    if path.suffix.lower() == ".pdf":
        with _opened_pdf(path) as pdf, _readable(path, number):
            page = pdf[_require_page(path, number, len(pdf))]
            return _drawn(page, width / page.get_size()[0])
    with _opened_picture(path) as picture, _readable(path, number):
        picture.seek(_require_page(path, number, getattr(picture, "n_frames", 1)))
        height = max(1, round(picture.height * width / picture.width))
        limit = min(width, _MAX_PIXELS), min(height, _MAX_PIXELS)
        picture.draft(
            "RGB", (2 * limit[0], 2 * limit[1])
        )  # a JPEG is decoded at a half, a quarter or an eighth
        if picture.width * picture.height > _MAX_DECODED:
            raise ValueError(
                f"Page {number} of {path} has {picture.width:,} x {picture.height:,} pixels, but at most "
                f"{_MAX_DECODED:,} are read. Make the picture smaller, or save it as JPEG."
            )
        shown = picture.convert("RGB")
        shown.thumbnail(limit)
        result: Image = shown
        return result


def draw_map(picture: Image, heat: NDArray[np.float32], boxes: Sequence[Line] = ()) -> Image:
    """Return a picture with a map and boxes on it.

    `heat`, float32 (rows, columns), is shown from its mean, which is transparent, to
    its maximum.  `boxes` are edges in fractions of the picture's width and height.
    """
    image = import_extra("PIL.Image", "pages", "A picture")
    draw = import_extra("PIL.ImageDraw", "pages", "A picture")
    mask = image.fromarray(shades(heat)).resize(picture.size, image.Resampling.BICUBIC)
    shown = image.composite(image.new("RGB", picture.size, _COLOR), picture.convert("RGB"), mask)
    pen = draw.Draw(shown)
    thickness = max(2, picture.width // 300)
    for x0, y0, x1, y1 in boxes:
        edges = (x0 * picture.width, y0 * picture.height, x1 * picture.width - 1, y1 * picture.height - 1)
        pen.rectangle(edges, outline=_COLOR, width=thickness)
    result: Image = shown
    return result


def shades(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the opacity of each cell of a map, uint8 (rows, columns)."""
    above = np.maximum(heat - heat.mean(), 0)
    return np.asarray(255 * _OPACITY * above / max(float(above.max()), 1e-9), np.uint8)


def _drawn(page: PdfPage, scale: float) -> Image:
    longest = max(page.get_size()) * scale
    picture: Image = page.render(scale=scale * min(1.0, _MAX_PIXELS / longest)).to_pil().convert("RGB")
    return picture


@contextmanager
def _opened_pdf(path: Path) -> Iterator[Any]:
    """Open a PDF while no other thread uses PDFium."""
    library = import_extra("pypdfium2", "pages", "Reading a PDF")
    import_extra("PIL", "pages", "A picture")
    _require_file(path)
    with _PDFIUM:
        try:
            pdf = library.PdfDocument(path)
        except library.PdfiumError as error:
            raise ValueError(f"{path} is not a PDF that can be read: {error}") from error
        try:
            yield pdf
        finally:
            pdf.close()


@contextmanager
def _opened_picture(path: Path) -> Iterator[Any]:
    image = import_extra("PIL.Image", "pages", "A picture")
    _require_file(path)
    bombs = image.DecompressionBombError, image.DecompressionBombWarning  # if warnings are errors
    try:
        picture = image.open(path)
    except (OSError, ValueError, *bombs) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    with picture:
        yield picture


@contextmanager
def _readable(path: Path, number: int) -> Iterator[None]:
    """Name the page in any error of a library that reads a damaged file."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"Page {number} of {path} cannot be read: {error}") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Put the document back, or give its folder as root.")


def _require_page(path: Path, number: int, count: int) -> int:
    """Return the position of a page."""
    if not 1 <= number <= count:
        raise ValueError(f"{path} has no page {number}: it has {count}.")
    return number - 1


def _lines(page: PdfPage, layer: PdfTextPage) -> list[Line]:
    """Return the edges of text lines, in parts of the page.

    PDFium finds runs of one font; runs on the same height that are near each other
    become one line.
    """
    lines: list[list[float]] = []
    for number in range(layer.count_rects()):
        left, bottom, right, top = layer.get_rect(number)
        edges = [*_device(page, left, top), *_device(page, right, bottom)]
        x0, x1 = sorted(edges[::2])
        y0, y1 = sorted(edges[1::2])
        for line in reversed(lines[-1:]):
            overlap = min(y1, line[3]) - max(y0, line[1])
            near = _GAP * (line[3] - line[1])
            if 2 * overlap > min(y1 - y0, line[3] - line[1]) and x0 < line[2] + near and x1 > line[0] - near:
                line[:] = [min(x0, line[0]), min(y0, line[1]), max(x1, line[2]), max(y1, line[3])]
                break
        else:
            lines.append([x0, y0, x1, y1])
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in lines]


def _device(page: PdfPage, x: float, y: float) -> tuple[float, float]:
    """Return a point in parts of the page as it is shown, also if it is rotated."""
    raw = import_extra("pypdfium2.raw", "pages", "Reading a PDF")
    right, down = ctypes.c_int(), ctypes.c_int()
    raw.FPDF_PageToDevice(page, 0, 0, _STEPS, _STEPS, 0, x, y, ctypes.byref(right), ctypes.byref(down))
    return right.value / _STEPS, down.value / _STEPS
