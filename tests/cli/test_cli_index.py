"""``muvera index``."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, some_texts

from muvera import FDEConfig, LearnedConfig, LearnedEncoder, MuveraIndex
from muvera.encoders.registry import PRESETS

SMALL = ["--num-repetitions", 3, "--num-simhash-projections", 2, "--projection-dimension", 4]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    some_texts().save(tmp_path / "docs")
    return tmp_path / "docs"


def test_small_collections_are_searched_exactly(docs: Path, tmp_path: Path) -> None:
    code, out, err = muvera("index", docs, tmp_path / "out")
    assert (code, err) == (0, "")
    assert f"out: 30 documents, {some_texts().num_tokens} tokens of 16 dimensions" in out
    assert "searched exactly, without vectors" in out
    assert MuveraIndex.load(tmp_path / "out").ids.tolist() == some_texts().ids.tolist()


def test_options_reach_the_configuration(docs: Path, tmp_path: Path) -> None:
    facts = answer("index", docs, tmp_path / "out", *SMALL, "--exact-tokens", 0, "--backend", "hnsw")
    assert facts["index"] == str(tmp_path / "out")
    assert facts["documents"] == 30 and facts["empty_documents"] == 1
    assert facts["encoder"]["vector_dimension"] == 3 * 4 * 4 + 17
    assert facts["vectors"]["kind"] == "hnsw" and facts["vectors"]["recall"] == 1.0
    config = MuveraIndex.load(tmp_path / "out").config
    assert isinstance(config, FDEConfig) and config.num_repetitions == 3
    code, out, _ = muvera("index", docs, tmp_path / "other", *SMALL, "--exact-tokens", 0, "--backend", "hnsw")
    assert code == 0
    assert "through FDEs of 65 floats in a graph, which finds 100.0% of the best vectors" in out
    code, out, _ = muvera("index", docs, tmp_path / "bytes", *SMALL, "--exact-tokens", 0, "--backend", "int8")
    assert code == 0 and "searched through FDEs of 65 floats, read as 77 bytes each" in out


def test_a_file_changes_the_preset_and_options_change_both(docs: Path, tmp_path: Path) -> None:
    settings = {"num_repetitions": 5, "seed": 7, "exact_tokens": 0, "hnsw": {"m": 8}, "backend": "hnsw"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    given = ["--preset", "paper", "--config", tmp_path / "config.json", "--num-repetitions", 4]
    facts = answer("index", docs, tmp_path / "out", *given)
    assert facts["encoder"]["projection"] == "rademacher"
    assert (facts["encoder"]["num_repetitions"], facts["encoder"]["seed"]) == (4, 7)
    assert facts["vectors"]["m"] == 8


def test_what_is_learned_is_learned_from_a_sample_of_all_documents(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = answer("index", docs, tmp_path / "few", "--preset", "learned", "--exact-tokens", 0)
    assert few["search"] == "all tokens" and "too few to learn maps from" in few["warnings"][0]
    monkeypatch.setattr("muvera.index.two_stage_search.MIN_FIT_DOCUMENTS", 20)
    learned = {"encoder": "learned", "vector_dimension": 16, "num_landmarks": 64, "num_features": 32}
    (tmp_path / "config.json").write_text(json.dumps({**learned, "exact_tokens": 0}))
    facts = answer("index", docs, tmp_path / "out", "--config", tmp_path / "config.json")
    assert facts["encoder"]["encoder"] == "learned" and facts["vectors"]["dimension"] == 16
    index = MuveraIndex.load(tmp_path / "out")
    expected = LearnedEncoder(LearnedConfig.from_dict({"dimension": 16, **learned})).fit(some_texts())
    assert index.encoder is not None
    vectors = index.encoder.encode_documents(some_texts())
    np.testing.assert_array_equal(vectors, expected.encode_documents(some_texts()))
    # Nothing is learned where nothing will be encoded.
    facts = answer("index", docs, tmp_path / "small", "--preset", "learned")
    assert facts["search"] == "all tokens" and MuveraIndex.load(tmp_path / "small").encoder is None
    assert "LearnedConfig has no 'num_repetitions'" in fails(
        "index", docs, tmp_path / "other", "--preset", "learned", *SMALL
    )


def test_documents_are_learned_from_unless_something_is_asked_for(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.index.two_stage_search.MIN_FIT_DOCUMENTS", 20)

    def chosen(*arguments: Any) -> str:
        given = ("index", docs, tmp_path / "out", "--overwrite", "--exact-tokens", 0, *arguments)
        return str(answer(*given)["encoder"]["encoder"])

    assert chosen() == "fde"
    small = {"encoder": "mean", "covariance": True, "compact_dimension": 8}
    monkeypatch.setitem(PRESETS, "compact_covariance", small)
    monkeypatch.setattr("muvera.index.default_preset.MIN_FIT_DOCUMENTS", 30)
    assert chosen() == "mean"
    _, out, _ = muvera("index", docs, tmp_path / "other", "--exact-tokens", 0)
    assert "searched through mean vectors of 8 floats, all of which are read" in out
    # The same rule in Python.
    built = MuveraIndex.build(some_texts(), exact_tokens=0)
    assert built.info().encoder["compact_dimension"] == 8
    (tmp_path / "config.json").write_text('{"seed": 1}')
    assert chosen("--preset", "default") == chosen(*SMALL) == "fde"
    assert chosen("--config", tmp_path / "config.json") == "fde"


def test_a_source_of_unknown_size_is_told(tmp_path: Path) -> None:
    rows = [json.dumps({"id": i, "vectors": np.eye(4)[: 1 + i % 4].tolist()}) for i in range(6)]
    (tmp_path / "docs.jsonl").write_text("\n".join(rows))
    _, _, err = muvera("index", tmp_path / "docs.jsonl", tmp_path / "out")
    assert "does not say how many documents it has" in err
    _, _, err = muvera("index", tmp_path / "docs.jsonl", tmp_path / "other", "--preset", "default")
    assert "does not say" not in err


def test_much_memory_is_told_before(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.cli.index._MUCH_MEMORY", 30 * 5137 * 4)
    _, _, err = muvera("index", docs, tmp_path / "out", "--exact-tokens", 0)
    assert "30 FDEs of 5,137 floats take 0 GiB" in err and "--preset learned" in err
    _, _, err = muvera("index", docs, tmp_path / "bytes", "--exact-tokens", 0, "--backend", "int8")
    assert err == ""


def test_a_described_configuration_can_be_given_again(docs: Path, tmp_path: Path) -> None:
    first = MuveraIndex.build(some_texts(), exact_tokens=0)
    (tmp_path / "config.json").write_text(json.dumps(first.config.to_dict()))
    answer("index", docs, tmp_path / "out", "--config", tmp_path / "config.json")
    assert MuveraIndex.load(tmp_path / "out").config.hash == first.config.hash


def test_the_queries_of_a_folder_can_be_indexed(tmp_path: Path) -> None:
    for part, texts in (("docs", some_texts()), ("queries", some_texts(5, seed=1))):
        np.save(tmp_path / f"{part}_tokens.npy", texts.tokens)
        np.save(tmp_path / f"{part}_lens.npy", texts.lengths)
    assert answer("index", tmp_path, tmp_path / "a")["documents"] == 30
    assert answer("index", tmp_path, tmp_path / "b", "--part", "queries")["documents"] == 5
    assert answer("index", tmp_path, tmp_path / "c", "-o", "part=queries")["documents"] == 5


def test_an_index_is_replaced_when_asked(docs: Path, tmp_path: Path) -> None:
    some_texts(8, seed=1).save(tmp_path / "fewer")
    answer("index", docs, tmp_path / "out")
    assert "out exists. Give another name, or --overwrite" in fails(
        "index", tmp_path / "fewer", tmp_path / "out"
    )
    assert len(MuveraIndex.load(tmp_path / "out")) == 30
    answer("index", tmp_path / "fewer", tmp_path / "out", "--overwrite")
    assert len(MuveraIndex.load(tmp_path / "out")) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs", "fewer", "out"]


def test_only_an_index_is_replaced(docs: Path, tmp_path: Path) -> None:
    assert "is not a muvera index" in fails("index", docs, docs, "--overwrite")
    (tmp_path / "file").write_text("kept")
    assert "is a file" in fails("index", docs, tmp_path / "file", "--overwrite")
    assert (tmp_path / "file").read_text() == "kept"
    assert len(list(docs.iterdir())) == 3


def test_a_failure_keeps_the_old_index(docs: Path, tmp_path: Path) -> None:
    answer("index", docs, tmp_path / "out")
    broken = some_texts()
    broken.tokens[5, 2] = np.nan
    broken.save(tmp_path / "broken")
    assert "coordinate 2" in fails("index", tmp_path / "broken", tmp_path / "out", "--overwrite")
    assert len(MuveraIndex.load(tmp_path / "out")) == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "docs", "out"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "best"], "There is no preset 'best'. There are: default, paper"),
        (["--num-repetitions", 0], "--num-repetitions must be at least 1, got 0."),
        (["--projection-dimension", 99], "--projection-dimension must be between 1 and 16, got 99."),
        (["--backend", "tree"], "--backend must be one of auto, exact, hnsw, usearch, int8, pq, got 'tree'."),
        (["--exact-tokens", -1], "--exact-tokens must be at least 0, got -1."),
        (["--threads", 0], "--threads must be at least 1, got 0."),
        (["--format", "word"], "--format must be one of pylate, warp"),
        (["--part", "answers"], "part must be 'docs' or 'queries', got 'answers'."),
        (["--option", "column=a"], "The npy reader has no option 'column'"),
        (["--config", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_options(arguments: list[Any], sentence: str, docs: Path, tmp_path: Path) -> None:
    assert sentence in fails("index", docs, tmp_path / "out", "--exact-tokens", 0, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "config.json is damaged, or not JSON"),
        ("[1]", "must hold a JSON object of parameters, got list"),
        ('{"repetitions": 3}', "FDEConfig has no 'repetitions'. It has: dimension, num_repetitions"),
        ('{"hnsw": 3}', 'hnsw must be an object such as {"m": 32}, got 3'),
        ('{"pq": 8}', 'pq must be an object such as {"rescore": 200}, got 8'),
        ('{"pq": {"subvector_size": 0}}', "subvector_size must be between 1 and 64, got 0"),
        ('{"hnsw": {"M": 3}}', "'M'"),
        ('{"dimension": 4}', "documents has 16 columns, but this index has dimension=4."),
    ],
)
def test_bad_configuration_files(content: str, sentence: str, docs: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    given = ["--config", tmp_path / "config.json"]
    assert sentence in fails("index", docs, tmp_path / "out", *given)
    assert not (tmp_path / "out").exists()


def test_bad_sources(tmp_path: Path) -> None:
    assert "nothing does not exist" in fails("index", tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "a.txt").write_text("text")
    line = fails("index", tmp_path / "a.txt", tmp_path / "out")
    assert "Encode it with your model first" in line
    assert f"muvera texts index {tmp_path / 'a.txt'} INDEX" in line
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    line = fails("index", tmp_path / "a.bin", tmp_path / "out")
    assert "is in no known format. muvera formats lists the known ones." in line
    assert "give --format" in line and len(line) < 400
    some_texts()[:0].save(tmp_path / "empty")
    assert "no documents" in fails("index", tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_codes_are_not_called_exact(docs: Path, tmp_path: Path) -> None:
    code, out, _ = muvera("index", docs, tmp_path / "coded", "--tokens", "1bit", "--quiet")
    assert code == 0 and "exactly" not in out
    assert "searched by all tokens, which are read as 1bit codes; without vectors" in out
    assert "search      by all tokens, which are read as 1bit codes" in muvera("info", tmp_path / "coded")[1]
    assert "; scores are of tokens read as 1bit codes" in muvera("search", tmp_path / "coded", docs)[2]
    out = muvera("index", docs, tmp_path / "both", "--tokens", "1bit", "--keep-exact")[1]
    assert " per document without exact tokens, in " in out
    assert "1bit codes, those of the best few exactly" in muvera("search", tmp_path / "both", docs)[2]
    muvera("index", docs, tmp_path / "whole")
    assert "codes" not in muvera("search", tmp_path / "whole", docs)[2]


def test_a_backend_that_is_not_used_yet_is_said_and_needs_its_library(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = muvera("index", docs, tmp_path / "out", "--backend", "int8", "--exact-tokens", 1000)
    assert code == 0
    assert "backend int8 is used from 1,001 tokens on (--exact-tokens 0: always)" in err
    assert muvera("index", docs, tmp_path / "auto", "--backend", "auto")[2] == ""
    monkeypatch.setitem(sys.modules, "usearch", None)
    assert "Backend 'usearch' needs usearch" in fails("index", docs, tmp_path / "new", "--backend", "usearch")
    assert not (tmp_path / "new").exists()
