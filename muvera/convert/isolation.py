"""Reading in a child process with limits on time and memory.

Libraries written in C, C++ and Rust read some formats.  A damaged file can make them crash, loop
forever or use all memory, and no check in Python can stop that.  The child
(:mod:`muvera.convert.isolated_reader`) opens the file and sends the token vectors through a pipe.
Its answers are checked here and never unpickled.

The child limits time and memory.  It is not a sandbox: it has the rights of its user.
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
from .sources.base import Source

__all__ = ["IsolatedSource", "IsolationLimits", "encode_header"]

# Errors of the child keep these classes; every other error becomes a ValueError.
_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        ValueError, TypeError, MemoryError, ImportError, FileNotFoundError, PermissionError, BlockingIOError,
        OSError, pickle.UnpicklingError,
    )
}  # fmt: skip

# Types of the fields of the child's headers.  "batch" is followed by its lengths (int64) and tokens as bytes.
_NONE = type(None)
_HEADERS: dict[str, dict[str, tuple[type, ...]]] = {
    "source": {
        "name": (str,), "dimension": (int,), "num_documents": (int, _NONE), "num_tokens": (int, _NONE),
        "lossy": (bool,), "nbits": (int, _NONE),
    },
    "batch": {"documents": (int,), "rows": (int,), "dtype": (str,), "ids": (list, _NONE)},
    "end": {"dropped_rows": (int,), "note": (str, _NONE)},
    "error": {"kind": (str,), "text": (str,), "errno": (int, _NONE)},
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


def encode_header(header: str, **fields: Any) -> bytes:
    """Return a header as bytes: its length in 8 bytes, then JSON."""
    content = json.dumps({"header": header, **fields}).encode()
    return len(content).to_bytes(8, "little") + content


def _decode_header(content: bytearray) -> tuple[str, dict[str, Any]]:
    """Return the name and the fields of a header; raise ValueError if it is invalid."""
    fields = json.loads(content)
    name = fields.pop("header", None) if isinstance(fields, dict) else None
    expected = _HEADERS.get(name) if isinstance(name, str) else None
    if expected is None or fields.keys() != expected.keys():
        raise ValueError("an unknown header")
    for field, kinds in expected.items():
        value = fields[field]
        if type(value) not in kinds or (isinstance(value, int) and value < 0):
            raise ValueError(f"a wrong {field}")
    return str(name), fields


class IsolatedSource(Source):
    """Source that a child process reads; links that lead out of a folder `path` are refused."""

    #: Command that starts the child.
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
        self._child: subprocess.Popen[bytes] | None = None
        for name, value in self._start().items():
            setattr(self, name, value)

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the source's batches as the child sends them."""
        if self._child is None:
            self._start()
        child, self._child = self._child, None
        assert child is not None
        try:
            _send(child, b"%d\n" % max_tokens)
            while True:
                name, header = self._receive_header(child, "batch", "end")
                if name == "end":
                    self.dropped_rows, self.note = header["dropped_rows"], header["note"]
                    return
                yield self._receive_batch(child, **header)
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

    def _start(self) -> dict[str, Any]:
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
            header = self._receive_header(self._child, "source")[1]
            if header["dimension"] == 0:
                raise self._failure(self._child, _INVALID)
            return header
        except BaseException:
            self.close()
            raise

    def _receive_header(self, child: subprocess.Popen[bytes], *names: str) -> tuple[str, dict[str, Any]]:
        """Return the child's next header, one of `names`, or raise the error that it reports."""
        length = int.from_bytes(self._receive(child, 8), "little")
        if length > _MAX_HEADER_BYTES:
            raise self._failure(child, _INVALID)
        try:
            name, header = _decode_header(self._receive(child, length))
        except (ValueError, RecursionError):
            raise self._failure(child, _INVALID) from None
        if name == "error":
            error = _ERRORS.get(header["kind"], ValueError)(header["text"])
            if isinstance(error, OSError):
                error.errno = header["errno"]
            raise error
        if name not in names:
            raise self._failure(child, _INVALID)
        return name, header

    def _receive_batch(
        self, child: subprocess.Popen[bytes], documents: int, rows: int, dtype: str, ids: list[Any] | None
    ) -> MultiVectors:
        if dtype not in ("float32", "float16"):
            raise self._failure(child, _INVALID)
        size = rows * self.dimension * np.dtype(dtype).itemsize
        if size + 8 * documents > self.limits.memory_bytes:
            raise self._failure(child, _INVALID)
        lengths = np.frombuffer(self._receive(child, 8 * documents), np.int64)
        tokens = np.frombuffer(self._receive(child, size), dtype).reshape(rows, self.dimension)
        try:
            return MultiVectors.from_flat(tokens, lengths, ids=ids)
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
