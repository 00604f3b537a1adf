"""Golden vectors: those of SimHash, and of a fitted encoder of each preset.

A golden file shows that a value has moved, which changes stored indexes, not that it is
wrong.
"""

import json
from typing import Any

import numpy as np
import pytest
from builders.fdes import SIDES, encoded
from builders.paths import GOLDEN
from builders.token_collections import assert_close
from numpy.typing import NDArray

from muvera import FDEConfig, FDEEncoder, LearnedProjection, MultiVectors

pytestmark = pytest.mark.golden


def golden(name: str) -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def config_of(file: dict[str, NDArray[Any]], number: int) -> FDEConfig:
    return FDEConfig.from_dict(json.loads(str(file["settings"][number])))


@pytest.mark.parametrize("number", range(len(golden("ours")["settings"])))
def test_simhash(number: int) -> None:
    file = golden("ours")
    documents = MultiVectors.from_flat(file["tokens"], file["lengths"])
    config = config_of(file, number)
    assert str(file["hashes"][number]) == config.hash
    encoder = FDEEncoder(config).fit(documents)
    for side in SIDES:
        assert_close(encoded(encoder, side, documents), file[f"{side}_{number}"])


@pytest.mark.parametrize("number", range(len(golden("fitted")["settings"])))
def test_fitted_encoders(number: int) -> None:
    """Another BLAS sums in another order, and so turns axes of nearly equal spread.

    Rotations of the vectors do not change products, so these are compared.  Entries of
    a map may also be rounded to the next byte, which changes a product by less than .02
    of the largest one.  Without a learned projection, vectors are compared up to
    float32.
    """
    file = golden("fitted")
    documents = MultiVectors.from_flat(file["tokens"], file["lengths"])
    config = config_of(file, number)
    assert str(file["hashes"][number]) == config.hash
    encoder = FDEEncoder(config).fit(documents)
    found = [encoded(encoder, side, documents[:8]) for side in SIDES]
    stored = [file[f"{side}_{number}"] for side in SIDES]
    if isinstance(config.projection, LearnedProjection):
        products, wanted = (d @ q.T for d, q in (found, stored))
        assert np.abs(products - wanted).max() < 0.02 * np.abs(wanted).max()
        return
    for vectors, values in zip(found, stored, strict=True):
        assert_close(vectors, values, 5e-5)
