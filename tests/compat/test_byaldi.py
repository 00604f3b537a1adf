"""byaldi's interface: new indexes, its own folders, results, and checkpoints."""

from __future__ import annotations

import base64
import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders.foreign_indexes import write_byaldi
from builders.pages import GreyEncoder, page_vectors, write_pdf

from muvera.compat.byaldi import RAGMultiModalModel
from muvera.pages.encoders import load_page_encoder

pytest.importorskip("pypdfium2")
image = pytest.importorskip("PIL.Image")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    write_pdf(folder / "a.pdf", ["one", "two"])
    write_pdf(folder / "b.pdf", [""])
    return folder


def test_an_index_is_built_searched_and_opened_again(reports: Path, tmp_path: Path) -> None:
    RAG = RAGMultiModalModel.from_pretrained(GreyEncoder(), index_root=tmp_path / ".byaldi")
    files = RAG.index(reports, index_name="reports", metadata=[{"year": 2024}, {"year": 2025}])
    assert files == {0: str(reports / "a.pdf"), 1: str(reports / "b.pdf")}
    results = RAG.search("a dark page", k=3)
    assert {(result.doc_id, result.page_num) for result in results} == {(0, 1), (0, 2), (1, 1)}
    assert results[0]["score"] >= results[1].score and results[0].base64 is None
    filtered = RAG.search(["a", "b"], k=3, filter_metadata={"year": 2025})
    assert [[result.doc_id for result in own] for own in filtered] == [[1], [1]]
    opened = RAGMultiModalModel.from_index("reports", tmp_path / ".byaldi", encoder=GreyEncoder())
    assert [result.dict() for result in opened.search("a dark page", k=3)] == [r.dict() for r in results]


def test_documents_and_pictures_are_added(reports: Path, tmp_path: Path) -> None:
    RAG = RAGMultiModalModel.from_pretrained(GreyEncoder(), index_root=tmp_path / ".byaldi")
    with pytest.raises(ValueError, match="No index is open"):
        RAG.add_to_index(reports)
    RAG.index(reports / "a.pdf", index_name="reports", store_collection_with_index=True)
    RAG.add_to_index(image.new("L", (30, 40), 0), doc_id=7)
    with pytest.raises(ValueError, match="Document 7 is in the index"):
        RAG.add_to_index(reports / "b.pdf", doc_id=7)
    assert RAG.add_to_index(reports / "b.pdf")[8] == str(reports / "b.pdf")
    found = {result.doc_id: result for result in RAG.search("a", k=4)}
    assert found[7].base64 is None
    assert base64.b64decode(str(found[8].base64)).startswith(b"\x89PNG")


def test_a_bad_document_in_a_folder_is_left_out(reports: Path, tmp_path: Path) -> None:
    (reports / "bad.pdf").write_bytes(b"%PDF")
    RAG = RAGMultiModalModel.from_pretrained(GreyEncoder(), index_root=tmp_path / ".byaldi")
    with pytest.warns(UserWarning, match=r"bad\.pdf is not a PDF"):
        assert sorted(RAG.index(reports, index_name="x")) == [0, 1]
    with pytest.raises(ValueError, match="exists"):
        RAG.index(reports, index_name="x")
    with pytest.raises(ValueError, match=r"bad\.pdf"):
        RAG.index(reports / "bad.pdf", index_name="y")


@pytest.mark.parametrize("error", [ValueError("no such model"), OSError("connection refused")])
def test_an_error_of_the_encoder_stops_the_run(reports: Path, tmp_path: Path, error: Exception) -> None:
    class Failing(GreyEncoder):
        def encode_page(self, picture: Any) -> Any:
            if self.encoded == 2:
                raise error
            return super().encode_page(picture)

    RAG = RAGMultiModalModel.from_pretrained(Failing(), index_root=tmp_path / ".byaldi")
    with pytest.raises(type(error), match=str(error)):
        RAG.index(reports, index_name="x")
    assert RAG.get_doc_ids_to_file_names() == {} and not (tmp_path / ".byaldi").exists()


def test_a_folder_of_byaldi_opens_in_place(tmp_path: Path) -> None:
    vectors = page_vectors(4, special=0)
    folder = write_byaldi(tmp_path / "old", list(vectors))
    names = {"0": "reports/a.pdf", "1": "reports/b.pdf"}
    for name, value in (("doc_ids_to_file_names", names), ("index_config", {"model_name": "grey"})):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(value).encode()))
    before = sorted(folder.rglob("*"))
    RAG = RAGMultiModalModel.from_index("old", tmp_path, encoder=GreyEncoder())
    assert RAG.get_doc_ids_to_file_names() == {0: "reports/a.pdf", 1: "reports/b.pdf"}
    assert len(RAG.search("a page", k=9)) == 4
    assert sorted(folder.rglob("*")) == before
    with pytest.raises(FileNotFoundError, match="no index of byaldi"):
        RAGMultiModalModel.from_index("other", tmp_path)


# -- colpali-engine at its boundary ---------------------------------------------


class Batch(dict[str, Any]):
    def to(self, device: str) -> Batch:
        return self


class ColQwen2:
    """A model whose vectors are positions."""

    device = "cpu"

    @classmethod
    def from_pretrained(cls, name: str, device_map: str) -> ColQwen2:
        return cls()

    def eval(self) -> ColQwen2:
        return self

    def __call__(self, input_ids: Any, **_: Any) -> Any:
        import torch

        return torch.arange(input_ids.shape[1], dtype=torch.float32)[None, :, None] + 1


class ColQwen2Processor:
    image_token_id = 9

    @classmethod
    def from_pretrained(cls, name: str) -> ColQwen2Processor:
        return cls()

    def process_images(self, pictures: list[Any]) -> Batch:
        import torch

        ids = torch.tensor([[1, 2, *[9] * 6, 3]])
        return Batch(input_ids=ids, image_grid_thw=torch.tensor([[1, 4, 6]]))

    def process_queries(self, texts: list[str]) -> Batch:
        import torch

        return Batch(input_ids=torch.tensor([[1, 2, 3]]))


def test_colpali_engine_tells_the_grid_and_the_special_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    models = SimpleNamespace(ColQwen2=ColQwen2, ColQwen2Processor=ColQwen2Processor)
    monkeypatch.setitem(sys.modules, "colpali_engine", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "colpali_engine.models", models)
    encoder = load_page_encoder("colpali-engine:vidore/colqwen2-v1.0")
    vectors, grid, special = encoder.encode_page(image.new("RGB", (4, 4)))
    assert (vectors[:, 0].tolist(), grid, special) == ([*map(float, range(1, 10))], (2, 3), (2, 1))
    assert encoder.encode_queries(["a", "b"]).lengths.tolist() == [3, 3]
    with pytest.raises(ValueError, match="no model for 'vidore/other'"):
        load_page_encoder("colpali-engine:vidore/other")


def test_a_checkpoint_without_its_library_names_it() -> None:
    pytest.importorskip("PIL")
    if "colpali_engine" not in sys.modules:
        with pytest.raises(ImportError, match="pip install colpali-engine"):
            RAGMultiModalModel.from_pretrained("vidore/colqwen2-v1.0")
