"""The ways of a source in batches: into memory, into a file, or counted alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..data.batches import CodedSource, coded_source
from ..data.multivectors import MultiVectors
from .damage import naming_errors
from .isolation import IsolationLimits
from .registry import open_source, writer, writer_options
from .report import Report
from .sources.arrays import require_finite
from .sources.base import Source
from .transforms.options import Options, option_names

__all__ = ["convert", "read", "survey"]

_BYTES_A_BATCH = 64 * 2**20

_Batch = TypeVar("_Batch")


def read(
    path_or_object: Any,
    format: str | None = None,
    *,
    isolated: bool | IsolationLimits = False,
    **options: Any,
) -> MultiVectors:
    """Return existing token embeddings as a collection in memory.

    Parameters
    ----------
    path_or_object : path or object
        An index, a file, a folder or a vector store's; what an encoder returned; or a
        :class:`~muvera.convert.Source`.
    format : str, optional
        One of :func:`~muvera.convert.formats`.  Default: found out.
    isolated : bool or IsolationLimits
        Read in a child process with limits on time and memory, as files from strangers should
        be.  True stands for the default limits.
    **options
        Those of :class:`~muvera.convert.Options`, and of the format's reader.

    Raises
    ------
    FileNotFoundError, ValueError, OSError, MemoryError, pickle.UnpicklingError
        For what is missing, damaged or in no known format, in a sentence that names it.
    TypeError
        For an option that the reader does not have, and for what holds no token vectors.
    ImportError
        Where the format's library is missing.
    ChildProcessError
        Where the isolated process was ended.

    Examples
    --------
    >>> import numpy as np
    >>> padded = np.zeros((2, 3, 4), np.float32)
    >>> padded[0], padded[1, 1:] = 2, 1
    >>> read(padded, ids=["a", "b"], normalize=True)
    MultiVectors(2 texts, 5 tokens, dimension=4, float32)
    """
    source, steps = _open(path_or_object, format, isolated, options)
    # Unchanged, a source in one batch is not copied: a memory map stays one.
    whole = None if steps.given() else source.num_tokens or None
    parts = list(_stream(source, steps, _report(source, steps), whole))
    if len(parts) == 1:
        return parts[0]
    with naming_errors(_place(source), source.name):  # an id may stand in two batches
        return MultiVectors.concatenate(parts)


def survey(
    path_or_object: Any,
    format: str | None = None,
    *,
    isolated: bool | IsolationLimits = False,
    **options: Any,
) -> Report:
    """Read everything once and report on it, keeping nothing.

    Parameters
    ----------
    path_or_object, format, isolated, **options
        As for :func:`read`.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError, OSError, MemoryError, ImportError
        As for :func:`read`.
    """
    source, steps = _open(path_or_object, format, isolated, options)
    report = _report(source, steps)
    for _ in _stream(source, steps, report):
        pass
    return report


def convert(
    source: Any,
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

    Batch after batch goes through, so that memory holds one at a time, however large the
    source.  The target appears under its name when it is complete; work that fails or is
    interrupted leaves nothing there.

    Parameters
    ----------
    source : path or object
        As for :func:`read`.
    target : path
        A folder for ``"npy"`` and ``"plaid"``, a file for the other formats.
    to : {"npy", "npz", "safetensors", "parquet", "plaid"}
        ``"npy"`` is what :meth:`MultiVectors.load` and the index read, memory-mapped.  ``"plaid"`` is an
        index that ColBERT searches.
    format : str, optional
        The source's.  Default: found out.
    overwrite : bool
        Replace an existing target.
    progress : bool
        Show a bar on the error output.
    max_tokens : int, optional
        Tokens in a batch.  Default: as many as are 64 MiB of float32.
    isolated : bool or IsolationLimits
        As for :func:`read`; the target is written by this process.
    **options
        Those of :class:`~muvera.convert.Options`, of the format's reader, and of the writer: ``"plaid"`` has
        `nbits` and `bucket_means`, see :func:`muvera.convert.writers.plaid.write`.  Without these, the codes
        of a source that has such are written as they are.

    Returns
    -------
    Report
        What was read, dropped and written.

    Raises
    ------
    FileExistsError
        Where `target` exists and `overwrite` is False, or it holds something else.
    FileNotFoundError, ValueError, TypeError, OSError, MemoryError, ImportError, ChildProcessError
        As for :func:`read`; an OSError also where the target cannot be written.
    """
    destination = Path(target).expanduser()
    module = writer(to)
    writing = {name: options.pop(name) for name in writer_options(module) if name in options}
    opened, steps = _open(source, format, isolated, options)
    report = _report(opened, steps)
    common: dict[str, Any] = {"overwrite": overwrite, "place": _place(opened)}
    show = partial(_with_progress, source=opened, report=report) if progress else iter
    write_codes = getattr(module, "write_codes", None)
    coded = coded_source(opened)
    if write_codes is None or writing or steps.given() or coded is None:
        module.write(show(_stream(opened, steps, report, max_tokens)), destination, **common, **writing)
    else:
        batches = _coded_stream(coded, opened, report, max_tokens)
        write_codes(show(batches), coded.centroids, coded.bucket_weights, destination, **common)
    report.to, report.target = module.NAME, str(target)
    return report


