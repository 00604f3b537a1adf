"""Structured error messages that each front end renders with its names.

``str(error)`` is the sentence for Python.  The command line and the HTTP server use
other names for the parts that name an argument or an operation:

>>> error = ValueError(Message("out exists. Give ", Argument("overwrite", "True"), "."))
>>> str(error)
'out exists. Give overwrite=True.'
>>> message_of(error).worded(lambda part: f"--{part.name}")
'out exists. Give --overwrite.'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Argument", "Hint", "Message", "message_of"]


class Argument(NamedTuple):
    """An argument of the called function, as a part of a message.

    Parameters
    ----------
    name : str
        The argument's name in Python.
    value : str, optional
        Its value as Python writes it, such as ``"True"`` or ``"'moments'"``; ``""``
        leaves the value for the user to fill in.  Default: the message names only the
        argument.
    """

    name: str
    value: str | None = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value}"


class Hint(NamedTuple):
    """What to do, as a part of a message.

    Parameters
    ----------
    operation : str
        Key of the operation in the tables of the front ends, such as ``"calibrate"``.
    words : str
        What a user of Python does.
    """

    operation: str
    words: str

    def __str__(self) -> str:
        return self.words


class Message(str):
    """Sentences for Python, and their parts for other front ends.

    Parameters
    ----------
    *parts : str, Argument or Hint
        Joined without separators.  The parts of a `Message` become parts of this one.
    """

    __slots__ = ("parts",)

    parts: tuple[str | Argument | Hint, ...]

    def __new__(cls, *parts: str | Argument | Hint) -> Message:
        """Join the parts; each argument and each hint is worded for Python."""
        message = super().__new__(cls, "".join(map(str, parts)))
        message.parts = tuple(
            inner for part in parts for inner in (part.parts if isinstance(part, Message) else (part,))
        )
        return message

    def worded(self, word: Callable[[Argument | Hint], str]) -> str:
        """Render the message, replacing each argument and hint by ``word(part)``."""
        return "".join(part if isinstance(part, str) else word(part) for part in self.parts)

    def worded_for_clients(self, instead: Mapping[str, str]) -> str:
        """Render the message for clients of a server.

        Arguments have the names of the request's fields.  `instead` is what a client
        does instead of an operation of Python.
        """

        def word(part: Argument | Hint) -> str:
            if isinstance(part, Hint):
                return instead.get(part.operation, part.words)
            return str(part) if part.value else part.name

        return self.worded(word).rstrip()

    def to_json(self) -> list[Any]:
        """Return the parts as JSON values: a string, or a list of strings, for each."""
        return [part if isinstance(part, str) else [type(part).__name__, *part] for part in self.parts]

    @classmethod
    def from_json(cls, parts: list[Any]) -> Message:
        """Rebuild a message from the output of :meth:`to_json`."""
        kinds: dict[str, type[Argument] | type[Hint]] = {"Argument": Argument, "Hint": Hint}
        return cls(*(part if isinstance(part, str) else kinds[part[0]](*part[1:]) for part in parts))


def message_of(error: BaseException) -> Message:
    """Return the message of an error; most messages have one part, the text."""
    if len(error.args) == 1 and isinstance(error.args[0], Message):
        return error.args[0]
    # str(KeyError) is the repr of its message.
    return Message(str(error.args[0] if isinstance(error, KeyError) and error.args else error))
