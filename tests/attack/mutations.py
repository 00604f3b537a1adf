"""Seeded damage to a copy of a file or folder.

Random bytes, or wrong values inside an intact container.
"""

import gzip
import hashlib
import io
import json
import pickle
import random
import re
import shutil
import sqlite3
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from muvera.utils.atomic_files import content_checksum, described_file

Damage = Callable[[bytes, random.Random], bytes]

#: File that exists in the working directory if a pickle ran a program.
MARKER = "ran-a-program"

#: Whole numbers at which sums wrap, allocations fail and signs change.
NUMBERS = (0, 1, -1, 3, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**48, 2**62, 2**63 - 1, -(2**63))


def mutate(sample: Path, name: str, number: int) -> str:
    """Damage a copy of the sample called `name`.

    The same name and number cause the same damage.
    """
    rng = random.Random(f"{name}/{number}")
    files = sorted(path for path in [sample, *sample.rglob("*")] if path.is_file())
    file = rng.choice(files)
    if len(files) > 1 and rng.random() < 0.05:
        other = rng.choice(files)
        if other == file:
            file.unlink()
        else:
            shutil.copyfile(other, file)
        return f"{file.name}: removed, or replaced by {other.name}"
    damage = rng.choice(inside(file.name) if inside(file.name) and rng.random() < 0.6 else BYTES)
    content, packed = file.read_bytes(), file.suffix == ".gz" and damage not in BYTES
    changed = damage(gzip.decompress(content) if packed else content, rng)
    file.write_bytes(gzip.compress(changed, 1, mtime=0) if packed else changed)
    if rng.random() < 0.8:
        correct_checksums(sample)
    return f"{file.name}: {damage.__name__}"


def correct_checksums(folder: Path) -> None:
    """Write right checksums into the manifest of an index or encoder.

    The damage then gets past them.
    """
    for manifest in (folder / "manifest.json", folder / "encoder.json"):
        try:
            state = json.loads(manifest.read_bytes())
            del state["sha256"]
            for file in state["files"]:
                if (folder / file).is_file():
                    state["files"][file] |= described_file(folder / file)
            manifest.write_text(json.dumps({**state, "sha256": content_checksum(state)}))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # the manifest itself is damaged


def position(content: bytes, rng: random.Random) -> int:
    """Return a place in the file, often near the beginning or end.

    Headers are there.
    """
    place, near = rng.random(), rng.randrange(min(len(content), 128) or 1)
    if place < 0.3:
        return near
    return max(len(content) - 1 - near, 0) if place < 0.5 else rng.randrange(len(content) or 1)


def replace_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if changed else 0):
        changed[position(content, rng)] = rng.randrange(256)
    return bytes(changed)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    """Overwrite a span with zeros, ones, random bytes or a number of NUMBERS."""
    start, length = position(content, rng), rng.choice((1, 2, 4, 8, 64, 512))
    number = (rng.choice(NUMBERS) & ((1 << 8 * length) - 1)).to_bytes(length, rng.choice(("little", "big")))
    filling = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length), number, number))
    return (content[:start] + filling + content[start + length :])[: len(content)]


def change_length(content: bytes, rng: random.Random) -> bytes:
    """Cut the end off, or insert, remove or repeat some bytes."""
    start, length = position(content, rng), rng.choice((1, 4, 16, 100, 300))
    inserted, repeated = content[:start] + rng.randbytes(length) + content[start:], content[: start + length]
    removed = content[:start] + content[start + length :]
    return rng.choice((content[:start], content[:-1], b"", inserted, removed, repeated + content[start:]))


BYTES: tuple[Damage, ...] = (replace_bytes, overwrite, overwrite, change_length)

JSON_VALUES = (
    "null", "true", "-1", "0", "0.5", "7.0", "1e400", "1e30", "NaN", "-Infinity", '""', '"x"', '"\\u0000"',
    "[]", "{}",
    "[[]]", "[[[1]]]", "[null]", "[true]", "[[1, null]]", '[["1", "2"]]', "[1, [2]]", '{"a": 1}',
    "2147483648",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "1" * 400, '"' + "x" * 3000 + '"',
    '"\\ud800"', '"../../etc"', '"/etc/passwd"', "[" * 2000, "[" * 100_000 + "]" * 100_000,
)  # fmt: skip


