"""Hook of the site: roles of docstrings, as :class:`muvera.MuveraIndex`, become code, linked where it can be."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["on_page_content", "without_roles"]

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>~?([\w.]+)</code>")


def without_roles(html: str) -> str:
    """Return a page whose roles are code; names that begin with "muvera." are links to the reference.

    Examples
    --------
    >>> without_roles("See :func:<code>read</code>.")
    'See <code>read</code>.'
    """
    return _ROLE.sub(_as_code, html)


def on_page_content(html: str, **_: Any) -> str:
    """Change each page before links are resolved."""
    return without_roles(html)


def _as_code(role: re.Match[str]) -> str:
    name = role[1]
    code = f"<code>{name}</code>"
    if not name.startswith("muvera."):
        return code
    return f'<autoref identifier="{name}" optional>{code}</autoref>'
