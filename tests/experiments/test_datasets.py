"""Collections: files that belong together, missing parts and samples.

Also the encoding of texts and the demo's sample.
"""

import gzip
import json
import shutil
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from builders.paths import SHARED
from builders.small_runs import command, exact_scores
from builders.text_encoders import HashEncoder
from builders.token_collections import random_texts

from experiments.datasets import apidocs, encode, passages
from experiments.datasets.discovery import find_collections
from experiments.datasets.encode import embed, read_texts
from experiments.datasets.loading import load_collection
from experiments.datasets.synthetic import synthetic_collection
from experiments.demo.make_demo_sample import SAMPLE, best_ranks, collect_documents, write_sample
from experiments.evaluation.metrics import ExactAnswers
from muvera import MultiVectors
from muvera.texts.encoders.minilm import unit_vectors


def write_embeddings(folder: Path, ids: list[str], query_ids: list[str]) -> Path:
    """One-hot tokens; the second document has none."""
    folder.mkdir(parents=True)
    for side, names in (("docs", ids), ("queries", query_ids)):
        lengths = np.arange(2, 2 + len(names))
        if side == "docs":
            lengths[1] = 0
        tokens = np.eye(8, dtype=np.float16)[np.arange(lengths.sum()) % 8]
        np.save(folder / f"{side}_tokens.npy", tokens)
        np.save(folder / f"{side}_lens.npy", lengths.astype(np.int32))
        np.save(folder / f"{side}_pooled.npy", np.arange(len(names), dtype=np.float32)[:, np.newaxis])
        (folder / f"{side}_ids.json").write_text(json.dumps(names))
    return folder


