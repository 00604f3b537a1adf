"""What an index makes where nothing is said about its vectors."""

import numpy as np
import pytest

from muvera import MultiVectors, MuveraIndex
from muvera.encoders.registry import PRESETS
from muvera.index.default_preset import FEW, MANY, default_preset
from muvera.index.two_stage_search import MIN_FIT_DOCUMENTS

DIMENSION = 24  # whose moments are longer than the 256 floats


def texts(count: int) -> MultiVectors:
    """Documents of two to five tokens."""
    stream = np.random.default_rng(3)
    return MultiVectors.from_arrays(
        [stream.normal(size=(2 + i % 4, DIMENSION)).astype(np.float32) for i in range(count)]
    )


@pytest.mark.parametrize(
    ("documents", "dimension", "expected"),
    [
        (None, 128, FEW),
        (MIN_FIT_DOCUMENTS - 1, 128, FEW),
        (MIN_FIT_DOCUMENTS, 128, MANY),
        (1_000_000, 128, MANY),
        (1000, 16, FEW),  # 153 moments are fewer than 256 floats
        (1000, 1024, FEW),  # half a million moments are too many for a map
    ],
)
def test_it_depends_on_the_number_of_documents(documents: int | None, dimension: int, expected: str) -> None:
    assert default_preset(documents, dimension) == expected


def test_an_index_takes_it_unless_told_otherwise() -> None:
    documents = texts(MIN_FIT_DOCUMENTS)
    built = MuveraIndex.build(documents, exact_tokens=0)
    encoder = built.info().encoder
    assert {name: encoder[name] for name in PRESETS[MANY]} == PRESETS[MANY]
    assert encoder["vector_dimension"] == 256
    as_list = MuveraIndex.build(list(documents), exact_tokens=0)
    assert as_list.info().encoder == encoder
    assert MuveraIndex.build(iter([documents]), exact_tokens=0).info().encoder["encoder"] == "fde"
    assert MuveraIndex.build(documents, FEW, exact_tokens=0).info().encoder["encoder"] == "fde"
    assert MuveraIndex.build(documents[:50], exact_tokens=0).info().encoder["encoder"] == "fde"
    given = MuveraIndex.build(documents, "mean", exact_tokens=0).encoder
    assert given is not None
    assert MuveraIndex.build(documents, encoder=given, exact_tokens=0).encoder is given
