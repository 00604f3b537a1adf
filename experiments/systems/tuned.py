"""What :func:`muvera.tune` chooses: the first stage of the configuration that it finds best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from muvera import tune
from muvera.encoders.base import EncoderConfig
from muvera.encoders.registry import PRESETS, preset_config
from muvera.index.settings import IndexSettings
from muvera.mips.exact import bytes_in_memory
from muvera.tuning.result import Tuning
from muvera.tuning.tune import MIN_QUERIES

from ..known_names import require_known
from .base import Material
from .first_stage import FirstStage

__all__ = ["Tuned"]


class Tuned(FirstStage):
    """The best that tuning finds in the bytes of a preset's floats, to stand beside that preset.

    The queries that the experiment sets aside for training choose, on a sample of the documents; where these
    are too few, windows of documents choose.  One tuning serves all systems of an experiment.

    Parameters
    ----------
    in_bytes_of : str
        Preset whose floats limit the bytes of a vector.
    by_windows : bool
        Let windows of documents choose even where queries are set aside.
    sample : int
        Documents to measure on.
    candidates : int
        Depth at which recall is compared.
    """

    name: ClassVar[str] = "tuned"

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return no names: all arguments stand in the signature."""
        return ()

    def __init__(
        self, *, in_bytes_of: str, by_windows: bool = False, sample: int = 1500, candidates: int = 50
    ) -> None:
        super().__init__()
        require_known(in_bytes_of, PRESETS, "preset")
        self._preset, self._by_windows = in_bytes_of, by_windows
        self._sample_size, self._candidates = sample, candidates

    def build(self, material: Material) -> None:
        """Tune unless another system has, and build what was chosen."""
        tuning = self._tuning(material)
        limit = bytes_in_memory(
            preset_config(self._preset, material.documents.dimension).vector_dimension
        )  # without a graph, as below
        row = tuning.within(limit, by_pseudo_queries=self._by_windows and not tuning.pseudo_queries)
        self._chosen: EncoderConfig = row.config
        self._choice = row.name
        # Without the graph that "auto" may build: presets stand beside it without one, too.
        self._settings = IndexSettings(backend="exact")
        super().build(material)

    def config(self, material: Material) -> EncoderConfig:
        """Return the chosen configuration."""
        return self._chosen

    def facts(self) -> dict[str, float | str]:
        """Return what was chosen, beside the facts of its first stage."""
        return {**super().facts(), "choice": self._choice}

    def _tuning(self, material: Material) -> Tuning:
        queries = material.training_queries
        if queries is not None and len(queries) < MIN_QUERIES:
            queries = None
        settings: dict[str, Any] = {
            "candidates": min(self._candidates, len(material.documents) // 2),
            "sample": self._sample_size,
            "seed": material.seed,
            "threads": material.threads,
        }
        key = ("tuning", *sorted(settings.items()))
        if key not in material.shared:
            material.shared[key] = tune(material.documents, queries, **settings)
        found: Tuning = material.shared[key]
        return found
