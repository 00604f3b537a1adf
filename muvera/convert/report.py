"""Report of a conversion: counts and norms of the documents, measured batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.validation import read_only_view
from ..kernels.norms import measure_rows
from ..utils.checks import counted

# A norm this close to 1 counts as normalized; this is the rounding error of bfloat16.
_TOLERANCE = 4e-3

_ROWS_AT_ONCE = 65536


class Measure:
    """Counts and norms over all batches; they do not depend on the batch size.

    With `directions_only`, documents are only counted: an index that stores directions has no norms and no dtype.
    """

    def __init__(self, directions_only: bool = False) -> None:
        self.directions_only = directions_only
        self.documents = 0
        self.tokens = 0
        self.empty = 0
        self.dimension = 0
        self.dtype = ""
        self.ids: str | None = None
        self._totals = np.array([0.0, 0.0, np.inf, -np.inf, 0.0, 0.0])

    def add(self, batch: MultiVectors) -> None:
        """Count `batch`."""
        self.documents += len(batch)
        self.tokens += batch.num_tokens
        self.empty += int((batch.lengths == 0).sum())
        self.dimension = batch.dimension
        dtype = batch.tokens.dtype
        self.dtype = str(dtype if not self.dtype else np.promote_types(self.dtype, dtype))
        self.ids = ("int" if batch.ids.dtype.kind == "i" else "str") if batch.has_ids else None
        for start in range(0, 0 if self.directions_only else batch.num_tokens, _ROWS_AT_ONCE):
            rows = batch.tokens[start : start + _ROWS_AT_ONCE]
            measure_rows(read_only_view(np.ascontiguousarray(rows, np.float32)), self._totals)

    @property
    def zero_rows(self) -> int:
        """Tokens that are entirely zero."""
        return int(self._totals[5])

    @property
    def norms(self) -> tuple[float, float, float] | None:
        """Minimum, mean and maximum norm of the nonzero tokens; None without any."""
        count, total, least, greatest = self._totals[:4]
        return (float(least), float(total / count), float(greatest)) if count else None

    @property
    def normalized(self) -> bool | None:
        """True if all tokens have unit length within 0.004; None without measured tokens."""
        if not (self._totals[0] or self.zero_rows):
            return None
        return bool(self._totals[4] <= _TOLERANCE and not self.zero_rows)

    @property
    def text(self) -> str:
        """Counts and norms as two readable lines."""
        ids = f"{self.ids} ids" if self.ids else "positions as ids"
        dtype = "only directions" if self.directions_only else self.dtype
        norms = "no norms"
        if self.norms is not None:
            shown = " / ".join(f"{norm:.4f}" for norm in self.norms)
            norms = f"norms {shown} (min / mean / max), {'' if self.normalized else 'not '}normalized"
        zero = f", {counted(self.zero_rows, 'zero row')}" if self.zero_rows else ""
        return (
            f"{counted(self.documents, 'document')}, {counted(self.tokens, 'token')}, dimension {self.dimension}, "
            f"{dtype}, {ids}\n         {norms}, {counted(self.empty, 'empty document')}{zero}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "dimension": self.dimension,
            "dtype": None if self.directions_only else self.dtype,
            "ids": self.ids or "positions",
            "empty_documents": self.empty,
            "zero_rows": self.zero_rows,
            "norms": self.norms and dict(zip(("min", "mean", "max"), self.norms, strict=True)),
            "normalized": self.normalized,
        }


@dataclass
class Report:
    """Report of a conversion.

    Parameters
    ----------
    format : str
        The source's format.
    lossy, nbits
        True if the source is quantized, and its bits per coordinate.
    options : dict
        The transforms that were applied.
    read, written : Measure
        Before and after the transforms.
    dropped_rows : int
        Padding rows skipped by the reader or dropped by `drop_zero_rows`.
    notes : list of str
        Remarks of the reader.
    to, target : str, optional
        Format and path that were written.
    """

    format: str
    lossy: bool = False
    nbits: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    read: Measure = field(default_factory=Measure)
    written: Measure = field(default_factory=Measure)
    dropped_rows: int = 0
    notes: list[str] = field(default_factory=list)
    to: str | None = None
    target: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, ready for JSON."""
        return {**vars(self), "read": self.read.to_dict(), "written": self.written.to_dict()}

    @property
    def text(self) -> str:
        """The report as readable lines."""
        quantized = f", {self.nbits} bits per coordinate" if self.nbits else ""
        kind = f"lossy{quantized}" if self.lossy else "exact"
        lines = [f"read     {self.format} ({kind}): {self.read.text}"]
        if self.dropped_rows:
            lines.append(f"dropped  {counted(self.dropped_rows, 'padding row')}")
        if self.options:
            lines.append("options  " + ", ".join(f"{name}={value}" for name, value in self.options.items()))
        if self.target is not None:
            lines.append(f"wrote    {self.target} ({self.to}): {self.written.text}")
        return "\n".join([*lines, *(f"note     {note}" for note in self.notes)])
