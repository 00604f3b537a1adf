"""Files of texts: what is read, and which line is to blame."""

from pathlib import Path

import pytest

from muvera.texts.text_files import read_texts


def test_json_lines_with_titles_ids_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        '{"_id": "a", "title": "T", "text": "one", "lang": "en"}\n\n{"id": 3, "text": "", "metadata": {"n": 1}}\n'
    )
    found = read_texts(path)
    assert (found.texts, found.ids) == (["T\none", ""], ["a", 3])
    assert found.metadata == [{"lang": "en"}, {"n": 1}]
    path.write_text('{"body": "x"}\n')
    assert read_texts(path, "body").ids is None


def test_one_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\n\n  two \n")
    assert read_texts(path).texts == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"line 1 is no JSON"),
        (b'{"text": "a"}\n[1]', r"line 2 must be a JSON object, got list"),
        (b'{"body": "a"}', r"line 1 has no text under 'text'"),
        (b'{"text": "a", "id": true}', r"line 1 has the id True"),
        (b'{"text": "a", "metadata": 3}', r"line 1: metadata must be an object, got int"),
        (b'{"text": "a", "id": 1}\n{"text": "b"}', r"1 of 2 texts have no id"),
        (b'{"text": "\xff"}', r"line 1 is not UTF-8"),
        (b"[" * 100_000, r"line 1 is no JSON"),
    ],
)
def test_the_line_to_blame_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"corpus\.jsonl.*{message}"):
        read_texts(path)


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes) -> None:
    for path in (tmp_path / "corpus.jsonl", tmp_path / "texts.txt"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{path.name} has no texts: no line has anything in it"):
            read_texts(path)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt does not exist\. Give a file of JSON lines"):
        read_texts(tmp_path / "nowhere.txt")
    with pytest.raises(FileNotFoundError, match="is no file of texts"):
        read_texts(tmp_path)
