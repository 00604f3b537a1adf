"""``muvera formats``: every format that is read and written."""

from builders.command_line import answer, muvera

from muvera.convert import formats
from muvera.convert.registry import WRITERS
from muvera.convert.writers.store_limits import LIMITS


def test_for_people() -> None:
    code, out, err = muvera("formats")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    for name, description in formats().items():
        assert f"\n  {name} " in out
        assert description in words
    assert f"muvera convert --to writes: {', '.join(WRITERS)}." in words
    assert f"muvera encode --to writes for: {', '.join(LIMITS)}." in words
    assert max(map(len, out.splitlines())) <= 110


def test_for_programs() -> None:
    assert answer("formats") == {"read": formats(), "written": list(WRITERS), "stores": list(LIMITS)}
