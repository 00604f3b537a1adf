"""Imports run one way: kernels <- vectors <- chamfer, fde, mips, store <- index <- convert, cli."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "muvera"

#: Every part of the package may import parts of the layers above its own line, and itself.
LAYERS = [
    {"kernels", "files", "inputs", "parallel"},
    {"inputs"},
    {"vectors"},
    {"batches", "byte_map", "products"},
    {"eigenvectors"},
    {"carving", "ranking"},
    {"screening"},
    {"chamfer", "fde", "mips"},
    {"store"},  # scores what it holds
    {"learned"},
    {"encoders"},
    {"theory", "candidates"},
    {"collection"},
    {"index_folder"},
    {"index"},
]

# What is not named, such as convert and cli, is used by nothing but its own kind and the command line.
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}
LAST = len(LAYERS)

#: What kernels may import besides themselves and the standard library.
KERNEL_LIBRARIES = {"numpy", "numba", "llvmlite"}

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(module: str) -> str:
    """First name below the package: "kernels" of "muvera.kernels.tile"; "" of the package itself."""
    return module.split(".")[1] if "." in module else ""


def module_of(path: Path) -> str:
    names = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports, inside functions too."""
    module = module_of(path).split(".")
    package = module if path.name == "__init__.py" else module[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name == "muvera" or not node.module:  # the names may be modules
                yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(module_of(path))
    level = LEVELS.get(part, LAST)
    for line, name in imports(path):
        if name.split(".")[0] != "muvera" or part_of(name) == part:
            continue
        other = LEVELS.get(part_of(name), LAST)
        assert other < level or (level == LAST and part_of(name)), (
            f"{path.name}:{line} imports {name}, which is not below {part}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_only_mips_imports_hnswlib(path: Path) -> None:
    users = [line for line, name in imports(path) if name.split(".")[0] == "hnswlib"]
    assert not users or part_of(module_of(path)) == "mips"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "kernels"], ids=lambda p: p.stem)
def test_kernels_import_numba_and_numpy_only(path: Path) -> None:
    for line, name in imports(path):
        root = name.split(".")[0]
        allowed = root in KERNEL_LIBRARIES or root in sys.stdlib_module_names
        assert allowed or name.startswith("muvera.kernels."), f"{path.name}:{line} imports {name}"


def test_the_parser_sees_every_kind_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would pass on anything that it does not see."""
    folder = tmp_path / "muvera" / "fde"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "muvera")
    (folder / "x.py").write_text(
        "import a.b, c\nfrom . import y\nfrom .draws import z\nfrom .. import index\n"
        "from ..mips.hnsw import w\nfrom muvera import cli\nfrom muvera.store import v\n"
        "def f():\n    import d\n"
    )
    found = {name for _, name in imports(folder / "x.py")}
    inside = {"fde.y", "fde.draws", "index", "mips.hnsw", "cli", "store"}
    assert found == {"a.b", "c", "d", *(f"muvera.{name}" for name in inside)}
    (folder / "__init__.py").write_text("from .x import f\nfrom ..vectors import g\n")
    assert [name for _, name in imports(folder / "__init__.py")] == ["muvera.fde.x", "muvera.vectors"]
