"""Shards of consecutive documents have the answers of one index.

Ray is not needed here: these are the steps that its tasks and actors run.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real
from hypothesis import given
from hypothesis import strategies as st

from muvera import FDEEncoder, IndexSettings, MultiVectors, MuveraIndex, PageIndex, Ranking
from muvera.convert.readers.arrow import FileRows, parquet_rows, parquet_source
from muvera.distributed import ShardError
from muvera.distributed.ray_index import merge
from muvera.distributed.shards import Shards, open_shards, prepare, write_shard
from muvera.utils.atomic_files import content_checksum

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

DOCUMENTS = documents_like_real(300, ids=[f"text {i}" for i in range(300)])
QUERIES = queries_like_real(DOCUMENTS, 8)
ENCODER = FDEEncoder(CONFIG).fit(DOCUMENTS)
SETTINGS = IndexSettings(exact_tokens=0)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of 100 documents, in groups of 30 rows."""
    folder = tmp_path_factory.mktemp("parquet")
    for number in range(3):
        part = DOCUMENTS[100 * number : 100 * number + 100]
        table = pa.table({"id": part.ids.tolist(), "tokens": part.to_arrow()})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=30)
    return folder


def built(parquet: Path, root: Path, count: int, **settings: Any) -> Shards:
    shards = prepare(parquet, ENCODER, root, count, IndexSettings.of(SETTINGS, **settings))
    for name in shards.names:
        write_shard(str(root), name, 1)
    return open_shards(root)


def found(shards: Shards, k: int, **limits: Any) -> list[Ranking]:
    indexes = [MuveraIndex.load(shards.root / name) for name in shards.names]
    rankings = [index.search(QUERIES, k, **limits) for index in indexes]
    return [merge(of_one_query, k) for of_one_query in zip(*rankings, strict=True)]


def assert_equal(one: list[Ranking], other: list[Ranking]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first.ids.tolist() == second.ids.tolist()
        np.testing.assert_array_equal(first.scores, second.scores)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_shards_have_the_ids_and_scores_of_one_index(count: int, parquet: Path, tmp_path: Path) -> None:
    index = MuveraIndex.build(DOCUMENTS, ENCODER, settings=SETTINGS)
    shards = built(parquet, tmp_path / "shards", count)
    assert_equal(found(shards, 7, candidates=300), index.search(QUERIES, 7, candidates=300))
    assert shards.plan["bounds"][-1] == 300


def test_each_shard_is_calibrated_for_a_recall(parquet: Path, tmp_path: Path) -> None:
    shards = built(parquet, tmp_path / "shards", 2)
    index = MuveraIndex.load(shards.root / shards.names[0])
    assert index.candidates_by_recall
    exact = MuveraIndex.build(DOCUMENTS, ENCODER).search(QUERIES, 10)
    rankings = found(shards, 10, recall=0.9)
    shares = [np.isin(best.ids, own.ids).mean() for best, own in zip(exact, rankings, strict=True)]
    assert np.mean(shares) >= 0.9
    assert min(ranking.expected_recall or 0 for ranking in rankings) > 0.5


@pytest.mark.parametrize("tokens", ["int8", "2bit"])
def test_shards_share_the_codec_of_their_codes(tokens: str, parquet: Path, tmp_path: Path) -> None:
    shards = built(parquet, tmp_path / "shards", 3, tokens=tokens)
    codecs = [MuveraIndex.load(shards.root / name).codec for name in shards.names]
    for codec in codecs[1:]:
        assert codec is not None and codecs[0] is not None
        for name, array in codecs[0].arrays.items():
            np.testing.assert_array_equal(array, codec.arrays[name])


def test_finished_shards_are_kept_and_the_others_are_named(parquet: Path, tmp_path: Path) -> None:
    shards = prepare(parquet, ENCODER, tmp_path / "shards", 3, SETTINGS)
    write_shard(str(shards.root), "shard-0001", 1)
    with pytest.raises(ValueError, match=r"2 of 3 shards.*'shard-0000'.*build_shards"):
        open_shards(shards.root)
    before = (shards.root / "shard-0001" / "manifest.json").stat().st_mtime_ns
    again = prepare(parquet, ENCODER, tmp_path / "shards", 3, SETTINGS)
    assert again.missing == ["shard-0000", "shard-0002"]
    write_shard(str(shards.root), "shard-0001", 1)  # a repeated task
    assert (shards.root / "shard-0001" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"count": 2}, "bounds"),
        ({"settings": IndexSettings(backend="hnsw")}, "settings"),
        ({"encoder": FDEEncoder(CONFIG).fit(DOCUMENTS[:200])}, "encoder"),
    ],
    ids=["shards", "settings", "encoder"],
)
def test_shards_that_were_built_otherwise_are_not_mixed(
    other: dict[str, Any], differs: str, parquet: Path, tmp_path: Path
) -> None:
    how = {"encoder": ENCODER, "count": 3, "settings": SETTINGS}
    prepare(parquet, root=tmp_path, **how)  # type: ignore[arg-type]
    with pytest.raises(FileExistsError, match=f"otherwise: {differs} differ"):
        prepare(parquet, root=tmp_path, **(how | other))  # type: ignore[arg-type]


