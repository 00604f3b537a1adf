"""The quality command's parts on tiny collections: loading, exact answers, recall, tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders.paths import SHARED

from experiments import quality, quality_tables
from experiments.datasets.collections import Collection, exact_top, find_collections, load_collection
from experiments.report.stored_results import (
    fill_block,
    load_results,
    markdown_table,
    save_results,
    text_table,
)
from muvera import MultiVectors


def write_collection(folder: Path, documents: int = 40, queries: int = 6, seed: int = 0) -> Path:
    """Texts of 3 to 8 unit vectors of 16 columns; the second document is empty."""
    stream = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for side, count in (("docs", documents), ("queries", queries)):
        lengths = stream.integers(3, 9, count).astype(np.int32)
        if side == "docs":
            lengths[1] = 0
        tokens = stream.normal(size=(int(lengths.sum()), 16))
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        np.save(folder / f"{side}_tokens.npy", tokens.astype(np.float16))
        np.save(folder / f"{side}_lens.npy", lengths)
    return folder


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return load_collection(write_collection(tmp_path / "data" / "small"))


def test_collections_are_found_alone_in_a_folder_and_under_embeddings(tmp_path: Path) -> None:
    one = write_collection(tmp_path / "alone" / "one")
    write_collection(tmp_path / "shared" / "embeddings" / "two")
    assert list(find_collections([one])) == ["one"]
    assert list(find_collections([tmp_path / "alone", tmp_path / "shared"])) == ["one", "two"]
    with pytest.raises(FileNotFoundError, match="holds no collection"):
        find_collections([tmp_path])


def test_a_collection_has_no_empty_texts_and_a_checksum_of_its_content(tmp_path: Path) -> None:
    loaded = load_collection(write_collection(tmp_path / "a"))
    assert len(loaded.documents) == 39
    assert loaded.documents.lengths.min() > 0
    same, other = (load_collection(write_collection(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert loaded.checksum == same.checksum != other.checksum


def test_the_exact_top_is_chamfers_and_is_kept(collection: Collection, tmp_path: Path) -> None:
    top = exact_top(collection, 3, tmp_path)
    documents = [document.astype(np.float64) for document in collection.documents]
    for query, found in zip(collection.queries, top, strict=True):
        scores = [(query.astype(np.float64) @ document.T).max(axis=1).sum() for document in documents]
        assert found.tolist() == np.argsort(-np.array(scores), kind="stable")[:3].tolist()
    (path,) = tmp_path.glob("top3-*.npy")
    np.save(path, top + 1)
    np.testing.assert_array_equal(exact_top(collection, 3, tmp_path), top + 1)


def test_recall_counts_the_top_that_is_found() -> None:
    top = np.array([[0, 1], [2, 3]])
    assert quality.recall(np.array([[1, 5, 0], [3, 4, 5]]), top) == 0.75


def test_rows_measured_again_replace_the_stored_ones() -> None:
    def stored(checksum: str, **values: float) -> dict[str, object]:
        return {"checksum": checksum, "rows": [{"name": name, "value": v} for name, v in values.items()]}

    old, new = stored("a", paper=1, gone=2, default=3), stored("a", paper=4)
    old["rows"][2]["name"] = "default at 2,560"  # type: ignore[index]
    assert [row["value"] for row in quality.merged(old, new)["rows"]] == [4, 3]
    assert quality.merged(stored("b", paper=1), stored("a"))["rows"] == []
    assert quality.merged(None, new) == new


def test_rows_have_names_of_their_own_and_valid_configurations() -> None:
    names = [row.name for row in quality.ROWS]
    assert len(set(names)) == len(names)
    sizes = {row.name: row.config(128, 42).vector_dimension for row in quality.ROWS}
    assert {name for name, size in sizes.items() if size != 10240} == {
        "default at 2,560",
        "default at 40,960",
    }
    configs = [row.config(128, 42).hash for row in quality.ROWS if not row.hnsw]
    assert len(set(configs)) == len(configs)


def test_the_last_row_added_up_lacks_only_the_last_option() -> None:
    rows = {row.name: row.config(128, 42) for row in quality.ROWS}
    assert rows["... + soft cells"].hyperplanes == "gaussian"
    changed = {**rows["... + soft cells"].to_dict(), "hyperplanes": "orthogonal"}
    assert changed == rows["default: ... + orthogonal hyperplanes"].to_dict()


@pytest.mark.compiled("encodes whole collections")
def test_blocks_do_not_change_what_is_found(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = quality.Row("size", "small", {"num_repetitions": 4, "num_simhash_projections": 2})
    top = exact_top(collection, 10, tmp_path)
    whole = quality.measure(row, collection, top, 42, threads=1)
    monkeypatch.setattr(quality, "_BLOCK_BYTES", 1)
    alone = quality.measure(row, collection, top, 42, threads=1)
    assert whole["recall"] == alone["recall"]
    assert whole["recall"]["50"] == 1.0  # there are 39 documents
    assert 0.3 < whole["recall"]["10"] < 1


@pytest.mark.compiled("builds a graph")
def test_the_graph_finds_what_the_exact_search_finds(collection: Collection, tmp_path: Path) -> None:
    changes = {"num_repetitions": 4, "num_simhash_projections": 2}
    top = exact_top(collection, 10, tmp_path)
    found = [
        quality.measure(quality.Row("size", "small", changes, hnsw=hnsw), collection, top, 42)["recall"]
        for hnsw in (False, True)
    ]
    assert found[0] == found[1]  # a graph of 39 vectors with ef=200 is searched whole


def test_tables_show_means_targets_and_the_worst() -> None:
    def stored(first: float, second: float) -> dict[str, object]:
        rows = [
            {"group": group, "name": name, "recall": {"10": [0.5], "50": [value, value], "100": [1.0]}}
            for group, name, value in (("together", "paper", first), ("shape", "another shape", second))
        ]
        return {"documents": 10, "queries": 2, "rows": rows}

    results = {"cranfield-minilm": stored(0.8, 0.9), "mine": stored(0.6, 0.7)}
    overview = quality_tables.overview_table(results)
    assert overview.splitlines()[2].split() == ["paper", ".800", ".600", ".700", ".600"]
    assert overview.splitlines()[-1].split()[-1] == ".955"
    short, full = quality_tables.short_markdown(results), quality_tables.full_markdown(results)
    assert "2 seeds" in short
    assert "another shape" in full
    assert "another shape" not in short
    assert ".800 (0.000)" in quality_tables.collection_table(results, "cranfield-minilm")


def test_results_are_stored_readably_and_come_back(tmp_path: Path) -> None:
    values = {"rounds": 2, "lines": [{"name": "a", "ratio": 1.5}, {"name": "b", "ratio": None}], "checks": {}}
    save_results("x", values, tmp_path)
    assert load_results("x", tmp_path) == values == json.loads((tmp_path / "x.json").read_text())
    assert len((tmp_path / "x.json").read_text().splitlines()) == 8
    assert load_results("y", tmp_path) == {}


def test_blocks_are_filled_between_their_markers() -> None:
    text = "a\n<!-- t:begin -->\nold\n<!-- t:end -->\nb\n"
    once = fill_block(text, "t", "new\n")
    assert once == "a\n<!-- t:begin -->\nnew\n<!-- t:end -->\nb\n"
    assert fill_block(once, "t", "new") == once
    with pytest.raises(ValueError, match="no block between"):
        fill_block(text, "other", "new")


def test_tables_are_aligned() -> None:
    assert text_table(["", "ms"], [["one", "1.5"]]) == "      ms\n---  ---\none  1.5"
    assert markdown_table(["", "ms"], [["one", "1.5"]]) == "|  | ms |\n| --- | ---: |\n| one | 1.5 |"


def test_queries_of_a_plaid_index_come_from_beside_it() -> None:
    sample = SHARED / "plaid-colbertv2-lotte500"
    if not sample.is_dir():
        pytest.skip("needs ../shared/data/plaid-colbertv2-lotte500")
    loaded = load_collection(sample)
    assert isinstance(loaded.documents, MultiVectors)
    assert (len(loaded.documents), len(loaded.queries), loaded.documents.dimension) == (500, 100, 128)
