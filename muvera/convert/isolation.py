"""Reading in a child process with limits: what ends, hangs or fills the child leaves this one whole.

Libraries that are written in C, C++ and Rust read some formats, and a damaged file can make them
end the process, loop for ever or take all memory, which no check in Python can stop.  The child
(:mod:`muvera.convert.isolated_reader`) opens the file and sends the token vectors through a pipe;
what it sends is data, checked here and never unpickled.

The child bounds time and memory.  It is no sandbox: it has the rights of its user.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..utils.checks import require_int, require_number
from .isolation_headers import BatchHeader, EndHeader, ErrorHeader, Header, SourceHeader, header_of

__all__ = ["IsolatedSource", "IsolationLimits"]

#: Errors of the child that are raised here under their own kind; all others are ValueErrors.
_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        ValueError, TypeError, MemoryError, ImportError, FileNotFoundError, PermissionError, BlockingIOError,
        OSError, pickle.UnpicklingError,
    )
}  # fmt: skip

_NONSENSE = "sent what is no answer"

#: Longest header that is believed: it holds a batch's ids.
_LONGEST_HEADER = 1 << 30


@dataclass(frozen=True)
class IsolationLimits:
    """What the child process may take.

    Parameters
    ----------
    seconds : float
        Processor time for opening the source and reading it once; four times as much on the
        clock for each batch, because other processes may have the processor.
    memory_bytes : int
        Memory of its own; files that it maps do not count.
    """

    seconds: float = 600.0
    memory_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        require_number("seconds", self.seconds, 1)
        require_int("memory_bytes", self.memory_bytes, 1 << 28)


class IsolatedSource:
    """A file or folder as a source that a child process reads.

    Parameters
    ----------
    path : Path
        Links in it that lead outside are refused.
    format : str, optional
        The name of its format.  Default: found out, by the child.
    options : dict
        For the format's reader.
    limits : IsolationLimits

    Raises
    ------
    ChildProcessError
        Where the child ended, with the reason: the file is damaged or hostile, or the limits
        are too low.
    ValueError, TypeError, OSError, MemoryError, ImportError, pickle.UnpicklingError
        As the child's reader raised them.
    """

    #: What starts the child.
    command: tuple[str, ...] = (sys.executable, "-m", "muvera.convert.isolated_reader")

    def __init__(
        self, path: Path, format: str | None, options: dict[str, Any], limits: IsolationLimits
    ) -> None:
        if sys.platform == "win32":
            raise OSError("isolated=True needs limits for a process, which Windows does not have.")
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
        self._child: subprocess.Popen[bytes] | None = None
        self.note: str | None = None
        self.dropped_rows = 0
        header = self._start()
        self.name = header.name
        self.dimension = header.dimension
        self.num_documents = header.num_documents
        self.num_tokens = header.num_tokens
        self.lossy = header.lossy
        self.nbits = header.nbits

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the source's batches as the child sends them.

        Raises
        ------
        ChildProcessError, ValueError, TypeError, OSError, MemoryError, pickle.UnpicklingError
            As for the source itself.
        """
        if self._child is None:
            self._start()
        child, self._child = self._child, None
        assert child is not None
        try:
            _send(child, b"%d\n" % max_tokens)
            while True:
                header = self._header(child)
                if isinstance(header, EndHeader):
                    self.dropped_rows, self.note = header.dropped_rows, header.note
                    return
                if not isinstance(header, BatchHeader):
                    raise self._died(child, _NONSENSE)
                yield self._batch(child, header)
        finally:
            _end(child)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            _end(self._child)
            self._child = None

    def __del__(self) -> None:
        if getattr(self, "_child", None) is not None:
            self.close()

    def _start(self) -> SourceHeader:
        """Start the child, and return what it says of the source."""
        self._child = subprocess.Popen(
            self.command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],  # the modules are found here, whatever the user's folder has
        )
        try:
            request = pickle.dumps(self._request)
            _send(self._child, len(request).to_bytes(8, "little") + request)
            header = self._header(self._child)
            if not isinstance(header, SourceHeader):
                raise self._died(self._child, _NONSENSE)
            return header
        except BaseException:
            self.close()
            raise

    def _header(self, child: subprocess.Popen[bytes]) -> Header:
        """Return the child's next answer, or raise the error that it tells."""
        length = int.from_bytes(self._take(child, 8), "little")
        if length > _LONGEST_HEADER:
            raise self._died(child, _NONSENSE)
        try:
            header = header_of(json.loads(self._take(child, length)))
        except (ValueError, TypeError, RecursionError):
            raise self._died(child, _NONSENSE) from None
        if isinstance(header, ErrorHeader):
            error = _ERRORS.get(header.kind, ValueError)(header.text)
            if isinstance(error, OSError):
                error.errno = header.number
            raise error
        return header

    def _batch(self, child: subprocess.Popen[bytes], header: BatchHeader) -> MultiVectors:
        dtype = np.dtype(header.dtype)
        size = header.rows * self.dimension * dtype.itemsize
        if size + 8 * header.documents > self.limits.memory_bytes:
            raise self._died(child, _NONSENSE)
        lengths = np.frombuffer(self._take(child, 8 * header.documents), np.int64)
        tokens = np.frombuffer(self._take(child, size), dtype).reshape(header.rows, self.dimension)
        try:
            return MultiVectors.from_flat(tokens, lengths, ids=header.ids)
        except (ValueError, TypeError):
            raise self._died(child, _NONSENSE) from None

    def _take(self, child: subprocess.Popen[bytes], size: int) -> bytearray:
        """Return the next bytes that the child sends, in the time there is."""
        stream: Any = child.stdout
        content = bytearray(size)
        view, taken = memoryview(content), 0
        patience = 4 * self.limits.seconds
        ends = time.monotonic() + patience
        while taken < size:
            if not select.select([stream], [], [], max(ends - time.monotonic(), 0))[0]:
                raise self._died(child, f"sent nothing for {patience:g} seconds")
            count = stream.readinto(view[taken:])
            if not count:
                raise self._died(child, "")
            taken += count
        return content

    def _died(self, child: subprocess.Popen[bytes], why: str) -> ChildProcessError:
        """Return the error for a child that ended, or end one that did not."""
        if not why:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            code = child.poll()
            if code in (-signal.SIGXCPU, -signal.SIGKILL):
                why = "took more processor time or memory than it may"
            elif code is not None and code < 0:
                why = f"was ended by the signal {signal.Signals(-code).name}"
            else:
                why = f"ended with exit code {code}"
        _end(child)
        return ChildProcessError(
            f"{self.path} could not be read: the process that read it {why}. The file is damaged or hostile, "
            f"or needs more than {self.limits.seconds:g} seconds or {self.limits.memory_bytes >> 20} MiB."
        )


def _send(child: subprocess.Popen[bytes], content: bytes) -> None:
    stream: Any = child.stdin
    view = memoryview(content)
    with contextlib.suppress(BrokenPipeError):  # that it ended is seen where its answer is awaited
        while view:
            view = view[stream.write(view) :]


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    child.wait()


def _require_no_links_out(path: Path) -> None:
    """Raise ValueError for a link in a folder that leads outside of it."""
    inside = path.resolve()
    for entry in path.rglob("*") if path.is_dir() else ():
        if entry.is_symlink() and not entry.resolve().is_relative_to(inside):
            raise ValueError(
                f"{entry} is a link out of {path}; isolated reading takes only what lies in the folder. "
                "Put the file itself in its place."
            )
