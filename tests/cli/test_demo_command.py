"""``muvera demo``, ``diagnose`` and ``tune``."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, some_texts

from muvera.data.demo_sample import load_demo_sample
from muvera.texts.encoders.minilm import SampleEncoder

SAMPLE = load_demo_sample()


def test_the_sample_fits_together() -> None:
    encoder = SampleEncoder(SAMPLE)
    sides: Any = (
        ("document", SAMPLE.texts, SAMPLE.documents, SAMPLE.token_strings, encoder.encode_documents),
        ("query", SAMPLE.query_texts, SAMPLE.queries, SAMPLE.query_token_strings, encoder.encode_queries),
    )
    for side, texts, vectors, strings, encode in sides:
        np.testing.assert_array_equal(encode(texts).tokens, vectors.tokens)
        assert [len(words) for words in strings] == vectors.lengths.tolist()
        for text, pieces in zip(texts, strings, strict=True):
            spans = encoder.token_spans(text, side)
            assert spans is not None
            for (start, stop), piece in zip(spans, pieces, strict=True):
                word = text[start:stop].lower()
                assert word == piece.removeprefix("##") or (word == "" and piece in ("[CLS]", "[SEP]"))
    assert all(set(answers) <= set(SAMPLE.documents.ids.tolist()) for answers in SAMPLE.relevant)


def test_the_demo_in_text() -> None:
    code, out, err = muvera("demo", "--queries", 2)
    assert code == 0 and SAMPLE.query_texts[0] in out and SAMPLE.query_texts[1] in out
    assert "<- a labelled answer" in out and "JSON=json" in out and "##" not in out
    assert "677 texts" in out and "677 docstrings" in err and max(map(len, out.splitlines())) <= 80
    fails("demo", "--queries", -1)
    answered = re.search(r"(\d+) of 24 questions", out)
    assert answered is not None and 16 <= int(answered[1]) <= 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 60 documents and 5 queries."""
    rng = np.random.default_rng(0)
    for name, count in (("docs", 60), ("queries", 5)):
        np.save(tmp_path / f"{name}_tokens.npy", rng.normal(size=(4 * count, 16)).astype(np.float32))
        np.save(tmp_path / f"{name}_lens.npy", np.full(count, 4))
    return tmp_path


def test_diagnose(folder: Path) -> None:
    assert "60" in muvera("diagnose", folder)[1].splitlines()[0]
    values = answer("diagnose", folder, "--queries", folder, "--format", "npy", "--sample", 40)
    assert (values["queries"], values["pseudo_queries"], values["source"]) == (5, False, str(folder))
    assert values["sampled_documents"] == 40
    assert answer("diagnose", folder, "-o", "part=queries")["documents"] == 5


def test_tune(tmp_path: Path) -> None:
    some_texts(200, 8).save(tmp_path / "docs")
    given = ["tune", tmp_path / "docs", "--sample", 80, "--max-bytes", 300, "--candidates", 10]
    facts = answer(*given, "--out", tmp_path / "tuned.json")
    config = facts["choice"]["config"]
    assert config["dimension"] == 8 and facts["source"] == str(tmp_path / "docs")
    given = ["--config", tmp_path / "tuned.json", "--exact-tokens", 0]
    built = answer("index", tmp_path / "docs", tmp_path / "index", *given)
    assert {**built["encoder"], **config} == built["encoder"]
    assert "does not exist" in fails("tune", tmp_path / "docs", "--out", tmp_path / "none" / "a.json")
    assert "--max-bytes 1" in fails("tune", tmp_path / "docs", "--max-bytes", 1)
