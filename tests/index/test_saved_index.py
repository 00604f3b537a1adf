"""The saved index: the same answers, its files, its copies."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.kept_indexes import DOCUMENTS, MORE, WAYS, answers, built, token_files
from builders.realistic_collections import CONFIG, DIM, documents_like_real

from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex
from muvera.index.manifest import IndexFolderError

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


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
