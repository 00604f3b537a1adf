"""PLAID, fast-plaid, PyLate, WARP and byaldi.

The indexes are of the real libraries, random or damaged.
"""

import json
import pickle
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import foreign_indexes as foreign
from builders.foreign_indexes import decode_index, random_index, write_fast_plaid, write_plaid, write_pt
from builders.paths import GOLDEN
from builders.token_collections import assert_same, everything
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MuveraIndex
from muvera.convert import open_source, read
from muvera.convert.registry import find_reader
from muvera.data.batches import coded_source
from muvera.data.multivectors import MultiVectors

FOLDER = GOLDEN / "convert"
RELEASES = ("1.4.6", "1.7.0")


def quantized(folder: Path, tmp_path: Path) -> Path:
    """Copy an index of fast-plaid without its exact vectors."""
    ignore = shutil.ignore_patterns("embeddings.npy")
    return Path(shutil.copytree(folder, tmp_path / folder.name, ignore=ignore))


def test_colbert_index_decodes_as_colbert_does() -> None:
    source = open_source(FOLDER / "colbert")
    assert (source.name, source.dimension, source.nbits, source.lossy) == ("plaid", 32, 2, True)
    assert (source.num_documents, source.num_tokens) == (12, 383)
    expected = np.load(FOLDER / "colbert" / "expected.npz")
    documents = everything(source, 60)
    assert documents.lengths.tolist() == expected["lengths"].tolist()
    # ColBERT decodes in float32, but from centroids and weights in half precision:
    # 1e-3.
    np.testing.assert_allclose(documents.tokens, expected["decoded"], atol=1e-3)


@pytest.mark.parametrize("release", RELEASES)
def test_fast_plaid_index_with_chunks_updates_and_deletions(release: str) -> None:
    folder = FOLDER / f"fast_plaid_{release}"
    source = open_source(folder)
    expected = np.load(folder / "expected.npz")
    documents = everything(source, 50)
    assert (source.name, source.dimension, source.nbits, len(documents)) == ("fast_plaid", 16, 4, 54)
    assert documents.lengths.tolist() == expected["lengths"].tolist()
    decoded = expected["decoded"] / np.linalg.norm(expected["decoded"], axis=1, keepdims=True)
    np.testing.assert_allclose(documents.tokens, decoded, atol=2e-3)  # fast-plaid computes in half precision


@pytest.mark.parametrize("release", RELEASES)
def test_exact_vectors_of_fast_plaid_are_preferred(release: str, tmp_path: Path) -> None:
    folder = FOLDER / f"fast_plaid_{release}_small"
    exact, decoded = read(folder), read(quantized(folder, tmp_path))
    assert not open_source(folder).lossy
    assert exact.lengths.tolist() == decoded.lengths.tolist()
    np.testing.assert_allclose(np.linalg.norm(exact.tokens, axis=1), 1, atol=1e-6)
    assert (np.einsum("ij,ij->i", exact.tokens, decoded.tokens) > 0.97).all()


def test_exact_vectors_of_next_plaid_are_preferred(tmp_path: Path) -> None:
    index = random_index(3, [[2, 0], [4]])
    folder = write_fast_plaid(tmp_path / "index", index)
    exact = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    np.save(folder / "embeddings.npy", exact)
    (folder / "embeddings_lengths.json").write_text("[2, 0, 4]")
    documents = read(folder)
    assert np.array_equal(documents.tokens, exact) and documents.lengths.tolist() == [2, 0, 4]
    (folder / "embeddings_lengths.json").write_text("[2, 4]")
    assert open_source(folder).lossy
    np.testing.assert_allclose(read(folder).tokens, decode_index(index), atol=1e-6)


CHUNKS = st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=12)


