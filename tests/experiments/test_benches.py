"""Benches on tiny inputs: every way has a row; numbers follow definitions."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.small_runs import collection_of
from builders.text_encoders import HashEncoder, ShortModel

from experiments.bench import (
    explanations,
    first_stage,
    growth,
    landmarks,
    long_texts,
    meter,
    onnx_files,
    pages,
    pipeline,
    plumbing,
    recall_dial,
    searches,
    server,
    size,
    speed,
    static_texts,
    tokens,
    vectors,
    words,
)
from experiments.bench.grown_documents import BLOCK, LONGEST, SHORTEST, GrownDocuments
from experiments.datasets import long_texts as long_texts_data
from experiments.datasets.collection import Collection
from experiments.datasets.made_pages import MadePages
from experiments.learned_vectors import LearnedVectors
from experiments.peers.environments import MUVERA, PEERS
from experiments.peers.workers.serve import operations_of
from experiments.report.table import Table
from experiments.systems.texts import Words
from muvera import FDEEncoder, MultiVectors, TextIndex, chamfer_matrix
from muvera.fde.config import PRESETS
from muvera.texts.encoders.base import ScoreWeights
from muvera.utils.intervals import share_interval

#: Documents of a collection, enough to fit FDEs in an index.
COUNT = 280


@pytest.fixture(scope="module")
def real() -> MultiVectors:
    """Documents whose tokens vary less within a document than across documents."""
    rng = np.random.default_rng(0)
    centers = np.repeat(rng.standard_normal((COUNT, 8)), 9, axis=0)
    centers[:, 0] += 2
    rows = centers + 0.7 * rng.standard_normal((9 * COUNT, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return MultiVectors.from_flat(rows.astype(np.float32), [9] * COUNT)


def column(table: Table, name: str) -> list[Any]:
    return [row[table.header.index(name)] for row in table.rows]


def test_jobs_take_turns_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []

    def job(name: str) -> Any:
        return lambda: (calls.append(name), (len(calls), 1.0))[1]  # type: ignore[func-returns-value]

    seconds = plumbing.interleaved({name: job(name) for name in "abc"}, 2)
    assert "".join(calls) == "abcabcbca"
    assert seconds["a"].tolist() == [[4, 9], [1, 1]]


def test_weights_are_chosen_on_the_other_collections() -> None:
    grid = words._GRID
    former, best, other = (grid.index(ScoreWeights(*pair)) for pair in ((0.1, 0), (0.2, 0.2), (0.3, 0.3)))
    grids = np.zeros((3, len(grid)))
    grids[:2, best], grids[2, other], grids[:, former] = 0.5, 0.9, 0.1
    rows = words.held_out(["a", "b", "c"], grids, ScoreWeights(0.2, 0.2))
    chosen = [(row["collection"], row["weights"], row["chosen"], row["default"]) for row in rows]
    two, three = ".6 MaxSim + .2 words + .2 mean", ".4 MaxSim + .3 words + .3 mean"
    assert chosen == [("a", three, 0.0, 0.5), ("b", three, 0.0, 0.5), ("c", two, 0.0, 0.0)]
    assert [row["best weights"] for row in rows] == [two, two, three]


def test_parts_of_scores_are_measured_and_weighted_again() -> None:
    texts = [f"text {i} word{i}" for i in range(20)]
    queries, grades = ["word3 text", "word7"], [{3: 1}, {7: 1}]
    row, grid = words.measure_parts(words.Asked("small", texts, queries, grades, HashEncoder(16)))
    assert [row[name] for name in ("default nDCG", "former MRR", "bm25 S", "stems S@100")] == [1, 1, 1, 1]
    assert row["bytes"] > 32 and grid.shape == (len(words._GRID),)
    index = TextIndex.build(texts, HashEncoder(16))
    for weights in (ScoreWeights(0.3, 0.4), ScoreWeights(0.1, 0.0)):
        found = [hit.id for hit in index.search("word3 text", 3, **weights._asdict())]
        assert words._parts(index, "word3 text").ranked(weights)[:3].tolist() == found


def test_stems_find_other_forms_of_a_word() -> None:
    texts = ["the trees", "a stone", "a river"]
    plain, stemmed = Words(texts), Words(texts, stems=True)
    assert plain.scores("a tree").tolist() == [0, 0, 0]
    scores = stemmed.scores("a tree")
    assert scores[0] > 0 and scores[1:].tolist() == [0, 0]


def test_joined_texts_contain_the_relevant_ones() -> None:
    asked = words.Asked(
        "small", ["ab", "cd", "efghi", "j"], ["a", "j"], [{0: 1, 2: 2}, {3: 1}], HashEncoder(4)
    )
    long = static_texts.join_texts(asked, 3)
    assert long.texts == ["ab\n\ncd", "efghi", "j"]
    assert long.grades == [{0: 1, 1: 2}, {2: 1}]


def test_every_codec_has_a_row(real: MultiVectors) -> None:
    table = tokens.measure([collection_of(real)])
    names = ["int8", "4bit", "2bit", "1bit", *tokens.PLAID]
    assert column(table, "collection, codec") == [f"small, {name}" for name in names]
    recalls = zip(column(table, "10-recall@10"), column(table, "@20"), strict=True)
    assert all(0 < first <= second <= 1 for first, second in recalls)


def test_dial_and_fixed_numbers(real: MultiVectors) -> None:
    table = searches.measure_dial([collection_of(real)], rounds=1, kinds=("float32",))
    assert column(table, "`recall=`") == [0.9, 0.95, 0.98, 0.99]
    for target, recall in zip(column(table, "`recall=`"), column(table, "10-recall@10"), strict=True):
        assert recall > target - 0.1
    assert max(column(table, "fixed number with that recall")) <= COUNT


def test_searches_at_equal_recall_and_in_all_ways(real: MultiVectors) -> None:
    codecs, ways = searches.measure([collection_of(real)], rounds=1, kinds=("float32", "int8"))
    rows = {tuple(row[:2]): row for row in codecs.rows}
    assert rows["small, float32", 0.9][5] == 1 and rows["small, int8", 0.9][3] >= 0.9
    assert set(column(ways, "index")) == {"20 documents", "small, float32", "small, int8"}


def test_a_made_document_is_a_function_of_its_number_and_varies_as_real_ones(real: MultiVectors) -> None:
    documents = GrownDocuments(real)

    def joined(stop: int, start: int = 0) -> MultiVectors:
        return MultiVectors.concatenate(list(documents.batches(stop, start)))

    few, many = joined(BLOCK + 3), joined(BLOCK + 40, start=7)
    assert few.ids.tolist() == list(range(BLOCK + 3)) and many.ids.tolist() == list(range(7, BLOCK + 40))
    for a, b in zip(few[7:], many, strict=False):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(np.asarray(few[3], np.float32), real[3], atol=1e-3)
    assert set(few.lengths[COUNT:].tolist()) == set(range(SHORTEST, LONGEST + 1))
    other = next(GrownDocuments(real, seed=1).batches(COUNT + 50, COUNT + 10))
    assert not np.array_equal(other[0][:5], few[COUNT + 10][:5])

    def variances(texts: MultiVectors) -> tuple[float, float]:
        means = np.stack([np.asarray(text, np.float32).mean(axis=0) for text in texts])
        within = [((np.asarray(t, np.float32) - m) ** 2).sum() for t, m in zip(texts, means, strict=True)]
        return float(means.var(axis=0).sum()), float(np.sum(within) / texts.num_tokens)

    # Generated documents have eight times the tokens, and length 1 again.
    np.testing.assert_allclose(variances(joined(4000)[COUNT:]), variances(real), rtol=0.25)


def test_recall_dial_compares_targets_with_measurements(
    real: MultiVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall_dial, "_ADDED", 20)
    monkeypatch.setattr(recall_dial, "_FOREIGN", (0, 5))
    collection = collection_of(real)
    held, words, after = recall_dial.tables_of([collection], [[collection, collection]], [[collection] * 2])
    assert column(held, "`recall=`") == [0.9, 0.95, 0.98] * 2
    for target, recall in zip(column(held, "`recall=`"), column(held, "10-recall@10 [95%]"), strict=True):
        assert recall["mean"] > target - 0.1
    assert len(words.rows) == (3 if collection.document_texts else 0)
    assert column(after, "queries") == ["own", "own", "foreign"]


def test_meter_covers_simulated_queries_and_samples_real_ones(
    real: MultiVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = np.random.default_rng(0)
    for _ in range(5):
        shares, _ = meter.simulated("constant", stream, 300)
        for truth in (np.full(300, 0.95), np.full(300, 0.86)):
            ends = [share_interval(shares[:look]) for look in range(1, 301)]
            assert meter.covers(shares, truth) == all(low <= truth[0] <= high for low, high in ends)
    table = meter.simulated_table(4)
    assert column(table, "bets")[:2] == ["constant, in a mixture", "plug-in"] and len(table.rows) == 6
    monkeypatch.setattr(meter, "_JUDGES", 20)
    collection = collection_of(real)
    drawn, sampled, _ = meter.real_tables([collection], None, 120)
    assert len(sampled.rows) == 2 and min(column(sampled, "covered")) >= 0.95 and len(drawn.rows) % 3 == 0
    assert column(meter_cost(collection), "documents") == [300]
    (row,) = meter.load_rows(collection, 1, 0.3, [0.5])
    assert row["queries"] > 0 and row["rates"]["mean"] > 0


def meter_cost(collection: Any) -> Table:
    return Table.of("", meter._COST, meter.cost_rows(collection, [300]))


def test_growth_measures_each_step_once_and_continues(
    real: MultiVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection: Any = collection_of(real)
    (tmp_path / "best").mkdir()
    whole = MultiVectors.concatenate(list(GrownDocuments(real).batches(3000)))
    exact = np.argsort(-chamfer_matrix(collection.queries, whole), axis=1, kind="stable")
    for count in (300, 3000):
        best = growth.best_documents(collection, collection.queries, count, tmp_path / "best")
    np.testing.assert_array_equal(best, exact[:, : growth.K])
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["300.json", "3000.json"]
    monkeypatch.setattr(growth, "load_collection", lambda path: path)
    monkeypatch.setattr(growth, "in_new_process", lambda work, *arguments: work(*arguments))
    settings = growth.GrowthSettings("small", encoder="mean", judged=3)
    rows = [growth.measure_size(collection, settings, count, tmp_path) for count in (400, 800)]
    again = growth.measure_size(collection, settings, 800, tmp_path)
    assert again == rows[1] == json.loads(json.dumps(rows[1]))
    assert not list(tmp_path.glob("*.index"))
    assert rows[1]["fast_recall"] > 0.9 and rows[1]["save_bytes"] > 0
    table = growth.growth_table(settings, rows, real=False)
    assert table.header == ["quantity", "400", "800"] and len(table.cells) == 24


def test_first_stage_compares_searches_of_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_stage, "COUNTS", (20,))
    monkeypatch.setattr(first_stage, "_BLOCK", 2000)
    own = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    made = [first_stage.made_vectors(own, start, start + 2000) for start in (0, 2000)]
    np.testing.assert_array_equal(np.concatenate(made)[:3000], own)
    rows = list(first_stage.measure("small", own, own[:20], [3000, 4000], 3000))
    kinds = ["exact", "scan", "hnsw, ef=20", "hnsw, ef=40", "hnsw, ef=80", "exact", "scan"]
    assert [row["search"] for row in rows] == kinds
    assert rows[0]["recall"] == rows[5]["recall"] == 1 and min(row["recall"] for row in rows) > 0.5
    (table,) = first_stage.tables_of(rows, "")
    assert table.rows[-1][0] == "4,000 generated"


def test_landmarks_count_the_candidates_of_exact_products(real: MultiVectors) -> None:
    queries = real[:5]
    scores = landmarks.exact_scores(queries, real)
    best = landmarks.best_of(scores)
    np.testing.assert_array_equal(best[:, 0], np.arange(5))
    ranks = landmarks.ranks_of(-scores, best)  # the worst order has them last
    np.testing.assert_array_equal(ranks[:, 0], COUNT - 1)
    np.testing.assert_array_equal(landmarks.ranks_of(scores, best), [list(range(landmarks.K))] * 5)
    assert landmarks.candidates_for(np.array([[0, 1, 2, 8]]), 0.75) == 3
    row = landmarks.measure(real, queries, best, landmarks.Variant("fde", 64, 40, 0))
    assert (row["landmarks"], row["directions"], row["floats"]) == (64, 0, 40)
    assert row["@20"] <= row["@50"] and row["0.90"] <= row["0.95"] <= row["0.99"] <= COUNT


def test_a_recall_between_two_points_has_a_number_of_candidates_between_theirs() -> None:
    points = [[10, 0.85, 1.0], [20, 0.94, 2.0], [40, 0.98, 4.0]]
    assert size.at_recall(points) == pytest.approx((25, 2.5))
    assert size.at_recall(points, 0.5) == (10, 1.0) and size.at_recall(points, 0.99) is None


def test_sizes_compare_systems_and_keep_what_was_measured(
    real: MultiVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection: Any = collection_of(real)
    monkeypatch.setattr(size, "load_collection", lambda path: path)
    monkeypatch.setattr(size, "_ADDED", COUNT - 256)
    (tmp_path / "size").mkdir()
    rows = []
    for count in (256, COUNT):
        for each in (size.COMPETITORS[0], *size.COMPETITORS[4:6]):  # the last needs texts
            out = tmp_path / f"{count}-{each.system}.json"
            size.measure(collection, each, count, 4, tmp_path, out)
            results = json.loads(out.read_text())
            if "skipped" not in results:
                rows.append({"system": each.label, "documents": count, **size._row(results)})
    assert [row["documents"] for row in rows] == [256, 256, COUNT, COUNT]
    assert all(row["candidates"] >= 10 and row["ms"] > 0 for row in rows)
    measured, growing, dial = size.tables_of(rows, "small", 4)
    assert len(measured.rows) == 4 and growing.header == ["system", "256", f"{COUNT}", "exponent"]
    assert [row[-1] is None for row in dial.rows] == [False, True]  # nothing is left to add


def shorten_presets(patch: pytest.MonkeyPatch) -> None:
    """Make presets that are fitted in a moment."""
    short = {"final_projection_dimension": 40}
    patch.setitem(PRESETS, "fde", {"num_landmarks": 128, **short})
    patch.setitem(PRESETS, "moments", {**PRESETS["moments"], **short})


@pytest.fixture
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_presets(monkeypatch)


def recalls(row: Sequence[Any], header: list[str]) -> list[float]:
    """Return a row's recalls by ascending numbers of candidates."""
    return [float(cell) for cell, name in zip(row, header, strict=True) if name.startswith("@")]


