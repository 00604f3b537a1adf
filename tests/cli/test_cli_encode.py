"""``muvera encode``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, some_texts

from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex

SMALL = ["--num-repetitions", 3, "--num-simhash-projections", 2, "--projection-dimension", 4]
CONFIG = FDEConfig(dimension=16, num_repetitions=3, num_simhash_projections=2, projection_dimension=4)
ENCODER = FDEEncoder(CONFIG).fit(some_texts())


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    some_texts().save(tmp_path / "docs")
    return tmp_path / "docs"


def test_documents_to_one_file(docs: Path, tmp_path: Path) -> None:
    code, out, err = muvera("encode", docs, tmp_path / "out.npy", *SMALL)
    assert code == 0
    assert "out.npy: 30 vectors of documents, 65 floats each, 1 of them zero for want of tokens, in" in out
    assert "depend on what was learned from this collection" in err and "--save-encoder" in err
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ENCODER.encode_documents(some_texts()))


def test_blocks_do_not_matter(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.cli.encode._BLOCK_BYTES", 65 * 4 * 7)
    monkeypatch.setattr("muvera.cli.sources._BYTES_A_BATCH", 16 * 4 * 50)
    assert answer("encode", docs, tmp_path / "out.npy", *SMALL)["vectors"] == 30
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, ENCODER.encode_documents(some_texts()), atol=1e-5)


def test_a_source_of_unknown_length(tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "embedding": text.tolist()} for i, text in enumerate(some_texts()) if len(text)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = answer("encode", tmp_path / "docs.jsonl", tmp_path / "out.npy", "--preset", "paper", *SMALL)
    assert (facts["vectors"], facts["dimension"], facts["without_tokens"]) == (29, 48, 0)
    assert np.load(tmp_path / "out.npy").shape == (29, 48)


def test_queries_with_the_encoder_that_was_kept(docs: Path, tmp_path: Path) -> None:
    queries = some_texts(5, seed=1)
    queries.save(tmp_path / "queries")
    code, _, err = muvera("encode", docs, tmp_path / "d.npy", *SMALL, "--save-encoder", tmp_path / "encoder")
    assert (code, err) == (0, "")
    given = ["--side", "queries", "--encoder", tmp_path / "encoder"]
    facts = answer("encode", tmp_path / "queries", tmp_path / "q.npy", *given)
    assert (facts["side"], facts["config"]) == ("queries", CONFIG.to_dict())
    np.testing.assert_array_equal(np.load(tmp_path / "q.npy"), ENCODER.encode_queries(queries))


def test_the_encoder_of_an_index(docs: Path, tmp_path: Path) -> None:
    index = MuveraIndex.build(some_texts(), CONFIG, exact_tokens=0, path=tmp_path / "index")
    answer("encode", docs, tmp_path / "d.npy", "--encoder", tmp_path / "index")
    assert index.encoder is not None
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), index.encoder.encode_documents(some_texts()))


def test_the_sides_read_their_own_part(tmp_path: Path) -> None:
    for part, texts in (("docs", some_texts()), ("queries", some_texts(5, seed=1))):
        np.save(tmp_path / f"{part}_tokens.npy", texts.tokens)
        np.save(tmp_path / f"{part}_lens.npy", texts.lengths)
    given = ["--preset", "paper", *SMALL]
    assert answer("encode", tmp_path, tmp_path / "d.npy", *given)["vectors"] == 30
    assert answer("encode", tmp_path, tmp_path / "q.npy", *given, "--side", "queries")["vectors"] == 5


def test_targets_with_ids(docs: Path, tmp_path: Path) -> None:
    expected = ENCODER.encode_documents(some_texts())
    assert answer("encode", docs, tmp_path / "npy", *SMALL, "--to", "npy")["to"] == "npy"
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "vectors.npy"), expected)
    assert json.loads((tmp_path / "npy" / "ids.json").read_text()) == some_texts().ids.tolist()
    answer("encode", docs, tmp_path / "faiss", *SMALL, "--to", "faiss")
    assert np.load(tmp_path / "faiss" / "ids.npy").tolist() == list(range(30))
    answer("encode", docs, tmp_path / "pg.txt", *SMALL, "--to", "pgvector", "--half")
    rows = [line.split("\t") for line in (tmp_path / "pg.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == some_texts().ids.tolist()
    np.testing.assert_allclose([json.loads(row[1]) for row in rows], expected, rtol=1e-3, atol=1e-6)
    for form in ("qdrant", "milvus", "opensearch"):
        assert answer("encode", docs, tmp_path / form, *SMALL, "--to", form)["vectors"] == 30
    answer("encode", docs, tmp_path / "opensearch", *SMALL, "--to", "opensearch", "--overwrite")


@pytest.mark.parametrize(("form", "library"), [("parquet", "pyarrow"), ("lancedb", "lancedb")])
def test_targets_that_need_a_library(form: str, library: str, docs: Path, tmp_path: Path) -> None:
    pytest.importorskip(library, reason=f"writing {form} needs {library}")
    assert answer("encode", docs, tmp_path / "out", *SMALL, "--to", form)["vectors"] == 30
    assert answer("encode", docs, tmp_path / "out", *SMALL, "--to", form, "--overwrite")["vectors"] == 30


def test_integer_ids_count_on_over_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.cli.sources._BYTES_A_BATCH", 16 * 4 * 20)
    some_texts(ids=False).save(tmp_path / "docs")
    answer("encode", tmp_path / "docs", tmp_path / "faiss", *SMALL, "--to", "faiss")
    assert np.load(tmp_path / "faiss" / "ids.npy").tolist() == list(range(30))


def test_what_exists_is_replaced_only_when_asked_and_ours(docs: Path, tmp_path: Path) -> None:
    given = ["encode", docs, tmp_path / "out.npy", *SMALL, "--save-encoder", tmp_path / "encoder"]
    answer(*given)
    assert "out.npy exists. Give another name, or --overwrite" in fails(*given)
    answer(*given, "--overwrite")
    for extra in (["--save-encoder", docs], ["--to", "npy"]):
        out = docs if "--to" in extra else tmp_path / "new.npy"
        line = fails("encode", docs, out, *SMALL, *extra, "--overwrite")
        assert "docs holds something else than vectors or an encoder" in line
    assert (docs / "tokens.npy").is_file()
    answer("encode", docs, tmp_path / "folder", *SMALL, "--to", "npy")
    answer("encode", docs, tmp_path / "folder", *SMALL, "--to", "npy", "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--side", "both"], "--side must be documents or queries, got 'both'."),
        (
            ["--side", "queries"],
            "learns from documents, and queries do not replace them. Give --encoder",
        ),
        (["--half"], "--half belongs to --to pgvector."),
        (
            ["--to", "chroma"],
            "--to must be one of pgvector, qdrant, milvus, opensearch, lancedb, faiss, npy, parquet",
        ),
        (
            ["--to", "pgvector"],
            "at most 2000 dimensions in single precision, but these FDEs have 5137. Presets that fit: compact",
        ),
        (
            ["--to", "pgvector"],
            "Or encode with --num-repetitions 15, --num-simhash-projections 3, --projection-",
        ),
        (["--to", "pgvector"], "--half takes 4000."),
        (["--to", "pgvector", "--half"], "at most 4000 dimensions in half precision"),
        (["--encoder", "nowhere"], "nowhere has no encoder: give an index's folder"),
        (["--encoder", "a", "--preset", "paper"], "--encoder has its configuration."),
        (["--preset", "paper", "--num-repetitions", 0], "--num-repetitions must be at least 1"),
    ],
)
def test_bad_options(arguments: list[Any], sentence: str, docs: Path, tmp_path: Path) -> None:
    assert sentence in fails("encode", docs, tmp_path / "out", *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs"]


def test_bad_encoders_and_sources(docs: Path, tmp_path: Path) -> None:
    MuveraIndex.build(some_texts(), path=tmp_path / "exact")
    out = tmp_path / "out.npy"
    assert "exact is searched exactly and has no encoder" in fails(
        "encode", docs, out, "--encoder", tmp_path / "exact"
    )
    answer("encode", docs, tmp_path / "d.npy", *SMALL, "--save-encoder", tmp_path / "encoder")
    MultiVectors.from_arrays([np.ones((2, 4), np.float32)]).save(tmp_path / "narrow")
    line = fails("encode", tmp_path / "narrow", out, "--encoder", tmp_path / "encoder")
    assert "documents has 4 columns, but this encoder has dimension=16." in line
    (tmp_path / "encoder" / "encoder_center.npy").write_bytes(b"short")
    assert "encoder_center.npy has 5 bytes instead of" in fails(
        "encode", docs, out, "--encoder", tmp_path / "encoder"
    )
    (tmp_path / "encoder" / "encoder.json").write_text("{}")
    assert "does not describe an encoder" in fails("encode", docs, out, "--encoder", tmp_path / "encoder")
    (tmp_path / "config.json").write_text('{"backend": "hnsw"}')
    assert "backend, which belong to an index" in fails(
        "encode", docs, out, "--config", tmp_path / "config.json"
    )
    broken = some_texts()
    broken.tokens[5, 2] = np.nan
    broken.save(tmp_path / "broken")
    assert "coordinate 2" in fails("encode", tmp_path / "broken", out, *SMALL, "--preset", "paper")
    assert not out.exists()


@pytest.mark.parametrize("preset", ["default", "learned"])
def test_an_index_of_the_same_source_has_the_same_vectors(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both learn from all documents, however many batches those are."""
    monkeypatch.setattr("muvera.cli.sources._BYTES_A_BATCH", 16 * 4 * 300)
    texts = some_texts(400)
    tokens = texts.tokens + np.linspace(0, 3, texts.num_tokens, dtype=np.float32)[:, None]  # drifts
    MultiVectors.from_flat(tokens, texts.lengths, ids=texts.ids).save(tmp_path / "docs")
    small = SMALL if preset == "default" else []
    given = ["--preset", preset, *small]
    answer(
        "index", tmp_path / "docs", tmp_path / "index", *given, "--exact-tokens", 300, "--backend", "exact"
    )
    answer("encode", tmp_path / "docs", tmp_path / "all.npy", *given, "--save-encoder", tmp_path / "encoder")
    answer("encode", tmp_path / "docs", tmp_path / "by.npy", "--encoder", tmp_path / "index")
    np.testing.assert_array_equal(np.load(tmp_path / "by.npy"), np.load(tmp_path / "all.npy"))


