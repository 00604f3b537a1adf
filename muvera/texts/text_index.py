"""TextIndex: index texts with metadata, and search, filter and explain them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, NoReturn, overload

from ..data.multivectors import MultiVectors, cut_parts
from ..data.validation import TokenArray, as_ids
from ..engines.base import Engine
from ..fde.config import FDEConfig
from ..fde.encoder import FDEEncoder
from ..fde.files import as_encoder
from ..index.contents import IndexContents
from ..index.generations import Destination, require_place
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..index.settings import IndexInfo, IndexSettings
from ..metadata import Filter, TextDocument
from ..metadata.groups import Group, best_of_groups
from ..reranking.coded_vectors import CodedVectors
from ..reranking.table_codec import TableCodec
from ..utils.checks import as_id_list, as_path, counted, given, require_int, require_number, url_scheme
from .database import DocumentDatabase, merge_metadata, require_ids
from .encoders.base import (
    NoEncoder,
    ScoreWeights,
    TextEncoder,
    as_texts,
    encode_in_batches,
    encode_rows,
    encode_rows_in_batches,
    encode_texts,
    first_stage,
    passage_length,
    score_weights,
    table_encoder,
)
from .encoders.registry import as_text_encoder, required_encoder
from .engine_texts import open_engine_texts
from .hit import (
    WORDS,
    Hit,
    SearchKeywords,
    SearchOptions,
    TextExplanation,
    chosen_weights,
    explain_all,
    require_weights,
    sentence_hits,
)
from .journal import DurableFolder, opened_folder, repeating_changes
from .protocol import NewTexts, Texts
from .ranking import Parts
from .reranking import rerank_texts
from .store import TextStore, read_folder, stored_means

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

# Texts whose sentences are ranked, for each sentence to return: the best sentence can
# be in a text that is not among the k best.
_TEXTS_PER_SENTENCE = 10


class TextIndex:
    """A searchable collection of texts with metadata.

    It has a text encoder, and a place where texts and token vectors are stored.
    :meth:`build`, :meth:`load` and :meth:`open` return one.  Threads may search while
    another thread changes texts.

    Parameters
    ----------
    texts : Texts
        The texts, their metadata and their token vectors, in this process or in a
        database.
    encoder : TextEncoder
        The model that encodes texts and queries.

    Examples
    --------
    >>> from muvera import TextIndex
    >>> texts = ["a red apple", "a green pear"]
    >>> index = TextIndex.build(texts, "colbert-small")  # doctest: +SKIP
    >>> index.search("fruit that is red", k=1)[0].text  # doctest: +SKIP
    'a red apple'
    """

    def __init__(self, texts: Texts, encoder: TextEncoder) -> None:
        self._texts = texts
        self._encoder = encoder

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        encoder: TextEncoder | str = "static",
        *,
        vectors: str | FDEConfig | FDEEncoder | None = None,
        ids: Sequence[int | str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        settings: IndexSettings | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
        **changes: Any,
    ) -> TextIndex:
        """Build a text index.

        Parameters
        ----------
        texts : iterable of str
            May be empty.  Blank texts are stored, but no search returns them.
        encoder : TextEncoder or str
            A name is loaded by :func:`muvera.load_text_encoder`.  Default: "static", a
            table of token vectors that pip installs (extra ``static``), so nothing is
            downloaded.  It encodes thousands of texts a second, and every text is
            ranked exactly.  A ColBERT model, such as "colbert-small", gives better
            rankings.  Wrap an expensive model in
            :class:`muvera.texts.encoders.base.CachedEncoder` to resume an interrupted
            build.
        vectors : str, configuration or fitted encoder, optional
            How token vectors become one vector per text: the ``encoder`` of
            :meth:`muvera.MuveraIndex.build`.  Default: as in that method; with an
            encoder that has a table, such as "static", no vectors are made, unless this
            or `tokens` is given.
        ids : sequence of int or of str, optional
            Default: 0, 1, 2, ...
        metadata : sequence of dict, optional
            One for each text, for filters.
        path : path, optional
            Also save the index to this folder, see :meth:`save`.  Later changes stay in
            memory until :meth:`save`; an index from :meth:`open` writes each change to
            disk.
        overwrite : bool
            Replace another index in `path`.
        settings : IndexSettings, optional
            As for :meth:`muvera.MuveraIndex.build`.  Tokens are stored as "int8" by
            default, or as rows of the encoder's table.
        threads : int, optional
            As for :meth:`muvera.MuveraIndex.build`.  Default: all usable cores.
        progress : callable, optional
            Called with the number of texts in each batch, after it.
        **changes
            Single settings, as for :meth:`muvera.MuveraIndex.build`.

        Returns
        -------
        TextIndex

        Raises
        ------
        TypeError, ValueError
            For texts that are not strings, metadata that JSON cannot represent, or
            repeated ids.
        FileExistsError
            If `path` exists and `overwrite` is False.
        """
        if path is not None:
            require_place(as_path(path), overwrite)
        model = as_text_encoder(encoder)
        contents = as_texts(texts)
        names = list(range(len(contents))) if ids is None else _ids_for(contents, ids)
        chosen = IndexSettings.of(settings, **changes)
        has_rows = vectors is None and chosen.tokens is None and chosen.pool == 1
        rows = table_encoder(model) if has_rows else None
        vectors = first_stage(model) if vectors is None else vectors
        passage = passage_length(model) if rows is None else rows.passage
        database = DocumentDatabase(model.name, passage, means=rows is None)
        database.put(names, contents, _metadata_for(contents, metadata))
        chosen = chosen if chosen.tokens or rows else IndexSettings.of(chosen, tokens="int8")
        if contents:
            batches: Iterator[MultiVectors | CodedVectors]
            if rows is None:
                encoded = encode_in_batches(model.encode_documents, contents, names, progress)
                whole = _storing_means(encoded, database)
                batches = whole if passage is None else (cut_parts(batch, passage) for batch in whole)
            else:
                batches = encode_rows_in_batches(rows, contents, names, progress)
            destination = None if path is None else Destination(as_path(path).resolve(), overwrite)
            table = None if rows is None else rows.codec
            store = TextStore.build(batches, database, vectors, chosen, destination, threads, table)
            return cls(store, model)
        if rows is None:
            columns = model.encode_queries(["."]).dimension  # one query has the dimension
            index = MuveraIndex(vectors, dimension=columns, settings=chosen)
        else:
            config, fitted = as_encoder(vectors, rows.codec.dimension)
            index = MuveraIndex.of(IndexContents.empty(config, chosen, fitted, rows.codec))
        built = cls(TextStore(index, database), model)
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
        """Add texts under new ids.

        All are added or none, except in a database, where batches written before an
        error stay.

        Parameters
        ----------
        texts : iterable of str, or str
            A single string is one text.
        ids : sequence of int or of str, optional
            Default: the next integers.  A database needs ids.
        metadata : sequence of dict, optional
            One for each text, for filters.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of int or of str
            The ids, in the order of the texts.

        Raises
        ------
        TypeError, ValueError
            For an id in use, or as for :meth:`build`.
        OSError
            If the disk is full.  Nothing is added then.
        """
        contents = as_texts(texts)
        names = None if ids is None else _ids_for(contents, ids)
        values = _metadata_for(contents, metadata)
        if not contents:  # few models can encode an empty list
            return []
        encoded = self._encoded(contents)
        encoded = encoded if names is None else encoded.with_ids(names)
        return self._texts.put(NewTexts(encoded, contents, values), threads)

    def update(
        self,
        texts: Iterable[str] | str | None = None,
        *,
        ids: Sequence[int | str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        threads: int | None = None,
    ) -> None:
        """Replace texts by id and add texts with new ids.

        All are changed or none, except in a database, where batches written before an
        error stay.

        Parameters
        ----------
        texts : iterable of str, or str, optional
            Default: only metadata changes, and texts keep their place in
            :meth:`select`.
        ids : sequence of int or of str
            One for each text or each entry of `metadata`.
        metadata : sequence of dict, optional
            With texts, it replaces the stored metadata.  Default: keep the metadata of
            ids that are in use.  Without texts, it changes single fields: None removes
            a field, and other fields are kept.
        threads : int, optional
            Default: all usable cores.

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
        values = None if metadata is None else _metadata_for(names, metadata)
        if contents is not None:
            encoded = self._encoded(contents).with_ids(names)
        with self._texts.changing:
            if contents is None:
                found = self._texts.get(names)
                self._texts.put_metadata(found, list(map(merge_metadata, found, values or [])))
                return
            if values is None:
                kept = {one.id: one.metadata for one in self._texts.get(names, missing="ignore")}
                values = [kept.get(name, {}) for name in names]
            self._texts.put(NewTexts(encoded, contents, values), threads, update=True)

    def _encoded(self, texts: list[str]) -> MultiVectors | CodedVectors:
        """Return the tokens of texts as the index stores them."""
        rows, table = table_encoder(self._encoder), self._texts.table
        if table is None:
            return encode_texts(self._encoder.encode_documents, texts)
        assert rows is not None
        return encode_rows(rows, texts, table)

    def delete(self, ids: Iterable[int | str], *, missing: Missing = "raise") -> None:
        """Delete texts by id.

        Parameters
        ----------
        ids : collection of int or of str
            The texts to delete.
        missing : {"raise", "ignore"}
            For an unknown id, raise KeyError and delete nothing, or ignore it.

        Raises
        ------
        KeyError
            See `missing`.
        OSError
            If the disk is full.  Nothing is deleted then.
        """
        self._texts.delete(require_ids(as_id_list(ids)), missing=missing)

    def rebuild(self, *, fit: bool = False, threads: int | None = None) -> None:
        """Free the memory of deleted texts and recompute all FDEs.

        Tokens that an older version stored as codes become rows if the text encoder has
        a table.  The encoder of FDEs is fitted again if :meth:`info` warns about its
        fit, see :meth:`muvera.MuveraIndex.rebuild`.  An index from :meth:`open` is then
        saved.

        Parameters
        ----------
        fit : bool
            Fit the encoder of FDEs again in any case.
        threads : int, optional
            Default: all usable cores.

        Raises
        ------
        EngineError
            For texts in a database.
        """
        rows, texts = table_encoder(self._encoder), self._texts
        if rows is not None and isinstance(texts, TextStore) and texts.was_default:
            texts.replace_by_rows(rows)
        else:
            texts.rebuild(fit, threads)

    def save(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        """Write the vectors, the texts and the encoder's name to a folder.

        This is one atomic step: an interruption leaves the old index or the new one.
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
            As for :meth:`muvera.MuveraIndex.save`, and if the folder of an index from
            :meth:`open` was moved, removed or replaced.
        """
        self._texts.save(path, overwrite)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Engine,
        encoder: TextEncoder | str | None = None,
        *,
        save_changes: int = 1000,
        save_seconds: float = 300.0,
    ) -> TextIndex:
        """Open a saved index, or texts in a database, for durable changes.

        A change is durable once the method returns: it survives if the process is
        killed or the machine stops.  Changes to a folder are first written to a
        journal, which background saves empty.  Only one process can open a folder;
        others can load it.  Use the index as a context manager, or call :meth:`close`.
        If the folder is moved, removed or replaced meanwhile, changes raise OSError and
        change nothing.

        Parameters
        ----------
        path : path, str or Engine
            A folder written by :meth:`save`, or a collection that ``muvera load``
            filled with texts, by its URL, such as
            ``"postgresql://user@host/database#docs"``, or as an opened engine.
        encoder : TextEncoder or str, optional
            As for :meth:`load`.  An empty collection needs it.
        save_changes : int
            Save a folder after about this many changed texts; a long text counts as
            several.  Lower values speed up recovery after a crash, which encodes
            unsaved texts again, but save more often.
        save_seconds : float
            Save a folder after this many seconds with changes: at most
            ``threading.TIMEOUT_MAX``, the longest time that a thread can wait.

        Returns
        -------
        TextIndex

        Raises
        ------
        FileNotFoundError, IndexFolderError, ValueError
            As for :meth:`load`, and if another process writes the folder.
        EngineError
            If the database cannot be reached, or the collection has no texts.
        """
        if isinstance(path, Engine) or url_scheme(str(path)):
            engine = path if isinstance(path, Engine) else str(path)
            texts, model = open_engine_texts(engine, encoder)
            return cls(texts, model)
        require_int("save_changes", save_changes, 1)
        require_number("save_seconds", save_seconds, 0.001, TIMEOUT_MAX)
        place = as_path(path).resolve()
        with opened_folder(place, save_changes, save_seconds) as folder:
            return cls._load(place, encoder, folder)

    def close(self) -> None:
        """Save the changes of an index from :meth:`open`, and release its folder.

        Searches still work.

        Raises
        ------
        OSError
            If the disk is full.  The folder is released nevertheless, and its journal
            contains all changes.
        """
        self._texts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: TextEncoder | str | None = None) -> TextIndex:
        """Load a text index, with the changes in its journal.

        Parameters
        ----------
        path : path
            A folder written by :meth:`save`.
        encoder : TextEncoder or str, optional
            Must have the name of the encoder that built the index.  Default: that
            encoder, if it is "static", "colbert-small" or "minilm"; other models can
            run code or send texts elsewhere.

        Returns
        -------
        TextIndex
            Its changes do not reach the folder until :meth:`save`.

        Raises
        ------
        FileNotFoundError, IndexFolderError
            If the folder contains no index, a damaged one, or one of another format
            version.
        ValueError
            For an index without texts, a missing `encoder`, or an encoder that did not
            build the index.
        """
        return cls._load(as_path(path).resolve(), encoder)

    @classmethod
    def _load(
        cls, place: Path, encoder: TextEncoder | str | None, folder: DurableFolder | None = None
    ) -> TextIndex:
        """Load an index with the changes in its journal.

        The open `folder` then keeps each later change.
        """
        index, database, changes = read_folder(place)
        if database.fact("kind") is not None:
            raise ValueError(f"{place} is an index of pages. Use PageIndex.load or PageIndex.open.")
        name = str(database.text_encoder)
        unsaved = any(change.texts is not None for change in changes)
        texts = TextStore(index, database)
        model = required_encoder(name, encoder, place, encodes=unsaved)
        attach_table(texts.table, model, place)
        loaded = cls(texts, model)
        with repeating_changes(place):
            for change in changes:
                if change.metadata is None:
                    loaded.delete(change.ids, missing="ignore")
                elif change.texts is None:
                    texts.put_metadata(texts.get(change.ids), change.metadata)
                else:
                    loaded.update(change.texts, ids=change.ids, metadata=change.metadata)
        if folder is not None:
            folder.unsaved = sum(len(change.ids) for change in changes)
            texts.keep(folder)
        return loaded

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
        words: float | None = None,
        mean: float | None = None,
        group_by: str | None = None,
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
            A condition on the metadata, see :mod:`muvera.metadata`.  An unknown field
            is not an error: ``$ne``, ``$nin``, ``$not`` and ``{"$exists": False}``
            match every text, and all other operators match none.
        ids : collection of int or of str, optional
            Search only these texts.  Unknown ids are ignored.
        candidates : int, optional
            Number of texts to rank exactly, at least `k`.  More raise recall and take
            longer, in proportion.  Default: 200 (in a database: 100), or as many as
            contain 95% of the k best according to the calibration.  If tokens are rows
            of a table, all texts are ranked, and `candidates` are the texts that words
            and means reorder.
        recall : float, optional
            Instead of `candidates`: the mean share of the exact best to find, see
            :meth:`muvera.MuveraIndex.search`.
        words : float, optional
            Weight of words that query and text share (BM25), from 0 (none) to below 1.
            Models are weak on rare names and numbers, so texts that share many words
            become candidates, too, except in a database.
        mean : float, optional
            Weight of the cosine of the mean token vectors, from 0 to below 1.  `words`
            and `mean` must be below 1 together; the rest is the weight of similarity.
            If you give one of them, the other is 0.  Default of both: 0.2; with the
            encoder "static", 0.4 for `words` and 0.2 for `mean`.  An index without mean
            vectors (in a database, or built by an older version) has the default 0.1
            for `words` and 0 for `mean`.
        group_by : str, optional
            A metadata field, such as "brand": return only the best text of each value.
            The others are left out of the ranking; scores stay as they are.  A text
            without a value forms a group by itself.  Lists with the same elements are
            one value.  Groups are looked for in as many texts as needed, but in at most
            `candidates`.  Default: 10,000 if all texts are ranked, 1,000 if vectors
            propose candidates; in a database, the default of `candidates`.
        explain : bool
            Add word matches to each hit.  This reads the tokens of each hit and splits
            its text into tokens again.  Default: False.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Hit, or list of such lists
            The hits of a single string, or one list of hits for each query of a
            sequence.

        Raises
        ------
        TypeError, ValueError
            For an invalid condition (FilterError), a wrong setting, `recall` without a
            calibration, `mean` for an index without mean vectors, or a `group_by` field
            in which no text has a value.
        """
        options = self._weighted(
            SearchOptions(
                k, where, ids, candidates, recall, words, mean, explain, threads, self._passage,
                group_by=group_by, grouped=candidates,
            )
        )  # fmt: skip
        texts = as_texts(queries, "queries")
        encoded = encode_texts(self._encoder.encode_queries, texts)

        def find() -> list[list[Hit]]:
            ranked = self._texts.rank(texts, encoded, options)
            found = [self._hits(parts) for parts in ranked]
            return self._explained(texts, encoded, found) if explain else found

        # An explanation needs a text and its tokens, both from the same state.
        found = self._texts.on_one_state(find) if explain else find()
        return found[0] if isinstance(queries, str) else found

    @overload
    async def asearch(  # type: ignore[overload-overlap]
        self, queries: str, k: int = ..., **options: Unpack[SearchKeywords]
    ) -> list[Hit]: ...

    @overload
    async def asearch(
        self, queries: Sequence[str], k: int = ..., **options: Unpack[SearchKeywords]
    ) -> list[list[Hit]]: ...

    async def asearch(
        self, queries: str | Sequence[str], k: int = 10, **options: Unpack[SearchKeywords]
    ) -> list[Hit] | list[list[Hit]]:
        """Call :meth:`search` in a thread, so that the event loop keeps running.

        A cancelled call does not stop its thread, but its hits are dropped.

        Parameters
        ----------
        queries : str or sequence of str
            As for :meth:`search`.
        k : int
            Maximum number of hits for each query.
        **options
            Other arguments of :meth:`search`.  With many searches at a time,
            ``threads=1`` gives each of them one core.

        Returns
        -------
        list of Hit, or list of such lists
            As for :meth:`search`.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`search`.
        """
        import asyncio  # whoever awaits this has imported it

        return await asyncio.to_thread(lambda: self.search(queries, k, **options))

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
        queries : str or sequence of str
            As for :meth:`search`.
        k : int
            Maximum number of sentences for each query.  They come from the best
            ``10 * k`` texts, but from at most `candidates` texts.
        alpha : float
            Weight of the whole text's score, which is added to the sentence's
            similarity.  `Hit.parts` has both.
        **options
            Other arguments of :meth:`search`.

        Returns
        -------
        list of Hit, or list of such lists
            As for :meth:`search`.  `Hit.text` is the sentence, and `Hit.span` its place
            in the text.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`search`, or if the encoder cannot map tokens to characters.
        """
        unknown = sorted(set(options) - set(SearchKeywords.__annotations__))
        if unknown:
            raise TypeError(f"search_sentences() has no argument {unknown[0]!r}. See TextIndex.search.")
        chosen = self._weighted(SearchOptions(k, **options, passage=self._passage))
        most = min(chosen.num_candidates, _TEXTS_PER_SENTENCE * k)
        more_texts = replace(chosen, k=most, group_by=None)
        texts = as_texts(queries, "queries")
        encoded = encode_texts(self._encoder.encode_queries, texts)

        def find() -> list[list[Hit]]:
            ranked = self._texts.rank(texts, encoded, more_texts)
            groups = None
            if chosen.group_by is not None:
                groups = self._texts.groups(chosen.group_by, list({id: None for one in ranked for id in one}))
            found = [
                self._sentences(tokens, parts, k, alpha, groups)
                for tokens, parts in zip(encoded, ranked, strict=True)
            ]
            return self._explained(texts, encoded, found) if chosen.explain else found

        # A sentence needs a text and its tokens, both from the same state.
        found = self._texts.on_one_state(find)
        return found[0] if isinstance(queries, str) else found

    def rerank(
        self,
        query: str,
        texts: Iterable[str],
        k: int | None = None,
        *,
        words: float | None = None,
        mean: float | None = None,
        threads: int | None = None,
    ) -> list[Hit]:
        """Rank given texts, which need not be in the index, with the index's encoder.

        Parameters
        ----------
        query : str
            A blank query returns no hits.
        texts : iterable of str
            For example what another search found.  All are encoded, which takes most of
            the time.
        k : int, optional
            Maximum number of hits.  Default: all texts that are not blank.
        words, mean : float, optional
            As for :meth:`search`.  Only `texts` count for how rare a word is.
            Default of both: 0.2; with the encoder "static", 0.4 and 0.2.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Hit
            Best first.  `Hit.id` is the position in `texts`.  Scores of different calls
            cannot be compared, because the parts "words" and "mean" depend on all texts
            of a call.

        Raises
        ------
        TypeError, ValueError
            For texts that are not strings, or a wrong setting.

        Examples
        --------
        >>> texts = ["a pear", "a red apple"]
        >>> index.rerank("red fruit", texts)[0].id  # doctest: +SKIP
        1
        """
        if not isinstance(query, str):
            raise TypeError(f"query must be a string, got {given(query)}.")
        if isinstance(texts, str):
            raise TypeError(f"texts must be several strings, got one: {texts!r:.80}. Put it into a list.")
        contents = as_texts(texts)
        if k is not None:
            require_int("k", k, 1)
        require_weights(words, mean)
        weights = chosen_weights(words, mean, score_weights(self._encoder))
        count = len(contents) if k is None else k
        return rerank_texts(self._encoder, query, contents, count, weights, threads).hits

    @property
    def _passage(self) -> int | None:
        """The number of tokens of a passage, by which long texts are ranked."""
        rows = None if self._texts.table is None else table_encoder(self._encoder)
        return passage_length(self._encoder) if rows is None else rows.passage

    def _weighted(self, options: SearchOptions) -> SearchOptions:
        """Return the options with the weights of the score's parts."""
        if self._texts.has_means:
            return options.weighted(score_weights(self._encoder))
        if options.mean:
            raise ValueError(
                f"mean must be 0 for an index without mean vectors, got {options.mean}. Build the index "
                "again in a folder."
            )
        return options.weighted(ScoreWeights(WORDS, 0.0))

    def _hits(self, parts: Parts) -> list[Hit]:
        """Return the hits of one query, given the parts of their scores."""
        # Texts may have been deleted since they were ranked.
        documents = self._texts.get(list(parts), missing="ignore")
        return [
            Hit(stored.id, sum(parts[stored.id].values()), stored.text, stored.metadata, parts[stored.id])
            for stored in documents
        ]

    def _sentences(
        self, query: TokenArray, parts: Parts, k: int, alpha: float, groups: Mapping[Any, Group] | None
    ) -> list[Hit]:
        """Return the best sentences for one query, given the score parts of texts.

        With `groups` of texts, return only the best sentence of each group.
        """
        documents = self._texts.get(list(parts), missing="ignore")
        if not documents:
            return []
        tokens = self._texts.tokens([document.id for document in documents])
        scores = [sum(parts[document.id].values()) for document in documents]
        if groups is None:
            return sentence_hits(self._encoder, query, documents, tokens, scores, k, alpha)
        hits = sentence_hits(self._encoder, query, documents, tokens, scores, None, alpha)
        return [hits[i] for i in best_of_groups([hit.id for hit in hits], groups, k)]

    def _explained(
        self, queries: list[str], encoded: MultiVectors, found: list[list[Hit]]
    ) -> list[list[Hit]]:
        """Return the hits of each query with explanations."""
        explained = []
        for query, tokens, hits in zip(queries, encoded, found, strict=True):
            explanations = self._explain(query, tokens, [hit.id for hit in hits])
            explained.append(
                [replace(hit, explanation=one) for hit, one in zip(hits, explanations, strict=True)]
            )
        return explained

    def explain(self, query: str, id: int | str) -> TextExplanation:
        """Find which words of a text match which words of a query.

        Parameters
        ----------
        query : str
            The text of the query.
        id : int or str
            The text.

        Returns
        -------
        TextExplanation

        Raises
        ------
        KeyError
            For an unknown id.
        TypeError
            If `query` is not a string.
        ValueError
            For a blank query or text, or an encoder that cannot map tokens to
            characters.
        """
        return self.explain_all(query, [id])[0]

    def explain_all(self, query: str, ids: Iterable[int | str]) -> list[TextExplanation]:
        """Explain several texts, and encode the query once.

        Parameters
        ----------
        query : str
            The text of the query.
        ids : collection of int or of str
            The texts.

        Returns
        -------
        list of TextExplanation
            In the order of `ids`.

        Raises
        ------
        KeyError, TypeError, ValueError
            As for :meth:`explain`.
        """
        names = require_ids(as_id_list(ids))
        if not isinstance(query, str):
            raise TypeError(f"query must be a string, got {given(query)}.")
        tokens = encode_texts(self._encoder.encode_queries, [query])[0]
        return self._texts.on_one_state(lambda: self._explain(query, tokens, names))

    def _explain(self, query: str, tokens: TokenArray, ids: list[int | str]) -> list[TextExplanation]:
        documents = self._texts.get(ids)
        if not documents:
            return []
        distinct = list(dict.fromkeys(document.id for document in documents))
        vectors = dict(zip(distinct, self._texts.tokens(distinct), strict=True))
        of_documents = [vectors[document.id] for document in documents]
        return explain_all(self._encoder, query, tokens, documents, of_documents)

    def calibrate(self, queries: Sequence[str], *, threads: int | None = None) -> None:
        """Measure how many candidates ``search(recall=)`` needs for real queries.

        See :meth:`muvera.MuveraIndex.calibrate`.

        Parameters
        ----------
        queries : sequence of str
            At least 64, typical of later ones.
        threads : int, optional
            Default: all usable cores.

        Raises
        ------
        ValueError
            For fewer queries.
        """
        encoded = encode_texts(self._encoder.encode_queries, as_texts(queries, "queries"))
        self._texts.calibrate(encoded, threads=threads)

    def get(self, ids: Iterable[int | str], *, missing: Missing = "raise") -> list[TextDocument]:
        """Return texts and metadata by id.

        Parameters
        ----------
        ids : collection of int or of str
            The texts to return.
        missing : {"raise", "ignore"}
            For an unknown id, raise KeyError, or skip it.

        Returns
        -------
        list of TextDocument
            With `id`, `text` and `metadata`, in the order of `ids`.

        Raises
        ------
        KeyError
            See `missing`.
        """
        return self._texts.get(require_ids(as_id_list(ids)), missing=missing)

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of texts that satisfy a condition, in insertion order.

        In a database, they are in the order of the ids.

        Parameters
        ----------
        where : mapping
            See :mod:`muvera.metadata`; ``{}`` selects all texts.

        Returns
        -------
        list of int or of str
            Empty if no text satisfies the condition.

        Raises
        ------
        FilterError
            For an invalid condition, or one that the database cannot answer.
        """
        return self._texts.select(where)

    def info(self) -> IndexInfo:
        """Return the sizes, settings, measured recall and warnings of :attr:`index`.

        Returns
        -------
        IndexInfo
            As for :meth:`muvera.MuveraIndex.info`.

        Raises
        ------
        EngineError
            For texts in a database.
        """
        return self.index.info()

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, id: object) -> bool:
        return id in self._texts

    def __iter__(self) -> Iterator[TextDocument]:
        return iter(self._texts)

    def __repr__(self) -> str:
        return f"TextIndex({self._texts}, encoder={self._encoder.name!r})"

    def __reduce__(self) -> NoReturn:
        """Raise TypeError, as locks and open files cannot be pickled or copied."""
        raise TypeError(
            "A TextIndex cannot be pickled or copied, because it has locks and open files or "
            "connections. Save texts to a folder, and load the folder in the other process or as the "
            "copy; open a database there by its URL."
        )

    @property
    def index(self) -> MuveraIndex:
        """The index of token vectors.  Change texts only through this TextIndex."""
        return self._texts.vectors

    @property
    def texts(self) -> Texts:
        """The texts, their metadata and their token vectors.

        For the other modules of this package; its attributes may change in any version.
        """
        return self._texts

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder."""
        return self._encoder


