"""PageHit: a found page, and where on it the query matched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..reranking.chamfer import chamfer_matrix
from ..utils.checks import require_int
from .page import Line, PageFacts

if TYPE_CHECKING:
    from PIL.Image import Image

# A region is where the map is above this share of the way from its mean to its maximum.
_REGION = 0.5

# Boxes that a saved picture shows.
_SHOWN_BOXES = 3


class Source(NamedTuple):
    """What maps and pictures of a hit are made of."""

    facts: PageFacts
    #: The query's vectors, float32 (tokens, dimension).
    query: NDArray[np.float32]
    #: Words of the query and the vectors of each; empty if they are not known.
    words: list[tuple[str, list[int]]]
    #: Function that returns the page's vectors, patches first.
    read: Any
    #: Folder of the documents with relative names.
    root: Path | None


class PatchMatch(NamedTuple):
    """The best match of a query vector on a page.

    Parameters
    ----------
    word : str
        Its word; "" if the words are not known.
    place : tuple of int, optional
        Row and column of the patch; None for a vector without a place on the page.
    similarity : float
        Inner product of both vectors.
    """

    word: str
    place: tuple[int, int] | None
    similarity: float


@dataclass(frozen=True)
class PageHit:
    """A found page.

    Parameters
    ----------
    id : int or str
        The page's id.
    page : tuple of str and int
        The document's name, and the number of the page in it.
    score : float
        The sum of `parts`; higher is better.
    parts : dict of float
        "maxsim" (Chamfer similarity of the unpooled patches), and "words" if shared
        words count.  With an encoder of text layers, also "mean", as in
        :class:`muvera.texts.hit.Hit`.
    metadata : dict
        The page's own metadata.
    text : str
        The page's text layer; "" if it has none.
    source : Source
        For maps and pictures; made by the search.
    """

    id: int | str
    page: tuple[str, int]
    score: float
    parts: dict[str, float]
    metadata: dict[str, Any]
    text: str
    source: Source = field(repr=False, compare=False)

    @property
    def words(self) -> list[str]:
        """Words of the query that have a map; none if vectors were searched."""
        return [word for word, _ in self.source.words]

    def matches(self) -> list[PatchMatch]:
        """Return the best match of each query vector.

        Returns
        -------
        list of PatchMatch
            In the order of the query's vectors.  The similarities add up to the
            Chamfer similarity of query and page.
        """
        products = _products(self.source.query, self.source.read())
        names = {token: word for word, tokens in self.source.words for token in tokens}
        grid = self.source.facts.grid
        found = []
        for token, best in enumerate(products.argmax(axis=1).tolist()):
            placed = grid is not None and best < grid[0] * grid[1]
            place = divmod(best, grid[1]) if grid is not None and placed else None
            found.append(PatchMatch(names.get(token, ""), place, float(products[token, best])))
        return found

    def token_maps(self) -> NDArray[np.float32]:
        """Return where each query vector matched.

        Returns
        -------
        float32 (tokens, rows, columns)
            Inner product with each patch, minus the token's mean over the page.  The
            mean is high for a token that matches everything.

        Raises
        ------
        ValueError
            If the grid of the page's patches is not known.
        """
        grid = self.source.facts.grid
        if grid is None:
            raise ValueError(
                f"The grid of page {self.page[1]} of {self.page[0]} is not known, so there is no map. Add "
                "the page with grid=(rows, columns)."
            )
        patches = self.source.read()[: grid[0] * grid[1]]
        if len(patches) < grid[0] * grid[1]:
            raise ValueError(
                f"Page {self.page[1]} of {self.page[0]} is damaged: its grid of {grid[0]} x {grid[1]} has "
                f"{len(patches)} patches. Add the page again."
            )
        products = _products(self.source.query, patches)
        products -= products.mean(axis=1, keepdims=True)
        return np.asarray(products.reshape(-1, *grid), np.float32)

    def heatmap(self, word: int | None = None) -> NDArray[np.float32]:
        """Return where the query matched.

        Parameters
        ----------
        word : int, optional
            Position in :attr:`words`: only this word.  Default: the whole query.

        Returns
        -------
        float32 (rows, columns)
            Maximum of :meth:`token_maps` over the tokens of words, or over all tokens
            if the words are not known.

        Raises
        ------
        IndexError
            If there is no such word.
        ValueError
            As for :meth:`token_maps`.
        """
        words = self.source.words
        if word is not None:
            if not words:
                raise IndexError(
                    f"word={word} needs a text query whose words have vectors, but this hit has none. "
                    "Omit word."
                )
            if not 0 <= word < len(words):
                raise IndexError(f"word must be from 0 to {len(words) - 1}, got {word}.")
        return _strongest(self.token_maps(), words, word)

    def heatmaps(self, words: int) -> NDArray[np.float32]:
        """Return :meth:`heatmap` of the query and of its first words.

        Parameters
        ----------
        words : int
            Maximum number of words.

        Returns
        -------
        float32 (1 + words, rows, columns)

        Raises
        ------
        ValueError
            As for :meth:`token_maps`.
        """
        maps = self.token_maps()
        each = [None, *range(min(words, len(self.source.words)))]
        return np.stack([_strongest(maps, self.source.words, word) for word in each])

    def boxes(
        self, n: int = 3, *, points: bool = False, word: int | None = None
    ) -> list[tuple[float, float, float, float, float]]:
        """Return the regions that matched best.

        A region is a group of neighboring patches where the map is above the middle
        between its mean and its maximum.  On a page with text lines, a box is snapped
        to the lines that it covers.

        Parameters
        ----------
        n : int
            Maximum number of boxes.
        points : bool
            True: in PDF points.  False: in parts of the page's width and height.
        word : int, optional
            As for :meth:`heatmap`.

        Returns
        -------
        list of tuple (x0, y0, x1, y1, score)
            Best first, from the upper left corner of the page.  The score is the
            maximum of the map in the region.

        Raises
        ------
        ValueError
            With `points`, if the page's size is not known, and as for
            :meth:`token_maps`.
        """
        require_int("n", n, 1)
        size = (1.0, 1.0)
        if points:
            if self.source.facts.size is None:
                raise ValueError(
                    f"The size of page {self.page[1]} of {self.page[0]} is not known. Omit points, or add "
                    "the page with its size in points."
                )
            size = self.source.facts.size
        return [
            (x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1], score)
            for x0, y0, x1, y1, score in boxes_of(self.heatmap(word), self.source.facts.lines, n)
        ]

    def picture(self, width: int = 1000) -> Image:
        """Return the picture of the page.

        Parameters
        ----------
        width : int
            Width in pixels.

        Returns
        -------
        PIL.Image.Image

        Raises
        ------
        ImportError
            Without the extra ``pages``.
        ValueError, OSError
            If the document is missing or cannot be read.
        """
        from .pictures import read_picture

        return read_picture(self.page[0], self.page[1], self.source.root, width)

    def save(self, path: str | os.PathLike[str], *, word: int | None = None, width: int = 1000) -> None:
        """Write the picture of the page with the map and the best boxes on it.

        Without a grid of patches, write the picture alone.

        Parameters
        ----------
        path : path
            The file to write; its ending names the format, such as ``"hit.png"``.
        word : int, optional
            As for :meth:`heatmap`.
        width : int
            Width in pixels.

        Raises
        ------
        ImportError, ValueError, OSError
            As for :meth:`picture` and :meth:`heatmap`.
        """
        from .pictures import draw_map

        if self.source.facts.grid is None and word is None:
            self.picture(width).save(Path(path))
            return
        boxes = [box[:4] for box in self.boxes(_SHOWN_BOXES, word=word)]
        draw_map(self.picture(width), self.heatmap(word), boxes).save(Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as values for JSON, without maps.

        Returns
        -------
        dict
        """
        return {
            "id": self.id, "document": self.page[0], "page": self.page[1], "score": self.score,
            "parts": self.parts, "metadata": self.metadata,
        }  # fmt: skip


