"""MkDocs hook: turn Sphinx roles in docstrings into links or code.

A role is, for example, :class:`muvera.MuveraIndex`.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["on_page_content", "without_roles"]

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>~?([\w.]+)</code>")


def without_roles(html: str) -> str:
    """Replace roles by code, or by links for names that begin with "muvera.".

    Examples
    --------
    >>> without_roles("See :func:<code>read</code>.")
    'See <code>read</code>.'
    """
    return _ROLE.sub(_as_code, html)


def on_page_content(html: str, **_: Any) -> str:
    """Replace the roles of a page before MkDocs resolves links."""
    return without_roles(html)


def _as_code(role: re.Match[str]) -> str:
    name = role[1]
    code = f"<code>{name}</code>"
    if not name.startswith("muvera."):
        return code
    return f'<autoref identifier="{name}" optional>{code}</autoref>'
