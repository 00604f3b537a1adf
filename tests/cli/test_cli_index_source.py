"""An index as the source of other commands: its tokens and its ids."""

from pathlib import Path

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, some_texts

from muvera import MultiVectors, MuveraIndex
from muvera.cli import index_source
from muvera.cli.index_source import is_index, open_index
from muvera.convert import read


@pytest.fixture(params=[True, False], ids=["names", "numbers"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    texts = some_texts(60, ids=request.param)
    index = MuveraIndex.build(texts, path=tmp_path / "index")
    index.delete([texts.ids[7].item(), texts.ids[20].item()])
    index.save(tmp_path / "index")
    return tmp_path / "index"


def left(folder: Path) -> MultiVectors:
    texts = some_texts(60)
    kept = np.setdiff1d(np.arange(60), [7, 20])
    return texts[kept].with_ids(MuveraIndex.load(folder).ids)


def same(found: MultiVectors, expected: MultiVectors) -> None:
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_array_equal(found.tokens, expected.tokens)


def test_all_documents_come_with_their_ids(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_source, "_DOCUMENTS", 13)
    source = open_index(folder)
    expected = left(folder)
    assert (source.num_documents, source.num_tokens) == (58, expected.num_tokens)
    batches = list(source.batches(20))
    assert all(batch.has_ids and (batch.num_tokens <= 20 or len(batch) == 1) for batch in batches)
    same(MultiVectors.concatenate(batches), expected)


def test_commands_read_an_index(folder: Path, tmp_path: Path) -> None:
    built = answer("index", folder, tmp_path / "again")
    assert (built["documents"], built["empty_documents"]) == (58, 1)
    again = MuveraIndex.load(tmp_path / "again")
    same(again.tokens(again.ids), left(folder))
    code, _, err = muvera("convert", folder, tmp_path / "tokens")
    assert code == 0, err
    same(read(tmp_path / "tokens"), left(folder))
    assert answer("diagnose", folder)["documents"] == 58
    assert answer("diagnose", tmp_path / "tokens", "--queries", folder)["queries"] == 57
    encoded = answer("encode", folder, tmp_path / "d.npy", "--preset", "paper", "--num-repetitions", 2)
    assert encoded["vectors"] == 58
    # Of 58 documents enough for tune, but no more.
    assert "candidates must be between 10 and half of the 57" in fails("tune", folder, "--candidates", 40)


def test_an_index_replaces_itself(folder: Path) -> None:
    before = left(folder)
    answer("index", folder, folder, "--overwrite", "--exact-tokens", 0)
    again = MuveraIndex.load(folder)
    same(again.tokens(again.ids), before)
    assert again.encoder is not None


def test_queries_from_an_index_are_its_documents(folder: Path) -> None:
    code, out, err = muvera("search", folder, folder, "-k", 1)
    assert code == 0
    assert "holds documents and no queries" in err
    assert out.count("query ") == 58


def test_an_index_has_no_parts_and_no_options(folder: Path, tmp_path: Path) -> None:
    for given in (["--part", "docs"], ["--option", "column=a"]):
        assert "Leave out --part and --option" in fails("diagnose", folder, *given)
    assert is_index(folder) and not is_index(tmp_path) and not is_index(folder / "manifest.json")
