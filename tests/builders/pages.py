"""Pages of random vectors, and a model that encodes pictures without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.pages.encoders import EncodedPage

DIMENSION = 16
GRID = (6, 4)


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def page_vectors(count: int, special: int = 2, seed: int = 0) -> NDArray[np.float32]:
    """Return the vectors of pages: patches of GRID, and then special ones."""
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(count, GRID[0] * GRID[1] + special, DIMENSION)))


class GreyEncoder:
    """Encodes the grey level of each patch as an angle, and a word by its length.

    A word of n letters matches the patches of grey level n / 10.
    """

    name = "grey"

    def __init__(self, dimension: int = DIMENSION) -> None:
        self.encoded = 0
        self._dimension = dimension

    def encode_page(self, picture: Any) -> EncodedPage:
        self.encoded += 1
        return EncodedPage(grey_vectors(picture, GRID, self._dimension), GRID, 0)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        lengths = [[len(word) / 10 for word in text.split()] or [0.0] for text in texts]
        return MultiVectors.from_arrays([_angles(np.array(own), self._dimension) for own in lengths])

    def query_spans(self, text: str) -> list[tuple[int, int]] | None:
        spans, start = [], 0
        for word in text.split():
            start = text.index(word, start)
            spans.append((start, start + len(word)))
            start += len(word)
        return spans or [(0, 0)]


def grey_vectors(picture: Any, grid: tuple[int, int], dimension: int = DIMENSION) -> NDArray[np.float32]:
    small = picture.convert("L").resize(grid[::-1])
    return _angles(np.asarray(small, np.float32).reshape(-1) / 255, dimension)


def _angles(levels: NDArray[Any], dimension: int) -> NDArray[np.float32]:
    rows = np.zeros((len(levels), dimension), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(np.pi / 2 * levels), np.sin(np.pi / 2 * levels)
    return rows


def write_pdf(path: Path, pages: Sequence[str], size: tuple[int, int] = (400, 600)) -> Path:
    """Write a PDF whose pages have the lines of a text, from the top, and a black box.

    A page without text has only the box, in its lower right quarter.
    """
    bodies = []
    for text in pages:
        lines = [
            f"BT /F1 20 Tf 40 {size[1] - 60 - 40 * i} Td ({line}) Tj ET"
            for i, line in enumerate(text.splitlines())
        ]
        box = f"0 g {size[0] // 2} 0 {size[0] // 2} {size[1] // 2} re f"
        bodies.append("\n".join([*lines, box]).encode())
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, body in enumerate(bodies):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(body), body))
    content, offsets = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    content += b"xref\n0 %d\n0000000000 65535 f \n%b" % (len(objects) + 1, table)
    content += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n" % (len(objects) + 1)
    content += b"%d\n%%%%EOF\n" % content.rindex(b"xref\n0")
    path.write_bytes(content)
    return path
