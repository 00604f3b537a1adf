"""Parsers of JSON, zip members, SQLite tables, pickles of plain data and torch files.

They run no code of a file.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import operator
import pickle
import re
import sqlite3
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ..utils.arrays import load_npy, read_npy_header
from .sources import ReadError, naming_errors


def starts_with(path: Path, magic: bytes) -> bool:
    """Return True if `path` is a file that begins with these bytes."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(magic)) == magic
    except OSError:
        return False


def read_json(path: Path) -> Any:
    """Read a JSON file, which may be compressed by gzip."""
    with (
        naming_errors(str(path), "json"),
        gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream,
    ):
        return json.loads(stream.read())


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object as :func:`read_json` does."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ReadError(f"{path} must contain a JSON object, got {type(value).__name__}. Copy it again.")
    return value


def float32_of_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the numbers of bfloat16 bit patterns."""
    wide: NDArray[np.uint32] = np.left_shift(bits, np.uint32(16), dtype=np.uint32)
    return wide.view(np.float32)


_LOCAL_HEADER_BYTES = 30  # before the member's name


def stored_bytes(file: NDArray[np.uint8], member: zipfile.ZipInfo) -> NDArray[np.uint8]:
    """Return the bytes of an uncompressed member, as a view of the zip file's bytes.

    Raise ValueError if the member is compressed, encrypted or damaged.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(f"{member.filename} is compressed or encrypted")
    header: Any = file[member.header_offset : member.header_offset + _LOCAL_HEADER_BYTES]
    if member.header_offset < 0 or len(header) < _LOCAL_HEADER_BYTES or bytes(header[:4]) != b"PK\x03\x04":
        raise ValueError(f"{member.filename} has no local header")
    # Writers pad the extra field of the local header only, so that the data is aligned.
    lengths = int.from_bytes(bytes(header[26:28]), "little") + int.from_bytes(bytes(header[28:30]), "little")
    start = member.header_offset + _LOCAL_HEADER_BYTES + lengths
    if start + member.file_size > len(file):
        raise ValueError(f"{member.filename} reaches beyond the end of the file")
    return file[start : start + member.file_size]


_WAL_BYTES = slice(18, 20)  # of SQLite's header: 2 if changes go to a second file first


def open_table(file: Path, table: str, columns: Sequence[str], owner: str) -> sqlite3.Connection:
    """Open a SQLite file that has a plain table with some columns.

    See :func:`open_sqlite`.  Raise ReadError if there is no such table.
    """
    connection = open_sqlite(file, owner)
    try:
        entries = connection.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", [table]).fetchall()
        stored = set(table_columns(connection, table))
        plain = [kind == "table" and re.match(r"\s*CREATE\s+TABLE\b", sql or "") for kind, sql in entries]
        # A view or a computed column can run forever.
        if len(plain) != 1 or not plain[0] or not stored.issuperset(columns):
            raise ReadError(
                f"{file} has no table {table!r} with the columns {' and '.join(columns)}, as {owner} "
                "writes it. Copy or export it again."
            )
    except BaseException:
        connection.close()
        raise
    return connection


def quoted(name: str) -> str:
    """Return the name of a table or column as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def table_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the names of a table's columns that are stored, and not computed."""
    return [row[1] for row in connection.execute(f"PRAGMA table_xinfo({quoted(table)})") if not row[-1]]


def open_sqlite(file: Path, owner: str) -> sqlite3.Connection:
    """Open a SQLite file, without creating or changing any file.

    The caller closes the connection.  `owner` is the library that writes such files,
    for messages.  Raise ReadError if the file has unfinished changes.
    """
    for suffix in ("-wal", "-journal"):
        beside = file.with_name(file.name + suffix)
        if beside.is_file() and beside.stat().st_size:
            raise ReadError(
                f"{beside} contains unfinished changes. Open the folder once with {owner}, which "
                "finishes them, and close it."
            )
    with file.open("rb") as stream:
        wal = b"\x02" in stream.read(_WAL_BYTES.stop)[_WAL_BYTES]
    # In WAL mode even reading creates a second file, unless the database is immutable.
    uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if wal else ''}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        connection.close()
        raise
    return connection


