"""An audit finds the recall of searches on real engines, and what would fix it."""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.engine_collections import missing
from builders.realistic_collections import DIM, documents_like_real, queries_like_real

from muvera import MultiVectors, audit, top_k
from muvera.diagnostics.audit import Audit, read_run
from muvera.engines import EngineError, EngineIndex
from muvera.engines.foreign import ForeignCollection, ForeignQdrant, open_foreign
from muvera.utils.intervals import share_interval

ALL = documents_like_real(600, seed=3)
DOCUMENTS = ALL[np.flatnonzero(ALL.lengths > 0)].with_ids(np.arange(int((ALL.lengths > 0).sum())))
QUERIES = queries_like_real(DOCUMENTS, 30)
UNIT = MultiVectors.from_arrays([q / np.linalg.norm(q, axis=1, keepdims=True) for q in QUERIES])
BEST = {str(q): one.ids.tolist() for q, one in enumerate(top_k(QUERIES, DOCUMENTS, 100))}


def means(texts: MultiVectors) -> Any:
    return np.stack([np.asarray(text, np.float64).mean(axis=0) for text in texts])


MEANS = {str(q): row for q, row in enumerate(np.argsort(-means(QUERIES) @ means(DOCUMENTS).T).tolist())}


def cut(run: Mapping[str, list[Any]], depth: int) -> dict[str, list[Any]]:
    return {query: ids[:depth] for query, ids in run.items()}


def skip_without(kind: str) -> None:
    if (reason := missing(kind)) is not None:
        pytest.skip(reason)


# -- runs -----------------------------------------------------------------------------


def test_the_exact_best_have_recall_one() -> None:
    result = audit(cut(BEST, 10), QUERIES, DOCUMENTS)
    assert result.recall == 1.0
    assert (result.failing, result.num_failing, result.unknown_ids) == ((), 0, 0)
    assert result.interval == share_interval(np.ones(len(QUERIES)))
    assert result.milliseconds is None
    assert result.advice == ["Nothing to fix: the recall is at least 0.95."]


def test_a_ranking_by_means_is_recognized() -> None:
    result = audit(cut(MEANS, 10), QUERIES, DOCUMENTS)
    exact = [np.isin(BEST[q][:10], MEANS[q][:10]).mean() for q in BEST]
    assert result.recall == pytest.approx(np.mean(exact))
    assert result.like_means > 0.99
    assert "mean vectors" in result.advice[0]
    assert result.failing[0].recall == min(exact)
    missing_ids = result.failing[0].missing
    assert missing_ids == [id for id in BEST[str(result.failing[0].query)][:10] if id not in
                           MEANS[str(result.failing[0].query)][:10]][: len(missing_ids)]  # fmt: skip


def test_missing_rescoring_is_named_with_the_recall_that_it_reaches() -> None:
    rng = np.random.default_rng(0)
    shuffled = {query: rng.permutation(ids).tolist() for query, ids in BEST.items()}
    result = audit(shuffled, QUERIES, DOCUMENTS)
    assert result.recall < 0.3
    assert "To reach 1.000: rank the first 100 ids of each answer by all tokens" in result.advice[-1]
    assert result.like_means < 0.9


def test_nothing_is_claimed_without_evidence() -> None:
    rng = np.random.default_rng(0)
    result = audit([rng.permutation(560)[:10].tolist() for _ in BEST], QUERIES, DOCUMENTS)
    assert result.evidence == ()
    assert result.advice[0].startswith("Nothing that was tried raises the recall.")


def test_unknown_ids_are_counted() -> None:
    result = audit({query: ["x", *ids[:9]] for query, ids in BEST.items()}, QUERIES, DOCUMENTS)
    assert result.unknown_ids == 30
    assert result.recall == pytest.approx(0.9)
    assert "30 ids" in result.advice[0]


@pytest.mark.parametrize("form", ["trec", "json", "json scores", "json lists"])
def test_runs_are_read_from_files(form: str, tmp_path: Path) -> None:
    file = tmp_path / "run"
    run = cut(BEST, 10)
    if form == "trec":
        lines = [
            f"{query} Q0 {id} {rank} {10 - rank} mine"
            for query, ids in run.items()
            for rank, id in reversed(list(enumerate(ids)))
        ]
        file.write_text("\n".join(lines))
    elif form == "json":
        file.write_text(json.dumps(run))
    elif form == "json scores":
        file.write_text(json.dumps({q: {id: -rank for rank, id in enumerate(ids)} for q, ids in run.items()}))
    else:
        file.write_text(json.dumps(list(run.values())))
    assert audit(file, QUERIES, DOCUMENTS).recall == 1.0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1 Q0 d", "line 1.*six columns"),
        ('{"a": 1}', "list of ids"),
        ("[1, 2]", "list of ids"),
        ("\xff", "run is not a run: it is not UTF-8"),
    ],
)
def test_files_that_are_no_runs_are_refused(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=part):
        read_run(tmp_path / "run")


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="needs the token vectors of the documents"):
        audit(BEST, QUERIES)
    with pytest.raises(ValueError, match="none of the 30 queries"):
        audit({"other": [1]}, QUERIES, DOCUMENTS)
    with pytest.raises(ValueError, match="2 answers for 30 queries"):
        audit([[1], [2]], QUERIES, DOCUMENTS)
    with pytest.raises(ValueError, match="no tokens"):
        audit(BEST, QUERIES[:0], DOCUMENTS)
    with pytest.raises(TypeError, match="found must be"):
        audit(3, QUERIES, DOCUMENTS)  # type: ignore[arg-type]


