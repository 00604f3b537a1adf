"""Files of texts: their rows, and the line of a fault."""

from pathlib import Path

import pytest

from muvera.texts.text_files import read_texts

ROWS = '{"_id": "a", "title": "T", "text": "one", "lang": "en"}'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.jsonl", f'{ROWS}\n\n{{"id": 3, "text": "", "metadata": {{"n": 1}}}}\n'),
        ("c.jsonl", f'\ufeff{ROWS}\r\n{{"id": 3, "text": "", "metadata": {{"n": 1}}}}'),
        ("c.json", f'[{ROWS},\n {{"id": 3, "text": "", "metadata": {{"n": 1}}}}]'),
    ],
)
def test_json_with_titles_ids_and_metadata(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    file = read_texts(tmp_path / name)
    assert (file.texts, file.ids) == (["T\none", ""], ["a", 3])
    assert file.metadata == [{"lang": "en"}, {"n": 1}]


def test_csv_and_one_text_per_line(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('\ufeffid,body,lang\n1,"one,\ntwo",en\n2,three,de\n', encoding="utf-8")
    file = read_texts(path, "body")
    assert (file.texts, file.ids) == (["one,\ntwo", "three"], ["1", "2"])
    assert file.metadata == [{"lang": "en"}, {"lang": "de"}]
    path = tmp_path / "texts.txt"
    path.write_text("one\n\n  two \n")
    file = read_texts(path)
    assert (file.texts, file.ids) == (["one", "two"], None)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("c.jsonl", b"{", "line 1"),
        ("c.jsonl", b'{"body": "a"}', "'text'"),
        ("c.jsonl", b'{"text": "a", "id": true}', "True"),
        ("c.jsonl", b'{"text": "a", "metadata": 3}', "line 1"),
        ("c.jsonl", b'{"text": "a", "id": 1}\n{"text": "b"}', "1 of 2"),
        ("c.jsonl", b'{"text": "\xff"}', "line 1"),
        ("c.jsonl", b"[" * 100_000, "line 1"),
        ("c.jsonl", b"\n  \n", "no texts"),
        ("c.json", b'{"text": "a"}', "array"),
        ("c.csv", b"text,n\na,1\nb\n", "line 3"),
        ("c.csv", b"body\na\n", "'text'"),
    ],
)
def test_faults_name_their_place(tmp_path: Path, name: str, content: bytes, place: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=place):
        read_texts(tmp_path / name)


def test_a_missing_file_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(FileNotFoundError, match=path.name):
            read_texts(path)
