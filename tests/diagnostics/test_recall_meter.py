"""RecallMeter: the counted recall, its sample and intervals, calibrations, faults."""

import itertools
import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.engine_collections import missing
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.text_encoders import HashEncoder
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, PageIndex, RecallMeter, TextIndex, load_text_encoder
from muvera.diagnostics import metered, recall_meter
from muvera.diagnostics.metered import Contents
from muvera.diagnostics.recall_report import read_report, state_file
from muvera.engines import EngineError, EngineIndex
from muvera.index import measuring
from muvera.utils.intervals import share_interval

DOCUMENTS = documents_like_real(400)
QUERIES = queries_like_real(DOCUMENTS, 300)
SOME = QUERIES[:40]
K = 10


@pytest.fixture(scope="module")
def built() -> MuveraIndex:
    return MuveraIndex.build(DOCUMENTS, "simhash", exact_tokens=0)


@pytest.fixture
def index(built: MuveraIndex) -> MuveraIndex:
    return MuveraIndex.of(built.contents)


def shares(found: Sequence[Any], best: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([len(set(a) & set(b)) / len(b) for a, b in zip(found, best, strict=True)])


def ids(answers: Any) -> list[list[Any]]:
    return [answer.ids.tolist() for answer in answers]


def exact(index: Any, queries: Any = SOME, k: int = K, **options: Any) -> list[list[Any]]:
    return ids(index.search(queries, k, candidates=len(index), **options))


def measured(meter: RecallMeter, queries: Any = SOME, k: int = K, **options: Any) -> Any:
    """Search in batches of seven, and return the answers."""
    answers = []
    for start in range(0, len(queries), 7):
        answers += meter.search(queries[start : start + 7], k, **options)
        assert meter.wait(60)
    return answers


# -- what is counted ------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"ids": range(0, 400, 3)}])
def test_the_report_has_the_recall_of_all_answers(
    index: MuveraIndex, options: dict[str, Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr("muvera.index.measuring._BLOCK_TOKENS", 1000)  # several blocks
    with RecallMeter(index, 1) as meter:
        found = measured(meter, candidates=12, **options)
    expected = shares(ids(found), exact(index, ids=options.get("ids")))
    report = meter.report()
    assert report.mean == pytest.approx(expected.mean()) and 0.3 < expected.mean() < 0.99
    assert (report.low, report.high) == pytest.approx(share_interval(expected))
    assert (report.queries, report.dropped, report.documents, report.k) == (len(SOME), 0, 400, K)
    assert report.seconds > 0 and report.problem is None


def test_a_document_in_parts_counts_by_its_best_part() -> None:
    parts = MultiVectors(DOCUMENTS.tokens, DOCUMENTS.offsets, np.arange(400) // 8)
    index = MuveraIndex.build(parts, "simhash", exact_tokens=0)
    with RecallMeter(index, 1) as meter:
        found = measured(meter, candidates=30)
    expected = shares(ids(found), exact(index))
    assert meter.report().mean == pytest.approx(expected.mean()) and expected.mean() < 1


def test_a_search_for_fewer_counts_these_and_a_filter_counts_what_it_leaves(index: MuveraIndex) -> None:
    with RecallMeter(index, 1) as meter:
        three = measured(meter, k=3, candidates=5)
        four = measured(meter, SOME[:2], ids=iter([1, 2, 3, 4]), candidates=10)
    expected = shares(ids(three), exact(index, k=3)).sum() + len(four)
    assert meter.report().mean == pytest.approx(expected / (len(SOME) + 2))


WORDS = [f"w{i}" for i in range(3000)]


def some_texts(count: int, length: int, seed: int) -> list[str]:
    stream = np.random.default_rng(seed)
    return [" ".join(stream.choice(WORDS, length)) for _ in range(count)]


def test_texts_are_measured_by_similarity_without_shared_words() -> None:
    encoder = HashEncoder()
    index = TextIndex.build(some_texts(400, 12, 0), encoder, exact_tokens=0, vectors="simhash")
    questions = some_texts(20, 4, 1)
    even = {"$in": list(range(0, 400, 2))}
    with RecallMeter(index, 1) as meter:
        plain = measured(meter, questions, candidates=12)
        meter.search("", 5)  # a blank query has no best texts
        measured(meter, questions, candidates=12, ids=even["$in"])
    assert plain == index.search(questions, K, candidates=12)
    vectors, encoded = index.texts.vectors, encoder.encode_queries(questions)
    expected = np.concatenate([
        shares(ids(vectors.search(encoded, K, candidates=12, ids=among)), exact(vectors, encoded, ids=among))
        for among in (None, even["$in"])
    ])  # fmt: skip
    # Scores that differ by less than 1e-5 count as equal.
    assert meter.report().mean == pytest.approx(expected.mean(), abs=0.006)
    assert meter.report().queries == 40
    assert 0.3 < expected.mean() < 0.99


def test_pages_are_measured_by_their_vectors(monkeypatch: Any) -> None:
    monkeypatch.setattr("muvera.pages.page_index._EXACT_TOKENS", 0)
    stream = np.random.default_rng(0)
    vectors = [stream.normal(size=(20, 16)).astype(np.float32) for _ in range(120)]
    pages = [page / np.linalg.norm(page, axis=1, keepdims=True) for page in vectors]
    index = PageIndex.from_arrays(pages)
    queries = [page[:3] + 0.3 * stream.normal(size=(3, 16)).astype(np.float32) for page in pages[:20]]
    with RecallMeter(index, 1) as meter:
        found = measured(meter, queries, candidates=12)
        measured(meter, queries[:1] * 2, candidates=12)  # again
    best = index.search(queries, K, candidates=120)
    # Means of patches choose which pages are scored by all patches, so a page that is
    # as good as the tenth best can be missing among them.
    expected = np.array([
        np.mean([hit.score >= exact[-1].score for hit in hits]) for hits, exact in zip(found, best, strict=True)
    ])  # fmt: skip
    assert meter.report().mean == pytest.approx(expected.mean()) and expected.mean() < 1
    assert meter.report().queries == 20 and not meter.report().promises


@pytest.mark.parametrize("local", [False, True])
def test_a_database_is_measured_by_the_tokens_in_it_or_in_a_local_index(
    local: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    if (reason := missing("lancedb")) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(metered, "_DOCUMENTS", 90)
    beside = MuveraIndex.build(DOCUMENTS, "simhash", exact_tokens=0)
    with EngineIndex(
        f"lancedb:{tmp_path}#docs", beside.encoder, tokens=beside if local else "engine"
    ) as index:
        index.add(DOCUMENTS)
        with RecallMeter(index, 1) as meter:
            found = measured(meter, SOME[:20], candidates=12)
        expected = shares(ids(found), exact(beside, SOME[:20]))
        # Tokens in the database have half precision.
        assert meter.report().mean == pytest.approx(expected.mean(), abs=0.011)
        assert meter.report().queries == 20 and meter.report().problem is None
        without = EngineIndex(index.engine, tokens=None)
        with pytest.raises(EngineError, match=r"stores no tokens, so its recall cannot be measured\. Give"):
            RecallMeter(without)


@pytest.mark.parametrize("kind", ["lists", "dicts", "rankings"])
def test_any_function_is_measured_beside_an_exact_index(index: MuveraIndex, kind: str) -> None:
    def search(queries: MultiVectors, k: int, *, limit: int) -> list[Any]:
        answers: list[Any] = index.search(queries, k, candidates=limit)
        if kind == "lists":
            return [[*answer.ids.tolist(), -1] for answer in answers]
        return [dict(answer) for answer in answers] if kind == "dicts" else answers

    with RecallMeter(index, 1, search=search) as meter:
        measured(meter, limit=12)
        expected = shares(ids(index.search(SOME, K, candidates=12)), exact(index))
        assert meter.report().mean == pytest.approx(expected.mean()) and not meter.report().promises
        with pytest.raises(ValueError, match=r"a function, which has no recall= to calibrate\. Change"):
            meter.calibrate()
    with pytest.raises(ValueError, match=r"returned 1 answers for 2 queries\. Return one for each"):
        RecallMeter(index, 1, search=lambda queries, k: [[1]]).search(SOME[:2])


# -- the sample -----------------------------------------------------------------------


def test_the_sample_depends_on_the_query_and_the_seed_alone(index: MuveraIndex) -> None:
    def sampled(seed: int, batch: int, queries: MultiVectors) -> tuple[int, Any]:
        with RecallMeter(index, 0.3, seed=seed) as meter:
            for start in range(0, len(queries), batch):
                meter.search(queries[start : start + batch], candidates=12)
                meter.wait()
            return meter.report().queries, meter.report().mean

    many = sampled(3, 60, QUERIES)
    assert sampled(3, 17, QUERIES) == many == sampled(3, 50, MultiVectors.concatenate([QUERIES, QUERIES]))
    assert sampled(4, 60, QUERIES) != many
    # Three standard deviations of a binomial distribution.
    assert abs(many[0] - 90) < 3 * np.sqrt(300 * 0.3 * 0.7)


def test_a_share_of_zero_measures_nothing_and_parts_are_not_measured(index: MuveraIndex) -> None:
    with RecallMeter(index, 0) as none, RecallMeter(index, 1) as parts:
        none.search(SOME)
        parts.search(SOME, group="part")
        assert none._thread is None and parts._thread is None
    assert (none.report().queries, none.report().mean) == (0, None)
    assert none.report().text == "No sampled search has been measured yet."


def test_a_search_never_waits_for_the_meter(index: MuveraIndex, monkeypatch: Any) -> None:
    go = threading.Event()
    measure = measuring.exact_scores

    def slow(*arguments: Any) -> Any:
        assert go.wait(60)
        return measure(*arguments)

    monkeypatch.setattr(metered, "exact_scores", slow)
    with RecallMeter(index, 1) as meter:
        for query in range(100):
            meter.search(QUERIES[query : query + 1])
        assert meter.report().dropped >= 100 - recall_meter._WAITING - 1
        assert not meter.wait(0.01)
        go.set()
        assert meter.wait(60)
        report = meter.report()
        assert report.queries + report.dropped == 100 and "were dropped" in report.text
    assert meter.search(SOME[:1])[0].ids.tolist() == ids(index.search(SOME[:1]))[0]  # after close


def test_closing_ends_an_exact_search_at_its_next_block(index: MuveraIndex, monkeypatch: Any) -> None:
    blocks = itertools.count()

    def endless(*arguments: Any) -> Any:
        for _ in blocks:
            time.sleep(0.001)
            arguments[-1]()

    monkeypatch.setattr(metered, "exact_scores", endless)
    meter = RecallMeter(index, 1)
    meter.search(SOME)
    while next(blocks) < 3:
        time.sleep(0.001)
    meter.close()
    assert not any(thread.name == "muvera-recall" and thread.is_alive() for thread in threading.enumerate())


def test_a_fault_of_the_measurement_is_a_problem_of_the_report_alone(
    index: MuveraIndex, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(
        metered, "exact_scores", lambda *_: (_ for _ in ()).throw(OSError("The disk is gone."))
    )
    with RecallMeter(index, 1) as meter:
        assert ids(meter.search(SOME)) == ids(index.search(SOME))
        meter.wait()
        report = meter.report()
        assert (report.problem, report.dropped, report.queries) == ("The disk is gone.", len(SOME), 0)
    assert [record.getMessage() for record in caplog.records] == [
        "muvera: the recall meter: The disk is gone."
    ]


# -- intervals ------------------------------------------------------------------------


def test_an_interval_begins_with_a_sixteenth_a_rebuild_and_a_calibration(index: MuveraIndex) -> None:
    more = documents_like_real(60, seed=9)
    stages: list[int] = []
    with RecallMeter(index, 1) as meter:
        changes: list[Callable[[], object]] = [
            lambda: None,
            lambda: index.add(more[:20], ids=range(1000, 1020)),  # a twentieth
            lambda: index.delete(range(1000, 1020)),  # the documents are as before
            lambda: index.update(DOCUMENTS[:30], ids=range(30)),  # 50 are new since, 1 / 8
            lambda: index.rebuild(),
            lambda: index.calibrate(QUERIES[:100]),
        ]
        for change in changes:
            change()
            measured(meter, QUERIES[2 * len(stages) :][:2])
            stages.append(len(meter.report().earlier))
        report = meter.report()
    assert stages == [0, 0, 0, 1, 2, 3]
    assert [one.queries for one in report.earlier] == [2, 2, 6] and report.queries == 2
    assert "Before 2" in report.text and report.to_dict()["earlier"][0]["queries"] == 2


def test_contents_without_known_rows_are_compared_by_their_number() -> None:
    start = Contents(160, "a")
    assert not Contents(170, "a").is_new_beside(start)
    assert Contents(171, "a").is_new_beside(start) and Contents(160, "b").is_new_beside(start)
    assert Contents(160, "a", 160).is_new_beside(start)


def test_a_search_of_replaced_contents_is_dropped(index: MuveraIndex, monkeypatch: Any) -> None:
    go = threading.Event()
    measure = measuring.exact_scores
    monkeypatch.setattr(metered, "exact_scores", lambda *rest: go.wait(60) and measure(*rest))
    with RecallMeter(index, 1) as meter:
        meter.search(SOME)
        index.delete([3])
        go.set()
        assert meter.wait(60)
        assert (meter.report().queries, meter.report().dropped) == (0, len(SOME))


def test_promises_have_intervals_of_their_own(index: MuveraIndex) -> None:
    index.calibrate(QUERIES[:100])
    with RecallMeter(index, 1, confidence=0.9) as meter:
        measured(meter, recall=0.8)
        measured(meter)  # .95 by default
        measured(meter, candidates=20)
    report = meter.report()
    assert report.queries == 3 * len(SOME) and report.confidence == 0.9
    assert {promise: found.queries for promise, found in report.promises.items()} == {0.8: 40, 0.95: 40}
    assert "recall=0.8: " in report.text


# -- calibration ----------------------------------------------------------------------


def test_a_broken_promise_calibrates_with_sampled_queries(index: MuveraIndex, monkeypatch: Any) -> None:
    monkeypatch.setattr(recall_meter, "_ENOUGH", 99)
    index.calibrate([np.asarray(document)[:6] for document in DOCUMENTS[:80]])  # easy to find
    stream = np.random.default_rng(0)
    hard = [stream.normal(size=(20, DOCUMENTS.dimension)) for _ in range(400)]
    with RecallMeter(index, 1) as meter:
        measured(meter, hard[:300], recall=0.9)
        report = meter.report()
        assert report.calibration is not None and len(report.earlier) == 1
        assert report.earlier[0].promises[0.9].high < 0.9
        before, after = report.calibration.recall[0.9]
        assert before.mean is not None and after.mean is not None
        assert before.mean < min(0.9, after.mean) and before.queries == after.queries >= 33
        assert report.calibration.queries + after.queries == report.earlier[0].queries
        best = exact(index, hard[300:])
        assert shares(ids(index.search(hard[300:], K, recall=0.9)), best).mean() > before.mean
        assert (
            f"After a calibration by {report.calibration.queries} queries, recall=0.9 finds " in report.text
        )


def test_calibrate_needs_enough_queries_and_something_to_miss(index: MuveraIndex) -> None:
    with RecallMeter(index, 1) as meter:
        measured(meter)
        with pytest.raises(ValueError, match=r"needs 96 sampled queries, and 40 are kept\. Measure a larger"):
            meter.calibrate()
        measured(meter, QUERIES[40:140])
        found = meter.calibrate()
        assert (found.queries, list(found.recall), found.recall[0.95][1].queries) == (94, [0.95], 46)
        assert meter.report().calibration == found and meter.report().queries == 0
    small = MuveraIndex.build(DOCUMENTS[:20])
    with pytest.raises(ValueError, match=r"There is nothing to calibrate\. A search reads all tokens"):
        RecallMeter(small).calibrate()


# -- the state file -------------------------------------------------------------------


def test_the_state_survives_a_restart_and_counts_a_query_once(index: MuveraIndex, folder: Path) -> None:
    file = state_file(folder)
    assert file == folder.with_name("index.recall.json")
    reports = []
    for part in (SOME[:20], SOME[10:30]):
        with RecallMeter(index, 1, state=file) as meter:
            measured(meter, part, candidates=12)
        reports.append(meter.report())
    expected = shares(ids(index.search(SOME[:30], K, candidates=12)), exact(index, SOME[:30]))
    assert reports[1].queries == 30 and reports[1].mean == pytest.approx(expected.mean())
    assert read_report(file) == reports[1] and reports[0].since == reports[1].since
    index.calibrate(QUERIES[:100])
    with RecallMeter(index, 1, state=file) as meter:
        measured(meter, SOME[:2])
    assert [one.queries for one in meter.report().earlier] == [30]
    assert "tokens" not in file.read_text() and read_report(folder / "none") is None


def test_two_meters_on_one_file_add_their_counts(index: MuveraIndex, tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    with (
        RecallMeter(index, 1, state=file) as one,
        RecallMeter(MuveraIndex.of(index.contents), 1, state=file) as two,
    ):
        for meter, part in ((one, SOME[:20]), (two, SOME[20:])):
            measured(meter, part, candidates=12)
        one._save()
    report = read_report(file)
    assert report is not None and report == two.report() and report.queries == len(SOME)
    assert one.report().queries == 20  # until its next save


def endlessly(file: Path) -> None:
    index = MuveraIndex.build(DOCUMENTS[:200], "simhash", exact_tokens=0)
    recall_meter._SAVE_SECONDS = 0
    meter = RecallMeter(index, 1, state=file)
    for i in itertools.count():
        meter.search(np.asarray(QUERIES[i % 300]) + i, k=1 + i % 10)
        meter.wait()


def test_a_kill_leaves_a_whole_state(tmp_path: Path) -> None:
    file, counts = tmp_path / "state.json", [0]
    for _ in range(3):
        process = multiprocessing.get_context("fork").Process(target=endlessly, args=(file,))
        process.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            report = read_report(file)
            if report is not None and report.queries > counts[-1] + 3:
                break
            time.sleep(0.005)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        report = read_report(file)
        assert report is not None
        counts.append(report.queries)
    assert counts == sorted(set(counts))


def test_searches_go_on_with_a_full_disk_and_the_counts_are_saved_later(
    index: MuveraIndex, tmp_path: Path, caplog: Any
) -> None:
    file = tmp_path / "state.json"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with RecallMeter(index, 1, state=file) as meter:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
            measured(meter, candidates=12)
            meter._save()
            problem = meter.report().problem
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)
        assert problem is not None and not file.exists() and problem in meter.report().text
        assert problem.startswith(f"{file} could not be written: File too large. Is the disk full?")
    report = read_report(file)
    assert report is not None and report.queries == len(SOME) and meter.report().problem is None
    assert problem in caplog.text


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version": 2}', '{"version": 1, "periods": [{}], "confidence": 1}']
)
def test_a_damaged_state_is_named(index: MuveraIndex, tmp_path: Path, content: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"{file} is (damaged, or not JSON|not the state of a RecallMeter)"):
        RecallMeter(index, state=file)


def test_a_clock_that_steps_back_changes_only_the_dates(
    index: MuveraIndex, tmp_path: Path, monkeypatch: Any
) -> None:
    file = tmp_path / "state.json"
    with RecallMeter(index, 1, state=file) as meter:
        measured(meter, SOME[:5])
    stored = json.loads(file.read_text())
    stored["periods"][0]["since"] = "2999-01-01T00:00:00+00:00"
    file.write_text(json.dumps(stored))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with RecallMeter(index, 1, state=file) as meter:
        measured(meter, SOME[5:10])
        assert meter.report().queries == 10 and meter.report().since.startswith("2999")


def test_a_forked_process_measures_by_itself(index: MuveraIndex, tmp_path: Path) -> None:
    with RecallMeter(index, 1, state=tmp_path / "state.json") as meter:
        measured(meter, SOME[:5])
        process = multiprocessing.get_context("fork").Process(target=_search_and_close, args=(meter,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    report = read_report(tmp_path / "state.json")
    assert report is not None and report.queries == 10


def _search_and_close(meter: RecallMeter) -> None:
    measured(meter, SOME[5:10])
    meter.close()


# -- what cannot be measured ----------------------------------------------------------


def test_an_index_that_misses_nothing_says_so_in_one_sentence(monkeypatch: Any) -> None:
    index = TextIndex.build(["a red apple", "a green pear"], load_text_encoder("static"))
    with RecallMeter(index, 1, k=1) as meter:
        meter.search("apple")
        assert meter._thread is None
    report = meter.report()
    assert report.text == (
        "All texts are ranked by their tokens, which are rows of a table, so a search misses no text and there "
        "is no recall to measure."
    )
    assert (report.mean, report.queries) == (None, 0)
    small = RecallMeter(MuveraIndex.build(DOCUMENTS[:20]), 1)
    assert small.report().note == (
        "A search reads all tokens of the 20 documents, so it misses no document and there is no recall to measure."
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"share": 1.5}, r"share must be between 0 and 1, got 1\.5"),
        ({"share": "all"}, r"share must be a number, got str 'all'"),
        ({"k": 401}, r"k=401 exceeds the 400 documents in the index\. Use k <= 400\."),
        ({"k": 0}, r"k must be at least 1, got 0"),
        ({"confidence": 1}, r"confidence must be above 0 and below 1, got 1\."),
        ({"seed": -1}, r"seed must be at least 0, got -1"),
        ({"search": 3}, r"search must be a function beside a MuveraIndex of the same documents, got int 3"),
    ],
)
def test_bad_input_is_explained(index: MuveraIndex, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        RecallMeter(index, **wrong)


def test_another_object_is_not_measured() -> None:
    with pytest.raises(TypeError, match=r"can be measured, got list \[\]\. Give search= for another search"):
        RecallMeter([])  # type: ignore[arg-type]
