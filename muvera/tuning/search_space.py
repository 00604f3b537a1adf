"""What is searched: encoders of many sizes, and ways to keep their vectors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..encoders.base import EncoderConfig
from ..encoders.fde.config import FDEConfig
from ..encoders.learned.config import LearnedConfig
from ..index.candidates import Backend
from ..kernels.tile import LANES
from ..mips import ExactSearch, Int8Search, PQSearch, VectorSearch

__all__ = ["STORAGES", "Arm", "Storage", "arms"]

#: (R, k, p) of FDEs: from 640 to 20,480 floats.
FDES = (
    (10, 3, 8),
    (20, 3, 8),
    (20, 3, 16),
    (20, 4, 8),
    (20, 4, 16),
    (40, 3, 16),
    (20, 5, 8),
    (20, 5, 16),
    (40, 4, 16),
    (20, 4, 32),
    (40, 5, 16),
    (20, 6, 16),
)

#: Floats of compact maps of the default FDE, and of learned vectors; one fit serves all sizes, and
#: takes time in proportion to the largest.
COMPACT = (128, 256, 512, 1024)
LEARNED = (128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Arm:
    """An encoder that is tried.

    Parameters
    ----------
    name : str
    config : FDEConfig or LearnedConfig
    source : FDEConfig or LearnedConfig
        Whose vectors' leading columns stand for the arm's while many are tried: one fit serves
        all sizes of a learned map.
    """

    name: str
    config: EncoderConfig
    source: EncoderConfig

    @property
    def kind(self) -> str:
        """What it is: "FDE", "compact" or "learned"."""
        return self.name.split()[0]

    @property
    def floats(self) -> int:
        """Floats of a vector."""
        return self.config.vector_dimension


@dataclass(frozen=True)
class Storage:
    """A way to keep and search vectors.

    Parameters
    ----------
    name : str
    backend : str
        As :class:`muvera.MuveraIndex` takes it.
    pq : dict
        Settings of product codes.
    """

    name: str
    backend: Backend
    pq: dict[str, Any] = field(default_factory=dict)

    def search(self, dimension: int) -> VectorSearch:
        """Return an empty search; a graph's place is taken by reading all."""
        if self.backend == "pq":
            return PQSearch(dimension, **self.pq)
        return Int8Search(dimension) if self.backend == "int8" else ExactSearch(dimension)

    def size(self, floats: int, links: int | None = None) -> int:
        """Return the bytes of one vector, in a graph of `links` links a node where given."""
        if self.backend == "pq":
            return -(-floats // int(self.pq["group"])) + 8
        if self.backend == "int8":
            return floats + 4 + 8
        if links is not None:
            return 4 * floats + 8 + 4 * (2 * links + 1)
        return 4 * LANES * -(-floats // LANES) + 8


#: From the most bytes to the fewest.
STORAGES = (
    Storage("float", "auto"),
    Storage("int8", "int8"),
    Storage("pq-4", "pq", {"group": 4}),
    Storage("pq-8", "pq", {"group": 8}),
)


def arms(dimension: int) -> list[Arm]:
    """Return the encoders to try for tokens of so many columns, small ones first."""
    found: dict[EncoderConfig, Arm] = {}
    for repetitions, planes, width in FDES:
        kept = min(width, dimension)
        config = FDEConfig(
            dimension=dimension,
            num_repetitions=repetitions,
            num_simhash_projections=planes,
            projection_dimension=kept,
        )
        found.setdefault(config, Arm(f"FDE R={repetitions} k={planes} p={kept}", config, config))
    whole = FDEConfig(
        dimension=dimension,
        num_repetitions=max(1, 10240 // (8 * dimension)),
        num_simhash_projections=3,
        projection="identity",
    )
    name = f"FDE R={whole.num_repetitions} k=3 identity"
    found.setdefault(whole, Arm(name, whole, whole))
    default = FDEConfig(dimension=dimension)
    sizes = [size for size in COMPACT if size < default.vector_dimension]
    largest: EncoderConfig = dataclasses.replace(default, compact_dimension=max(sizes, default=1))
    for size in sizes:
        compact = dataclasses.replace(default, compact_dimension=size)
        found[compact] = Arm(f"compact {size:,}", compact, largest)
    largest = LearnedConfig(dimension=dimension, vector_dimension=max(LEARNED))
    for size in LEARNED:
        learned = dataclasses.replace(largest, vector_dimension=size)
        found[learned] = Arm(f"learned {size:,}", learned, largest)
    return sorted(found.values(), key=lambda arm: arm.floats)
