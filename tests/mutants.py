"""Plant the faults of ``mutants*.yaml`` one at a time, and check that tests catch them.

``python tests/mutants.py`` copies the checkout to a temporary folder, runs the named
tests there without a fault, and then once per fault.  A fault is caught if a test
fails, crashes or takes too long.  Golden files do not count: they show that a value has
changed, not that it is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import yaml

ROOT = Path(__file__).parents[1]
FAULTS = tuple(sorted(Path(__file__).parent.glob("mutants*.yaml")))

#: Share of the faults that tests must catch.
ENOUGH = 0.95

# Results of a run with a fault.
CAUGHT, SURVIVED, SLOW = "caught", "SURVIVED", "caught (too slow)"

# Files and folders of the checkout's root that are not copied.
_IGNORED = {".git", ".hypothesis", ".nox", ".venv", "build", "dist", "results", "site"}


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file`, `old` is replaced by `new`.

    `old` occurs once; `tests` must notice the fault.
    """

    name: str
    file: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]

    def mutated(self, source: str) -> str:
        """Return the source with the fault.

        Raise ValueError unless `old` occurs exactly once.
        """
        count = source.count(self.old)
        if count != 1 or self.old == self.new:
            raise ValueError(f"{self.name}: {self.old!r} occurs {count} times in {self.file}, not once.")
        return source.replace(self.old, self.new)


def read_mutants(paths: Sequence[Path] = FAULTS) -> list[Mutant]:
    """Read the faults, which YAML files group by source file.

    Raise ValueError for a repeated name.
    """
    mutants = []
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    for file, group in (item for content in files for item in content.items()):
        for values in group["mutants"]:
            tests = tuple(values.pop("tests", group["tests"]))
            mutants.append(Mutant(file=file, tests=tests, **values))
    names = [mutant.name for mutant in mutants]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"Two faults are named {', '.join(sorted(repeated))}.")
    return mutants


def dependents(file: str, root: Path = ROOT) -> set[str]:
    """Return the stems of `file` and of muvera's modules that import it.

    They import it directly or not.
    """
    imports = {
        path: {name for line in _imports(path) for name in re.findall(r"\w+", line)}
        for path in (root / "muvera").rglob("*.py")
    }
    found = {Path(file).stem}
    while True:
        more = {path.stem for path, names in imports.items() if names & found} | found
        if more == found:
            return found - {"__init__"}
        found = more


def _imports(path: Path) -> Iterator[str]:
    """Yield the modules that a module imports from, as they are written."""
    for match in re.finditer(
        r"^\s*(?:from (\S+) import|import (\S+))", path.read_text(encoding="utf-8"), re.M
    ):
        yield match[1] or match[2]


