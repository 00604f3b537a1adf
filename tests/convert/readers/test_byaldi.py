"""byaldi indexes, made from the specification; list.pt of the torch goldens is torch's own."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from builders.foreign_indexes import write_pt
from builders.paths import GOLDEN

from muvera.convert.readers import byaldi
from muvera.convert.sources.base import Source
from muvera.data.multivectors import MultiVectors

TORCH = GOLDEN / "convert" / "torch_files"


def _bits(rows: np.ndarray) -> np.ndarray:
    return (rows.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _index(folder: Path, starts: tuple[int, ...] = (0, 2, 10)) -> Path:
    """Two pages a file; a page's first number is its own number."""
    (folder / "embeddings").mkdir(parents=True)
    for i, start in enumerate(starts):
        pages = [np.full((2 + page, 4), 2 * i + page) for page in range(2)]
        write_pt(folder / "embeddings" / f"embeddings_{start}.pt", *map(_bits, pages), container="list")
    names = {str(i): {"doc_id": i // 3, "page_id": i % 3 + 1} for i in range(2 * len(starts))}
    (folder / "embed_id_to_doc_id.json.gz").write_bytes(gzip.compress(json.dumps(names).encode()))
    (folder / "index_config.json.gz").write_bytes(gzip.compress(b"{}"))
    return folder


def test_pages_in_numeric_order_with_their_ids(tmp_path: Path) -> None:
    folder = _index(tmp_path / "index")
    assert byaldi.matches(folder) and not byaldi.matches(tmp_path)
    source = byaldi.open_source(folder)
    assert isinstance(source, Source)
    assert (source.num_documents, source.num_tokens, source.dimension, source.lossy) == (6, 15, 4, False)
    pages = MultiVectors.concatenate(list(source.batches(4)))
    assert pages.ids.tolist() == ["0:1", "0:2", "0:3", "1:1", "1:2", "1:3"]
    assert [page[0, 0] for page in pages] == [0, 1, 2, 3, 4, 5]
    assert pages.lengths.tolist() == [2, 3] * 3
    assert pages.tokens.dtype == np.float32


def test_a_list_that_torch_wrote(tmp_path: Path) -> None:
    folder = _index(tmp_path / "index", ())
    shutil.copy(TORCH / "list.pt", folder / "embeddings" / "embeddings_0.pt")
    (folder / "embed_id_to_doc_id.json.gz").unlink()
    pages = MultiVectors.concatenate(list(byaldi.open_source(folder).batches(100)))
    assert not pages.has_ids
    assert np.array_equal(pages.tokens, np.load(TORCH / "expected.npz")["bfloat16"])


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    folder = _index(tmp_path / "index")
    names = folder / "embed_id_to_doc_id.json.gz"
    whole = names.read_bytes()
    names.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"embed_id_to_doc_id\.json\.gz is damaged"):
        byaldi.open_source(folder)
    names.write_bytes(gzip.compress(b'{"0": {"doc_id": 0, "page_id": 1}}'))
    with pytest.raises(ValueError, match=r"lacks '1' for one of the 6 pages"):
        byaldi.open_source(folder)
    names.write_bytes(whole)
    write_pt(folder / "embeddings" / "embeddings_2.pt", _bits(np.ones((2, 5))), container="list")
    with pytest.raises(ValueError, match=r"page 2 in embeddings_2\.pt has shape \(2, 5\), but the first"):
        byaldi.open_source(folder)
    write_pt(folder / "embeddings" / "embeddings_2.pt", _bits(np.ones((2, 4))))
    with pytest.raises(ValueError, match=r"embeddings_2\.pt must hold a list of tensors"):
        byaldi.open_source(folder)
    (folder / "embeddings" / "embeddings_x.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"embeddings_x\.pt must end in the number of its first page"):
        byaldi.open_source(folder)
    shutil.rmtree(folder / "embeddings")
    (folder / "embeddings").mkdir()
    with pytest.raises(ValueError, match="has no page"):
        byaldi.open_source(folder)


def test_a_page_that_is_repeated(tmp_path: Path) -> None:
    """A reference takes two bytes: a small file gave as many pages as it liked."""
    folder = _index(tmp_path / "index", ())
    (folder / "embed_id_to_doc_id.json.gz").unlink()
    file = folder / "embeddings" / "embeddings_0.pt"
    write_pt(file, _bits(np.ones((50, 4))), container="list")
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    page = members["embeddings_0/data.pkl"]
    assert page.endswith(b"l.")
    members["embeddings_0/data.pkl"] = page[:-2] + b"q\x00" + b"h\x00" * 100 + b"l."
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(
        ValueError, match=r"embeddings_0\.pt repeats a page until they are more than the file"
    ):
        byaldi.open_source(folder)
