"""Systems by name."""

from __future__ import annotations

from .base import System
from .baselines import Exhaustive, Pooled
from .library import ExactRanking, FirstStage, Muvera, Tuned
from .peers import Fastembed, Lemur, MuveraPython, Muvfde, Plaid, ProductCodes, Qdrant, Tachiom, Warp
from .texts import BM25, Hybrid, Texts
from .token_systems import SingleVector

__all__ = ["SYSTEMS"]

#: Name of a system -> its class.
SYSTEMS: dict[str, type[System]] = {
    system.name: system
    for system in (
        *(Exhaustive, Muvera, FirstStage, Tuned, ExactRanking, BM25, Hybrid, Texts, Pooled, SingleVector),
        *(Plaid, Tachiom, Warp, Qdrant, Lemur, ProductCodes, Fastembed, Muvfde, MuveraPython),
    )
}
