"""Lists of links above the bottom of hnswlib's graph, found in its file.

numbers (n,) uint32: for every node the bytes of its lists, and these; width: numbers of a list.
"""

from .jit import kernel

__all__ = ["find_lists"]


@kernel
def find_lists(numbers, size, width, levels, starts):
    """Write how many lists each node has, and where they begin.

    Parameters
    ----------
    numbers : uint32 (n,)
    size : int
        Bytes of the file's part, of which the last may be no whole number.
    width : int
    levels, starts : int64 (nodes,)
        Receive the lists of each node, and the place of the first one.

    Returns
    -------
    int
        The first node whose lists are not whole; as many as there are where all are.
    int
        The number behind the last list.
    """
    position = 0
    for node in range(levels.shape[0]):
        if position >= numbers.shape[0]:
            return node, position
        length = int(numbers[position])
        position += 1
        if length % (4 * width) != 0 or 4 * position + length > size:
            return node, position
        levels[node] = length // (4 * width)
        starts[node] = position
        position += length // 4
    return levels.shape[0], position
