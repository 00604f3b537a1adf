"""Count the compiled specializations of kernels, and their CPU seconds.

    python tests/kernels/compile_times.py            # of the demo
    python tests/kernels/compile_times.py --json

Kernels are always compiled, even if they are cached.  A kernel's seconds do not contain those of the kernels
it calls.
"""

import contextlib
import io
import json
import os
import sys
import time
from collections import defaultdict
from typing import Any

os.environ["MUVERA_KERNEL_CACHE"] = "0"

from numba.core import event


class CompileTimes(event.Listener):
    """Listens to numba's compilations."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._open: list[list[float]] = []

    def on_start(self, event: Any) -> None:
        self._open.append([time.process_time(), 0.0])

    def on_end(self, event: Any) -> None:
        begun, inner = self._open.pop()
        whole = time.process_time() - begun
        if self._open:
            self._open[-1][1] += whole
        function = event.data["dispatcher"].py_func
        if function.__module__.startswith("muvera."):
            self.seconds[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"].append(
                whole - inner
            )


def run_demo() -> CompileTimes:
    """Return the compilations of ``muvera demo``."""
    from muvera.cli.demo import demo

    times = CompileTimes()
    event.register("numba:compile", times)  # type: ignore[no-untyped-call]
    with contextlib.redirect_stdout(io.StringIO()):
        demo(queries=1, threads=1, json_=True)
    return times


if __name__ == "__main__":
    seconds = run_demo().seconds
    counts = {name: len(values) for name, values in seconds.items()}
    total = sum(map(sum, seconds.values()))
    if "--json" in sys.argv:
        print(
            json.dumps({"functions": len(counts), "specializations": sum(counts.values()), "seconds": total})
        )
    else:
        for name, values in sorted(seconds.items(), key=lambda item: -sum(item[1])):
            print(f"{sum(values):6.2f} s  {len(values)} x  {name}")
        print(f"{total:6.2f} s  {sum(counts.values())} specializations of {len(counts)} functions")
