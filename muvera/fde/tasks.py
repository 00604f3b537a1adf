"""Step: a part of an encoder; run_tasks: fill one row per text, for any split alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..utils.parallel import require_threads, run_in_ranges, split_by_weight
from .arrays import EncoderArrays
from .config import FDEConfig
from .graph import Texts, Value
from .kernels import Tokens
from .steps import LearnedProjection

__all__ = [
    "ArrayClasses", "CellStep", "FitSample", "Rows", "Side", "Step", "Texts", "Tokens", "Value", "new_rows",
    "run_tasks",
]  # fmt: skip

#: The two sides of a search.
Side = Literal["documents", "queries"]

#: A float32 row per text, (n, any).
Rows = NDArray[np.float32]

#: Writes rows for the texts start..stop.
Write = Callable[[Tokens, int, int, Rows], None]

#: Tokens per task: enough to hide the cost of starting it, few enough to balance
#: threads.
TASK_TOKENS = 2048

#: Classes of arrays by name.
ArrayClasses = dict[str, type[EncoderArrays]]

# Texts per task with a learned projection.  With more, a map is read less often; with
# fewer, long vectors fit into the cache.
_PROJECTED_TEXTS = 16

# Number of bytes that a thread writes in a task.
_TASK_BYTES = 64 << 20


def run_tasks(
    write: Write,
    texts: MultiVectors,
    out: Rows,
    threads: int | None = None,
    tokens: int = TASK_TOKENS,
    most: int | None = None,
) -> Rows:
    """Fill `out`, float32 (n, any width), one row per text, and return it.

    ``write(tokens, start, stop, rows)`` writes the rows of texts start..stop.  A task
    has about `tokens` tokens, and at most `most` texts.
    """
    arrays = Tokens(*as_kernel_arrays(texts), texts.offsets)
    if len(texts) == 1:  # one task; planning it takes as long as some encoders do
        require_threads(threads)
        write(arrays, 0, 1, out)
        return out
    ranges = split_by_weight(texts.offsets, tokens, most or max(1, len(texts)))
    run_in_ranges(lambda start, stop: write(arrays, start, stop, out[start:stop]), ranges, threads)
    return out


def new_rows(write: Write, texts: MultiVectors, width: int, *task: Any) -> Rows:
    """Return a new array (n, width) that :func:`run_tasks` fills; it takes `task`."""
    return run_tasks(write, texts, np.empty((len(texts), width), np.float32), *task)


class FitSample(NamedTuple):
    """What an encoder is fitted to.

    All `documents` have tokens.  Only the learned projection reads the `others`.
    `mean` is the mean token of all documents (d,), or zeros if no step reads it.
    """

    documents: MultiVectors
    queries: MultiVectors
    others: MultiVectors
    mean: NDArray[np.float32]
    threads: int | None


class Step(ABC):
    """One step of an encoder, made from its `value` in the configuration.

    It calls the step `before` it, if there is one, so the last step writes whole
    vectors.  Each of its arrays is an attribute, which is missing before the fit unless
    it is drawn.
    """

    array_classes: ClassVar[ArrayClasses]

    def __init__(self, value: Any, config: FDEConfig, arrays: dict[str, Any], before: Step | None) -> None:
        self.value, self.config, self.before = value, config, before
        for name in self.needed(value):
            if name in arrays:
                arrays[name].require_shape(config)
                setattr(self, name, arrays[name])

    @classmethod
    def needed(cls, value: Any) -> ArrayClasses:
        """Return the classes of the arrays that a value needs."""
        return cls.array_classes

    @property
    def arrays(self) -> dict[str, EncoderArrays]:
        """The drawn and fitted arrays by name."""
        return {name: getattr(self, name) for name in self.needed(self.value) if hasattr(self, name)}

    def fit(self, sample: FitSample) -> None:  # noqa: B027
        """Fit the arrays that are not drawn, after the steps before."""

    @property
    def columns(self) -> int:
        """Floats of a text that this step and those before it write."""
        return self.config.vector_dimension

    @cached_property
    def most_texts(self) -> int:
        """Largest number of texts of a task."""
        learned = isinstance(self.config.projection, LearnedProjection)
        return _PROJECTED_TEXTS if learned else max(1, _TASK_BYTES // (4 * self.config.long_dimension))

    @abstractmethod
    def write(self, side: Side, tokens: Tokens, start: int, stop: int, out: Rows) -> None:
        """Write texts start..stop; documents without tokens may get any vector."""

    @abstractmethod
    def onnx(self, side: Side, texts: Texts) -> Value:
        """Add nodes that compute what :meth:`write` writes, float32 (b, any)."""

    def rows(self, side: Side, texts: MultiVectors, threads: int | None, tokens: int = TASK_TOKENS) -> Rows:
        """Return what :meth:`write` writes for all texts; a task has about `tokens`."""
        return new_rows(partial(self.write, side), texts, self.columns, threads, tokens, self.most_texts)


class CellStep(Step):
    """A step that writes cells: only these have a weight, which moments give them."""

    @property
    def columns(self) -> int:
        """Floats of all cells."""
        return self.config.cell_dimension

    @abstractmethod
    def write(self, side: Side, tokens: Tokens, start: int, stop: int, out: Rows, weight: float = 1) -> None:
        """Write `weight` times the cells of texts start..stop."""

    @abstractmethod
    def onnx(self, side: Side, texts: Texts, weight: float = 1) -> Value:
        """Return `weight` times the cells."""
