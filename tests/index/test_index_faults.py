"""The saved index: the same answers, and no fault, kill or second writer that breaks or loses it."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real

import muvera.index.persistence as folder_module
from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex
from muvera.index.manifest import IndexFolderError, verify
from muvera.index.token_store import TokenStore
from muvera.utils.checksums import content_checksum

DOCUMENTS = documents_like_real(200)
QUERIES = queries_like_real(DOCUMENTS, 8)
MORE = documents_like_real(220)[200:]

WAYS: list[dict[str, Any]] = [
    {"exact_tokens": 10**6},
    {"exact_tokens": 0, "backend": "exact"},
    {"exact_tokens": 0, "backend": "hnsw"},
    {"exact_tokens": 0, "backend": "usearch"},
]

every_way = pytest.mark.parametrize("way", WAYS, ids=["all tokens", "exact", "hnsw", "usearch"])


def built(**settings: Any) -> MuveraIndex:
    return MuveraIndex.build(DOCUMENTS, CONFIG, threads=1, **{**WAYS[2], **settings})


def answers(index: MuveraIndex) -> list[list[tuple[Any, float]]]:
    return [list(ranking) for ranking in index.search(QUERIES, k=8, candidates=30)]


def files(folder: Path) -> list[str]:
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(set(found) - {".lock"})


def token_files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Name, inode, size and time of what must not be written twice."""
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("tokens-*.npy")}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


# -- saved and loaded ---------------------------------------------------------


@every_way
@pytest.mark.parametrize("ids", ["none", "str"])
def test_a_loaded_index_answers_to_the_bit(way: dict[str, Any], ids: str, folder: Path) -> None:
    documents = DOCUMENTS if ids == "none" else DOCUMENTS.with_ids([f"text {i}" for i in range(200)])
    index = MuveraIndex.build(documents, CONFIG, threads=1, **way)
    index.delete(index.ids[10:20])
    index.update(documents[30:40])
    before = answers(index)
    index.save(folder)
    loaded = MuveraIndex.load(folder, verify_files=True)
    assert answers(loaded) == answers(index) == before
    assert loaded.info() == index.info() and loaded.ids.tolist() == index.ids.tolist()
    assert loaded.config == CONFIG and loaded.settings.exact_tokens == way["exact_tokens"]
    for one in (loaded, index):  # saving maps the tokens of both
        assert all(
            isinstance(part.vectors.tokens, np.memmap) for part in one._contents.store.levels[0].segments
        )
    loaded.add(
        MultiVectors.from_flat(MORE.tokens, MORE.lengths).with_ids(
            [1000 + i if ids == "none" else f"new {i}" for i in range(20)]
        )
    )
    loaded.save(folder)
    assert answers(MuveraIndex.load(folder)) == answers(loaded)


@pytest.mark.parametrize("backend", ["exact", "hnsw", "usearch"])
def test_learned_maps_are_kept(backend: Any, folder: Path) -> None:
    config = FDEConfig(dimension=DIM, num_repetitions=6, compact_dimension=48)
    index = MuveraIndex.build(DOCUMENTS, config, threads=1, exact_tokens=0, backend=backend, path=folder)
    loaded = MuveraIndex.load(folder, verify_files=True)
    assert answers(loaded) == answers(index) and loaded.info() == index.info()
    for one in (loaded, index):
        one.add(MORE, threads=1)
    assert answers(loaded) == answers(index)


def test_an_index_of_nothing_is_saved_too(folder: Path) -> None:
    MuveraIndex(CONFIG).save(folder)
    loaded = MuveraIndex.load(folder)
    assert len(loaded) == 0 and loaded.info().documents == 0
    loaded.add(MultiVectors.from_arrays([np.empty((0, DIM))] * 3))
    loaded.save(folder)
    loaded = MuveraIndex.load(folder)
    assert len(loaded) == 3
    loaded.rebuild()
    loaded.add(MORE)
    loaded.save(folder)
    assert len(MuveraIndex.load(folder)) == 23


