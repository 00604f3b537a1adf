"""Masked entries of NumPy's masked arrays are refused by every public function."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex, chamfer, explain, rerank, top_k
from muvera.data.validation import as_array
from muvera.diagnostics.geometry import cell_use, token_geometry
from muvera.integrations.pylate import MuveraPyLateIndex
from muvera.mips import make_search
from muvera.reranking.spans import score_spans
from muvera.texts.encoders.base import from_matrices

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
MASKED: Any = np.ma.MaskedArray(ROWS, ROWS > 0)
NUMBERS: Any = np.ma.MaskedArray([0, 1, 2], [False, True, False])
TEXTS = MultiVectors.from_arrays([ROWS, ROWS[:2]])


def search(**given: Any) -> Any:
    engine = make_search("exact", 4)
    engine.add(np.arange(3), given.get("vectors", ROWS))
    return engine.search(given.get("queries", ROWS), 1)


def centered(center: Any) -> FDEEncoder:
    return FDEEncoder(FDEConfig(dimension=4, center=True), center=center)


DOORWAYS: dict[str, Callable[[], object]] = {
    "build": lambda: MuveraIndex.build([ROWS, MASKED]),
    "search": lambda: MuveraIndex.build(TEXTS).search(MASKED),
    "one text in a list of rows": lambda: chamfer(list(MASKED), ROWS),
    "top_k": lambda: top_k(MASKED, TEXTS, 1),
    "rerank": lambda: rerank([ROWS], TEXTS, [NUMBERS]),
    "explain": lambda: explain(ROWS, MASKED),
    "padded": lambda: MultiVectors.from_padded(
        np.stack([MASKED.data] * 2), np.ma.masked_equal([[1, 2, 3]] * 2, 2)
    ),
    "ids": lambda: TEXTS.with_ids(np.ma.masked_equal([1, 2], 2)),
    "lengths": lambda: MultiVectors.from_flat(ROWS, NUMBERS),
    "vectors": lambda: search(vectors=MASKED),
    "queries of a search": lambda: search(queries=MASKED),
    "spans": lambda: score_spans(ROWS, ROWS, np.ma.masked_equal([[0, 1]], 1)),
    "center": lambda: centered(MASKED[0]),
    "token_geometry": lambda: token_geometry(MASKED),
    "center of cells": lambda: cell_use(TEXTS, np.eye(4), 1, center=MASKED[0]),
    "a model's matrices": lambda: from_matrices([MASKED]),
    "PyLate": lambda: MuveraPyLateIndex().add_documents(["a"], [MASKED]),
}


@pytest.mark.parametrize("name", DOORWAYS)
def test_masked_entries_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"^[a-z][a-z_]*(\[\d+\])* is a masked array with \d+ masked"):
        DOORWAYS[name]()


def test_a_masked_array_without_masked_entries_is_an_array() -> None:
    whole = np.ma.MaskedArray(ROWS)
    assert type(as_array(whole)) is np.ndarray
    assert chamfer(whole, list(whole)) == chamfer(ROWS, ROWS)
    assert search(vectors=whole)[0].tolist() == search()[0].tolist()
