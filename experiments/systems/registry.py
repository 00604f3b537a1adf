"""Systems by name."""

from __future__ import annotations

from .base import System
from .baselines import Exhaustive, Pooled
from .library import FirstStage, Muvera
from .peers import Lemur, Plaid, Qdrant, Tachiom, Warp
from .texts import BM25, Hybrid, Texts

#: Name of a system -> its class.
SYSTEMS: dict[str, type[System]] = {
    system.name: system
    for system in (
        *(Exhaustive, Muvera, FirstStage, BM25, Hybrid, Texts, Pooled),
        *(Plaid, Tachiom, Warp, Qdrant, Lemur),
    )
}