def numbered(name: str, documents: MultiVectors, queries: MultiVectors) -> Collection:
    ids = [str(i) for i in range(len(documents))]
    return Collection(name, documents, queries, name, ids, ids[: len(queries)])


FAMILY_NAMES = ["mean", "paper", "simhash", "simhash, short form", "moments", "fde", "learned features"]
FAMILY_LABELS = ["**fde**" if name == "fde" else name for name in FAMILY_NAMES]


@pytest.fixture(scope="module")
def family(real: MultiVectors) -> Any:
    """The table of one collection with queries and of one without."""
    learned = ("learned features", None, {"floats": 40, "num_landmarks": 256, "num_features": 128})
    asked, windows = numbered("asked", real, real[:20]), numbered("windows", real, real[:0])
    with pytest.MonkeyPatch.context() as patch:
        shorten_presets(patch)
        patch.setattr(vectors, "FAMILY", [*vectors.FAMILY[:-1], learned])
        return vectors.family_table([asked, windows], FAMILY_NAMES)


def test_the_family_has_a_row_for_each_preset(family: Any) -> None:
    assert column(family, "FDE") == FAMILY_LABELS * 2
    assert column(family, "collection")[::7] == ["asked", "windows"]
    floats = dict(zip(FAMILY_LABELS, column(family, "floats"), strict=False))
    assert [floats[name] for name in ("mean", "paper", "simhash")] == ["9", "5,120", "2,569"]
    assert [floats[name] for name in ("moments", "**fde**", "learned features")] == ["40", "40", "40"]
    assert min(float(cell) for cell in column(family, "query, us")) > 0