def test_shards_of_replaced_files_are_not_mixed(tmp_path: Path) -> None:
    """A file with as many other documents, between two calls or during one."""
    file, root = tmp_path / "a.parquet", tmp_path / "shards"
    names = [f"text {i}" for i in range(100)]
    pq.write_table(pa.table({"id": names, "tokens": DOCUMENTS[:100].to_arrow()}), file)
    prepare(file, ENCODER, root, 2, SETTINGS)
    write_shard(str(root), "shard-0000", 1)
    whole = file.read_bytes()
    pq.write_table(pa.table({"id": names, "tokens": DOCUMENTS[100:200].to_arrow()}), file)
    with pytest.raises(FileExistsError, match="otherwise: contents differ"):
        prepare(file, ENCODER, root, 2, SETTINGS)
    with pytest.raises(ValueError, match=r"a\.parquet has changed since the first shard"):
        write_shard(str(root), "shard-0001", 1)
    file.write_bytes(whole)
    write_shard(str(root), prepare(file, ENCODER, root, 2, SETTINGS).missing[0], 1)
    assert open_shards(root).missing == []


def test_a_plan_without_contents_is_continued(parquet: Path, tmp_path: Path) -> None:
    """Earlier versions wrote no checksums of the files."""
    shards = prepare(parquet, ENCODER, tmp_path, 2, SETTINGS)
    plan = {key: shards.plan[key] for key in shards.plan if key not in ("contents", "sha256")}
    (tmp_path / "shards.json").write_text(json.dumps({**plan, "sha256": content_checksum(plan)}))
    assert prepare(parquet, ENCODER, tmp_path, 2, SETTINGS).missing == ["shard-0000", "shard-0001"]
    for name in shards.names:
        write_shard(str(tmp_path), name, 1)
    assert sum(len(MuveraIndex.load(tmp_path / name)) for name in open_shards(tmp_path).names) == 300


class Dataset:
    """Writes its documents as a dataset of Ray does."""

    def __init__(self, documents: MultiVectors) -> None:
        self.documents = documents

    def write_parquet(self, path: str) -> None:
        Path(path).mkdir(exist_ok=True)
        columns = {"id": self.documents.ids.tolist(), "tokens": self.documents.to_arrow()}
        pq.write_table(pa.table(columns), Path(path) / "part.parquet")


def test_documents_of_a_refused_dataset_are_not_built(tmp_path: Path) -> None:
    """A call that fails before it has a plan leaves the documents of its dataset."""
    with pytest.raises(ValueError, match="60 for 50 documents"):
        prepare(Dataset(DOCUMENTS[:50]), ENCODER, tmp_path, 60, SETTINGS)
    shards = prepare(Dataset(DOCUMENTS[50:130]), ENCODER, tmp_path, 1, SETTINGS)
    write_shard(str(tmp_path), "shard-0000", 1)
    assert MuveraIndex.load(tmp_path / shards.names[0]).ids.tolist() == DOCUMENTS.ids.tolist()[50:130]


def test_documents_without_ids_have_the_numbers_of_their_rows(tmp_path: Path) -> None:
    documents = documents_like_real(40)
    pq.write_table(pa.table({"tokens": documents.to_arrow()}), tmp_path / "one.parquet")
    shards = built(tmp_path / "one.parquet", tmp_path / "shards", 3)
    ids = [MuveraIndex.load(shards.root / name).ids.tolist() for name in shards.names]
    assert ids == [list(range(13)), list(range(13, 26)), list(range(26, 40))]


