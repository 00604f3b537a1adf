"""Seeded damage to a file or a folder: any bytes, or the structure that its format has.

Every mutation takes a copy of a sample and changes it in place; the same name and number give
the same damage.
"""

from __future__ import annotations

import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from . import structured

__all__ = ["mutate"]

#: Whole numbers at which sums wrap, allocations fail and signs change.
_NUMBERS = (0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1)

Damage = Callable[[bytes, random.Random], bytes]


def mutate(sample: Path, name: str, number: int) -> str:
    """Damage a copy of the sample called `name`, and return a description of what was done."""
    rng = random.Random(zlib.crc32(f"{name}/{number}".encode()))
    files = sorted(p for p in ([sample] if sample.is_file() else sample.rglob("*")) if p.is_file())
    file = rng.choice(files)
    kinds = structured.mutations_of(file)
    # Half of the damage keeps the container whole, so that it reaches what lies inside.
    if kinds and rng.random() < 0.5:
        kind = rng.choice(kinds)
        kind(file, rng)
        return f"{file.name}: {kind.__name__.strip('_')}"
    if len(files) > 1 and rng.random() < 0.06:
        return _exchange(file, rng.choice(files), rng)
    damage = rng.choice(_DAMAGES)
    file.write_bytes(damage(file.read_bytes(), rng))
    return f"{file.name}: {damage.__name__.strip('_')}"


def _exchange(file: Path, other: Path, rng: random.Random) -> str:
    """Remove a file, or put another of the folder in its place."""
    if other == file or rng.random() < 0.5:
        file.unlink()
        return f"{file.name}: removed"
    shutil.copyfile(other, file)
    return f"{file.name}: replaced by {other.name}"


def _position(content: bytes, rng: random.Random) -> int:
    """Return a place in the file; its beginning and its end, where headers are, come often."""
    size = len(content)
    where = rng.random()
    if where < 0.3:
        return rng.randrange(min(size, 128))
    if where < 0.5:
        return size - 1 - rng.randrange(min(size, 128))
    return rng.randrange(size)


def _flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if changed else 0):
        changed[_position(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _replace_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if changed else 0):
        changed[_position(content, rng)] = rng.randrange(256)
    return bytes(changed)


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice((0, rng.randrange(len(content) + 1), max(len(content) - 1, 0)))]


def _fill(content: bytes, rng: random.Random) -> bytes:
    """Overwrite a span with zeros, ones or random bytes."""
    if not content:
        return content
    start, length = _position(content, rng), rng.choice((2, 8, 64, 512))
    length = min(length, len(content) - start)
    filling = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return content[:start] + filling + content[start + length :]


def _insert(content: bytes, rng: random.Random) -> bytes:
    start = _position(content, rng) if content else 0
    return content[:start] + rng.randbytes(rng.choice((1, 4, 100))) + content[start:]


def _remove(content: bytes, rng: random.Random) -> bytes:
    start = _position(content, rng) if content else 0
    return content[:start] + content[start + rng.choice((1, 4, 100)) :]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start = _position(content, rng) if content else 0
    return content[: start + rng.choice((1, 16, 300))] + content[start:]


def _number(content: bytes, rng: random.Random) -> bytes:
    """Write a telling whole number over 1, 2, 4 or 8 bytes."""
    if not content:
        return content
    width = rng.choice((1, 2, 4, 8))
    start = _position(content, rng)
    number = rng.choice(_NUMBERS) & ((1 << 8 * width) - 1)
    changed = (
        content[:start] + number.to_bytes(width, rng.choice(("little", "big"))) + content[start + width :]
    )
    return changed[: len(content)]


_DAMAGES: tuple[Damage, ...] = (
    _flip_bits, _flip_bits, _replace_bytes, _replace_bytes, _truncate, _fill, _insert, _remove, _repeat,
    _number, _number,
)  # fmt: skip
