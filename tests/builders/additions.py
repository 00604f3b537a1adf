"""Ways to add products of bytes, for tests of each of them."""

import pytest

from muvera.kernels.byte_tile import ADDITIONS

#: Parameter of a test: the name of each way that some machine has.
each_addition = pytest.mark.parametrize(
    "addition",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(name not in ADDITIONS, reason=f"this process cannot use {name}"),
        )
        for name in ("portable", "avx2", "vnni", "amx")
    ],
)
