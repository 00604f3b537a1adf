"""``muvera formats``: the formats that can be read and written."""

from __future__ import annotations

import muvera

from .options import JsonOption
from .printing import show, wrapped


def formats(json_: JsonOption = False) -> None:
    """List the formats to read and write, with examples.

    For any other format, write two arrays with NumPy.  tokens.npy (tokens, dimension)
    contains the tokens of all texts, and lengths.npy the number of tokens of each text.

    \b
    Example:
      muvera formats
    """
    from ..convert.pipeline import WRITERS
    from ..convert.registry import READERS
    from ..convert.writers import VECTOR_WRITERS

    read = muvera.convert.formats()
    wide = max(map(len, read))
    lines = ["Input formats, and the files that identify each:"]
    examples = {name: f"muvera convert {reader.example} tokens" for name, reader in READERS.items()}
    indent = " " * (wide + 4)
    for name, text in read.items():
        lines += [wrapped(text, f"  {name:<{wide}}  ", indent), indent + examples[name]]
    for command, written in (("convert", WRITERS), ("encode", VECTOR_WRITERS)):
        lines.append(wrapped(f"Output formats of muvera {command} --to: {', '.join(written)}."))
    facts = {"read": read, "examples": examples, "written": list(WRITERS), "vectors": list(VECTOR_WRITERS)}
    show(json_, facts, "\n".join(lines))