def _open(
    value: Any, format: str | None, isolated: bool | IsolationLimits, options: dict[str, Any]
) -> tuple[Source, Options]:
    """Open the source with its options, and return ours apart."""
    ours = {name: options[name] for name in option_names() & options.keys()}
    others = {name: option for name, option in options.items() if name not in ours}
    steps = Options(**ours)
    return open_source(value, format, isolated=isolated, **others), steps


def _place(source: Source) -> str:
    """Return what messages call a source: its file, where it has one."""
    return str(getattr(source, "place", getattr(source, "path", source.name)))


def _report(source: Source, steps: Options) -> Report:
    return Report(source.name, source.lossy, source.nbits, steps.given())


def _stream(
    source: Source, steps: Options, report: Report, max_tokens: int | None = None
) -> Iterator[MultiVectors]:
    for batch in _at_least_one(source, _batch_tokens(source, max_tokens)):
        require_finite(batch, _place(source), report.read.documents)
        # Measured before the options, which name documents by how many came before.
        before = report.read.documents, report.read.tokens
        report.read.add(batch)
        result, dropped = steps.apply(batch, *before)
        report.dropped_rows += dropped
        report.written.add(result)
        yield result
    steps.done(report.read.tokens)
    report.dropped_rows += int(getattr(source, "dropped_rows", 0))
    note = getattr(source, "note", None)
    report.notes.extend([note] if note else [])


def _coded_stream(
    coded: CodedSource, source: Source, report: Report, max_tokens: int | None
) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
    """Yield documents with their codes, as they are."""
    with naming_errors(_place(source), source.name):
        for documents, numbers, packed in coded.coded_batches(_batch_tokens(source, max_tokens)):
            report.read.add(documents)
            report.written.add(documents)
            yield documents, numbers, packed


def _batch_tokens(source: Source, given: int | None) -> int:
    return max(1, _BYTES_A_BATCH // (4 * source.dimension)) if given is None else given


def _at_least_one(source: Source, max_tokens: int) -> Iterator[MultiVectors]:
    """Yield the batches, or an empty one where there are none, which carries the dimension on."""
    batch = None
    for batch in source.batches(max_tokens):
        yield batch
    if batch is None:
        yield MultiVectors(np.empty((0, source.dimension), np.float32), [0])


def _with_progress(batches: Iterator[_Batch], source: Source, report: Report) -> Iterator[_Batch]:
    """Yield the batches under a bar that counts tokens, or texts where those are not known."""
    by_token = source.num_tokens is not None
    total = source.num_tokens if by_token else source.num_documents
    unit = " tokens" if by_token else " texts"
    with tqdm(total=total, unit=unit, unit_scale=True, desc=source.name) as bar:
        for batch in batches:
            bar.update((report.read.tokens if by_token else report.read.documents) - bar.n)
            yield batch
