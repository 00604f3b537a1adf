"""Reader of byaldi's indexes: pages of documents, as models like ColPali embed them.

``embeddings/embeddings_{i}.pt`` holds up to 500 pages from page i on, a list of bfloat16
tensors.  A page's id is ``"document:page"``, from byaldi's two layers of numbers.  Rows that
are all zero are padding of the model: ``drop_zero_rows`` removes them while reading.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import as_lengths, running_total
from ...data.validation import Ids, as_ids
from ..parsing.index_files import read_json_object
from ..parsing.torch_file import StoredTensor, read_torch

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "byaldi"
DESCRIPTION = "index_config.json.gz with a folder embeddings (a byaldi index)"


def matches(path: Path) -> bool:
    """Return whether `path` looks like a byaldi index."""
    try:
        return (path / "index_config.json.gz").is_file() and (path / "embeddings").is_dir()
    except OSError:
        return False


def open_source(path: Path) -> ByaldiSource:
    """Return the source of a byaldi index, such as ``.byaldi/<index>``.

    Raises
    ------
    FileNotFoundError, ValueError, RefusedPickleError
        As :func:`muvera.convert.readers.plaid.open_source`.
    """
    return ByaldiSource(Path(path))


class ByaldiSource:
    """Source over the pages of a byaldi index, whose numbers stay in the files until their batch."""

    name = NAME
    lossy = False
    nbits: int | None = None

    def __init__(self, path: Path) -> None:
        self._pages = [(file.name, page) for file in _files(path) for page in _read(file)]
        if not self._pages:
            raise ValueError(f"{path} has no page. Index something first.")
        for i, (name, page) in enumerate(self._pages):
            if len(page.shape) != 2 or page.shape[1] != self._pages[0][1].shape[-1]:
                raise ValueError(
                    f"{path}: page {i} in {name} has shape {page.shape}, but the first has "
                    f"{self._pages[0][1].shape}; each must be (tokens, dimension). They are of different models."
                )
        self._offsets = running_total(as_lengths([page.shape[0] for _, page in self._pages], str(path)))
        self._ids = _ids(path, len(self._pages))
        self.dimension = int(self._pages[0][1].shape[1])
        self.num_documents: int | None = len(self._pages)
        self.num_tokens: int | None = int(self._offsets[-1])

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the pages in order, bfloat16 as float32."""
        for start, stop in token_batches(self._offsets, max_tokens):
            arrays = [page.numpy() for _, page in self._pages[start:stop]]
            ids = None if self._ids is None else self._ids[start:stop]
            yield MultiVectors.from_arrays(arrays, ids, dimension=self.dimension)


def _files(path: Path) -> list[Path]:
    numbered = []
    for file in (path / "embeddings").glob("embeddings_*.pt"):
        number = file.stem.rpartition("_")[2]
        if not number.isdecimal():
            raise ValueError(f"{file} must end in the number of its first page. Remove or rename it.")
        numbered.append((int(number), file))
    return [file for _, file in sorted(numbered)]


def _read(file: Path) -> list[StoredTensor]:
    pages = read_torch(file)
    if not isinstance(pages, (list, tuple)) or not all(isinstance(page, StoredTensor) for page in pages):
        raise ValueError(f"{file} must hold a list of tensors, one a page; it does not. Copy it again.")
    if sum(math.prod(page.shape) * page.raw.itemsize for page in pages) > file.stat().st_size:
        raise ValueError(f"{file} repeats a page until they are more than the file holds. Copy it again.")
    return list(pages)


def _ids(path: Path, count: int) -> Ids | None:
    file = path / "embed_id_to_doc_id.json.gz"
    if not file.is_file():
        return None
    named = read_json_object(file)
    try:
        names = [f"{named[str(i)]['doc_id']}:{named[str(i)]['page_id']}" for i in range(count)]
    except TypeError as error:
        raise ValueError(f"{file} is damaged ({error}). Copy it again.") from error
    except KeyError as error:
        raise ValueError(
            f"{file} lacks {error} for one of the {count} pages. Its index is of another time: copy it again."
        ) from None
    return as_ids(names, count, f"The ids of {path}")
