"""The child process that reads damaged files: a path in, what happened out, a line each."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from muvera.convert import read
from muvera.data.multivectors import MultiVectors

__all__ = ["outcome_of"]

#: Exactly these kinds are promised for damage; a subclass is another library's error.
_PROMISED = (ValueError, TypeError, MemoryError, ImportError)


def outcome_of(path: Path, isolated: bool = False) -> tuple[str, str]:
    """Read a file and return ("read" | "refused" | "raw" | "nameless" | "unsound", the message)."""
    before = _listing(path)
    try:
        found: Any = read(path, isolated=True) if isolated else read(path)
        problem = _problem(found)
        outcome = ("unsound", problem) if problem else ("read", repr(found))
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        outcome = _judged(error, path)
    if _listing(path) != before:
        return "unsound", "reading changed the source's folder"
    return outcome


def _problem(found: MultiVectors) -> str:
    offsets, tokens = found.offsets, found.tokens
    if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 0).any():
        return "offsets that do not fit"
    if not np.isfinite(tokens).all():
        return "numbers that are not finite"
    if len(found.ids) != len(found) or len(set(found.ids.tolist())) != len(found):
        return "ids that are not one for each document"
    return ""


def _judged(error: BaseException, path: Path) -> tuple[str, str]:
    text = f"{type(error).__name__}: {error}"
    promised = (
        type(error) in _PROMISED
        or isinstance(error, pickle.UnpicklingError)
        or (isinstance(error, OSError) and not re.match(r"\[Errno", str(error)))
    )
    sentence = str(error).endswith((".", "?")) and "\n" not in str(error)
    if not promised or not sentence:
        return "raw", text
    return ("refused" if str(path) in str(error) else "nameless"), text


def _listing(path: Path) -> list[str]:
    return sorted(str(entry) for entry in (path.rglob("*") if path.is_dir() else path.parent.iterdir()))


def main() -> None:
    """Answer the lines of the input until it ends."""
    memory = int(sys.argv[1])
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries that print do not disturb the answers
    for line in sys.stdin:
        task = json.loads(line)
        os.chdir(task["folder"])  # where a pickle's program would leave its mark
        kind, text = outcome_of(Path(task["path"]), task["isolated"])
        os.chdir("/")
        answers.write(json.dumps({"kind": kind, "text": text[:500]}) + "\n")


if __name__ == "__main__":
    main()
