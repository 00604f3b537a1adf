"""Libraries that only some formats need, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import `module`, or raise ImportError naming the extra that installs it.

    Parameters
    ----------
    module : str
        What to import, such as ``"pyarrow.parquet"``.
    extra : str
        The extra of ``muvera-toolkit`` that brings it.
    purpose : str
        The beginning of the message's sentence, such as ``"Reading Parquet"``.

    Raises
    ------
    ImportError
        Where the library is missing or does not load; the cause is part of the message.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {module.partition('.')[0]}, which does not import here ({error}). "
            f"Install it with: pip install 'muvera-toolkit[{extra}]'"
        ) from error
