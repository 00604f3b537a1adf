"""byaldi's interface on a :class:`muvera.PageIndex`; its indexes open in place."""

from __future__ import annotations

import os
import warnings
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...convert.parsing import read_json_object
from ...metadata import Filter
from ...pages.folder import is_page_index
from ...pages.hit import PageHit
from ...pages.page import Page
from ...pages.page_index import PageIndex
from ...pages.pictures import ENDINGS, PageContent, count_pages, read_page
from ...texts.encoders.pages import PageEncoder
from ...texts.encoders.registry import as_page_encoder
from ...utils.atomic_files import write_json

if TYPE_CHECKING:
    from PIL.Image import Image

# Name of the PageIndex in the folder of an index.
_INDEX = "muvera"

# Name of the file with the checkpoint and the names of documents.
_FACTS = "muvera.json"

# Name of byaldi's file of settings.
_BYALDI = "index_config.json.gz"

# Checkpoints that fastembed runs, if colpali-engine is not installed.
_FASTEMBED = {"vidore/colpali-v1.3": "colpali", "ModernVBERT/colmodernvbert": "colmodernvbert"}

# Name of a picture that is not a file.
_IN_MEMORY = "In-memory Image"

_PICTURE_WIDTH = 1000  # pixels of a picture in a result


class Result:
    """A found page, as byaldi returns it.

    Parameters
    ----------
    doc_id : int
        Number of the document.
    page_num : int
        The page in it, from 1 on.
    score : float
        Similarity to the query; higher is better.
    metadata : dict
        Metadata of the document.
    base64 : str, optional
        The picture of the page as PNG.
    hit : PageHit
        The same page with maps and boxes.
    """

    def __init__(
        self,
        doc_id: int,
        page_num: int,
        score: float,
        metadata: dict[str, Any],
        base64: str | None,
        hit: PageHit,
    ) -> None:
        self.doc_id = doc_id
        self.page_num = page_num
        self.score = score
        self.metadata = metadata
        self.base64 = base64
        self.hit = hit

    def dict(self) -> dict[str, Any]:
        """Return byaldi's fields."""
        return {name: value for name, value in vars(self).items() if name != "hit"}

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __repr__(self) -> str:
        return str(self.dict())


