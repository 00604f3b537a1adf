"""Several indexes and processes with one folder, and saves on a full disk."""

import signal
from pathlib import Path
from typing import Any

import pytest
from builders.indexes import answers, built, ended, files, start_script

import muvera.index.persistence as folder_module
from muvera import MuveraIndex
from muvera.index.generations import IndexFolderError, verify

WRITER = """
    import sys
    import muvera.index.persistence as folder_module
    from muvera import MuveraIndex

    index = MuveraIndex.load(sys.argv[1])
    index.delete([int(sys.argv[2])])
    save = folder_module.write_encoder_arrays

    def slow(encoder, folder):
        print("writing", flush=True)
        sys.stdin.readline()
        save(encoder, folder)

    folder_module.write_encoder_arrays = slow
    index.save(sys.argv[1])
    print("done", flush=True)
"""


@pytest.mark.slow
def test_two_processes_writing_one_folder(folder: Path) -> None:
    built(path=folder)
    second = MuveraIndex.load(folder)
    with start_script(WRITER, folder, 7) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == "writing\n"
        second.delete([8])
        with pytest.raises(IndexFolderError, match="Another process or an open TextIndex is writing"):
            second.save(folder)
        assert len(MuveraIndex.load(folder)) == 200  # a reader sees the old one meanwhile
        first.stdin.write("go\n")
        first.stdin.flush()
        assert first.stdout.readline() == "done\n"
    with pytest.raises(IndexFolderError, match=r"generation 2, .* generation 1"):
        second.save(folder)
    loaded = MuveraIndex.load(folder, verify_files=True)
    assert 7 not in loaded and 8 in loaded
    loaded.delete([8])
    loaded.save(folder)
    assert len(MuveraIndex.load(folder)) == 198


def test_an_index_with_two_folders(folder: Path) -> None:
    backup = folder.parent / "backup"
    index = built(path=folder)
    expected = answers(index)
    index.save(backup)
    index.save(folder)  # the folder still holds what this index wrote
    assert answers(index) == answers(MuveraIndex.load(folder, verify_files=True)) == expected
    index.delete([1])
    index.save(backup)
    loaded = MuveraIndex.load(backup, verify_files=True)
    loaded.delete([2])
    loaded.save(folder.parent / "other")
    loaded.save(backup)
    with pytest.raises(IndexFolderError, match=r"generation 3, .* generation 2"):
        index.save(backup)  # another index has changed it since
    index.save(folder)
    assert [len(MuveraIndex.load(path, verify_files=True)) for path in (folder, backup)] == [199, 198]


def test_loading_while_the_folder_is_saved_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If files disappear after a reader has read the old manifest, it starts again.

    An index in use answers on.
    """
    built(path=folder)
    writer, reader = MuveraIndex.load(folder), MuveraIndex.load(folder)
    expected, times = answers(reader), []

    def overtaken(*arguments: Any) -> None:
        times.append(1)
        if len(times) <= 2:
            writer.delete(writer.ids[:1])
            writer.rebuild()
            writer.save(folder)
        verify(*arguments)

    monkeypatch.setattr(folder_module, "verify", overtaken)
    assert len(MuveraIndex.load(folder)) == 198 and len(times) == 3
    assert not (folder / "generation-000001").exists() and answers(reader) == expected


LIMITED = """
    import resource, signal, sys
    import numpy as np
    from builders.realistic_collections import documents_like_real
    from muvera import MuveraIndex

    index = MuveraIndex.load(sys.argv[1])
    index.add(documents_like_real(4000, 5).with_ids(np.arange(1000, 5000)))
    # Every write past this size fails, as on a full disk: here that of the graph.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
    try:
        index.save(sys.argv[1])
    except OSError as error:
        print("refused:", error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits of file sizes")
def test_a_disk_that_is_really_full(folder: Path) -> None:
    expected = answers(built(path=folder))
    before = files(folder)
    _, printed, complained = ended(start_script(LIMITED, folder))
    assert printed.startswith("refused:"), complained
    assert files(folder) == before
    assert answers(MuveraIndex.load(folder, verify_files=True)) == expected
