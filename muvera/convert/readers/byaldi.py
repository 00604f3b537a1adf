"""Reader of byaldi's indexes: pages of documents, as models like ColPali embed them.

``embeddings/embeddings_{i}.pt`` holds up to 500 pages from page i on, a list of bfloat16 tensors.  A
page's id is ``"document:page"``.  Rows of zeros are padding of the model: ``drop_zero_rows`` removes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..parsing.files import read_json_object
from ..parsing.torch_file import StoredTensor, read_torch
from ..sources.base import Document, Reader, RowSource

__all__ = ["READERS"]


def _matches(path: Path) -> bool:
    return (path / "index_config.json.gz").is_file() and (path / "embeddings").is_dir()


def _open(path: Path) -> RowSource:
    """Open a byaldi index; bfloat16 becomes float32."""
    files = (path / "embeddings").glob("embeddings_*.pt")
    ordered = sorted(files, key=lambda file: int(file.stem.removeprefix("embeddings_")))
    pages = [page for file in ordered for page in _read(file)]
    if not pages:
        raise ValueError("it has no page")
    ids = _ids(path, len(pages))

    def documents() -> Iterator[Document]:
        for i, page in enumerate(pages):
            yield Document(None if ids is None else ids[i], page.numpy(), "embeddings")

    return RowSource(documents, name="byaldi", place=str(path), num_documents=len(pages))


def _read(file: Path) -> list[StoredTensor]:
    pages = read_torch(file)
    if not isinstance(pages, (list, tuple)) or not all(isinstance(page, StoredTensor) for page in pages):
        raise ValueError(f"{file.name} must hold a list of tensors, one per page")
    return list(pages)


def _ids(path: Path, count: int) -> list[str] | None:
    file = path / "embed_id_to_doc_id.json.gz"
    if not file.is_file():
        return None
    pages = read_json_object(file)
    missing = next((i for i in range(count) if str(i) not in pages), None)
    if missing is not None:
        raise ValueError(f"{file.name} lacks page {missing} of {count}")
    return [f"{pages[str(i)]['doc_id']}:{pages[str(i)]['page_id']}" for i in range(count)]


READERS = (
    Reader("byaldi", "index_config.json.gz with a folder embeddings (a byaldi index)", _matches, _open),
)