class RAGMultiModalModel:
    """byaldi's model and index: the same methods, arguments and results.

    Scores are Chamfer similarities of all patches, as in byaldi.  Arguments about
    devices and messages are ignored.

    Parameters
    ----------
    encoder : PageEncoder
        Encodes pages and queries.
    checkpoint : str
        The name to store for the encoder.
    root : Path
        Folder of all indexes.

    Attributes
    ----------
    page_index : PageIndex or None
        The open index, with heat maps and boxes.

    Examples
    --------
    >>> from muvera.compat.byaldi import RAGMultiModalModel
    >>> checkpoint = "vidore/colpali-v1.3"
    >>> RAG = RAGMultiModalModel.from_pretrained(checkpoint)  # doctest: +SKIP
    >>> RAG.index("reports/", index_name="reports")  # doctest: +SKIP
    {0: 'reports/2024.pdf', 1: 'reports/2025.pdf'}
    >>> RAG.search("revenue by region", k=1)[0].page_num  # doctest: +SKIP
    17
    """

    def __init__(self, encoder: PageEncoder, checkpoint: str, root: Path) -> None:
        self.page_index: PageIndex | None = None
        self._encoder = encoder
        self._checkpoint = checkpoint
        self._root = root
        self._folder = root
        self._files: dict[int, str] = {}
        self._stores_pictures = False

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | PageEncoder,
        index_root: str | os.PathLike[str] = ".byaldi",
        device: str | None = None,
        verbose: int = 1,
    ) -> RAGMultiModalModel:
        """Load a model.

        Parameters
        ----------
        pretrained_model_name_or_path : str, path or PageEncoder
            A checkpoint, which colpali-engine runs; without it, fastembed runs
            "vidore/colpali-v1.3" and "ModernVBERT/colmodernvbert".  A name of
            :func:`muvera.pages.encoders.load_page_encoder` works, too.
        index_root : path
            Folder of all indexes.
        device : str, optional
            Ignored.
        verbose : int
            Ignored.

        Returns
        -------
        RAGMultiModalModel

        Raises
        ------
        ImportError
            If no library that runs the checkpoint is installed.
        """
        encoder, name = _encoder_of(pretrained_model_name_or_path)
        return cls(encoder, name, Path(index_root))

    @classmethod
    def from_index(
        cls,
        index_path: str | os.PathLike[str],
        index_root: str | os.PathLike[str] = ".byaldi",
        device: str | None = None,
        verbose: int = 1,
        encoder: PageEncoder | str | None = None,
    ) -> RAGMultiModalModel:
        """Open an index of byaldi, or one that this class wrote.

        Parameters
        ----------
        index_path : path
            Name of the index in `index_root`.
        index_root : path
            Folder of all indexes.
        device : str, optional
            Ignored.
        verbose : int
            Ignored.
        encoder : PageEncoder or str, optional
            Default: the checkpoint that the index names.

        Returns
        -------
        RAGMultiModalModel

        Raises
        ------
        FileNotFoundError
            If there is no index.
        ImportError
            If no library that runs the checkpoint is installed.
        """
        folder = Path(index_root) / index_path
        is_ours = is_page_index(folder / _INDEX)
        if not is_ours and not (folder / _BYALDI).is_file():
            raise FileNotFoundError(f"{folder} contains no index of byaldi. Give another index_path.")
        facts = read_json_object(folder / (_FACTS if is_ours else _BYALDI))
        name = str(facts.get("model_name", ""))
        model = cls(_encoder_of(name if encoder is None else encoder)[0], name, folder.parent)
        model._open(folder, facts, is_ours)
        return model

    def _open(self, folder: Path, facts: Mapping[str, Any], is_ours: bool) -> None:
        """Open the index in a folder, which this class or byaldi wrote."""
        self._folder = folder
        if is_ours:
            self.page_index = PageIndex.load(folder / _INDEX, self._encoder)
            files = facts["files"]
        else:
            self.page_index = PageIndex.from_byaldi(folder, encoder=self._encoder)
            names = folder / "doc_ids_to_file_names.json.gz"
            files = read_json_object(names) if names.is_file() else {}
        self._files = {int(number): str(file) for number, file in files.items()}
        self._stores_pictures = bool(facts.get("full_document_collection"))

    def index(
        self,
        input_path: str | os.PathLike[str],
        index_name: str | None = None,
        doc_ids: Sequence[int] | None = None,
        store_collection_with_index: bool = False,
        overwrite: bool = False,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        **ignored: Any,
    ) -> dict[int, str]:
        """Index a document, or the documents of a folder.

        A document that cannot be read is left out with a warning.

        Parameters
        ----------
        input_path : path
            A PDF, a picture, or a folder of them.
        index_name : str
            Name of the new index.
        doc_ids : sequence of int, optional
            One for each document, in the order of their names.
        store_collection_with_index : bool
            Return pictures in results by default.  They are read from the documents.
        overwrite : bool
            Replace an index of this name.
        metadata : sequence of dict, optional
            One for each document.
        **ignored
            ``max_image_width=`` and ``max_image_height=``.

        Returns
        -------
        dict
            Names of documents by number.

        Raises
        ------
        ValueError
            Without a name, if the index exists, or if the numbers or metadata do not
            fit the documents.
        """
        if not index_name:
            raise ValueError("index_name is missing. Give the name of the new index.")
        folder = self._root / index_name
        if folder.exists() and not overwrite:
            raise ValueError(f"An index named {index_name!r} exists. Give overwrite=True to replace it.")
        items = _items(input_path)
        self.page_index, self._files, self._folder = None, {}, folder
        self._stores_pictures = store_collection_with_index
        self._add(items, doc_ids, metadata, overwrite)
        return self.get_doc_ids_to_file_names()

    def add_to_index(
        self,
        input_item: str | os.PathLike[str] | Image | list[str | os.PathLike[str] | Image],
        store_collection_with_index: bool = False,
        doc_id: int | Sequence[int] | None = None,
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> dict[int, str]:
        """Add documents to the open index, and save it.

        Parameters
        ----------
        input_item : path, PIL.Image.Image, or list of either
            A PDF, a picture, or a folder of them.
        store_collection_with_index : bool
            As for :meth:`index`.
        doc_id : int or sequence of int, optional
            Default: the next numbers.
        metadata : dict or sequence of dict, optional
            One for all documents, or one for each.

        Returns
        -------
        dict
            Names of documents by number.

        Raises
        ------
        ValueError
            Without an open index, or for a number in use.
        """
        if self.page_index is None:
            raise ValueError("No index is open. Call index() first, or create the model with from_index.")
        given = input_item if isinstance(input_item, list) else [input_item]
        items = [
            item
            for entry in given
            for item in (_items(entry) if isinstance(entry, (str, os.PathLike)) else [entry])
        ]
        numbers = [doc_id] if isinstance(doc_id, int) else doc_id
        values = [metadata] * len(items) if isinstance(metadata, Mapping) else metadata
        self._stores_pictures = self._stores_pictures or store_collection_with_index
        self._add(items, numbers, values, False)
        return self.get_doc_ids_to_file_names()

    def _add(
        self,
        items: list[Any],
        numbers: Sequence[int] | None,
        metadata: Sequence[Mapping[str, Any]] | None,
        overwrite: bool,
    ) -> None:
        first = max(self._files, default=-1) + 1
        numbers = list(range(first, first + len(items))) if numbers is None else list(numbers)
        values = [{}] * len(items) if metadata is None else list(metadata)
        for name, given in (("doc_ids", numbers), ("metadata", values)):
            if len(given) != len(items):
                raise ValueError(
                    f"{name} has {len(given)} entries for {len(items)} documents. Give one for each."
                )
        used = set(numbers) & set(self._files)
        if used:
            raise ValueError(f"Document {min(used)} is in the index. Give another doc_id.")
        pages: list[Page] = []
        files: dict[int, str] = {}
        for item, number, fields in zip(items, numbers, values, strict=True):
            name = str(Path(item).absolute()) if isinstance(item, (str, os.PathLike)) else _IN_MEMORY
            try:
                pages += self._pages(item, name, number, fields)
            except _UnreadableError as error:
                if len(items) == 1:
                    raise error.reason from None
                warnings.warn(str(error.reason), stacklevel=3)
                continue
            files[number] = str(item) if name != _IN_MEMORY else name
        if self.page_index is None:
            if not pages:
                raise ValueError("No page could be read. Give PDFs or pictures.")
            self.page_index = PageIndex(pages[0].vectors.shape[1], self._encoder)
        self.page_index.add(pages)
        self._files |= files
        self._folder.mkdir(parents=True, exist_ok=True)
        self.page_index.save(self._folder / _INDEX, overwrite=overwrite)
        facts = {
            "model_name": self._checkpoint, "full_document_collection": self._stores_pictures,
            "files": {str(number): file for number, file in self._files.items()},
        }  # fmt: skip
        write_json(self._folder / _FACTS, facts)

    def _pages(
        self, item: str | os.PathLike[str] | Image, name: str, number: int, metadata: Mapping[str, Any]
    ) -> list[Page]:
        """Return the pages of a document; errors of the encoder are not caught."""
        contents = enumerate(_contents(item), 1)
        pages: list[Page] = []
        while True:
            try:
                page, content = next(contents)
            except StopIteration:
                return pages
            except (ValueError, OSError) as error:
                raise _UnreadableError(error) from error
            vectors, grid, special = self._encoder.encode_page(content.picture)
            pages.append(
                Page(
                    vectors, name, page, grid, special, text=content.text, lines=content.lines,
                    size=content.size, metadata=metadata, id=f"{number}:{page}",
                )
            )  # fmt: skip

    def search(
        self,
        query: str | Sequence[str],
        k: int = 10,
        filter_metadata: Mapping[str, Any] | None = None,
        return_base64_results: bool | None = None,
    ) -> Any:
        """Return the best pages for one query or several.

        Parameters
        ----------
        query : str or sequence of str
            The queries.
        k : int
            Maximum number of results for each query.
        filter_metadata : dict, optional
            Only documents with one of these values, as in byaldi.
        return_base64_results : bool, optional
            Add the pictures of the pages.  Default: as the index was built.

        Returns
        -------
        list of Result, or list of such lists
            The first for one query.

        Raises
        ------
        ValueError
            Without an open index.
        """
        if self.page_index is None:
            raise ValueError("No index is open. Call index() first, or create the model with from_index.")
        pictures = self._stores_pictures if return_base64_results is None else return_base64_results
        where: Filter | None = None
        if filter_metadata:
            where = {"$or": [{name: value} for name, value in filter_metadata.items()]}
        queries = [query] if isinstance(query, str) else list(query)
        found = self.page_index.search(queries, k, where=where, words=0) if queries else []
        results = [[_result(hit, pictures) for hit in hits] for hits in found]
        return results[0] if isinstance(query, str) else results

    def get_doc_ids_to_file_names(self) -> dict[int, str]:
        """Return the names of documents by number.

        Returns
        -------
        dict
        """
        return dict(self._files)


class _UnreadableError(Exception):
    """Error for a document that cannot be read."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _encoder_of(model: str | os.PathLike[str] | PageEncoder) -> tuple[PageEncoder, str]:
    """Return the encoder of a checkpoint, and its name."""
    if not isinstance(model, (str, os.PathLike)):
        encoder = as_page_encoder(model)
        return encoder, encoder.name
    name = os.fspath(model)
    if ":" in name or "/" not in name:
        return as_page_encoder(name), name
    if find_spec("colpali_engine") is None and name in _FASTEMBED:
        return as_page_encoder(_FASTEMBED[name]), name
    return as_page_encoder(f"colpali-engine:{name}"), name


def _items(path: str | os.PathLike[str]) -> list[Path]:
    """Return a document, or the documents of a folder by name."""
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist. Give a PDF, a picture, or a folder of them.")
    if not place.is_dir():
        return [place]
    return sorted(item for item in place.iterdir() if item.suffix.lower() in ENDINGS)


def _contents(item: str | os.PathLike[str] | Image) -> Iterator[PageContent]:
    if isinstance(item, (str, os.PathLike)):
        for number in range(1, count_pages(Path(item)) + 1):
            yield read_page(Path(item), number)
    else:
        yield PageContent(item.convert("RGB"))


def _result(hit: PageHit, with_picture: bool) -> Result:
    document, _, number = str(hit.id).rpartition(":")
    picture = None
    if with_picture and hit.page[0] != _IN_MEMORY:
        file = BytesIO()
        hit.picture(_PICTURE_WIDTH).save(file, "PNG")
        picture = b64encode(file.getvalue()).decode()
    return Result(int(document), int(number), hit.score, hit.metadata, picture, hit)
