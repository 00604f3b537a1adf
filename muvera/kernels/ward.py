"""Ward clustering of one document's tokens, and means over clusters.

The clustering gives what ``scipy.cluster.hierarchy.linkage(method="ward")`` and
``fcluster(criterion="maxclust")`` give on the same distances, ties and the numbering of
the clusters included: the same nearest-neighbor chain (Müllner, arXiv:1109.2378), the
same update formula in the same order of operations, the same walk over the tree.

Sizes: ``depth`` columns of a token, ``count`` tokens of a document, ``stride`` the length
of a row of its distance matrix.  A matrix is square, not condensed: a row is then contiguous,
and its minimum and its update, where most of the time is spent, become vector loops.
"""

import numpy as np

from .jit import kernel
from .norms import unit_rows
from .tile import LANES, ROWS, tile_dot

# Added to a row's length: in rows of a multiple of a page, a column would fall into one cache set.
_ROW_PADDING = 8

# Number of entries tested at once; a row of the matrix has room for a whole last block.
_BLOCK = 16


@kernel
def _cosine_distances(rows, first, count, depth, low, high, packed, block, lanes, height, out):
    """Write ``1 - <token, token>`` of `count` rows from `first` into `out`, within low..high.

    Tiles from the diagonal on, each written twice: a product is symmetric to the bit.
    """
    panels = (count + lanes - 1) // lanes
    for j in range(panels * lanes):
        target = packed[(j // lanes) * depth * lanes + j % lanes :]
        if j < count:
            source = rows[(first + j) * depth : (first + j + 1) * depth]
            for k in range(depth):
                target[k * lanes] = source[k]
        else:
            for k in range(depth):
                target[k * lanes] = 0.0
    one = np.float32(1.0)
    for row in range(0, count, height):
        tall = min(height, count - row)
        for panel in range(row // lanes, panels):
            tile_dot(rows, first + row, first + count - 1, depth, packed, panel, block, 0)
            for i in range(tall * lanes):
                # float32 first, as the libraries that this follows subtract in float32.
                block[i] = min(max(one - block[i], low), high)
            left = panel * lanes
            for i in range(tall):
                line = out[row + i, left : left + lanes]
                values = block[i * lanes : (i + 1) * lanes]
                for j in range(lanes):
                    line[j] = values[j]
            if left > row:
                for j in range(min(lanes, count - left)):
                    for i in range(tall):
                        out[left + j, row + i] = block[i * lanes + j]


@kernel
def _row_distances(points, count, out):
    """Write the Euclidean distances between the rows of the symmetric matrix `points` to `out`."""
    for i in range(count):
        row = out[i]
        for j in range(count):
            row[j] = 0.0
        for k in range(count):
            # points[j, k] is points[k, j]: along j it lies in one row.
            line = points[k]
            value = points[i, k]
            for j in range(count):
                difference = value - line[j]
                row[j] += difference * difference
        for j in range(count):
            row[j] = np.sqrt(row[j])


@kernel
def _gather(distances, width, sizes, names, moved, chain, length):
    """Move the rows and columns of the remaining clusters together; return how many remain."""
    left = 0
    for i in range(width):
        if sizes[i] > 0.0:
            for j in range(length):
                if chain[j] == i:
                    chain[j] = left
            moved[left] = i
            sizes[left] = sizes[i]
            names[left] = names[i]
            left += 1
    for i in range(left):
        source = distances[moved[i]]
        target = distances[i]
        for j in range(left):
            target[j] = source[moved[j]]
    return left


@kernel
def _chain(distances, count, sizes, chain, fresh, absorbed, names, moved, pairs, heights):
    """Write the ``count - 1`` merges and their heights, in the order the chain finds them.

    `distances` is overwritten.  Distances are never negative, so their bits compare as integers,
    and an integer minimum vectorizes where a float minimum without fastmath does not.  The
    diagonal is infinite and the bits of an absorbed cluster are raised to infinity, so that no
    loop has a branch.  Once half of the clusters are absorbed, the others move together, in order.
    """
    bits = distances.view(np.int64)
    highest = np.int64(0x7FF0000000000000)  # the bits of infinity
    absorbed[:] = highest
    for i in range(count):
        sizes[i] = 1.0
        absorbed[i] = 0
        names[i] = i
        distances[i, i] = np.inf
    width = count
    length = 0
    alive = 0
    for step in range(count - 1):
        if 2 * (count - step) <= width and width > 16:
            width = _gather(distances, width, sizes, names, moved, chain, length)
            absorbed[:width] = 0
            absorbed[width:] = highest
            alive = 0
        if length == 0:
            while sizes[alive] == 0.0:
                alive += 1
            chain[0] = alive
            length = 1
        x = chain[length - 1]
        y = x
        while True:
            x = chain[length - 1]
            line = bits[x]
            least = highest
            for i in range(width):
                least = min(least, line[i] | absorbed[i])
            # Ties prefer the element before, then the lowest number.
            if length > 1 and line[chain[length - 2]] == least:
                y = chain[length - 2]
                break
            start = 0
            while True:
                # Whole blocks are tested at once; past `width` everything counts as absorbed.
                found = np.int64(0)
                for i in range(start, start + _BLOCK):
                    found |= np.int64((line[i] | absorbed[i]) == least)
                if found:
                    break
                start += _BLOCK
            y = start
            while (line[y] | absorbed[y]) != least:
                y += 1
            chain[length] = y
            length += 1
        length -= 2
        if x > y:
            x, y = y, x
        height = distances[x, y]
        pairs[step, 0] = names[x]
        pairs[step, 1] = names[y]
        heights[step] = height
        size_x = sizes[x]
        size_y = sizes[y]
        to_x = distances[x]
        to_y = distances[y]
        for i in range(width):
            size = sizes[i]
            share = 1.0 / (size_x + size_y + size)
            fresh[i] = np.sqrt(
                (size + size_x) * share * to_x[i] * to_x[i]
                + (size + size_y) * share * to_y[i] * to_y[i]
                - size * share * height * height
            )
        sizes[x] = 0.0
        absorbed[x] = highest
        sizes[y] = size_x + size_y
        for i in range(width):
            to_y[i] = fresh[i]
            distances[i, y] = fresh[i]


@kernel
def _tree(count, pairs, heights, order, parents, children):
    """Write the children of node ``count + r``, the r-th lowest merge, the lower number first."""
    for i in range(2 * count - 1):
        parents[i] = i
    for r in range(count - 1):
        for side in range(2):
            node = pairs[order[r], side]
            while parents[node] != node:
                parents[node] = parents[parents[node]]
                node = parents[node]
            children[r, side] = node
        if children[r, 0] > children[r, 1]:
            children[r, 0], children[r, 1] = children[r, 1], children[r, 0]
        parents[children[r, 0]] = count + r
        parents[children[r, 1]] = count + r


@kernel
def _cut(count, children, heights, order, threshold, stack, stage, labels, start):
    """Write the cluster of each leaf, cut at height `threshold`, as fcluster numbers them.

    Below a node that is no cluster, the inner children come first and its leaves after.  Return
    the number of clusters.
    """
    clusters = 0
    leader = -1
    top = 0
    stack[0] = 2 * count - 2
    stage[0] = 0
    while top >= 0:
        node = stack[top]
        row = node - count
        if stage[top] == 0 and leader < 0 and heights[order[row]] <= threshold:
            leader = node
            clusters += 1
        if stage[top] < 2:
            child = children[row, stage[top]]
            stage[top] += 1
            if child >= count:
                top += 1
                stack[top] = child
                stage[top] = 0
            continue
        for side in range(2):
            child = children[row, side]
            if child < count:
                if leader < 0:
                    clusters += 1
                labels[start + child] = clusters - 1
        if leader == node:
            leader = -1
        top -= 1
    return clusters


@kernel
def _ward_ranges(rows, depth, offsets, kept, limits, points, after, lanes, height, odd, labels, counts):
    zero, two, infinite = np.float32(0.0), np.float32(2.0), np.float32(np.inf)
    longest = 1
    for i in range(len(limits)):
        longest = max(longest, offsets[i + 1] - offsets[i])
    stride = (longest + _BLOCK - 1) // _BLOCK * _BLOCK + odd
    packed = np.empty((longest + lanes - 1) // lanes * lanes * depth, np.float32)
    block = np.empty(lanes * height, np.float32)
    distances = np.empty((longest, stride), np.float64)
    other = np.empty((longest if points else 1, stride), np.float64)
    sizes = np.empty(stride, np.float64)
    fresh = np.empty(stride, np.float64)
    heights = np.empty(longest, np.float64)
    chain = np.empty(longest + 1, np.int64)
    absorbed = np.empty(stride, np.int64)
    names = np.empty(longest, np.int64)
    moved = np.empty(longest, np.int64)
    pairs = np.empty((longest, 2), np.int64)
    children = np.empty((longest, 2), np.int64)
    parents = np.empty(2 * longest, np.int64)
    stack = np.empty(longest + 1, np.int64)
    stage = np.empty(longest + 1, np.int64)
    for i in range(len(limits)):
        first = offsets[i] + kept[i]
        count = offsets[i + 1] - first
        if count <= limits[i]:
            for j in range(count):
                labels[first + j] = j
            clusters = count
        else:
            if points:
                _cosine_distances(
                    rows, first, count, depth, -infinite, infinite, packed, block, lanes, height, other
                )
                _row_distances(other, count, distances)
            else:
                _cosine_distances(
                    rows, first, count, depth, zero, two, packed, block, lanes, height, distances
                )
            _chain(distances, count, sizes, chain, fresh, absorbed, names, moved, pairs, heights)
            order = np.argsort(heights[: count - 1], kind="mergesort")
            _tree(count, pairs, heights, order, parents, children)
            threshold = heights[order[count - limits[i] - 1]]
            clusters = _cut(count, children, heights, order, threshold, stack, stage, labels, first)
        for j in range(kept[i]):
            labels[offsets[i] + j] = j + (clusters if after else 0)
        if not after:
            for j in range(count):
                labels[first + j] += kept[i]
        counts[i] = clusters + kept[i]


def ward_labels(
    rows: np.ndarray,
    depth: int,
    offsets: np.ndarray,
    kept: np.ndarray,
    limits: np.ndarray,
    points: bool,
    after: bool,
    labels: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Cluster the tokens of each document but its first ``kept[i]`` into at most ``limits[i]``.

    Parameters
    ----------
    rows : float32 (n_tokens * depth,)
        All token vectors, flat and finite.
    offsets : int64 (n + 1,)
        Where the documents begin in `rows`; they need not be all that `rows` has.
    kept, limits : int64 (n,)
        How many tokens stay apart (at most all), and how many clusters the others may have
        (at least 1).
    points : bool
        Take the rows of the matrix of cosine distances as points, a Euclidean distance apart,
        instead of the cosine distances themselves.
    after : bool
        Whether the tokens kept apart come after the clusters, instead of before.
    labels : int64 (n_tokens,)
        Receives each token's cluster, or place among those apart, from 0 within its document.
    counts : int64 (n,)
        Receives how many labels each document has; equal heights may leave fewer than allowed.
    """
    _ward_ranges(rows, depth, offsets, kept, limits, points, after, LANES, ROWS, _ROW_PADDING, labels, counts)


@kernel
def mean_rows(tokens, offsets, labels, out_offsets, unit, sizes, out):
    """Write the mean of the tokens of each label, in the order of the labels.

    Token t of document i goes to row ``out_offsets[i] + labels[t]`` of `out`; `sizes`
    (int64, as long as `out`) receives how many there were.  Both start at zero.  With
    `unit`, a document's rows are brought to unit length while they are in the cache.
    """
    for i in range(len(offsets) - 1):
        start = out_offsets[i]
        stop = out_offsets[i + 1]
        for t in range(offsets[i], offsets[i + 1]):
            sizes[start + labels[t]] += 1
            source = tokens[t]
            target = out[start + labels[t]]
            for k in range(len(source)):
                target[k] += source[k]
        for row in range(start, stop):
            if sizes[row] > 1:
                target = out[row]
                size = np.float32(sizes[row])
                for k in range(len(target)):
                    target[k] /= size
        if unit:
            unit_rows(out[start:stop])
