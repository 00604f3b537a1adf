"""What is installed with the package: the graph that can be had here."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from builders.paths import ROOT

CONFIG = {
    "dependencies": ["numpy"],
    "compiled-graph": "hnswlib>=0.8",
    "ready-made-graph": "usearch>=2.26",
}


def dependencies() -> list[str]:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    metadata: dict[str, Any] = {}
    module.GraphHook(str(ROOT), CONFIG).update(metadata)
    found: list[str] = metadata["dependencies"]
    return found


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are looked for, empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path


def test_without_a_compiler_the_graph_is_the_ready_made_one(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dependencies() == ["numpy", "usearch>=2.26"]
    assert "usearch is installed as the graph in place of hnswlib." in capsys.readouterr().err


def test_with_a_compiler_and_headers_it_is_hnswlib(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = programs / "g++"
    compiler.touch(mode=0o755)
    (programs / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(programs))
    assert dependencies() == ["numpy", "hnswlib>=0.8"]
    (programs / "Python.h").unlink()
    assert dependencies() == ["numpy", "usearch>=2.26"]