@pytest.mark.parametrize("collection", ["asked", "windows"])
def test_every_preset_finds_more_than_the_mean_token(family: Any, collection: str) -> None:
    found = {row[2]: recalls(row, family.header) for row in family.rows if row[0] == collection}
    assert all(0 < values[0] <= values[1] <= values[2] <= 1 for values in found.values())
    least = found["mean"][1]
    assert min(found[name][1] for name in FAMILY_LABELS[2:]) >= least
    # The gain is .045 for questions and .08 for windows, of at most .08 and .11.
    assert found["**fde**"][1] > least + 0.03


@pytest.mark.usefixtures("small_presets")
def test_fits_on_few_documents_find_less(real: MultiVectors) -> None:
    table = vectors.few_table([numbered("first", real, real[:40])], counts=(20, 200))
    assert column(table, "documents of the fit") == [f"20 of {COUNT}"] * 2 + [f"200 of {COUNT}"] * 2
    assert column(table, "FDE") == ["moments", "fde"] * 2
    found = [recalls(row, table.header)[0] for row in table.rows]
    assert found[2] > found[0] and found[3] > found[1]


@pytest.mark.usefixtures("small_presets")
def test_sizes_of_the_projection_have_a_row_each(real: MultiVectors) -> None:
    table = vectors.floats_table([numbered("first", real, real[:40])])
    sizes = ["128", "256", "512", "1,024", "2,048"]
    assert column(table, "floats") == sizes * 2 and column(table, "FDE") == ["moments"] * 5 + ["fde"] * 5
    found = [recalls(row, table.header) for row in table.rows]
    assert found[0] == found[4]  # 45 floats of moments at 8 columns are not projected
    assert min(found[0]) > 0.5 and all(values == sorted(values) for values in found)