class Sandbox:
    """A copy of the checkout, and a cache of its compiled kernels."""

    def __init__(self, folder: Path) -> None:
        self.root, self.cache = folder / "tree", folder / "kernels"
        shutil.copytree(ROOT, self.root, ignore=_not_copied, symlinks=True)
        self.cache.mkdir()

    def run(self, tests: Sequence[str], timeout: float) -> tuple[int | None, str]:
        """Run tests; return pytest's exit code and the output.

        The exit code is None after `timeout` seconds.
        """
        environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": str(self.cache),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (self.root, self.root / "tests"))),
        }
        options = ("-x", "-q", "-m", "not golden", "-p", "no:cacheprovider", "-p", "no:xdist")
        command = [sys.executable, "-m", "pytest", *options, *tests]
        try:
            done = subprocess.run(
                command, cwd=self.root, env=environment, timeout=timeout, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout + done.stderr

    def plant(self, mutant: Mutant, warm: Sandbox) -> None:
        """Write the fault, and keep the compiled kernels that do not depend on it."""
        path = self.root / mutant.file
        path.write_text(mutant.mutated(path.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.rmtree(self.cache)
        # Kernels are in muvera/kernels, and in modules such as fde/landmark_kernels.py.
        changed = dependents(mutant.file, self.root) if "kernels" in mutant.file else set()
        for compiled in sorted(warm.cache.rglob("*.nb[ic]")):
            source = warm.source_folder(compiled.parent.name)
            # Tests compile kernels, too, which may use any of the package's.
            if source is None or "tests" in source.parts or compiled.name.partition(".")[0] in changed:
                continue
            target = self.cache / _cache_name(self.root / source) / compiled.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(compiled, target)  # numba replaces files and never writes into them
        self.cache.mkdir(exist_ok=True)

    def source_folder(self, name: str) -> Path | None:
        """Return the folder whose kernels are in the cache's folder `name`.

        It is relative to the copy.
        """
        folders = {path.parent for top in ("muvera", "tests") for path in (self.root / top).rglob("*.py")}
        return next((path.relative_to(self.root) for path in folders if _cache_name(path) == name), None)

    def restore(self, mutant: Mutant) -> None:
        """Undo a fault.

        The file gets its old time, by which numba and Python know it.
        """
        shutil.copy2(ROOT / mutant.file, self.root / mutant.file)


def _not_copied(folder: str, names: list[str]) -> set[str]:
    caches = {name for name in names if name == "__pycache__" or re.fullmatch(r"\..*cache", name)}
    return caches | _IGNORED if Path(folder) == ROOT else caches


def _cache_name(folder: Path) -> str:
    """Return numba's name for the cache of the sources in `folder`."""
    return f"{folder.name}_{hashlib.sha1(str(folder).encode()).hexdigest()}"


def run_mutants(mutants: Sequence[Mutant], jobs: int, timeout: float, *, verbose: bool = False) -> int:
    """Plant all faults, and print whether tests catch them.

    Return the exit code of the program.
    """
    with tempfile.TemporaryDirectory(prefix="muvera-mutants-") as name:
        folder = Path(name).resolve()
        warm = Sandbox(folder / "warm")
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        began = time.monotonic()
        code, output = warm.run(tests, 10 * timeout)
        if code != 0:
            print(output, f"Without a fault, the tests end with {code}.", sep="\n")
            return 2
        print(f"{len(tests)} test files pass without a fault in {time.monotonic() - began:.0f} s.")
        free: SimpleQueue[Sandbox] = SimpleQueue()
        for number in range(jobs):
            free.put(Sandbox(folder / f"{number}"))

        def judge(mutant: Mutant) -> str:
            sandbox, start = free.get(), time.monotonic()
            try:
                sandbox.plant(mutant, warm)
                code, output = sandbox.run(mutant.tests, timeout)
            finally:
                sandbox.restore(mutant)
                free.put(sandbox)
            if code in (4, 5):
                raise RuntimeError(f"{mutant.name}: pytest ran no test.\n{output}")
            result = SLOW if code is None else CAUGHT if code else SURVIVED
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
            by = f"  by {failed[0]}" if failed else ""
            print(f"{result:9} {mutant.name} ({time.monotonic() - start:.0f} s): {mutant.what}{by}")
            if verbose:
                print(output)
            sys.stdout.flush()
            return result

        with ThreadPoolExecutor(jobs) as pool:
            results = list(pool.map(judge, mutants))
    caught = sum(result != SURVIVED for result in results)
    survivors = [m.name for m, result in zip(mutants, results, strict=True) if result == SURVIVED]
    share = caught / max(1, len(results))
    print(
        f"{caught} of {len(results)} faults are caught ({share:.0%}); survivors: "
        f"{', '.join(survivors) or 'none'}."
    )
    return 0 if share >= ENOUGH else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wanted", nargs="*", help="names of faults, or of source files or parts of them")
    parser.add_argument("--list", action="store_true", help="print the faults and run nothing")
    parser.add_argument("-n", "--jobs", type=int, default=os.cpu_count() or 1, help="faults at a time")
    parser.add_argument("--timeout", type=float, default=300, help="seconds of one fault's tests")
    parser.add_argument("-v", "--verbose", action="store_true", help="print pytest's output")
    options = parser.parse_args(arguments)
    mutants = [
        mutant
        for mutant in read_mutants()
        if not options.wanted or any(word == mutant.name or word in mutant.file for word in options.wanted)
    ]
    if not mutants:
        print("There is no such fault; --list prints all.")
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}: {mutant.what} ({mutant.file})")
        return 0
    return run_mutants(mutants, options.jobs, options.timeout, verbose=options.verbose)


if __name__ == "__main__":
    sys.exit(main())
