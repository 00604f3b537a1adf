"""Lists of a graph's file: found where they were written, and what is not whole is named."""

import numpy as np
import pytest

from muvera.kernels.graph_lists import find_lists

WIDTH = 5


def written(lists: list[int]) -> np.ndarray:
    """Return the numbers of nodes with so many lists each."""
    parts = [np.append(4 * WIDTH * count, np.zeros(WIDTH * count)) for count in lists]
    return np.concatenate([*parts, []]).astype(np.uint32)


def found(numbers: np.ndarray, size: int, nodes: int) -> tuple[int, int, list[int], list[int]]:
    """Return what the kernel returns and writes."""
    levels, starts = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    node, position = find_lists(numbers, size, WIDTH, levels, starts)
    return node, position, levels.tolist(), starts.tolist()


def test_every_list_is_found() -> None:
    lists = np.random.default_rng(0).geometric(0.8, 200) - 1
    numbers = written(lists.tolist())
    node, position, levels, starts = found(numbers, numbers.nbytes, 200)
    assert (node, position, levels) == (200, len(numbers), lists.tolist())
    lengths = 1 + WIDTH * lists
    assert starts == (np.cumsum(lengths) - lengths + 1).tolist()


@pytest.mark.parametrize(("size", "node"), [(0, 0), (4, 1), (8, 1), (27, 1), (28, 2), (31, 2), (32, 3)])
def test_the_first_node_whose_lists_are_not_whole(size: int, node: int) -> None:
    whole = written([0, 1, 0])
    assert found(whole[: size // 4], size, 3)[0] == node


def test_lengths_that_are_no_lists_are_refused() -> None:
    for wrong in (3, 4 * WIDTH + 4, 2**32 - 4 * WIDTH):
        assert found(np.array([0, wrong, 0], np.uint32), 12, 3)[0] == 1