# -- pickles of plain data --------------------------------------------------------
#
# A pickle is a program, which can run any code or use all memory.  Only the
# instructions that picklers write for plain data are run here, and only the stand-ins
# in a table of names are called.

# Layout of an instruction and its number.  Consecutive instructions with
# the same code are read as one array.
_NUMBERS = {
    code: np.dtype([("instruction", "S1"), ("value", kind)])
    for code, kind in (
        (pickle.BINFLOAT, ">f8"), (pickle.BININT1, "u1"), (pickle.BININT2, "<u2"), (pickle.BININT, "<i4"),
    )
}  # fmt: skip
_RUN = re.compile(rb"(?:G.{8})+|(?:K.)+|(?:M..)+|(?:J....)+", re.DOTALL)

# Accepted types of dict keys and set members: hashing a tuple of shared tuples can take
# 2**40 steps, and many integers of more than 64 bits can share one hash.
_KEYS = (str, bytes, int, float, bool, type(None))
_INTEGERS = range(-(2**63), 2**64)

# Fields of a dict, at most, whose lists may have arrays.
_FIELDS = 16

# Stand-ins may get this many bytes and arguments more than the pickle has bytes.
_SMALL = 1 << 16


class RefusedPickleError(ReadError, pickle.UnpicklingError):
    """Error for a pickle that names something other than plain data."""


class StandIn:
    """Replacement of an object in a pickle; ignores its arguments and its state."""

    def __init__(self, *_: object) -> None: ...

    def set_state(self, state: Any) -> None:
        """Ignore the state."""


