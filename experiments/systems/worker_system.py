"""Base class of systems that work in a process of another library."""

from __future__ import annotations

from typing import ClassVar

from ..peers.environments import PEERS, Worker
from .base import Family, Material, System

__all__ = ["WorkerSystem"]


class WorkerSystem(System):
    """A library that runs in an environment and a process of its own.

    Attributes
    ----------
    library : str
        As in :data:`experiments.peers.environments.PEERS`.
    worker : Worker
        The process, once it was prepared.
    folder : Path
        Where inputs and results are passed on, once it was built.
    """

    family: ClassVar[Family] = "peer"
    own_process: ClassVar[bool] = True
    library: ClassVar[str]
    _worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """The library's process.

        Raises
        ------
        RuntimeError
            Before it was started.
        """
        if self._worker is None:
            raise RuntimeError(f"{self.library} has no process yet. Call prepare or build first.")
        return self._worker

    def prepare(self, material: Material) -> None:
        """Make the library's environment where it is missing, start its process and import it there."""
        self._worker = Worker(PEERS[self.library], material.folder, material.cache)
        self._worker.time("load")

    def build(self, material: Material) -> None:
        """Prepare the process unless that has been done."""
        super().build(material)
        self.folder = material.folder
        if self._worker is None:
            self.prepare(material)

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()
