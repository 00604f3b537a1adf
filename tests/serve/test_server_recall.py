"""The server measures the recall of searches, and shows it in three places."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import muvera
from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, PageIndex, RecallMeter, TextIndex

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("httpx2", reason="the test client needs httpx2")

from fastapi.testclient import TestClient

from muvera.serve.app import make_app

COUNT = 300
STREAM = np.random.default_rng(0)
WORDS = [f"w{i}" for i in range(1000)]
TEXTS = [" ".join(STREAM.choice(WORDS, 12)) for _ in range(COUNT)]
QUESTIONS = [" ".join(STREAM.choice(WORDS, 4)) for _ in range(12)]
VECTORS = STREAM.normal(size=(COUNT, 5, 16)).astype(np.float32)
ASKED = STREAM.normal(size=(12, 3, 16)).astype(np.float32).tolist()


def texts(**options: Any) -> TextIndex:
    return TextIndex.build(TEXTS, HashEncoder(), exact_tokens=0, vectors="simhash", **options)


def recalls(client: TestClient) -> dict[str, float]:
    """The samples of the recall in /metrics, by the end of their names."""
    lines = client.get("/metrics").raise_for_status().text.splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("muvera_recall")]
    return {name.removeprefix("muvera_recall"): float(value) for name, value in pairs}


@pytest.mark.parametrize("kind", ["texts", "vectors", "pages"])
def test_metrics_and_info_have_the_measured_recall(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.pages.page_index._EXACT_TOKENS", 0)
    builders: dict[str, Any] = {
        "texts": texts,
        "vectors": lambda: MuveraIndex.build(VECTORS, "simhash", exact_tokens=0),
        "pages": lambda: PageIndex.from_arrays(list(VECTORS)),
    }
    index = builders[kind]()
    bodies: list[dict[str, Any]] = [{"vectors": [query], "candidates": 12} for query in ASKED]
    if kind == "texts":
        bodies = [{"query": text, "candidates": 12} for text in QUESTIONS]
        bodies.append({"vectors": [ASKED[0]], "candidates": 12})  # not measured: another kind of query
        bodies.append({"query": "w1", "unit": "sentence"})  # nor are sentences
    with RecallMeter(index, 1) as meter, TestClient(make_app(index, meter=meter)) as client:
        before = recalls(client)
        assert math.isnan(before.pop("")) and before == {"_low": 0, "_high": 1, "_queries": 0, "_dropped": 0}
        for body in bodies:
            assert client.post("/search", json=body).raise_for_status().json()["results"][0]
        assert meter.wait(60)
        report, metrics = meter.report(), recalls(client)
        told = client.get("/info").raise_for_status().json()["measured_recall"]
    assert report.queries == len(QUESTIONS) and 0.2 < metrics[""] < 1
    expected = [report.mean, report.low, report.high, report.queries, report.dropped]
    assert list(metrics.values()) == pytest.approx(expected)
    assert told["sentence"] == report.sentence and "problem" not in told
    assert report.sentence.startswith("Of the last 12 sampled searches, ")


def test_without_a_meter_nothing_is_told() -> None:
    with TestClient(make_app(texts())) as client:
        assert not recalls(client) and "measured_recall" not in client.get("/info").json()


def test_serve_measures_and_info_prints_what_the_file_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(path=tmp_path / "index")
    monkeypatch.setattr("muvera.texts.encoders.registry.load_text_encoder", lambda _: HashEncoder())
    asked = iter([QUESTIONS[:7], QUESTIONS[7:]])

    def run(index: TextIndex, *_: Any, meter: RecallMeter, **__: Any) -> None:
        with TestClient(make_app(index, meter=meter)) as client:
            client.post("/search", json={"queries": next(asked), "candidates": 12})
            assert meter.wait(60)

    monkeypatch.setattr("muvera.serve.serve", run)
    command = ["serve", tmp_path / "index", "--encoder", "hash", "--measure", "1"]
    for count in (7, 12):
        assert muvera(*command) == (0, "", "")
        out = " ".join(muvera("info", tmp_path / "index")[1].split())
        assert f"measured recall Of the last {count} sampled searches, " in out
    assert (tmp_path / "index.recall.json").is_file()
    assert "--measure" in muvera(*command[:-1], "1.5")[2]


def test_serve_says_that_there_is_nothing_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TextIndex.build(TEXTS[:5], HashEncoder(), path=tmp_path / "index")
    monkeypatch.setattr("muvera.texts.encoders.registry.load_text_encoder", lambda _: HashEncoder())
    monkeypatch.setattr("muvera.serve.serve", lambda *_, meter, **__: meter.search("w1"))
    code, _, err = muvera("serve", tmp_path / "index", "--encoder", "hash", "--measure", "0.5")
    assert code == 0 and "so it misses no document and there is no recall to measure." in " ".join(
        err.split()
    )
    assert not (tmp_path / "index.recall.json").exists()
    assert "measured recall" not in muvera("info", tmp_path / "index")[1]
