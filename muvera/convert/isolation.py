"""Reading in a child process with limits on time and memory.

Libraries written in C, C++ and Rust read some formats.  A damaged file can make them crash, loop
forever or use all memory, and no check in Python can stop that.  The child
(:mod:`muvera.convert.isolated_reader`) opens the file and sends the token vectors through a pipe.
Its answers are checked here and never unpickled.

The child limits time and memory.  It is no sandbox: it has the rights of its user.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..utils.checks import require_int, require_number
from .sources.base import Source

__all__ = [
    "BatchHeader",
    "EndHeader",
    "ErrorHeader",
    "IsolatedSource",
    "IsolationLimits",
    "SourceHeader",
    "encoded",
]

# Errors of the child keep these classes; every other error becomes a ValueError.
_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        ValueError, TypeError, MemoryError, ImportError, FileNotFoundError, PermissionError, BlockingIOError,
        OSError, pickle.UnpicklingError,
    )
}  # fmt: skip

_INVALID = "sent an invalid answer"

# A header contains the ids of a batch.
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


@dataclass(frozen=True)
class SourceHeader:
    """Answer to opening: the attributes of a :class:`~muvera.convert.Source`."""

    name: str
    dimension: int
    num_documents: int | None
    num_tokens: int | None
    lossy: bool
    nbits: int | None

    def __post_init__(self) -> None:
        _require(isinstance(self.name, str) and isinstance(self.lossy, bool))
        _require(_is_count(self.dimension) and self.dimension > 0)
        for value in (self.num_documents, self.num_tokens, self.nbits):
            _require(value is None or _is_count(value))


@dataclass(frozen=True)
class BatchHeader:
    """Header of a batch; its lengths (int64) and tokens follow as bytes."""

    documents: int
    rows: int
    dtype: str
    ids: list[Any] | None

    def __post_init__(self) -> None:
        _require(_is_count(self.documents) and _is_count(self.rows))
        _require(self.dtype in ("float32", "float16") and (self.ids is None or isinstance(self.ids, list)))


@dataclass(frozen=True)
class EndHeader:
    """End of the batches."""

    dropped_rows: int
    note: str | None

    def __post_init__(self) -> None:
        _require(_is_count(self.dropped_rows) and (self.note is None or isinstance(self.note, str)))


@dataclass(frozen=True)
class ErrorHeader:
    """An error instead of any other answer; `number` is the system's errno."""

    kind: str
    text: str
    number: int | None

    def __post_init__(self) -> None:
        _require(isinstance(self.kind, str) and isinstance(self.text, str))
        _require(self.number is None or _is_count(self.number))


Header = SourceHeader | BatchHeader | EndHeader | ErrorHeader

_HEADERS = {header.__name__: header for header in (SourceHeader, BatchHeader, EndHeader, ErrorHeader)}


def encoded(header: Header) -> bytes:
    """Return a header as bytes: its length in 8 bytes, then JSON."""
    content = json.dumps({"header": type(header).__name__, **asdict(header)}).encode()
    return len(content).to_bytes(8, "little") + content


def _decoded(content: Any) -> Header:
    """Return the header that the JSON value describes; raise ValueError or TypeError if it is invalid."""
    _require(isinstance(content, dict) and content.get("header") in _HEADERS)
    kind: Any = _HEADERS[content.pop("header")]
    header: Header = kind(**content)
    return header


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("The reading process sent an invalid header.")


