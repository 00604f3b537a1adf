"""Errors for unknown names, which suggest the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def require_known(name: str, known: Iterable[str], kind: str) -> None:
    """Raise ValueError, with the nearest name, if `name` is not one of `known`.

    Examples
    --------
    >>> require_known("flx", ["flex", "bm25"], "system")
    Traceback (most recent call last):
        ...
    ValueError: There is no system 'flx'. Did you mean 'flex'? There are: flex, bm25.
    """
    choices = list(known)
    if name not in choices:
        near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no {kind} {name!r}.{guess} There are: {', '.join(choices)}.")
