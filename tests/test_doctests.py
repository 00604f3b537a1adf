"""The examples in docstrings print the documented output."""

import doctest
import importlib
import pkgutil

import pytest

import muvera

MODULES = [
    module.name for module in pkgutil.walk_packages(muvera.__path__, "muvera.") if ".cli." not in module.name
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} needs another library: {error}")
    failed, _ = doctest.testmod(module)
    assert failed == 0
