"""``muvera formats``: the formats that can be read and written."""

from __future__ import annotations

import muvera

from .options import JsonOption
from .printing import show, wrapped


def formats(json_: JsonOption = False) -> None:
    """List the formats that can be read and written.

    For any other format, write two arrays with NumPy.  tokens.npy (tokens, dimension)
    contains the tokens of all texts, and lengths.npy the number of tokens of each text.

    \b
    Example:
      muvera formats
    """
    from ..convert.pipeline import WRITERS
    from ..convert.writers import VECTOR_WRITERS

    read = muvera.convert.formats()
    wide = max(map(len, read))
    lines = ["Input formats, and the files that identify each:"]
    lines += [wrapped(text, f"  {name:<{wide}}  ", " " * (wide + 4)) for name, text in read.items()]
    for command, written in (("convert", WRITERS), ("encode", VECTOR_WRITERS)):
        lines.append(wrapped(f"Output formats of muvera {command} --to: {', '.join(written)}."))
    show(json_, {"read": read, "written": list(WRITERS), "vectors": list(VECTOR_WRITERS)}, "\n".join(lines))
