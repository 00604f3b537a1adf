"""Shards on a real Ray cluster of two nodes; killing causes no wrong answers.

The tests run in order: each leaves a cluster of two nodes.
"""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT
from builders.realistic_collections import CONFIG, documents_like_real, queries_like_real
from builders.text_encoders import HashEncoder

pytest.importorskip("ray", reason="ray is not installed")

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from muvera import FDEConfig, FDEEncoder, MuveraIndex, Ranking, TextIndex
from muvera.distributed import (
    EncodeTexts,
    RayIndex,
    ShardCounts,
    ShardedAnswer,
    ShardError,
    build_shards,
    open_text_shards,
)

DOCUMENTS = documents_like_real(600, ids=np.arange(1000, 1600))
QUERIES = queries_like_real(DOCUMENTS, 8)
ENCODER = FDEEncoder(CONFIG).fit(DOCUMENTS)

#: Two nodes with room for one actor of one core; stores that take little memory.
HEAD = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}

NAMES = [f"shard-000{number}" for number in range(2)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:  # workers inherit it
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        two = Cluster(initialize_head=True, head_node_args=HEAD)
        two.add_node(**NODE)
        ray.init(address=two.address, log_to_driver=False, logging_level="ERROR")
        yield two
        ray.shutdown()
        two.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def shards(cluster: Any, folder: Path) -> Path:
    """Two shards of three Parquet files."""
    (folder / "parquet").mkdir()
    for number in range(3):
        part = DOCUMENTS[200 * number : 200 * number + 200]
        table = pa.table({"id": part.ids, "tokens": part.to_arrow()})
        pq.write_table(table, folder / "parquet" / f"part-{number}.parquet", row_group_size=64)
    build_shards(folder / "parquet", ENCODER, folder / "shards", shards=2, exact_tokens=0)
    return folder / "shards"


@pytest.fixture(scope="module")
def index(shards: Path) -> Iterator[RayIndex]:
    with RayIndex.open(shards) as opened:
        yield opened


@lru_cache
def expected(failed: frozenset[str]) -> list[Ranking]:
    """Return the answer of one index of the documents of the other shards."""
    alive = [number for number, name in enumerate(NAMES) if name not in failed]
    rows = np.concatenate([np.arange(300 * number, 300 * number + 300) for number in alive])
    return MuveraIndex.build(DOCUMENTS[rows], ENCODER, exact_tokens=0).search(QUERIES, 7, candidates=600)


def is_right(answer: ShardedAnswer) -> bool:
    return all(
        own.ids.tolist() == best.ids.tolist() and own.scores.tolist() == best.scores.tolist()
        for own, best in zip(answer.rankings, expected(frozenset(answer.failed)), strict=True)
    )


def nodes_of(index: RayIndex) -> dict[str, str]:
    """Return the node of each shard's first actor."""
    asked = {
        name: actors[0].__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
        for name, actors in index._actors.of_shards.items()
    }
    return {name: ray.get(reference) for name, reference in asked.items()}


def kill(actor: Any) -> None:
    """End an actor's process as a crash does."""
    os.kill(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


def test_the_answers_are_those_of_one_index(index: RayIndex) -> None:
    answer = index.search(QUERIES, 7, candidates=600)
    assert answer.failed == {}
    assert is_right(answer)
    assert len(index) == 600
    assert len(set(nodes_of(index).values())) == 2


def test_each_shard_reaches_a_recall(index: RayIndex) -> None:
    found = index.search(QUERIES, 10, recall=0.9).rankings
    exact = MuveraIndex.build(DOCUMENTS, ENCODER).search(QUERIES, 10)
    shares = [np.isin(best.ids, own.ids).mean() for best, own in zip(exact, found, strict=True)]
    assert np.mean(shares) >= 0.9
    assert all(ranking.expected_recall is not None for ranking in found)


def test_wrong_queries_raise_their_own_error(index: RayIndex) -> None:
    with pytest.raises(ValueError, match="5 columns"):
        index.search(np.ones((2, 5), np.float32))
    with pytest.raises(ValueError, match="k must be"):
        index.search(QUERIES, 0)
    with pytest.raises(ValueError, match="on_failure"):
        index.search(QUERIES, on_failure="raise")  # type: ignore[arg-type]


def test_a_killed_actor_is_reported_and_starts_again(index: RayIndex) -> None:
    kill(index._actors.of_shards[NAMES[1]][0])
    answer = index.search(QUERIES, 7, candidates=600, on_failure="report")
    assert list(answer.failed) == [NAMES[1]]
    assert is_right(answer)
    whole = index.search(QUERIES, 7, candidates=600)
    assert whole.failed == {}
    assert is_right(whole)


def test_no_answer_is_wrong_while_an_actor_is_killed(index: RayIndex) -> None:
    answers: list[ShardedAnswer] = []
    end = time.monotonic() + 4

    def search() -> None:
        while time.monotonic() < end:
            answers.append(index.search(QUERIES, 7, candidates=600, on_failure="report"))

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    kill(index._actors.of_shards[NAMES[0]][0])
    for thread in threads:
        thread.join()
    assert any(answer.failed for answer in answers)
    assert all(is_right(answer) for answer in answers)
    assert index.search(QUERIES, 7).failed == {}


def test_shards_of_a_killed_node_answer_once_a_node_is_added(index: RayIndex, cluster: Any) -> None:
    head = cluster.head_node.node_id
    lost = sorted(name for name, node in nodes_of(index).items() if node != head)
    (node,) = (one for one in cluster.list_all_nodes() if one.node_id != head)
    cluster.remove_node(node, allow_graceful=False)
    answers = [index.search(QUERIES, 7, candidates=600, on_failure="report")]
    end = time.monotonic() + 20
    while sorted(answers[-1].failed) != lost and time.monotonic() < end:  # its actors are ending
        answers.append(index.search(QUERIES, 7, candidates=600, on_failure="report"))
    assert sorted(answers[-1].failed) == lost  # the other node has no free core for them
    assert all(is_right(answer) for answer in answers)
    cluster.add_node(**NODE)
    whole = index.search(QUERIES, 7, candidates=600)
    assert is_right(whole)
    assert set(nodes_of(index).values()) > {head}


def test_a_shard_that_is_lost_too_long_is_named(index: RayIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index._actors, "timeout", 0.5)
    kill(index._actors.of_shards[NAMES[0]][0])
    with pytest.raises(ShardError, match=rf"1 of 2 shards .*'{NAMES[0]}'.*report"):
        index.search(QUERIES)


def test_shards_without_free_cores_are_named(shards: Path) -> None:
    with pytest.raises(ShardError, match=r"2 actors of 2 .*0\.2 seconds.*free cores"):
        RayIndex.open(shards, cores=64, timeout=0.2)


def test_a_damaged_shard_and_a_closed_index_are_named(index: RayIndex, shards: Path) -> None:
    index.close()
    with pytest.raises(RuntimeError, match=r"closed.*RayIndex\.open"):
        index.search(QUERIES)
    (file,) = (shards / NAMES[1]).glob("generation-*/lengths.npy")
    content = file.read_bytes()
    file.write_bytes(content[:-8])
    with pytest.raises(ShardError, match=rf"'{NAMES[1]}' .*truncated"):
        RayIndex.open(shards)
    file.write_bytes(content)


def test_only_missing_shards_are_built_again(shards: Path, folder: Path) -> None:
    shutil.rmtree(shards / NAMES[1])
    with pytest.raises(ValueError, match=f"not complete, such as '{NAMES[1]}'"):
        RayIndex.open(shards)
    counts = build_shards(folder / "parquet", ENCODER, shards, shards=2, exact_tokens=0)
    assert counts == ShardCounts(documents=600, built=1, kept=1)


def test_texts_of_a_dataset_become_shards_with_replicas(cluster: Any, folder: Path) -> None:
    texts = [f"text {number} about {word}" for number, word in enumerate(["apples", "pears", "plums"] * 5)]
    encoder = HashEncoder()
    encoded = encoder.encode_documents(texts)
    fitted = FDEEncoder(FDEConfig.preset("mean", encoded.dimension)).fit(encoded)
    table = pa.table({"id": [f"t{number}" for number in range(15)], "text": texts})
    dataset = ray.data.from_arrow(table).map_batches(EncodeTexts(encoder), batch_format="pyarrow")
    counts = build_shards(dataset, fitted, folder / "texts", shards=1)
    assert counts == ShardCounts(documents=15, built=1, kept=0)
    assert not (folder / "texts" / "documents").exists()
    one = MuveraIndex.build(encoded.with_ids(table["id"].to_pylist()), fitted)
    query = encoder.encode_queries(["text 4 about pears"])
    with RayIndex.open(folder / "texts", replicas=2, cores=0.5) as opened:
        kill(opened._actors.of_shards[NAMES[0]][0])
        for _ in range(2):  # begin with either replica
            answer = opened.search(query, 3, on_failure="report")
            assert answer.failed == {}
            assert answer.rankings[0].ids.tolist() == one.search(query, 3)[0].ids.tolist()


def test_text_shards_answer_as_one_index_after_a_kill(cluster: Any, tmp_path: Path) -> None:
    texts = [f"number {number} about {word}" for number, word in enumerate(["apples", "pears", "plums"] * 8)]
    fields = [{"even": number % 2 == 0} for number in range(24)]
    encoder = HashEncoder()
    one = TextIndex.build(texts, encoder, ids=range(24), metadata=fields, tokens="float32")
    for name, rows in (("a", slice(0, 9)), ("b", slice(9, 24))):
        part = texts[rows], encoder
        own: Any = {"ids": range(24)[rows], "metadata": fields[rows], "tokens": "float32"}
        TextIndex.build(*part, **own, path=tmp_path / name)
    options: Any = {"words": 0, "mean": 0, "where": {"even": True}}
    with open_text_shards(tmp_path, encoder, cores=0.5) as shards:
        found = shards.search("about pears", 5, explain=True, **options)
        kill(shards.texts._actors.of_shards["b"][0])  # type: ignore[attr-defined]
        again = shards.search("about pears", 5, explain=True, **options)
    expected = one.search("about pears", 5, explain=True, **options)
    assert found == again == expected
    with pytest.raises(ShardError, match=r"closed.*open_text_shards"):
        shards.search("about pears")


def test_text_shards_that_cannot_be_searched_together_are_named(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="contains no folders of indexes"):
        open_text_shards(tmp_path)
    for name in "ab":
        TextIndex.build(["a red apple", "a green pear"], HashEncoder(), path=tmp_path / name)
    with pytest.raises(ValueError, match="The id 0 is in two shards"):
        open_text_shards(tmp_path, HashEncoder(), cores=0.5)
    MuveraIndex.build(DOCUMENTS[:20], ENCODER).save(tmp_path / "c")
    with pytest.raises(ShardError, match=r"'c' .* without texts"):
        open_text_shards(tmp_path, HashEncoder(), cores=0.3)


def test_wrong_documents_raise_the_error_of_the_task(cluster: Any, folder: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 4}), tmp_path / "texts.parquet")
    with pytest.raises(ValueError, match="no column of token vectors"):
        build_shards(tmp_path / "texts.parquet", ENCODER, tmp_path / "shards", shards=2)
