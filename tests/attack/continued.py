"""Kill ``muvera texts index`` before each file operation, and run it again."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from builders.text_encoders import HashEncoder

from attack.cut_short import CHANGES
from attack.processes import forked
from muvera import MultiVectors, TextIndex
from muvera.cli.texts import index as command

_TEXTS = 40


class CountedEncoder(HashEncoder):
    """Calls a function before it encodes documents."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        super().__init__(8)
        self.before, self.encoded = before, 0

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        self.before()
        self.encoded += len(texts)
        return super().encode_documents(texts)


def _run(place: Path, encoder: CountedEncoder, overwrite: bool) -> None:
    registry = "muvera.texts.encoders.registry.load_text_encoder"
    with patch(registry, lambda _: encoder), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        command.index(place / "texts.csv", place / "index", encoder="hash", threads=1, overwrite=overwrite)


def killed(number: int, work: Callable[[Callable[..., None]], object]) -> bool:
    """Call `work` in a child process until its file operation of this number.

    `work` gets a function that counts one operation more.  Return False if it ended
    before.
    """

    def run() -> None:
        left = number

        def count(*_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes or event in CHANGES or event == "sqlite3.connect":
                count()

        os.fsync = count  # type: ignore[assignment]
        sys.addaudithook(hook)
        work(count)

    status = os.waitpid(forked(run), 0)[1]
    if status not in (0, signal.SIGKILL):
        raise RuntimeError(f"the work itself failed: its process ended with status {status}")
    return status == signal.SIGKILL


def _contents(place: Path) -> Any:
    index = TextIndex.load(place / "index", HashEncoder(8))
    hits = index.search("number3 cat", 5, threads=1)
    return [(one.id, one.text, one.metadata) for one in index], [(hit.id, hit.score) for hit in hits]


def kill_texts_index(every: int, overwrite: bool) -> tuple[int, list[str]]:
    """Kill the command before each `every`-th operation, and run it again.

    With `overwrite` there is another index in the folder.  Return the number of kills,
    and the faults.
    """
    kills, faults = 0, list[str]()
    lines = ["id,text,year", *(f"{i},a cat and number{i},{1990 + i}" for i in range(_TEXTS))]
    with tempfile.TemporaryDirectory() as parent:
        whole = Path(parent, "whole")
        whole.mkdir()
        (whole / "texts.csv").write_text("\n".join(lines))
        _run(whole, CountedEncoder(), False)
        expected, names = _contents(whole), sorted(path.name for path in whole.iterdir())
        number = 1
        while True:
            place = Path(parent, f"killed{number}")
            place.mkdir()
            (place / "texts.csv").write_text("\n".join(lines))
            if overwrite:
                TextIndex.build(["an old text"], HashEncoder(8), path=place / "index", threads=1)
            work = partial(_run, place, overwrite=overwrite)
            if not killed(number, lambda count, work=work: work(CountedEncoder(count))):  # type: ignore[misc]
                break
            try:
                if overwrite:  # until the new one is complete, the old one is there
                    texts = [one.text for one in TextIndex.load(place / "index", HashEncoder(8))]
                    assert texts == ["an old text"] or len(texts) == _TEXTS, (
                        f"the folder has {len(texts)} texts"
                    )
                complete = not overwrite and (place / "index").exists()
                if complete:
                    assert _contents(place) == expected, "an incomplete index has its name"
                else:
                    _run(place, CountedEncoder(), overwrite)
                assert _contents(place) == expected, "the continued index differs"
                left = sorted(path.name for path in place.iterdir())
                assert complete or left == names, f"the folder has {left}"
            except Exception as error:
                faults.append(f"texts index, operation {number}: {type(error).__name__}: {error}"[:500])
            kills, number = kills + 1, number + every
    return kills, faults
