"""Page: the patch vectors of one page, where they are on it, and its text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..convert.transforms import PoolingRule, pool_tokens
from ..data.multivectors import MultiVectors, checked_text
from ..metadata import is_utf8
from ..utils.checks import counted, require_int

#: Left, upper, right and lower edge, in parts of the page's width and height.
Line = tuple[float, float, float, float]

#: Rows and columns of patches: one pair for each page, or one for all.
Grids = Sequence[tuple[int, int] | None] | tuple[int, int]

#: Vectors of no place: a number, or (before, after), for each page or for all pages.
Special = int | Sequence[int | tuple[int, int]]

#: Fields of a page in the metadata of the database.
DOCUMENT, NUMBER, FACTS = "document", "number", "_page"

# Ward clusters of the patches; the means are scaled to length 1 again.
_RULE = PoolingRule(protected=0, renormalize=True)

# Decimals of the edges of a text line: a thousandth of a page is less than a point.
_DECIMALS = 4


@dataclass(frozen=True)
class Page:
    """One page: its vectors, and what is known about it.

    Parameters
    ----------
    vectors : array_like (tokens, dimension), or None
        Vectors of length 1, as ColPali and similar models return.  None: the encoder of
        the index encodes `text`.
    document : str
        Name of the document, such as the path of a PDF or of a picture.
    number : int
        The page in the document, from 1 on.
    grid : tuple of int, optional
        Rows and columns of the patches.  Their vectors follow each other in reading
        order.  Without it, there are no heat maps.
    special : int or tuple of int, optional
        Number of vectors after the patches that belong to no place, such as the vectors
        of a prompt; or the numbers before and after.  They are not pooled.  Default:
        all vectors after the grid; none without a grid.
    text : str
        The words of the page, for the ranking by words.
    lines : sequence of tuple of float
        Edges (x0, y0, x1, y1) of the text lines, in parts of the page from its upper
        left corner.  Boxes are snapped to them.
    size : tuple of float, optional
        Width and height in PDF points.
    metadata : mapping
        For filters.
    id : int or str, optional
        Default: ``"document:number"``.

    Raises
    ------
    TypeError, ValueError
        If the vectors are not token vectors, or `grid` and `special` do not fit them.
    """

    vectors: Any
    document: str
    number: int = 1
    grid: tuple[int, int] | None = None
    special: int | tuple[int, int] | None = None
    text: str = ""
    lines: Sequence[Line] = ()
    size: tuple[float, float] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: int | str | None = None

    def __post_init__(self) -> None:
        texts = None if self.vectors is None else checked_text(self.vectors, "vectors")
        name = f"page {self.number} of {self.document}"
        require_int("number", self.number, 1)
        if texts is not None and not texts.num_tokens:
            raise ValueError(f"{name} has no vectors. Leave it out.")
        if texts is None and (self.grid is not None or self.special):
            raise ValueError(f"{name} has a grid or special vectors, but no vectors. Give them.")
        if self.grid is not None and np.shape(self.grid) != (2,):
            raise TypeError(f"The grid of {name} must be (rows, columns), got {self.grid!r}.")
        require_own_fields(self.metadata, name)
        _require_facts(name, self.size, self.lines)
        for field_name, value in (("document", self.document), ("text", self.text), ("id", self.id)):
            if isinstance(value, str) and not is_utf8(value):
                raise ValueError(f"The {field_name} of {name!a} has a lone surrogate. Decode it again.")
        if texts is None:
            object.__setattr__(self, "special", 0)
        else:
            self._order(texts, name)
        if self.id is None:
            object.__setattr__(self, "id", f"{self.document}:{self.number}")

    def _order(self, texts: MultiVectors, name: str) -> None:
        """Put the patches first, and count the other vectors."""
        count = texts.num_tokens
        patches = self._patches(count, name)
        before = self.special[0] if isinstance(self.special, tuple) else 0
        tokens = np.asarray(texts.tokens, np.float32)
        end = before + patches
        ordered = np.concatenate([tokens[before:end], tokens[:before], tokens[end:]]) if before else tokens
        object.__setattr__(self, "vectors", ordered)
        object.__setattr__(self, "special", count - patches)
        if self.grid is not None:
            object.__setattr__(self, "grid", (int(self.grid[0]), int(self.grid[1])))

    def _patches(self, count: int, name: str) -> int:
        """Return the number of patches, if the grid and the special vectors add up."""
        given = self.special
        parts = () if given is None else given if isinstance(given, tuple) else (given,)
        if isinstance(given, tuple) and len(given) != 2:
            raise ValueError(f"The special vectors of {name} must be (before, after), got {given!r}.")
        special = None if given is None else sum(require_int("special", part, 0) for part in parts)
        if self.grid is None:
            patches = count - (special or 0)
            fits = patches > 0
        else:
            patches = require_int("grid", self.grid[0], 1) * require_int("grid", self.grid[1], 1)
            fits = patches <= count if special is None else patches + special == count
        if not fits:
            place = "no grid" if self.grid is None else f"a grid of {self.grid[0]} x {self.grid[1]}"
            raise ValueError(
                f"{name} has {count} vectors, {place} and special={given}, which must add up. Give the rows "
                "and columns of its patches, and the number of its other vectors."
            )
        return patches

    def pooled(self, factor: float) -> NDArray[np.float32]:
        """Return the means of similar patches, and then the special vectors.

        Parameters
        ----------
        factor : float
            Patches for each mean.

        Returns
        -------
        float32 (n, dimension)
        """
        return pool_page(self.vectors, _count(self.special), factor)

    def stored_metadata(self) -> dict[str, Any]:
        """Return the metadata of the database, with the facts of :class:`PageFacts`.

        Returns
        -------
        dict
        """
        grid = [0, 0] if self.grid is None else list(self.grid)
        lines = [[round(float(edge), _DECIMALS) for edge in line] for line in self.lines]
        # Lists in a list cannot be compared, so the database makes no index of them.
        facts = [[_count(self.special), *grid], list(map(float, self.size or ())), *lines]
        return {**self.metadata, DOCUMENT: self.document, NUMBER: self.number, FACTS: facts}


def pool_page(vectors: NDArray[np.float32], special: int, factor: float) -> NDArray[np.float32]:
    """Return the means of similar patches, and then the last `special` vectors."""
    patches = len(vectors) - special
    placed = MultiVectors.from_arrays([vectors[:patches]])
    return np.concatenate([pool_tokens(placed, factor, _RULE)[0], vectors[patches:]])


class PageFacts(NamedTuple):
    """What is known about a page besides its vectors and its text."""

    document: str
    number: int
    special: int
    grid: tuple[int, int] | None
    size: tuple[float, float] | None
    lines: list[Line]

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> PageFacts:
        """Return the facts in the metadata of :meth:`Page.stored_metadata`.

        Raise ValueError if they are damaged, in words that follow "page 'a.pdf:1'".
        """
        try:
            (special, rows, columns), size, *lines = metadata[FACTS]
            number = metadata[NUMBER]
            for value in (special, rows, columns, number):
                require_int("a number", value, 0)
            _require_facts("the page", size or None, lines)
            document = metadata[DOCUMENT]
            if not isinstance(document, str):
                raise TypeError("the name of its document is not a string")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"has damaged facts ({error})") from error
        return cls(
            document, number, special,
            (rows, columns) if rows else None, (size[0], size[1]) if size else None,
            [(line[0], line[1], line[2], line[3]) for line in lines],
        )  # fmt: skip

    def require_vectors(self, count: int) -> None:
        """Raise ValueError if a page with these facts cannot have `count` vectors."""
        placed = 0 if self.grid is None else self.grid[0] * self.grid[1]
        fits = placed + self.special == count if self.grid else self.special < count
        if not fits:
            grid = "no grid" if self.grid is None else f"a grid of {self.grid[0]} x {self.grid[1]}"
            raise ValueError(f"has {count} vectors, {grid} and {self.special} other vectors")


def _require_facts(name: str, size: Any, lines: Iterable[object]) -> None:
    """Raise ValueError if `size` is not a pair, or a line lacks four finite edges."""
    if size is not None and not (_are_finite(size, 2) and min(size) > 0):
        raise ValueError(f"The size of {name} must be (width, height) in points, got {size!r:.80}.")
    for line in lines:
        if not _are_finite(line, 4):
            raise ValueError(f"A text line of {name} must be four edges (x0, y0, x1, y1), got {line!r:.80}.")


def _are_finite(values: object, count: int) -> bool:
    if not isinstance(values, (tuple, list, np.ndarray)) or len(values) != count:
        return False
    return all(
        isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value) for value in values
    )


def require_own_fields(metadata: Mapping[str, Any], name: str = "a page") -> None:
    """Raise ValueError if metadata has a field that describes the page."""
    for reserved in (DOCUMENT, NUMBER, FACTS):
        if reserved in metadata:
            raise ValueError(f"The metadata of {name} may not have the field {reserved!r}. Rename it.")


def visible_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored metadata with the fields that conditions can have."""
    return {name: value for name, value in metadata.items() if name != FACTS}


def own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored metadata without the fields that :class:`PageFacts` reads."""
    return {name: value for name, value in metadata.items() if name not in (DOCUMENT, NUMBER, FACTS)}


def of_each(name: str, values: Any, count: int, default: object = None) -> list[Any]:
    """Return one value for each page; `default` if no values are given.

    A number, or one pair of rows and columns, counts for all pages.  `name` is the
    argument's name in messages.
    """
    if values is None:
        return [default] * count
    if isinstance(values, (int, np.integer)):
        return [int(values)] * count
    each = list(values)
    if name == "pages" and any(np.shape(value) != (2,) for value in each):
        raise TypeError("pages must have a pair (document, number) for each page, such as ('report.pdf', 1).")
    if name == "grids" and len(each) == 2 and all(isinstance(value, (int, np.integer)) for value in each):
        return [tuple(each)] * count
    if len(each) != count:
        raise ValueError(
            f"{name} has {counted(len(each), 'entry', 'entries')} for {counted(count, 'page')}. Give one "
            "per page."
        )
    return each


def _count(special: object) -> int:
    assert isinstance(special, int)  # the constructor adds a pair up
    return special