def test_a_url_of_no_engine_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match=r"must begin with postgresql:.*got 'mysql:'"):
        audit("mysql://me:secret@localhost/db#docs", QUERIES, DOCUMENTS)


# -- engines --------------------------------------------------------------------------


def report(opened: ForeignCollection, queries: MultiVectors = QUERIES, **settings: Any) -> Audit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return audit(opened, queries, settings=settings)


def test_qdrant_in_local_mode_is_exact() -> None:
    skip_without("qdrant")
    from qdrant_client import QdrantClient, models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = QdrantClient(":memory:")
        maxsim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        vectors = models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=maxsim)
        client.create_collection("my docs-2", vectors_config={"colbert": vectors})
        points = [
            models.PointStruct(id=id, vector={"colbert": tokens.tolist()}, payload={})
            for id, tokens in zip(DOCUMENTS.ids.tolist(), DOCUMENTS, strict=True)
        ]
        client.upsert("my docs-2", points)
        opened = ForeignQdrant("qdrant://memory#my docs-2", client)
        result = report(opened)
    assert (result.recall, result.documents, result.cosine) == (1.0, len(DOCUMENTS), False)
    assert result.milliseconds is not None
    assert 0 < result.milliseconds["p50"] <= result.milliseconds["p95"]
    with pytest.raises(ValueError, match=r"no search setting 'ef'.*hnsw_ef"):
        report(opened, ef=3)
    opened.end()


def test_binary_quantization_without_rescoring_is_named(tmp_path: Path) -> None:
    skip_without("qdrant-edge")
    import qdrant_edge as edge

    vectors = edge.EdgeVectorParams(
        size=DIM,
        distance=edge.Distance.Dot,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        quantization_config=edge.BinaryQuantizationConfig(),
    )
    (tmp_path / "docs").mkdir()
    shard = edge.EdgeShard.create(str(tmp_path / "docs"), edge.EdgeConfig(vectors={"colbert": vectors}))
    points = [
        edge.Point(id=id, vector={"colbert": tokens.tolist()}, payload={})
        for id, tokens in zip(DOCUMENTS.ids.tolist(), DOCUMENTS, strict=True)
    ]
    shard.update(edge.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.close()
    result = audit(f"qdrant-edge:{tmp_path}#docs", QUERIES, settings={"rescore": False})
    assert result.recall < 0.8
    assert any("rescore=true and oversampling=4" in one.what and one.helps for one in result.evidence)
    assert result.evidence[-1].recall == 1.0  # exact=true
    assert "To reach" in result.advice[-1]


@pytest.mark.parametrize("place", ["{}#docs", "{}/collection#docs"])
def test_a_folder_of_qdrants_local_mode_is_exact_already(place: str, tmp_path: Path) -> None:
    skip_without("qdrant")
    skip_without("qdrant-edge")
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(tmp_path))
    vectors = models.VectorParams(size=DIM, distance=models.Distance.DOT)
    client.create_collection("docs", vectors_config={"colbert": vectors})
    client.close()
    with pytest.raises(ValueError, match=r"client in local mode.*recall is 1\..*qdrant://HOST:PORT#NAME"):
        audit(f"qdrant-edge:{place.format(tmp_path)}", QUERIES)


def test_a_folder_that_is_no_shard_is_named(tmp_path: Path) -> None:
    skip_without("qdrant-edge")
    (tmp_path / "docs").mkdir()
    with pytest.raises(ValueError, match=r"docs is not a shard of Qdrant Edge.*no edge_config\.json"):
        audit(f"qdrant-edge:{tmp_path}#docs", QUERIES)
    with pytest.raises(ValueError, match="other does not exist"):
        audit(f"qdrant-edge:{tmp_path}#other", QUERIES)


@pytest.mark.parametrize("kind", ["qdrant-edge", "lancedb", "milvus"])
def test_what_muvera_loaded_is_measured_by_its_engine_index(kind: str, tmp_path: Path) -> None:
    skip_without(kind)
    url = f"{kind}:{tmp_path / ('lite.db' if kind == 'milvus' else 'folder')}#docs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = EngineIndex(url, "mean")
        index.add(DOCUMENTS[:20])
        index.close()
        with pytest.raises(ValueError, match=r"filled by muvera.*EngineIndex\(url\)\.measure_recall"):
            audit(url, QUERIES)
        if kind != "milvus":  # which stores no tokens to rank by
            opened = EngineIndex(url)
            assert opened.measure_recall(QUERIES, candidates=20).recall == 1.0
            opened.close()


