"""Damage that keeps a file's container whole: JSON values, NumPy headers, members, pickles, rows."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import sqlite3
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .hostile import HOSTILE_PICKLES
from .rewritten import change_arrow, change_hdf5, change_parquet

__all__ = ["mutations_of"]

Mutation = Callable[[Path, random.Random], None]


def mutations_of(file: Path) -> list[Mutation]:
    """Return the mutations that fit the file's name."""
    found = [mutations for pattern, mutations in _BY_NAME if re.search(pattern, file.name)]
    return found[0] if found else []


# -- JSON -----------------------------------------------------------------------------------

#: What takes the place of a value, as text: kinds, signs, sizes and depths that nobody expects.
_JSON_VALUES = (
    "null", "true", "-1", "0", "0.5", "1e400", "NaN", "-Infinity", '""', '"x"', '"\\u0000"', "[]", "{}", "[[]]",
    "[[[1]]]", '{"a": 1}', "9223372036854775807", "9223372036854775808", "18446744073709551616", "1" * 400,
    "1e30", '"' + "x" * 3000 + '"', '"\\ud800"', "[null]", "[[1, null]]", '[["1", "2"]]', "[true]", "2147483648",
    '"../../etc"', '"/etc/passwd"', "7.0", "[1, [2]]",
)  # fmt: skip
_MARK = "@mutated@"


def _change_json(file: Path, rng: random.Random) -> None:
    """Replace, remove or repeat a value somewhere in the JSON."""
    _write(file, _changed_json(_read(file), rng))


def _changed_json(text: str, rng: random.Random) -> str:
    lines = text.splitlines() or [""]
    at = rng.randrange(len(lines)) if _is_json(lines[0]) else None
    try:
        value = json.loads(text if at is None else lines[at])
    except ValueError:
        return text + rng.choice(_JSON_VALUES)
    places = list(_places(value))
    if not places:
        changed = rng.choice(_JSON_VALUES)
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
            holder[key] = _MARK
        changed = json.dumps(value).replace(f'"{_MARK}"', rng.choice(_JSON_VALUES))
        if action > 0.97 and isinstance(holder, dict):
            changed = changed.replace("{", '{"id": 1, "id": 2, ', 1)
    if at is None:
        return changed
    lines[at] = changed
    return "\n".join(lines) + "\n"


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _places(value: Any) -> Any:
    """Yield every (container, key) below a JSON value, the outer ones more often."""
    if isinstance(value, (dict, list)):
        keys = list(value) if isinstance(value, dict) else range(min(len(value), 6))
        for key in keys:
            yield value, key
            yield value, key
            yield from _places(value[key])


def _nest(file: Path, rng: random.Random) -> None:
    depth = rng.choice((2_000, 200_000))
    _write(file, rng.choice(("[", '{"a":')) * depth + rng.choice(("", "1" + "]" * depth)))


def _not_text(file: Path, rng: random.Random) -> None:
    content = _read(file).encode()
    at = rng.randrange(len(content) + 1)
    _write(
        file, content[:at] + rng.choice((b"\xff", b"\x00", b"\xed\xa0\x80", b"\xef\xbb\xbf")) + content[at:]
    )