class IsolatedSource(Source):
    """Source that a child process reads.

    Parameters
    ----------
    path : Path
        A file or folder.  Links that lead out of the folder are refused.
    format : str, optional
        The name of its format.  Default: the child detects it.
    options : dict
        For the format's reader.
    limits : IsolationLimits

    Raises
    ------
    ChildProcessError
        If the child crashed or exceeded a limit: the file is damaged or hostile, or the limits are
        too low.
    ValueError, TypeError, OSError, MemoryError, ImportError, pickle.UnpicklingError
        As the child's reader raised them.
    """

    #: Command that starts the child.
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
                header = self._receive_header(child)
                if isinstance(header, EndHeader):
                    self.dropped_rows, self.note = header.dropped_rows, header.note
                    return
                if not isinstance(header, BatchHeader):
                    raise self._failure(child, _INVALID)
                yield self._receive_batch(child, header)
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
        """Start the child, and return its description of the source."""
        self._child = subprocess.Popen(
            self.command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],  # import muvera from here, not from the user's folder
        )
        try:
            request = pickle.dumps(self._request)
            _send(self._child, len(request).to_bytes(8, "little") + request)
            header = self._receive_header(self._child)
            if not isinstance(header, SourceHeader):
                raise self._failure(self._child, _INVALID)
            return header
        except BaseException:
            self.close()
            raise

    def _receive_header(self, child: subprocess.Popen[bytes]) -> Header:
        """Return the child's next header, or raise the error that it reports."""
        length = int.from_bytes(self._receive(child, 8), "little")
        if length > _MAX_HEADER_BYTES:
            raise self._failure(child, _INVALID)
        try:
            header = _decoded(json.loads(self._receive(child, length)))
        except (ValueError, TypeError, RecursionError):
            raise self._failure(child, _INVALID) from None
        if isinstance(header, ErrorHeader):
            error = _ERRORS.get(header.kind, ValueError)(header.text)
            if isinstance(error, OSError):
                error.errno = header.number
            raise error
        return header

    def _receive_batch(self, child: subprocess.Popen[bytes], header: BatchHeader) -> MultiVectors:
        dtype = np.dtype(header.dtype)
        size = header.rows * self.dimension * dtype.itemsize
        if size + 8 * header.documents > self.limits.memory_bytes:
            raise self._failure(child, _INVALID)
        lengths = np.frombuffer(self._receive(child, 8 * header.documents), np.int64)
        tokens = np.frombuffer(self._receive(child, size), dtype).reshape(header.rows, self.dimension)
        try:
            return MultiVectors.from_flat(tokens, lengths, ids=header.ids)
        except (ValueError, TypeError):
            raise self._failure(child, _INVALID) from None

    def _receive(self, child: subprocess.Popen[bytes], size: int) -> bytearray:
        """Return the next `size` bytes from the child, within the time limit."""
        stream: Any = child.stdout
        content = bytearray(size)
        view, filled = memoryview(content), 0
        patience = 4 * self.limits.seconds
        deadline = time.monotonic() + patience
        while filled < size:
            if not select.select([stream], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise self._failure(child, f"sent nothing for {patience:g} seconds")
            count = stream.readinto(view[filled:])
            if not count:
                raise self._failure(child, "")
            filled += count
        return content

    def _failure(self, child: subprocess.Popen[bytes], reason: str) -> ChildProcessError:
        """End the child, and return the error; without a reason, its exit code gives one."""
        if not reason:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            code = child.poll()
            if code in (-signal.SIGXCPU, -signal.SIGKILL):
                reason = "exceeded its limit of processor time or memory"
            elif code is not None and code < 0:
                reason = f"was ended by the signal {signal.Signals(-code).name}"
            else:
                reason = f"ended with exit code {code}"
        _end(child)
        return ChildProcessError(
            f"{self.path} could not be read: the reading process {reason}. The file is damaged or hostile, "
            f"or needs more than {self.limits.seconds:g} seconds or {self.limits.memory_bytes >> 20} MiB."
        )


def _send(child: subprocess.Popen[bytes], content: bytes) -> None:
    stream: Any = child.stdin
    view = memoryview(content)
    with contextlib.suppress(BrokenPipeError):  # reading the answer reports that the child ended
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
    """Raise ValueError for a link that leads out of the folder."""
    folder = path.resolve()
    for entry in path.rglob("*") if path.is_dir() else ():
        if entry.is_symlink() and not entry.resolve().is_relative_to(folder):
            raise ValueError(
                f"{entry} is a link out of {path}; isolated reading accepts only files in the folder. "
                "Replace the link by the file itself."
            )
