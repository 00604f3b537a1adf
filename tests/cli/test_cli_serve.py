"""``muvera serve``: what is said before it serves."""

from pathlib import Path
from typing import Any

import pytest
from builders.command_line import fails, muvera, some_texts

from muvera import MuveraIndex
from muvera.serve import run

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("uvicorn", reason="the serve extra is not installed")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    MuveraIndex.build(some_texts()).save(tmp_path / "index")
    return tmp_path / "index"


def test_a_port_in_use_is_the_only_thing_that_is_said(index: Path) -> None:
    with run.listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        assert f"Port {port} of 127.0.0.1 is in use. Give another --port." in fails(
            "serve", index, "--port", port
        )


@pytest.mark.parametrize(("token", "warned"), [("short", True), ("0123456789abcdef", False)])
def test_a_token_that_could_be_guessed_is_warned_of(
    index: Path, monkeypatch: pytest.MonkeyPatch, token: str, warned: bool
) -> None:
    def served(*_: Any, announce: Any, **__: Any) -> None:
        announce()

    monkeypatch.setattr(run, "serve", served)
    monkeypatch.setenv("MUVERA_TOKEN", token)
    code, out, err = muvera("serve", index, "--writable")
    assert (code, out) == (0, f"{index}: 30 documents at http://127.0.0.1:8080/ (Ctrl-C stops)\n")
    warning = "The token has 5 characters and could be guessed. Give at least 16 random ones."
    assert (warning in err) == warned
    assert warned or err == ""
    assert "guessed" not in muvera("serve", index)[2]
