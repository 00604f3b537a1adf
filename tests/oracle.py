"""MUVERA as the paper writes it (arXiv 2405.19504, section 2), in slow float64 NumPy.

Independent of the package: nothing of `muvera` is imported.  Hyperplanes are (R, k, d)
and projections (R, p, d) with their scale inside, or None for the identity.  Bit j of a
token's code is set if its product with hyperplane j is above zero.  An FDE runs through
repetitions, then codes, then coordinates.
"""

import numpy as np
from numpy.typing import NDArray


def chamfer(query: np.ndarray, document: np.ndarray) -> float:
    """Sum over query tokens of the largest inner product with a document token."""
    return sum(max(float(np.dot(q, p)) for p in _float64(document)) for q in _float64(query))


def token_codes(tokens: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """SimHash code of each token for one repetition's hyperplanes (k, d)."""
    bits = _float64(tokens) @ _float64(planes).T > 0
    return np.asarray((bits << np.arange(len(planes))).sum(axis=1), int)


def hamming(a: int, b: int) -> int:
    return (int(a) ^ int(b)).bit_count()


def document_fde(
    tokens: np.ndarray,
    planes: np.ndarray,
    projections: np.ndarray | None,
    *,
    center: np.ndarray | None = None,
    fill: bool = False,
    cells: str = "mean",
    split: bool = False,
) -> np.ndarray:
    """Means of the (centered) tokens in each cell, projected.

    With `fill` an empty cell takes the token whose code differs least, the first of
    equals.  `cells` scales a cell's mean before the projection: to length 1 ("unit"),
    to the mean length of its tokens ("length"; a mean of zero stays zero), or not at
    all.  With `split`, the mean of all tokens is subtracted first.  Without tokens, all
    entries are zero.
    """
    hashed = _float64(tokens) if center is None else _float64(tokens) - _float64(center)
    values = hashed - hashed.mean(axis=0) if split and len(hashed) else hashed
    blocks = []
    for r in range(len(planes)):
        codes = token_codes(hashed, planes[r])
        means = np.zeros((2 ** planes.shape[1], tokens.shape[1]))
        for code, mean in enumerate(means):
            inside = [t for t, other in enumerate(codes) if other == code]
            if not inside and fill and len(codes):
                inside = [int(np.argmin([hamming(code, other) for other in codes]))]
            if not inside:
                continue
            mean[:] = values[inside].mean(axis=0)
            length = np.linalg.norm(mean)
            typical = np.linalg.norm(values[inside], axis=1).mean()
            if cells != "mean" and (cells == "length" or split) and length <= 1e-3 * typical:
                mean *= 0
            elif cells != "mean" and length > 0:
                mean *= (1.0 if cells == "unit" else typical) / length
        blocks.append(_project(means, projections, r))
    return np.concatenate(blocks)


def triangle(matrix: np.ndarray) -> np.ndarray:
    """The upper triangle row by row.

    Products of two are those of the symmetric matrices.
    """
    rows, columns = np.triu_indices(len(matrix))
    return np.asarray(matrix[rows, columns] * np.where(rows == columns, 1, np.sqrt(2)))


def document_moments(
    tokens: np.ndarray,
    coefficients: np.ndarray,
    units: np.ndarray,
    offset: np.ndarray,
    directions: np.ndarray | None = None,
) -> np.ndarray:
    """Return covariance in `directions` (r, d), mean and bias of a document.

    They are weighted; without tokens they are zeros.

    There is no covariance without `directions`.
    """
    if not len(tokens):
        return np.zeros(len(offset))
    values = _float64(tokens)
    mean = values.mean(axis=0)
    norm = np.linalg.norm(mean)
    direction = mean / norm if norm > 0 else mean
    _, second, first, along, length, square, count = coefficients
    blocks = [
        np.zeros(0),
        first * mean + along * direction,
        [length * norm + square * norm**2 + count * np.log(len(values))],
    ]
    if directions is not None:
        rest = (values - mean) @ _float64(directions).T
        blocks[0] = second * triangle(rest.T @ rest / len(rest) * np.sqrt(2 * np.log(len(rest))))
    repeated = np.repeat(units[1:], [len(block) for block in blocks])
    return np.asarray((np.concatenate(blocks) - offset) * repeated)


def query_moments(
    tokens: np.ndarray,
    units: np.ndarray,
    metric: np.ndarray | None = None,
    directions: np.ndarray | None = None,
) -> np.ndarray:
    """The query's vector.

    Its inner product with a document's moments is the estimate.
    """
    values = _float64(tokens)
    blocks = [np.zeros(0), values.sum(axis=0), np.array([float(len(values))])]
    if metric is not None and directions is not None:
        total = np.zeros_like(metric, np.float64)
        for token in values @ _float64(directions).T:
            variance = token @ metric @ token
            total += np.outer(token, token) / (2 * np.sqrt(variance)) if variance > 0 else 0
        blocks[0] = triangle(total)
    return np.concatenate([block / unit for block, unit in zip(blocks, units[1:], strict=True)])


def query_fde(
    tokens: np.ndarray,
    hyperplanes: np.ndarray,
    projections: np.ndarray | None,
    *,
    center: np.ndarray | None = None,
    softness: float = 0.0,
) -> np.ndarray:
    """Return the sums of the tokens in each cell, projected.

    Cells are decided after centering, but values are not centered.

    With `softness` tau, the cell across the nearest hyperplane gets exp(-m / tau) / 2
    of a token's weight, if m is the token's distance from that hyperplane.
    """
    values = _float64(tokens)
    hashed = values if center is None else values - _float64(center)
    blocks = []
    for r, planes in enumerate(hyperplanes):
        cells = np.zeros((2 ** len(planes), values.shape[1]))
        for value, place, code in zip(values, hashed, token_codes(hashed, planes), strict=True):
            across = 0.0
            if softness and len(planes):
                distances = plane_distances(place, planes)
                nearest = int(np.argmin(distances))
                across = np.exp(-distances[nearest] / softness) / 2
                cells[code ^ (1 << nearest)] += across * value
            cells[code] += (1 - across) * value
        blocks.append(_project(cells, projections, r))
    return np.concatenate(blocks)


def plane_distances(token: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Distances of a token from hyperplanes (k, d) through the origin."""
    planes = _float64(planes)
    return np.asarray(np.abs(planes @ _float64(token)) / np.linalg.norm(planes, axis=1))


def rounded(rows: np.ndarray) -> NDArray[np.float64]:
    """Return `rows` in whole 127ths of their largest entry."""
    unit = np.abs(rows).max(initial=0) / 127
    return np.asarray(np.floor(rows / unit + 0.5) * unit if unit > 0 else 0 * rows, np.float64)


def document_landmark_cells(tokens: np.ndarray, landmarks: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Return the largest product of a token with each landmark (n, d).

    `center` is subtracted from tokens, and the mean product from products.

    The center changes all documents alike.  Tokens are rounded together.
    """
    if not len(tokens):
        return np.zeros(len(landmarks))
    largest = (rounded(_float64(tokens) - center) @ _float64(landmarks).T).max(axis=0)
    return np.asarray(largest - largest.mean())


def landmark_weights(
    tokens: np.ndarray, landmarks: np.ndarray, center: np.ndarray, sharpness: float, nearest: int = 16
) -> np.ndarray:
    """The weights of each token (t, n), proportional to exp(sharpness * cosine).

    They belong to the nearest landmarks.  With a further place of cosine 0.7 that is no
    landmark, they add up to |q|.  Cosines are those of directions around `center`.
    Each token is rounded alone, and the landmarks' directions together.
    """
    weights = np.zeros((len(tokens), len(landmarks)))
    around = _float64(landmarks) - center
    distances = np.linalg.norm(around, axis=1, keepdims=True)
    directions = rounded(np.divide(around, distances, out=np.zeros_like(around), where=distances > 0))
    for row, token in zip(weights, _float64(tokens), strict=True):
        length = np.linalg.norm(token)
        direction = (token / length if length > 0 else 0 * token) - center
        scale = np.linalg.norm(direction)
        cosines = rounded(direction) @ directions.T / (scale if scale > 0 else 1)
        best = np.argsort(-cosines, kind="stable")[:nearest]
        shares = np.exp(sharpness * (cosines[best] - 0.7))
        row[best] = length * shares / (1 + shares.sum())
    return weights


def query_landmark_cells(
    tokens: np.ndarray, landmarks: np.ndarray, center: np.ndarray, sharpness: float
) -> np.ndarray:
    """The sums of the tokens' weights in each cell, minus their mean."""
    cells = landmark_weights(tokens, landmarks, center, sharpness).sum(axis=0)
    return np.asarray(cells - cells.mean())


def final_count_sketch(fde: np.ndarray, targets: np.ndarray, signs: np.ndarray, size: int) -> np.ndarray:
    """Final count sketch: coordinate i goes to ``targets[i]`` with ``signs[i]``."""
    out = np.zeros(size)
    for value, target, sign in zip(fde, targets, signs, strict=True):
        out[target] += sign * value
    return out


def _float64(array: np.ndarray) -> NDArray[np.float64]:
    return np.asarray(array, np.float64)


def _project(cells: np.ndarray, projections: np.ndarray | None, repetition: int) -> np.ndarray:
    if projections is None:
        return cells.ravel()
    return np.ravel(cells @ _float64(projections[repetition]).T)
