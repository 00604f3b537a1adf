"""Public names: each is there, documented, and hides no module of the same name."""

import importlib
import pkgutil
import types

import pytest

import muvera


@pytest.mark.parametrize("name", [name for name in muvera.__all__ if not name.startswith("__")])
def test_a_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(muvera, name)
    assert (value.__doc__ or "").strip()


def test_no_public_name_hides_a_module() -> None:
    """``from muvera import chamfer`` gave a function where a module of that name held others."""
    for module in [muvera, *map(importlib.import_module, packages())]:
        inside = {found.name for found in pkgutil.iter_modules(module.__path__)}
        for name in inside:
            value = getattr(module, name, None)
            assert value is None or isinstance(value, types.ModuleType), f"{module.__name__}.{name}"


def packages() -> list[str]:
    found = pkgutil.walk_packages(muvera.__path__, "muvera.")
    return [one.name for one in found if one.ispkg and ".cli" not in one.name]
