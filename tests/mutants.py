"""Plant the faults of ``mutants*.yaml`` one at a time, and check that tests catch them.

``python tests/mutants.py`` runs the tests of each fault in a copy of the checkout.  A
fault is caught if a test fails, crashes or takes too long.  Golden files do not
count: they show that a value has changed, not that it is wrong.

Each result is stored at once in ``mutants.tsv``, with the test that caught the fault.
The next run plants only faults without a result, in an order that mixes all rooms;
``--again`` plants all, and tries the test that caught a fault before first.
``mutants.md`` is a table of the results.
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
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import yaml

ROOT = Path(__file__).parents[1]
FAULTS = tuple(sorted(Path(__file__).parent.glob("mutants*.yaml")))
RESULTS = Path(__file__).with_suffix(".tsv")
TABLE = Path(__file__).with_suffix(".md")

#: Share of the faults that tests must catch.
ENOUGH = 0.95

# Results of a fault.  GOLDEN: no test noticed but those that read golden files.
# ABSENT: the source no longer has the snippet.
CAUGHT, GOLDEN, SURVIVED, ABSENT = "caught", "golden only", "survived", "not applicable"

# Files and folders of the checkout's root that are not copied.
_IGNORED = {".git", ".hypothesis", ".nox", ".venv", "build", "dist", "results", "site"}


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file`, `old` is replaced by `new`.

    `old` occurs once; `tests` must notice the fault, unless a `reason` says why they
    cannot.
    """

    name: str
    file: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]
    reason: str = ""

    @property
    def room(self) -> str:
        """The folder of muvera that has the fault."""
        return self.file.split("/")[1]

    @property
    def digest(self) -> str:
        """Digits that differ if the fault or its tests do."""
        return hashlib.sha256(repr((self.file, self.old, self.new, self.tests)).encode()).hexdigest()[:8]

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


@dataclass(frozen=True)
class Result:
    """What happened to a fault, and the test that caught it."""

    digest: str
    result: str
    test: str = ""


class Results:
    """The results of faults, in a file that is written after each."""

    def __init__(self, path: Path = RESULTS) -> None:
        self.path = path
        self._lock = threading.Lock()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._found = {name: Result(*rest) for name, *rest in (line.split("\t") for line in lines)}

    def of(self, mutant: Mutant) -> Result | None:
        """Return the result of a fault; None if it or its tests have changed since."""
        found = self._found.get(mutant.name)
        return found if found and found.digest == mutant.digest else None

    def store(self, mutant: Mutant, result: str, test: str = "") -> None:
        with self._lock:
            self._found[mutant.name] = Result(mutant.digest, result, test)
            self._write()

    def keep(self, mutants: Sequence[Mutant]) -> None:
        """Forget faults that are not among `mutants`, or have changed."""
        with self._lock:
            found = {mutant.name: result for mutant in mutants if (result := self.of(mutant))}
            if found != self._found:
                self._found = found
                self._write()

    def _write(self) -> None:
        rows = sorted(self._found.items())
        text = "".join(f"{name}\t{r.digest}\t{r.result}\t{r.test}\n" for name, r in rows)
        beside = self.path.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self.path)


def table(mutants: Sequence[Mutant], results: Results) -> str:
    """Return a Markdown table of the results by rooms, and a list of the survivors."""
    columns = (CAUGHT, GOLDEN, SURVIVED, ABSENT)
    found = {mutant: result.result for mutant in mutants if (result := results.of(mutant))}
    rooms = {
        room: Counter(found.get(m, "") for m in mutants if m.room == room)
        for room in sorted({m.room for m in mutants})
    }
    rooms["all"] = sum(rooms.values(), Counter())
    lines = [
        "# Planted faults",
        "",
        "`python tests/mutants.py` plants the faults of `mutants*.yaml` and writes this page; see its `--help`.",
        "",
        f"| room | faults | run | {' | '.join(columns)} | caught of applicable |",
        f"|---|{'---:|' * 7}",
    ]
    for room, counts in rooms.items():
        run = counts.total() - counts[""]
        applicable = run - counts[ABSENT]
        share = f"{counts[CAUGHT] / applicable:.1%}" if applicable else ""
        cells = (room, counts.total(), run, *(counts[column] for column in columns), share)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    missed = [mutant for mutant in mutants if found.get(mutant, CAUGHT) != CAUGHT]
    lines += ["", "## Not caught", ""] if missed else []
    for mutant in missed:
        reason = mutant.reason or "no reason is known"
        lines.append(f"- `{mutant.name}` ({mutant.file}, {found[mutant]}): {mutant.what}. Reason: {reason}.")
    return "\n".join(lines) + "\n"


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

    def run(self, tests: Sequence[str], timeout: float, marks: str = "not golden") -> tuple[int | None, str]:
        """Run tests; return pytest's exit code and the output.

        The exit code is None after `timeout` seconds.
        """
        environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": str(self.cache),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (self.root, self.root / "tests"))),
        }
        options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=first")
        command = [sys.executable, "-m", "pytest", *options, "-m", marks, *tests]
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

    def restore(self, mutant: Mutant, warm: Sandbox) -> None:
        """Undo a fault.

        The file gets its old time, by which numba and Python know it.
        """
        shutil.copy2(warm.root / mutant.file, self.root / mutant.file)


def _not_copied(folder: str, names: list[str]) -> set[str]:
    caches = {name for name in names if name == "__pycache__" or re.fullmatch(r"\..*cache", name)}
    return caches | _IGNORED if Path(folder) == ROOT else caches


def _cache_name(folder: Path) -> str:
    """Return numba's name for the cache of the sources in `folder`."""
    return f"{folder.name}_{hashlib.sha1(str(folder).encode()).hexdigest()}"


