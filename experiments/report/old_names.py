"""Current names for the names in older results and in labels of configurations, which expected scores use."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["plain"]

# Pattern of an old name -> today's name.
_RENAMED = [
    (r"\bcompact[_ ]covariance\b", "moments"),
    (r"^(target of the default|default FDE|FDE, default)$", "fde"),
    (r"(^|muvera | minus | over )default\b", r"\1fde"),
    (r"^FDE, the paper's recipe$", "paper"),
    (r"\basked first\b", "prefetched"),
    (r"\bcodes first\b", "2-bit pre-ranking"),
    (r"\b(\d+) asked\b", r"\1 queries"),
    (r", outside$", ", unseen documents"),
    (r"\buntil nothing new, patience=", "patience="),
    (r"^by the depth$", "lost by fewer candidates"),
    (r"^by the graph$", "lost by the graph"),
    (r"^together$", "total"),
    (r"^system, recall to be reached$", "system, recall"),
    (r"(\S+): candidates that reach it$", r"candidates needed for a \1"),
    (r"\bseconds of a build$", "build seconds"),
    (
        r"\bbytes of a document \(with the token vectors that are read\)$",
        "bytes per document (with token vectors)",
    ),
    (r"^bytes of a document with its tokens$", "bytes per document with tokens"),
    (r"\bqueries per second at a (\S+) of \.\.\.", r"queries per second by \1"),
    (r"\bdifferences over the same queries$", "paired differences"),
    (r"^median time of a query$", "median latency"),
]


def plain(value: Any) -> Any:
    """Return a value with current names in all its texts and keys."""
    if isinstance(value, dict):
        return {plain(key): plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, str):
        for pattern, name in _RENAMED:
            value = re.sub(pattern, name, value)
    return value