def test_an_encoder_that_was_given_is_kept_while_it_is_not_used(folder: Path) -> None:
    other = documents_like_real(50, 77)
    encoder = FDEEncoder(CONFIG).fit(MultiVectors.from_flat(other.tokens + 1, other.lengths))
    index = MuveraIndex(CONFIG, encoder=encoder, exact_tokens=900)
    index.add(DOCUMENTS[:50])
    index.save(folder)
    loaded = MuveraIndex.load(folder)
    loaded.add(DOCUMENTS[50:])
    assert isinstance(loaded.encoder, FDEEncoder)
    np.testing.assert_array_equal(loaded.encoder.center, encoder.center)


def test_saving_again_keeps_the_tokens_and_drops_old_generations(folder: Path) -> None:
    index = built()
    index.save(folder)
    before = token_files(folder)
    for _ in range(3):
        index.delete(index.ids[:2])
        index.save(folder)
        assert token_files(folder) == before
    index.add(MORE)
    index.save(folder)
    after = token_files(folder)
    assert before.items() < after.items() and len(after) == 2
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "generation-000001",
        "generation-000005",
    ]
    assert answers(MuveraIndex.load(folder)) == answers(index)


def test_many_small_saves_do_not_make_many_files(folder: Path) -> None:
    """A file that is not twice the new tokens is written again with them, so files stay few."""
    index = MuveraIndex(CONFIG)
    for i in range(40):
        index.add(DOCUMENTS[i * 5 : i * 5 + 5])
        index.save(folder)
    assert len(token_files(folder)) <= 6
    assert answers(MuveraIndex.load(folder)) == answers(built(exact_tokens=10**6))


def test_compacting_frees_the_disk_at_the_next_save(folder: Path) -> None:
    index = built()
    index.save(folder)
    size = sum(path.stat().st_size for path in folder.rglob("tokens-*"))
    index.delete(range(0, 200, 2))
    index.rebuild()
    index.save(folder)
    assert sum(path.stat().st_size for path in folder.rglob("tokens-*")) < 0.6 * size
    assert answers(MuveraIndex.load(folder)) == answers(index)


def test_a_copy_outlives_its_original(folder: Path, tmp_path: Path) -> None:
    built().save(folder)
    loaded = MuveraIndex.load(folder)
    loaded.add(MORE)
    loaded.save(tmp_path / "copy")
    shutil.rmtree(folder)
    assert answers(MuveraIndex.load(tmp_path / "copy", verify_files=True)) == answers(loaded)
    loaded.delete([3])
    loaded.save(tmp_path / "copy")  # its home now
    loaded.save(folder)  # and the first is a new one
    assert answers(MuveraIndex.load(folder)) == answers(MuveraIndex.load(tmp_path / "copy"))


def test_a_folder_that_was_removed_is_written_anew_from_the_map(folder: Path) -> None:
    built().save(folder)
    loaded = MuveraIndex.load(folder)
    expected = answers(loaded)
    shutil.rmtree(folder)
    loaded.save(folder)
    assert answers(MuveraIndex.load(folder, verify_files=True)) == expected == answers(loaded)


def test_another_index_under_the_same_name_is_not_taken_for_the_loaded_one(folder: Path) -> None:
    """Its generation has the same number and its token file the same name."""
    built().save(folder)
    loaded = MuveraIndex.load(folder)
    shutil.rmtree(folder)
    MuveraIndex.build(MORE, CONFIG, path=folder)
    loaded.delete([1])
    with pytest.raises(IndexFolderError, match="holds generation 1, but it is another one than you loaded"):
        loaded.save(folder)
    assert len(MuveraIndex.load(folder)) == 20


def test_a_link_to_the_folder_is_the_folder(folder: Path, tmp_path: Path) -> None:
    index = built(path=folder)
    (tmp_path / "link").symlink_to(folder)
    index.delete([0])
    index.save(tmp_path / "link")
    assert len(MuveraIndex.load(folder)) == 199


# -- faults while saving ------------------------------------------------------


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("writer", ["np.save", "write_tokens", "write_encoder_arrays"])
def test_a_full_disk_leaves_the_old_index_and_no_half(
    folder: Path, monkeypatch: pytest.MonkeyPatch, writer: str, first: bool
) -> None:
    index = built()
    expected = answers(index)
    if not first:
        index.save(folder)
    before = files(folder)
    index.add(MORE)
    with monkeypatch.context() as patch:
        owner = np if writer == "np.save" else folder_module
        patch.setattr(owner, writer.removeprefix("np."), full_disk)
        with pytest.raises(OSError, match="No space left"):
            index.save(folder)
    assert files(folder) == before and [path.name for path in folder.parent.iterdir()] == ["index"] * (
        not first
    )
    if not first:
        assert answers(MuveraIndex.load(folder, verify_files=True)) == expected
    index.save(folder)  # when there is room again
    assert answers(MuveraIndex.load(folder)) == answers(index)