def load_pickle(
    content: bytes,
    source: str,
    names: Mapping[str, Any],
    stored_elsewhere: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the object of a pickle of plain data.

    `names` has, for each ``"module.name"`` that the pickle may use, a plain value, or a
    function or class that returns nothing callable.  `stored_elsewhere` returns the
    object of a persistent id; by default such ids are refused.  `source` names the file
    in messages.

    Raise ReadError if the pickle is damaged or contains anything but plain data.
    """
    with naming_errors(source, "pickle of plain data"):
        return _PlainUnpickler(content, source, names, stored_elsewhere).load()


#: Instructions that Python's interpreter may run: numbers, strings, lists, tuples,
#: the memo and names.
_UNCHANGED = b"".join(
    (
        pickle.PROTO, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
        pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8,
        pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8,
        pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET, pickle.EMPTY_TUPLE,
        pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE, pickle.APPEND, pickle.APPENDS,
        pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE,
        pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID,
    )
)  # fmt: skip

_Unpickler: Any = pickle._Unpickler  # unlike the one in C, it can be limited to some instructions


class _PlainUnpickler(_Unpickler):  # type: ignore[misc]
    """Python's interpreter without the instructions that plain data does not need."""

    def __init__(
        self,
        content: bytes,
        source: str,
        names: Mapping[str, Any],
        stored_elsewhere: Callable[[Any], Any] | None,
    ) -> None:
        self.stream = io.BytesIO(content)
        super().__init__(self.stream)
        self.content = content
        self.source = source
        self.names = names
        if stored_elsewhere is not None:
            self.persistent_load = stored_elsewhere  # the default raises an error
        self.passed = 0  # bytes that were passed to stand-ins

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self.names:
            raise RefusedPickleError(
                f"{self.source} is a pickle that refers to {full[:200]}, which is not plain data, so it "
                "was not loaded. If you trust its origin, load it with the library that wrote it and "
                "save it as .npy or .json."
            )
        return self.names[full]

    def refuse(self) -> None:
        raise ValueError("it has an instruction that plain data does not need")

    def load_numbers(self) -> None:
        run = _RUN.match(self.content, self.stream.tell() - 1)
        if run is None:
            raise EOFError("it ends in a number")
        self.stack.extend(np.frombuffer(run[0], _NUMBERS[run[0][:1]])["value"].tolist())
        self.stream.seek(run.end())

    def load_bytearray(self) -> None:
        # Python's method allocates as many bytes as the pickle requires.
        size = int.from_bytes(self.read(8), "little")
        if size > len(self.content):
            raise EOFError("it ends in an array of bytes")
        self.stack.append(self.read(size))

    def load_integer(self) -> None:
        self.load_long1()
        if self.stack[-1] not in _INTEGERS:
            raise ValueError("an integer has more than 64 bits")

    def fill(self, kind: type[dict[Any, Any]] | type[set[Any]], values: list[Any]) -> None:
        """Add values to the dict or set at the top of the stack."""
        target = self.stack[-1]
        if type(target) is not kind:
            raise ValueError(f"it changes a {type(target).__name__} as a {kind.__name__}")
        for key in values[::2] if kind is dict else values:
            if type(key) not in _KEYS:
                raise ValueError(
                    "keys and members of sets must be numbers, strings, bytes or None, not "
                    f"{type(key).__name__}"
                )
        target.update(zip(values[::2], values[1::2], strict=True) if kind is dict else values)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not callable(function) or type(arguments) is not tuple:
            raise ValueError(f"it calls a {type(function).__name__}")
        # A small pickle could take all memory or time: it can pass one long string or
        # tuple to many calls.
        self.passed += len(arguments) + sum(
            len(value) for value in arguments if isinstance(value, (str, bytes))
        )
        if self.passed > len(self.content) + _SMALL:
            raise ValueError("it copies more bytes than it contains")
        self.stack.append(function(*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], StandIn):
            raise ValueError(f"it sets the state of a {type(self.stack[-1]).__name__}")
        self.stack[-1].set_state(state)

    #: Action of each instruction.
    dispatch = {  # noqa: RUF012
        **dict.fromkeys(range(256), refuse),
        **{code: _Unpickler.dispatch[code] for code in _UNCHANGED},
        **dict.fromkeys((code[0] for code in _NUMBERS), load_numbers),
        pickle.FRAME[0]: lambda self: self.read(8),  # skip the frame's size: frames are consecutive
        pickle.LONG1[0]: load_integer,
        pickle.BYTEARRAY8[0]: load_bytearray,
        pickle.SETITEM[0]: lambda self: self.fill(dict, [self.stack.pop(-2), self.stack.pop()]),
        pickle.SETITEMS[0]: lambda self: self.fill(dict, self.pop_mark()),
        pickle.ADDITEMS[0]: lambda self: self.fill(set, self.pop_mark()),
        pickle.REDUCE[0]: call,
        pickle.NEWOBJ[0]: call,
        pickle.BUILD[0]: build,
    }


class _Dtype(StandIn):
    """Stand-in for numpy.dtype: numbers, texts and objects only."""

    def __init__(self, code: str, *_: object) -> None:
        text = isinstance(code, str)
        if not text or (code != "O8" and (code[:1] not in "iufbU" or len(code) > 8)):
            # The repr of shared lists can be of any size.
            raise ValueError(
                f"it has an array with {repr(code) if text else f'a {type(code).__name__}'} as dtype"
            )
        self.dtype: np.dtype[Any] = np.dtype(object if code == "O8" else code)

    def set_state(self, state: Any) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array(StandIn):
    """Stand-in for numpy.ndarray."""

    def set_state(self, state: Any) -> None:
        _, self._shape, kind, self._columns_first, self._data = state
        self.dtype: np.dtype[Any] = kind.dtype

    def array(self) -> NDArray[Any]:
        """Return the array.

        Arrays of objects in it are refused, because many could share one list.
        """
        if self.dtype.hasobject:
            flat: NDArray[Any] = np.empty(len(self._data), object)
            for i, item in enumerate(self._data):
                if isinstance(item, _Array) and item.dtype.hasobject:
                    raise ValueError("it has an array of objects in an array")
                flat[i] = item.array() if isinstance(item, _Array) else item
        else:
            flat = np.frombuffer(self._data, self.dtype)
        return np.reshape(flat, self._shape, order="F" if self._columns_first else "C")


def _from_buffer(data: bytes, kind: _Dtype, shape: object, order: str, axes: object = None) -> _Array:
    """Return the stand-in of an array that protocol 5 wrote."""
    if axes is not None:
        raise ValueError("it has an array with its axes in another order")
    made = _Array()
    made.set_state((None, shape, kind, order == "F", data))
    return made


def _scalar(kind: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0].item()


_PLAIN: dict[str, Any] = {
    "_codecs.encode": lambda text, encoding="": text.encode("latin1"),  # how protocol 2 writes bytes
    "__builtin__.bytes": lambda: b"",  # protocol 2 writes empty bytes as a call
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
_ARRAYS: dict[str, Any] = {
    **_PLAIN,
    "numpy.ndarray": _Array,  # an argument of _reconstruct
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
}


def load_plain(content: bytes, source: str) -> Any:
    """Read a pickle of plain data, see :func:`load_pickle`.

    It may have dicts, lists, tuples, sets, strings, bytes, and numbers of Python or
    NumPy.
    """
    return load_pickle(content, source, _PLAIN)


def load_arrays(content: bytes, source: str) -> Any:
    """Read a pickle of NumPy arrays in lists, tuples or dicts, see :func:`load_pickle`.

    Return an array, a list of values, or a dict of values or of lists.  In deeper lists
    there are no arrays.
    """
    stored = load_pickle(content, source, _ARRAYS)
    with naming_errors(source, "pickle of plain data"):
        if isinstance(stored, dict):
            # A small pickle can list one long list under many keys.
            few = len(stored) <= _FIELDS
            return {key: _as_arrays(value) if few else _as_array(value) for key, value in stored.items()}
        return _as_arrays(stored)


def _as_arrays(stored: object) -> Any:
    return [_as_array(value) for value in stored] if isinstance(stored, (list, tuple)) else _as_array(stored)


def _as_array(stored: object) -> Any:
    if not isinstance(stored, _Array):
        return stored
    array = stored.array()
    return array.tolist() if array.dtype.hasobject else array


def load_npy_safely(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file.

    Numbers are memory-mapped; objects are as :func:`read_objects` returns them.
    """
    if path.is_file():
        with path.open("rb") as stream:
            if read_npy_header(stream, path.name).dtype.hasobject:
                return read_objects(stream, path.name)
    return load_npy(path)


def read_objects(stream: IO[bytes], source: str) -> NDArray[Any]:
    """Return an array of plain objects or arrays.

    NumPy pickles them after the header of a .npy file.
    """
    stored = load_pickle(stream.read(), source, _ARRAYS)
    if not isinstance(stored, _Array):
        raise ReadError(f"{source} must contain an array, got a {type(stored).__name__}. Copy it again.")
    with naming_errors(source, "pickle of plain data"):
        return stored.array()


# -- files of torch ---------------------------------------------------------------
#
# Since torch 1.6 a .pt file is a zip archive: ROOT/data.pkl describes tensors, and each
# ROOT/data/KEY is one storage.

#: NumPy's type code for each type of storage.  No storage has uint16, so "<u2" always
#: means bfloat16.
STORAGES = {
    "Float": "<f4", "Half": "<f2", "BFloat16": "<u2", "Double": "<f8", "Long": "<i8", "Int": "<i4",
    "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip

_MAX_AXES = 32


class _Storages:
    """Memory-mapped storages of a file, and the functions that describe tensors."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str) -> None:
        self._archive = archive
        self._root = root
        # One map for all storages, because each map holds a file open.
        self._file: NDArray[np.uint8] = np.memmap(path, np.uint8, "r").view(np.ndarray)
        self._room = len(self._file)
        self.names = {
            "collections.OrderedDict": lambda: {},
            "torch._utils._rebuild_tensor_v2": self._tensor,
            **{f"torch.{kind}Storage": kind for kind in STORAGES},
        }

    def storage(self, pid: Any) -> NDArray[Any]:
        """Return the numbers of a storage.

        Its persistent id is ``("storage", class, key, device, count)``.
        """
        tag, kind, key, _, _ = pid
        # Accept only strings: hashing or printing nested shared tuples can take hours.
        texts = all(isinstance(part, str) for part in (tag, kind, key))
        if not texts or tag != "storage" or kind not in STORAGES:
            raise ValueError("a reference to something other than a storage")
        content = stored_bytes(self._file, self._archive.getinfo(f"{self._root}data/{key}"))
        code = np.dtype(STORAGES[kind])
        return content[: len(content) // code.itemsize * code.itemsize].view(code)

    def _tensor(
        self, numbers: object, first: SupportsIndex, size: object, strides: object, *_: Any
    ) -> NDArray[Any]:
        if not isinstance(numbers, np.ndarray) or numbers.ndim != 1 or not numbers.flags.c_contiguous:
            raise ValueError(f"a tensor in a {type(numbers).__name__}")
        first, shape, steps = operator.index(first), _sizes(size), _sizes(strides)
        count = math.prod(shape)
        # The last number's position.  Strides of zero and overlapping tensors can
        # describe more than the file has.
        last = first + sum((s - 1) * step for s, step in zip(shape, steps, strict=True)) if count else -1
        self._room -= count * numbers.itemsize
        if min((first, *shape, *steps)) < 0 or last >= len(numbers) or self._room < 0:
            raise ValueError(
                f"a tensor of shape {shape} with strides {steps} from number {first} on, in a storage of "
                f"{len(numbers)} numbers"
            )
        view: NDArray[Any] = np.empty(shape, numbers.dtype)
        if count:
            bytes_apart = tuple(step * numbers.itemsize for step in steps)
            view = np.lib.stride_tricks.as_strided(numbers[first:], shape, bytes_apart, writeable=False)
        return float32_of_bfloat16(view) if numbers.dtype == np.uint16 else view


def _sizes(values: object) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or len(values) > _MAX_AXES:
        raise ValueError(f"a {type(values).__name__} as the shape of a tensor")
    return tuple(operator.index(value) for value in values)


def read_torch(path: Path) -> Any:
    """Return what ``torch.save`` of torch 1.6 or newer wrote.

    The file may have tensors in tuples, lists and dicts.  Tensors are views of the
    file; only bfloat16 is read, as float32.  A pickle of anything else is refused.
    Raise ReadError if the file is damaged, big-endian or compressed.
    """
    with naming_errors(str(path), "pt of torch 1.6 or newer"), zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        roots = [name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")]
        if len(roots) != 1 or len(set(members)) < len(members):
            raise ReadError(
                "it must have one data.pkl, and no two members with the same name. Copy it again."
            )
        if f"{roots[0]}byteorder" in members and _stored(archive, f"{roots[0]}byteorder") != b"little":
            raise ReadError("it is big-endian. Save it on a little-endian machine.")
        storages = _Storages(path, archive, roots[0])
        description = _stored(archive, f"{roots[0]}data.pkl")
        return load_pickle(description, path.name, storages.names, storages.storage)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member that is not compressed, as torch writes it.

    A compressed one can unpack to any size.
    """
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ReadError(f"{name} is compressed, which torch never does. Copy it again.")
    return archive.read(name)


def read_array(path: Path) -> NDArray[Any]:
    """Return the only tensor of a ``.pt`` file, memory-mapped."""
    value = read_torch(path)
    if not isinstance(value, np.ndarray):
        raise ReadError(f"{path} must contain one tensor, got {type(value).__name__}. Copy it again.")
    return value