def attach_table(table: TableCodec | None, encoder: object, place: Path) -> None:
    """Give the codec of a loaded index the table of the text encoder."""
    if table is None or isinstance(encoder, NoEncoder):
        return
    rows = table_encoder(encoder)
    if rows is None:
        raise ValueError(
            f"{place} stores tokens as rows of a table, but the encoder {getattr(encoder, 'name', '')!r} has "
            "none. Give the TableEncoder that built the index."
        )
    table.attach(rows.codec)


def _storing_means(batches: Iterable[MultiVectors], database: DocumentDatabase) -> Iterator[MultiVectors]:
    """Yield the batches, after the mean vectors of each were stored."""
    for batch in batches:
        assert batch.ids is not None
        database.put_means(zip(batch.ids.tolist(), stored_means(batch), strict=True))
        yield batch


def _ids_for(texts: Sized | None, ids: Iterable[int | str]) -> list[int | str]:
    """Return distinct ids of one type, one for each text."""
    names = require_ids(as_id_list(ids))
    as_ids(names, len(names) if texts is None else len(texts))
    return names


def _metadata_for(texts: Sized, metadata: Iterable[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    if isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a list of dictionaries, got {given(metadata)}. Give [metadata].")
    values = [{}] * len(texts) if metadata is None else list(metadata)
    if len(values) != len(texts):
        entries = counted(len(values), "entry", "entries")
        raise ValueError(f"metadata has {entries} for {counted(len(texts), 'text')}. Give one per text.")
    return values
