"""A real browser for tests of pages."""

from __future__ import annotations

import os
import shutil
from typing import Any

#: The program of Chromium or Chrome; None if none is installed.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# The path of the browser's socket, in its temporary folder, must be short.
_TEMPORARY = "/tmp"


def launched(started: Any) -> Any:
    """Return a new Chromium of a started Playwright."""
    return started.chromium.launch(
        executable_path=CHROMIUM,
        args=["--no-sandbox", "--disable-gpu"],
        env={**os.environ, "TMPDIR": _TEMPORARY},
    )