@settings(max_examples=20)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]), st.sampled_from([8, 24, 96]),
    CHUNKS.filter(lambda chunks: any(map(any, chunks))), st.integers(1, 9),
    st.sampled_from(["plaid", "fast_plaid", "merged"]),
)  # fmt: skip
def test_random_indexes(seed: int, nbits: int, dimension: int, lengths: Any, tokens: int, kind: str) -> None:
    """Empty documents and chunks anywhere, and chunks in the order 0, 1, 2, 10."""
    index = random_index(seed, lengths, dimension, nbits)
    with tempfile.TemporaryDirectory() as name:
        folder = (write_plaid if kind == "plaid" else write_fast_plaid)(Path(name) / "index", index)
        if kind == "merged":  # as fast-plaid 1.7 leaves it, with rows of padding at the end
            for part, arrays in (("codes", index["codes"]), ("residuals", index["packed"])):
                padding = np.zeros((3, *arrays[0].shape[1:]), arrays[0].dtype)
                np.save(folder / f"merged_{part}.npy", np.concatenate([*arrays, padding]))
                for i in range(len(lengths)):
                    (folder / f"{i}.{part}.npy").unlink()
        source = open_source(folder)
        documents = everything(source, tokens)
        coded = coded_source(source)
        assert coded is not None
        codes = np.concatenate([codes for _, codes, _ in coded.coded_batches(tokens)])
        np.testing.assert_array_equal(codes, np.concatenate(index["codes"]))
    assert documents.lengths.tolist() == [length for chunk in lengths for length in chunk]
    np.testing.assert_allclose(documents.tokens, decode_index(index), atol=1e-6)
    assert not documents.has_ids


def test_a_pending_chunk_beside_the_merged_file(tmp_path: Path) -> None:
    """Chunk 1 grew after the merge: chunk 2 stays where the manifest says."""
    index = random_index(3, [[2], [4], [3]])
    folder = write_fast_plaid(tmp_path / "index", index)
    for kind, parts in (("codes", index["codes"]), ("residuals", index["packed"])):
        np.save(folder / f"merged_{kind}.npy", np.concatenate([parts[0], parts[1][:1], parts[2]]))
        rows = {f"{i}.{kind}.npy": {"rows": n, "merged": True} for i, n in enumerate((2, 1, 3))}
        (folder / f"merged_{kind}.manifest.json").write_text(json.dumps(rows))
        for i in (0, 2):
            (folder / f"{i}.{kind}.npy").unlink()
    np.testing.assert_allclose(read(folder).tokens, decode_index(index), atol=1e-6)


