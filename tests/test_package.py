"""The package as a whole: examples of docstrings, public names, versions and links."""

import doctest
import importlib
import pkgutil
import re
import types
from typing import Any

import pytest
from builders.paths import ROOT

import experiments
import muvera

MODULES = [
    module.name
    for package in (muvera, experiments)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if ".cli." not in module.name and ".workers." not in module.name
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} needs another library: {error}")
    assert doctest.testmod(module).failed == 0


def test_names_of_packages_are_described_and_hide_no_module() -> None:
    """``from muvera import NAME`` must not return a function if NAME is a module."""
    assert not {"Any", "TYPE_CHECKING"} & set(dir(muvera))
    for name in set(muvera.__all__) - {"__version__"}:
        assert (getattr(muvera, name).__doc__ or "").strip(), name
    packages = [entry.name for entry in pkgutil.walk_packages(muvera.__path__, "muvera.") if entry.ispkg]
    for name in ["muvera", *(name for name in packages if ".cli" not in name)]:
        package = importlib.import_module(name)
        for entry in pkgutil.iter_modules(package.__path__):
            value = getattr(package, entry.name, None)
            loaded = isinstance(value, types.ModuleType)
            assert loaded or (value is None and package is not muvera), f"{name}.{entry.name}"


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "RELEASING.md", "docs/llms.txt", "experiments/README.md"]
)
def test_links_between_files_resolve(name: str) -> None:
    page = ROOT / name
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", prose):
        link = "".join(target)
        assert "://" in link or (page.parent / link).exists(), link


def pyproject() -> Any:
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_readme_on_an_index_page_has_no_link_into_the_repository() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for rule in pyproject()["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    assert links and all("".join(link).startswith("https://") for link in links)
    assert "```python" in text and "<!--" not in text


def test_citation_and_recipe_have_the_version_and_the_requirements() -> None:
    recipe = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {muvera.__version__}\n" in citation
    assert f"\n  version: {muvera.__version__}\n" in recipe
    project = pyproject()["project"]
    wanted = [*project["dependencies"], f"python{project['requires-python']}"]
    run = re.search(r"^  run:\n((?:    - .+\n)+)", recipe, re.MULTILINE)
    assert run and sorted(line[6:].replace(" ", "") for line in run[1].splitlines()) == sorted(wanted)
