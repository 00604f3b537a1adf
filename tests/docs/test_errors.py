"""The page of errors: the exception classes of muvera, and the server's statuses."""

import ast
import pkgutil
import re
from collections.abc import Iterator

import pytest
from builders.paths import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

#: The text about each class, by the class's name with its module.
SECTIONS = dict(re.findall(r"^### `([\w.]+)`\n\n(.+?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))


def defined() -> Iterator[str]:
    """Yield the names of public exception classes, with their modules."""
    for path in sorted((ROOT / "muvera").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                if any(base.endswith(("Error", "Exception", "Warning")) for base in bases):
                    yield f"{module}.{node.name}"


def test_the_page_has_every_class_and_no_other() -> None:
    assert sorted(SECTIONS) == sorted(defined())


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_names_the_bases_of_a_class(name: str) -> None:
    kind: type[Exception] = pkgutil.resolve_name(name)
    sentence, _, rest = SECTIONS[name].partition(". ")
    bases = [base.__name__ for base in kind.__bases__]
    assert [base.rpartition(".")[2] for base in re.findall(r"`([\w.]+)`", sentence)] == bases
    assert rest.startswith("Raised ")
    assert "\n\n" in rest.strip()  # a paragraph about what to do


def test_the_page_has_the_statuses_of_the_server() -> None:
    source = (ROOT / "muvera" / "serve" / "app.py").read_text(encoding="utf-8")
    called = re.findall(r"(?:HTTPException|_problem)\(\s*(\d{3})", source)
    described = re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)
    assert set(called) | {"404", "422"} == set(described)