LIMITED = """
    import resource, signal
    from test_index_faults import *
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


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Start a script beside these tests in a process of its own."""
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(here), str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        ),
    }

    def run(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    return run


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process; return its code and what it printed."""
    printed, complained = process.communicate(timeout=300)
    return process.returncode, printed, complained


Start = Callable[..., subprocess.Popen[str]]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits of file sizes")
def test_a_disk_that_is_really_full(folder: Path, start: Start) -> None:
    expected = answers(built(path=folder))
    before = files(folder)
    _, printed, complained = ended(start(LIMITED, folder))
    assert printed.startswith("refused:"), complained
    assert files(folder) == before
    assert answers(MuveraIndex.load(folder, verify_files=True)) == expected


# -- killed while saving ------------------------------------------------------

KILLED = """
    from test_index_faults import *
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
def test_killed_while_saving(folder: Path, place: str, start: Start) -> None:
    index = built(path=folder)
    old = answers(index)
    code, _, complained = ended(start(KILLED, folder, place))
    assert code == -signal.SIGKILL, complained
    loaded = MuveraIndex.load(folder, verify_files=True)
    if PLACES[place]:
        assert len(loaded) == 219 and 0 not in loaded
    else:
        assert len(loaded) == 200 and answers(loaded) == old
    known = json.loads((folder / "manifest.json").read_text())["files"]
    assert set(files(folder)) - set(known) - {"manifest.json"}, "this kill left nothing: move it"
    loaded.delete([5])
    loaded.save(folder)
    known = json.loads((folder / "manifest.json").read_text())["files"]
    assert files(folder) == sorted([*known, "manifest.json"])
    assert len([path for path in folder.iterdir() if path.is_dir()]) <= 3
    assert answers(MuveraIndex.load(folder, verify_files=True)) == answers(loaded)


FIRST_KILLED = """
    from test_index_faults import *
    import muvera.index.generations as store
    documents = DOCUMENTS

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
def test_killed_at_first(folder: Path, place: str, start: Start) -> None:
    """There is no index then, and the next build removes what was left beside it."""
    code, _, complained = ended(start(FIRST_KILLED, folder, place))
    assert code == -signal.SIGKILL, complained
    assert not folder.exists() and len(list(folder.parent.iterdir())) >= 1
    with pytest.raises(FileNotFoundError, match="index does not exist"):
        MuveraIndex.load(folder)
    built(path=folder)
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


# -- several writers and readers ----------------------------------------------

WRITER = """
    from test_index_faults import *
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
def test_two_processes_writing_one_folder(folder: Path, start: Start) -> None:
    built(path=folder)
    second = MuveraIndex.load(folder)
    with start(WRITER, folder, 7) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == "writing\n"
        second.delete([8])
        with pytest.raises(
            IndexFolderError, match=r"Another process is writing .*index\. Wait for it, then load"
        ):
            second.save(folder)
        assert len(MuveraIndex.load(folder)) == 200  # a reader sees the old one meanwhile
        first.stdin.write("go\n")
        first.stdin.flush()
        assert first.stdout.readline() == "done\n"
    with pytest.raises(IndexFolderError, match=r"holds generation 2, but you loaded 1\. Saving would lose"):
        second.save(folder)
    loaded = MuveraIndex.load(folder, verify_files=True)
    assert 7 not in loaded and 8 in loaded
    loaded.delete([8])
    loaded.save(folder)
    assert len(MuveraIndex.load(folder)) == 198


def test_two_indexes_of_one_folder_in_one_process(folder: Path) -> None:
    built(path=folder)
    first, second = MuveraIndex.load(folder), MuveraIndex.load(folder)
    first.delete([1])
    first.save(folder)
    second.delete([2])
    with pytest.raises(IndexFolderError, match="load it and change that, save to another folder"):
        second.save(folder)
    second.save(folder.parent / "other")
    with pytest.raises(IndexFolderError, match="holds generation 2, but this index was made elsewhere"):
        built().save(folder)
    assert len(MuveraIndex.load(folder)) == len(MuveraIndex.load(folder.parent / "other")) == 199


def test_an_index_is_saved_to_its_folder_again_after_a_copy_elsewhere(folder: Path) -> None:
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
    with pytest.raises(IndexFolderError, match="holds generation 3, but you loaded 2"):
        index.save(backup)  # another index has changed it since
    index.save(folder)
    assert [len(MuveraIndex.load(path, verify_files=True)) for path in (folder, backup)] == [199, 198]


def test_a_folder_that_another_index_took_is_not_replaced(folder: Path) -> None:
    index = built(path=folder)
    index.save(folder.parent / "backup")
    built().save(folder, overwrite=True)
    with pytest.raises(IndexFolderError, match="holds generation 1, but it is another one than you loaded"):
        index.save(folder)


def test_a_loaded_index_answers_on_while_its_folder_is_saved_anew(folder: Path) -> None:
    built(path=folder)
    reader, writer = MuveraIndex.load(folder), MuveraIndex.load(folder)
    expected = answers(reader)
    writer.delete(range(100))
    writer.rebuild()
    writer.save(folder)
    assert not (folder / "generation-000001").exists()
    assert answers(reader) == expected


def test_loading_while_the_folder_is_saved_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader has read the old manifest when its files go: it begins again with the new one."""
    built(path=folder)
    writer = MuveraIndex.load(folder)
    times = []

    def overtaken(*arguments: Any) -> None:
        times.append(1)
        if len(times) <= 2:
            writer.delete(writer.ids[:1])
            writer.rebuild()
            writer.save(folder)
        verify(*arguments)

    monkeypatch.setattr(folder_module, "verify", overtaken)
    assert len(MuveraIndex.load(folder)) == 198 and len(times) == 3


# -- what load refuses --------------------------------------------------------


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """An edit of the manifest."""

    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["sha256"]
        change(manifest)
        manifest["sha256"] = content_checksum(manifest)  # as who means harm would do it
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return edit


def in_generation(name: str) -> Callable[[Path], Path]:
    return lambda folder: next(folder.glob(f"generation-*/{name}"))


def cut(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = in_generation(name)(folder)
        path.write_bytes(path.read_bytes()[:-3])

    return change


def flipped(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = in_generation(name)(folder)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)

    return change


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"{name} {change.__name__}": (change(name), message)
        for name in ("tokens-*.npy", "vectors.hnsw", "ids.json", "lengths.npy", "encoder_center.npy")
        for change, message in (
            (cut, r"bytes instead of \d+: it was cut off or changed\. Restore"),
            (flipped, r"has another checksum than when it was written: its content was changed"),
        )
    },
    "missing file": (
        lambda folder: in_generation("alive.npy")(folder).unlink(),
        r"generation-000001 lacks its file alive\.npy",
    ),
    "newer version": (
        edited(lambda m: m.update(format_version=2)),
        r"has format version 2, but this muvera reads version 1\. Use the muvera that wrote it",
    ),
    "old version": (edited(lambda m: m.update(format_version=0)), "has format version 0"),
    "no version": (edited(lambda m: m.pop("format_version")), "has format version None"),
    "other format": (edited(lambda m: m.update(format="x")), "is not the manifest of a muvera index"),
    "half a manifest": (lambda f: (f / "manifest.json").write_text('{"form'), r"manifest\.json is damaged"),
    "edited configuration": (
        edited(lambda m: m["config"].update(seed=43)),
        "was built with configuration [0-9a-f]{16}, but its manifest describes [0-9a-f]{16}: .* was changed",
    ),
    "unknown configuration": (edited(lambda m: m["config"].update(color=1)), "FDEConfig has no 'color'"),
    "invalid configuration": (
        edited(lambda m: m["config"].update(dimension=0)),
        "dimension must be at least 1",
    ),
    "other dimension": (
        edited(
            lambda m: m.update(
                config=(config := FDEConfig(dimension=17).to_dict()),
                config_hash=FDEConfig.from_dict(config).hash,
            )
        ),
        r"is damaged: The moments' offset has shape \(17,\), but the configuration asks for \(18,\)",
    ),
    "unknown backend": (edited(lambda m: m["settings"].update(backend="tree")), "got 'tree'"),
    "no segments": (edited(lambda m: m.update(segments=[])), "200 ids, 200 lengths and 0 token sets"),
    "other segments": (
        edited(lambda m: m["segments"][0].update(first=7)),
        "is damaged: .* lengths add up to",
    ),
    "no encoder": (edited(lambda m: m.update(encoder=False)), "FDEs without the matrices that made them"),
    "other kind": (edited(lambda m: m["candidates"].update(kind="exact")), r"is damaged: .*vectors\.npy"),
    "other m": (edited(lambda m: m["settings"]["hnsw"].update(m=5)), "has m=16, but m=5 is wanted"),
    **{
        f"without {key}": (edited(lambda m, key=key: m.pop(key)), f"incomplete.*: KeyError.'{key}'")  # type: ignore[misc]
        for key in (
            "files",
            "config",
            "settings",
            "segments",
            "candidates",
            "generation",
            "stamp",
            "folder",
            "encoder",
        )
    },
    "files of another type": (edited(lambda m: m.update(files=3)), "is incomplete"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "index"
    built(path=folder)
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_a_sentence(case: str, saved: Path, folder: Path) -> None:
    change, message = REFUSED[case]
    shutil.copytree(saved, folder)
    change(folder)
    with pytest.raises(IndexFolderError, match=message) as caught:
        MuveraIndex.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["tokens-*.npy", "vectors.hnsw", "lengths.npy", "encoder_hyperplanes.npy"])
def test_garbage_of_the_same_size_is_refused_without_checksums(name: str, saved: Path, folder: Path) -> None:
    shutil.copytree(saved, folder)
    path = in_generation(name)(folder)
    path.write_bytes((b"garbage!" * (path.stat().st_size // 8 + 1))[: path.stat().st_size])
    with pytest.raises(IndexFolderError, match="is damaged"):
        MuveraIndex.load(folder, verify_files=False)


def test_fdes_of_other_documents_are_refused(saved: Path, folder: Path) -> None:
    shutil.copytree(saved, folder)
    path = in_generation("alive.npy")(folder)
    alive = np.load(path)
    lengths = np.load(in_generation("lengths.npy")(folder))
    lengths[3], lengths[4] = 0, lengths[3] + lengths[4]
    np.save(in_generation("lengths.npy")(folder), lengths)
    assert alive[3] and alive[4]
    with pytest.raises(IndexFolderError, match="has FDEs of 189 documents, but 188 with tokens"):
        MuveraIndex.load(folder, verify_files=False)


def test_folders_that_are_no_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x does not exist\. Give the folder of an index"):
        MuveraIndex.load(tmp_path / "x")
    DOCUMENTS.save(tmp_path / "documents")
    with pytest.raises(FileNotFoundError, match="documents is not a muvera index"):
        MuveraIndex.load(tmp_path / "documents")
    for call in (built().save, lambda path: built(path=path), lambda path: built(path=path, overwrite=True)):
        with pytest.raises(FileExistsError, match="documents exists and is not empty"):
            call(tmp_path / "documents")
    assert len(MultiVectors.load(tmp_path / "documents")) == 200
    built(path=tmp_path / "index")
    with pytest.raises(FileExistsError, match="Give another name, load the index there and"):
        built(path=tmp_path / "index")


# -- building beside the target -----------------------------------------------


def some_batches(fault: BaseException | None = None) -> Iterator[MultiVectors]:
    for start in range(0, 200, 50):
        if fault is not None and start == 150:
            raise fault
        yield DOCUMENTS[start : start + 50]


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError("a bad line"), MemoryError()])
def test_a_build_that_is_interrupted_leaves_no_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(TokenStore.__init__, "__defaults__", (None, 1000))  # spool early

    def watched() -> Iterator[MultiVectors]:
        for batch in some_batches(fault):
            yield batch
            seen.append([p.name for p in folder.parent.rglob("tokens-*")])

    with pytest.raises(type(fault)):
        MuveraIndex.build(watched(), CONFIG, path=folder)
    assert seen[-1] == ["tokens-000000000000.npy"] and list(folder.parent.iterdir()) == []


def test_a_build_with_a_duplicate_id_leaves_no_trace(folder: Path) -> None:
    with pytest.raises(ValueError, match="id 0 is in the index already"):
        MuveraIndex.build(iter([DOCUMENTS[:50], DOCUMENTS[:50]]), CONFIG, path=folder)
    assert list(folder.parent.iterdir()) == []


def test_an_index_that_was_built_on_the_disk_can_grow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that tokens were spooled to is gone by then."""
    monkeypatch.setattr(TokenStore.__init__, "__defaults__", (None, 1000))
    index = MuveraIndex.build(some_batches(), CONFIG, path=folder, **WAYS[2])
    assert [
        part.path is not None and part.path.parent.parent for part in index._contents.store.levels[0].segments
    ] == [folder]
    index.add(MORE)
    index.save(folder)
    assert len(MuveraIndex.load(folder)) == 220


@pytest.mark.slow
@pytest.mark.compiled("so many tokens take minutes")
def test_memory_is_bounded_while_building_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """31 MB of tokens pass through in batches of 0.6 MB, 1 MB of them waiting in memory.

    Those may stand twice while joined, and a batch is held by its maker too: 4 MB.  The rest, below 1 MB,
    is in proportion to documents, not to tokens: FDEs of 32 floats with room to grow, ids and offsets.
    The documents that stand for queries at the end, 2 MB, come when the batches are gone.
    """
    monkeypatch.setattr(TokenStore.__init__, "__defaults__", (None, 1 << 20))
    config = FDEConfig(dimension=64, num_repetitions=2, num_simhash_projections=1, projection_dimension=8)
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((2400, 64)).astype(np.float32)

    def batches(count: int) -> Iterator[MultiVectors]:
        for _ in range(count):
            yield MultiVectors.from_flat(pool.copy(), [120] * 20)

    settings: dict[str, Any] = {"exact_tokens": 0, "backend": "exact", "threads": 1}
    # The same once before: what is compiled takes memory, too.
    MuveraIndex.build(batches(50), config, path=folder.with_name("compiles"), **settings).search(
        pool[:5], k=1
    )
    tracemalloc.start()
    try:
        index = MuveraIndex.build(batches(50), config, path=folder, **settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (
        sum(part.vectors.tokens.nbytes for part in index._contents.store.levels[0].segments)
        == 50 * 2400 * 64 * 4
    )
    assert len(index._contents.store.levels[0].segments) == 1
    assert peak < (4 << 20) + 1000 * 1000
    assert index.search(pool[:5], k=1)[0].scores[0] > 0


@pytest.mark.compiled("so many tokens take minutes")
def test_a_large_document_map_is_not_read_into_memory(tmp_path: Path) -> None:
    """20 MB of mapped tokens are searched exactly; only their ids and lengths are in memory."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "tokens.npy", rng.standard_normal((80_000, 64)).astype(np.float32))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")

    def build_and_search(path: Path) -> None:
        index = MuveraIndex.build(MultiVectors.from_flat(mapped, [80] * 1000), exact_tokens=10**6, path=path)
        index.search(mapped[:3], k=1)
        loaded = MuveraIndex.load(path)
        assert loaded.search(mapped[:3], k=1)[0].ids.tolist() == [0]

    build_and_search(tmp_path / "compiles")  # which takes memory, too
    tracemalloc.start()
    try:
        build_and_search(tmp_path / "index")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


@every_way
def test_documents_are_refused_where_fit_and_configuration_disagree(way: dict[str, Any]) -> None:
    other = dataclasses.replace(CONFIG, seed=CONFIG.seed + 1)
    index = built(**way, encoder=FDEEncoder(CONFIG).fit(DOCUMENTS))
    before = answers(index)
    index._contents.config = other  # as an editor of the saved manifest would have it
    with pytest.raises(
        ValueError, match=f"fitted for configuration {CONFIG.hash}, but the index has {other.hash}"
    ):
        index.add(MultiVectors(MORE.tokens, MORE.offsets))
    index._contents.config = CONFIG
    assert len(index) == len(DOCUMENTS) and answers(index) == before


def test_maps_of_another_fit_are_refused(folder: Path) -> None:
    index = built()
    index.save(folder)
    file = next(folder.rglob("encoder_center.npy"))
    np.save(file, np.load(file) + 1)
    with pytest.raises(IndexFolderError, match="encoder_center"):
        MuveraIndex.load(folder)