def test_it_ends_with_the_lines_that_load_it(docs: Path, tmp_path: Path) -> None:
    code, out, _ = muvera("encode", docs, tmp_path / "lance", *SMALL, "--to", "lancedb")
    pytest.importorskip("lancedb", reason="writing lancedb needs lancedb")
    assert code == 0
    assert "muvera encode QUERIES queries.npy --side queries and the same options" in out
    lines = out[out.index("import lancedb") :]
    found: dict[str, Any] = {"query": ENCODER.encode_queries(some_texts(5, seed=1))[0]}
    exec(lines, found)
    scores = ENCODER.encode_documents(some_texts()) @ found["query"]
    ids = some_texts().ids
    assert found["best"] == ids[np.argsort(-scores, kind="stable")[:10]].tolist()
    _, out, _ = muvera("encode", docs, tmp_path / "q.npy", *SMALL, "--quiet")
    assert "import" not in out
    facts = answer("encode", docs, tmp_path / "d.npy", *SMALL)
    assert facts["load"][0] == "import numpy as np"


def test_texts_are_told_from_vectors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text.")
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "A text."}\n')
    for name in ("a.txt", "a.jsonl"):
        line = fails("encode", tmp_path / name, tmp_path / "out.npy")
        assert f"{name} " in line and "with your model first" in line
    assert "with your model first" in fails("encode", "What is a text?", tmp_path / "out.npy")


def test_the_bar_moves_from_the_first_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are small from the first one on, also while the mean token is learned."""
    steps: list[tuple[str, int]] = []

    @contextmanager
    def watched(total: Any, unit: str, title: str, quiet: bool = False) -> Iterator[Any]:
        yield lambda count: steps.append((title, count))

    monkeypatch.setattr("muvera.cli.encode.progress_bar", watched)
    texts = MultiVectors.from_flat(np.ones((1 << 19, 16), np.float32), [1 << 7] * (1 << 12))
    texts.save(tmp_path / "docs")  # 32 MB
    answer("encode", tmp_path / "docs", tmp_path / "out.npy", *SMALL)
    for title in ("learning", "encoding"):
        counts = [count for name, count in steps if name == title]
        assert sum(counts) == 1 << 12 and counts[0] <= 1 << 11
