"""The package as a whole: public names, versions, links, and the graph library that an installation chooses."""

import importlib
import importlib.util
import pkgutil
import re
import types
from pathlib import Path
from typing import Any

import pytest
from builders.paths import ROOT

import muvera


@pytest.mark.parametrize("name", [name for name in muvera.__all__ if not name.startswith("__")])
def test_public_names_exist_and_are_documented(name: str) -> None:
    assert (getattr(muvera, name).__doc__ or "").strip()


def test_subpackages_are_attributes_of_the_package() -> None:
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


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "experiments/README.md"])
def test_links_between_files_resolve(name: str) -> None:
    page = ROOT / name
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", prose):
        link = "".join(target)
        assert "://" in link or (page.parent / link).exists(), link


# ---- The build hook chooses hnswlib if it can be compiled, and usearch otherwise


def dependencies() -> list[str]:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = {
        "dependencies": ["numpy"],
        "compiled-graph": "hnswlib>=0.8",
        "ready-made-graph": "usearch>=2.26",
    }
    metadata: dict[str, Any] = {}
    module.GraphHook(str(ROOT), options).update(metadata)
    names: list[str] = metadata["dependencies"]
    return names


def test_the_graph_library_depends_on_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert dependencies() == ["numpy", "usearch>=2.26"]
    (tmp_path / "g++").touch(mode=0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert dependencies() == ["numpy", "hnswlib>=0.8"]
    (tmp_path / "Python.h").unlink()
    assert dependencies() == ["numpy", "usearch>=2.26"]
