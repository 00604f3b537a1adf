"""Check the docstrings of public names with numpydoc's validator.

``docs/versions.md`` defines which names are public.  ``[tool.numpydoc_validation]`` in
``pyproject.toml`` lists the checks.  One check is added: a function that raises an
error has a section Raises (RS01).
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from numpydoc.docscrape import get_doc_object
from numpydoc.hooks.validate_docstrings import parse_config
from numpydoc.validate import Validator, validate

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def entries() -> dict[str, str]:
    """Return the options of each public name's entry in the reference.

    They are empty for names of ``muvera.__all__`` and of the page of errors that have
    no entry.
    """
    docs = ROOT / "docs"
    errors = re.findall(
        r"^### `(muvera\.\S+)`", (docs / "errors.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    names = dict.fromkeys([f"muvera.{name}" for name in import_module("muvera").__all__] + errors, "")
    for page in sorted((docs / "reference").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        names |= dict(re.findall(r"^::: (\S+)\n((?: {4}.*\n)*)", text, re.MULTILINE))
    return names


def leaves_out(options: str, member: str) -> bool:
    """Return True if an entry with these options does not show a member."""
    listed = re.search(r"members: \[(.*)\]", options)
    hidden = re.findall(r'"!(.*?)"', options)
    return bool(listed and member not in re.split(r",\s*", listed[1])) or any(
        re.search(pattern, member) for pattern in ["^_", *hidden]
    )


def load(name: str) -> object:
    """Return the object of a name."""
    value: object = import_module("muvera")
    for i, word in enumerate(name.split(".")[1:], 2):
        if isinstance(value, ModuleType) and not hasattr(value, word):
            import_module(".".join(name.split(".")[:i]))
        value = getattr(value, word)
    return value


def with_members(name: str, options: str) -> Iterator[str]:
    """Yield a name and its public members that are defined in this package."""
    value = load(name)
    if callable(value):
        yield name
    if inspect.isclass(value):
        for owner in value.__mro__:
            if owner.__module__.partition(".")[0] == "muvera":
                for member, defined in vars(owner).items():
                    kinds = (property, classmethod, staticmethod)
                    if not leaves_out(options, member) and (callable(defined) or isinstance(defined, kinds)):
                        yield f"{name}.{member}"


def raises(value: object) -> bool:
    """Return True if a function's own code raises a new error."""
    if not inspect.isroutine(value):
        return False
    nodes: list[ast.AST] = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0].body  # type: ignore
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            nodes.extend(ast.iter_child_nodes(node))
    return False


def main() -> int:
    """Print what the checks find, and return 1 if they find something."""
    config = parse_config(ROOT)
    names: set[str] = set()
    skipped: list[str] = []
    for name, options in entries().items():
        try:
            names.update(with_members(name, options))
        except ImportError as error:
            skipped.append(f"{name} is not checked: {error}")
    found: list[str] = []
    for name in sorted(names):
        result = validate(name)
        file = Path(result["file"]).relative_to(ROOT)
        value = load(name)
        errors = [(code, text) for code, text in result["errors"] if code in config["checks"]]
        if raises(value) and not Validator(get_doc_object(value)).doc["Raises"]:
            errors.append(("RS01", "No Raises section found"))
        found += [f"{file}:{result['file_line']} {name}: {code} {text}" for code, text in errors]
    print(*skipped, *found, sep="\n")
    print(f"{len(names)} public names checked: {len(found)} findings")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