class Judge:
    """Plants faults in `jobs` copies of the checkout, and stores the results."""

    def __init__(self, folder: Path, results: Results, jobs: int, timeout: float, verbose: bool) -> None:
        self.results, self.timeout, self.verbose = results, timeout, verbose
        self.warm = Sandbox(folder / "warm")
        self._passed: set[str] = set()
        self._warming = threading.Lock()
        self._free: SimpleQueue[Sandbox] = SimpleQueue()
        for number in range(jobs):
            self._free.put(Sandbox(folder / f"{number}"))
        # Collecting all tests to find these takes longer than running them.
        files = sorted((ROOT / "tests").rglob("test_*.py"))
        golden = (path for path in files if "golden" in path.name or "_golden" in path.read_text("utf-8"))
        self.golden = [str(path.relative_to(ROOT)) for path in golden]

    def judge(self, mutant: Mutant, earlier: Result | None = None) -> None:
        """Store and print the result of a fault; try the test of `earlier` first."""
        try:
            mutant.mutated((self.warm.root / mutant.file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._found(mutant, ABSENT)
            return
        self._warm(mutant.tests)
        sandbox, start = self._free.get(), time.monotonic()
        try:
            sandbox.plant(mutant, self.warm)
            if earlier and earlier.test and sandbox.run([earlier.test], self.timeout)[0] == 1:
                self._found(mutant, CAUGHT, earlier.test, start)
                return
            code, output = sandbox.run(mutant.tests, self.timeout)
            if code in (4, 5):
                raise RuntimeError(f"{mutant.name}: pytest ran no test.\n{output}")
            result, test = CAUGHT, "" if code is None else _failed(output)
            if code == 0:
                code, _ = sandbox.run(self.golden, self.timeout, "golden")
                result = GOLDEN if code else SURVIVED
        finally:
            sandbox.restore(mutant, self.warm)
            self._free.put(sandbox)
        self._found(mutant, result, test, start)
        if self.verbose:
            print(output, flush=True)

    def _warm(self, tests: Sequence[str]) -> None:
        """Compile kernels for `tests`, once each, and make sure that they pass.

        Raise RuntimeError if they fail.
        """
        with self._warming:
            if new := [test for test in tests if test not in self._passed]:
                code, output = self.warm.run(new, 10 * self.timeout)
                if code != 0:
                    raise RuntimeError(f"Without a fault, {', '.join(new)} end with {code}.\n{output}")
                self._passed.update(new)

    def _found(self, mutant: Mutant, result: str, test: str = "", start: float | None = None) -> None:
        self.results.store(mutant, result, test)
        seconds = f" ({time.monotonic() - start:.0f} s)" if start is not None else ""
        by = f"  by {test}" if test else ""
        shown = result if result == CAUGHT else result.upper()
        print(f"{shown:9} {mutant.name}{seconds}: {mutant.what}{by}", flush=True)


def _failed(output: str) -> str:
    """Return the test that failed first by pytest's output; empty if Python crashed."""
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", output, re.M)
    return failed[1] if failed else ""


def run_mutants(mutants: Sequence[Mutant], judge: Judge, jobs: int, *, again: bool = False) -> None:
    """Plant the faults that have no result yet, or all of them `again`."""
    # A part of the faults in this order is a random sample of each room.
    order = sorted(mutants, key=lambda mutant: hashlib.sha256(mutant.name.encode()).digest())
    earlier = [(mutant, judge.results.of(mutant)) for mutant in order]
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = [pool.submit(judge.judge, *pair) for pair in earlier if again or not pair[1]]
        for future in futures:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wanted", nargs="*", help="rooms such as fde, names of faults, or parts of paths")
    parser.add_argument("--list", action="store_true", help="print the faults and run nothing")
    parser.add_argument("--table", action="store_true", help="write mutants.md and run nothing")
    parser.add_argument("--again", action="store_true", help="plant faults that have results, too")
    parser.add_argument("-n", "--jobs", type=int, default=os.cpu_count() or 1, help="faults at a time")
    parser.add_argument("--timeout", type=float, default=300, help="seconds of one fault's tests")
    parser.add_argument("-v", "--verbose", action="store_true", help="print pytest's output")
    options = parser.parse_args(arguments)
    everything = read_mutants()
    mutants = [m for m in everything if not options.wanted or any(_is(m, w) for w in options.wanted)]
    if not mutants:
        print("There is no such fault; --list prints all.")
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}: {mutant.what} ({mutant.file})")
        return 0
    results = Results()
    results.keep(everything)
    try:
        if not options.table:
            with tempfile.TemporaryDirectory(prefix="muvera-mutants-") as name:
                judge = Judge(Path(name).resolve(), results, options.jobs, options.timeout, options.verbose)
                run_mutants(mutants, judge, options.jobs, again=options.again)
    except (KeyboardInterrupt, RuntimeError) as error:
        print(f"Stopped; run this again to go on. {error}")
        return 2
    finally:
        TABLE.write_text(table(everything, results), encoding="utf-8")
    found = Counter(result.result for mutant in mutants if (result := results.of(mutant)))
    applicable = found.total() - found[ABSENT]
    share = found[CAUGHT] / max(1, applicable)
    print(f"{found[CAUGHT]} of {applicable} faults are caught ({share:.1%}); {TABLE.name} lists the others.")
    return 0 if share >= ENOUGH else 1


def _is(mutant: Mutant, word: str) -> bool:
    return word in (mutant.name, mutant.room) or (bool(re.search(r"[/.]", word)) and word in mutant.file)


if __name__ == "__main__":
    sys.exit(main())
