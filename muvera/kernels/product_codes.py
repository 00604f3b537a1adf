"""Product quantization: one byte for each group of consecutive entries of a vector, and scans of codes.

Sizes: vectors of `groups` groups of `width` entries; CENTROIDS centroids for each group.  `packed` is flat
(groups, PANELS, width + 1, LANES): the tile's packed columns, and below each centroid c
-|c|^2 / 2, so that a point with a 1 behind it is nearest where the product is largest.
"""

import numpy as np

from .jit import kernel
from .tile import LANES, ROWS, tile_dot

#: Number of centroids of a group: as many as one byte can number.
CENTROIDS = 256

#: Number of packed panels of a group's centroids.
PANELS = CENTROIDS // LANES


@kernel
def _nearest(points, count, width, packed, group, codes, errors):
    """Write each point's nearest centroid to `codes`, and half the squared distance to `errors`.

    `points` is flat (count, width + 1).  Of equally near centroids the first of the first lane
    is chosen.
    """
    depth = width + 1
    tile = np.empty(ROWS * LANES, np.float32)
    best = np.empty(ROWS * LANES, np.float32)
    where = np.empty(ROWS * LANES, np.int32)
    for row in range(0, count, ROWS):
        best[:] = -np.inf
        where[:] = 0
        for panel in range(PANELS):
            tile_dot(points, row, count - 1, depth, packed, group * PANELS + panel, tile, 0)
            for k in range(ROWS * LANES):
                nearer = tile[k] > best[k]
                best[k] = tile[k] if nearer else best[k]
                where[k] = np.int32(panel) if nearer else where[k]
        for i in range(min(ROWS, count - row)):
            first = i * LANES
            chosen = 0
            for j in range(1, LANES):
                if best[first + j] > best[first + chosen]:
                    chosen = j
            codes[row + i] = where[first + chosen] * LANES + chosen
            square = np.float32(0)
            for j in range(width):
                value = points[(row + i) * depth + j]
                square += value * value
            errors[row + i] = np.float32(0.5) * square - best[first + chosen]


@kernel
def _set_centroid(packed, group, width, centroid, value):
    """Write one centroid of a group, and minus half its squared length below it."""
    start = (group * PANELS + centroid // LANES) * (width + 1) * LANES + centroid % LANES
    square = np.float32(0)
    for j in range(width):
        packed[start + j * LANES] = value[j]
        square += value[j] * value[j]
    packed[start + width * LANES] = np.float32(-0.5) * square


@kernel
def pack_centroids(centroids, packed):
    """Write `centroids` (groups, CENTROIDS, width) to `packed`."""
    for group in range(centroids.shape[0]):
        for c in range(CENTROIDS):
            _set_centroid(packed, group, centroids.shape[2], c, centroids[group, c])


@kernel
def train(sample, order, start, stop, width, rounds, packed):
    """Fit the centroids of groups start..stop to `sample` (n, dimension) at `order` by Lloyd's rounds.

    Centroid 0 is the zero vector, which empty cells need, and zero points are left out.  The
    other centroids start at the first points in `order`; a centroid that loses all its points
    moves to the point with the largest error.
    """
    count, depth = order.shape[0], width + 1
    points = np.empty(count * depth, np.float32)
    codes = np.empty(count, np.uint8)
    errors = np.empty(count, np.float32)
    sums = np.empty((CENTROIDS, width), np.float64)
    members = np.empty(CENTROIDS, np.int64)
    mean = np.empty(width, np.float32)
    for group in range(start, stop):
        used = 0
        for i in range(count):
            row = order[i]
            empty = True
            for j in range(width):
                value = sample[row, group * width + j]
                points[used * depth + j] = value
                empty = empty and value == 0
            points[used * depth + width] = 1
            used += not empty
        mean[:] = 0
        for c in range(CENTROIDS):
            _set_centroid(packed, group, width, c, mean)
        for c in range(1, min(CENTROIDS, used + 1)):
            _set_centroid(packed, group, width, c, points[(c - 1) * depth : c * depth])
        if used < CENTROIDS:
            continue  # every point is a centroid
        for _ in range(rounds):
            _nearest(points, used, width, packed, group, codes, errors)
            sums[:] = 0
            members[:] = 0
            for i in range(used):
                members[codes[i]] += 1
                for j in range(width):
                    sums[codes[i], j] += points[i * depth + j]
            for c in range(1, CENTROIDS):
                if members[c] == 0:
                    worst = np.argmax(errors[:used])
                    if errors[worst] <= 0:
                        continue
                    errors[worst] = 0
                    _set_centroid(packed, group, width, c, points[worst * depth : (worst + 1) * depth])
                    continue
                for j in range(width):
                    mean[j] = sums[c, j] / members[c]
                _set_centroid(packed, group, width, c, mean)


@kernel
def encode(vectors, start, stop, width, packed, codes):
    """Write the codes of vectors start..stop of (n, dimension) to `codes` (n, groups)."""
    groups, depth = codes.shape[1], width + 1
    count = stop - start
    points = np.ones(count * depth, np.float32)
    found = np.empty(count, np.uint8)
    errors = np.empty(count, np.float32)
    for group in range(groups):
        for i in range(count):
            for j in range(width):
                points[i * depth + j] = vectors[start + i, group * width + j]
        _nearest(points, count, width, packed, group, found, errors)
        for i in range(count):
            codes[start + i, group] = found[i]


@kernel
def tables(query, active, packed, width, out):
    """Write the products of a query's groups `active` with their centroids to `out` (active, CENTROIDS)."""
    for i in range(active.shape[0]):
        group = active[i]
        for panel in range(PANELS):
            place = panel * LANES
            start = (group * PANELS + panel) * (width + 1) * LANES
            for lane in range(LANES):
                out[i, place + lane] = 0
            for j in range(width):
                value = query[group * width + j]
                for lane in range(LANES):
                    out[i, place + lane] += value * packed[start + j * LANES + lane]


@kernel
def scan(codes, groups, rows, active, tables, out):
    """Write to `out` (rows,) the sums of the table entries that the codes of the vectors at `rows` select.

    `codes` is flat (n, groups), `tables` flat (active, CENTROIDS).  Four vectors are scored at a time:
    a table's row is read once for them, and their sums, each in the order of `active`, do not wait
    for each other.  Unsigned positions avoid numba's test for negative ones.
    """
    count = rows.shape[0]
    size = np.uint64(CENTROIDS)
    for i in range(0, count, 4):
        row0 = np.uint64(rows[i] * groups)
        row1 = np.uint64(rows[min(i + 1, count - 1)] * groups)
        row2 = np.uint64(rows[min(i + 2, count - 1)] * groups)
        row3 = np.uint64(rows[min(i + 3, count - 1)] * groups)
        sum0 = np.float32(0)
        sum1 = np.float32(0)
        sum2 = np.float32(0)
        sum3 = np.float32(0)
        for g in range(active.shape[0]):
            group, table = np.uint64(active[g]), np.uint64(g) * size
            sum0 += tables[table + np.uint64(codes[row0 + group])]
            sum1 += tables[table + np.uint64(codes[row1 + group])]
            sum2 += tables[table + np.uint64(codes[row2 + group])]
            sum3 += tables[table + np.uint64(codes[row3 + group])]
        out[i] = sum0
        if i + 1 < count:
            out[i + 1] = sum1
        if i + 2 < count:
            out[i + 2] = sum2
        if i + 3 < count:
            out[i + 3] = sum3
