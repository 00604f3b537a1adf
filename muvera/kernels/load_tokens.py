"""Copies of token vectors in scratch memory: converted to float32, centered, padded, rotated.

Sizes: d columns of a token (`depth`), `width` = d rounded up to LANES.  Scratch is flat;
a row is `width` floats whose padding is zero, so that loops run over whole vectors.

Tokens come as float32 (`floats`, n x d) or as float16 bit patterns (`halves`, n x d); the
other array is empty, so that one compiled variant serves both.
"""

from .jit import kernel
from .row_operations import widen_halves
from .tile import LANES, ROWS, lane_dot


@kernel
def load_rows(floats, halves, start, stop, depth, width, center, out):
    """Write tokens start..stop minus `center` (width,) to `out` (flat), float32 rows of `width`."""
    count = stop - start
    if halves.shape[0] > 0:
        flat = halves.reshape(-1)
        for i in range(count):
            row = out[i * width : (i + 1) * width + LANES]
            widen_halves(flat, (start + i) * depth, (start + i + 1) * depth, row)
            for j in range(depth):
                row[j] -= center[j]
    else:
        flat_floats = floats.reshape(-1)
        for i in range(count):
            row = out[i * width : (i + 1) * width]
            source = flat_floats[(start + i) * depth : (start + i + 1) * depth]
            for j in range(depth):
                row[j] = source[j] - center[j]
    if width > depth:
        for i in range(count):
            out[i * width + depth : (i + 1) * width] = 0.0


@kernel
def mix_rows(rows, count, width, mixing, places, tile, out):
    """Write the rows' coordinates in the mixed basis to `out`, flat like `rows`.

    `mixing` (panels, width / LANES, LANES) holds LANES interleaved orthogonal blocks;
    coordinate i of their product goes to ``places[i]``, so that each block of a second
    product mixes coordinates of many blocks of the first.
    """
    for panel in range(width // LANES):
        for row in range(0, count, ROWS):
            lane_dot(rows, row, count - 1, width, mixing, panel, tile, 0)
            for i in range(min(ROWS, count - row)):
                start = (row + i) * width
                for j in range(LANES):
                    out[start + places[panel * LANES + j]] = tile[i * LANES + j]