def write_texts(folder: Path, ids: list[str], query_ids: list[str], qrels: list[str]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    corpus = [json.dumps({"_id": name, "title": "T", "text": f"text of {name}"}) for name in ids]
    queries = [json.dumps({"_id": name, "text": f"query {name}"}) for name in query_ids]
    judgements = ["query-id\tcorpus-id\tscore", *qrels]
    for file, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", judgements)):
        (folder / file).write_text("\n".join(lines))
    return folder


def test_texts_judgements_and_pooled_vectors_are_those_of_the_texts_with_tokens(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "embeddings" / "news-model", ["a", "b", "c"], ["q"])
    write_texts(tmp_path / "beir" / "news", ["c", "b", "a"], ["q"], ["q\tc\t2", "q\tb\t1", "q\tx\t1"])
    places = find_collections([tmp_path], tmp_path / "cache")
    assert list(places) == ["news-model"]
    loaded = load_collection(places["news-model"])
    assert (loaded.document_ids, loaded.problems) == (["a", "c"], [])
    assert (loaded.document_texts, loaded.query_texts) == (["T text of a", "T text of c"], ["query q"])
    assert loaded.judgements == [{1: 2}]
    np.testing.assert_array_equal(loaded.document_pooled, [[0], [2]])


def test_collections_are_found_in_folders_and_the_cache_with_the_texts_of_the_longest_name(
    tmp_path: Path,
) -> None:
    one = write_embeddings(tmp_path / "alone" / "one", ["a", "b"], ["q"])
    shared, cache = tmp_path / "shared", tmp_path / "cache"
    for name in ("embeddings/two", "news-en-model"):
        write_embeddings(shared / name, ["a", "b"], ["q"])
    for name in ("news", "news-en"):
        write_texts(shared / name, ["a", "b"], ["q"], ["q\ta\t1"])
    for name in ("news-other", "far-model"):
        write_embeddings(cache / "embeddings" / "0123abcd" / name, ["a", "b"], ["q"])
    assert list(find_collections([one], tmp_path)) == ["one"]
    places = find_collections([tmp_path / "alone", shared], cache)
    assert sorted(places) == ["news-en-model", "news-other", "one", "two"]  # no texts belong to far-model
    assert places["news-en-model"].texts == shared / "news-en"
    assert list(find_collections([tmp_path / "alone", shared], cache, ["two"])) == ["two"]
    with pytest.raises(ValueError, match=r"no collection 'tow'\. Did you mean 'two'"):
        find_collections([shared], cache, ["tow"])
    with pytest.raises(FileNotFoundError, match="holds no collection"):
        find_collections([tmp_path], tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "news-model", ["a", "b"], ["q"])
    write_texts(tmp_path / "news", ["b"], ["q"], ["q\t17\t1", "q\t18\t1"])
    write_texts(tmp_path / "other", ["a"], ["q"], ["q\ta\t1"])
    places = find_collections([tmp_path], tmp_path / "cache")
    loaded = load_collection(places["news-model"])
    assert loaded.document_texts is None and loaded.judgements is None
    assert "has no text of 'a'" in loaded.problems[0]
    assert "None of the 2 judgements" in loaded.problems[1] and "test.tsv" in loaded.problems[1]
    with pytest.raises(FileNotFoundError, match="python -m experiments encode"):
        load_collection(places["other"])


def test_documents_and_queries_of_any_format_are_a_collection(tmp_path: Path) -> None:
    documents = random_texts(4, dimension=8).with_ids(["a", "b", "c", "d"])
    documents.save(tmp_path / "documents")
    queries: dict[str, Any] = {"q": documents[0], "r": documents[1]}
    np.savez(tmp_path / "queries.npz", **queries)
    (loaded,) = map(load_collection, find_collections([tmp_path], tmp_path / "cache").values())
    assert (loaded.document_ids, len(loaded.query_ids)) == (["a", "b", "c", "d"], 2)
    np.testing.assert_array_equal(loaded.documents.tokens, documents.tokens)


@pytest.fixture(scope="module")
def wide() -> Any:
    return synthetic_collection("quick-wide")


def test_fewer_queries_keep_their_texts_and_judgements(wide: Any) -> None:
    part = wide.asked(5)
    assert len(part.query_ids) == len(part.queries) == 5
    for i, name in enumerate(part.query_ids):
        original, (position,) = wide.query_ids.index(name), part.judgements[i]
        np.testing.assert_array_equal(part.queries[i], wide.queries[original])
        assert part.query_texts[i] == wide.query_texts[original]  # it repeats words of its document
        assert set(part.query_texts[i].split()) <= set(part.document_texts[position].split())
    assert wide.asked(1000) is wide


def test_fewer_documents_keep_their_ids_and_texts(wide: Any) -> None:
    few = wide.with_documents(8)
    assert len(few.document_ids) == len(few.documents) == len(few.document_texts) == 8


def test_the_checksum_tells_parts_apart(wide: Any) -> None:
    part = wide.asked(5)
    assert part.content != wide.content == synthetic_collection("quick-wide").content
    assert part.checksum != wide.checksum
    # Other judgements select other queries, so the checksum differs and no stored
    # result is reused.
    judged_alone = [replace(wide, judgements=[{0: 1} if i == q else {} for i in range(12)]) for q in (3, 4)]
    assert [one.asked(1).query_ids for one in judged_alone] == [["q3"], ["q4"]]
    assert judged_alone[0].asked(1).checksum != judged_alone[1].asked(1).checksum


def test_exact_answers_are_chamfers_and_kept(tmp_path: Path) -> None:
    whole = synthetic_collection("quick-wide", documents=40, queries=5)
    exact = ExactAnswers(whole, tmp_path)
    expected = np.argsort(-exact_scores(whole.queries, whole.documents), kind="stable")
    np.testing.assert_array_equal(exact.best(6), expected[:, :6])
    (path,) = tmp_path.glob("top10-*.npy")
    np.save(path, exact.best(10) + 1)
    np.testing.assert_array_equal(exact.best(3), expected[:, :3] + 1)  # the first of more
    assert exact.best(1000).shape == (5, exact.documents) == (5, 40)


def test_queries_of_a_plaid_index_come_from_beside_it(tmp_path: Path) -> None:
    sample = SHARED / "plaid-colbertv2-lotte500"
    if not sample.is_dir():
        pytest.skip("needs ../shared/data/plaid-colbertv2-lotte500")
    loaded = load_collection(find_collections([sample], tmp_path)[sample.name])
    assert (len(loaded.documents), len(loaded.queries), loaded.documents.dimension) == (500, 100, 128)


class Interrupted(HashEncoder):
    """Counts calls, and is interrupted at one."""

    def __init__(self, last: int = -1) -> None:
        super().__init__(6)
        self.calls, self.last = 0, last

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        self.calls += 1
        if self.calls == self.last:
            raise KeyboardInterrupt
        return super().encode_documents(texts)


DOCUMENTS = [(f"d{n}", " ".join(f"word{i + n}" for i in range(n % 4 + 1))) for n in range(10)]
QUERIES = [("q1", "one word"), ("q2", "word")]


def test_embedding_continues_where_it_stopped_and_writes_the_layout(tmp_path: Path) -> None:
    how: dict[str, Any] = {"dimension": 3, "shard_size": 4}
    embed(Interrupted(), "letters", DOCUMENTS, QUERIES, tmp_path / "straight", **how)
    with pytest.raises(KeyboardInterrupt):
        embed(Interrupted(3), "letters", DOCUMENTS, QUERIES, tmp_path / "stopped", **how)
    with pytest.raises(ValueError, match="another model"):
        embed(Interrupted(), "others", DOCUMENTS, QUERIES, tmp_path / "stopped", **how)
    second = Interrupted()
    embed(second, "letters", DOCUMENTS, QUERIES, tmp_path / "stopped", **how)
    assert second.calls == 2  # the third shard of documents and the only one of queries
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in tmp_path.iterdir()]
    assert files[0] == files[1] and "reduction.npy" in files[0]
    tokens, lengths = (np.load(tmp_path / "straight" / f"docs_{name}.npy") for name in ("tokens", "lens"))
    assert (lengths.dtype, tokens.dtype, tokens.shape) == (np.int32, np.float16, (lengths.sum(), 3))
    assert lengths.tolist() == [len(text.split()) for _, text in DOCUMENTS]
    np.testing.assert_allclose(np.linalg.norm(tokens.astype(float), axis=1), 1.0, atol=2e-3)
    embed(Interrupted(), "letters", DOCUMENTS, QUERIES, tmp_path / "wide", dimension=6)
    assert not (tmp_path / "wide" / "reduction.npy").exists()


