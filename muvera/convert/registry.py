"""The readable formats, and detection of a path's format.

A path can be read in a resource-limited child process.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.multivectors import MultiVectors
from ..utils.checks import as_path, require_choice, require_int, require_number
from ..utils.hints import Argument, Hint, Message, message_of
from .readers import arrow, colbert, containers, duckdb, json_lines, pickles, qdrant, sqlite
from .readers.in_memory import open_object
from .sources import IF_TEXTS, FlatSource, Reader, Source, naming_errors, naming_errors_of

#: Reader by format, in the order of detection: an index comes before the formats of its
#: files.
READERS: dict[str, Reader] = {
    entry.name: entry
    for module in (colbert, qdrant, containers, json_lines, arrow, pickles, sqlite, duckdb)
    for entry in module.READERS
}

#: Endings of files of embeddings and texts; an output may have only that of its format.
ENDINGS = (
    *(".arrow", ".csv", ".db", ".duckdb", ".feather", ".gz", ".h5", ".hdf5", ".json", ".jsonl", ".lance"),
    *(".ndjson", ".npy", ".npz", ".parquet", ".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".sqlite"),
    *(".sqlite3", ".tsv", ".txt", ".zarr"),
)


@dataclass(frozen=True)
class IsolationLimits:
    """Limits of the child process.

    Parameters
    ----------
    seconds : float
        Processor time to read the source once.  The limit on wall time is four times as
        long, because other processes may use the processor.
    memory_bytes : int
        Memory of the child; memory-mapped files do not count.
    """

    seconds: float = 600.0
    memory_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        require_number("seconds", self.seconds, 1)
        require_int("memory_bytes", self.memory_bytes, 1 << 28)


def formats() -> dict[str, str]:
    """Return the name of every readable format, with the files that identify it.

    Returns
    -------
    dict of str
        By name, in the order of detection.
    """
    return {name: entry.description for name, entry in READERS.items()}


def find_reader(path: Path, format: str | None = None) -> Reader:
    """Return the reader of a format, which by default is detected from the files.

    Raise FileNotFoundError if the path does not exist, and ValueError if the format is
    unknown.
    """
    if not path.exists():
        as_path(path)  # refuses a URL
        raise FileNotFoundError(
            f"{path} does not exist. Give a file or folder of embeddings; encode texts with your model first."
        )
    if format is not None:
        name = format.lower().replace("-", "_")
        require_choice("format", name, READERS)
        return READERS[name]
    for entry in READERS.values():
        if entry.matches(path):
            return entry
    content = f" {IF_TEXTS}"
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir()) or ["nothing"]
        content = f" It contains {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."
    raise ValueError(
        Message(
            f"{path} is in no known format.{content} ",
            Hint("list_formats", "muvera.convert.formats()"),
            " lists the known ones. If it is in one of them under other file names, give ",
            Argument("format", ""),
            ".",
        )
    )


def open_source(
    path_or_object: object,
    format: str | None = None,
    *,
    isolated: bool | IsolationLimits = False,
    **options: Any,
) -> Source:
    """Return the source of a path, or of embeddings in memory.

    Parameters
    ----------
    path_or_object : path or object
        A str is a path.  A :class:`Source` is returned unchanged.
    format : str, optional
        A key of :data:`READERS`.  Default: detected from the path.
    isolated : bool or IsolationLimits
        As for :func:`~muvera.convert.read`, which raises the same errors.
    **options
        Options of the format's reader; see its ``open_source``.

    Returns
    -------
    Source

    Raises
    ------
    FileNotFoundError, ValueError, TypeError, OSError, MemoryError, ImportError,
    ChildProcessError
        As for :func:`~muvera.convert.read`.
    """
    kind = type(path_or_object).__name__
    if not isinstance(path_or_object, (str, os.PathLike)):
        if isolated or format is not None:
            both = Argument("isolated", "True"), " and ", Argument("format", "")
            raise TypeError(Message(*both, f" need a path, but got {kind}, which is in memory."))
        if isinstance(path_or_object, Source):
            _check_options(options, [], path_or_object.name)
            return path_or_object
        _check_options(options, ["mask", "ids"], "memory")
        return open_object(path_or_object, **options)
    path = Path(path_or_object).expanduser()
    if isolated:
        limits = IsolationLimits() if isolated is True else isolated
        return NamedSource(isolated_source(path, format, options, limits), str(path))
    entry = find_reader(path, format)
    _check_options(options, entry.options, entry.name)
    with naming_errors(str(path), entry.name):
        return NamedSource(entry.open_source(path, **options), str(path))


class NamedSource(Source):
    """Wrapper of a reader's source whose errors name the file.

    It refuses numbers that are not finite.
    """

    def __init__(self, source: Source, place: str) -> None:
        if source.dimension < 1:
            raise ValueError("its token vectors have no columns")
        self.source = source
        self.place = place
        for name in ("name", "dimension", "num_documents", "num_tokens", "lossy", "nbits", "plaid"):
            setattr(self, name, getattr(source, name))

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the source's batches; see :meth:`Source.batches`."""
        require_int("max_tokens", max_tokens, 1)
        count = 0
        for batch in naming_errors_of(self.source.batches(max_tokens), self.place, self.name):
            self.dropped_rows = self.source.dropped_rows
            batch.require_finite(first=count, place=self.place)
            count += len(batch)
            yield batch


