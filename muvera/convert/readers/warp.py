"""Reader of WARP indexes (xtr-warp), which group tokens by centroid.

``codes.compacted.pt`` holds the *document* of each token, ``sizes.compacted.pt`` the number of tokens of each
centroid.  The order of the tokens in a document is lost, but MaxSim does not depend on it.  Documents after
the last one with a token are lost, too.  Like WARP, this reader does not normalize.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import as_integers, offsets_from_lengths, running_total
from ...utils.npy_files import load_npy
from ..parsing.torch_file import read_array
from ..sources.base import Reader, Source
from ..sources.plaid_codec import Codec

__all__ = ["READERS"]

# Documents may have no tokens, but a damaged number must not cause a huge allocation.
_MAX_DOCUMENTS_PER_TOKEN, _MIN_MAX_DOCUMENTS = 100, 1 << 20


def _matches(path: Path) -> bool:
    # The converter can write into the PLAID index's own folder, which keeps the order of tokens.
    own = all((path / name).is_file() for name in ("sizes.compacted.pt", "codes.compacted.pt"))
    return own and not (path / "centroids.pt").is_file()


class _WarpSource(Source):
    """Source over a WARP index; it uses 16 bytes of memory per token beside the batch."""

    name = "warp"
    lossy = True

    def __init__(self, path: Path) -> None:
        centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
        sizes, documents = read_array(path / "sizes.compacted.pt"), read_array(path / "codes.compacted.pt")
        # The centroid of a row is the group that contains it.
        self._ends = offsets_from_lengths(sizes, len(documents), "sizes.compacted.pt")[1:]
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
        self._packed = read_array(path / f"residuals.{'repacked.' if repacked else ''}compacted.pt")
        self._codec = Codec(centroids, weights, nbits, normalize=False, table=table)
        if len(self._packed) != len(numbers):
            raise ValueError(f"it has {len(self._packed)} residuals of {len(numbers)} tokens")
        lengths = np.bincount(numbers, minlength=0)
        self._order = np.argsort(numbers, kind="stable")
        self._offsets = running_total(lengths)
        self.dimension = self._codec.dimension
        self.nbits = nbits
        self.num_documents = len(lengths)
        self.num_tokens = len(numbers)

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents by number."""
        for start, stop in token_batches(self._offsets, max_tokens):
            bounds = self._offsets[start : stop + 1]
            rows = self._order[bounds[0] : bounds[-1]]
            codes = np.searchsorted(self._ends, rows, side="right")
            tokens = self._codec.decode(codes, self._packed[rows], "codes.compacted.pt")
            yield MultiVectors(tokens, bounds - bounds[0])


READERS = (
    Reader("warp", "sizes.compacted.pt with codes.compacted.pt (a WARP index)", _matches, _WarpSource),
)
