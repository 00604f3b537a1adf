"""Change text indexes while a disk is full or read-only.

SQLite reads its folder of temporary files when the process starts.
"""

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, TextIndex

ENCODER = HashEncoder(8)


def contents(index: TextIndex) -> Any:
    ids = index.index.ids.tolist()
    return sorted((each.id, each.text) for each in index), index.index.tokens(ids).lengths.tolist()


@contextmanager
def full(filler: str) -> Iterator[None]:
    """Fill the disk with the file `filler` during a block.

    Without it, no file may grow beyond 200 kB.
    """
    unlimited = resource.RLIM_INFINITY
    if filler:
        with suppress(OSError), Path(filler).open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited))
    try:
        yield
    finally:
        if filler:
            Path(filler).unlink()
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))


def refused(work: Callable[[], object]) -> str:
    """Call `work` until it fails, and return the error message."""
    try:
        for _ in range(10_000):
            work()
    except OSError as error:
        assert not str(error).startswith("[Errno") and str(error).endswith((".", "?")), repr(error)
        return str(error)
    raise AssertionError("the disk was not full")


def built(folder: str) -> Path:
    texts = [f"document {i} " + "- " * 100_000 for i in range(20)]  # more than SQLite keeps in memory
    TextIndex.build(texts, ENCODER, path=folder, threads=1)
    return Path(folder)


def fill_temporary(place: str, filler: str) -> None:
    """If the texts cannot be changed, the vectors are not changed, either."""
    index = TextIndex.load(folder := built(place), ENCODER)
    before = contents(index)
    with full(filler):
        assert "texts were not changed" in refused(lambda: index.delete([3]))
        assert contents(index) == before
    index.delete([4])
    index.save(folder)
    assert contents(TextIndex.load(folder, ENCODER)) == contents(index) != before


def fill_folder(place: str, filler: str) -> None:
    """A change that does not fit into the journal is not made.

    A save that does not fit loses nothing.
    """
    index = TextIndex.open(folder := built(place), ENCODER)
    index.delete([3])
    with full(filler):
        assert "changed" in refused(lambda: index.add(["a word " + "- " * 5_000]))
        before = contents(index)
        assert not filler or contents(TextIndex.load(folder, ENCODER)) == before
        refused(index.save)
        refused(index.close)
    assert contents(index) == before
    with TextIndex.open(folder, ENCODER) as index:
        assert contents(index) == before
        index.add(["more"])
    assert contents(TextIndex.load(folder, ENCODER)) == contents(index)


def write_read_only(disk: str) -> None:
    """Changes, saves and builds name the folder if its file system is read-only."""
    folder, vectors = Path(disk, "index"), MuveraIndex(dimension=8)
    TextIndex.build(["a word"], ENCODER, path=folder)
    loaded = TextIndex.load(folder, ENCODER)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    writes: list[Callable[[], object]] = [
        lambda: TextIndex.open(folder, ENCODER),
        lambda: loaded.save(folder),
        lambda: vectors.save(Path(disk, "new")),
        lambda: vectors.rebuild(path=Path(disk, "new")),
        lambda: MuveraIndex.build([[[1.0]]], path=Path(disk, "deep", "new")),
    ]
    for write in writes:
        message = refused(write)
        assert disk in message and "Read-only file system" in message, message
    assert len(TextIndex.load(folder, ENCODER)) == 1