@given(st.lists(st.integers(0, 300), min_size=2, max_size=2))
def test_rows_of_a_file_are_the_rows_of_the_whole(parquet: Path, bounds: list[int]) -> None:
    start, stop = sorted(value // 3 for value in bounds)
    (first, *_) = parquet_rows(parquet)
    if start == stop:
        return
    batches = parquet_source([FileRows(first.file, start, stop)]).batches(50)
    ids = [id for batch in batches for id in batch.ids.tolist()]
    assert ids == DOCUMENTS.ids.tolist()[start:stop]


def test_wrong_folders_are_refused(parquet: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        prepare(parquet, ENCODER, tmp_path / "other", 2, SETTINGS)
    with pytest.raises(FileNotFoundError, match="is not a Parquet file or a folder of Parquet files"):
        prepare(tmp_path / "other", ENCODER, tmp_path / "new", 2, SETTINGS)
    with pytest.raises(FileNotFoundError, match=r"shards\.json"):
        open_shards(tmp_path / "other")
    with pytest.raises(ValueError, match="301 for 300 documents"):
        prepare(parquet, ENCODER, tmp_path / "new", 301, SETTINGS)
    with pytest.raises(TypeError, match=r"ray\.data\.Dataset"):
        prepare(DOCUMENTS, ENCODER, tmp_path / "new", 2, SETTINGS)


def test_an_index_of_pages_has_no_shards_but_vectors_for_them(tmp_path: Path) -> None:
    vectors = documents_like_real(3)
    PageIndex.from_arrays(vectors, pages=[("a.pdf", n) for n in (1, 2, 3)]).save(tmp_path / "pages")
    with pytest.raises(FileNotFoundError, match=r"contains an index, not shards\. Write its token vectors"):
        open_shards(tmp_path / "pages")
    answer("convert", tmp_path / "pages", tmp_path / "vectors", "--to", "parquet")
    target = prepare(
        tmp_path / "vectors", FDEEncoder(CONFIG).fit(vectors), tmp_path / "shards", 2, IndexSettings()
    )
    for name in target.names:
        write_shard(str(target.root), name, 1)
    found = [id for name in target.names for id in MuveraIndex.load(target.root / name).ids.tolist()]
    assert found == ["a.pdf:1", "a.pdf:2", "a.pdf:3"]


def test_a_changed_manifest_is_refused(parquet: Path, tmp_path: Path) -> None:
    shards = prepare(parquet, ENCODER, tmp_path, 2, SETTINGS)
    file = shards.root / "shards.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "bounds": [0, 10, 300]}))
    with pytest.raises(ValueError, match="checksum"):
        open_shards(tmp_path)


def ranking(ids: list[Any], scores: list[float], recall: float | None = None) -> Ranking:
    return Ranking(np.array(ids), np.array(scores, np.float32), True, recall)


def test_equal_scores_keep_the_order_of_the_documents() -> None:
    merged = merge((ranking([5, 1], [2, 1]), ranking([9, 0], [2, 1])), 3)
    assert merged.ids.tolist() == [5, 9, 1]


def test_the_recall_of_shards_is_that_of_the_lowest() -> None:
    parts = ranking([1], [1], 0.9), ranking([2], [2], 1.0)
    assert merge(parts, 1).expected_recall == 0.9
    assert merge(parts, 1, complete=False).expected_recall is None
    assert merge((*parts, ranking([3], [3])), 1).expected_recall is None


def test_ids_that_cannot_be_merged_are_refused() -> None:
    with pytest.raises(ShardError, match="integers, or all strings"):
        merge((ranking([1], [1]), ranking(["a"], [1])), 1)
    with pytest.raises(ShardError, match="id 1 is in two shards"):
        merge((ranking([1], [1]), ranking([1], [1])), 2)


def test_a_shard_of_another_dimension_is_refused(tmp_path: Path) -> None:
    narrow = MultiVectors.from_arrays([np.ones((2, DIM - 1), np.float32)] * 4)
    pq.write_table(pa.table({"tokens": narrow.to_arrow()}), tmp_path / "one.parquet")
    shards = prepare(tmp_path / "one.parquet", ENCODER, tmp_path / "shards", 2, SETTINGS)
    with pytest.raises(ValueError, match=rf"{DIM - 1} columns"):
        write_shard(str(shards.root), "shard-0000", 1)
    assert not (shards.root / "shard-0000").exists()


def test_all_parts_of_a_document_are_in_one_shard(tmp_path: Path) -> None:
    names = np.repeat([f"d{i}" for i in range(50)], np.arange(50) % 11 + 1)[:250]
    documents = DOCUMENTS[:250].with_ids(names)
    table = pa.table({"id": names.tolist(), "tokens": documents.to_arrow()})
    pq.write_table(table, tmp_path / "parts.parquet", row_group_size=30)
    index = MuveraIndex.build(documents, ENCODER, settings=SETTINGS)
    shards = built(tmp_path / "parts.parquet", tmp_path / "shards", 7)
    found_, expected = found(shards, 7, candidates=300), index.search(QUERIES, 7, candidates=300)
    assert_equal(found_, expected)
    for one, other in zip(found_, expected, strict=True):
        assert one.parts is not None and other.parts is not None
        assert one.parts.tolist() == other.parts.tolist()
    sizes = [len(MuveraIndex.load(shards.root / name)) for name in shards.names]
    assert sum(sizes) == len(index) and min(sizes) > 0
    pq.write_table(table.slice(45, 11), tmp_path / "one.parquet")
    with pytest.raises(ValueError, match="shards=9 would leave a shard without documents"):
        prepare(tmp_path / "one.parquet", ENCODER, tmp_path / "other", 9, SETTINGS)
