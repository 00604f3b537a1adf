"""Index folders of PyLate: real ones of every kind, and their id maps."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import random_index, write_fast_plaid, write_plaid
from builders.paths import GOLDEN

from muvera.convert.readers import fast_plaid, plaid, pylate, warp
from muvera.convert.sources.base import Source
from muvera.data.multivectors import MultiVectors

FOLDER = GOLDEN / "convert"
GIVEN = np.load(FOLDER / "pylate_expected.npz")
KINDS = ("voyager", "fast_plaid", "stanford_plaid", "scann")


def whole(source: Source, max_tokens: int = 10_000) -> MultiVectors:
    return MultiVectors.concatenate(list(source.batches(max_tokens)))


def given(removed: bool) -> MultiVectors:
    documents = MultiVectors.from_flat(GIVEN["tokens"], GIVEN["lengths"], ids=GIVEN["ids"])
    return documents[GIVEN["ids"] != GIVEN["removed"]] if removed else documents


def _open(kind: str) -> Source:
    options = {"exact": False} if kind == "fast_plaid" else {}
    return pylate.open_source(FOLDER / f"pylate_{kind}", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_folders_of_the_library(kind: str) -> None:
    folder = FOLDER / f"pylate_{kind}"
    assert [m.NAME for m in (plaid, fast_plaid, pylate, warp) if m.matches(folder)] == ["pylate"]
    source = _open(kind)
    assert isinstance(source, Source)
    documents = whole(source, 20)
    expected = given(removed=kind != "scann")
    assert documents.ids.tolist() == expected.ids.tolist()
    assert documents.lengths.tolist() == expected.lengths.tolist()
    assert source.num_documents == len(expected)
    if kind == "scann":
        assert not source.lossy and np.array_equal(documents.tokens, expected.tokens)
    elif kind == "voyager":
        assert not source.lossy
        np.testing.assert_allclose(documents.tokens, expected.tokens, atol=1e-6)  # normalized again
    else:
        assert source.lossy and source.nbits == (4 if kind == "fast_plaid" else 2)
        # 256 centroids for 299 tokens: decoded vectors are near the exact ones.
        assert np.einsum("ij,ij->i", documents.tokens, expected.tokens).mean() > 0.97


def test_the_inner_folder_and_options() -> None:
    inner = FOLDER / "pylate_fast_plaid" / "fast_plaid_index"
    assert pylate.matches(inner) and not fast_plaid.matches(inner)
    exact = whole(pylate.open_source(inner))
    assert exact.ids.tolist() == given(removed=True).ids.tolist()
    assert np.array_equal(exact.tokens, given(removed=True).tokens)
    with pytest.raises(TypeError, match="takes no option 'threads'"):
        pylate.open_source(FOLDER / "pylate_scann", threads=1)


def _folder(tmp_path: Path, positions: dict[Any, Any], *, database: bool = False) -> Path:
    """A PLAID index of three documents under PyLate's map, as pickle or as sqlitedict has it."""
    folder = write_plaid(tmp_path / "index", random_index(1, [[2, 0], [3]]))
    file = folder / "plaid_ids_to_documents_ids"
    if not database:
        file.with_suffix(".pkl").write_bytes(pickle.dumps(positions))
        return folder
    connection = sqlite3.connect(file.with_suffix(".sqlite"))
    connection.execute('CREATE TABLE "unnamed" (key TEXT PRIMARY KEY, value BLOB)')
    rows = [(str(key), pickle.dumps(value)) for key, value in positions.items()]
    connection.executemany('INSERT INTO "unnamed" VALUES (?, ?)', rows)
    connection.commit()
    connection.close()
    return folder


@pytest.mark.parametrize("database", [False, True])
def test_maps_of_both_kinds_leave_removed_documents_out(tmp_path: Path, database: bool) -> None:
    source = pylate.open_source(_folder(tmp_path, {2: "c", 0: "a"}, database=database))
    documents = whole(source)
    assert documents.ids.tolist() == ["a", "c"]
    assert documents.lengths.tolist() == [2, 3]
    assert (source.num_documents, source.num_tokens) == (2, None)


