"""Checks of arguments: their return values, and the given values in their messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera.engines.base import SCHEMES
from muvera.utils.checks import as_id_list, as_path, has_repeats, require_choice, require_int, require_number


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
