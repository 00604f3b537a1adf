"""Warn about a condition that matches nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..metadata import Filter
from ..metadata.unmatched import unmatched_fields
from .printing import warn


def warn_of_unmatched(where: Filter | None, matches: Callable[[Any], object]) -> None:
    """Warn about fields of `where` that no document has, or only with another type.

    Call this after an empty result, with the arguments of
    :func:`muvera.metadata.unmatched.unmatched_fields`.
    """
    for message in unmatched_fields(where, matches):
        warn(message.worded(lambda _: "--where"))