def test_a_coarse_index_of_lancedb_is_named(tmp_path: Path) -> None:
    skip_without("lancedb")
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfPq

    lists = pa.array([tokens.tolist() for tokens in DOCUMENTS], pa.list_(pa.list_(pa.float32(), DIM)))
    table = lancedb.connect(tmp_path).create_table("docs", pa.table({"id": DOCUMENTS.ids, "tokens": lists}))
    assert report(open_foreign(f"lancedb:{tmp_path}#docs")).recall == 1.0
    table.create_index("tokens", config=IvfPq(distance_type="cosine", num_partitions=8, num_sub_vectors=2))
    result = audit(f"lancedb:{tmp_path}#docs", QUERIES)
    assert result.recall < 0.9
    assert result.cosine
    assert result.evidence[-1].recall == 1.0  # without the index
    assert result.advice[-1].startswith("To reach")
    assert "refine_factor" in result.advice[-1] or "rank them by exact Chamfer" in result.advice[-1]


def test_few_rows_for_each_token_in_milvus_are_named(tmp_path: Path) -> None:
    skip_without("milvus")
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(str(tmp_path / "lite.db"))
    schema = client.create_schema(auto_id=True)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    schema.add_field("doc_id", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    graph = client.prepare_index_params()
    graph.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 64})
    client.create_collection("docs", schema=schema, index_params=graph)
    documents = DOCUMENTS[:200]
    owners = np.repeat(documents.ids, documents.lengths).tolist()
    rows = zip(owners, documents.tokens.tolist(), strict=True)
    client.insert("docs", [{"doc_id": owner, "vector": vector} for owner, vector in rows])
    client.close()
    result = audit(f"milvus:{tmp_path / 'lite.db'}#docs", QUERIES[:8], settings={"rows": 3, "rescore": False})
    assert result.documents == 200
    assert result.recall < 0.7
    assert result.evidence[-2].recall > 0.99  # 500 rows
    assert "500 rows for each query token" in result.advice[-1]


@pytest.fixture
def table(postgres: str) -> Iterator[str]:
    """A table with token vectors, as in pgvector's examples, and mean vectors."""
    import psycopg

    def literal(row: Any) -> str:
        return "[" + ",".join(map(str, row)) + "]"

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(
            f'CREATE TABLE "Audited-1" (id bigint PRIMARY KEY, embeddings vector({DIM})[], mean vector({DIM}))'
        )
        connection.execute(
            "CREATE OR REPLACE FUNCTION max_sim(document vector[], query vector[]) RETURNS double precision "
            "AS $$ WITH queries AS (SELECT row_number() OVER () AS number, * FROM (SELECT unnest(query) AS "
            "query) AS q), documents AS (SELECT unnest(document) AS document), similarities AS (SELECT number,"
            " -(document <#> query) AS similarity FROM queries CROSS JOIN documents), best AS (SELECT "
            "MAX(similarity) AS best FROM similarities GROUP BY number) SELECT SUM(best) FROM best "
            "$$ LANGUAGE SQL"
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                'INSERT INTO "Audited-1" VALUES (%s, %s::vector[], %s)',
                [
                    (id, list(map(literal, tokens.tolist())), literal(mean.tolist()))
                    for id, tokens, mean in zip(
                        DOCUMENTS.ids.tolist(), DOCUMENTS, means(DOCUMENTS), strict=True
                    )
                ],
            )
        yield f"{postgres}#Audited-1"
        connection.execute('DROP TABLE "Audited-1"')
        connection.execute("DROP FUNCTION max_sim")


def test_the_exact_search_of_pgvector_has_recall_one(table: str) -> None:
    result = audit(table, QUERIES[:5])
    assert (result.recall, result.documents) == (1.0, len(DOCUMENTS))
    assert "s3cret" not in result.searched


def test_a_search_of_pgvector_by_means_is_named(table: str) -> None:
    sql = 'SELECT id FROM "Audited-1" ORDER BY mean <#> %(mean)s::vector LIMIT %(k)s'
    result = audit(table, QUERIES, settings={"sql": sql})
    assert result.recall < 0.95
    assert result.like_means > 0.95
    assert "mean vectors" in result.advice[0]
    assert "fetch 100 documents, and rank them by exact Chamfer" in result.advice[-1]
    with pytest.raises(ValueError, match="read-only"):
        audit(table, QUERIES, settings={"sql": 'DELETE FROM "Audited-1" RETURNING id'})


def test_a_missing_file_of_milvus_is_not_created(tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(EngineError, match=r"x\.db does not exist"):
        audit(f"milvus:{tmp_path / 'x.db'}#c", QUERIES[:1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"q": ' * 100_000,
        '{"q0": {"d1": "high"}}',
        '{"q0": {"d1": null}}',
        '{"q0": {"d1": NaN}}',
        '{"q0": {"d1": true}}',
        '{"q0": [["d1"]]}',
        '{"q0": [1.5]}',
        '[{"d1": 1.0}]',
        "[[{}]]",
    ],
)
def test_json_that_is_no_run_gets_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json (is not JSON|must have a list of ids)"):
        read_run(tmp_path / "run.json")
