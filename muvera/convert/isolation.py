"""Reading in a child process with limits on time and memory.

Libraries written in C, C++ and Rust read some formats.  A damaged file can make them crash, loop
forever or use all memory, and no check in Python can stop that.  The child converts the file to a temporary
folder of .npy files.  This process reads them as any other untrusted files, so it unpickles nothing.

The child limits its time and memory.  It is not a sandbox: it has the rights of its user.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.multivectors import MultiVectors
from ..utils.checks import require_int, require_number
from .sources import FlatSource, Source

# Errors of the child that keep their class, subclasses before their bases; all others become a ValueError.
_ERRORS = (
    pickle.UnpicklingError, FileNotFoundError, PermissionError, OSError, ImportError, MemoryError, TypeError,
    ValueError,
)  # fmt: skip

#: Command that starts the child; the last argument is the request.
_COMMAND = (sys.executable, "-c", "from muvera.convert import convert, isolation; isolation.answer(convert)")


@dataclass(frozen=True)
class IsolationLimits:
    """Limits of the child process.

    Parameters
    ----------
    seconds : float
        Processor time to read the source once.  The limit on wall time is four times as long, because other
        processes may use the processor.
    memory_bytes : int
        The child's own memory; memory-mapped files do not count.
    """

    seconds: float = 600.0
    memory_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        require_number("seconds", self.seconds, 1)
        require_int("memory_bytes", self.memory_bytes, 1 << 28)


def isolated_source(
    path: Path,
    format: str | None,
    options: dict[str, Any],
    limits: IsolationLimits,
    command: Sequence[str] = _COMMAND,
) -> Source:
    """Read `path` in a child process, and return its vectors; if `path` is a folder, refuse links out of it."""
    if sys.platform == "win32":
        raise OSError(
            "isolated=True (--isolated) needs process limits, which Windows does not have. Omit it for files that you "
            "trust."
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
                source.note = " ".join(report["notes"]) or None
                return source
            kinds = {kind.__name__: kind for kind in _ERRORS}
            error: Exception = kinds.get(report["error"], ValueError)(str(report["text"]))
            if isinstance(error, OSError):
                error.errno = report["errno"]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ChildProcessError(
                f"{path} could not be read: the reading process {reason}. The file is damaged or hostile, "
                f"or needs more than {limits.seconds:g} seconds or {limits.memory_bytes >> 20} MiB. If you trust it, "
                "raise the limits with isolated=IsolationLimits(...) (--time-limit, --memory-limit)."
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


# -- the child --------------------------------------------------------------------


def answer(convert: Callable[..., Any]) -> None:
    """Convert a file to a folder with :func:`muvera.convert.convert`, as the last argument requests; report on it."""
    request = json.loads(sys.argv[-1])
    folder = Path(request["folder"])
    _limit_process(IsolationLimits(**request["limits"]), shutil.disk_usage(folder).free // 2)
    try:
        done = convert(request["path"], folder / "tokens", **request["options"])
        reported = ("format", "lossy", "nbits", "dropped_rows", "notes")
        report: dict[str, Any] = {name: getattr(done, name) for name in reported}
    except Exception as error:
        kind = next((kind.__name__ for kind in _ERRORS if isinstance(error, kind)), "")
        report = {"error": kind, "text": str(error), "errno": getattr(error, "errno", None)}
    Path(folder, "report.json").write_text(json.dumps(report))


def _limit_process(limits: IsolationLimits, file_bytes: int) -> None:
    import resource

    spent = resource.getrusage(resource.RUSAGE_SELF)  # by the imports
    values = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(spent.ru_utime + spent.ru_stime + limits.seconds),
        # Own memory only, so that a file of any size can be mapped.
        resource.RLIMIT_DATA: limits.memory_bytes,
        # A hostile file may contain few bytes and many tokens, which must not fill the disk.
        resource.RLIMIT_FSIZE: file_bytes,
    }
    for limit, value in values.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
