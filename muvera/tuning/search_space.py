"""The search space: encoders of many sizes, and ways to store their vectors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..encoders.base import EncoderConfig
from ..encoders.fde.config import FDEConfig
from ..encoders.learned.config import LearnedConfig
from ..encoders.moments import MomentsConfig
from ..index.candidates import graph_from
from ..index.settings import Backend
from ..mips import VectorSearch, make_search
from ..mips.exact import bytes_in_memory
from ..mips.hnsw import bytes_in_graph
from .hnsw_settings import M_VALUES

__all__ = ["STORAGES", "EncoderCandidate", "Storage", "encoder_candidates"]

#: (num_repetitions, num_simhash_projections, projection_dimension) of FDEs: 640 to 20,480 floats of sketch.
FDE_SHAPES = (
    (20, 2, 8),
    (20, 3, 8),
    (40, 2, 8),
    (20, 3, 16),
    (40, 2, 16),
    (40, 3, 8),
    (20, 4, 16),
    (40, 3, 16),
    (20, 5, 16),
    (40, 4, 16),
    (80, 3, 16),
    (40, 5, 16),
)

#: Floats of an FDE of as many repetitions as fit, with 8 cells and without projection.
IDENTITY_FLOATS = 10240

#: Floats of compact moments, and of learned vectors.  One fit serves all sizes and takes time in
#: proportion to the largest.
MOMENTS_SIZES = (128, 256, 512)
LEARNED_SIZES = (128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class EncoderCandidate:
    """An encoder of the search space.

    Parameters
    ----------
    name : str
    config : FDEConfig, LearnedConfig or MomentsConfig
    source : FDEConfig, LearnedConfig or MomentsConfig
        The configuration whose vectors' leading columns stand for this encoder's vectors during
        the search: one fit serves all sizes of a learned map.
    """

    name: str
    config: EncoderConfig
    source: EncoderConfig

    @property
    def kind(self) -> str:
        """First word of the name: "mean", "moments", "FDE" or "learned"."""
        return self.name.split()[0]

    @property
    def floats(self) -> int:
        """Floats of a vector."""
        return self.config.vector_dimension


@dataclass(frozen=True)
class Storage:
    """A way to store and search vectors.

    Parameters
    ----------
    name : str
    backend : str
        As :class:`muvera.MuveraIndex` takes it.
    """

    name: str
    backend: Backend

    def make_search(self, dimension: int) -> VectorSearch:
        """Return an empty search that reads all vectors, also in place of a graph."""
        return make_search("exact" if self.backend == "auto" else self.backend, dimension)

    def has_graph(self, floats: int, documents: int) -> bool:
        """Whether the vectors of so many documents are in a graph."""
        return self.backend == "auto" and documents >= graph_from(floats)

    def bytes_per_vector(self, floats: int, documents: int, m: int = min(M_VALUES)) -> int:
        """Return the bytes of one of so many documents' vectors, with `m` links where it is in a graph."""
        return bytes_in_graph(floats, m) if self.has_graph(floats, documents) else bytes_in_memory(floats)


#: From the most bytes to the fewest.
STORAGES = (Storage("float", "auto"),)


def encoder_candidates(dimension: int) -> list[EncoderCandidate]:
    """Return the encoders to try for tokens of `dimension` columns, small vectors first."""
    found: dict[EncoderConfig, EncoderCandidate] = {}
    for repetitions, planes, width in FDE_SHAPES:
        kept = min(width, dimension)
        config = FDEConfig(
            dimension=dimension,
            num_repetitions=repetitions,
            num_simhash_projections=planes,
            projection_dimension=kept,
        )
        name = f"FDE R={repetitions} k={planes} p={kept}"
        found.setdefault(config, EncoderCandidate(name, config, config))
    unprojected = FDEConfig(
        dimension=dimension,
        num_repetitions=max(1, IDENTITY_FLOATS // (8 * dimension)),
        num_simhash_projections=3,
        projection="identity",
    )
    name = f"FDE R={unprojected.num_repetitions} k=3 identity"
    found.setdefault(unprojected, EncoderCandidate(name, unprojected, unprojected))
    mean = MomentsConfig(dimension=dimension, covariance=False, compact_dimension=None)
    found[mean] = EncoderCandidate(f"mean {mean.vector_dimension:,}", mean, mean)
    whole = MomentsConfig(dimension=dimension, compact_dimension=None)
    found[whole] = EncoderCandidate(f"moments {whole.vector_dimension:,}", whole, whole)
    sizes = [size for size in MOMENTS_SIZES if size < whole.vector_dimension]
    for size in sizes:
        compact = dataclasses.replace(whole, compact_dimension=size)
        source = dataclasses.replace(whole, compact_dimension=sizes[-1])
        found[compact] = EncoderCandidate(f"moments {size:,}", compact, source)
    largest = LearnedConfig(dimension=dimension, vector_dimension=max(LEARNED_SIZES))
    for size in LEARNED_SIZES:
        learned = dataclasses.replace(largest, vector_dimension=size)
        found[learned] = EncoderCandidate(f"learned {size:,}", learned, largest)
    return sorted(found.values(), key=lambda candidate: candidate.floats)
