"""Reader of WARP indexes (xtr-warp), which group tokens by centroid.

``codes.compacted.pt`` holds the *document* of each token, ``sizes.compacted.pt`` the number of tokens of each
centroid.  The order of the tokens in a document is lost, but MaxSim does not depend on it.  Documents after
the last one with a token are lost, too.  Like WARP, this reader does not normalize.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.offsets import as_integers, offsets_from_lengths, running_total
from ...utils.npy_files import load_npy
from ..parsing.torch_file import read_array
from ..sources.base import FlatSource, Reader
from ..sources.plaid_codec import Codec

__all__ = ["READERS"]

# Documents may have no tokens, but a damaged number must not cause a huge allocation.
_MAX_DOCUMENTS_PER_TOKEN, _MIN_MAX_DOCUMENTS = 100, 1 << 20


def _matches(path: Path) -> bool:
    # The converter can write into the PLAID index's own folder, which keeps the order of tokens.
    own = all((path / name).is_file() for name in ("sizes.compacted.pt", "codes.compacted.pt"))
    return own and not (path / "centroids.pt").is_file()


class _Decoded:
    """Token vectors in the order of the documents, decoded when they are read."""

    def __init__(
        self, codec: Codec, ends: NDArray[np.int64], packed: NDArray[Any], order: NDArray[np.int64]
    ) -> None:
        self.codec, self.ends, self.packed, self.order = codec, ends, packed, order
        self.shape = (len(order), codec.dimension)

    def __getitem__(self, key: slice) -> NDArray[np.float32]:
        rows = self.order[key]
        # The centroid of a row is the group that contains it.
        codes = np.searchsorted(self.ends, rows, side="right")
        return self.codec.decode(codes, self.packed[rows], "codes.compacted.pt")


def _open(path: Path) -> FlatSource:
    """Open a WARP index; it uses 16 bytes of memory per token beside the batch."""
    centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
    sizes, documents = read_array(path / "sizes.compacted.pt"), read_array(path / "codes.compacted.pt")
    ends = offsets_from_lengths(sizes, len(documents), "sizes.compacted.pt")[1:]
    numbers = as_integers(documents, "codes.compacted.pt")
    limit = max(_MIN_MAX_DOCUMENTS, _MAX_DOCUMENTS_PER_TOKEN * len(numbers))
    if len(sizes) != len(centroids) or not 0 <= numbers.min(initial=0) <= numbers.max(initial=0) < limit:
        raise ValueError(
            f"it has {len(sizes)} sizes for {len(centroids)} centroids, and tokens of documents "
            f"{numbers.min(initial=0)} to {numbers.max(initial=0)}"
        )
    nbits = len(weights).bit_length() - 1
    repacked = not (path / "residuals.compacted.pt").is_file()
    table = None
    if repacked and nbits in (2, 4):  # bucket numbers with the highest bits first
        shifts = 8 - nbits * np.arange(1, 8 // nbits + 1)
        buckets = (np.arange(256)[:, None] >> shifts) & (2**nbits - 1)
        table = np.ascontiguousarray(np.asarray(weights, np.float32)[buckets])
    packed = read_array(path / f"residuals.{'repacked.' if repacked else ''}compacted.pt")
    if len(packed) != len(numbers):
        raise ValueError(f"it has {len(packed)} residuals of {len(numbers)} tokens")
    codec = Codec(centroids, weights, nbits, normalize=False, table=table)
    tokens = _Decoded(codec, ends, packed, np.argsort(numbers, kind="stable"))
    source = FlatSource(tokens, running_total(np.bincount(numbers)), None, name="warp")
    source.lossy, source.nbits = True, nbits
    return source


READERS = (Reader("warp", "sizes.compacted.pt with codes.compacted.pt (a WARP index)", _matches, _open),)