def part(name: str, first: int) -> Collection:
    """Documents of unit tokens in eight of the axes alone."""
    rng = np.random.default_rng(first)
    rows = np.zeros((1800, 16), np.float32)
    rows[:, first : first + 8] = np.repeat(rng.standard_normal((300, 8)), 6, axis=0)
    rows[:, first : first + 8] += rng.standard_normal((1800, 8))
    documents = MultiVectors.from_flat(rows / np.linalg.norm(rows, axis=1, keepdims=True), [6] * 300)
    queries = MultiVectors.from_arrays([documents[i][:3] for i in range(0, 300, 5)])
    return collection_of(documents, queries, name=name)


@pytest.mark.usefixtures("small_presets")
def test_documents_of_another_kind_are_found_by_simhash(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = part("low", 0), part("high", 8)
    table = vectors.drift_table([(low, high)], count=300)
    assert [row[:3] for row in table.rows] == [
        ["low", "high", name] for name in ("mean", "simhash", "moments", "fde")
    ]
    own, added = (column(table, name) for name in ("own queries @20", "queries of the added kind @20"))
    found = {name: (float(a), float(b)) for name, a, b in zip(column(table, "FDE"), own, added, strict=True)}
    # What was fitted does not suit the added kind; SimHash hardly depends on the
    # documents.
    assert found["moments"][1] < found["moments"][0] - 0.1 and found["fde"][1] < found["fde"][0] - 0.1
    assert abs(found["simhash"][1] - found["simhash"][0]) < 0.1


@pytest.mark.usefixtures("small_presets")
def test_wide_tokens_and_added_documents(real: MultiVectors) -> None:
    other = MultiVectors.from_flat(np.concatenate([-real.tokens, 0.5 * real.tokens]), [9] * 2 * COUNT)
    first, second = numbered("first", real[:130], real[:20]), numbered("second", other, other[:0])
    wide = vectors.wide_table(first, [12])
    assert [row[0] for row in wide.rows] == ["8", "12"] and min(float(row[-1]) for row in wide.rows) == 1
    added = vectors.added_table([(second, first)], 60)
    assert column(added, "warning") == ["no", "no"] and int(added.rows[1][5]) >= 8


SKETCH: dict[str, Any] = {"num_repetitions": 8, "num_simhash_projections": 3}
PIPELINE = [
    pipeline.Way("moments", "moments", {}, "scan"),
    pipeline.Way("fde", "fde", {}, "hnsw"),
    pipeline.Way("paper", "paper", SKETCH, "exact"),
    pipeline.Way("paper", "paper", SKETCH, "hnsw"),
]
COUNTS = (10, 20, 40, 80)


@pytest.fixture(scope="module")
def pipelines() -> Any:
    """The table of the pipelines of one collection."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_presets(patch)
        patch.setattr(pipeline, "_CANDIDATES", COUNTS)
        patch.setattr(pipeline, "_BREADTHS", (1, 4))
        return pipeline.measure([part("own", 0)], 1, PIPELINE)


def test_pipelines_have_a_row_for_each_way_and_recall(pipelines: Any) -> None:
    assert column(pipelines, "FDE") == ["moments", "fde", "paper", "paper"] * 3
    assert column(pipelines, "search") == ["scan", "hnsw", "exact", "hnsw"] * 3
    assert column(pipelines, "10-recall@10") == [target for target in (0.9, 0.95, 0.99) for _ in PIPELINE]
    assert column(pipelines, "floats") == [40, 40, 1024, 1024] * 3
    assert "median of 1 interleaved" in pipelines.caption
    assert pipelines.rows[0][pipelines.header.index("relative to the first")] == 1


def test_pipelines_have_times_and_breadths_if_they_reach_the_recall(pipelines: Any) -> None:
    for row in pipelines.rows:
        facts = dict(zip(pipelines.header, row, strict=True))
        reached = facts["candidates"] is not None
        searched = reached and facts["search"] == "hnsw"
        assert reached == (facts["time, ms"] is not None) and (facts["ef"] is not None) == searched
        assert not searched or facts["ef"] in (facts["candidates"], 4 * facts["candidates"])
    assert sum(value is not None for value in column(pipelines, "candidates")) >= 6


@pytest.mark.usefixtures("small_presets")
def test_pipelines_take_the_fewest_candidates_that_reach_the_recall(pipelines: Any) -> None:
    """The counts are judged by NumPy."""
    own = part("own", 0)
    encoder = FDEEncoder.preset("paper", 16, **SKETCH).fit(own.documents)
    products = encoder.encode_queries(own.queries) @ encoder.encode_documents(own.documents).T
    exact = np.argsort(-chamfer_matrix(own.queries, own.documents), axis=1)[:, :10]
    ranks = np.take_along_axis(np.argsort(np.argsort(-products, axis=1), axis=1), exact, axis=1)
    for row in pipelines.rows:
        facts = dict(zip(pipelines.header, row, strict=True))
        if facts["search"] == "exact":
            enough = [count for count in COUNTS if (ranks < count).mean() >= facts["10-recall@10"]]
            assert facts["candidates"] == (enough[0] if enough else None)


def test_learned_vectors_improve_over_the_mean_token(real: MultiVectors) -> None:
    sizes = {"floats": 40, "num_landmarks": 256, "num_features": 128}
    queries = MultiVectors.from_arrays([text[:3] for text in real[:40]])
    exact = np.argsort(-chamfer_matrix(queries, real), axis=1)[:, :10]

    def found(encoder: Any) -> float:
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(real).T
        best = np.argsort(-scores, axis=1)[:, :20]
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, best, strict=True)]))

    one, two = (LearnedVectors(8, **sizes).fit(real, threads=threads) for threads in (1, 2))
    for side in (one.encode_documents, one.encode_queries):
        np.testing.assert_array_equal(side(real, 1), getattr(two, side.__name__)(real, 2))
    mean = FDEEncoder.preset("mean", 8).fit(real)
    assert found(one) > max(found(mean) + 0.05, 0.8)
    untrained = LearnedVectors(8, **sizes, training_epochs=0).fit(real)
    assert found(untrained) > found(mean) and not np.array_equal(untrained._features, one._features)
    few = LearnedVectors(8, **sizes).fit(real[:30])  # extended by mixed documents
    assert np.isfinite(few.encode_documents(real)).all() and found(few) > 0.5
    empty = MultiVectors.from_arrays([np.empty((0, 8), np.float32), real[0]])
    vectors_of_queries = one.encode_queries(empty)
    assert not vectors_of_queries[0].any() and vectors_of_queries[1].any()


def test_ratios_of_speed_are_taken_round_by_round() -> None:
    line = speed.Line("encode / theirs", "documents_batch", "theirs", "documents_single")
    own, other = line.jobs
    seconds = {own: np.array([[1.0, 2.0, 4.0], [1, 1, 1]]), other: np.array([[4.0, 4.0, 4.0], [3, 3, 3]])}
    found = speed.compare(line, seconds, 100)
    assert found[1:] == [50.0, 25.0, "documents/s", "2.00x", "1.00 - 4.00", "3.00x"]
    score = line._replace(own="chamfer")
    found = speed.compare(score, {score.jobs[0]: seconds[own], other: seconds[other]}, 100)
    assert found[1:4] == [2000, 4000, "ms"]


def test_speed_runs_its_worker_and_names_existing_operations(tmp_path: Path) -> None:
    speed.write_inputs(tmp_path, 3, 4)
    lines = [
        speed.Line("batch / single", "documents_batch", MUVERA.name, "documents_single"),
        speed.Line("float16 / int8", "candidates_float16", MUVERA.name, "candidates_int8"),
    ]
    table, checked = speed.run(lines, tmp_path, 3, 2, tmp_path / "unused")
    assert [row[0] for row in table.rows] == ["batch / single", "float16 / int8"]
    (_, _, _, halves), (_, _, _, codes) = checked.rows
    assert 0 < halves < 1e-2 and 0 < codes < 0.05
    for line in speed.LINES:
        for name, operation in line.jobs:
            worker = (MUVERA if name == MUVERA.name else PEERS[name]).worker
            module = importlib.import_module(f"experiments.peers.workers.{worker}")
            assert operation in operations_of(module), operation


def test_speed_refuses_scores_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed.write_inputs(tmp_path, 3, 4)
    monkeypatch.setitem(speed._TOLERANCES, MUVERA.name, 1e-9)
    line = speed.Line("float32 / int8", "candidates_float32", MUVERA.name, "candidates_int8")
    with pytest.raises(ValueError, match=r"candidates_int8 differs by .* but at most 1e-09 is allowed"):
        speed.run([line], tmp_path, 3, 1, tmp_path / "unused")


def texts_of(folder: Path, texts: dict[str, str], questions: dict[str, str]) -> Path:
    """Write a collection of texts; a question's id is the id of its text."""
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", texts), ("queries", questions)):
        lines = [json.dumps({"_id": id, "text": text}) for id, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    judged = "".join(f"{id}\t{id}\t1\n" for id in questions)
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


def test_windows_find_the_end_of_a_long_text_and_its_beginning_alone_does_not(tmp_path: Path) -> None:
    fillers = {f"short-{i}": f"other{i} thing{i}" for i in range(12)}
    texts = {"long-a": f"{'word other ' * 20} zebra noon", **fillers}
    folder = texts_of(tmp_path / "c", texts, {"long-a": "zebra noon", "short-3": "other3 thing3"})
    rows = {(row["way"], row["ranked by"]): row for row in long_texts.measure(folder, ShortModel())}
    assert len(rows) == 10
    assert rows["beginning alone", "similarity"]["long"] < 1
    for way in ("vectors of all windows", "best window", "best part (TextIndex)"):
        assert rows[way, "similarity"]["long"] == rows[way, "similarity and words"]["short"] == 1


def test_the_share_of_shaded_function_words(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="the experiments extra is not installed")
    folder = texts_of(tmp_path / "c", {"a": "the red apple", "b": "of the"}, {"a": "red", "b": "the"})
    row = explanations.measure(folder, HashEncoder(64), "test", 10, 10)
    assert (row["documents"], row["queries"], row["best"]) == (2, 2, 0.5)


def test_onnx_files_equal_their_encoders() -> None:
    row = onnx_files.measure("simhash", "documents", 3, 1)
    assert row["error"] < 1e-4 and row["bytes"] > 100_000 and row["ratio"] > 0


def test_questions_about_long_texts_are_removed_from_their_middle_and_end(tmp_path: Path) -> None:
    sentences = [
        f"The small model number {'abcdefghij'[i % 10] * (i // 10 + 1)} reads a page." for i in range(100)
    ]
    text = " ".join(sentences)
    (first, stop), (second, _) = long_texts_data._questions(text)
    assert text[first:stop] in sentences and len(text[:first].split()) >= 256 and second > len(text) / 2


def test_pooling_of_made_pages_has_a_row_for_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(1030, 8)).astype(np.float32)
    np.save(tmp_path / "page.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    made = MadePages(tmp_path / "page.npy")
    ways = {
        name: pages.WAYS[name]
        for name in ("none", "neighbors, rows=1, columns=3", "neighbors, rows=2, columns=2")
    }
    monkeypatch.setattr(pages, "WAYS", ways)
    found = pages.measure_pooling(made, 24, 3)
    assert [(row["way"], row["vectors"]) for row in found] == [
        ("none", 1030), ("neighbors, rows=1, columns=3", 32 * 11 + 6), ("neighbors, rows=2, columns=2", 256 + 6),
    ]  # fmt: skip
    assert found[0]["@10"] == 1 and all(row["@10"] <= row["@20"] <= 1 for row in found)


def test_means_of_made_pages_are_those_of_their_patches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(1024) // 256
    near = rng.normal(size=(4, 8))[groups] + 0.05 * rng.normal(size=(1024, 8))
    rows = np.concatenate([near, rng.normal(size=(6, 8))]).astype(np.float32)
    np.save(tmp_path / "page.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    made = MadePages(tmp_path / "page.npy")
    [means] = made.pooled([3], groups)
    vectors = made.vectors(3)
    expected = vectors[:1024].reshape(4, 256, -1).mean(axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert means.shape == (10, 8)
    assert ((means[:4] * expected).sum(axis=1) > 0.98).all()


def test_the_bench_of_the_server_measures_each_kind_of_answer() -> None:
    """The first round, which compiles, does not count."""
    pytest.importorskip("uvicorn", reason="the serve extra is not installed")
    pytest.importorskip("wordllama", reason="the static extra is not installed")
    times = server.measure(["sort a list", "copy a list"], ["Sort the list.", "Copy it."], 2)
    assert {kind: len(seconds) for kind, seconds in times.items()} == {"health": 2, "same": 2, "other": 2}
