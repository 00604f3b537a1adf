"""Reader of WARP indexes (xtr-warp), which group tokens by centroid.

``codes.compacted.pt`` holds the *document* of each token, ``sizes.compacted.pt`` how many
tokens each centroid has.  Documents are put together again; the order of the tokens inside
one is lost, on which no sum of maxima depends.  Documents after the last one with a token are
lost too.  WARP scores without normalizing again, and so are vectors returned here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import as_integers, offsets_from_lengths, running_total
from ...utils.npy_files import load_npy
from ..parsing.torch_file import read_array
from ..sources.plaid_codec import Codec

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "warp"
DESCRIPTION = "sizes.compacted.pt with codes.compacted.pt (a WARP index)"


#: Documents may lack tokens, but not be so many for each token, beyond a number that costs little.
_MOST_DOCUMENTS, _ALWAYS_DOCUMENTS = 100, 1 << 20


def matches(path: Path) -> bool:
    """Return whether `path` looks like a WARP index and has no PLAID index beside.

    The converter may write into the PLAID index's own folder; that keeps the order of tokens
    and is read instead.
    """
    try:
        own = all((path / name).is_file() for name in ("sizes.compacted.pt", "codes.compacted.pt"))
        return own and not (path / "centroids.pt").is_file()
    except OSError:
        return False


def open_source(path: Path, *, dtype: DTypeLike = np.float32, threads: int | None = None) -> WarpSource:
    """Return the source of a WARP index.

    Parameters
    ----------
    path : Path
        The index's folder.
    dtype, threads
        As for :func:`muvera.convert.readers.plaid.open_source`.

    Raises
    ------
    FileNotFoundError, ValueError, RefusedPickleError
        As there.
    """
    return WarpSource(Path(path), dtype, threads)


class WarpSource:
    """Source over a WARP index; it takes 16 bytes of memory a token beside the batch."""

    name = NAME
    lossy = True

    def __init__(self, path: Path, dtype: DTypeLike, threads: int | None) -> None:
        centroids, weights = load_npy(path / "centroids.npy"), load_npy(path / "bucket_weights.npy")
        sizes, documents = read_array(path / "sizes.compacted.pt"), read_array(path / "codes.compacted.pt")
        # The centroid of a row is the group it stands in.
        self._ends = offsets_from_lengths(sizes, len(documents), f"{path / 'sizes.compacted.pt'}")[1:]
        if len(sizes) != len(centroids):
            raise ValueError(
                f"{path} has sizes for {len(sizes)} of {len(centroids)} centroids. Copy the whole folder again."
            )
        numbers = as_integers(documents, f"{path / 'codes.compacted.pt'}")
        most = max(_ALWAYS_DOCUMENTS, _MOST_DOCUMENTS * len(numbers))
        for number in (int(numbers.min(initial=0)), int(numbers.max(initial=0))):
            if not 0 <= number < most:
                raise ValueError(
                    f"{path / 'codes.compacted.pt'} has document {number}, but {len(numbers)} tokens can be of "
                    f"documents 0 to {most - 1}. Copy it again."
                )
        nbits = len(weights).bit_length() - 1
        repacked = not (path / "residuals.compacted.pt").is_file()
        table = _high_first(np.asarray(weights, np.float32), nbits) if repacked and nbits in (2, 4) else None
        file = path / ("residuals.repacked.compacted.pt" if repacked else "residuals.compacted.pt")
        self._packed = read_array(file)
        self._codec = Codec(
            path, centroids, weights, nbits, normalize=False, table=table, dtype=dtype, threads=threads
        )
        if self._packed.shape != (len(numbers), self._codec.width) or self._packed.dtype != np.uint8:
            raise ValueError(
                f"{file} has {self._packed.dtype} of shape {self._packed.shape}, but dimension={self._codec.dimension} "
                f"at nbits={nbits} needs uint8 of shape {(len(numbers), self._codec.width)}. Copy it again."
            )
        lengths = np.bincount(numbers, minlength=0)
        self._order = np.argsort(numbers, kind="stable")
        self._offsets: NDArray[np.int64] = running_total(lengths)
        self._where = f"{path.name}/sizes.compacted.pt"
        self.dimension = self._codec.dimension
        self.nbits: int | None = nbits
        self.num_documents: int | None = len(lengths)
        self.num_tokens: int | None = len(numbers)

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents by number."""
        for start, stop in token_batches(self._offsets, max_tokens):
            bounds = self._offsets[start : stop + 1]
            rows = self._order[bounds[0] : bounds[-1]]
            codes = np.searchsorted(self._ends, rows, side="right")
            tokens = self._codec.decode(codes, self._packed[rows], self._where)
            yield MultiVectors(tokens, bounds - bounds[0])


def _high_first(weights: NDArray[np.float32], nbits: int) -> NDArray[np.float32]:
    """Return the weights of each byte in the repacked layout: bucket numbers, highest bits first."""
    shifts = 8 - nbits * np.arange(1, 8 // nbits + 1)
    return np.ascontiguousarray(weights[(np.arange(256)[:, None] >> shifts) & (2**nbits - 1)])
