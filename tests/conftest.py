"""Configuration of all tests: hypothesis's profile, and marks."""

import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from builders.paths import kernel_cache

# Before numba is imported, which reads it once; processes that tests start inherit it.
os.environ["NUMBA_CACHE_DIR"] = kernel_cache()

import pytest
from hypothesis import HealthCheck, Phase, settings

from muvera.reranking import pruning
from muvera.utils import parallel

# No deadline: the first call of a kernel compiles it.  Derandomized: two runs give the
# same result.
settings.register_profile(
    "muvera",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("muvera")
# For `nox -s quick`: the laws ran with all examples before, here versions are tried.
settings.register_profile("few", settings.get_profile("muvera"), max_examples=8)
# For `nox -s mutants`: a fault is caught by any example, it need not be a short one.
_phases = (Phase.explicit, Phase.generate)
settings.register_profile("first", settings.get_profile("muvera"), phases=_phases)


pytest_plugins = ["builders.engine_collections"]

#: Folders and files whose tests start processes or browsers, write whole indexes or
#: measure collections.
SLOW = (
    "attack/",
    "cli/",
    "convert/test_isolation.py",
    "convert/writers/",
    "diagnostics/",
    "docs/",
    "engines/",
    "experiments/",
    "index/test_damaged_folders.py",
    "index/test_saves.py",
    "index/test_writers_and_readers.py",
    "pages/test_documents_of_pages.py",
    "serve/test_server_page.py",
    "tuning/",
)

#: Files that take longest; they start first if files run in several processes.
FIRST = ("attack/", "docs/", "engines/", "experiments/")


#: What is missing, in the reason of a skipped test.
MISSING = re.compile(r"(?:^|: )(?:no |the )?([\w-]+)(?: with \w+| extra)? is (?:not )?installed")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks.

    Let pytest-xdist keep the order of files, not start with those of most tests.
    """
    config.option.loadscopereorder = False
    config.addinivalue_line("markers", "slow: takes seconds; skip with `python -m pytest -m 'not slow'`")
    config.addinivalue_line("markers", "golden: compares with a golden file; `nox -s mutants` skips it")
    config.addinivalue_line("markers", "shared: reads ../shared/data; skipped if that folder does not exist")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests, golden tests, and tests that read the real collections."""
    names = {item: item.path.as_posix().rpartition("/tests/")[2] for item in items}
    items.sort(key=lambda item: not names[item].startswith(FIRST))
    for item, name in names.items():
        if hasattr(getattr(item, "module", None), "SHARED"):
            item.add_marker(pytest.mark.shared)
        if "golden" in name or "golden" in item.name:
            item.add_marker(pytest.mark.golden)
        if name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """Name what was not run because it is not installed, in the last line."""
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        skipped = [report.longrepr[2] for report in reporter.stats.get("skipped", []) if report.longrepr]
        if line := not_run(skipped):
            reporter.write_line(line)
    return result


def not_run(reasons: Iterable[str]) -> str:
    """Return a line with what was missing, and how many tests each skipped."""
    found = (MISSING.search(reason) for reason in reasons)
    counts = Counter(
        match[1].capitalize() if match[1] == "chromium" else match[1] for match in found if match
    )
    return f"not run: {', '.join(f'{name} ({count})' for name, count in sorted(counts.items()))}" * bool(
        counts
    )


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, Any, Any]:
    """Skip a test if it needs the graph library and that is not installed.

    `nox -s bare` runs all others.
    """
    try:
        return (yield)
    except ImportError as error:
        if "hnswlib" not in str(error) or find_spec("hnswlib"):
            raise
        pytest.skip("hnswlib is not installed")


#: Skip the tests of a fixture that needs the graph library, too.
pytest_fixture_setup = pytest_pyfunc_call


@pytest.fixture(autouse=True, scope="module")
def threads_for_small_work(request: pytest.FixtureRequest) -> Iterator[None]:
    """Divide small work between threads, too, in the tests of reranking."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name == "reranking":
            for module in (pruning, parallel):
                patch.setattr(module, "SMALL", 0)
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"
