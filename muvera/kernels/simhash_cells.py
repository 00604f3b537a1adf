"""Choice of the token that fills an empty SimHash cell.

A *code* has bit j set when hyperplane j of a repetition has a positive product.
"""

from .jit import kernel


@kernel
def bit_count(value):
    """Return the number of set bits."""
    count = 0
    while value:
        value &= value - 1
        count += 1
    return count


@kernel
def nearest_token(code, codes, count):
    """Return the token whose code differs least from `code`, the first of ties."""
    best, chosen = 64, 0
    for t in range(count):
        distance = bit_count(codes[t] ^ code)
        if distance < best:
            best, chosen = distance, t
            if distance == 1:  # an empty cell has no token at 0
                break
    return chosen


@kernel
def nearest_cell_token(code, first_token, code_at):
    """Return the first token of the occupied cell nearest to `code`, the lowest position of ties.

    ``first_token[c]`` is negative for an empty cell; ``code_at[i]`` is the code at position i.
    """
    best, chosen = 64, 0
    for other in code_at:
        if first_token[other] >= 0:
            distance = bit_count(other ^ code)
            if distance < best:
                best, chosen = distance, first_token[other]
    return chosen
