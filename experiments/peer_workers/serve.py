"""Answer one JSON request a line: ``serve.py MODULE FOLDER``.

``MODULE`` stands in this folder and has ``OPERATIONS``: by name, a function that takes the
inputs and returns a function without arguments, whose call is what is timed.  ``FOLDER`` holds
the inputs as NAME.npy, ragged ones with NAME_lengths.npy.

Requests: ``{"operation": name, "repeat": n}`` is answered with the seconds of each call by the
clock and by the processor's time, and ``{"operation": name, "save": path}`` once the result
stands there.  Only the standard library
and NumPy are used here, for this runs in the environments of other libraries.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Inputs:
    """Arrays of a folder by name, read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> Any:
        """Return the array, or a list of arrays where there are lengths."""
        array = np.load(self._folder / f"{name}.npy")
        lengths = self._folder / f"{name}_lengths.npy"
        if not lengths.exists():
            return array
        return [part.copy() for part in np.split(array, np.cumsum(np.load(lengths))[:-1])]


def answer(request: dict[str, Any], work: Callable[[], Any]) -> dict[str, Any]:
    """Call `work` as the request says."""
    if "save" in request:
        np.save(request["save"], np.asarray(work()))
        return {}
    seconds, processor = [], []
    for _ in range(request["repeat"]):
        start, used = time.perf_counter(), time.process_time()
        result = work()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
        del result  # its memory is given back outside the clock, for all alike
    return {"seconds": seconds, "processor": processor}


def main() -> None:
    """Serve until the input ends."""
    # Replies go to the real output; whatever the libraries print goes to the errors.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    operations = importlib.import_module(sys.argv[1]).OPERATIONS
    inputs = Inputs(Path(sys.argv[2]))
    ready: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["operation"]
        try:
            if name not in ready:
                ready[name] = operations[name](inputs)
            reply = answer(request, ready[name])
        except Exception as error:  # the process that asks reports it
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
