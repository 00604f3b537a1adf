"""Imports run one way, floor by floor, and never in a circle; every part of the package is named here."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.paths import ROOT

PACKAGE = ROOT / "muvera"

#: A part may import parts of the floors below its own, and itself.
FLOORS = [
    {"utils", "kernels"},
    {"data", "numerics"},
    {"encoders", "mips", "reranking"},
    {"convert"},
    {"index"},
    {"texts", "engines", "distributed"},
    {"diagnostics", "tuning"},
    {"serve", "integrations"},
    {"cli"},
]

FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}

#: What kernels may import besides themselves and the standard library.
KERNEL_LIBRARIES = {"numpy", "numba", "llvmlite"}


def files(package: Path) -> list[Path]:
    """Every module below the root's own ``__init__.py``, whose names are imported lazily."""
    return sorted(path for path in package.rglob("*.py") if path != package / "__init__.py")


FILES = files(PACKAGE)


def module_of(path: Path, package: Path = PACKAGE) -> str:
    names = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def part_of(module: str) -> str:
    """First name below the package: "kernels" of "muvera.kernels.tile"; "" of the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path, package: Path = PACKAGE, *, at_load: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports, inside functions too unless `at_load`."""
    module = module_of(path, package).split(".")
    here = module if path.name == "__init__.py" else module[:-1]
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8")), at_load):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # the names may be modules
                inner = f"{name}.{alias.name}"
                yield node.lineno, inner if _is_module(inner, package) or not node.module else name


def _nodes(tree: ast.AST, at_load: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if at_load and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types_only(node)):
            continue
        yield node
        yield from _nodes(node, at_load)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_module(name: str, package: Path) -> bool:
    path = package.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def wrong_imports(package: Path) -> list[str]:
    """Every import of a part that is not on a floor below, in sentences."""
    found = []
    for path in files(package):
        part = part_of(module_of(path, package))
        if part not in FLOOR_OF:
            found.append(f"{path.relative_to(package.parent)} is in no named part")
            continue
        for line, name in imports(path, package):
            other = part_of(name)
            if name.split(".")[0] != package.name or other in ("", part, "__version__"):
                continue
            if FLOOR_OF.get(other, len(FLOORS)) >= FLOOR_OF[part]:
                found.append(f"{path.relative_to(package.parent)}:{line} imports {name}")
    return found


def circles(package: Path) -> list[list[str]]:
    """Files that import each other, by way of whatever, when they are loaded."""
    modules = {module_of(path, package): path for path in files(package)}
    graph = {
        module: {name for _, name in imports(path, package) if name in modules and name != module}
        for module, path in modules.items()
    }
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            found.append([*trail[trail.index(module) :], module])
            return
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def test_imports_run_one_way_and_every_part_is_named() -> None:
    assert wrong_imports(PACKAGE) == []


def test_no_files_import_each_other() -> None:
    assert circles(PACKAGE) == []


def test_the_root_holds_nothing_but_public_names() -> None:
    kept = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert kept == {"__init__.py", "py.typed", *FLOOR_OF}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A small package of the same floors, without a fault."""
    package = tmp_path / "muvera"
    for part in FLOOR_OF:
        (package / part).mkdir(parents=True)
        (package / part / "__init__.py").write_text("")
    (package / "data" / "a.py").write_text("from ..utils import x\nfrom . import b\n")
    (package / "data" / "b.py").write_text("")
    assert (wrong_imports(package), circles(package)) == ([], [])
    return package


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("convert", "from ..cli import app"),
        ("diagnostics", "def f():\n    from muvera.tuning.tune import tune"),
    ],
)
def test_a_planted_wrong_import_is_found(planted: Path, part: str, line: str) -> None:
    (planted / part / "wrong.py").write_text(f"{line}\n")
    assert len(wrong_imports(planted)) == 1


def test_an_unnamed_part_is_found(planted: Path) -> None:
    (planted / "loose.py").write_text("")
    assert wrong_imports(planted) == ["muvera/loose.py is in no named part"]


def test_a_planted_circle_is_found(planted: Path) -> None:
    (planted / "data" / "b.py").write_text("def late():\n    from .c import x\n")
    (planted / "data" / "c.py").write_text("from .a import y\n")
    assert circles(planted) == [["muvera.data.a", "muvera.data.b", "muvera.data.c", "muvera.data.a"]]


def test_the_parser_sees_every_kind_of_import(planted: Path) -> None:
    """It would pass on anything that it does not see."""
    (planted / "index" / "x.py").write_text(
        "import a.b, c\nfrom . import y\nfrom .draws import z\nfrom .. import utils\n"
        "from ..mips.hnsw import w\nfrom muvera import cli\nfrom muvera.data import b\n"
        "def f():\n    import d\n"
    )
    found = {name for _, name in imports(planted / "index" / "x.py", planted)}
    inside = {"index.y", "index.draws", "utils", "mips.hnsw", "cli", "data.b"}
    assert found == {"a.b", "c", "d", *(f"muvera.{name}" for name in inside)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_only_mips_imports_hnswlib(path: Path) -> None:
    users = [line for line, name in imports(path) if name.split(".")[0] == "hnswlib"]
    assert not users or part_of(module_of(path)) == "mips"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "kernels"], ids=lambda p: p.stem)
def test_kernels_import_numba_and_numpy_only(path: Path) -> None:
    for line, name in imports(path):
        root = name.split(".")[0]
        allowed = root in KERNEL_LIBRARIES or root in sys.stdlib_module_names
        assert allowed or name.startswith("muvera.kernels"), f"{path.name}:{line} imports {name}"
