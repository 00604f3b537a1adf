"""Files of texts: their rows, and the line of a fault."""

import csv
from pathlib import Path

import pytest

from muvera.texts.text_files import TextFile, read_texts

ROWS = '{"_id": 2, "title": "T", "text": "one", "lang": "en"}'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.jsonl", f'{ROWS}\n\n{{"id": 3, "text": "", "metadata": {{"n": 1}}}}\n'),
        ("c.jsonl", f'\ufeff{ROWS}\r\n{{"id": 3, "text": "", "metadata": {{"n": 1}}}}'),
        ("c.json", f'[{ROWS},\n {{"id": 3, "text": "", "metadata": {{"n": 1}}}}]'),
        ("c.json", f'{ROWS}\n{{"id": 3, "text": "", "metadata": {{"n": 1}}}}'),
        ("corpus.jsonl", f'{ROWS}\n{{"id": 3, "text": "", "metadata": {{"n": 1}}}}'),  # a BEIR folder
    ],
)
def test_json_with_titles_ids_and_metadata(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    file = read_texts(tmp_path if name == "corpus.jsonl" else tmp_path / name)
    assert (file.texts, file.ids) == (["T\none", ""], [2, 3])
    assert file.metadata == [{"title": "T", "lang": "en"}, {"n": 1}]


@pytest.mark.parametrize("delimiter", ",;\t")
def test_csv(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "c.csv"
    rows = [
        ["url", "title", "body", "year", "zip", "price"],
        ["007", "1984", "one,\ntwo", "1999", "012", "3"],
    ]
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(
            [*rows, ["b", "", "three" * 40_000, "", "4", "2.5"], []]
        )
    file = read_texts(path, ["title", "body"], "url")
    assert (file.texts, file.ids) == (["1984\none,\ntwo", "three" * 40_000], ["007", "b"])
    assert file.metadata == [
        {"title": "1984", "year": 1999, "zip": "012", "price": 3},
        {"zip": "4", "price": 2.5},
    ]
    assert read_texts(path, ["body"], metadata=["year", "body"]).metadata == [
        {"body": "one,\ntwo", "year": 1999},
        {"body": "three" * 40_000},
    ]
    file = read_texts(path, optional_text=True)
    assert file.texts is None and file.metadata[1]["body"] == "three" * 40_000


@pytest.mark.parametrize("empty", [",,\n", " ,,\t\n", ",\n", ",,,,\n"])
def test_csv_rows_of_blank_cells_are_skipped_and_counted(tmp_path: Path, empty: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"id,text,n\n1,one,2\n{empty}\n{empty}3,three,\n{empty}")
    file = read_texts(path)
    assert (file.texts, file.ids, file.empty_rows) == (["one", "three"], ["1", "3"], 3)
    path.write_text(f"id,text,n\n{empty}")
    with pytest.raises(ValueError, match="has no texts"):
        read_texts(path)


def test_one_text_per_line(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\n\n  two \n")
    assert read_texts(tmp_path / "texts.txt") == TextFile(["one", "two"], None, [{}, {}])


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("c.jsonl", b"{", "line 1"),
        ("c.jsonl", b'{"text": "a"}\n{"body": "a"}', "line 2.*no value.*'text'"),
        ("c.jsonl", b'{"text": 3}', "line 1 must have a string.*int"),
        ("c.jsonl", b'{"text": "a", "id": true}', "True"),
        ("c.jsonl", b'{"text": "a", "metadata": 3}', "line 1"),
        ("c.jsonl", b'{"text": "a", "id": 1}\n{"text": "b"}', "line 2.*no value.*'id'"),
        ("c.jsonl", b'{"text": "a", "id": 1}\n\n{"text": "b", "id": 1}', "line 3.*id 1 of.*line 1"),
        ("c.jsonl", b'{"text": "a", "id": 1}\n{"text": "b", "id": "x"}', "line 2.*'x'.*line 1 has 1"),
        ("c.jsonl", b'{"text": "\xff"}', "line 1.*UTF-8"),
        ("c.jsonl", b"[" * 100_000, "line 1"),
        ("c.jsonl", b"\n  \n", "no texts"),
        ("c.json", b"[3]", "element 1.*int"),
        ("c.csv", b"text,n\na,1\nb\n", "line 3.*1 cell,"),
        ("c.csv", b'text,n\n"a\n",1\n"b', "line 4.*quotation marks"),
        ("c.csv", b"body,name\na,b\n", r"line 1 has no column 'text'.*\(columns: body, name\)"),
        ("c.csv", b"text,text\na,b\n", "twice"),
        ("c.csv", b"text\n", "no texts"),
        ("c.txt", b"a\nb\0c\n", "line 2.*binary"),
        ("c.txt", b'{"text": "a"}\n', "line 1.*jsonl"),
        ("c.pdf", b"%PDF-1.7\n", "PDF"),
        ("c.txt", b"\n<!DOCTYPE html><p>a", "HTML"),
    ],
)
def test_faults_name_their_place(tmp_path: Path, name: str, content: bytes, place: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=place) as fault:
        read_texts(tmp_path / name)
    assert name in str(fault.value) and str(fault.value).endswith(".")


def test_files_and_named_columns_are_required(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("text,n\na,1\n")
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n')
    for text, id, metadata in ((["body"], None, None), ((), "url", None), ((), None, ["year"])):
        with pytest.raises(ValueError, match=r"line 1 has no column .* text, n\."):
            read_texts(tmp_path / "c.csv", text, id, metadata)
    with pytest.raises(ValueError, match="line 1 has no value in the column 'url'"):
        read_texts(tmp_path / "c.jsonl", id="url")
    folder = rf"{tmp_path.name} is a folder without corpus\.jsonl"
    url = Path("postgresql://me:secret@host/db")
    for path, part in (
        (tmp_path / "a.txt", r"a\.txt is not a file"),
        (tmp_path, folder),
        (url, "^A URL of post"),
    ):
        with pytest.raises(FileNotFoundError, match=part) as fault:
            read_texts(path)
        assert "secret" not in str(fault.value)
