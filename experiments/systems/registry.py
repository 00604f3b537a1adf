"""Systems by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from ..known_names import require_known
from .base import System

__all__ = ["SYSTEMS", "SystemRegister"]


class SystemRegister(Mapping[str, type[System]]):
    """Systems by name; a module is imported when its system is first asked for."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places: dict[str, str | type[System]] = dict(places)

    def register(self, name: str, system: str | type[System]) -> None:
        """Add a system: its class, or ``module:Class`` with the module's name below experiments.systems."""
        self._places[name] = system

    def unregister(self, name: str) -> None:
        """Take a system out again."""
        del self._places[name]

    def __getitem__(self, name: str) -> type[System]:
        require_known(name, self._places, "system")
        place = self._places[name]
        if not isinstance(place, str):
            return place
        module, _, class_name = place.partition(":")
        try:
            found = getattr(import_module(f"experiments.systems.{module}"), class_name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"The system {name!r} needs {error.name}: pip install 'muvera-toolkit[experiments]'.",
                name=error.name,
            ) from error
        system: type[System] = found
        return system

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


#: Name of a system -> its class.
SYSTEMS = SystemRegister(
    {
        "exhaustive": "exhaustive:Exhaustive",
        "muvera": "muvera_index:Muvera",
        "fde": "first_stage:FirstStage",
        "tuned": "tuned:Tuned",
        "two_parts": "two_parts:TwoParts",
        "reranking": "exact_ranking:ExactRanking",
        "bm25": "bm25:BM25",
        "pooled": "pooled:Pooled",
        "hybrid": "hybrid:Hybrid",
        "single_vector": "single_vector:SingleVector",
        "xtr": "xtr:XTR",
        "plaid": "plaid:Plaid",
        "tachiom": "tachiom:Tachiom",
        "warp": "warp:Warp",
        "qdrant": "qdrant:Qdrant",
        "fastembed": "peer_fde:Fastembed",
        "muvfde": "peer_fde:Muvfde",
        "muvera_python": "peer_fde:MuveraPython",
    }
)