def change_json(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove, repeat or rename one value in the JSON.

    It is anywhere in the file, or in one of its lines.
    """
    lines = content.decode("utf-8", "replace").splitlines() or [""]
    if (len(lines) > 1 and not lines[0].startswith(("{", "["))) or lines[0] in ("{", "["):
        lines = ["\n".join(lines)]
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except ValueError:
        return content + rng.choice(JSON_VALUES).encode()
    places = list(_places(value))
    if not places:
        lines[at] = rng.choice(JSON_VALUES)
    else:
        holder, key = rng.choice(places)
        action = rng.random()
        if action < 0.15:
            del holder[key]
        elif action < 0.25 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif action < 0.3 and isinstance(holder, dict):
            holder[rng.choice(("", "x", "tokens", "id", "vector"))] = holder[key]
        else:
            holder[key] = "@here@"
        lines[at] = json.dumps(value).replace('"@here@"', rng.choice(JSON_VALUES))
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    """Yield every (container, key) below a JSON value, outer ones twice as often."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(min(len(value), 6)):
            yield from ((value, key), (value, key))
            yield from _places(value[key])


HEADERS = (
    ("}", " "), ("False", "True"), ("(", ""), ("'descr'", "'descri'"), (",", ";"), ("False", "None"),
    ("'shape'", "'shape': (1,), 'shape'"),
    *((old, new) for old in ("'<f4'", "'<i8'", "'<f2'") for new in (
        "'O'", "'<f8'", "'>f4'", "'<c8'", "'<M8[s]'", "'V4'", "'|S4'", "'<U1'", "[('a', '<f4')]", "'<u8'",
        "'<i2'",
        "'<U536870912'", "'<f3'", "7",
    )),
)  # fmt: skip
SHAPES = (
    "-1, 4", "0, 4", "4, 0", "", "18446744073709551616, 4", "9223372036854775807, 4",
    "4611686018427387904, 4",
    "1000000000000, 4", "10, 4, 1", "40,", "True, 4", "10.0, 4", "'10', 4", "2147483648, 2147483648", "10, 3",
    "9, 4",
    "0, 9223372036854775807",
)  # fmt: skip


def change_npy_header(content: bytes, rng: random.Random) -> bytes:
    if content[:7] != b"\x93NUMPY\x01":
        return replace_bytes(content, rng)
    length = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + length].decode("latin1")
    if rng.random() < 0.5:
        header = header.replace(*rng.choice([pair for pair in HEADERS if pair[0] in header]), 1)
    elif rng.random() < 0.9:
        header = re.sub(r"'shape': \([^)]*\)", f"'shape': ({rng.choice(SHAPES)})", header)
    else:
        header = rng.choice(("", "{}", "[" * 3000, "(" * 150 + ")" * 150, "-" * 3000 + "1", "1" * 5000))
    encoded = header.encode("latin1")
    return content[:8] + len(encoded).to_bytes(2, "little") + encoded + content[10 + length :]


def change_numbers(content: bytes, rng: random.Random) -> bytes:
    """Replace numbers of an intact array.

    For example, lengths whose sum wraps replace lengths, and NaN replaces floats.
    """
    array = np.zeros(0)
    with suppress(ValueError):  # an array of objects
        array = np.array(np.load(io.BytesIO(content)), order="C")
    if array.dtype.kind not in "iuf" or not array.size:
        return replace_bytes(content, rng)
    whole = array.reshape(-1).view(f"i{array.itemsize}")
    bounds, flat = np.iinfo(whole.dtype), array.reshape(-1)
    near = (int(whole.min()) - 1, int(whole.max()) + 1, int(whole.max()), array.size, *array.shape, *NUMBERS)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(array.size)
        if array.dtype.kind == "f" and rng.random() < 0.5:
            flat[at] = rng.choice((float("nan"), 65504.0, -0.5))
        else:
            whole[at] = min(max(rng.choice(near), bounds.min), bounds.max)
    changed = io.BytesIO()
    np.save(changed, array)
    return changed.getvalue()