def test_ragatouille_ids_and_float_lengths(tmp_path: Path) -> None:
    folder = write_plaid(tmp_path / "index", random_index(1, [[2, 1], [3]]))
    (folder / "doclens.0.json").write_text("[2.0, 1.0]")
    names = folder / "pid_docid_map.json"
    names.write_text('{"0": "a", "1": "b", "2": "a"}')
    assert read(folder).ids.tolist() == ["a#0", "b", "a#1"]
    names.write_text('{"2": "b", "10": "c", "1": "a"}')  # as after a deletion
    assert read(folder).ids.tolist() == ["a", "b", "c"]
    names.write_text('{"0": "a", "2": "c"}')
    with pytest.raises(ValueError, match=r"pid_docid_map\.json names 2 of 3 passages"):
        read(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1.codes.pt", None, r"1\.codes\.pt cannot be read: No such file"),
        ("doclens.1.json", [3, 2], "3 codes or residuals, .* up to 5"),
        ("metadata.json", {"num_chunks": 2, "config": {"nbits": 4}}, "got nbits=4, 4 weights"),
        ("metadata.json", {"num_chunks": 2, "config": {"nbits": 3}}, "got nbits=3, 4 weights"),
        ("0.residuals.pt", np.zeros((3, 8), np.uint8), r"\(3, 4\), but got .*\(3, 8\)"),
        ("0.codes.pt", np.array([0, 5, 1], np.int32), "code 5, but there are 5 centroids"),
        ("0.codes.pt", np.zeros(3, np.float32), "codes must be integers"),
        ("centroids.pt", np.full((5, 16), np.nan, np.float32), "has nan in its token 0"),
        ("residuals.compacted.pt", np.zeros((3, 3), np.uint8), r"\(3, 4\), but got .*\(3, 3\)"),
        (
            "residuals.compacted.pt",
            np.zeros((5, 4), np.uint8),
            "one residual per token, got 5 for 5 and 5 for 3",
        ),
        ("codes.compacted.pt", np.zeros(4, np.int32), "add up to 3, but there are 4"),
        ("codes.compacted.pt", np.array([0, 2**31 - 1, 1], np.int32), "got 0 to 2147483647"),
        ("centroids.npy", np.zeros((9, 16)), "one size per centroid .*got 5 for 9 and 3 for 3"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, file: str, content: Any, message: str) -> None:
    """In an index of PLAID, or of WARP if the file is one of its own."""
    folder = tmp_path / "index"
    if "compacted" in file or "npy" in file:
        foreign.write_warp(folder, random_index(1, [[2, 1]]))
    else:
        write_plaid(folder, random_index(1, [[2, 1], [3]]))
    if content is None:
        (folder / file).unlink()
    elif isinstance(content, np.ndarray):
        (np.save if file.endswith("npy") else write_pt)(folder / file, content)
    else:
        (folder / file).write_text(json.dumps(content))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        list(open_source(folder).batches(3))
    assert str(folder) in str(caught.value)


# -- WARP -------------------------------------------------------------------------


@pytest.mark.parametrize("nbits", [2, 4])
@pytest.mark.parametrize("repacked", [False, True])
def test_warp_documents_are_put_together_again(tmp_path: Path, nbits: int, repacked: bool) -> None:
    index = random_index(nbits, [[3, 0, 5, 1, 7, 2]], 16, nbits)
    folder, tokens = foreign.write_warp(tmp_path / "index", index, repacked=repacked)
    expected = MultiVectors.from_flat(tokens, index["lengths"][0])
    source = open_source(folder)
    assert (source.name, source.num_tokens, source.nbits, source.lossy) == ("warp", 18, nbits, True)
    documents = everything(source, 6)
    assert documents.lengths.tolist() == expected.lengths.tolist()
    for got, wanted in zip(documents, expected, strict=True):  # the order in a document is not kept
        assert np.array_equal(got[np.lexsort(got.T)], wanted[np.lexsort(wanted.T)])
    write_plaid(folder, index)  # keeps the order of tokens, so it is read instead
    assert find_reader(folder).name == "plaid"


# -- PyLate -----------------------------------------------------------------------

GIVEN = np.load(FOLDER / "pylate_expected.npz")


def pylate_source(kind: str, quantized_to: Path) -> Any:
    """Return the source of a golden folder; of fast-plaid, without exact tokens."""
    folder = FOLDER / f"pylate_{kind}"
    if kind != "fast_plaid":
        return open_source(folder)
    return open_source(quantized(folder, quantized_to) / "fast_plaid_index")


PYLATE_KINDS = pytest.mark.parametrize("kind", ["voyager", "fast_plaid", "stanford_plaid", "scann"])


@PYLATE_KINDS
def test_pylate_folders_are_read_without_removed_documents(kind: str, tmp_path: Path) -> None:
    expected = MultiVectors.from_flat(GIVEN["tokens"], GIVEN["lengths"], ids=GIVEN["ids"])
    if kind != "scann":  # which cannot remove documents
        expected = expected[GIVEN["ids"] != GIVEN["removed"]]
    source = pylate_source(kind, tmp_path)
    documents = everything(source, 20)
    assert source.name == "pylate" and source.num_documents == len(expected)
    assert documents.ids.tolist() == expected.ids.tolist()
    assert documents.lengths.tolist() == expected.lengths.tolist()
    if kind in ("scann", "voyager"):
        np.testing.assert_allclose(documents.tokens, expected.tokens, atol=1e-6)  # Voyager normalizes again
    else:
        # 256 centroids for 299 tokens: decoded vectors are close to the exact ones.
        assert np.einsum("ij,ij->i", documents.tokens, expected.tokens).mean() > 0.97


@pytest.mark.parametrize(
    ("kind", "nbits"), [("voyager", None), ("scann", None), ("fast_plaid", 4), ("stanford_plaid", 2)]
)
def test_pylate_folders_say_what_their_codes_lose(kind: str, nbits: int | None, tmp_path: Path) -> None:
    source = pylate_source(kind, tmp_path)
    assert source.lossy == (nbits is not None)
    assert nbits is None or source.nbits == nbits
    assert open_source(FOLDER / f"pylate_{kind}").lossy == (kind == "stanford_plaid")  # fast-plaid keeps both


@PYLATE_KINDS
def test_pylate_folders_become_an_index(kind: str, tmp_path: Path) -> None:
    documents = everything(pylate_source(kind, tmp_path), 20)
    folder = FOLDER / f"pylate_{kind}"
    index = MuveraIndex.from_pylate(folder)
    assert index.info().token_codec["codec"].startswith("plaid") == (kind == "stanford_plaid")
    assert [ranking.ids[0] for ranking in index.search(list(documents), k=1)] == documents.ids.tolist()
    np.testing.assert_allclose(index.tokens(documents.ids).tokens, read(folder).tokens, atol=1e-3)


def mapped(tmp_path: Path, names: Any, *, database: bool = False) -> Path:
    """Write a PLAID index of three documents with PyLate's map.

    The map is a pickle, or as sqlitedict writes it.
    """
    folder = write_plaid(tmp_path / "index", random_index(1, [[2, 0], [3]]))
    file = folder / "plaid_ids_to_documents_ids"
    if not database:
        file.with_suffix(".pkl").write_bytes(pickle.dumps(names))
        return folder
    with closing(sqlite3.connect(file.with_suffix(".sqlite"))) as connection, connection:
        connection.execute('CREATE TABLE "unnamed" (key TEXT PRIMARY KEY, value BLOB)')
        rows = [(str(key), pickle.dumps(value)) for key, value in names.items()]
        connection.executemany('INSERT INTO "unnamed" VALUES (?, ?)', rows)
    return folder


@pytest.mark.parametrize("database", [False, True])  # up to PyLate 1.4
def test_pylate_maps_skip_removed_documents(tmp_path: Path, database: bool) -> None:
    source = open_source(mapped(tmp_path, {2: "c", 0: "a"}, database=database))
    documents = everything(source)
    assert documents.ids.tolist() == ["a", "c"] and documents.lengths.tolist() == [2, 3]
    assert (source.num_documents, source.num_tokens) == (2, 5)
    assert read(mapped(tmp_path / "b", {0: 7, 1: np.int64(9), 2: 8})).ids.tolist() == [7, 9, 8]


# A pickle of a hundred bytes, for 2 ** 40 numbers.
NESTED: Any = [1]
for _ in range(40):
    NESTED = [NESTED, NESTED]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({-1: "a", 3: "b"}, "from 0 to 2, each at most once, got 2 from -1 to 3"),
        ({0.5: "a"}, r"0\.5"),
        (["a"], "must contain a dict, got list"),
        ({0: NESTED}, "must be all int or all str, got list"),
        ({0: 7, 1: "x"}, "must be all int or all str, got int, str"),
        (print, r"documents_ids\.pkl .* refers to builtins\.print"),
    ],
    ids=["positions", "fraction", "list", "nested", "mixed", "program"],
)
def test_pylate_maps_that_do_not_fit(tmp_path: Path, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(mapped(tmp_path, names))


#: One list under many names takes two bytes each, but would be read many times.
SHARED_LIST = list(range(200))


@pytest.mark.parametrize(
    "named",
    [
        {"a": [0, 5000]},
        {"a": "xyz"},
        {"a": NESTED},
        dict.fromkeys(range(50), SHARED_LIST),
    ],
    ids=["too large", "no list", "nested", "shared"],
)
def test_maps_that_do_not_fit_pylates_voyager_are_refused(tmp_path: Path, named: Any) -> None:
    voyager = Path(shutil.copytree(FOLDER / "pylate_voyager", tmp_path / "voyager"))
    (voyager / "document_ids_to_embeddings.pkl").write_bytes(pickle.dumps(named))
    with pytest.raises(ValueError, match="voyager"):
        read(voyager)


SCANN_TOKENS = np.arange(24, dtype=np.float32).reshape(8, 3)


def write_scann(folder: Path, ranges: str) -> Path:
    """Write a table of ranges, which PyLate has in place of a pickle since 1.7."""
    folder.mkdir()
    np.save(folder / "flattened_embeddings.npy", SCANN_TOKENS)
    (folder / "doc_id_to_embedding_range.tsv").write_text(ranges)
    return folder


def test_ranges_of_pylates_scann_are_in_any_order(tmp_path: Path) -> None:
    documents = read(write_scann(tmp_path / "scann", "late\t5\t3\nearly\t0\t2\nempty\t5\t0\n"))
    assert documents.ids.tolist() == ["late", "early", "empty"] and documents.lengths.tolist() == [3, 2, 0]
    assert np.array_equal(documents.tokens, SCANN_TOKENS[[5, 6, 7, 0, 1]])


@pytest.mark.parametrize(
    "ranges", ["a\t7\t3\n", f"a\t0\t{2**40}\n", "a\t-1\t2\n", f"a\t{2**63 - 1}\t1\n", "a\tx\t1\n"]
)
def test_ranges_that_do_not_fit_pylates_scann_are_refused(tmp_path: Path, ranges: str) -> None:
    with pytest.raises(ValueError, match="scann"):
        read(write_scann(tmp_path / "scann", ranges))


# -- byaldi -----------------------------------------------------------------------


def test_byaldi_pages_in_numeric_order_with_their_ids(tmp_path: Path) -> None:
    # Two pages per file; the numbers of a page are its position.
    given = [np.full((2 + i % 2, 4), i, np.float32) for i in range(12)]
    folder = foreign.write_byaldi(tmp_path / "index", given, per_file=2)
    source = open_source(folder)
    assert (source.name, source.num_documents, source.num_tokens, source.lossy) == ("byaldi", 12, None, False)
    pages, names = everything(source, 4), folder / "embed_id_to_doc_id.json.gz"
    assert_same(pages, MultiVectors.from_arrays(given, ids=[f"{i // 3}:{i % 3 + 1}" for i in range(12)]))
    names.unlink()
    assert_same(read(folder), MultiVectors.from_arrays(given))
    file = folder / "embeddings" / "embeddings_2.pt"
    write_pt(file, np.ones((2, 5), np.uint16), container="list")  # the bits of bfloat16
    with pytest.raises(ValueError, match=r"embeddings_2\.pt: document 2 has shape .* dimension=4"):
        read(folder)
    write_pt(file, np.ones((2, 4), np.uint16))
    with pytest.raises(ValueError, match=r"embeddings_2\.pt must contain a list of tensors"):
        read(folder)


@pytest.mark.parametrize("ending", ["tsv", "json"])
def test_passages_are_parts_of_their_parents(ending: str, tmp_path: Path) -> None:
    names = [f"d{i // 5}" for i in range(12)]
    file = tmp_path / f"parents.{ending}"
    lines = "".join(f"{i}\t{name}\n" for i, name in enumerate(names))
    file.write_text(lines if ending == "tsv" else json.dumps(dict(enumerate(names))))
    source = open_source(FOLDER / "colbert", parents=str(file))
    assert everything(source, 60).ids.tolist() == names
    index, passages = MuveraIndex.from_plaid(source), MuveraIndex.from_plaid(FOLDER / "colbert")
    assert index.ids.tolist() == ["d0", "d1", "d2"] and index.info().parts == 12
    [ranking] = index.search(passages.tokens([7]), 3)
    assert ranking.ids[0] == "d1" and ranking.parts is not None and ranking.parts[0] == 2
    fast = read(FOLDER / "fast_plaid_1.7.0_small")
    numbers = "".join(f"{i}\tx\n" for i in range(len(fast)))
    (tmp_path / "all.tsv").write_text(numbers)
    assert set(read(FOLDER / "fast_plaid_1.7.0_small", parents=str(tmp_path / "all.tsv")).ids.tolist()) == {
        "x"
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0\ta"], "each of the 12 passages once, but has 1 entry; passage 1 is missing"),
        ([f"{i}\ta" for i in (*range(12), 3)], "has 13 entries"),
        (["0 a"], "line 1 must be a passage and its document with a tab between, got '0 a'"),
        ([f"{i}\t{'ab'[i % 2]}" for i in range(12)], "'a' is at positions 0 and 2"),
    ],
)
def test_wrong_parents_are_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "parents.tsv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        read(FOLDER / "colbert", parents=str(tmp_path / "parents.tsv"))
