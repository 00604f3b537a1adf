"""The package as a whole: public names, versions and links."""

import importlib
import pkgutil
import re
import types

import pytest
from builders.paths import ROOT

import muvera


@pytest.mark.parametrize("name", [name for name in muvera.__all__ if not name.startswith("__")])
def test_public_names_exist_and_are_documented(name: str) -> None:
    assert (getattr(muvera, name).__doc__ or "").strip()


def test_the_package_lists_its_public_names_and_subpackages() -> None:
    assert not {"Any", "TYPE_CHECKING"} & set(dir(muvera))
    for module in pkgutil.iter_modules(muvera.__path__):
        assert isinstance(getattr(muvera, module.name), types.ModuleType)


def test_no_public_name_hides_a_module() -> None:
    """``from muvera import chamfer`` must not return a function if a module has that name."""
    packages = [entry.name for entry in pkgutil.walk_packages(muvera.__path__, "muvera.") if entry.ispkg]
    for package in [muvera, *(importlib.import_module(name) for name in packages if ".cli" not in name)]:
        for module in pkgutil.iter_modules(package.__path__):
            value = getattr(package, module.name, None)
            assert value is None or isinstance(value, types.ModuleType), f"{package.__name__}.{module.name}"


def test_the_version_has_one_source() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "muvera/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", muvera.__version__)


def test_the_readme_has_the_test_command_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^python3 -m venv \.venv && .* pip install -e '\.\[test\]' && .*pytest", readme, re.M)


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "RELEASING.md", "docs/llms.txt", "experiments/README.md"]
)
def test_links_between_files_resolve(name: str) -> None:
    page = ROOT / name
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", prose):
        link = "".join(target)
        assert "://" in link or (page.parent / link).exists(), link


def test_the_readme_on_an_index_page_has_no_link_into_the_repository() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["metadata"][
        "hooks"
    ]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for rule in hooks["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    assert links and all("".join(link).startswith("https://") for link in links)
    assert "```python" in text and "<!--" not in text


def test_one_version_everywhere() -> None:
    for name, pattern in [("CITATION.cff", r"^version: (.+)$"), ("recipe/recipe.yaml", r"^  version: (.+)$")]:
        found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert found and found[1] == muvera.__version__, name


def test_the_recipe_requires_what_the_package_requires() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")
    wanted = [*project["dependencies"], f"python{project['requires-python']}"]
    run = re.search(r"^  run:\n((?:    - .+\n)+)", recipe, re.MULTILINE)
    assert run and sorted(line[6:].replace(" ", "") for line in run[1].splitlines()) == sorted(wanted)
