"""TextIndex.open: changes survive without a save; failures change nothing.

There is one writer at a time.
"""

import errno
import json
import os
import shutil
import time
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any

import pytest
from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, TextIndex
from muvera.cli.sources import open_index
from muvera.index.generations import IndexFolderError
from muvera.texts import journal as module

ENCODER = HashEncoder(8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = [f"animal number{i}" for i in range(6)]
    TextIndex.build(texts, ENCODER, metadata=[{"n": i} for i in range(6)], path=tmp_path / "index")
    return tmp_path / "index"


def opened(folder: Path, **options: Any) -> TextIndex:
    return TextIndex.open(folder, ENCODER, **options)


def content(index: TextIndex) -> Any:
    stored = [(one.id, one.text, one.metadata) for one in index]
    return stored, [(hit.id, hit.score) for hit in index.search("animal number3 new", 20)]


def change(index: TextIndex) -> None:
    assert index.add(["new one", "new two"], metadata=[{"n": 9}, {"deep": {"a": [1]}}]) == [6, 7]
    index.update(["new two"], ids=[2])
    index.update(["new three", "new one"], ids=[3, 6])
    index.delete([0, 6])
    index.update(ids=[1], metadata=[{"n": None, "only": "metadata"}])
    index.add(["new \u00e9\r\n four"])


def copied(folder: Path) -> Path:
    """Return a copy of the folder, which is like the folder after a kill."""
    return Path(shutil.copytree(folder, folder.with_name(f"copy{time.monotonic_ns()}")))


def journals(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("journal-*"))


def wait(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_changes_survive_without_a_save(folder: Path) -> None:
    with opened(folder) as index:
        change(index)
        expected = content(index)
        assert content(TextIndex.load(folder, ENCODER)) == expected
    assert journals(folder) == []
    assert content(TextIndex.load(folder, ENCODER)) == expected


def test_changes_survive_a_kill_and_can_be_continued(folder: Path) -> None:
    with opened(folder) as index:
        change(index)
        expected, killed = content(index), copied(folder)
    assert len(journals(killed)) == 1
    with opened(killed) as again:
        assert content(again) == expected
        again.delete([7])
        assert content(TextIndex.load(killed, ENCODER)) == content(again)
    assert journals(killed) == []
    assert 7 not in TextIndex.load(killed, ENCODER)


def test_each_prefix_of_a_journal_is_a_state(folder: Path) -> None:
    with opened(folder) as index:
        states, sizes = [content(index)], [0]
        for step in (
            lambda: index.add(["a b"]),
            lambda: index.delete([2]),
            lambda: index.update(["c"], ids=[2]),
        ):
            step()
            states.append(content(index))
            sizes.append((folder / journals(folder)[0]).stat().st_size)
        killed = copied(folder)
    journal = killed / journals(killed)[0]
    whole = journal.read_bytes()
    for size in range(0, len(whole) + 1, 7):
        journal.write_bytes(whole[:size] + b"\0" * (size % 3))
        number = sum(end <= size for end in sizes) - 1
        assert content(TextIndex.load(killed, ENCODER)) == states[number]
    with opened(killed) as index:  # removes the incomplete line
        index.delete([1])
        assert content(TextIndex.load(killed, ENCODER)) == content(index)


def test_no_change_is_applied_twice_or_lost_around_a_save(folder: Path) -> None:
    index = opened(folder)
    index.add(["new one"])
    old = folder / journals(folder)[0]
    saved = old.read_bytes()
    index.save()
    assert not old.exists()
    old.write_bytes(saved)  # as if the process had died before the removal
    assert content(TextIndex.load(folder, ENCODER)) == content(index)
    index.add(["new two"])
    assert len(journals(folder)) == 2
    assert content(TextIndex.load(folder, ENCODER)) == content(index)
    index.close()
    assert journals(folder) == [] and len(TextIndex.load(folder, ENCODER)) == 8


def test_one_writer(folder: Path) -> None:
    loaded = TextIndex.load(folder, ENCODER)
    loaded.add(["mine"])
    with opened(folder) as index:
        index.add(["new"])
        for write in (
            lambda: opened(folder),
            lambda: loaded.save(folder),
            lambda: index.index.save(folder),
            lambda: TextIndex.build(["x"], ENCODER, path=folder, overwrite=True),
        ):
            with pytest.raises(IndexFolderError, match="Another process or an open TextIndex is writing"):
                write()
        killed = copied(folder)
    with pytest.raises(IndexFolderError, match="you loaded generation 1"):
        loaded.save(folder)
    with pytest.raises(ValueError, match="closed"):
        index.add(["late"])
    index.close()
    with pytest.raises(ValueError, match="without a path"):
        index.save()
    # A save keeps a journal that has grown since the load, and includes the changes of
    # a loaded journal.
    stale = TextIndex.load(killed, ENCODER)
    again = opened(killed)
    again.add(["more"])
    later = copied(killed)
    with pytest.warns(UserWarning, match="journal"):
        assert len(MuveraIndex.load(later)) == 6
    with pytest.raises(IndexFolderError, match="journal that must be encoded"):
        open_index(later)
    held: Any = again._texts
    held.folder.close()
    with pytest.raises(IndexFolderError, match="journal has changes"):
        stale.save(killed)
    TextIndex.load(killed, ENCODER).save(killed)
    assert journals(killed) == [] and len(TextIndex.load(killed, ENCODER)) == 8


def test_damage_inside_a_journal_is_refused(folder: Path) -> None:
    with opened(folder) as index:
        index.add(["one"])
        index.add(["two"])
        killed = copied(folder)
    journal = killed / journals(killed)[0]
    lines = journal.read_bytes().splitlines(keepends=True)
    others = [
        ["update", {"ids": [1]}],
        ["save", {"ids": []}],
        ["delete", {"ids": [1.5]}],
        ["delete", 3],
        3,
        [],
    ]
    bodies = [json.dumps(other).encode() for other in others]
    wrong = [lines[0].replace(b"one", b"six") + lines[1]]
    for content in wrong + [b"%s %s\n" % (module._checksum(body), body) for body in bodies]:
        journal.write_bytes(content)
        with pytest.raises(IndexFolderError, match="line 1"):
            TextIndex.load(killed, ENCODER)
    with pytest.raises(IndexFolderError, match="line 1"):
        opened(killed)
    journal.unlink()
    journal.symlink_to(folder / "manifest.json")
    with pytest.raises(IndexFolderError, match="link"):
        TextIndex.load(killed, ENCODER)


def test_background_saves_and_rebuilds(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder, save_changes=3) as index:
        index.add(["one", "two"])
        assert journals(folder)
        index.delete([0])
        wait(lambda: not journals(folder))
    with opened(folder, save_changes=30) as index:
        index.add(["long " + "- " * 1_000_000])
        wait(lambda: not journals(folder))
        index.delete([8])
        index.rebuild()
        assert journals(folder) == [] and index.info().deleted_documents == 0
        assert content(TextIndex.load(copied(folder), ENCODER)) == content(index)
    with opened(folder, save_seconds=0.05) as index:
        index.add(["three"])
        wait(lambda: not journals(folder))
        held: Any = index._texts
        monkeypatch.setattr(held.database, "save", lambda _: 1 / 0)
        index.add(["four"])
        wait(lambda: "journal keeps all changes" in caplog.text)
        assert journals(folder)
        monkeypatch.undo()
    assert not journals(folder) and len(TextIndex.load(folder, ENCODER)) == 9


def test_the_longest_wait_for_a_background_save(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"save_seconds must be .*10000000000"):
        opened(folder, save_seconds=1e10)
    with opened(folder, save_changes=1, save_seconds=TIMEOUT_MAX) as index:
        index.add(["one"])
        wait(lambda: not journals(folder))


def test_a_failed_write_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as index:
        index.add(["one"])
        before, sync = content(index), os.fsync

        def full(_: int) -> None:
            monkeypatch.setattr(os, "fsync", sync)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"Nothing was changed.*No space left"):
            index.add(["two"])
        assert content(index) == content(TextIndex.load(folder, ENCODER)) == before
        with pytest.raises(ValueError, match="in the index already"):
            index.add(["five"], ids=[0])
        with pytest.raises(ValueError, match="surrogate"):
            index.add(["\ud800"])
        assert content(index) == content(TextIndex.load(folder, ENCODER)) == before
        assert index.add(["three"]) == [7]
        (folder / journals(folder)[0]).unlink()
        with pytest.raises(OSError, match="was removed"):
            index.add(["four"])


@pytest.mark.parametrize("changes_before", [0, 1])
def test_a_folder_put_in_its_place_is_not_changed(folder: Path, changes_before: int) -> None:
    backup = copied(folder)
    first = opened(folder)
    for number in range(changes_before):
        first.add([f"mine {number}"])
    moved = folder.rename(folder.with_name("moved"))
    backup.rename(folder)
    with opened(folder) as second:
        second.add(["two"])
        expected = content(second)
    for change_first in (lambda: first.add(["late"]), lambda: first.delete([0])):
        with pytest.raises(OSError, match=r"Nothing was changed: .*index must stay in its place"):
            change_first()
    assert len(first) == 6 + changes_before
    with pytest.raises(IndexFolderError, match="moved, removed or replaced"):
        first.save()
    first.save(folder.with_name("rescued"))
    assert content(TextIndex.load(folder.with_name("rescued"), ENCODER)) == content(first)
    assert content(TextIndex.load(moved, ENCODER)) == content(first)
    assert content(TextIndex.load(folder, ENCODER)) == expected


def test_files_copied_over_an_open_folder_are_not_changed(folder: Path) -> None:
    backup = copied(folder)
    with opened(backup) as other:
        other.add(["two"])
    index = opened(folder)
    shutil.copytree(backup, folder, dirs_exist_ok=True)
    with pytest.raises(OSError, match=r"Nothing was changed: .* contains generation 2, but you loaded"):
        index.add(["late"])
    with pytest.raises(IndexFolderError, match="contains generation 2, but you loaded generation 1"):
        index.save()
    index.close()
    assert len(TextIndex.load(folder, ENCODER)) == 7


def test_a_removed_folder_is_not_written_again(folder: Path) -> None:
    index = opened(folder)
    shutil.rmtree(folder)
    with pytest.raises(OSError, match="moved, removed or replaced"):
        index.add(["late"])
    with pytest.raises(IndexFolderError, match="moved, removed or replaced"):
        index.save()
    index.close()
    index.save(folder)
    assert len(TextIndex.load(folder, ENCODER)) == 6


def test_a_journal_of_the_same_size_is_another_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(folder)
    held: Any = index._texts
    readers = []

    def fails(*_: Any) -> None:
        readers.append(TextIndex.load(folder, ENCODER))
        raise OSError("The texts were not changed: a test.")

    with monkeypatch.context() as patch:
        patch.setattr(held.database, "change", fails)
        with pytest.raises(OSError, match="a test"):
            index.add(["one"])
    index.add(["two"])
    held.folder.close()  # as if the process had died
    with pytest.raises(IndexFolderError, match="journal has changes"):
        readers[0].save(folder)
    assert [one.text for one in TextIndex.load(folder, ENCODER)][6:] == ["two"]


def test_missing_and_exchanged_lines_of_a_journal_are_refused(folder: Path) -> None:
    with opened(folder) as index:
        for word in ("one", "two", "three", "four"):
            index.add([word])
        killed = copied(folder)
    journal = killed / journals(killed)[0]
    first, second, third, fourth = journal.read_bytes().splitlines(keepends=True)
    for number, lines in (
        (2, [first, third, second, fourth]),
        (2, [first, third, fourth]),
        (2, [first, first, second, third, fourth]),
        (1, [second, third, fourth]),
        (1, [second, first, third, fourth]),
        (4, [first, second, third, second]),
    ):
        journal.write_bytes(b"".join(lines))
        with pytest.raises(IndexFolderError, match=f"damaged in line {number}, or the line before it"):
            TextIndex.load(killed, ENCODER)


def test_a_journal_of_a_former_version_is_read_and_continued(folder: Path) -> None:
    with opened(folder) as index:
        index.add(["one"])
        index.add(["two"])
        killed, expected = copied(folder), content(index)
    journal = killed / journals(killed)[0]
    bodies = [line[17:-1] for line in journal.read_bytes().splitlines(keepends=True)]
    journal.write_bytes(b"".join(b"%s %s\n" % (module._checksum(body), body) for body in bodies))
    assert content(TextIndex.load(killed, ENCODER)) == expected
    with opened(killed) as index:
        index.add(["three"])
        again, expected = copied(killed), content(index)
    assert content(TextIndex.load(again, ENCODER)) == expected


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_the_last_line_is_refused(folder: Path, bit: int) -> None:
    with opened(folder) as index:
        index.add(["one"])
        index.add(["two J*-M"])  # one bit from line breaks
        killed = copied(folder)
    journal = killed / journals(killed)[0]
    whole = journal.read_bytes()
    start = whole.index(b"\n") + 1
    for place in range(start, len(whole)):
        flipped = bytes([whole[place] ^ 1 << bit])
        with pytest.raises(IndexFolderError, match="damaged in line 2"):
            list(module.read_journal(whole[:place] + flipped + whole[place + 1 :], journal))
    journal.write_bytes(whole.replace(b"two", b"six"))
    with pytest.raises(IndexFolderError, match="damaged in line 2"):
        TextIndex.load(killed, ENCODER)


def test_unwritten_blocks_of_the_last_line_are_ignored(folder: Path) -> None:
    with opened(folder) as index:
        index.add(["one"])
        expected = content(index)
        index.add(["two " + "- " * 2000])
        killed = copied(folder)
    journal = killed / journals(killed)[0]
    whole = journal.read_bytes()
    start = whole.index(b"\n") + 1
    for first, stop in [(start, 512), (512, 1024), (1024, len(whole)), (start, len(whole))]:
        journal.write_bytes(whole[:first] + bytes(stop - first) + whole[stop:])
        assert content(TextIndex.load(killed, ENCODER)) == expected
    with opened(killed) as again:  # removes the incomplete line
        again.delete([1])
        assert content(TextIndex.load(killed, ENCODER)) == content(again)


def test_a_disk_that_keeps_failing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(folder)
    index.add(["one"])
    journal, sync = folder / journals(folder)[0], os.fsync

    def fails(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), journal.stat()):
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    for write in (lambda: index.add(["two"]), lambda: index.delete([0]), index.save):
        with pytest.raises(OSError, match=r"journal in .*index may still contain it.*output error") as caught:
            write()
        assert caught.value.errno == errno.EIO
    index.save(folder.with_name("rescued"))
    assert content(TextIndex.load(folder.with_name("rescued"), ENCODER)) == content(index)
    monkeypatch.undo()
    assert index.add(["three"]) == [7]
    index.close()
    assert content(TextIndex.load(folder, ENCODER)) == content(index)
