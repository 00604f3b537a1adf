"""Small work is divided between threads, too."""

from collections.abc import Iterator

import pytest

from muvera.reranking import slices
from muvera.utils import parallel


@pytest.fixture(autouse=True, scope="package")
def threads_for_small_work() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (slices, parallel):
            patch.setattr(module, "SMALL", 0)
        yield