def _read(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix == ".gz":
        content = gzip.decompress(content)
    return content.decode("utf-8", "replace")


def _write(file: Path, text: str | bytes) -> None:
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    file.write_bytes(gzip.compress(content, 1, mtime=0) if file.suffix == ".gz" else content)


# -- NumPy ----------------------------------------------------------------------------------

_HEADERS = (
    ("}", " "), ("False", "True"), ("(", ""), (")", ""), ("'descr'", "'descri'"), ("{", "{{"), (",", ";"),
    ("'<f4'", "'O'"), ("'<f4'", "'<f8'"), ("'<f4'", "'>f4'"), ("'<f4'", "'<c8'"), ("'<f4'", "'<M8[s]'"),
    ("'<f4'", "'V4'"), ("'<f4'", "'|S4'"), ("'<f4'", "'<U1'"), ("'<f4'", "[('a', '<f4')]"), ("'<i8'", "'<u8'"),
    ("'<i8'", "'<f8'"), ("'<i8'", "'O'"), ("'<f4'", "'<U536870912'"), ("'<f4'", "'<f3'"), ("'<f4'", "7"),
    ("'<f2'", "'<i2'"), ("'<f2'", "'<u2'"), ("False", "None"), ("'shape'", "'shape': (1,), 'shape'"),
)  # fmt: skip
_SHAPES = (
    "(-1, 4)", "(0, 4)", "(4, 0)", "()", "(18446744073709551616, 4)", "(9223372036854775807, 4)",
    "(4611686018427387904, 4)", "(1000000000000, 4)", "(10, 4, 1)", "(40,)", "(True, 4)", "(10.0, 4)", "('10', 4)",
    "(2147483648, 2147483648)", "(0, 9223372036854775807)", "None", "(1, 2, 3, 4)", "[10, 4]", "(10, 3)", "(9, 4)",
)  # fmt: skip


def changed_npy(content: bytes, rng: random.Random) -> bytes:
    """Return a .npy with another header, of the right length."""
    if content[:6] != b"\x93NUMPY" or len(content) < 12:
        return content
    size = 2 if content[6] == 1 else 4
    begins = 8 + size
    length = int.from_bytes(content[8:begins], "little")
    header = content[begins : begins + length].decode("latin1")
    action = rng.random()
    if action < 0.5:
        fitting = [pair for pair in _HEADERS if pair[0] in header]
        old, new = rng.choice(fitting)
        header = header.replace(old, new, 1)
    elif action < 0.9:
        header = re.sub(r"'shape': \([^)]*\)", f"'shape': {rng.choice(_SHAPES)}", header)
    else:
        header = rng.choice(("", "{}", "[" * 3000, "(" * 150 + ")" * 150, "-" * 3000 + "1", "1" * 5000, "'"))
    encoded = header.encode("latin1")
    if size == 2 and len(encoded) >= 1 << 16:
        encoded = encoded[: (1 << 16) - 1]
    return content[:8] + len(encoded).to_bytes(size, "little") + encoded + content[begins + length :]


def _change_header(file: Path, rng: random.Random) -> None:
    file.write_bytes(changed_npy(file.read_bytes(), rng))


def _change_numbers(file: Path, rng: random.Random) -> None:
    """Write telling numbers into the array, such as lengths whose sum wraps."""
    file.write_bytes(changed_numbers(file.read_bytes(), rng))


def changed_numbers(content: bytes, rng: random.Random) -> bytes:
    """Return the file with numbers of 2, 4 or 8 bytes near its end replaced."""
    width = rng.choice((2, 4, 8))
    count = max(len(content) // width - 128 // width, 1)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 3))):
        at = len(content) - width * (1 + rng.randrange(count))
        if at < 0:
            break
        number = rng.choice((0, 1, -1, 3, 2**63 - 1, -(2**63), 2**31, 2**62, 2**40))
        special = rng.choice(
            (
                (number & ((1 << 8 * width) - 1)).to_bytes(width, "little"),
                struct.pack(
                    {2: "<e", 4: "<f", 8: "<d"}[width], rng.choice((float("nan"), float("inf"), -0.5))
                ),
            )
        )
        changed[at : at + width] = special
    return bytes(changed)


# -- zip archives ---------------------------------------------------------------------------


def _change_member(file: Path, rng: random.Random) -> None:
    """Change a member, whose checksum is right afterwards."""
    members = _members(file)
    if not members:
        return
    at = rng.randrange(len(members))
    name, content = members[at]
    if name.endswith(".npy"):
        content = rng.choice((changed_npy, changed_numbers))(content, rng)
    elif name.endswith(".pkl"):
        content = changed_pickle(content, rng)
    else:
        content = content[: rng.randrange(len(content) + 1)] + rng.randbytes(rng.choice((0, 1, 8)))
    members[at] = name, content
    _write_zip(file, members, zipfile.ZIP_STORED if file.suffix == ".pt" else rng.choice((0, 8)))


def _change_directory(file: Path, rng: random.Random) -> None:
    """Remove, rename, repeat or compress members; or change how they are described."""
    members = _members(file)
    if not members:
        return
    action, at = rng.random(), rng.randrange(len(members))
    method = zipfile.ZIP_STORED
    if action < 0.2:
        del members[at]
    elif action < 0.4:
        name = rng.choice(("x.npy", "../x.npy", "/x.npy", "", "tokens.npy", "a/data.pkl", members[0][0]))
        members[at] = name, members[at][1]
    elif action < 0.6:
        method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    _write_zip(file, members, method)
    if action >= 0.6:
        content = bytearray(file.read_bytes())
        begins = content.rfind(b"PK\x01\x02") if action < 0.9 else content.rfind(b"PK\x05\x06")
        for _ in range(rng.choice((1, 2))):
            content[min(begins + rng.randrange(4, 46), len(content) - 1)] = rng.choice((0, 1, 8, 127, 255))
        file.write_bytes(bytes(content))


def _members(file: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def _write_zip(file: Path, members: list[tuple[str, bytes]], method: int) -> None:
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as archive:
        warnings.simplefilter("ignore")  # about members of one name
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    file.write_bytes(packed.getvalue())


def _bomb(file: Path, rng: random.Random) -> None:
    """Let a compressed member be a thousand times as large as it looks."""
    members = _members(file)
    if members:
        at = rng.randrange(len(members))
        members[at] = members[at][0], members[at][1] + bytes(20_000_000)
        _write_zip(file, members, zipfile.ZIP_DEFLATED)


# -- pickles --------------------------------------------------------------------------------


def changed_pickle(content: bytes, rng: random.Random) -> bytes:
    """Return a pickle with other bytes, or one that asks for more than plain data."""
    if rng.random() < 0.5:
        return rng.choice(HOSTILE_PICKLES)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 5))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice(
                (rng.randrange(256), *b"(.0]}tRbQpqrhj\x85\x86")
            )
    return bytes(changed)


def _change_pickle(file: Path, rng: random.Random) -> None:
    file.write_bytes(changed_pickle(file.read_bytes(), rng))


# -- safetensors ----------------------------------------------------------------------------


def _change_safetensors(file: Path, rng: random.Random) -> None:
    """Change the header's JSON, with its length set right or wrong."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = _changed_json(content[8 : 8 + length].decode(), rng).encode("utf-8", "surrogatepass")
    size = rng.choice((len(header),) * 6 + (len(header) - 1, 2**63, 2**64 - 1, 0))
    file.write_bytes(size.to_bytes(8, "little") + header + content[8 + length :])


# -- SQLite ---------------------------------------------------------------------------------


def _change_row(file: Path, rng: random.Random) -> None:
    """Replace a cell of the database, by a damaged pickle or a value of another kind."""
    connection = sqlite3.connect(file)
    rows = connection.execute("SELECT rowid, point FROM points ORDER BY rowid").fetchall()
    row, point = rng.choice(rows)
    values: tuple[Any, ...] = (None, 7, "text", b"", 1.5, b"\x80\x04N.")
    value = changed_pickle(point, rng) if rng.random() < 0.7 else rng.choice(values)
    column = rng.choice(("point", "point", "point", "id"))
    connection.execute(f"UPDATE points SET {column} = ? WHERE rowid = ?", (value, row))
    connection.commit()
    connection.close()


_JSON: list[Mutation] = [*[_change_json] * 8, _nest, _not_text]
_NPY: list[Mutation] = [_change_header, _change_header, _change_numbers]
_ZIP: list[Mutation] = [_change_member, _change_member, _change_member, _change_directory]

_BY_NAME: tuple[tuple[str, list[Mutation]], ...] = (
    (r"\.(json|jsonl)(\.gz)?$|^\.z(array|group|attrs)$", _JSON),
    (r"\.npy$", _NPY),
    (r"\.npz$", [*_ZIP, _bomb]),
    (r"\.pt$", [*_ZIP, _bomb]),
    (r"\.pkl$", [_change_pickle]),
    (r"\.safetensors$", [_change_safetensors]),
    (r"\.sqlite$", [_change_row]),
    (r"\.h5$", [change_hdf5]),
    (r"\.parquet$", [change_parquet]),
    (r"\.arrow$", [change_arrow]),
)
