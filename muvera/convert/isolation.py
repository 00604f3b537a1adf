"""Reading in a child process with limits on time and memory.

Libraries written in C, C++ and Rust read some formats.  A damaged file can make them crash, loop
forever or use all memory, and no check in Python can stop that.  The child
(:mod:`muvera.convert.isolated_reader`) opens the file and sends the token vectors through a connection.
Its answers are checked here and never unpickled.

The child limits time and memory.  It is not a sandbox: it has the rights of its user.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..utils.checks import require_int, require_number
from .sources.base import Source

__all__ = ["DESCRIBED", "ERRORS", "IsolatedSource", "IsolationLimits"]

#: Attributes of a source that the child sends first.
DESCRIBED = ("name", "dimension", "num_documents", "num_tokens", "lossy", "nbits")

#: Errors of the child that keep their class, subclasses before their bases; all others become a ValueError.
ERRORS = (
    pickle.UnpicklingError, FileNotFoundError, PermissionError, BlockingIOError, OSError, ImportError,
    MemoryError, TypeError, ValueError,
)  # fmt: skip

# Errors of using an answer that the child should not send.
_INVALID = (ValueError, TypeError, KeyError, AttributeError, RecursionError)

# Size of a message with the ids of a batch.
_MAX_HEADER_BYTES = 1 << 30


@dataclass(frozen=True)
class IsolationLimits:
    """Limits of the child process.

    Parameters
    ----------
    seconds : float
        Processor time to open the source and read it once.  A batch may take four times as long by
        the clock, because other processes may use the processor.
    memory_bytes : int
        The child's own memory; memory-mapped files do not count.
    """

    seconds: float = 600.0
    memory_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        require_number("seconds", self.seconds, 1)
        require_int("memory_bytes", self.memory_bytes, 1 << 28)


class IsolatedSource(Source):
    """Source that a child process reads; links that lead out of a folder `path` are refused."""

    #: Command that starts the child; the last argument is the file descriptor of its connection.
    command: tuple[str, ...] = (sys.executable, "-m", "muvera.convert.isolated_reader")

    def __init__(
        self, path: Path, format: str | None, options: dict[str, Any], limits: IsolationLimits
    ) -> None:
        if sys.platform == "win32":
            raise OSError("isolated=True is not available on Windows, which has no process limits.")
        _require_no_links_out(path)
        self.path = path
        self.limits = limits
        self._request = {
            "path": str(path),
            "folder": str(Path.cwd()),
            "format": format,
            "options": options,
            "seconds": limits.seconds,
            "memory_bytes": limits.memory_bytes,
        }
        self._child: _Child | None = self._started()

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the source's batches as the child sends them."""
        child, self._child = self._child or self._started(), None
        try:
            child.send(max_tokens)
            while True:
                header = child.receive_object()
                with child.checking():
                    if "ids" not in header:
                        self.dropped_rows, self.note = int(header["dropped_rows"]), header["note"]
                        return
                    lengths = np.frombuffer(child.receive(), np.int64)
                    tokens = child.receive_rows(int(lengths.sum()), self.dimension, np.dtype(header["dtype"]))
                    batch = MultiVectors.from_flat(tokens, lengths, ids=header["ids"])
                yield batch
        finally:
            child.end()

    def _started(self) -> _Child:
        """Start a child, and set the attributes that it sends."""
        child = _Child(self.command, self.path, self.limits)
        try:
            child.send(self._request)
            header = child.receive_object()
            with child.checking():
                for name in DESCRIBED:
                    setattr(self, name, header[name])
                require_int("dimension", self.dimension, 1)
        except BaseException:
            child.end()
            raise
        return child


class _Child:
    """Child process and the connection to it; the process ends with this object."""

    def __init__(self, command: tuple[str, ...], path: Path, limits: IsolationLimits) -> None:
        self.path = path
        self.limits = limits
        self.connection, other = Pipe()
        with other:
            self.process = subprocess.Popen(
                [*command, str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],  # import muvera from here, not from the user's folder
            )

    def __del__(self) -> None:
        if hasattr(self, "process"):
            self.end()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def send(self, value: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # receiving the answer reports that the child ended
            self.connection.send(value)

    def receive_object(self) -> dict[str, Any]:
        """Return the child's next answer, a JSON object, or raise the error that it reports."""
        content = self.receive(_MAX_HEADER_BYTES)
        with self.checking():
            header: dict[str, Any] = dict(json.loads(content))
            if "error" not in header:
                return header
            kinds = {kind.__name__: kind for kind in ERRORS}
            error: Exception = kinds.get(header["error"], ValueError)(str(header["text"]))
            if isinstance(error, OSError):
                error.errno = header["errno"]
        raise error

    def receive(self, max_bytes: int | None = None) -> bytes:
        """Return the next message, at most as large as the child's memory."""
        try:
            self._wait()
            return self.connection.recv_bytes(max_bytes or self.limits.memory_bytes)
        except (EOFError, ConnectionResetError):
            raise self.failure(self._exit()) from None
        except OSError as error:
            if isinstance(error, ChildProcessError):
                raise
            raise self.failure("sent an invalid answer") from None

    def _wait(self) -> None:
        patience = 4 * self.limits.seconds
        if not self.connection.poll(patience):
            raise self.failure(f"sent nothing for {patience:g} seconds")

    def receive_rows(self, count: int, dimension: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the array (count, dimension) whose bytes follow, without a message around them."""
        if not 0 <= count * dimension * dtype.itemsize <= self.limits.memory_bytes:
            raise ValueError("an array larger than the child's memory")
        rows = np.empty((count, dimension), dtype)
        content = rows.view(np.uint8).reshape(-1).data
        while content:
            self._wait()
            received = os.readv(self.connection.fileno(), [content])
            if not received:
                raise self.failure(self._exit())
            content = content[received:]
        return rows

    @contextlib.contextmanager
    def checking(self) -> Iterator[None]:
        """Convert errors of using an answer to one about the child."""
        try:
            yield
        except _INVALID:
            raise self.failure("sent an invalid answer") from None

    def failure(self, reason: str) -> ChildProcessError:
        self.end()
        return ChildProcessError(
            f"{self.path} could not be read: the reading process {reason}. The file is damaged or hostile, "
            f"or needs more than {self.limits.seconds:g} seconds or {self.limits.memory_bytes >> 20} MiB."
        )

    def _exit(self) -> str:
        """Return how the child ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        code = self.process.poll()
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return "exceeded its limit of processor time or memory"
        if code is not None and code < 0:
            return f"was ended by the signal {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def _require_no_links_out(path: Path) -> None:
    """Raise ValueError for a link that leads out of the folder."""
    folder = path.resolve()
    for entry in path.rglob("*") if path.is_dir() else ():
        if entry.is_symlink() and not entry.resolve().is_relative_to(folder):
            raise ValueError(
                f"{entry} is a link out of {path}; isolated reading accepts only files in the folder. "
                "Replace the link by the file itself."
            )