class Encoded(NamedTuple):
    """Texts that the command has encoded once."""

    texts: Path
    cache: Path
    folder: Path
    encoder: Interrupted

    @property
    def command(self) -> tuple[Any, ...]:
        return ("encode", self.texts, "--cache", self.cache, "--dimension", 0)

    def again(self, model: str = "minilm", dimension: int | None = None) -> Path:
        return Path(encode.encode_texts(self.texts, None, model, dimension, "test", self.cache))


@pytest.fixture
def encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encoded:
    encoder = Interrupted()
    monkeypatch.setattr(encode, "_encoder", lambda _: encoder)
    texts = write_texts(tmp_path / "news", ["a", "b"], ["q"], ["q\ta\t1"])
    made = Encoded(texts, tmp_path / "cache", tmp_path, encoder)
    code, output = command(*made.command)
    assert code == 0, output
    (folder,) = (made.cache / "embeddings").glob("*/*")
    return made._replace(folder=folder)


def test_encoded_texts_are_found_by_runs_and_not_encoded_again(encoded: Encoded) -> None:
    assert (encoded.folder.name, encoded.encoder.calls) == ("news-minilm", 2)
    assert encoded.again() == encoded.folder
    assert encoded.encoder.calls == 2
    loaded = load_collection(find_collections([encoded.texts], encoded.cache)["news-minilm"])
    assert (loaded.document_ids, loaded.query_ids, loaded.judgements) == (["a", "b"], ["q"], [{0: 1}])


def test_other_texts_models_and_dimensions_are_encoded_beside(encoded: Encoded) -> None:
    with (encoded.texts / "corpus.jsonl").open("a") as file:
        file.write('\n{"_id": "c", "text": "new"}\n')
    others = {encoded.again("other/model"), encoded.again(dimension=2), encoded.again()}
    assert len(others | {encoded.folder}) == 4


def test_a_missing_split_ends_the_command(encoded: Encoded) -> None:
    assert command(*encoded.command, "--split", "dev")[0] == 2


def test_a_reduction_has_the_right_singular_vectors_of_the_uncentered_sample() -> None:
    rng = np.random.default_rng(0)
    scale = np.linspace(2.0, 0.1, 12)  # off-center and uneven, as token states are
    samples = [
        unit_vectors((rng.normal(size=(n, 12)) * scale + 0.3).astype(np.float32)) for n in (5, 1, 40, 17)
    ]
    components = encode.fit_reduction(samples, 4)
    expected = np.linalg.svd(np.concatenate(samples).astype(np.float64))[2][:4].T
    np.testing.assert_allclose(np.abs(np.sum(components * expected, axis=0)), 1.0, atol=1e-6)
    assert (components[np.abs(components).argmax(axis=0), np.arange(4)] > 0).all()
    with pytest.raises(ValueError, match=r"between 1 and 12, .* got 13"):
        encode.fit_reduction(samples, 13)


