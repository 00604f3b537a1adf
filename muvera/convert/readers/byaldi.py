"""Reader of byaldi's indexes: pages of documents, as models like ColPali embed them.

``embeddings/embeddings_{i}.pt`` holds up to 500 pages from page i on, a list of bfloat16 tensors.  A
page's id is ``"document:page"``.  Rows of zeros are padding of the model: ``drop_zero_rows`` removes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import as_lengths, running_total
from ...data.validation import Ids, as_ids
from ..parsing.files import read_json_object
from ..parsing.torch_file import StoredTensor, read_torch
from ..sources.base import Reader, Source

__all__ = ["READERS"]


def _matches(path: Path) -> bool:
    return (path / "index_config.json.gz").is_file() and (path / "embeddings").is_dir()


class _ByaldiSource(Source):
    """Source over the pages of a byaldi index, which are read from the files batch by batch."""

    name = "byaldi"

    def __init__(self, path: Path) -> None:
        files = (path / "embeddings").glob("embeddings_*.pt")
        ordered = sorted(files, key=lambda file: int(file.stem.removeprefix("embeddings_")))
        self._pages = [page for file in ordered for page in _read(file)]
        if not self._pages:
            raise ValueError("it has no page")
        for i, page in enumerate(self._pages):
            if len(page.shape) != 2 or page.shape[1] != self._pages[0].shape[-1]:
                raise ValueError(f"page {i} has shape {page.shape}, but the first has {self._pages[0].shape}")
        self._offsets = running_total(as_lengths([page.shape[0] for page in self._pages], str(path)))
        self._ids = _ids(path, len(self._pages))
        self.dimension = int(self._pages[0].shape[1])
        self.num_documents = len(self._pages)
        self.num_tokens = int(self._offsets[-1])

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the pages in order, bfloat16 as float32."""
        for start, stop in token_batches(self._offsets, max_tokens):
            arrays = [page.numpy() for page in self._pages[start:stop]]
            ids = None if self._ids is None else self._ids[start:stop]
            yield MultiVectors.from_arrays(arrays, ids, dimension=self.dimension)


def _read(file: Path) -> list[StoredTensor]:
    pages = read_torch(file)
    if not isinstance(pages, (list, tuple)) or not all(isinstance(page, StoredTensor) for page in pages):
        raise ValueError(f"{file.name} must hold a list of tensors, one per page")
    return list(pages)


def _ids(path: Path, count: int) -> Ids | None:
    file = path / "embed_id_to_doc_id.json.gz"
    if not file.is_file():
        return None
    pages = read_json_object(file)
    missing = next((i for i in range(count) if str(i) not in pages), None)
    if missing is not None:
        raise ValueError(f"{file.name} lacks page {missing} of {count}")
    names = [f"{pages[str(i)]['doc_id']}:{pages[str(i)]['page_id']}" for i in range(count)]
    return as_ids(names, count, f"The ids of {path}")


READERS = (
    Reader(
        "byaldi", "index_config.json.gz with a folder embeddings (a byaldi index)", _matches, _ByaldiSource
    ),
)
