"""``muvera convert`` as a person calls it."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders.command_line import fails, muvera
from typer.testing import CliRunner

from muvera import MultiVectors
from muvera.cli.app import app
from muvera.convert import read


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["convert", *(str(argument) for argument in arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32) for n in (3, 0, 5)]
    MultiVectors.from_arrays(rows, ids=["a", "b", "c"]).save(tmp_path / "source")
    return tmp_path / "source"


def test_a_report_for_people(source: Path, tmp_path: Path) -> None:
    code, out, err = run(source, tmp_path / "out", "--normalize", "--dtype", "float16")
    assert (code, err) == (0, "")
    assert "read     npy (exact): 3 documents, 8 tokens, dimension 4, float32, str ids" in out
    assert "not normalized, 1 empty document" in out
    assert "options  normalize=True, dtype=float16" in out
    assert np.allclose(np.linalg.norm(read(tmp_path / "out").tokens, axis=1), 1, atol=1e-3)


def test_a_report_for_programs(source: Path, tmp_path: Path) -> None:
    code, out, _ = run(source, tmp_path / "out.npz", "--to", "npz", "--json", "--pooling", "pylate")
    assert code == 0
    report = json.loads(out)
    assert report["to"] == "npz"
    assert report["read"]["tokens"] == 8
    assert report["written"]["tokens"] == 2 + 3 == read(tmp_path / "out.npz").num_tokens
    assert report["options"] == {"pooling": "pylate"}


def test_options_of_the_reader(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", queries=np.ones((2, 3, 4), np.float32), allow=1)
    code, _, err = run(tmp_path / "a.npz", tmp_path / "out", "-o", "part=queries")
    assert (code, err) == (0, "")
    assert read(tmp_path / "out").lengths.tolist() == [3, 3]
    (tmp_path / "a.jsonl").write_text('{"n": "x", "tokens": [[1, 2]]}', encoding="utf-8")
    options = ("-o", "id-field=n", "-o", "packed-signs=false")
    code, _, err = run(tmp_path / "a.jsonl", tmp_path / "named", *options)
    assert (code, err) == (0, "")
    assert read(tmp_path / "named").ids.tolist() == ["x"]


def test_whole_words(source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([0, 1, 2, 2, 0, 1, 1, 2]))
    (tmp_path / "vocab.txt").write_text("a\n##b\nc\n", encoding="utf-8")
    words = ["--pooling", "whole-word", "--token-ids", tmp_path / "ids.npy", "--vocabulary"]
    code, _, err = run(source, tmp_path / "out", *words, tmp_path / "vocab.txt")
    assert (code, err) == (0, "")
    assert read(tmp_path / "out").lengths.tolist() == [2, 0, 3]
    code, _, err = run(source, tmp_path / "other", *words, tmp_path / "missing.txt")
    assert code == 2 and "missing.txt" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "faiss"], "to must be one of npy, npz, safetensors, parquet, plaid, got 'faiss'"),
        (["--nbits", "2"], "The npy reader has no option 'nbits'"),
        (["--to", "plaid", "--nbits", "3"], "nbits must be one of 1, 2, 4, 8, got 3"),
        (["--to", "plaid", "--nbits", "1"], "dimension=4 at --nbits 1 makes 4 bits. Use --nbits 8, or cut"),
        (["--format", "plaid"], "metadata.json"),
        (["--dtype", "int8"], "dtype must be 'float32' or 'float16', got 'int8'"),
        (
            ["--truncate-dimension", "9"],
            "--truncate-dimension 9 must lie within 1 and the source's dimension=4",
        ),
        (["-o", "part"], "--option must be NAME=VALUE, got 'part'"),
        (["-o", "column=x"], "The npy reader has no option 'column'"),
        (["--token-ids", "none.npy"], "none.npy is missing. Copy or export it again"),
        (["--pooling", "whole-word"], "needs --token-ids and --vocabulary"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], sentence: str, source: Path, tmp_path: Path
) -> None:
    code, out, err = run(source, tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("muvera: error: ") and err.count("\n") == 1
    assert sentence in err
    assert not (tmp_path / "out").exists()


def test_what_exists_or_does_not(source: Path, tmp_path: Path) -> None:
    code, _, err = run(tmp_path / "nothing", tmp_path / "out")
    assert code == 2 and "nothing does not exist" in err
    assert run(source, tmp_path / "out")[0] == 0
    code, _, err = run(source, tmp_path / "out")
    assert code == 2 and "exists and is not empty" in err
    assert run(source, tmp_path / "out", "--overwrite")[0] == 0


def test_isolated(source: Path, tmp_path: Path) -> None:
    code, out, err = run(source, tmp_path / "out", "--isolated", "--time-limit", 60, "--memory-limit", 1024)
    assert (code, err) == (0, "") and "read     npy (exact): 3 documents, 8 tokens" in out
    assert read(tmp_path / "out").ids.tolist() == ["a", "b", "c"]
    (source / "ids.json").write_text("[" * 200_000)
    code, out, err = run(source, tmp_path / "other", "--isolated")
    assert (code, out) == (2, "") and err.startswith(f"muvera: error: {source}") and err.count("\n") == 1
    code, out, err = run(source, tmp_path / "other", "--time-limit", 60)
    assert code == 2 and "--time-limit and --memory-limit belong to --isolated" in err
    code, out, err = run(source, tmp_path / "other", "--isolated", "--memory-limit", 1)
    assert code == 2 and "'--memory-limit': Input should be greater than or equal to 256" in err


def test_an_interrupt_says_that_nothing_was_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("muvera.convert.pipeline.convert", interrupted)
    code, _, err = run(source, tmp_path / "out")
    assert (code, err) == (130, "muvera: interrupted; nothing incomplete was left under its final name.\n")


def test_an_unknown_pooling_lists_all_rules(source: Path, tmp_path: Path) -> None:
    line = fails("convert", source, tmp_path / "out", "--pooling", "foo")
    assert "--pooling must be one of" in line and "whole-word, colberter, got 'foo'" in line


def test_help_names_the_target() -> None:
    assert "{SOURCE} {OUT}" in muvera("convert", "--help")[1]