def test_passages_are_texts_with_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site"
    package.mkdir()
    text = " ".join(f"word{i}" for i in range(200))
    (package / "a.py").write_text(f'"""Reads a file.\n\n{text}\n"""\ndef f():\n    """Short."""\n')
    (package / "b.py").write_text("not python")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(package))
    assert passages.write_passages(tmp_path / "texts", 1) == 1
    ((name, document),), ((_, query),) = read_texts(tmp_path / "texts", "test")
    assert (name, query) == ("0", "Reads a file.") and document.split() == text.split()[:150]


def write_wheels(folder: Path) -> None:
    """Write small packages with one API of AWS and one of Google, and one example."""
    long = "which is a text of more than 25 characters"
    aws = {
        "operations": {
            "CreateThing": {"documentation": f"<p>Creates a thing &amp; more, {long}.</p>"},
            "DropThing": {"documentation": "Short."},
        },
        "shapes": {"Thing": {"members": {"ThingName": {"documentation": f"The name, {long}."}}}},
    }
    google = {
        "description": f"An API, {long}.",
        "schemas": {"Box": {"properties": {"size": {"description": f"The size, {long}."}}}},
    }
    service = gzip.compress(json.dumps(aws).encode())
    files: dict[str, dict[str, bytes]] = {
        "botocore": {
            "botocore/data/things/2019-01-01/service-2.json.gz": gzip.compress(b"{}"),
            "botocore/data/things/2020-01-01/service-2.json.gz": service,
        },
        "awscli": {"awscli/examples/things/create-thing.rst": b"**To create  a thing**\n\n::\n"},
        "google_api_python_client": {
            "googleapiclient/discovery_cache/documents/box.v1.json": json.dumps(google).encode()
        },
    }
    for name, contents in files.items():
        wheel = folder / f"{name}-{apidocs.PACKAGES[name]}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in contents.items():
                archive.writestr(path, content)


def test_apidocs_are_the_texts_of_the_packages(tmp_path: Path) -> None:
    write_wheels(tmp_path)
    assert apidocs.write_apidocs(tmp_path, tmp_path / "texts") == 4
    documents, queries = read_texts(tmp_path / "texts", "test")
    assert dict(documents)["aws/things/CreateThing"].startswith("things Create Thing Creates a thing & more")
    assert dict(documents).keys() == {
        "aws/things/CreateThing", "aws/things/#Thing.ThingName", "google/box.v1/", "google/box.v1//Box/size",
    }  # fmt: skip
    assert queries == [("q0", "To create a thing")]


def test_the_first_of_the_apidocs_are_relevant(tmp_path: Path) -> None:
    write_wheels(tmp_path)
    apidocs.write_apidocs(tmp_path, tmp_path / "texts", 1)
    ((name, _),), ((query, _),) = read_texts(tmp_path / "texts", "test")
    judged = (tmp_path / "texts" / "qrels" / "test.tsv").read_text().splitlines()[1:]
    assert judged == [f"{query}\t{name}\t1"] == ["q0\taws/things/CreateThing\t1"]


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_the_samples_readme_has_the_ranks_of_its_answers(depth: int) -> None:
    ranks, readme = best_ranks(SAMPLE), (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert f"{sum(rank <= depth for rank in ranks)} of {len(ranks)}" in readme


def test_the_sample_is_small_and_finds_most_answers() -> None:
    ranks = best_ranks(SAMPLE)
    assert sum(rank <= 3 for rank in ranks) > len(ranks) / 2
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 5_000_000


def test_texts_of_the_sample_begin_with_their_names() -> None:
    # Other ids of the sample do not exist in every version of Python.
    documents = collect_documents(["json.loads", "str.upper", "collections.Counter.most_common"])
    assert all(text.startswith(f"{name}: ") for name, text in documents.items())


def test_answers_that_are_not_in_the_sample_are_refused(tmp_path: Path) -> None:
    for name, value in (("ids", ["json.loads"]), ("queries", [{"text": "q", "relevant": ["json.dumps"]}])):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"not among the documents: json\.dumps"):
        write_sample(tmp_path)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium is installed")
def test_the_picture_of_the_readme_is_drawn(tmp_path: Path) -> None:
    for name in ("uvicorn", "fastapi", "playwright"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from experiments.demo.draw_answer import WIDTH, draw

    draw(tmp_path / "answer.png")
    width, height = struct.unpack(">II", (tmp_path / "answer.png").read_bytes()[16:24])
    assert width == WIDTH and 400 < height < 800  # three answers, and nothing below them
