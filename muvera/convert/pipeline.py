"""Stream a source into memory, into a file, or into a report only.

Measure the documents batch by batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..data.batches import CodedSource, coded_source
from ..data.multivectors import MULTIVECTORS_FILES, MultiVectors
from ..data.validation import read_only_view
from ..kernels.rows import measure_rows
from ..utils.checks import as_path, counted, require_choice
from ..utils.hints import Argument, Message
from .plaid_writer import PLAID_FILES, write_codes, write_plaid
from .registry import ENDINGS, IsolationLimits, open_source
from .sources import naming_errors_of
from .transforms import Options
from .writers import Gathered, Writer, new_target, write_npy, write_npz, write_parquet, write_safetensors

#: Writer of each format.
WRITERS: dict[str, Writer] = {
    "npy": Writer(write_npy, MULTIVECTORS_FILES),
    "npz": Writer(write_npz),
    "safetensors": Writer(write_safetensors),
    "parquet": Writer(write_parquet),
    "plaid": Writer(write_plaid, PLAID_FILES, ("nbits", "bucket_means")),
}

_BATCH_BYTES = 64 * 2**20

_Batch = TypeVar("_Batch")


def read(
    path_or_object: object,
    format: str | None = None,
    *,
    isolated: bool | IsolationLimits = False,
    **options: Any,
) -> MultiVectors:
    """Read existing token embeddings into memory.

    Parameters
    ----------
    path_or_object : path or object
        An index, a file, a folder, or a vector store's folder; an encoder's output; or
        a :class:`~muvera.convert.Source`.
    format : str, optional
        One of :func:`~muvera.convert.formats`.  Default: detected.
    isolated : bool or IsolationLimits
        Read in a child process with limits on time and memory.  Use it for files you do
        not trust.  True uses the default limits.
    **options
        Options of :class:`~muvera.convert.Options`, and of the format's reader.

    Returns
    -------
    MultiVectors

    Raises
    ------
    FileNotFoundError, ValueError, OSError, MemoryError, pickle.UnpicklingError
        For a missing, damaged or unknown file, in a sentence that names it.
    TypeError
        For an option that the reader does not have, and for an object without token
        vectors.
    ImportError
        If the format's library is missing.
    ChildProcessError
        If the isolated process crashed or exceeded its limits.

    Examples
    --------
    >>> import numpy as np
    >>> padded = np.zeros((2, 3, 4), np.float32)
    >>> padded[0], padded[1, 1:] = 2, 1
    >>> read(padded, ids=["a", "b"], normalize=True)
    MultiVectors(2 texts, 5 tokens, dimension=4, float32)
    """
    stream = _Stream(path_or_object, format, isolated, options)
    # An unchanged source is read in one batch, which is not copied: a memory map stays
    # a memory map.
    max_tokens = None if stream.report.options else stream.source.num_tokens or None
    batches = [documents for _, documents in stream.transformed(max_tokens)]
    if len(batches) == 1:
        return batches[0]
    try:
        return MultiVectors.concatenate(batches)
    except (ValueError, TypeError) as error:  # two batches may contain the same id
        raise type(error)(f"{stream.place}: {error}") from error


def survey(path_or_object: object, *, isolated: bool | IsolationLimits = False, **options: Any) -> Report:
    """Read everything once and report on it, without keeping it.

    Parameters
    ----------
    path_or_object : path or object
        As for :func:`read`.
    isolated : bool or IsolationLimits
        As for :func:`read`.
    **options
        As for :func:`read`.

    Returns
    -------
    Report

    Raises
    ------
    FileNotFoundError, ValueError, TypeError, OSError, MemoryError, ImportError,
    ChildProcessError
        As for :func:`read`.
    """
    stream = _Stream(path_or_object, None, isolated, options)
    for _ in stream.batches():
        pass
    return stream.report


def convert(
    source: object,
    target: str | os.PathLike[str],
    to: str = "npy",
    *,
    format: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
    max_tokens: int | None = None,
    isolated: bool | IsolationLimits = False,
    **options: Any,
) -> Report:
    """Write existing token embeddings in one of the neutral formats.

    Only one batch is in memory at a time, however large the source.  The target is
    created only when it is complete; a conversion that fails or is interrupted leaves
    no files.

    Parameters
    ----------
    source : path or object
        As for :func:`read`.
    target : path
        A folder for ``"npy"`` and ``"plaid"``, a file for the other formats.
    to : {"npy", "npz", "safetensors", "parquet", "plaid"}
        ``"npy"`` is the format that :meth:`MultiVectors.load` and the index map into
        memory. ``"plaid"`` is an index that ColBERT searches.
    format : str, optional
        The source's format.  Default: detected.
    overwrite : bool
        Replace an existing target.
    progress : bool
        Show a progress bar on standard error.
    max_tokens : int, optional
        Tokens per batch.  Default: 64 MiB of float32.
    isolated : bool or IsolationLimits
        As for :func:`read`; this process writes the target.
    **options
        Options of :class:`~muvera.convert.Options`, of the format's reader, and of the
        writer.  ``"plaid"`` has `nbits`, 1, 2 (default), 4 or 8 bits per coordinate,
        and `bucket_means`: decode a bucket to the mean of its values, which loses less
        than ColBERT's midpoint.  Without options, PLAID codes are written unchanged.

    Returns
    -------
    Report
        What was read, dropped and written.

    Raises
    ------
    FileExistsError
        If `target` exists and `overwrite` is False, or it contains something else.
    FileNotFoundError, ValueError, TypeError, OSError, MemoryError, ImportError,
    ChildProcessError
        As for :func:`read`; also an OSError if the target cannot be written.
    """
    destination = as_path(target, "target", "folder or file").expanduser()
    require_choice("to", to, WRITERS)
    require_ending(destination, to, WRITERS)
    writer = WRITERS[to]
    writer_options = {name: options.pop(name) for name in writer.options if name in options}
    stream = _Stream(source, format, isolated, options)
    if to == "plaid":
        stream.report.written = Measure(directions_only=True)
    changed = bool(writer_options or stream.report.options)
    coded = None if to != "plaid" or changed else coded_source(stream.source)
    with new_target(destination, overwrite, writer.files) as path:
        if coded is None:
            batches = stream.with_progress(stream.batches(max_tokens), progress)
            writer.write(Gathered(batches, stream.place), path, **writer_options)
        else:
            codes = stream.with_progress(stream.coded_batches(coded, max_tokens), progress)
            codec = coded.centroids, coded.bucket_weights
            write_codes(codes, *codec, path, stream.place, stream.source.plaid)
    stream.report.to, stream.report.target = to, str(target)
    return stream.report


def require_ending(target: Path, to: str, written: Iterable[str]) -> None:
    """Raise ValueError for a target with the ending of another format than `to`."""
    ending = target.suffix.lower()
    named = ending[1:]
    if named == to or ending not in {*ENDINGS, *(f".{name}" for name in written)}:
        return
    if named in written:
        advice: tuple[Argument | str, ...] = ("Give ", Argument("to", repr(named)), " or another name.")
    else:
        advice = (f"Files of that kind are not written: choose among {', '.join(written)} with ",)
        advice += (Argument("to", ""), ", or give another name.")
    raise ValueError(Message(f"{target} has the ending {ending}, but would be {to}. ", *advice))


class _Stream:
    """A source, the transforms of its documents, and the report on both."""

    def __init__(
        self, value: object, format: str | None, isolated: bool | IsolationLimits, options: dict[str, Any]
    ) -> None:
        transforms = {field.name for field in fields(Options)}
        self.steps = Options(**{name: option for name, option in options.items() if name in transforms})
        others = {name: option for name, option in options.items() if name not in transforms}
        self.source = source = open_source(value, format, isolated=isolated, **others)
        self.report = Report(source.name, source.lossy, source.nbits, self.steps.changed())
        if not self.report.options:
            self.report.written = self.report.read
        #: The source in messages: its file, if it has one.
        self.place = str(getattr(source, "place", source.name))

    def transformed(self, max_tokens: int | None = None) -> Iterator[tuple[MultiVectors, MultiVectors]]:
        """Yield batches before and after the transforms.

        An empty source yields one empty batch with its dimension.
        """
        source = self.source
        count = 0
        batch = None
        for batch in source.batches(self._batch_tokens(max_tokens)):
            batch.require_finite(first=count, place=self.place)
            documents, dropped = self.steps.apply(batch, count)
            self.report.dropped_rows += dropped
            count += len(batch)
            yield batch, documents
        if batch is None:
            batch = MultiVectors(np.empty((0, source.dimension), np.float32), [0])
            yield batch, self.steps.apply(batch)[0]
        self.report.dropped_rows += source.dropped_rows

    def batches(self, max_tokens: int | None = None) -> Iterator[MultiVectors]:
        """Yield the transformed documents, and measure them."""
        for batch, documents in self.transformed(max_tokens):
            self._measure(batch, documents)
            yield documents

    def coded_batches(
        self, coded: CodedSource, max_tokens: int | None
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents with their codes, unchanged."""
        batches = coded.coded_batches(self._batch_tokens(max_tokens))
        for documents, numbers, packed in naming_errors_of(batches, self.place, self.source.name):
            self._measure(documents, documents)
            yield documents, numbers, packed

    def _measure(self, batch: MultiVectors, documents: MultiVectors) -> None:
        self.report.read.add(batch)
        if self.report.written is not self.report.read:  # without transforms, one measure is enough
            self.report.written.add(documents)

    def _batch_tokens(self, max_tokens: int | None) -> int:
        return max(1, _BATCH_BYTES // (4 * self.source.dimension)) if max_tokens is None else max_tokens

    def with_progress(self, batches: Iterator[_Batch], shown: bool) -> Iterator[_Batch]:
        """Yield the batches under a progress bar.

        The bar counts tokens, or texts if the number of tokens is unknown.
        """
        source = self.source
        read = self.report.read
        by_token = source.num_tokens is not None
        total = source.num_tokens if by_token else source.num_documents
        unit = " tokens" if by_token else " texts"
        with tqdm(total=total, unit=unit, unit_scale=True, desc=source.name, disable=not shown) as bar:
            for batch in batches:
                bar.update((read.tokens if by_token else read.documents) - bar.n)
                yield batch


# -- reports ----------------------------------------------------------------------

# A norm this close to 1 counts as normalized; this is the rounding error of bfloat16.
_TOLERANCE = 4e-3


class Measure:
    """Counts and norms over all batches; they do not depend on the batch size.

    Parameters
    ----------
    directions_only : bool
        Only count: an index that stores directions has no norms and no dtype.
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
        """Count and measure the documents of a batch.

        Parameters
        ----------
        batch : MultiVectors
            Documents that were not counted yet.
        """
        self.documents += len(batch)
        self.tokens += batch.num_tokens
        self.empty += int((batch.lengths == 0).sum())
        self.dimension = batch.dimension
        dtype = batch.tokens.dtype
        self.dtype = str(dtype if not self.dtype else np.promote_types(self.dtype, dtype))
        self.ids = ("int" if batch.ids.dtype.kind == "i" else "str") if batch.has_ids else None
        if not self.directions_only:
            measure_rows(read_only_view(np.ascontiguousarray(batch.tokens, np.float32)), self._totals)

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
        """True if all tokens have unit length within 0.004.

        None without measured tokens.
        """
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
            f"{counted(self.documents, 'document')}, {counted(self.tokens, 'token')}, dimension "
            f"{self.dimension}, "
            f"{dtype}, {ids}\n         {norms}, {counted(self.empty, 'empty document')}{zero}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON.

        Returns
        -------
        dict
        """
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
    lossy : bool
        True if the source is quantized.
    nbits : int or None
        Bits per coordinate of a quantized source.
    options : dict
        The transforms that were applied.
    read, written : Measure
        Before and after the transforms.
    dropped_rows : int
        Padding rows skipped by the reader or dropped by `drop_zero_rows`.
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
    to: str | None = None
    target: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, ready for JSON.

        Returns
        -------
        dict
        """
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
        return "\n".join(lines)