def _calling(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


_SHELLS = (("os", "system"), ("posix", "system"), ("subprocess", "getoutput"))

#: Pickles that run a program, fill the memory or never end if they are loaded, and
#: pickles of other values.
HOSTILE_PICKLES = (
    *(_calling(*name, f"touch {MARKER}") for name in _SHELLS),
    *(_calling("builtins", name, f"open({MARKER!r}, 'w').close()") for name in ("exec", "eval")),
    _calling("pathlib", "Path", MARKER),
    # An attribute of an allowed name.
    b"\x80\x04\x8c\x0bcollections\x8c\x15OrderedDict.__class__\x93.",
    # A memo index that takes 8 GiB.
    b"\x80\x02K\x01r\x00\x00\x00\x20.",
    # A key that takes 2 ** 40 steps to hash, and deep nesting.
    b"\x80\x02}K\x01" + b"2\x86" * 40 + b"K\x01s.",
    b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
    # Lengths beyond the file's end.
    b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    b"\x80\x04B\xff\xff\xff\x7fx.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    b"L" + b"9" * 5000 + b"L\n.",
    *map(pickle.dumps, ({"a": [1, 2.5, None, "x"]}, [(1, 2)], None)),
    *(b"", b".", b"\x80\x7f.", b"\x80\x04Q.", b"Pid\n.", b"\x80\x04\x82\x01.", b"0.", b"h\x00."),
)


def change_pickle(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return rng.choice(HOSTILE_PICKLES)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 5)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.choice((rng.randrange(256), *b"(.0]}tRbQpqrhj\x85\x86"))
    return bytes(changed)


def change_zip(content: bytes, rng: random.Random) -> bytes:
    """Change, remove, rename or blow up a member; checksums of members stay right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    if not members:
        return content
    at, action = rng.randrange(len(members)), rng.random()
    name, body = members[at]
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    if action < 0.1:
        del members[at]
    elif action < 0.2:
        members[at] = rng.choice(("x.npy", "../x.npy", "/x.npy", "tokens.npy", members[0][0])), body
    elif action < 0.25:
        members[at], method = (name, body + bytes(20_000_000)), zipfile.ZIP_DEFLATED
    else:
        members[at] = name, rng.choice(inside(name) or BYTES)(body, rng)
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as archive:
        warnings.simplefilter("ignore")  # about members of one name
        for name, body in members:
            archive.writestr(zipfile.ZipInfo(name), body, method)
    return packed.getvalue()


def change_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Change the header's JSON, with its length right or wrong."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = change_json(content[8:end], rng)
    size = rng.choice((len(header),) * 6 + (len(header) - 1, 2**63, 2**64 - 1, 0))
    return size.to_bytes(8, "little") + header + content[end:]


def change_sqlite(content: bytes, rng: random.Random) -> bytes:
    """Replace a pickled point of a local Qdrant collection, or an index's text."""
    database: Any = sqlite3.connect(":memory:")
    if not hasattr(database, "deserialize"):  # Python 3.10
        return replace_bytes(content, rng)
    database.deserialize(content)
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    table = rng.choice(tables)
    columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
    rows = database.execute(f'SELECT * FROM "{table}"').fetchall()
    if rows:
        row, at = rng.choice(rows), rng.randrange(len(columns))
        pickled = row[at] if isinstance(row[at], bytes) else b""
        value = rng.choice((None, 7, "text", b"", 1.5, change_pickle(pickled, rng)))
        change = f'UPDATE "{table}" SET "{columns[at]}" = ? WHERE "{columns[0]}" IS ?'
        with suppress(sqlite3.Error):  # a key that exists, or a kind that the column refuses
            database.execute(change, (value, row[0]))
            database.commit()
    changed = bytes(database.serialize())
    database.close()
    return changed


def change_hdf5(content: bytes, rng: random.Random) -> bytes:
    """Replace a dataset by one of another type, shape or storage, or by a link."""
    import h5py

    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if hasattr(node, "dtype") else None)
        name = rng.choice(names)
        file[name].attrs["dim"] = rng.choice((*NUMBERS, 0.5, "x", [4, 4]))
        values: tuple[Any, ...] = (
            np.zeros((0, 4), np.float32), np.zeros((3, 0), np.float32), np.ones((2, 3, 4), np.float32),
            np.float32(1),
            np.full((10, 4), np.nan, np.float32), np.full((10, 4), 1e39), np.ones((10, 4), np.complex64),
            np.array(rng.choices(NUMBERS, k=6)), np.array([1.5, 2.0]), np.array([b"a", b"\xff"]), ["a"] * 5,
            "text",
            np.zeros(3, [("a", "f4"), ("b", "i4")]), h5py.Empty("f4"), h5py.SoftLink("/nothing"),
            h5py.SoftLink("/"),
            h5py.SoftLink(f"/{name}"), h5py.ExternalLink("/etc/passwd", "/tokens"),
        )  # fmt: skip
        if rng.random() < 0.9:
            del file[name]
            if rng.random() < 0.9:
                file[name] = rng.choice(values)
            else:
                file.create_dataset(name, (2**40, 4), "f4", chunks=(2**16, 4))
    return stream.getvalue()


