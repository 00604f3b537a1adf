"""TextIndex: index texts with metadata, and search, filter and explain them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import WeakMethod

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.validation import as_ids
from ..encoders.base import Encoder, EncoderConfig
from ..index.generations import Generation, journal_bytes, require_place
from ..index.id_map import IdMap, Missing
from ..index.manifest import TEXTS, IndexFolderError, read_manifest
from ..index.muvera_index import MuveraIndex
from ..index.persistence import read_current, read_generation
from ..index.settings import IndexSettings
from ..index.two_stage_search import DEFAULT_CANDIDATES, IndexContents
from ..metadata.filters import Filter
from ..reranking.spans import rank_spans, spans_from_characters
from ..utils.atomic_files import recover_folder
from ..utils.checks import as_id_list, as_path, counted, given, require_int, require_number
from .database import TEXT_ENCODER, DocumentDatabase, Row, TextDocument, checked_rows, require_ids
from .encoders.base import NoEncoder, TextEncoder, TextSide, as_texts, encode_in_batches, encode_texts
from .encoders.registry import BUILT_IN, as_text_encoder
from .hit import Hit, TextExplanation, explain_texts, sentences_of
from .journal import Change, Journal, as_change, join_updates, read_journal
from .search_options import WORDS, Parts, SearchKeywords, SearchOptions, add_words

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["TextIndex", "load_folder", "required_encoder"]

_Read = TypeVar("_Read")

# With ``recall=``, words reorder the best _RANKED * k texts by similarity.
_RANKED = 3


class TextIndex:
    """A searchable collection of texts with metadata: a text encoder, a :class:`MuveraIndex` and a database.

    Several threads may search at once, also while another thread adds, updates or deletes.

    Parameters
    ----------
    index : MuveraIndex
        The texts' token vectors, under the same ids.
    database : DocumentDatabase
        The texts and their metadata.
    encoder : TextEncoder

    Examples
    --------
    >>> from muvera import TextIndex
    >>> index = TextIndex.build(["a red apple", "a green pear"], encoder="minilm")  # doctest: +SKIP
    >>> index.search("fruit that is red", k=1)[0].text  # doctest: +SKIP
    'a red apple'
    """

    def __init__(self, index: MuveraIndex, database: DocumentDatabase, encoder: TextEncoder) -> None:
        self._vectors, self._database, self._encoder = index, database, encoder
        self._journal: Journal | None = None
        index._write_texts = partial(_write_texts, database)

    # -- building and changing ------------------------------------------------

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        encoder: TextEncoder | str = "minilm",
        *,
        vectors: str | EncoderConfig | Encoder | None = None,
        ids: Sequence[int | str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        settings: IndexSettings | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
        **changes: Any,
    ) -> TextIndex:
        """Build an index of texts.

        Parameters
        ----------
        texts : iterable of str
            May be empty.  Blank texts are stored, but no search returns them.
        encoder : TextEncoder or str
            A name is loaded by :func:`muvera.load_text_encoder`.  Wrap an expensive model in
            :class:`muvera.texts.encoders.base.CachedEncoder` to resume an interrupted build.
        vectors : str, configuration or fitted encoder, optional
            How token vectors become one vector per text: the ``encoder`` of :meth:`muvera.MuveraIndex.build`.
        ids : sequence of int or of str, optional
            Default: 0, 1, 2, ...
        metadata : sequence of dict, optional
            One for each text, for filters.
        path, overwrite
            Also save the index to this folder, see :meth:`save`.
        settings, threads, **changes
            As for :meth:`muvera.MuveraIndex.build`.  Tokens are stored as "int8" by default.
        progress : callable, optional
            Called with the number of texts after each batch.

        Raises
        ------
        TypeError, ValueError
            For texts that are not strings, metadata that JSON cannot hold, or repeated ids.
        FileExistsError
            If `path` exists and `overwrite` is False.
        """
        if path is not None:
            require_place(as_path(path), overwrite)
        model, contents = as_text_encoder(encoder), as_texts(texts)
        names = list(range(len(contents))) if ids is None else _ids_for(contents, ids)
        database = DocumentDatabase()
        database.set_property(TEXT_ENCODER, model.name)
        database.put(names, contents, _metadata_for(contents, metadata))
        chosen = IndexSettings.of(settings, **changes)
        chosen = chosen if chosen.tokens else IndexSettings.of(chosen, tokens="int8")
        if contents:
            batches = _with_ids(encode_in_batches(model.encode_documents, contents, progress), names)
            index = MuveraIndex.build(batches, vectors, threads=threads, settings=chosen)
        else:  # encode one text to learn the dimension
            columns = model.encode_documents(["."]).dimension
            index = MuveraIndex(vectors, dimension=columns, settings=chosen)
        built = cls(index, database, model)
        if path is not None:
            built.save(path, overwrite=overwrite)
        return built

    def add(
        self,
        texts: Iterable[str] | str,
        *,
        ids: Sequence[int | str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        threads: int | None = None,
    ) -> list[int | str]:
        """Add texts under new ids, all of them or none, and return these ids.

        The parameters are those of :meth:`build`.  Default ids: the next integers.  Raise ValueError for an id that
        is in use.
        """
        contents = as_texts(texts)
        names = None if ids is None else _ids_for(contents, ids)
        values = _metadata_for(contents, metadata)
        if not contents:  # few models can encode an empty list
            return []
        if names is None and isinstance(next(iter(self.index), None), str):
            raise TypeError(
                "This index has str ids, but these texts have no ids. Give strings as ids=, one per text."
            )
        encoded = encode_texts(self._encoder.encode_documents, contents)
        encoded = encoded if names is None else encoded.with_ids(names)
        with self._changing():
            return self._store(encoded, contents, values, threads)

    def _changing(self) -> AbstractContextManager[object]:
        """Return the write lock."""
        return self.index._changing

    def _store(
        self,
        encoded: MultiVectors,
        texts: list[str],
        metadata: Sequence[Mapping[str, Any]],
        threads: int | None,
        update: bool = False,
    ) -> list[int | str]:
        """Add texts, or replace them, and return their ids."""
        changed, new_ids = self._vectors._appended(encoded, threads, update)
        names: list[int | str] = new_ids.tolist()
        self._commit(changed, checked_rows(names, texts, metadata))
        return names

    def _commit(
        self, changed: IndexContents | None, rows: Sequence[Row] = (), deleted: Sequence[int | str] = ()
    ) -> None:
        """Write a change to the journal and the database, and then replace the contents of the vector index.

        `changed` is None if only metadata changes.
        """
        index, journal, mark = self._vectors, self._journal, object()
        if changed is not None:
            changed.last_change = mark

        def finish() -> None:  # may be called twice
            if changed is not None and index._contents.last_change is not mark:
                index._replace_contents(changed)
            if journal is not None:
                journal.confirm(len(rows) + len(deleted))

        try:
            if journal is not None and (rows or deleted):
                journal.append(as_change(rows, deleted, metadata_only=changed is None))
            self._database.change(deleted or [row.id for row in rows], rows, finish)
        except BaseException:
            self._settle()
            raise

    def _settle(self) -> None:
        """Finish or undo an interrupted change; the caller holds the write lock."""
        self._database.settle()
        if self._journal is not None:
            self._journal.undo()

    def update(
        self,
        texts: Iterable[str] | str | None = None,
        *,
        ids: Sequence[int | str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        threads: int | None = None,
    ) -> None:
        """Replace the texts with these ids and add texts with new ids, all of them or none.

        Parameters
        ----------
        texts, ids, threads
            As for :meth:`build`.  Without texts, only metadata changes, and nothing is encoded.
        metadata : sequence of dict, optional
            Replaces the stored metadata.  Default: keep the metadata of ids that are in use.

        Raises
        ------
        KeyError
            For an unknown id, without `texts`.
        TypeError, ValueError
            Without texts and metadata, or as for :meth:`build`.
        OSError
            If the disk is full.  Nothing is changed then.
        """
        if texts is None and metadata is None:
            raise ValueError("An update needs texts or metadata, got neither. Give one of them.")
        contents = None if texts is None else as_texts(texts)
        names = _ids_for(contents, ids)
        if not names:
            return
        if contents is not None:
            encoded = encode_texts(self._encoder.encode_documents, contents).with_ids(names)
        with self._changing():
            stored = self._get(names, "raise" if contents is None else "ignore")
            if metadata is None:
                known = {document.id: document.metadata for document in stored}
                metadata = [known.get(name, {}) for name in names]
            values = _metadata_for(names, metadata)
            if contents is None:
                self._store_metadata(names, [document.text for document in stored], values)
            else:
                self._store(encoded, contents, values, threads, update=True)

    def _store_metadata(
        self, ids: list[int | str], texts: list[str], metadata: Sequence[Mapping[str, Any]]
    ) -> None:
        """Replace the metadata of stored texts."""
        self._commit(None, checked_rows(ids, texts, metadata))

    def delete(self, ids: Iterable[int | str], *, missing: Missing = "raise") -> None:
        """Delete texts by id; for an unknown id, raise KeyError and delete nothing, unless ``missing="ignore"``."""
        names = require_ids(as_id_list(ids))
        with self._changing():
            self._commit(self._vectors._without(names, missing), deleted=names)

    def rebuild(self, *, threads: int | None = None) -> None:
        """Free the memory of deleted texts and fit the vectors again, see :meth:`muvera.MuveraIndex.rebuild`.

        An index from :meth:`open` is then saved.
        """
        with self.index._changing:
            self.index.rebuild(threads=threads)
            if self._open_journal is not None:
                self.save()

    # -- saving and loading ---------------------------------------------------

    def save(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        """Write the vectors, the texts and the encoder's name to a folder in one atomic step.

        Searches continue during a save; changes wait.

        Parameters
        ----------
        path : path, optional
            Default: the folder of an index from :meth:`open`.
        overwrite : bool
            Replace another index in that folder.

        Raises
        ------
        ValueError
            If `path` is missing, and the index is not from :meth:`open` or is closed.
        FileExistsError, IndexFolderError
            As for :meth:`muvera.MuveraIndex.save`.
        """
        with self.index._changing:
            self._settle()
            journal = self._open_journal
            if path is None:
                if journal is None:
                    raise ValueError(
                        "save() without a path needs an open index of TextIndex.open. Give a path."
                    )
                path = journal.folder
            if journal is None or journal.folder != as_path(path).resolve():
                self.index.save(path, overwrite=overwrite)
                return
            journal.detach()
            self.index._save(path, holds_lock=True)
            journal.unsaved = 0

    @property
    def _open_journal(self) -> Journal | None:
        journal = self._journal
        return journal if journal is not None and journal.is_open else None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: TextEncoder | str | None = None,
        *,
        save_changes: int = 1000,
        save_seconds: float = 300.0,
    ) -> TextIndex:
        """Open a saved index, or a collection of texts in a database, for durable changes.

        A change is durable once the method returns: it survives if the process is killed or the machine stops.
        Changes to a folder are first written to a journal, which background saves empty.  Only one process can
        open a folder; others can load it.  Use the index as a context manager, or call :meth:`close`.

        Parameters
        ----------
        path : path or str
            A folder written by :meth:`save`, or the URL of a collection that ``muvera load`` filled with texts,
            such as ``"postgresql://user@host/database#docs"``.
        encoder : TextEncoder or str, optional
            As for :meth:`load`.
        save_changes : int
            Save after about this many changed texts.  After a crash, unsaved texts are encoded again.  A long text
            counts as several.  Ignored for a database.
        save_seconds : float
            Save changes after this many seconds.  Ignored for a database.

        Raises
        ------
        FileNotFoundError, IndexFolderError, ValueError
            As for :meth:`load`, and if another process writes the folder.
        EngineError
            If the database cannot be reached, or the collection has no texts.
        """
        from ..engines.base import is_engine_url

        if is_engine_url(str(path)):
            from ..engines.text_engine import EngineTextIndex

            return EngineTextIndex(str(path), encoder)
        require_int("save_changes", save_changes, 1)
        require_number("save_seconds", save_seconds, 0.001)
        folder = as_path(path).resolve()
        recover_folder(folder)
        read_manifest(folder)
        journal = Journal(folder, save_changes, save_seconds)
        try:
            opened, journal.unsaved = cls._load(folder, encoder)
            opened._journal = journal
            journal.save_in_background(WeakMethod(opened._save_changes))
        except BaseException:
            journal.stop()
            journal.close()
            raise
        return opened

    def close(self) -> None:
        """Save changes and release the folder of an index from :meth:`open`, which can still be searched.

        If the disk is full, OSError is raised.  The folder is released nevertheless; its journal contains all changes.
        """
        journal = self._open_journal
        if journal is None:
            return
        try:
            journal.stop()
            self._save_changes()
        finally:
            with self._vectors._changing:  # after a save that still runs
                journal.close()

    def _save_changes(self) -> None:
        with self.index._changing:
            journal = self._open_journal
            if journal is not None and journal.unsaved:
                self.save()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: TextEncoder | str | None = None) -> TextIndex:
        """Load an index of texts, with the changes in its journal.

        Parameters
        ----------
        path : path
            A folder written by :meth:`save`.
        encoder : TextEncoder or str, optional
            Must have the name of the encoder that built the index.  Default: that encoder, if it is
            "colbert-small" or "minilm".  Other models can run code or send texts elsewhere, so they are never
            loaded by default.

        Raises
        ------
        FileNotFoundError, IndexFolderError
            If the folder contains no index, a damaged one, or one of another format version.
        ValueError
            For an index without texts, a missing `encoder`, or an encoder that did not build the index.
        """
        return cls._load(as_path(path).resolve(), encoder)[0]

    @classmethod
    def _load(cls, folder: Path, encoder: TextEncoder | str | None) -> tuple[TextIndex, int]:
        """Return an index and the number of texts in its journal."""
        index, database, changes = load_folder(folder)
        name = str(database.property(TEXT_ENCODER))
        if isinstance(encoder, NoEncoder) and any("texts" in arguments for _, arguments in changes):
            if name not in BUILT_IN:
                raise IndexFolderError(
                    f"{folder} has texts in its journal that must be encoded first. Close the index in the program "
                    f"that changes it, or open and close it with its encoder {name!r}."
                )
            encoder = None
        loaded = cls(index, database, required_encoder(name, encoder, folder))
        try:
            for method, arguments in join_updates(changes):
                if method == "delete":
                    loaded.delete(arguments["ids"], missing="ignore")
                else:
                    loaded.update(**arguments)
        except (ValueError, TypeError, KeyError) as error:
            raise IndexFolderError(
                f"The journal in {folder} does not fit the index: {error}. Restore the folder from a copy."
            ) from error
        return loaded, sum(len(arguments["ids"]) for _, arguments in changes)

    # -- searching ------------------------------------------------------------

    @overload
    def search(  # type: ignore[overload-overlap]
        self, queries: str, k: int = ..., **options: Unpack[SearchKeywords]
    ) -> list[Hit]: ...

    @overload
    def search(
        self, queries: Sequence[str], k: int = ..., **options: Unpack[SearchKeywords]
    ) -> list[list[Hit]]: ...

    def search(
        self,
        queries: str | Sequence[str],
        k: int = 10,
        *,
        where: Filter | None = None,
        ids: Iterable[int | str] | None = None,
        candidates: int | None = None,
        recall: float | None = None,
        words: float = WORDS,
        explain: bool = False,
        threads: int | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the best texts for each query.

        Parameters
        ----------
        queries : str or sequence of str
            A blank query returns no hits.
        k : int
            Maximum number of hits for each query.
        where : mapping, optional
            A condition on the metadata, see :mod:`muvera.metadata.filters`.
        ids : collection of int or of str, optional
            Search only these texts.  Unknown ids are ignored.
        candidates, recall, threads
            As for :meth:`muvera.MuveraIndex.search`.
        words : float
            Weight of words that query and text share (BM25), from 0 to below 1.  Models are weak on rare names and
            numbers, so texts that share many words become candidates, too.  0: rank by Chamfer similarity alone.
        explain : bool
            Add word matches to each hit; takes less than a millisecond per hit.

        Returns
        -------
        list of Hit, or list of such lists
            The hits of a single string, or one list of hits for each query of a sequence.

        Raises
        ------
        TypeError, ValueError
            For an invalid condition (FilterError), a wrong setting, or `recall` without a calibration.
        """
        options = SearchOptions(k, where, ids, candidates, recall, words, explain, threads)

        def hits(_: Any, parts: Parts) -> list[Hit]:
            return [
                Hit(text.id, sum(parts[text.id].values()), text.text, text.metadata, parts[text.id])
                for text in self._get(list(parts), "ignore")  # some may have been deleted since the search
            ]

        answer = partial(self._answer, queries, options, hits)
        return self._on_one_state(answer) if explain else answer()

    @overload
    def search_sentences(  # type: ignore[overload-overlap]
        self, queries: str, k: int = ..., *, alpha: float = ..., **options: Unpack[SearchKeywords]
    ) -> list[Hit]: ...

    @overload
    def search_sentences(
        self, queries: Sequence[str], k: int = ..., *, alpha: float = ..., **options: Unpack[SearchKeywords]
    ) -> list[list[Hit]]: ...

    def search_sentences(
        self,
        queries: str | Sequence[str],
        k: int = 10,
        *,
        alpha: float = 1.0,
        **options: Unpack[SearchKeywords],
    ) -> list[Hit] | list[list[Hit]]:
        """Return the best sentences of the best texts for each query.

        Parameters
        ----------
        queries, k, **options
            As for :meth:`search`.
        alpha : float
            Weight of the whole text's score, which is added to the sentence's similarity.  `Hit.parts` has both.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`search`, or if the encoder cannot map tokens to characters.
        """
        chosen = SearchOptions(k, **options)
        texts = max(k, min(chosen.candidates or DEFAULT_CANDIDATES, 10 * k))
        hits = partial(self._sentences, k=k, alpha=alpha)
        return self._on_one_state(partial(self._answer, queries, replace(chosen, k=texts), hits))

    def _on_one_state(self, read: Callable[[], _Read]) -> _Read:
        """Call `read` on one state of the index, and return its result.

        If another thread changes the index meanwhile, call `read` again with the write lock held.
        """
        before = self._vectors._contents
        try:
            result = read()
        except (KeyError, ValueError):
            if self._vectors._contents is before:
                raise
        else:
            if self._vectors._contents is before:
                return result
        with self.index._changing:
            return read()

    def _answer(
        self, queries: Any, options: SearchOptions, hits: Callable[[Any, Parts], list[Hit]]
    ) -> list[Hit] | list[list[Hit]]:
        """Rank texts for each query, and call `hits` with its tokens and score parts; explain hits if requested."""
        contents = as_texts(queries, "queries")
        best, encoded = self._rank(contents, options)
        answers = [hits(tokens, parts) for tokens, parts in zip(encoded, best, strict=True)]
        if options.explain:
            for query, own in zip(contents, answers, strict=True):
                reasons = self._explain(query, [hit.id for hit in own])
                own[:] = [replace(hit, explanation=reason) for hit, reason in zip(own, reasons, strict=True)]
        return answers[0] if isinstance(queries, str) else answers

    def _rank(self, queries: list[str], options: SearchOptions) -> tuple[list[Parts], MultiVectors]:
        """Return the score parts of each query's best `options.k` texts, and the encoded queries."""
        k, where, within, threads = options.k, options.where, options.ids, options.threads
        encoded = encode_texts(self._encoder.encode_queries, queries)
        if where:
            allowed = None if within is None else set(within)
            within = [id for id in self._database.select(where) if allowed is None or id in allowed]
        count = max(k, DEFAULT_CANDIDATES if options.candidates is None else options.candidates)
        limits: dict[str, Any] = {"candidates": count}
        ranked = count
        if options.recall is not None:
            limits, ranked = {"recall": options.recall}, _RANKED * k
        rankings = self.index.search(
            encoded, ranked if options.words else k, ids=within, threads=threads, **limits
        )
        if not options.words:
            return [{id: {"maxsim": score} for id, score in ranking} for ranking in rankings], encoded
        matches = [
            dict(self._database.match_words(query, 2 * count, where, options.ids)) for query in queries
        ]
        maxsim = [dict(ranking) for ranking in rankings]
        others = [
            list(islice((id for id in shared if id not in known and id in self.index), count // 4))
            for shared, known in zip(matches, maxsim, strict=True)
        ]
        more = self.index.rerank(encoded, others, missing="ignore", threads=threads)
        for known, ranking in zip(maxsim, more, strict=True):
            known.update(ranking)
        pairs = zip(maxsim, matches, strict=True)
        return [add_words(known, shared, options.words, k) for known, shared in pairs], encoded

    def _sentences(self, query: Any, parts: Parts, k: int, alpha: float) -> list[Hit]:
        documents = self._get(list(parts), "ignore")
        if not documents:
            return []
        sentences = [sentences_of(document.text) for document in documents]
        spans = [
            spans_from_characters(bounds, self._spans(document.text, "document"))
            for document, bounds in zip(documents, sentences, strict=True)
        ]
        tokens = self._tokens([document.id for document in documents])
        whole = [sum(parts[document.id].values()) for document in documents]
        hits = []
        for best in rank_spans(query, tokens, spans, k, alpha=alpha, document_scores=whole):
            document = documents[best.document]
            number = spans[best.document].tolist().index([best.start, best.stop])
            start, stop = sentences[best.document][number]
            own = {"maxsim": best.span_score, "text": alpha * best.document_score}
            text = document.text[start:stop]
            hits.append(Hit(document.id, best.score, text, document.metadata, own, (start, stop)))
        return hits

    def _tokens(self, ids: list[Any]) -> MultiVectors:
        """Return the token vectors of texts; EngineTextIndex reads them from its engine."""
        return self.index.tokens(ids)

    def explain(self, query: str, id: int | str) -> TextExplanation:
        """Find which words of a text match which words of a query.

        Raise ValueError for a blank query or text, or an encoder that cannot map tokens to characters.
        """
        return self.explain_all(query, [id])[0]

    def explain_all(self, query: str, ids: Iterable[int | str]) -> list[TextExplanation]:
        """Explain several texts and encode the query once, see :meth:`explain`."""
        names = require_ids(as_id_list(ids))
        return self._on_one_state(lambda: self._explain(query, names))

    def _explain(self, query: str, ids: list[int | str]) -> list[TextExplanation]:
        if not isinstance(query, str):
            raise TypeError(f"query must be a string, got {given(query)}.")
        documents = self.get(ids)
        if not documents:
            return []
        contents = [
            ("query", query),
            *((f"document {document.id!r}", document.text) for document in documents),
        ]
        for name, text in contents:
            if not text.strip():
                raise ValueError(f"The {name} is blank: it has no words to explain. Give another one.")
        query_tokens = encode_texts(self._encoder.encode_queries, [query])[0]
        query_spans = self._spans(query, "query")
        return [
            explain_texts(
                query,
                document.text,
                query_tokens,
                np.asarray(self._tokens([document.id])[0]),
                query_spans,
                self._spans(document.text, "document"),
            )
            for document in documents
        ]

    def _spans(self, text: str, side: TextSide) -> list[tuple[int, int]]:
        spans = self._encoder.token_spans(text, side)
        if spans is None:
            raise ValueError(
                f"The encoder {self._encoder.name} does not return the characters of its tokens, which words and "
                "sentences need. Search whole texts, or use another encoder."
            )
        return spans

    def calibrate(self, queries: Sequence[str], *, threads: int | None = None) -> None:
        """Calibrate ``search(recall=)`` with at least 64 real queries, see :meth:`muvera.MuveraIndex.calibrate`."""
        encoded = encode_texts(self._encoder.encode_queries, as_texts(queries, "queries"))
        self._calibrate(encoded, threads)

    def _calibrate(self, queries: MultiVectors, threads: int | None) -> None:
        self.index.calibrate(queries, threads=threads)

    # -- reading --------------------------------------------------------------

    def get(self, ids: Iterable[int | str], *, missing: Missing = "raise") -> list[TextDocument]:
        """Return texts and metadata in the order of `ids`.

        For an unknown id, raise KeyError, or skip it with ``missing="ignore"``.
        """
        return self._get(require_ids(as_id_list(ids)), missing)

    def _get(self, ids: list[int | str], missing: Missing = "raise") -> list[TextDocument]:
        return self._database.get(ids, missing=missing)

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of texts that satisfy a condition, in insertion order; ``{}`` selects all."""
        return self._database.select(where)

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id: object) -> bool:
        return id in self.index

    def __iter__(self) -> Iterator[TextDocument]:
        return self._database.documents()

    def __repr__(self) -> str:
        return f"TextIndex({counted(len(self), 'text')}, encoder={self._encoder.name!r})"

    @property
    def index(self) -> MuveraIndex:
        """The index of token vectors.  Change texts only through this TextIndex."""
        self._database.settle()
        return self._vectors

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder."""
        return self._encoder


def _write_texts(database: DocumentDatabase, ids: IdMap, path: Path) -> None:
    """Write the database to a new file; raise ValueError if its ids differ from `ids`."""
    _require_same_ids(ids, database, "The index")
    database.save(path)


def load_folder(folder: Path) -> tuple[MuveraIndex, DocumentDatabase, list[Change]]:
    """Load the vectors and texts of the last save, and the later changes in the journal."""

    def read(manifest: dict[str, Any]) -> tuple[MuveraIndex, DocumentDatabase, list[Change]]:
        contents = read_generation(folder, manifest)
        generation = contents.generations[folder]
        if f"{generation.folder}/{TEXTS}" not in manifest["files"]:
            raise ValueError(f"{folder} is an index of token vectors without texts. Use MuveraIndex.load.")
        size = journal_bytes(folder, generation)
        database = DocumentDatabase.open(folder / generation.folder / TEXTS)
        changes = list(read_journal(folder / generation.journal))
        if Generation.of(read_manifest(folder)) != generation:  # a save has emptied the journal
            raise IndexFolderError(f"{folder} was saved while it was loaded. Load it again.")
        _require_same_ids(contents.ids, database, str(folder))
        contents.generations = {folder: replace(generation, journal_bytes=size)}
        return MuveraIndex._of(contents), database, changes

    return read_current(folder, read)


def _require_same_ids(ids: IdMap, database: DocumentDatabase, name: str) -> None:
    if len(database) != len(ids) or set(database.select({})) != set(ids.of(ids.live).tolist()):
        sizes = f"{counted(len(database), 'text')} and {counted(len(ids), 'set')} of token vectors"
        raise ValueError(
            f"{name} has {sizes}, and their ids must be the same: the vectors were changed without the texts. Build "
            "the index again."
        )


def required_encoder(name: str, encoder: TextEncoder | str | None, folder: Path | str) -> TextEncoder:
    """Return the encoder of an index that was built with the encoder `name`."""
    if isinstance(encoder, NoEncoder):
        return NoEncoder(name)
    if encoder is None and name not in BUILT_IN:
        raise ValueError(
            f"{folder} names the text encoder {name!r}, but only {' and '.join(BUILT_IN)} are loaded by default. "
            "Give encoder= (--encoder) if you trust it."
        )
    model = as_text_encoder(name if encoder is None else encoder)
    if model.name != name:
        raise ValueError(
            f"{folder} was built with the encoder {name!r}, got {model.name!r}: their vectors are not comparable. "
            f"Load it with {name!r}, or build the index again."
        )
    return model


def _ids_for(texts: list[str] | None, ids: Any) -> list[int | str]:
    """Return distinct ids of one type, one for each text."""
    names = require_ids(as_id_list(ids))
    as_ids(names, len(names) if texts is None else len(texts))
    return names


def _metadata_for(texts: Sized, metadata: Iterable[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    values = [{}] * len(texts) if metadata is None else list(metadata)
    if len(values) != len(texts):
        entries = counted(len(values), "entry", "entries")
        raise ValueError(f"metadata has {entries} for {counted(len(texts), 'text')}. Give one per text.")
    return values


def _with_ids(batches: Iterator[MultiVectors], ids: list[Any]) -> Iterator[MultiVectors]:
    start = 0
    for batch in batches:
        yield batch.with_ids(ids[start : start + len(batch)])
        start += len(batch)
