"""Checks of arguments: their return values, and the given values in their messages."""

import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from builders.paths import ROOT

from muvera.engines.base import SCHEMES
from muvera.utils import checks
from muvera.utils.checks import (
    as_id_list,
    as_path,
    has_repeats,
    install_command,
    require_choice,
    require_int,
    require_number,
)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_accepted_integers(value: Any) -> None:
    assert type(require_int("k", value, 1, 3)) is int


@pytest.mark.parametrize("value", [1, 1.0, np.float16(1), np.int64(1)])
def test_accepted_numbers(value: Any) -> None:
    assert type(require_number("tau", value, 0, 1)) is float


def test_accepted_choices() -> None:
    require_choice("to", "npy", {"npy": 1, "npz": 2})


@pytest.mark.parametrize(
    "ids", [[1, 2], (1, 2), {1: 0, 2: 0}.keys(), np.array([1, 2]), iter([1, 2]), range(1, 3)]
)
def test_accepted_ids(ids: Any) -> None:
    found = as_id_list(ids)
    assert found == [1, 2] and all(type(each) is int for each in found)


def test_repeats_are_found() -> None:
    assert has_repeats(np.array([3, 1, 3])) and not has_repeats(np.array([3, 1, 2]))


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: require_int("k", True), TypeError, "k must be an int, got bool True"),
    (lambda: require_int("k", "x" * 500), TypeError, r"got str 'x+\.\.\.x+'"),
    (lambda: require_int("k", 9, None, 8), ValueError, "at most 8, got 9"),
    (lambda: require_int("k", 9, 1, 8), ValueError, "between 1 and 8, got 9"),
    (lambda: require_int("k", 0, 1, hint="Use None."), ValueError, r"at least 1, got 0\. Use None\.$"),
    (lambda: require_number("tau", False), TypeError, "tau must be a number, got bool False"),
    (lambda: require_number("tau", float("nan")), ValueError, "finite, got nan"),
    (lambda: require_number("tau", 10**400), ValueError, "finite, got inf"),
    (lambda: require_choice("to", "x", ("npy", None)), ValueError, "to must be one of npy, None, got 'x'"),
    (lambda: as_id_list("12"), TypeError, r"ids must be .*, got the string '12'\. Give \['12'\]"),
    (lambda: as_id_list(b"12", "names"), TypeError, "names must .* b'12'"),
    (lambda: as_id_list({"a": 1}), TypeError, "dict"),
    (lambda: as_id_list(np.array("12")), TypeError, r"another collection, got ndarray array\('12'"),
    (lambda: as_id_list(None), TypeError, r"another collection, got NoneType None\.$"),
    (
        lambda: as_path(None),  # type: ignore[arg-type]
        TypeError,
        "path must be a string or a Path, got NoneType None",
    ),
    (lambda: as_path(""), ValueError, "path must be a folder, got an empty string"),
    (
        lambda: as_path(Path("s3://bucket")),
        ValueError,
        "a URL of s3. Write .* muvera load FOLDER --to URL, or",
    ),
]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_url_is_no_folder_and_its_password_is_not_shown(scheme: str, tmp_path: Path) -> None:
    for path in (
        f"{scheme}:{tmp_path}/x#y",
        f"{scheme}://u:secret@h/d#y",
        Path(f"{scheme}://u:secret@h/d#y"),
    ):
        with pytest.raises(ValueError, match=f"a URL of {scheme}. Write") as caught:
            as_path(path)
        assert "secret" not in str(caught.value)
    for path in (f"./{scheme}:x", str(tmp_path / f"{scheme}:x"), "C:/notes", "notes:2024"):
        assert as_path(path) == Path(path)


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused_values(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_checkout_is_installed_from_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert install_command("minilm") == "pip install '.[minilm]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("minilm") == f"pip install '{ROOT}[minilm]'"


def test_a_release_is_installed_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "__file__", str(tmp_path / "muvera" / "utils" / "checks.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Mock(read_text=lambda _: None))
    assert install_command("minilm") == "pip install 'muvera-toolkit[minilm]'"


def test_an_installed_copy_of_a_checkout_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = json.dumps({"url": ROOT.as_uri(), "dir_info": {}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "__file__", str(tmp_path / "muvera" / "utils" / "checks.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Mock(read_text=lambda _: installed))
    assert install_command("minilm") == f"pip install '{ROOT}[minilm]'"


FRAMEWORKS = {
    "langchain": "langchain_core",
    "haystack": "haystack",
    "llama_index": "llama_index",
    "mteb": "mteb",
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_missing_framework_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in list(sys.modules):
        if module.partition(".")[0] == FRAMEWORKS[name] or module == f"muvera.integrations.{name}":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, FRAMEWORKS[name], None)  # importing it fails
    extra = name.replace("_", "-")
    with pytest.raises(ImportError, match=rf"Install it with: pip install '.*\[{extra}\]'"):
        importlib.import_module(f"muvera.integrations.{name}")
