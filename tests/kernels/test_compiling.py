"""Compiling: folders for the cache of kernels, and Ctrl-C during a first call."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import muvera
from muvera.kernels import jit

_SEARCH = """
import numpy, muvera, numba
print(muvera.top_k([numpy.ones((2, 8), "f4")], [numpy.ones((3, 8), "f4")], 1)[0].ids)
print(numba.config.CACHE_DIR)
"""


# Prints how many signatures of each kernel a build and a search have needed.
_SIGNATURES = """
import gc
from numba.core.dispatcher import Dispatcher
import muvera
from muvera.data.demo_sample import load_demo_sample
sample = load_demo_sample()
index = muvera.MuveraIndex.build(sample.documents[:{count}], {options})
index.search(sample.queries[:1], 3, candidates=20)
for item in gc.get_objects():
    if isinstance(item, Dispatcher) and item.py_func.__module__.startswith("muvera."):
        if item.overloads and not item.targetoptions.get("no_cpython_wrapper"):
            print(item.py_func.__module__ + "." + item.py_func.__qualname__, len(item.overloads))
"""

# Kernels that a search of all tokens in int8 runs.
_EXACT_INT8 = {
    "muvera.kernels.rows.first_beyond",
    "muvera.kernels.selection.select_best",
    "muvera.kernels.token_codes._decode_bytes",
    "muvera.kernels.token_codes._scoring.<locals>.score",
    "muvera.kernels.token_codes._scoring_decoded.<locals>.score",
    "muvera.kernels.token_codes.round_query",
}

# Kernels that check numbers, of the 16 bits of stored tokens and the 32 of others.
_TWO_WIDTHS = {"muvera.kernels.rows.first_beyond"}


def run(folder: Path, code: str, **environment: str) -> str:
    """Run code with the package in `folder` and return what it prints."""
    home = {"HOME": "/dev/null/none", "XDG_CACHE_HOME": "/dev/null/none", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **home, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def unwritable_package(tmp_path: Path) -> Path:
    """Return a copy of the package, beside which not even root can cache anything."""
    package = tmp_path / "site" / "muvera"
    shutil.copytree(Path(muvera.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()
    return package.parent


@pytest.mark.slow
def test_kernels_run_if_neither_the_package_nor_home_is_writable(
    unwritable_package: Path, tmp_path: Path
) -> None:
    """Their cache is in the temporary folder, and only this user may write there."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    answer = run(unwritable_package, _SEARCH, TMPDIR=str(temporary), NUMBA_CACHE_DIR="")
    (cache,) = temporary.glob("muvera-kernels-*")
    assert answer.split("\n")[:2] == ["[0]", str(cache)]
    assert cache.stat().st_mode & 0o777 == 0o700
    assert any(cache.rglob("*.nbi"))


def signatures(count: int, options: str) -> dict[str, int]:
    """Return the number of signatures of each kernel that a build and a search need."""
    code = _SIGNATURES.format(count=count, options=options)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    return {name: int(number) for name, number in (line.split() for line in done.stdout.splitlines())}


def test_a_search_of_all_tokens_compiles_no_kernel_of_vectors() -> None:
    """The first answers of a small index wait only for the kernels that they run."""
    assert set(signatures(20, "tokens='int8'")) <= _EXACT_INT8


@pytest.mark.slow
def test_a_build_with_defaults_compiles_each_kernel_once() -> None:
    """Read-only arrays, layouts and literal numbers make no second signature."""
    counts = signatures(300, "exact_tokens=0")
    assert {name for name, count in counts.items() if count > 1} <= _TWO_WIDTHS
    assert "muvera.fde.query_kernels.project_queries" in counts


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX")
@pytest.mark.parametrize("problem", ["others may write", "link", "file"])
def test_a_foreign_temporary_folder_is_no_cache(
    problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cached kernels are code, so a folder that others prepared must not be read."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"muvera-kernels-{os.getuid()}"
    if problem == "others may write":
        folder.mkdir()
        folder.chmod(0o777)
    elif problem == "link":
        (tmp_path / "other").mkdir()
        folder.symlink_to(tmp_path / "other")
    else:
        folder.touch()
    assert jit._private_folder() is None


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, as in a shell's foreground."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_waits_until_a_kernel_is_compiled() -> None:
    """numba's compiler is never left in the middle, and the interrupt is not lost."""
    steps = []
    with pytest.raises(KeyboardInterrupt), jit._postponed_interrupt():
        signal.raise_signal(signal.SIGINT)
        steps.append("compiled")
    assert steps == ["compiled"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_a_first_call_postpones_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt of a first call arrives after it, and the next call works."""

    def interrupted(value: float) -> float:
        return value + 1

    kernel = jit._interruptible(jit._njit(interrupted))
    compile_whole, seen = kernel.compile, []

    def compile_and_interrupt(*signature: object) -> object:
        signal.raise_signal(signal.SIGINT)
        seen.append(signature)
        return compile_whole(*signature)

    monkeypatch.setattr(kernel, "compile", compile_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        kernel(1.0)
    assert len(seen) == 1
    assert kernel(1.0) == 2.0


@pytest.fixture
def double(tmp_path: Path) -> Callable[[], Any]:
    """Return a function that loads a module's kernel, which doubles, once more."""
    file = tmp_path / "doubling.py"
    file.write_text("from muvera.kernels.jit import kernel\n\n@kernel\ndef double(x):\n    return x + x\n")

    def load() -> Any:
        spec = importlib.util.spec_from_file_location("doubling", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.double

    return load


def test_processes_that_compile_at_once_use_different_files(
    double: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see an index without the other's kernel; the files may not be mixed up."""
    kernel = double()
    file = kernel._cache._cache_file
    saved: list[str] = []
    monkeypatch.setattr(file, "_load_index", dict)
    monkeypatch.setattr(file, "_save_data", lambda name, data: saved.append(name))
    monkeypatch.setattr(file, "_save_index", lambda overloads: None)
    assert (kernel(2), kernel(0.5)) == (4, 1.0)
    assert len(set(saved)) == 2


def test_a_later_process_loads_what_an_earlier_compiled(double: Callable[[], Any]) -> None:
    first, later = double(), double()
    assert (first(2), first(0.5), later(2), later(0.5)) == (4, 1.0, 4, 1.0)
    hits = [sum(kernel.stats.cache_hits.values()) for kernel in (first, later)]
    assert hits == [0, 2]