def change_table(content: bytes, rng: random.Random) -> bytes:
    """Write a Parquet or Arrow table again with other columns or rows.

    It has another column, lacks one, or has no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = content[:4] == b"PAR1"
    if parquet:
        table = pq.read_table(io.BytesIO(content))
    else:
        opened = pa.ipc.open_file if content[:6] == b"ARROW1" else pa.ipc.open_stream
        table = opened(io.BytesIO(content)).read_all()
    count, at = table.num_rows, rng.randrange(table.num_columns)
    lists, item = pa.list_, pa.float32()
    columns = (
        pa.array([None] * count, lists(lists(item))), pa.array([[]] * count, lists(lists(item))),
        pa.array([[None, [1.0]]] * count, lists(lists(item))),
        pa.array([[[1.0, None]]] * count, lists(lists(item))),
        pa.array([[[1.0] * (i + 1)] for i in range(count)]), pa.array([[[float("nan")] * 4]] * count),
        pa.array([[["a"]]] * count), pa.array([[1.0]] * count, lists(item)), pa.array(["a"] * count),
        pa.array([[[[1.0]]]] * count), pa.array([[[1e300] * 4]] * count), pa.array([None] * count, pa.null()),
        pa.array([[[]]] * count, lists(lists(item, 0))), pa.array([2**63 - 1] * count),
        pa.array([b"\xff"] * count),
        pa.array([{"a": 1.0}] * count), pa.array([None, *range(count - 1)]),
    )  # fmt: skip
    changed = rng.choice((table.slice(0, 0), table.remove_column(at), *(
        table.set_column(at, table.column_names[at], column) for column in columns
    )))  # fmt: skip
    out = io.BytesIO()
    if parquet:
        pq.write_table(changed, out, compression=rng.choice(("none", "zstd", "brotli")), row_group_size=2)
    else:
        options = pa.ipc.IpcWriteOptions(compression=rng.choice((None, "lz4", "zstd")))
        opener = rng.choice((pa.ipc.new_file, pa.ipc.new_stream))
        with opener(out, changed.schema, options=options) as writer:
            writer.write_table(changed)
    return out.getvalue()


def change_journal(content: bytes, rng: random.Random) -> bytes:
    """Change the JSON of a journal's line, and write the checksums of all lines."""
    lines = [line.partition(b" ")[2] for line in content.splitlines()]
    at = rng.randrange(len(lines))
    lines[at] = b" ".join(change_json(lines[at], rng).splitlines())
    digits = [hashlib.sha256(line).hexdigest()[:16].encode() for line in lines]  # a former journal
    return b"".join(b"%s %s\n" % pair for pair in zip(digits, lines, strict=True))


INSIDE: tuple[tuple[str, tuple[Damage, ...]], ...] = (
    (r"\.(json|jsonl)(\.gz)?$|^\.z(array|group|attrs)$", (change_json,)),
    (r"\.npy$", (change_npy_header, change_numbers)),
    (r"\.(npz|pt)$", (change_zip,)),
    (r"\.pkl$", (change_pickle,)),
    (r"\.safetensors$", (change_safetensors,)),
    (r"\.sqlite$", (change_sqlite,)),
    (r"^journal-", (change_journal,)),
    (r"\.h5$", (change_hdf5,)),
    (r"\.(parquet|arrow)$", (change_table,)),
)


def inside(name: str) -> tuple[Damage, ...]:
    """Return the damages to the content of a file of this name, within its format."""
    return next((damages for pattern, damages in INSIDE if re.search(pattern, name)), ())
