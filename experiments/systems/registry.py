"""Systems by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from ..known_names import require_known
from .base import System

__all__ = ["SYSTEMS", "SystemRegister"]


class SystemRegister(Mapping[str, type[System]]):
    """Systems by name; a module is imported when its system is used first."""

    def __init__(self, modules: dict[str, tuple[str, ...]]) -> None:
        self._modules = {name: module for module, names in modules.items() for name in names}
        self._classes: dict[str, type[System]] = {}

    def register(self, name: str, system: type[System]) -> None:
        """Add a system."""
        self._classes[name] = system

    def unregister(self, name: str) -> None:
        """Remove an added system."""
        del self._classes[name]

    def __getitem__(self, name: str) -> type[System]:
        require_known(name, self, "system")
        if name not in self._classes:
            try:
                module = import_module(f"experiments.systems.{self._modules[name]}")
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    f"The system {name!r} needs {error.name}: pip install 'muvera-toolkit[experiments]'.",
                    name=error.name,
                ) from error
            classes = [entry for entry in vars(module).values() if isinstance(entry, type)]
            systems = [entry for entry in classes if issubclass(entry, System)]
            self._classes[name] = next(entry for entry in systems if getattr(entry, "name", "") == name)
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._modules, *self._classes]))

    def __len__(self) -> int:
        return len(list(iter(self)))


#: Name of a system -> its class, by the modules that define them.
SYSTEMS = SystemRegister(
    {
        "baselines": ("exhaustive", "pooled"),
        "library": ("muvera", "fde", "tuned", "reranking"),
        "texts": ("bm25", "hybrid", "texts"),
        "token_systems": ("single_vector",),
        "peers": ("plaid", "tachiom", "warp", "qdrant", "fastembed", "muvfde", "muvera_python", "pq"),
    }
)
