"""RAGatouille's interface; its indexes open in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...convert import open_source
from ...convert.parsing import read_json, read_json_object
from ...index.muvera_index import MuveraIndex
from ...index.settings import IndexSettings
from ...texts.database import DocumentDatabase
from ...texts.encoders.base import TextEncoder, as_texts
from ...texts.encoders.names import built_in
from ...texts.encoders.registry import as_text_encoder, load_text_encoder
from ...texts.hit import Hit, sentences_of
from ...texts.store import TextStore
from ...texts.text_index import TextIndex
from ...utils.atomic_files import write_json
from ...utils.checks import install_command

# Name of the TextIndex in the folder of an index.
_INDEX = "muvera"

# Name of the file with its checkpoint and passage length.
_FACTS = "muvera.json"

# Name of RAGatouille's file of settings.
_PLAID = "metadata.json"

# Modules that run ColBERT checkpoints, in order of preference.
_LIBRARIES = ("pylate", "sentence_transformers", "fastembed")

_Function = Callable[..., list[dict[str, Any]]]

_EXACT = IndexSettings(tokens="float32", exact_tokens=1 << 62)


def split_sentences(
    documents: Sequence[str], document_ids: Sequence[str], chunk_size: int = 256
) -> list[dict[str, Any]]:
    """Split documents into passages of consecutive sentences.

    Neighboring passages overlap by up to a quarter.

    Parameters
    ----------
    documents : sequence of str
        The texts to split.
    document_ids : sequence of str
        One for each document.
    chunk_size : int
        Maximum number of tokens of a passage.  A token is estimated as 4 ASCII
        characters or 1 other character.

    Returns
    -------
    list of dict
        ``{"document_id", "content"}`` for each passage.

    Examples
    --------
    >>> documents = ["One is here. Two is here. Three is here."]
    >>> passages = split_sentences(documents, ["a"], chunk_size=8)
    >>> [passage["content"] for passage in passages]
    ['One is here. Two is here.', 'Three is here.']
    """
    return [
        {"document_id": name, "content": text[start:stop]}
        for text, name in zip(documents, document_ids, strict=True)
        for start, stop in _passages(text, chunk_size)
    ]


def _passages(text: str, size: int) -> Iterator[tuple[int, int]]:
    # Tokens before each character.
    before = list(accumulate((0.25 if character.isascii() else 1.0 for character in text), initial=0.0))
    pieces = [piece for sentence in sentences_of(text) for piece in _pieces(text, *sentence, size, before)]
    first = 0
    for i, (_, stop) in enumerate(pieces):
        if first < i and before[stop] - before[pieces[first][0]] > size:
            end = pieces[i - 1][1]
            yield pieces[first][0], end
            least = max(before[end] - min(size // 4, 64), before[stop] - size)
            while first < i and before[pieces[first][0]] < least:
                first += 1
    if pieces:
        yield pieces[first][0], pieces[-1][1]


def _pieces(text: str, start: int, stop: int, size: int, before: list[float]) -> Iterator[tuple[int, int]]:
    """Yield the parts (start, stop) of a sentence, of at most `size` tokens each."""
    if stop - start < 2 or before[stop] - before[start] <= size:
        yield start, stop
        return
    middle = (start + stop) // 2
    space = text.rfind(" ", start + 1, middle + 1)
    middle = middle if space < 0 else min(space + 1, stop - 1)
    yield from _pieces(text, start, middle, size, before)
    yield from _pieces(text, middle, stop, size, before)


class RAGPretrainedModel:
    """RAGatouille's model and index: the same methods, arguments and results.

    Scores are exact Chamfer similarities.  Arguments about GPUs, batches, messages and
    faiss are ignored.  Create a model with :meth:`from_pretrained` or
    :meth:`from_index`.

    Parameters
    ----------
    encoder : TextEncoder
        Encodes passages and queries.
    checkpoint : str
        The name to store for the encoder.
    root : Path
        Folder of all indexes.
    folder : Path, optional
        The index to open.

    Attributes
    ----------
    encoder : TextEncoder
    text_index : TextIndex or None
        The open index.

    Examples
    --------
    >>> from muvera.compat.ragatouille import RAGPretrainedModel
    >>> checkpoint = "colbert-ir/colbertv2.0"
    >>> RAG = RAGPretrainedModel.from_pretrained(checkpoint)  # doctest: +SKIP
    >>> collection = ["a red apple", "a green pear"]
    >>> RAG.index(index_name="fruit", collection=collection)  # doctest: +SKIP
    '.ragatouille/colbert/indexes/fruit'
    >>> RAG.search("fruit that is red", k=1)[0]["content"]  # doctest: +SKIP
    'a red apple'
    """

    def __init__(self, encoder: TextEncoder, checkpoint: str, root: Path, folder: Path | None = None) -> None:
        self.encoder = encoder
        self.text_index: TextIndex | None = None
        self._encoded: TextIndex | None = None
        self._checkpoint = checkpoint
        #: Maximum number of tokens of a passage.
        self._length = 256
        #: Folder of all indexes.
        self._root = root
        #: Folder of the open index.
        self._folder = root
        if folder is not None:
            self._open(folder)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | TextEncoder,
        n_gpu: int = -1,
        verbose: int = 1,
        index_root: str | None = None,
    ) -> RAGPretrainedModel:
        """Load a model.

        Parameters
        ----------
        pretrained_model_name_or_path : str, path or TextEncoder
            A name of :func:`muvera.load_text_encoder`, or a ColBERT checkpoint for
            PyLate, sentence-transformers 6 or fastembed, whichever is installed.
        n_gpu, verbose : int
            Ignored.
        index_root : str, optional
            Folder of all indexes.  Default: ".ragatouille/".

        Returns
        -------
        RAGPretrainedModel
            Without an open index.

        Raises
        ------
        ImportError
            If no library that runs the checkpoint is installed.
        """
        encoder, checkpoint = _encoder_of(pretrained_model_name_or_path)
        return cls(encoder, checkpoint, Path(index_root or ".ragatouille/") / "colbert" / "indexes")

    @classmethod
    def from_index(
        cls,
        index_path: str | os.PathLike[str],
        n_gpu: int = -1,
        verbose: int = 1,
        encoder: TextEncoder | str | None = None,
    ) -> RAGPretrainedModel:
        """Open an index, and load the model named in its folder.

        The codes, texts and metadata of RAGatouille are copied to its subfolder
        "muvera", if the folder is writable.

        Parameters
        ----------
        index_path : path
            Open only folders that you trust: the folder names the checkpoint to load.
        n_gpu, verbose : int
            Ignored.
        encoder : TextEncoder or str, optional
            Use this model instead.  Required if the folder names a server or no model.

        Returns
        -------
        RAGPretrainedModel
            With the index open.

        Raises
        ------
        FileNotFoundError
            If the folder has no index.
        ValueError
            If `encoder` is missing.
        """
        path = Path(index_path)
        checkpoint = str(_facts(path).get("checkpoint") or "")
        if encoder is None and (not checkpoint or checkpoint.startswith(("http:", "https:"))):
            raise ValueError(f"{path} names the model {checkpoint!r}. Give encoder= if you trust it.")
        model, _ = _encoder_of(checkpoint if encoder is None else encoder)
        return cls(model, checkpoint, path.parent, path)

    # -- indexes --------------------------------------------------------------

    def index(
        self,
        collection: Sequence[str],
        document_ids: Sequence[str] | None = None,
        document_metadatas: Sequence[dict[str, Any]] | None = None,
        index_name: str | None = None,
        overwrite_index: bool | str = True,
        max_document_length: int = 256,
        split_documents: bool = True,
        document_splitter_fn: _Function | None = split_sentences,
        preprocessing_fn: _Function | Sequence[_Function] | None = None,
        bsize: int = 32,
        use_faiss: bool = False,
    ) -> str:
        """Split documents into passages, encode the passages, and save an index.

        Parameters
        ----------
        collection : sequence of str
            The documents.
        document_ids : sequence of str, optional
            Default: random ids.
        document_metadatas : sequence of dict, optional
            One for each document.
        index_name : str, optional
            Default: the checkpoint's name and "new_index".
        overwrite_index : bool or "reuse"
            If the index exists: replace it (True), raise FileExistsError (False), or
            open it ("reuse").
        max_document_length : int
            Maximum number of tokens of a passage.
        split_documents : bool
            False: each document is one passage.
        document_splitter_fn : callable, optional
            Called as ``f(documents, document_ids, chunk_size=max_document_length)``.
            It returns passages as ``{"document_id", "content"}``.
        preprocessing_fn : callable or sequence of callables, optional
            Called as ``f(passages, document_ids)``.  They return passages.
        bsize : int
            Ignored.
        use_faiss : bool
            Ignored.

        Returns
        -------
        str
            The folder of the index.

        Raises
        ------
        FileExistsError
            See `overwrite_index`.
        ValueError
            For repeated ids, or not one id and one dict of metadata per document.
        """
        folder = self._root / (index_name or f"{self._checkpoint}new_index")
        if overwrite_index in (False, "reuse") and any((folder / file).exists() for file in (_INDEX, _PLAID)):
            if overwrite_index is False:
                raise FileExistsError(f"{folder} exists. Give another index_name, or overwrite_index=True.")
            self._open(folder)
            return str(folder)
        self._set_length(max_document_length)
        split = document_splitter_fn if split_documents else None
        texts, metadata = self._split(collection, document_ids, document_metadatas, split, preprocessing_fn)
        folder.mkdir(parents=True, exist_ok=True)
        self.text_index = TextIndex.build(
            texts, self.encoder, metadata=metadata, path=folder / _INDEX, overwrite=True
        )
        # Last: if the encoder fails, the facts of an earlier index still fit it.
        self._write_facts(folder)
        self._folder = folder
        return str(folder)

    def add_to_index(
        self,
        new_collection: Sequence[str],
        new_document_ids: Sequence[str] | None = None,
        new_document_metadatas: Sequence[dict[str, Any]] | None = None,
        index_name: str | None = None,
        split_documents: bool = True,
        document_splitter_fn: _Function | None = split_sentences,
        preprocessing_fn: _Function | Sequence[_Function] | None = None,
        bsize: int = 32,
        use_faiss: bool = False,
    ) -> None:
        """Add documents to an index, and save it.

        Documents whose ids are in use are skipped.

        Parameters
        ----------
        new_collection : sequence of str
            The documents.
        new_document_ids : sequence of str, optional
            Default: random ids.
        new_document_metadatas : sequence of dict, optional
            One for each document.
        index_name : str, optional
            Open this index first.
        split_documents : bool
            As for :meth:`index`.
        document_splitter_fn : callable, optional
            As for :meth:`index`.
        preprocessing_fn : callable or sequence of callables, optional
            As for :meth:`index`.
        bsize : int
            Ignored.
        use_faiss : bool
            Ignored.

        Raises
        ------
        FileNotFoundError
            If there is no index with the name `index_name`.
        ValueError
            If no index is open, or as for :meth:`index`.
        """
        index = self._opened(index_name)
        split = document_splitter_fn if split_documents else None
        texts, metadata = self._split(
            new_collection, new_document_ids, new_document_metadatas, split, preprocessing_fn
        )
        used = {stored.metadata.get("document_id") for stored in index}
        new = [i for i, values in enumerate(metadata) if values["document_id"] not in used]
        if new:
            index.add([texts[i] for i in new], metadata=[metadata[i] for i in new])
            index.save(self._folder / _INDEX)

    def delete_from_index(self, document_ids: Sequence[str] | str, index_name: str | None = None) -> None:
        """Delete documents, and save the index.

        Parameters
        ----------
        document_ids : str or sequence of str
            Unknown ids are ignored.
        index_name : str, optional
            Open this index first.

        Raises
        ------
        FileNotFoundError
            If there is no index with the name `index_name`.
        ValueError
            If no index is open.
        """
        index = self._opened(index_name)
        index.delete(index.select(_of_documents(as_texts(document_ids, "document_ids"))))
        index.save(self._folder / _INDEX)

    def search(
        self,
        query: str | Sequence[str],
        index_name: str | None = None,
        k: int = 10,
        force_fast: bool = False,
        zero_index_ranks: bool = False,
        doc_ids: Sequence[str] | None = None,
        **options: Any,
    ) -> Any:
        """Return the best passages.

        Parameters
        ----------
        query : str or sequence of str
            One query, or several.
        index_name : str, optional
            Open this index first.
        k : int
            Maximum number of passages for each query.
        force_fast : bool
            Ignored.
        zero_index_ranks : bool
            Count ranks from 0.
        doc_ids : sequence of str, optional
            Search only these documents.
        **options
            As for :meth:`muvera.TextIndex.search`, such as ``candidates=1000``.

        Returns
        -------
        list of dict, or list of such lists
            "content", "score", "rank", "document_id", "passage_id" and, if the document
            has any, "document_metadata". A list of one query gives one list, as in
            RAGatouille.

        Raises
        ------
        FileNotFoundError
            If there is no index with the name `index_name`.
        TypeError, ValueError
            If no index is open, or as for :meth:`muvera.TextIndex.search`.
        """
        options = {"words": 0, **options}
        if doc_ids is not None:
            options["where"] = _of_documents(doc_ids)
        best = self._opened(index_name).search(as_texts(query, "query"), k, **options)
        return _results(best, "passage_id", zero_index_ranks)

    # -- without an index -----------------------------------------------------

    def rerank(
        self,
        query: str | Sequence[str],
        documents: Sequence[str],
        k: int = 10,
        zero_index_ranks: bool = False,
        bsize: int | str = "auto",
    ) -> Any:
        """Rank documents by exact Chamfer similarity.

        Parameters
        ----------
        query : str or sequence of str
            One query, or several.
        documents : sequence of str
            The texts to rank.  All of them are encoded for each call.
        k : int
            Maximum number of documents for each query.
        zero_index_ranks : bool
            Count ranks from 0.
        bsize : int or str
            Ignored.

        Returns
        -------
        list of dict, or list of such lists
            "content", "score", "rank" and "result_index", the position in `documents`.
        """
        index = TextIndex.build(as_texts(documents, "documents"), self.encoder, settings=_EXACT)
        best = index.search(as_texts(query, "query"), k, words=0)
        return _results(best, "result_index", zero_index_ranks)

    def encode(
        self,
        documents: Sequence[str],
        bsize: int | str = "auto",
        document_metadatas: Sequence[dict[str, Any]] | None = None,
        verbose: bool = True,
        max_document_length: int | str = "auto",
    ) -> None:
        """Encode documents for :meth:`search_encoded_docs`, besides earlier ones.

        Parameters
        ----------
        documents : sequence of str
            The texts to encode.
        bsize : int or str
            Ignored.
        document_metadatas : sequence of dict, optional
            One for each document.
        verbose : bool
            Ignored.
        max_document_length : int or "auto"
            Maximum number of tokens of a document.  "auto": as before.
        """
        if isinstance(max_document_length, int):
            self._set_length(max_document_length)
        texts = as_texts(documents, "documents")
        if self._encoded is None:
            self._encoded = TextIndex.build([], self.encoder, settings=_EXACT)
        self._encoded.add(texts, metadata=_metadata_of(texts, document_metadatas))

    def search_encoded_docs(self, query: str | Sequence[str], k: int = 10, bsize: int = 32) -> Any:
        """Rank the encoded documents by exact Chamfer similarity.

        Parameters
        ----------
        query : str or sequence of str
            One query, or several.
        k : int
            Maximum number of documents for each query.
        bsize : int
            Ignored.

        Returns
        -------
        list of dict, or list of such lists
            As for :meth:`rerank`, with "document_metadata" if it was given.

        Raises
        ------
        ValueError
            Before :meth:`encode` was called.
        """
        if self._encoded is None:
            raise ValueError("There are no encoded documents. Call encode first.")
        return _results(self._encoded.search(as_texts(query, "query"), k, words=0), "result_index", False)

    def clear_encoded_docs(self, force: bool = False) -> None:
        """Delete the encoded documents.

        Parameters
        ----------
        force : bool
            Ignored.
        """
        self._encoded = None

    def as_langchain_retriever(self, **kwargs: Any) -> Any:
        """Return a LangChain retriever of passages.

        Parameters
        ----------
        **kwargs
            Arguments of :meth:`search`, such as ``k=3``.

        Returns
        -------
        langchain_core.retrievers.BaseRetriever
            It returns the passages of one query, with the metadata of their documents.

        Raises
        ------
        ImportError
            Without LangChain.
        """
        from ...integrations.langchain import FunctionRetriever

        return FunctionRetriever(
            function=lambda query: [
                (row["content"], row.get("document_metadata", {})) for row in self.search(query, **kwargs)
            ]
        )

    def as_langchain_document_compressor(self, k: int = 5) -> Any:
        """Return a LangChain compressor, which reranks documents for a query.

        Parameters
        ----------
        k : int
            Maximum number of documents to keep.

        Returns
        -------
        langchain_core.documents.BaseDocumentCompressor
            It keeps the best documents, with ``metadata["relevance_score"]``.

        Raises
        ------
        ImportError
            Without LangChain.
        """
        from ...integrations.langchain import FunctionCompressor

        return FunctionCompressor(
            function=lambda query, texts, most: [
                (row["result_index"], row["score"]) for row in self.rerank(query, texts, most)
            ],
            k=k,
        )

    # -- helpers --------------------------------------------------------------

    def _split(
        self,
        documents: Sequence[str],
        ids: Sequence[str] | None,
        metadatas: Sequence[dict[str, Any]] | None,
        split: _Function | None,
        preprocess: _Function | Sequence[_Function] | None,
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Return the texts of passages, and the metadata to store for each."""
        texts = as_texts(documents, "collection")
        names = [str(uuid4()) for _ in texts] if ids is None else as_texts(ids, "document_ids")
        values = _metadata_of(texts, metadatas)
        if not len(set(names)) == len(names) == len(texts) == len(values):
            raise ValueError(
                f"Each of {len(texts)} documents needs a unique id and one dict of metadata, got "
                f"{len(names)} ids, {len(set(names))} of them different, and {len(values)} dicts."
            )
        passages = [{"document_id": name, "content": text} for name, text in zip(names, texts, strict=True)]
        if split is not None:
            passages = split(texts, names, chunk_size=self._length)
        for step in [preprocess] if callable(preprocess) else preprocess or []:
            passages = step(passages, names)
        by_name = dict(zip(names, values, strict=True))
        names = [passage["document_id"] for passage in passages]
        metadata = [{"document_id": name, **by_name.get(name, {})} for name in names]
        return [passage["content"] for passage in passages], metadata

    def _opened(self, name: str | None) -> TextIndex:
        if name is not None and self._root / name != self._folder:
            self._open(self._root / name)
        if self.text_index is None:
            raise ValueError("No index is open. Call index or from_index, or give index_name.")
        return self.text_index

    def _open(self, folder: Path) -> None:
        self._set_length(int(_facts(folder).get("doc_maxlen") or self._length))
        saved = (folder / _INDEX).exists()
        index = TextIndex.load(folder / _INDEX, self.encoder) if saved else _read_plaid(folder, self.encoder)
        self.text_index = index
        self._folder = folder
        if not saved and os.access(folder, os.W_OK):
            self._write_facts(folder)
            index.save(folder / _INDEX)

    def _write_facts(self, folder: Path) -> None:
        # Before the index, so that an interruption never leaves an index without this
        # file.
        write_json(folder / _FACTS, {"checkpoint": self._checkpoint, "doc_maxlen": self._length})

    def _set_length(self, tokens: int) -> None:
        """Set the passage length, and let the model encode passages of this length.

        PyLate and sentence-transformers would cut them off.
        """
        self._length = tokens
        model: Any = getattr(self.encoder, "_model", None)
        for part in (model, *(model if hasattr(model, "__iter__") else ())):
            if (getattr(part, "document_length", None) or tokens) < tokens:
                part.document_length = tokens


