"""Environments of other libraries, and worker processes that time their operations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORKERS = Path(__file__).parent / "workers"
CHECKOUT = Path(__file__).parents[2]

#: Variables that limit libraries to one thread.
THREAD_VARIABLES = [f"{name}_NUM_THREADS" for name in ("RAYON", "OMP", "OPENBLAS", "MKL", "NUMBA")]

#: Variables that make OpenBLAS use slower kernels than the processor's own.
BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

# Maximum characters of a process's last line in errors: a panic prints its whole trace
# in one line.
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Library:
    """A library, its worker file, and its pip requirement.

    A checkout of muvera has no requirement (None).
    """

    name: str
    worker: str
    requirement: str | None = None
    #: The checkout, if there is no requirement.
    checkout: Path = CHECKOUT


MUVERA = Library("muvera", "muvera_jobs")

# LEMUR is not on PyPI: the commit of 2026-06-21.
_LEMUR = "434860b9ef32355a2bc51f272abc1485ea1ef0d3"

#: Libraries by name.
PEERS = {
    library.name: library
    for library in (
        Library("muvera-python", "muvera_python_jobs", "muvera-python==0.2.0"),
        Library("muvfde", "muvfde_jobs", "muvfde==0.0.9"),
        Library("maxsim-cpu", "maxsim_cpu_jobs", "maxsim-cpu==0.1.0"),
        Library("numkong", "numkong_jobs", "numkong==7.8.6"),
        Library("fastembed", "fastembed_jobs", "fastembed==0.9.1"),
        Library("fast-plaid", "fast_plaid_jobs", "fast-plaid==1.4.6.2110"),
        Library("tachiom", "tachiom_jobs", "tachiom==0.4.0"),
        Library("qdrant-edge", "qdrant_edge_jobs", "qdrant-edge-py==0.9.0"),
        Library("xtr-warp", "xtr_warp_jobs", "xtr-warp-rs==2.1.0.2110"),
        Library("lemur", "lemur_jobs", f"lemur @ git+https://github.com/ejaasaari/lemur@{_LEMUR}"),
    )
}


def make_environment(library: Library, cache: Path) -> Path:
    """Return the interpreter of a library's virtual environment.

    The first call creates the environment in `cache`.
    """
    if library.requirement is None:
        return Path(sys.executable)
    folder = _folder(library, cache)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not is_made(library, cache):
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", library.requirement, "numpy"]
        variables = process_environment(library)
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RuntimeError(f"{library.requirement} could not be installed in {folder}: {reason}")
        (folder / "complete").touch()
    return python


def is_made(library: Library, cache: Path) -> bool:
    """Return True if a library's environment is complete."""
    return library.requirement is None or (_folder(library, cache) / "complete").exists()


def _folder(library: Library, cache: Path) -> Path:
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    name = str(library.requirement).rpartition("/")[2]  # of a requirement with an address, its end
    return cache.expanduser().absolute() / "environments" / f"{name}-{version}"


def process_environment(library: Library) -> dict[str, str]:
    """Return a worker's environment variables.

    They limit libraries to one thread.  They keep the processor's own BLAS kernels and
    add the checkout for muvera.
    """
    variables = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PYTHON") and key not in BLAS_VARIABLES
    }
    variables |= dict.fromkeys(THREAD_VARIABLES, "1")
    if library.requirement is None:
        variables["PYTHONPATH"] = str(library.checkout)
    return variables


class Worker:
    """A long-lived process that runs one library's operations.

    The operations take arrays in the folder `inputs`.
    """

    def __init__(self, library: Library, inputs: Path, cache: Path) -> None:
        self.library = library
        python = make_environment(library, cache)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [str(python), str(WORKERS / "serve.py"), library.worker, str(inputs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=inputs,
            env=process_environment(library),
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def time(self, operation: str, repeat: int = 1, **options: Any) -> NDArray[np.float64]:
        """Return the wall and processor seconds of `repeat` calls.

        The result is float64 (2, repeat).
        """
        reply = self._ask(operation=operation, repeat=repeat, options=options)
        return np.array([reply["seconds"], reply["processor"]])

    def result(self, operation: str, folder: Path, **options: Any) -> NDArray[Any]:
        """Return the result of a call, which is passed through a file in `folder`."""
        path = folder / f"result-{self.library.name}-{operation}.npy"
        self._ask(operation=operation, save=str(path), options=options)
        return np.asarray(np.load(path, allow_pickle=False))

    def each(
        self, operation: str, texts: str, folder: Path, **options: Any
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Call `operation` once for each text of the input `texts`.

        One more call warms it up before.

        Returns the results and the wall and processor seconds of each call, float64 (2,
        n).
        """
        path = folder / f"result-{self.library.name}-{operation}.npy"
        reply = self._ask(operation=operation, each=texts, save=str(path), options=options)
        results = np.asarray(np.load(path, allow_pickle=False))
        path.unlink()
        return results, np.array([reply["seconds"], reply["processor"]])

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended, and there is no reply
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        reply: dict[str, Any] = (
            json.loads(line) if line else {"error": f"the process ended: {self._last_line()}"}
        )
        if "error" in reply:
            raise RuntimeError(f"{self.library.name}, {request['operation']}: {reply['error']}")
        return reply

    def _last_line(self) -> str:
        """Return the ended process's last line of stderr, or its exit code."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:_MOST_CHARACTERS] if lines else f"exit code {code}"


def save_texts(folder: Path, name: str, texts: Sequence[NDArray[Any]]) -> None:
    """Write a ragged input for workers."""
    np.save(folder / f"{name}.npy", np.concatenate(texts))
    np.save(folder / f"{name}_lengths.npy", np.array([len(text) for text in texts]))