def boxes_of(
    heat: NDArray[np.float32], lines: Sequence[Line], n: int
) -> list[tuple[float, float, float, float, float]]:
    """Return the best regions of a map in parts of the page, best first."""
    from scipy.ndimage import find_objects, label

    level = heat.mean() + _REGION * (heat.max() - heat.mean())
    regions, _ = label(heat >= level, np.ones((3, 3)))
    found = []
    for number, (rows, columns) in enumerate(find_objects(regions), 1):
        score = float(heat[rows, columns][regions[rows, columns] == number].max())
        box = (
            columns.start / heat.shape[1], rows.start / heat.shape[0],
            columns.stop / heat.shape[1], rows.stop / heat.shape[0],
        )  # fmt: skip
        found.append((score, _snapped(box, lines)))
    return [(*box, score) for score, box in sorted(found, key=lambda pair: -pair[0])[:n]]


def _products(query: NDArray[np.float32], patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inner product of each query vector with each patch.

    Its bits are the same on every processor, unlike those of a BLAS product.
    """
    alone = [MultiVectors.from_flat(vectors, np.ones(len(vectors), np.int64)) for vectors in (query, patches)]
    return chamfer_matrix(*alone, threads=1)


def _strongest(
    maps: NDArray[np.float32], words: list[tuple[str, list[int]]], word: int | None
) -> NDArray[np.float32]:
    """Return the maximum of the maps of a word's tokens, or of all words' tokens."""
    each = words if word is None else words[word : word + 1]
    chosen = [token for _, tokens in each for token in tokens] or list(range(len(maps)))
    best: NDArray[np.float32] = maps[chosen].max(axis=0)
    return best


def _snapped(box: Line, lines: Sequence[Line]) -> Line:
    """Return a box with the upper and the lower edge of the text lines in it."""
    x0, y0, x1, y1 = box
    inside = [line for line in lines if line[0] < x1 and line[2] > x0 and y0 <= (line[1] + line[3]) / 2 <= y1]
    if not inside:
        return box
    left, upper, right, lower = np.array(inside).T
    return (
        max(x0, float(left.min())), float(upper.min()), min(x1, float(right.max())), float(lower.max()),
    )  # fmt: skip