def _results(best: list[list[Hit]], key: str, zero: bool) -> Any:
    """Return RAGatouille's dicts, with the id of each text under `key`.

    A single query gives one list instead of a list of lists.
    """
    results = [
        [
            {"content": hit.text, "score": hit.score, "rank": rank, key: hit.id, **hit.metadata}
            for rank, hit in enumerate(hits, 0 if zero else 1)
        ]
        for hits in best
    ]
    return results[0] if len(results) == 1 else results


def _metadata_of(texts: list[str], values: Sequence[dict[str, Any] | None] | None) -> list[dict[str, Any]]:
    """Return the metadata to store for each text; None is not stored."""
    values = [None] * len(texts) if values is None else values
    return [{} if value is None else {"document_metadata": value} for value in values]


def _of_documents(ids: Sequence[str]) -> dict[str, Any]:
    return {"document_id": {"$in": list(ids)}}


def _facts(folder: Path) -> dict[str, Any]:
    if (folder / _FACTS).is_file():
        return read_json_object(folder / _FACTS)
    if not (folder / _PLAID).is_file():
        raise FileNotFoundError(f"{folder} has no index. Give a folder that RAG.index returned.")
    return dict(read_json_object(folder / _PLAID).get("config") or {})


def _encoder_of(model: str | os.PathLike[str] | TextEncoder) -> tuple[TextEncoder, str]:
    """Return a text encoder and the name to store for it."""
    if not isinstance(model, (str, os.PathLike)):
        return as_text_encoder(model), model.name
    checkpoint = os.fspath(model)
    prefixes = ("http", "https", *(module.replace("_", "-") for module in _LIBRARIES))
    if checkpoint in built_in("text") or checkpoint.partition(":")[0] in prefixes:
        return load_text_encoder(checkpoint), checkpoint
    for module in _LIBRARIES:
        if find_spec(module) is not None:
            return load_text_encoder(f"{module.replace('_', '-')}:{checkpoint}"), checkpoint
    raise ImportError(
        f"{checkpoint} needs a library that runs ColBERT checkpoints. Install one with: "
        f"{install_command('pylate')}"
    )


def _read_plaid(folder: Path, encoder: TextEncoder) -> TextIndex:
    """Read an index of RAGatouille."""
    texts = as_texts(read_json(folder / "collection.json"), "collection.json")
    # After a deletion, the map keeps the old numbers, but texts and tokens are numbered
    # without gaps.
    pids = read_json_object(folder / "pid_docid_map.json")
    names = [pids[pid] for pid in sorted(pids, key=int)]
    metadata_file = folder / "docid_metadata_map.json"
    metadata = read_json_object(metadata_file) if metadata_file.is_file() else {}
    source = open_source(folder, "plaid", ids=False)
    if not len(texts) == len(names) == source.num_documents:
        raise ValueError(
            f"{folder} must have one text and one document id for each of {source.num_documents} "
            f"passages, got {len(texts)} texts and {len(names)} ids. Build the index again."
        )
    database = DocumentDatabase(encoder.name)
    stored = _metadata_of(texts, [metadata.get(name) for name in names])
    values = [{"document_id": name, **of_text} for name, of_text in zip(names, stored, strict=True)]
    database.put(range(len(texts)), texts, values)
    return TextIndex(TextStore(MuveraIndex.from_plaid(source), database), encoder)
