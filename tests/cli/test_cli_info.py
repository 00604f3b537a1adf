"""``muvera info``."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, some_texts
from builders.text_encoders import HashEncoder

from muvera import FDEConfig, MuveraIndex, TextIndex
from muvera.index.manifest import read_manifest, write_manifest
from muvera.index.settings import TokenSettings

CONFIG = FDEConfig(dimension=16, num_repetitions=3, num_simhash_projections=2, projection_dimension=4)


def test_an_index(tmp_path: Path) -> None:
    index = MuveraIndex.build(some_texts(), CONFIG, exact_tokens=0, backend="hnsw", path=tmp_path / "index")
    facts = answer("info", tmp_path / "index")
    expected = index.info().to_dict()
    assert facts["kind"] == "index"
    assert {name: facts[name] for name in expected} == json.loads(json.dumps(expected))
    assert facts["vectors"]["recall"] == 1.0
    assert facts["bytes_on_disk"] > some_texts().num_tokens * 16 * 4
    code, out, err = muvera("info", tmp_path / "index")
    assert (code, err) == (0, "")
    assert "index: an index of 30 documents, 1 of them without tokens" in out
    assert "through FDEs of 65 floats in a graph, which finds 100.0% of the best vectors" in out
    assert "m=16, ef_construction=200, ef=200, never exact" in out
    assert "num_repetitions=3" in out and "None" not in out


def test_warnings_of_an_index(tmp_path: Path) -> None:
    MuveraIndex.build(some_texts(), CONFIG, exact_tokens=0, backend="hnsw", path=tmp_path / "index")
    manifest = read_manifest(tmp_path / "index")
    manifest["candidates"]["recall"] = 0.5
    write_manifest(tmp_path / "index", manifest)
    assert "warning     The graph finds only 50.0%" in muvera("info", tmp_path / "index")[1]
    assert len(answer("info", tmp_path / "index")["warnings"]) == 1


def test_a_damaged_index(tmp_path: Path) -> None:
    MuveraIndex.build(some_texts(), CONFIG, exact_tokens=0, path=tmp_path / "index")
    assert answer("info", tmp_path / "index", "--verify")["verified"] is True
    (tokens,) = (tmp_path / "index").rglob("tokens-*.npy")
    content = bytearray(tokens.read_bytes())
    content[-1] ^= 1
    tokens.write_bytes(content)
    assert "has another checksum" in fails("info", tmp_path / "index", "--verify")
    tokens.write_bytes(content[:-8])
    assert "was cut off or changed" in fails("info", tmp_path / "index")


def test_embeddings(tmp_path: Path) -> None:
    some_texts().save(tmp_path / "docs")
    tokens = some_texts().num_tokens
    facts = answer("info", tmp_path / "docs")
    assert (facts["kind"], facts["format"], facts["lossy"]) == ("embeddings", "npy", False)
    assert (facts["documents"], facts["tokens"], facts["dimension"]) == (30, tokens, 16)
    code, out, _ = muvera("info", tmp_path / "docs")
    assert code == 0
    assert f"docs: npy (exact): 30 documents, {tokens} tokens, 16 dimensions" in out


def test_a_survey_reads_everything(tmp_path: Path) -> None:
    some_texts().save(tmp_path / "docs")
    facts = answer("info", tmp_path / "docs", "--survey")
    assert facts["survey"]["read"]["empty_documents"] == 1
    assert facts["survey"]["read"]["normalized"] is True
    assert "normalized, 1 empty document" in muvera("info", tmp_path / "docs", "--survey")[1]


def test_sizes_that_only_reading_tells(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(json.dumps({"id": "a", "embedding": [[1.0, 2.0]]}) + "\n")
    code, out, _ = muvera("info", tmp_path / "docs.jsonl")
    assert code == 0
    assert "known only after reading (--survey)" in out
    assert answer("info", tmp_path / "docs.jsonl")["tokens"] is None


def test_parts(tmp_path: Path) -> None:
    np.save(tmp_path / "docs_tokens.npy", np.ones((3, 4), np.float32))
    np.save(tmp_path / "docs_lens.npy", [3])
    np.save(tmp_path / "queries_tokens.npy", np.ones((2, 4), np.float32))
    np.save(tmp_path / "queries_lens.npy", [1, 1])
    assert answer("info", tmp_path)["documents"] == 1
    assert answer("info", tmp_path, "--part", "queries")["documents"] == 2


def test_an_encoder(tmp_path: Path) -> None:
    some_texts().save(tmp_path / "docs")
    answer("encode", tmp_path / "docs", tmp_path / "a.npy", "--save-encoder", tmp_path / "encoder")
    assert answer("info", tmp_path / "encoder")["encoder"]["vector_dimension"] == 5137
    assert "encoder: an encoder\n" in muvera("info", tmp_path / "encoder")[1]


@pytest.mark.parametrize("name", ["nothing", "folder"])
def test_what_is_neither(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    sentence = "does not exist" if name == "nothing" else "is in no known format"
    assert sentence in fails("info", tmp_path / name)


def test_the_share_of_the_best_documents_is_told_apart_from_the_graphs(tmp_path: Path) -> None:
    some_texts(300).save(tmp_path / "docs")
    code, out, err = muvera(
        "index", tmp_path / "docs", tmp_path / "index", "--exact-tokens", 0, "--backend", "hnsw"
    )
    assert code == 0, err
    facts = answer("info", tmp_path / "index")
    first = facts["first_stage"]
    said = (
        f"of the best vectors; 100 candidates have {first['recall']:.1%} of the exact 10 best documents "
        f"({first['queries']} windows of document tokens)"
    )
    assert said in out and said in muvera("info", tmp_path / "index")[1]


def test_checksums_that_were_compared_are_said(tmp_path: Path) -> None:
    MuveraIndex.build(some_texts(), CONFIG, path=tmp_path / "index")
    files = len(read_manifest(tmp_path / "index")["files"])
    assert (
        f"verified    {files} files, every checksum agrees"
        in muvera("info", tmp_path / "index", "--verify")[1]
    )
    assert "verified" not in muvera("info", tmp_path / "index")[1]


def test_texts_and_their_encoder(tmp_path: Path) -> None:
    TextIndex.build(["red apple", "green pear"], HashEncoder(name="words"), path=tmp_path / "texts")
    assert "texts       2, encoded by words" in muvera("info", tmp_path / "texts")[1]
    facts = answer("info", tmp_path / "texts")
    assert (facts["texts"], facts["text_encoder"]) == (2, "words")
    MuveraIndex.build(some_texts(), CONFIG, path=tmp_path / "index")
    assert "encoded by" not in muvera("info", tmp_path / "index")[1]


def test_what_is_said_of_settings_sizes_and_surveys(tmp_path: Path) -> None:
    MuveraIndex.build(some_texts(), CONFIG, exact_tokens=0, path=tmp_path / "index")
    assert "never exact" in muvera("info", tmp_path / "index")[1]
    kept = TokenSettings(codec="1bit", keep_exact=True)
    MuveraIndex.build(some_texts(), CONFIG, tokens=kept, path=tmp_path / "both")
    assert "per document without exact tokens, " in muvera("info", tmp_path / "both")[1]
    some_texts().save(tmp_path / "docs")
    assert "docs: token embeddings, read in full\nread " in muvera("info", tmp_path / "docs", "--survey")[1]
