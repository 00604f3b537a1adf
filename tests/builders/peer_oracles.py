"""What three MUVERA programs compute, in slow float64 loops, given their hyperplanes and projections.

Independent of the package: nothing of `muvera` is imported.  Hyperplanes are (R, k, d); projections are
(R, p, d) with their scale inside, or None for the identity.  All three programs agree on this much:

* a bit is set when the dot product is strictly above zero, so a token on a hyperplane has bit 0;
* an FDE runs through repetitions, then cells, then coordinates;
* a query cell is a sum and is never filled, a document cell a mean;
* an empty document cell takes a token (not a cell's mean) whose bits differ least from the cell's.

They differ in the number of a cell, in which of several nearest tokens fills, in the projection's scale and
in what an empty document does.
"""

from collections.abc import Callable

import numpy as np

#: Targets and signs of every input coordinate, and the output's length.
Sketch = tuple[np.ndarray, np.ndarray, int]
Chooser = Callable[[list[int], list[list[int]], list[int]], int]


def reference_query(
    tokens: np.ndarray,
    hyperplanes: np.ndarray,
    projections: np.ndarray | None,
    final: Sketch | None = None,
) -> np.ndarray:
    """C++ reference: cell numbers in Gray code, an optional final count sketch."""
    return _finish(_query(tokens, hyperplanes, projections, gray_cell), final)


def reference_document(
    tokens: np.ndarray,
    hyperplanes: np.ndarray,
    projections: np.ndarray | None,
    *,
    fill: bool,
    final: Sketch | None = None,
) -> np.ndarray:
    """C++ reference: the lowest token index wins a tie; without fill, empty cells are zero.

    An empty document reads out of bounds with fill, which no oracle can say; without it, it gives zeros
    for k > 0 and NaN for k = 0, where the mean of the only cell is taken unasked.
    """
    k, d = hyperplanes.shape[1:]
    if not len(tokens):
        if fill and k:
            raise ValueError("the reference reads out of bounds here")
        width = d if projections is None else projections.shape[1]
        empty = np.full(len(hyperplanes) * 2**k * width, 0.0 if k else np.nan)
        return _finish(empty, final)
    chooser = first_nearest_token if fill else None
    return _finish(_document(tokens, hyperplanes, projections, gray_cell, gray_bits, chooser), final)


def fastembed_query(
    tokens: np.ndarray, hyperplanes: np.ndarray, projections: np.ndarray | None
) -> np.ndarray:
    """fastembed: first hyperplane in the lowest bit; an empty query is an error."""
    if not len(tokens):
        raise ValueError("fastembed refuses an empty query")
    return _query(tokens, hyperplanes, projections, binary_cell)


def fastembed_document(
    tokens: np.ndarray, hyperplanes: np.ndarray, projections: np.ndarray | None
) -> np.ndarray:
    """fastembed: of the nearest occupied cells the lowest number wins, and its first token fills."""
    if not len(tokens):
        raise ValueError("fastembed refuses an empty document")
    return _document(tokens, hyperplanes, projections, binary_cell, binary_bits, first_token_of_lowest_cell)


def weaviate_query(tokens: np.ndarray, hyperplanes: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """Weaviate: first hyperplane in the lowest bit; an empty query is an error."""
    if not len(tokens):
        raise ValueError("Weaviate refuses an empty query")
    return _query(tokens, hyperplanes, projections, binary_cell)


def weaviate_document(tokens: np.ndarray, hyperplanes: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """Weaviate: the lowest token index wins a tie, whatever its cell.

    Not modelled: it counts a cell's tokens in 16 bits, so 65,536 tokens in one cell count as none.
    """
    if not len(tokens):
        raise ValueError("Weaviate refuses an empty document")
    return _document(tokens, hyperplanes, projections, binary_cell, binary_bits, first_nearest_token)


# Cells


def gray_cell(bits: list[int]) -> int:
    """Number whose Gray code, high bit first, is `bits`."""
    number = 0
    for bit in bits:
        number = 2 * number + (bit ^ (number & 1))
    return number


def gray_bits(cell: int, k: int) -> list[int]:
    """Inverse of `gray_cell`."""
    code = cell ^ (cell >> 1)
    return [(code >> (k - 1 - i)) & 1 for i in range(k)]


def binary_cell(bits: list[int]) -> int:
    """Number whose binary digits, low bit first, are `bits`."""
    return sum(bit << i for i, bit in enumerate(bits))


def binary_bits(cell: int, k: int) -> list[int]:
    """Inverse of `binary_cell`."""
    return [(cell >> i) & 1 for i in range(k)]


# Tie rules: which token fills a cell, given the cell's bits, and every token's bits and cell


def first_nearest_token(cell_bits: list[int], token_bits: list[list[int]], cells: list[int]) -> int:
    """Lowest token index among the nearest."""
    distances = [hamming(cell_bits, bits) for bits in token_bits]
    return distances.index(min(distances))


def first_token_of_lowest_cell(cell_bits: list[int], token_bits: list[list[int]], cells: list[int]) -> int:
    """Lowest cell number among the nearest, then the lowest token index in it."""
    distances = [hamming(cell_bits, bits) for bits in token_bits]
    nearest = min(distances)
    return min((cell, index) for index, cell in enumerate(cells) if distances[index] == nearest)[1]


def hamming(a: list[int], b: list[int]) -> int:
    """Number of differing bits."""
    return sum(x != y for x, y in zip(a, b, strict=True))


# The common frame


def sign_bits(token: np.ndarray, planes: np.ndarray) -> list[int]:
    """Bits of one token, first hyperplane first."""
    return [int(float(np.dot(token.astype(np.float64), plane.astype(np.float64))) > 0) for plane in planes]


def _query(
    tokens: np.ndarray,
    hyperplanes: np.ndarray,
    projections: np.ndarray | None,
    cell_of: Callable[[list[int]], int],
) -> np.ndarray:
    blocks = []
    for r, planes in enumerate(hyperplanes):
        sums = np.zeros((2 ** len(planes), planes.shape[1]))
        for token in tokens:
            sums[cell_of(sign_bits(token, planes))] += token
        blocks.append(_project(sums, projections, r))
    return np.concatenate(blocks)


def _document(
    tokens: np.ndarray,
    hyperplanes: np.ndarray,
    projections: np.ndarray | None,
    cell_of: Callable[[list[int]], int],
    bits_of: Callable[[int, int], list[int]],
    choose: Chooser | None,
) -> np.ndarray:
    blocks = []
    for r, planes in enumerate(hyperplanes):
        k = len(planes)
        token_bits = [sign_bits(token, planes) for token in tokens]
        cells = [cell_of(bits) for bits in token_bits]
        means = np.zeros((2**k, planes.shape[1]))
        for cell in range(2**k):
            members = [index for index, other in enumerate(cells) if other == cell]
            if members:
                means[cell] = sum(tokens[index].astype(np.float64) for index in members) / len(members)
            elif choose is not None:
                means[cell] = tokens[choose(bits_of(cell, k), token_bits, cells)]
        blocks.append(_project(means, projections, r))
    return np.concatenate(blocks)


def _project(cells: np.ndarray, projections: np.ndarray | None, repetition: int) -> np.ndarray:
    if projections is None:
        return cells.ravel()
    return np.ravel(cells @ projections[repetition].astype(np.float64).T)


def _finish(fde: np.ndarray, final: Sketch | None) -> np.ndarray:
    if final is None:
        return fde
    targets, signs, length = final
    out = np.zeros(length)
    for value, target, sign in zip(fde, targets, signs, strict=True):
        out[target] += sign * value
    return out
