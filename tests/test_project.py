"""The project's files agree with each other and with the package."""

import re

import pytest
from builders.paths import ROOT

import muvera


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_has_one_source() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    project = tomllib.loads(text("pyproject.toml"))
    assert project["project"]["dynamic"] == ["dependencies", "version"]
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "muvera/__init__.py"
    assert "urls" not in project["project"]  # until there is a home
    assert re.fullmatch(r"\d+\.\d+\.\d+", muvera.__version__)
    assert not re.search(r"^version:", text("CITATION.cff"), re.MULTILINE)


def test_the_changelog_keeps_its_form() -> None:
    sections = re.findall(r"^## (.+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", name) for name in sections[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text("CHANGELOG.md"), re.MULTILINE)) <= kinds


def test_the_readme_is_short_and_has_what_ci_looks_for() -> None:
    readme = text("README.md")
    assert len(readme.splitlines()) <= 150
    command = "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[test]' && python -m pytest"
    assert command in readme.splitlines()
    assert 'python -m pytest -m "not slow"' in readme


def test_links_inside_the_project_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md"):
        page = ROOT / name
        prose = re.sub(r"^```.*?^```$", "", text(name), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", prose):
            link = "".join(target)
            if "://" not in link:
                assert (page.parent / link).exists(), f"{name}: {link}"