def test_ids_of_other_kinds(tmp_path: Path) -> None:
    numbers = pylate.open_source(_folder(tmp_path / "a", {0: 7, 1: np.int64(9), 2: 8}))
    assert whole(numbers).ids.tolist() == [7, 9, 8]
    mixed = pylate.open_source(_folder(tmp_path / "b", {0: 7, 1: "x", 2: 8}))
    assert whole(mixed).ids.tolist() == ["7", "x", "8"]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({0: "a", 3: "b"}, r"The maps of .*index name document 3, but its index has 3\. .* copy the whole"),
        ({-1: "a"}, r"name document -1"),
        ({"x": "a"}, r"has a position that is not a whole number"),
        (["a"], r"plaid_ids_to_documents_ids\.pkl must hold a dict; it holds a list"),
    ],
)
def test_maps_that_do_not_fit(tmp_path: Path, positions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pylate.open_source(_folder(tmp_path, positions))


def test_a_malicious_map_is_refused_by_name(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {0: "a"})
    (folder / "plaid_ids_to_documents_ids.pkl").write_bytes(b"cos\nsystem\n(S'echo never'\ntR.")
    with pytest.raises(
        pickle.UnpicklingError, match=r"plaid_ids_to_documents_ids\.pkl .* asks for os\.system"
    ):
        pylate.open_source(folder)


def test_a_damaged_database(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {0: "a"}, database=True)
    (folder / "plaid_ids_to_documents_ids.sqlite").write_bytes(b"no database, but long enough" * 9)
    with pytest.raises(ValueError, match=r"\.sqlite is not a map of sqlitedict"):
        pylate.open_source(folder)


def test_fast_plaid_inside(tmp_path: Path) -> None:
    write_fast_plaid(tmp_path / "x" / "fast_plaid_index", random_index(1, [[2, 1]]))
    (tmp_path / "x" / "plaid_ids_to_documents_ids.pkl").write_bytes(pickle.dumps({0: "a", 1: "b"}))
    assert whole(pylate.open_source(tmp_path / "x")).ids.tolist() == ["a", "b"]


def test_scann_with_a_table_gaps_and_another_order(tmp_path: Path) -> None:
    tokens = np.arange(24, dtype=np.float32).reshape(8, 3)
    np.save(tmp_path / "flattened_embeddings.npy", tokens)
    table = tmp_path / "doc_id_to_embedding_range.tsv"
    table.write_text("late\t5\t3\nearly\t0\t2\nempty\t5\t0\n")
    assert pylate.matches(tmp_path)
    documents = whole(pylate.open_source(tmp_path))
    assert dict(zip(documents.ids.tolist(), documents.lengths.tolist(), strict=True)) == {
        "early": 2, "late": 3, "empty": 0
    }  # fmt: skip
    assert np.array_equal(documents.tokens, tokens[[0, 1, 5, 6, 7]])
    table.write_text("late\t7\t3\n")
    with pytest.raises(ValueError, match=r"end at row 10, but flattened_embeddings\.npy has 8"):
        pylate.open_source(tmp_path)
    table.write_text("late\t7\n")
    with pytest.raises(ValueError, match="must give a start and a length a document"):
        pylate.open_source(tmp_path)


def test_voyager_with_a_map_of_another_time(tmp_path: Path) -> None:
    folder = tmp_path / "voyager"
    shutil.copytree(FOLDER / "pylate_voyager", folder)
    (folder / "document_ids_to_embeddings.pkl").write_bytes(pickle.dumps({"a": [0, 5000]}))
    with pytest.raises(ValueError, match=r"names token 5000, but index\.voyager has"):
        pylate.open_source(folder)
    (folder / "document_ids_to_embeddings.pkl").write_bytes(pickle.dumps({"a": "xyz"}))
    with pytest.raises(
        ValueError, match="does not list tokens of its index: its tokens must be whole numbers, got dtype <U1"
    ):
        pylate.open_source(folder)
    # A reference takes two bytes: one list under many names would be read many times.
    shared = list(range(200))
    for named in (dict.fromkeys(range(50), shared), {"a": 5}, {"a": [[1], [2, 3]]}, {"a": [True]}):
        (folder / "document_ids_to_embeddings.pkl").write_bytes(pickle.dumps(named))
        with pytest.raises(ValueError, match=r"voyager has a map that does not list tokens of its index: "):
            pylate.open_source(folder)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ("a\t0\t3\nb\t2\t3\n", "give row 2 to two documents"),
        (f"a\t{2**63 - 1}\t1\n", "end at row 9223372036854775808, but"),
        (f"a\t1\t{2**63 - 1}\n", "add up to more than 4611686018427387904 token vectors"),
        ("a\t-1\t2\n", "end at row 1, but"),
        ("a\t0\t2\na\t2\t2\n", "must give a start and a length a document .1 documents stand twice"),
        ("a\t0\t-2\n", r"lengths in .* is -2; a length must not be negative"),
        (f"a\t{2**70}\t1\n", "starts in .* must be whole numbers"),
    ],
)
def test_ranges_outside_the_rows(tmp_path: Path, ranges: str, message: str) -> None:
    """A start and a length whose sum wraps passed before."""
    np.save(tmp_path / "flattened_embeddings.npy", np.ones((8, 3), np.float32))
    (tmp_path / "doc_id_to_embedding_range.tsv").write_text(ranges)
    with pytest.raises((ValueError, TypeError), match=message):
        pylate.open_source(tmp_path)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({0.5: "a"}, "has a position that is not a whole number: position must be an int, got float 0.5"),
        ({"x": "a"}, "has a position that is not a whole number"),
        ({"9" * 4000: "a"}, "has a position that is not a whole number"),
        ({0: "a", "0": "b"}, "has a position twice"),
        ({True: "a"}, "has a position that is not a whole number"),
    ],
)
def test_positions_that_are_none(tmp_path: Path, positions: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pylate.open_source(_folder(tmp_path, positions))