def _check_options(options: dict[str, Any], known: list[str], name: str) -> None:
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise TypeError(f"The {name} reader has no option {option!r}; {has}.")


# -- isolation --------------------------------------------------------------------
#
# A damaged file can make a library in C or Rust crash, loop or use all memory.  A child
# converts it to a folder of .npy files, which are read as any other untrusted files.
# The child is not a sandbox: it has the rights of its user.

# Errors of the child that keep their class, subclasses before their bases; all others
# become a ValueError.
_ERRORS = (
    pickle.UnpicklingError, FileNotFoundError, PermissionError, OSError, ImportError, MemoryError, TypeError,
    ValueError,
)  # fmt: skip

#: Command that starts the child; the last argument is the request.
_COMMAND = (sys.executable, "-c", "from muvera.convert import convert, registry; registry.answer(convert)")


def isolated_source(
    path: Path,
    format: str | None,
    options: dict[str, Any],
    limits: IsolationLimits,
    command: Sequence[str] = _COMMAND,
) -> Source:
    """Read `path` in a child process, and return its vectors.

    They are in memory-mapped temporary files.  `path` must not have links to other
    files.  `command` starts the child; the request is its last argument.

    Raise ChildProcessError if the child crashed or exceeded its limits, and the error
    of the child if reading failed there.
    """
    if sys.platform == "win32":
        raise OSError(
            Message(
                Argument("isolated", "True"),
                " needs process limits, which Windows does not have. Omit it for files that you trust.",
            )
        )
    _require_no_links_out(path)
    with tempfile.TemporaryDirectory(prefix="muvera-") as folder:
        request = {
            "path": str(path.absolute()),
            "folder": folder,
            "options": {**options, "format": format},
            "limits": asdict(limits),
        }
        reason = _run(command, json.dumps(request), limits)
        try:
            report = json.loads(Path(folder, "report.json").read_bytes())
            if "error" not in report:
                # The memory map keeps the files after the folder is removed.
                source = FlatSource.of(MultiVectors.load(Path(folder, "tokens")), str(report["format"]))
                source.lossy, source.nbits = bool(report["lossy"]), report["nbits"]
                source.dropped_rows = int(report["dropped_rows"])
                return source
            kinds = {kind.__name__: kind for kind in _ERRORS}
            error: Exception = kinds.get(report["error"], ValueError)(Message.from_json(report["text"]))
            if isinstance(error, OSError):
                error.errno = report["errno"]
        except Exception:
            raise ChildProcessError(
                Message(
                    f"{path} could not be read: the reading process {reason}. The file is damaged or "
                    f"hostile, or needs more than {limits.seconds:g} seconds or "
                    f"{limits.memory_bytes >> 20} MiB. If you trust it, ",
                    Hint("raise_limits", "raise the limits with isolated=IsolationLimits(...)"),
                    ".",
                )
            ) from None
    raise error


def _run(command: Sequence[str], request: str, limits: IsolationLimits) -> str:
    """Run the child, and return a clause about how it ended."""
    patience = 4 * limits.seconds
    try:
        done = subprocess.run(
            [*command, request],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],  # import muvera from here, not from the user's folder
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {patience:g} seconds"
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "exceeded its limit of processor time or memory"
    if done.returncode < 0:
        return f"was ended by the signal {signal.Signals(-done.returncode).name}"
    return f"ended with exit code {done.returncode}" if done.returncode else "gave an invalid answer"


def _require_no_links_out(path: Path) -> None:
    """Raise ValueError for a link to a file outside the folder."""
    folder = path.resolve()
    for entry in path.rglob("*") if path.is_dir() else ():
        if entry.is_symlink() and not entry.resolve().is_relative_to(folder):
            raise ValueError(
                f"{entry} is a link out of {path}; isolated reading accepts only files in the folder. "
                "Replace the link with the file itself."
            )


def answer(convert: Callable[..., Any]) -> None:
    """Child entry point: run the request in ``sys.argv[-1]``, write report.json."""
    request = json.loads(sys.argv[-1])
    folder = Path(request["folder"])
    _limit_process(IsolationLimits(**request["limits"]), shutil.disk_usage(folder).free // 2)
    try:
        done = convert(request["path"], folder / "tokens", **request["options"])
        reported = ("format", "lossy", "nbits", "dropped_rows")
        report: dict[str, Any] = {name: getattr(done, name) for name in reported}
    except Exception as error:
        kind = next((kind.__name__ for kind in _ERRORS if isinstance(error, kind)), "")
        report = {"error": kind, "text": message_of(error).to_json(), "errno": getattr(error, "errno", None)}
    Path(folder, "report.json").write_text(json.dumps(report))


def _limit_process(limits: IsolationLimits, file_bytes: int) -> None:
    import resource

    spent = resource.getrusage(resource.RUSAGE_SELF)  # processor time of the imports
    values = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(spent.ru_utime + spent.ru_stime + limits.seconds),
        # Own memory only, so that a file of any size can be mapped.
        resource.RLIMIT_DATA: limits.memory_bytes,
        # A hostile file may contain few bytes and many tokens, which must not fill the
        # disk.
        resource.RLIMIT_FSIZE: file_bytes,
    }
    for limit, value in values.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
