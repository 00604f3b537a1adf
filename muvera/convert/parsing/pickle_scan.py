"""Check of a pickle's instructions before any of them runs.

An allow-list of names does not prevent a pickle of plain data from using all memory or time: an index of
2**29 in the memo needs gigabytes, and the hash of a tuple of shared tuples needs 2**40 steps.  This check
refuses everything that picklers never write, and creates no objects.
"""

from __future__ import annotations

import pickletools
import re
from typing import Any, NamedTuple

__all__ = ["scan_pickle"]

#: Deepest nesting; picklers raise RecursionError before.
_MAX_DEPTH = 1000

#: Limits of integers in bytes, and in digits if written as text: 64 bits and a sign.  Longer ones can
#: share one hash, so that a dict of them takes hours.
_MAX_BYTES, _MAX_DIGITS = 9, 24

#: Kinds of objects on the stack: a tuple must not be a key of a dict.
_PLAIN, _TUPLE = 0, 1

# Maps and vectors consist mostly of runs of numbers of one kind; each run is skipped at once.
_RUN = re.compile(rb"(?:G.{8})+|(?:K.)+|(?:M..)+|(?:J....)+", re.DOTALL)
_BYTES_OF = {ord("G"): 9, ord("K"): 2, ord("M"): 3, ord("J"): 5}

_REFUSED = ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER")
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


class _Instruction(NamedTuple):
    name: str
    #: Size of its argument: a fixed number of bytes, a length prefix of some bytes, or lines of text.
    fixed: int
    prefix: int
    lines: int
    #: Whether it pops everything above the last mark, and how many objects below that.
    to_mark: bool
    takes: int
    gives: int


def _table() -> dict[int, _Instruction]:
    table = {}
    for code in pickletools.opcodes:
        size = code.arg.n if code.arg is not None else 0
        pair = code.arg is not None and code.arg.name == "stringnl_noescape_pair"
        before = [kind for kind in code.stack_before if kind is not pickletools.stackslice]
        to_mark = pickletools.markobject in before
        table[ord(code.code)] = _Instruction(
            code.name,
            max(size, 0),
            _LENGTH_BYTES.get(size, 0),
            (2 if pair else 1) if size == pickletools.UP_TO_NEWLINE else 0,
            to_mark,
            before.index(pickletools.markobject) if to_mark else len(before),
            len(code.stack_after),
        )
    return table


_TABLE = _table()


def scan_pickle(content: bytes) -> None:
    """Raise ValueError with the reason if `content` is not a pickle of plain data.

    It must have known instructions only, arguments within the file, no pop from an empty stack, memo
    indices below the number of instructions, no tuple or frozenset as a key or member of a set (no
    format here needs one), and limited nesting.
    """
    _Scan(content).run()


class _Scan:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stack = bytearray()  # kind of each object
        self.marks: list[int] = []
        self.memo: dict[int, int] = {}
        self.count = 0

    def run(self) -> None:
        content, at = self.content, 0
        while at < len(content):
            self.count += 1
            run = _RUN.match(content, at)
            if run is not None:
                self.stack.extend(bytes((run.end() - at) // _BYTES_OF[content[at]]))
                at = run.end()
                continue
            instruction = _TABLE.get(content[at])
            if instruction is None:
                raise ValueError(f"byte {at} is not a pickle instruction")
            argument, at = self.argument(instruction, at + 1)
            if instruction.name == "STOP":
                return
            self.carry_out(instruction, argument)
        raise ValueError("it ends before its last instruction")

    def argument(self, instruction: _Instruction, at: int) -> tuple[bytes, int]:
        """Return the argument at `at` if the scan needs it, and the position of the next instruction."""
        first, end = at, at + instruction.fixed
        if instruction.prefix:
            first = at + instruction.prefix
            end = first + int.from_bytes(self.content[at:first], "little")
        for _ in range(instruction.lines):
            end = self.content.find(b"\n", end) + 1
            if end == 0:
                raise ValueError("it ends within a line")
        if end > len(self.content):
            raise ValueError(
                f"{instruction.name} needs {end - first} bytes, but {len(self.content) - first} follow"
            )
        if instruction.name in ("INT", "LONG") and end - first > _MAX_DIGITS:
            raise ValueError(f"a number has {end - first} digits, more than fit in 64 bits")
        if instruction.name in ("LONG1", "LONG4") and end - first > _MAX_BYTES:
            raise ValueError(f"an integer has {end - first} bytes, more than fit in 64 bits")
        if (
            instruction.name == "FRAME"
            and int.from_bytes(self.content[first:end], "little") > len(self.content) - end
        ):
            raise ValueError("a frame reaches past its end")
        short = instruction.fixed or instruction.lines
        return (self.content[first:end] if short else b""), end

    def carry_out(self, instruction: _Instruction, argument: bytes) -> None:
        name, stack = instruction.name, self.stack
        if name in _REFUSED:
            raise ValueError(f"{name} refers to something outside")
        if name == "MARK":
            self.marks.append(len(stack))
            if len(self.marks) > _MAX_DEPTH:
                raise ValueError(f"it nests deeper than {_MAX_DEPTH}")
            return
        if name == "POP" and self.marks and self.marks[-1] == len(stack):
            self.marks.pop()
            return
        kind = _PLAIN
        if name in ("GET", "BINGET", "LONG_BINGET"):
            kind = self.remembered(_index(argument, name))
        elif name == "DUP":
            kind = self.top()
        elif name in _TUPLES:
            kind = _TUPLE
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.remember(len(self.memo) if name == "MEMOIZE" else _index(argument, name))
            return
        self.take(instruction)
        stack.extend(bytes([kind]) * instruction.gives)

    def take(self, instruction: _Instruction) -> None:
        """Pop the objects that an instruction uses, and check those that will be hashed."""
        stack, name = self.stack, instruction.name
        above = b""
        if instruction.to_mark:
            if not self.marks:
                raise ValueError(f"{name} without a mark")
            first = self.marks.pop()
            above = bytes(stack[first:])
            del stack[first:]
        keep = len(stack) - instruction.takes
        if keep < (self.marks[-1] if self.marks else 0):
            raise ValueError(f"{name} pops more objects than the stack has")
        if name == "SETITEM":
            hashed = bytes(stack[-2:-1])
        elif name in ("SETITEMS", "DICT"):
            hashed = above[::2]
        else:
            hashed = above if name in ("ADDITEMS", "FROZENSET") else b""
        if _TUPLE in hashed:
            raise ValueError("a tuple or frozenset is a key or a member of a set")
        del stack[keep:]

    def top(self) -> int:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("it pops from an empty stack")
        return self.stack[-1]

    def remember(self, index: int) -> None:
        if index > self.count:
            raise ValueError(f"it stores memo entry {index} after {self.count} instructions")
        self.memo[index] = self.top()

    def remembered(self, index: int) -> int:
        if index not in self.memo:
            raise ValueError(f"it reads memo entry {index}, which it did not store")
        return self.memo[index]


def _index(argument: bytes, name: str) -> int:
    if name in ("GET", "PUT"):
        text: Any = argument.strip()
        if not text.isdigit() or len(text) > _MAX_DIGITS:
            raise ValueError(f"{name} with {text[:20]!r}, which is not an index")
        return int(text)
    return int.from_bytes(argument, "little")
