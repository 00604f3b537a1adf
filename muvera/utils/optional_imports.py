"""Import libraries that only some features need."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import `module`, such as ``"pyarrow.parquet"``, for a purpose such as ``"Reading Parquet"``.

    Raises
    ------
    ImportError
        If it does not import; the message names the extra of ``muvera-toolkit`` that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {module.partition('.')[0]}, but importing it fails ({error}). "
            f"Install it with: pip install 'muvera-toolkit[{extra}]'"
        ) from error
