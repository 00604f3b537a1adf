"""Answer one JSON request per line: ``serve.py MODULE FOLDER``.

``MODULE`` is in this folder.  Its public functions are operations: functions of the
inputs and options that return a function, whose calls are timed.  The exception is
``encoders``, which returns functions of one document and of one query; operations are
made from them.  "load" imports ``LIBRARY``.  ``FOLDER`` holds the inputs as NAME.npy,
ragged ones with NAME_lengths.npy.

Requests: ``{"operation": name, "options": {...}, "repeat": n}`` returns the wall and
processor seconds of each call; with ``"save": path`` instead of "repeat" the result is
written there; with ``"each": NAME`` in addition, the function is called with every text
of that input; with the option "top_k" it returns up to top_k pairs of position and
score, which are filled up with -1.  This file uses only the standard library and NumPy,
because it runs in the environments of other libraries.
"""

import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Inputs:
    """Arrays of a folder by name, read at each access."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> Any:
        """Return the array, or a list of arrays if there are lengths."""
        array = np.load(self._folder / f"{name}.npy")
        lengths = self._folder / f"{name}_lengths.npy"
        if not lengths.exists():
            return array
        return [part.copy() for part in np.split(array, np.cumsum(np.load(lengths))[:-1])]


def operations_of(module: Any) -> dict[str, Callable[..., Callable[..., Any]]]:
    """Return a worker's operations by name."""
    found: dict[str, Callable[..., Any]] = {}
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
            found[name] = value
    if "encoders" in found:
        found |= _encoder_operations(found.pop("encoders"))
    if hasattr(module, "LIBRARY"):
        found["load"] = lambda _: importlib.import_module(module.LIBRARY) and (lambda: None)
    return found


def _encoder_operations(encoders: Callable[..., Any]) -> dict[str, Callable[..., Callable[..., Any]]]:
    def documents_single(inputs: Inputs) -> Callable[[], Any]:
        encode, documents = encoders()[0], inputs["documents"]
        return lambda: [encode(document) for document in documents]

    def query(inputs: Inputs) -> Callable[[], Any]:
        encode, tokens = encoders()[1], inputs["query"]
        return lambda: encode(tokens)

    return {"documents_single": documents_single, "query": query}


def answer(request: dict[str, Any], work: Callable[..., Any], inputs: Inputs) -> dict[str, Any]:
    """Call `work` and return the times."""
    seconds: list[float] = []
    processor: list[float] = []

    def timed(*arguments: Any) -> Any:
        start, used = time.perf_counter(), time.process_time()
        result = work(*arguments)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
        return result

    if "each" in request:
        texts = inputs[request["each"]]
        work(texts[0])  # the first call is not timed
        results = [timed(text) for text in texts]
        if "top_k" in request["options"]:
            results = [_filled(result, request["options"]["top_k"]) for result in results]
        np.save(request["save"], np.stack(results))
    elif "save" in request:
        np.save(request["save"], np.asarray(work()))
        return {}
    else:
        for _ in range(request["repeat"]):
            timed()  # the result's memory is freed outside the clock
    return {"seconds": seconds, "processor": processor}


def _filled(pairs: Any, count: int) -> Any:
    """Return pairs of position and score as float64 (count, 2), filled up with -1."""
    rows = np.full((count, 2), -1.0)
    if len(pairs):
        rows[: len(pairs)] = pairs
    return rows


def main() -> None:
    """Serve until the input ends."""
    # Replies go to stdout; anything that libraries print goes to stderr.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    operations = operations_of(importlib.import_module(sys.argv[1]))
    inputs = Inputs(Path(sys.argv[2]))
    ready: dict[str, Callable[..., Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        options = request.get("options", {})
        name = json.dumps([request["operation"], options], sort_keys=True)
        try:
            if name not in ready:
                ready[name] = operations[request["operation"]](inputs, **options)
            reply = answer(request, ready[name], inputs)
        except Exception as error:  # the parent process reports it
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
