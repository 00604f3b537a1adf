"""Systems by name."""

from __future__ import annotations

from .base import System
from .baselines import Exhaustive, Pooled, Views
from .distractors import Distractors
from .k_means_cells import KMeansCells
from .library import Carving, FirstStage, Muvera
from .peers import Lemur, Plaid, Qdrant, Tachiom, Warp
from .sparse import Coil, Splade
from .texts import BM25, Hybrid, Texts
from .token_search import XTR, SingleVector

#: Name of a system -> its class.
SYSTEMS: dict[str, type[System]] = {
    system.name: system
    for system in (
        *(Exhaustive, Muvera, FirstStage, KMeansCells, Carving, BM25, Splade, Hybrid, Texts, Pooled, Views),
        *(Coil, Distractors),
        *(SingleVector, XTR, Plaid, Tachiom, Warp, Qdrant, Lemur),
    )
}
