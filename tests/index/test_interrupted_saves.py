"""Saves on a full disk and saves that are killed: the folder holds the old index or the new one."""

import json
import signal
from pathlib import Path

import pytest
from builders.indexes import answers, built, ended, files, start_script

from muvera import MuveraIndex

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


# -- killed while saving ------------------------------------------------------

KILLED = """
    import os, signal, sys
    from pathlib import Path
    from builders.indexes import MORE
    import muvera.index.persistence as folder_module
    from muvera import MuveraIndex
    import muvera.index.generations as store

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    index = MuveraIndex.load(sys.argv[1])
    index.delete([0])
    index.add(MORE)
    place = sys.argv[2]
    if place == "while writing":
        folder_module.write_encoder_arrays = die
    elif place == "before the rename of the generation":
        store.sync = lambda path: die() if path.name.startswith(".partial-") else None
    elif place == "before the manifest":
        store.write_manifest = die
    elif place == "within the manifest":
        Path.replace = lambda path, target: (
            die() if target.name == "manifest.json" else os.replace(path, target)
        )
    elif place == "after the manifest":
        calls = []
        store._remove_unnamed = lambda *_: die() if calls else calls.append("before it")
    index.save(sys.argv[1])
"""

PLACES = {
    "while writing": False,
    "before the rename of the generation": False,
    "before the manifest": False,
    "within the manifest": False,
    "after the manifest": True,
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_killed_while_saving(folder: Path, place: str) -> None:
    index = built(path=folder)
    old = answers(index)
    code, _, complained = ended(start_script(KILLED, folder, place))
    assert code == -signal.SIGKILL, complained
    loaded = MuveraIndex.load(folder, verify_files=True)
    if PLACES[place]:
        assert len(loaded) == 219 and 0 not in loaded
    else:
        assert len(loaded) == 200 and answers(loaded) == old
    known = json.loads((folder / "manifest.json").read_text())["files"]
    assert set(files(folder)) - set(known) - {"manifest.json"}, "this kill left nothing behind"
    loaded.delete([5])
    loaded.save(folder)
    known = json.loads((folder / "manifest.json").read_text())["files"]
    assert files(folder) == sorted([*known, "manifest.json"])
    assert len([path for path in folder.iterdir() if path.is_dir()]) <= 3
    assert answers(MuveraIndex.load(folder, verify_files=True)) == answers(loaded)


FIRST_KILLED = """
    import os, signal, sys
    from builders.indexes import DOCUMENTS as documents
    from builders.realistic_collections import CONFIG
    import muvera.index.generations as store
    from muvera import MuveraIndex

    def batches():
        yield documents[:100]
        if sys.argv[2] == "while building":
            os.kill(os.getpid(), signal.SIGKILL)
        yield documents[100:]

    if sys.argv[2] == "while saving":
        store.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    MuveraIndex.build(batches(), CONFIG, path=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["while building", "while saving"])
def test_killed_at_first(folder: Path, place: str) -> None:
    """There is no index then, and the next build removes the leftovers beside it."""
    code, _, complained = ended(start_script(FIRST_KILLED, folder, place))
    assert code == -signal.SIGKILL, complained
    assert not folder.exists() and len(list(folder.parent.iterdir())) >= 1
    with pytest.raises(FileNotFoundError, match="index does not exist"):
        MuveraIndex.load(folder)
    built(path=folder)
    assert [path.name for path in folder.parent.iterdir()] == ["index"]
