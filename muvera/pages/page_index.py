"""PageIndex: index the patch vectors of pages, search them, and show what matched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..convert import open_source
from ..convert.parsing import read_json_object
from ..data.multivectors import MultiVectors, MultiVectorsLike, as_multivectors, checked_texts
from ..data.validation import as_ids
from ..engines.base import Engine
from ..fde.files import as_encoder
from ..index.contents import IndexContents
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..index.settings import IndexSettings
from ..index.token_store import CodeStore, Level
from ..metadata import Filter, TextDocument
from ..reranking.chamfer import chamfer_matrix
from ..reranking.codecs import CODECS
from ..texts.database import DocumentDatabase, merge_metadata, require_ids
from ..texts.encoders.base import ScoreWeights, TableEncoder, encode_rows, encode_texts, score_weights
from ..texts.encoders.pages import COLPALI_GRID, PageEncoder, TextLayerEncoder
from ..texts.encoders.registry import as_page_encoder, required_page_encoder
from ..texts.engine_texts import EngineTexts
from ..texts.hit import WORDS, SearchOptions, chosen_weights, require_weights
from ..texts.journal import DurableFolder, TextChange, opened_folder, repeating_changes
from ..texts.protocol import NewTexts, Texts
from ..texts.store import TextStore
from ..texts.text_index import attach_table
from ..utils.atomic_files import atomic_folder
from ..utils.checks import (
    as_id_list,
    as_path,
    counted,
    given,
    require_choice,
    require_int,
    require_number,
    url_scheme,
)
from ..utils.hints import Argument, Message
from .collection import open_engine_pages
from .folder import KIND, PAGES, ROOT, is_former, read_pages
from .hit import PageHit, Source
from .page import (
    DOCUMENT,
    Grids,
    Page,
    PageFacts,
    Special,
    of_each,
    own_metadata,
    pool_page,
    require_own_fields,
    visible_metadata,
)
from .query import PageQueries, PageQuery, required
from .reranking import rank_pages

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

#: Patches that are replaced by one mean.  ColPali's authors keep 97.8% of the nDCG with
#: it; `python -m experiments pages` compares it with others.
FACTOR = 3.0

# Pages that are ranked by their means, in tens of milliseconds on one core.  With
# fewer, the single vectors miss pages: see `python -m experiments pages`.
_CANDIDATES = 5000

# Pages of a collection with at most this many pooled tokens, about 10,000 pages, are
# all ranked.
_EXACT_TOKENS = 3_500_000


class PageSearchKeywords(TypedDict, total=False):
    """Keyword arguments of :meth:`muvera.PageIndex.search`."""

    text: str | Sequence[str] | None
    where: Filter | None
    ids: Iterable[int | str] | None
    candidates: int | None
    recall: float | None
    rescore: int | None
    words: float | None
    group_by: str | None
    threads: int | None


class PageIndex:
    """A searchable collection of pages, each a set of patch vectors.

    Means of similar patches rank the pages.  Codes of all patches, on disk once the
    index is saved, rank the best pages again and make heat maps.  Vectors without a
    place on the page, such as vectors of a prompt, are not pooled.  If pages have text,
    words that they share with the query can count, too.

    Pages are in memory or in a folder.  :meth:`open` also opens pages in a database,
    which stores all vectors and no means.

    Several threads may search while another thread changes or saves the index.

    Parameters
    ----------
    dimension : int
        Columns of a vector.
    encoder : PageEncoder, TableEncoder or str, optional
        The model that encodes pages and queries, or its name.  Needed for text
        queries; not for vector queries.  With "static" or another encoder with a table,
        the index encodes the text of pages, which then have no vectors: two bytes for a
        token, and every page is ranked exactly, as in :class:`muvera.TextIndex`.
    factor : float
        Patches that one mean replaces.  Divides the memory and the time of the ranking;
        the best pages are ranked again by all patches.  Not for text, like `patches`.
    patches : {"int8", "4bit", "2bit", "1bit"}
        Codes of the unpooled patches: 130, 67, 35 and 19 bytes for 128 columns.  An
        index of fewer than 50,000 vectors stores floats, 512 bytes.
    root : path, optional
        Folder of the documents with relative names.  Default: the current one.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(3, 17, 8))
    >>> vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    >>> names = [("report.pdf", 1), ("report.pdf", 2), ("plan.pdf", 1)]
    >>> index = PageIndex.from_arrays(vectors, grids=(4, 4), pages=names)
    >>> hit = index.search(vectors[1, 5:8], k=1)[0]
    >>> hit.page, hit.heatmap().shape
    (('report.pdf', 2), (4, 4))
    """

    def __init__(
        self,
        dimension: int,
        encoder: PageEncoder | TableEncoder | str | None = None,
        *,
        factor: float = FACTOR,
        patches: str = "int8",
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        columns = require_int("dimension", dimension, 1)
        require_number("factor", factor, 1)
        require_choice("patches", patches, CODECS)
        self._root = None if root is None else as_path(root).resolve()
        self._served_root = self._root
        self._encoder = None if encoder is None else as_page_encoder(encoder)
        self._made_by = "" if self._encoder is None else self._encoder.name
        reader = self._reader
        if reader is None:
            # "simhash" is not fitted on the first pages, which later ones may not
            # resemble.
            vectors = MuveraIndex(
                "simhash", dimension=columns, tokens=patches, pool=factor, exact_tokens=_EXACT_TOKENS
            )
        else:
            if columns != reader.codec.dimension:
                raise ValueError(
                    f"The vectors of {reader.name!r} have {reader.codec.dimension} columns, got "
                    f"dimension={columns}."
                )
            config, fitted = as_encoder(reader.first_stage, columns)
            vectors = MuveraIndex.of(IndexContents.empty(config, IndexSettings(), fitted, reader.codec))
        facts = {KIND: PAGES, ROOT: None if self._root is None else str(self._root)}
        passage = None if reader is None else reader.passage
        database = DocumentDatabase(self._made_by, passage, means=False, facts=facts)
        self._pages: TextStore | EngineTexts = TextStore(vectors, database)
        self._folder: Path | None = None

    # -- building -------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        vectors: Any,
        lengths: ArrayLike | None = None,
        *,
        grids: Grids | None = None,
        special: Special | None = None,
        pages: Sequence[tuple[str, int]] | None = None,
        ids: Sequence[int | str] | None = None,
        texts: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> PageIndex:
        """Build an index of vectors that a model made elsewhere.

        Parameters
        ----------
        vectors : array (n_tokens, dimension), MultiVectors or sequence of arrays
            With `lengths`, the vectors of all pages in one array.
        lengths : array of int (n,), optional
            Number of vectors of each page.
        grids : sequence of (rows, columns), optional
            One for each page, or one pair for all; see :class:`muvera.pages.Page`.
        special : int, or sequence of int or of (before, after), optional
            One for each page, or one number for all.
        pages : sequence of (document, number), optional
            Default: the ids, or positions, and page 1.
        ids : sequence of int or of str, optional
            Default: ``"document:number"``, or positions without `pages`.
        texts : sequence of str, optional
            The words of each page.
        metadata : sequence of dict, optional
            One for each page.
        **options
            The keyword arguments of the class, and ``encoder=``.

        Returns
        -------
        PageIndex

        Raises
        ------
        TypeError, ValueError
            If the arguments do not fit each other, or there are no pages.
        """
        given = as_multivectors(vectors) if lengths is None else MultiVectors.from_flat(vectors, lengths)
        count = len(given)
        if not count:
            raise ValueError("There are no pages. Use PageIndex(dimension=) for an empty index.")
        own_ids = given.ids.tolist() if given.has_ids else None
        names = own_ids if ids is None else list(ids)
        if pages is None:
            names = list(range(count)) if names is None else names
            pages = [(str(name), 1) for name in names]
        columns: dict[str, list[Any]] = {
            "grid": of_each("grids", grids, count),
            "special": of_each("special", special, count),
            "text": of_each("texts", texts, count, ""),
            "metadata": of_each("metadata", metadata, count, {}),
            "id": of_each("ids", names, count),
        }
        places = of_each("pages", pages, count)
        made = [
            Page(
                tokens, str(place[0]), int(place[1]), **{name: values[i] for name, values in columns.items()}
            )
            for i, (tokens, place) in enumerate(zip(given, places, strict=True))
        ]
        index = cls(given.dimension, **options)
        index.add(made)
        return index

    @classmethod
    def from_byaldi(
        cls, folder: str | os.PathLike[str], *, grids: Grids | None = None, **options: Any
    ) -> PageIndex:
        """Build an index of the pages in a folder that byaldi wrote.

        Rows of zeros, which are padding, are dropped.  Documents have the names of
        their files, and pages have the metadata of their documents.

        Parameters
        ----------
        folder : path
            Such as ``".byaldi/my_index"``.
        grids : sequence of (rows, columns), optional
            One for each page, or one pair for all.  Default: 32 x 32 for ColPali; none
            for other models, whose grids byaldi does not store.
        **options
            The keyword arguments of the class, and ``encoder=``.

        Returns
        -------
        PageIndex
            Ids are ``"document:page"`` with byaldi's number of the document.

        Raises
        ------
        FileNotFoundError, ValueError
            For a folder that byaldi did not write, or that is damaged.
        """
        place = as_path(folder)
        vectors = _read(open_source(place, "byaldi"))
        ids = vectors.ids.tolist()
        files, metadata, config = (
            read_json_object(place / name) if (place / name).is_file() else {}
            for name in ("doc_ids_to_file_names.json.gz", "metadata.json.gz", "index_config.json.gz")
        )
        numbers = [str(id).rpartition(":")[::2] for id in ids]
        pages = [(str(files.get(document, document)), int(page)) for document, page in numbers]
        if grids is None and "colpali" in str(config.get("model_name", "")).lower():
            grids = COLPALI_GRID
        of_pages = [metadata.get(document) or {} for document, _ in numbers]
        return cls.from_arrays(vectors, grids=grids, pages=pages, ids=ids, metadata=of_pages, **options)

    @classmethod
    def from_parquet(
        cls, path: str | os.PathLike[str], *, reader: Mapping[str, Any] | None = None, **options: Any
    ) -> PageIndex:
        """Build an index of the pages in a Parquet file.

        Parameters
        ----------
        path : path
            A row for each page, with a list of vectors and perhaps an id.
        reader : dict, optional
            Options of the reader of Parquet, such as ``{"column": "embedding"}``; see
            :func:`muvera.convert.read`.
        **options
            The keyword arguments of :meth:`from_arrays`.

        Returns
        -------
        PageIndex

        Raises
        ------
        FileNotFoundError, ValueError
            For a missing or damaged file, or one without vectors.
        """
        return cls.from_arrays(_read(open_source(as_path(path), "parquet", **(reader or {}))), **options)

    # -- changing -------------------------------------------------------------

    def add(self, pages: Iterable[Page], *, threads: int | None = None) -> list[int | str]:
        """Add pages under new ids: all of them, or none after an exception.

        In a database, batches written before an exception stay.

        Parameters
        ----------
        pages : iterable of Page
            Their vectors, and what is known about them.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of int or of str
            The ids.

        Raises
        ------
        TypeError, ValueError
            For an id in use, another dimension, or metadata that JSON cannot represent.
        OSError
            If the disk is full.  Nothing is added then.
        """
        return self._put(list(pages), threads, update=False)

    def update(
        self,
        pages: Iterable[Page] | None = None,
        *,
        ids: Sequence[int | str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        threads: int | None = None,
    ) -> None:
        """Replace pages by id and add pages with new ids, or change metadata.

        In a folder, all are changed or none.  In a database, batches written before an
        exception stay.

        Parameters
        ----------
        pages : iterable of Page, optional
            The new pages.  Default: only metadata changes.
        ids : sequence of int or of str, optional
            Without `pages`: the pages whose metadata changes.
        metadata : sequence of dict, optional
            Without `pages`: the fields of each page to change.  None removes a field,
            and other fields are kept.
        threads : int, optional
            Default: all usable cores.

        Raises
        ------
        KeyError
            For an unknown id, without `pages`.
        TypeError, ValueError
            If neither pages nor ids and metadata are given, or as for :meth:`add`.
        OSError
            If the disk is full.  Nothing is changed then.
        """
        if pages is not None:
            if ids is not None or metadata is not None:
                raise ValueError("Pages have their ids and metadata. Omit ids and metadata.")
            self._put(list(pages), threads, update=True)
            return
        if ids is None or metadata is None:
            raise ValueError("An update needs pages, or ids and metadata. Give them.")
        names, fields = require_ids(as_id_list(ids)), list(metadata)
        if len(fields) != len(names):
            entries = counted(len(fields), "entry", "entries")
            raise ValueError(f"metadata has {entries} for {counted(len(names), 'page')}. Give one per page.")
        for values in fields:
            require_own_fields(values)
        with self._pages.changing:
            found = self._pages.get(names)
            self._pages.put_metadata(found, list(map(merge_metadata, found, fields)))

    def _put(self, pages: list[Page], threads: int | None, update: bool) -> list[int | str]:
        if not pages:
            return []
        ids: list[int | str] = as_ids(require_ids([page.id for page in pages]), len(pages)).tolist()
        texts, metadata = [page.text for page in pages], [page.stored_metadata() for page in pages]
        vectors = self._fitting(pages)
        if vectors is None:
            return self._put_texts(ids, texts, metadata, threads, update)
        means = None
        if isinstance(self._pages, TextStore):
            means = MultiVectors.from_arrays([page.pooled(self._factor) for page in pages])
        new = NewTexts(vectors.with_ids(ids), texts, metadata, means)
        return self._pages.put(new, threads, update)

    def _fitting(self, pages: Sequence[Page]) -> MultiVectors | None:
        """Return the vectors of pages, or None if the index encodes their text.

        Raise an error for a page that does not fit.
        """
        reads_text = self._pages.table is not None or self._reader is not None
        wrong = next((page for page in pages if (page.vectors is None) != reads_text), None)
        if wrong is not None:
            place = f"page {wrong.number} of {wrong.document}"
            raise ValueError(
                f"This index encodes the text of pages, but {place} has vectors. Omit them."
                if reads_text
                else f"{place} has no vectors, which this index needs. Give them, or make an index with the "
                "encoder 'static', which encodes text."
            )
        if reads_text or not pages:
            return None
        return checked_texts([page.vectors for page in pages], "pages", self.dimension, "this index")

    def _put_texts(
        self,
        ids: list[int | str],
        texts: list[str],
        metadata: Sequence[Mapping[str, Any]],
        threads: int | None,
        update: bool,
    ) -> list[int | str]:
        """Store pages whose text the encoder encodes."""
        encoder, table = required(self._encoder, self._made_by), self._pages.table
        assert isinstance(encoder, TextLayerEncoder)
        if table is None:
            encoded = encode_texts(encoder.text.encode_documents, texts)
            return self._pages.put(NewTexts(encoded.with_ids(ids), texts, metadata), threads, update)
        rows = encode_rows(encoder.text, texts, table)
        return self._pages.put(NewTexts(rows.with_ids(ids), texts, metadata), threads, update)

    def delete(self, ids: Iterable[int | str], *, missing: Missing = "raise") -> None:
        """Delete pages by id.

        Parameters
        ----------
        ids : collection of int or of str
            The pages to delete.
        missing : {"raise", "ignore"}
            For an unknown id, raise KeyError and delete nothing, or ignore it.

        Raises
        ------
        KeyError
            See `missing`.
        OSError
            If the disk is full.  Nothing is deleted then.
        """
        self._pages.delete(require_ids(as_id_list(ids)), missing)

    def rebuild(self, *, fit: bool = False, threads: int | None = None) -> None:
        """Free the memory and the disk space of deleted pages.

        An index from :meth:`open` is then saved.

        Parameters
        ----------
        fit : bool
            Fit the encoder of single vectors again in any case.
        threads : int, optional
            Default: all usable cores.

        Raises
        ------
        EngineError
            For pages in a database.
        """
        self._pages.rebuild(fit, threads)

    # -- searching ------------------------------------------------------------

    @overload
    def search(  # type: ignore[overload-overlap]
        self, queries: str | NDArray[Any], k: int = ..., **options: Unpack[PageSearchKeywords]
    ) -> list[PageHit]: ...

    @overload
    def search(
        self,
        queries: Sequence[str] | Sequence[NDArray[Any]] | MultiVectors,
        k: int = ...,
        **options: Unpack[PageSearchKeywords],
    ) -> list[list[PageHit]]: ...

    def search(
        self,
        queries: str | NDArray[Any] | Sequence[str] | Sequence[NDArray[Any]] | MultiVectors,
        k: int = 10,
        *,
        text: str | Sequence[str] | None = None,
        where: Filter | None = None,
        ids: Iterable[int | str] | None = None,
        candidates: int | None = None,
        recall: float | None = None,
        rescore: int | None = None,
        words: float | None = None,
        group_by: str | None = None,
        threads: int | None = None,
    ) -> list[PageHit] | list[list[PageHit]]:
        """Return the best pages for each query.

        Parameters
        ----------
        queries : str, array (tokens, dimension), or a sequence of either
            Words, which the encoder encodes, or the vectors of a query.
        k : int
            Maximum number of hits for each query.
        text : str or sequence of str, optional
            The words of each vector query, for pages that share them.
        where : mapping, optional
            A condition on the metadata, and on ``document`` and ``number``.
        ids : collection of int or of str, optional
            Search only these pages.  Unknown ids are ignored.
        candidates : int, optional
            Pages that single vectors propose and the means rank, in a collection of
            more than about 10,000 pages.  Default: 5,000.  Fewer take less time, and
            miss more pages.  In a database, candidates are ranked by all vectors, and
            the default is a quarter of the pages, from 200 to 1,000, or as many as
            contain 95% of the ten best according to :meth:`calibrate`, at least 200.
        recall : float, optional
            Instead of `candidates`: the mean share of the best pages to find, see
            :meth:`muvera.MuveraIndex.search`.
        rescore : int, optional
            Pages that the unpooled patches rank.  Default: ``2 * k + 10``.  Not for a
            database, where they rank all candidates.
        words : float, optional
            Weight of words that query and page share (BM25), from 0 to below 1.
            Default: 0.2, if the query has words.  With an encoder of text layers, the
            default weights of :meth:`muvera.TextIndex.search`.  In a database, words
            only reorder the candidates.
        group_by : str, optional
            A metadata field: return only the best page of each value.  "document"
            returns documents by their best page.  See :meth:`muvera.TextIndex.search`.
            Groups are looked for in at most `rescore` or `candidates` pages.  Default:
            1,000, or 10,000 with an encoder of text layers; in a database, the default
            of `candidates`.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of PageHit, or list of such lists
            The first for one query: a string or one array.

        Raises
        ------
        TypeError, ValueError
            For queries of another dimension, an index without an encoder if queries are
            words, a wrong setting, or a `group_by` field in which no page has a value.
        """
        asked = self._asked(queries, text)
        grouped = rescore or candidates
        if isinstance(self._pages, EngineTexts):
            if rescore is not None:
                raise ValueError(
                    Message(
                        "A database ranks all candidates by all vectors of a page. Give ",
                        Argument("candidates", ""),
                        " instead of ",
                        Argument("rescore"),
                        ".",
                    )
                )
        elif candidates is None and recall is None and self._pages.vectors.contents.candidates is not None:
            candidates = max(_CANDIDATES, require_int("k", k, 1))
        passage = None if self._reader is None else self._reader.passage
        chosen = SearchOptions(
            k, where, ids, candidates, recall, words, threads=threads, passage=passage,
            rescore=rescore, group_by=group_by, grouped=grouped,
        )  # fmt: skip
        found = self._pages.on_one_state(lambda: self._find(asked.queries, chosen))
        return found[0] if asked.single else found

    @overload
    async def asearch(  # type: ignore[overload-overlap]
        self, queries: str | NDArray[Any], k: int = ..., **options: Unpack[PageSearchKeywords]
    ) -> list[PageHit]: ...

    @overload
    async def asearch(
        self,
        queries: Sequence[str] | Sequence[NDArray[Any]] | MultiVectors,
        k: int = ...,
        **options: Unpack[PageSearchKeywords],
    ) -> list[list[PageHit]]: ...

    async def asearch(
        self,
        queries: str | NDArray[Any] | Sequence[str] | Sequence[NDArray[Any]] | MultiVectors,
        k: int = 10,
        **options: Unpack[PageSearchKeywords],
    ) -> list[PageHit] | list[list[PageHit]]:
        """Call :meth:`search` in a thread, so that the event loop keeps running.

        A cancelled call does not stop its thread, but its hits are dropped.

        Parameters
        ----------
        queries : str, array (tokens, dimension), or a sequence of either
            As for :meth:`search`.
        k : int
            Maximum number of hits for each query.
        **options
            Other arguments of :meth:`search`.

        Returns
        -------
        list of PageHit, or list of such lists
            As for :meth:`search`.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`search`.
        """
        import asyncio  # whoever awaits this has imported it

        return await asyncio.to_thread(lambda: self.search(queries, k, **options))

    def _asked(self, queries: Any, text: Any = None) -> PageQueries:
        if self._pages.table is not None:  # without its table, the index cannot be searched
            required(self._encoder, self._made_by)
        return PageQueries.of(queries, text, self.dimension, self._encoder, self._made_by)

    def _find(self, queries: list[PageQuery], options: SearchOptions) -> list[list[PageHit]]:
        """Return the hits of each query; those with words count shared words."""
        vectors = self._vectors_of()
        found: list[list[PageHit]] = [[] for _ in queries]
        weights = self._weights(options.words)
        for with_words in (False, True):
            group = [q for q, query in enumerate(queries) if bool(query.text) == with_words]
            if not group:
                continue
            encoded = MultiVectors.from_arrays([queries[q].vectors for q in group])
            lines = [queries[q].text for q in group]
            weighted = replace(options, words=weights.words if with_words else 0.0, mean=weights.mean)
            for q, parts in zip(group, self._pages.rank(lines, encoded, weighted), strict=True):
                # Another program can have deleted pages of a database since.
                pages = self._pages.get(list(parts), missing="ignore")
                found[q] = [
                    self._hit_of(page, parts[page.id], queries[q], partial(vectors, page.id))
                    for page in pages
                ]
        return found

    def _vectors_of(self) -> Callable[[int | str], NDArray[np.float32]]:
        """Return a function that returns the vectors of a page by id.

        It reads the pages as they are now, also after a change; in a database, those of
        the time of its call.
        """
        if isinstance(self._pages, EngineTexts):
            return self.vectors
        contents = self._pages.vectors.contents
        return lambda id: np.asarray(contents.tokens.rows(contents.ids.rows([id]))[0], np.float32)

    def _hit_of(
        self, page: TextDocument, parts: dict[str, float], query: PageQuery, read: Callable[[], Any]
    ) -> PageHit:
        """Return a hit; `read` returns the page's vectors."""
        facts = PageFacts.of(page.metadata)
        return PageHit(
            page.id, (facts.document, facts.number), sum(parts.values()), parts,
            own_metadata(page.metadata), page.text,
            Source(facts, query.vectors, query.words, read, self._root),
        )  # fmt: skip

    def _weights(self, words: float | None) -> ScoreWeights:
        """Return the weights of the score's parts for queries with words."""
        default = ScoreWeights(ScoreWeights().words, 0.0)  # not measured on pages
        if self._reader is not None:
            stores_means = self._pages.has_means
            default = score_weights(self._reader) if stores_means else ScoreWeights(WORDS, 0.0)
        return chosen_weights(words, None, default)

    def rerank(
        self,
        query: str | NDArray[Any],
        pages: Iterable[Page],
        k: int | None = None,
        *,
        words: float | None = None,
        threads: int | None = None,
    ) -> list[PageHit]:
        """Rank given pages, which need not be in the index, as a search would.

        Parameters
        ----------
        query : str or array (tokens, dimension)
            The words or the vectors of the query.
        pages : iterable of Page
            For example what another search found.  They have vectors, or, if the index
            has an encoder of text layers, text.
        k : int, optional
            Maximum number of hits.  Default: all pages, except pages without text if
            the encoder reads text.
        words : float, optional
            As for :meth:`search`.  Only `pages` count for how rare a word is.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of PageHit
            Best first.  `PageHit.id` is the id of the page.  Scores of different calls
            cannot be compared, because the part "words" depends on all pages of a call.

        Raises
        ------
        TypeError, ValueError
            For pages that do not fit the index, or as for :meth:`search`.

        Examples
        --------
        >>> import numpy as np
        >>> from muvera.pages import Page
        >>> pages = [Page([[1.0, 0.0]], "a.pdf", 1), Page([[0.0, 1.0]], "a.pdf", 2)]
        >>> PageIndex(2).rerank(np.array([[0.0, 1.0]]), pages)[0].page
        ('a.pdf', 2)
        """
        asked = self._asked(query)
        if not asked.single:
            raise TypeError("rerank needs one query: a string, or an array (tokens, dimension).")
        if k is not None:
            require_int("k", k, 1)
        require_weights(words, None)
        chosen = list(pages)
        wrong = next((page for page in chosen if not isinstance(page, Page)), None)
        if wrong is not None:
            raise TypeError(f"pages must be muvera.pages.Page, got {given(wrong)}. Make a Page of each.")
        self._fitting(chosen)
        question = asked.queries[0]
        weights = self._weights(words)
        if not question.text:
            weights = weights._replace(words=0.0)
        count = len(chosen) if k is None else k
        ranked = rank_pages(chosen, question, count, weights, self._reader, threads)
        return [self._hit_of_page(chosen[at], parts, question) for at, parts in ranked.items()]

    def _hit_of_page(self, page: Page, parts: dict[str, float], query: PageQuery) -> PageHit:
        reader = self._reader

        def read() -> NDArray[np.float32]:
            vectors = page.vectors if reader is None else reader.encode_documents([page.text])[0]
            return np.asarray(vectors, np.float32)

        assert page.id is not None
        return self._hit_of(TextDocument(page.id, page.text, page.stored_metadata()), parts, query, read)

    def explain(self, query: str | NDArray[Any], id: int | str) -> PageHit:
        """Find where a query matches a page, whether a search finds it or not.

        Parameters
        ----------
        query : str or array (tokens, dimension)
            The words or the vectors of the query.
        id : int or str
            The page.

        Returns
        -------
        PageHit
            With :meth:`muvera.pages.PageHit.matches`, maps and boxes.  Its only part
            is "maxsim".

        Raises
        ------
        KeyError
            For an unknown id.
        TypeError, ValueError
            As for :meth:`search`.
        """
        asked = self._asked(query)
        if not asked.single:
            raise TypeError("explain needs one query: a string, or an array (tokens, dimension).")

        def explained() -> PageHit:
            read = partial(self._vectors_of(), id)
            hit = self._hit_of(self._pages.get([id])[0], {}, asked.queries[0], read)
            if not len(hit.source.read()):
                raise ValueError(f"Page {hit.page[1]} of {hit.page[0]} has no text to explain. Give another.")
            score = float(chamfer_matrix([hit.source.query], [hit.source.read()], threads=1)[0, 0])
            return replace(hit, score=score, parts={"maxsim": score})

        return self._pages.on_one_state(explained)

    def calibrate(self, queries: Sequence[str] | MultiVectorsLike, *, threads: int | None = None) -> None:
        """Measure how many candidates ``search(recall=)`` needs for real queries.

        See :meth:`muvera.MuveraIndex.calibrate`.

        Parameters
        ----------
        queries : sequence of str or of arrays (tokens, dimension)
            At least 64, typical of later ones.
        threads : int, optional
            Default: all usable cores.

        Raises
        ------
        TypeError, ValueError
            For fewer queries, or as for :meth:`search`.
        """
        asked = self._asked(queries)
        self._pages.calibrate(MultiVectors.from_arrays([query.vectors for query in asked.queries]), threads)

    # -- reading --------------------------------------------------------------

    @property
    def _reader(self) -> TableEncoder | None:
        """The encoder of the text of pages, if this is what the index encodes."""
        return self._encoder.text if isinstance(self._encoder, TextLayerEncoder) else None

    @property
    def _factor(self) -> float:
        return self._pages.vectors.settings.pool

    @property
    def dimension(self) -> int:
        """Columns of a vector."""
        if isinstance(self._pages, TextStore):
            return self._pages.vectors.config.dimension
        stored = self._pages.index.engine.description
        if stored is not None:
            return stored.token_dimension
        return self.encoder.encode_queries(["."]).dimension  # the first pages create the collection

    @property
    def encoder(self) -> PageEncoder:
        """The model that encodes pages and queries.

        Raises
        ------
        ValueError
            If the index has none.
        """
        return required(self._encoder, self._made_by)

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder; None if there is none."""
        return None if self._encoder is None else self._encoder.name

    @property
    def root(self) -> Path | None:
        """Folder of the documents with relative names."""
        return self._root

    @property
    def served_root(self) -> Path | None:
        """`root`, if the caller gave it; None if a loaded folder chose it, or nobody.

        A server reads pictures from this folder only: an index from elsewhere must not
        choose the files that it discloses.
        """
        return self._served_root

    @property
    def ids(self) -> list[int | str]:
        """The ids of all pages, in the order of :meth:`select`."""
        return self._pages.select({})

    def get(self, ids: Iterable[int | str], *, missing: Missing = "raise") -> list[TextDocument]:
        """Return the text layers and the metadata of pages by id.

        Parameters
        ----------
        ids : collection of int or of str
            The pages to return.
        missing : {"raise", "ignore"}
            For an unknown id, raise KeyError, or skip it.

        Returns
        -------
        list of TextDocument
            With `id`, `text` and `metadata`, which also has the fields ``document`` and
            ``number``, in the order of `ids`.

        Raises
        ------
        KeyError
            See `missing`.
        """
        return [
            replace(page, metadata=visible_metadata(page.metadata))
            for page in self._pages.get(require_ids(as_id_list(ids)), missing=missing)
        ]

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of pages that satisfy a condition, in insertion order.

        In a database, they are in the order of the ids.

        Parameters
        ----------
        where : mapping
            As for :meth:`search`; ``{}`` selects all pages.

        Returns
        -------
        list of int or of str
            Empty if no page satisfies the condition.

        Raises
        ------
        FilterError
            For an invalid condition, or one that the database cannot answer.
        """
        return self._pages.select(where)

    def pages_of(self, document: str) -> list[int | str]:
        """Return the ids of a document's pages, in the order of :meth:`select`.

        Parameters
        ----------
        document : str
            Its name, such as the path of a PDF below :attr:`root`.

        Returns
        -------
        list of int or str
            Empty for an unknown document.
        """
        return self._pages.select({DOCUMENT: document})

    def __len__(self) -> int:
        return len(self._pages)

    def __contains__(self, id: object) -> bool:
        return id in self._pages

    def __iter__(self) -> Iterator[TextDocument]:
        for page in self._pages:
            yield replace(page, metadata=visible_metadata(page.metadata))

    def __reduce__(self) -> NoReturn:
        """Raise TypeError, as locks and open files cannot be pickled or copied."""
        raise TypeError(
            "A PageIndex cannot be pickled or copied, because it has locks and open files or connections. "
            "Save pages to a folder, and load the folder in the other process or as the copy; open a database "
            "there by its URL."
        )

    def __repr__(self) -> str:
        if isinstance(self._pages, EngineTexts):
            return f"PageIndex({self._pages}, encoder={self._made_by!r})"
        return f"PageIndex({counted(len(self), 'page')}, dimension={self.dimension})"

    def page(self, id: int | str) -> tuple[str, int]:
        """Return the document of a page, and its number in it.

        Parameters
        ----------
        id : int or str
            The page.

        Returns
        -------
        tuple of str and int

        Raises
        ------
        KeyError
            For an unknown id.
        """
        facts = PageFacts.of(self._pages.get([id])[0].metadata)
        return facts.document, facts.number

    def vectors(self, id: int | str) -> NDArray[np.float32]:
        """Return the unpooled vectors of a page, decoded; its patches come first.

        Parameters
        ----------
        id : int or str
            The page.

        Returns
        -------
        float32 (tokens, dimension)

        Raises
        ------
        KeyError
            For an unknown id.
        """
        return np.asarray(self._pages.tokens([id])[0], np.float32)

    def info(self) -> dict[str, Any]:
        """Return sizes and settings.

        Returns
        -------
        dict
            "pages", "dimension", "factor", "encoder", "root", and for the "pooled"
            vectors and the "patches": their number "tokens", how they are stored
            ("codec", "fitted", "bytes_per_token"), and "bytes_per_page".  "search" says
            what reads the pooled vectors, as in :class:`muvera.IndexInfo`.  If the
            index encodes text, both are the tokens of the text, and "without_text" is
            the number of pages that have none.

        Raises
        ------
        EngineError
            For pages in a database.
        """
        contents = self._pages.vectors.contents
        tokens, rows = contents.tokens, contents.searchable[0]
        codec = "int8" if tokens.table is None else tokens.kind
        pooled = _sizes(tokens.coarse, tokens.coarse_lengths[rows], self.dimension, codec)
        patches = _sizes(tokens.fine, tokens.lengths[rows], self.dimension, tokens.kind)
        textless = {} if tokens.table is None else {"without_text": len(self) - len(rows)}
        return {
            "pages": len(self), "dimension": self.dimension, "factor": self._factor,
            "encoder": self._made_by or None, "root": None if self._root is None else str(self._root),
            "search": contents.kind, "pooled": pooled, "patches": patches, **textless,
        }  # fmt: skip

    @property
    def texts(self) -> Texts:
        """The text layers, the metadata and the vectors, as they are stored.

        For the other modules of this package; its attributes may change in any version.
        """
        return self._pages

    # -- saving ---------------------------------------------------------------

    def save(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        """Write the index to a new folder, or its changes to its own folder.

        The folder contains a complete index at every moment.  Vectors in it are not
        written again.

        Parameters
        ----------
        path : path, optional
            Default: the folder that the index was loaded from or saved to.
        overwrite : bool
            Replace another index in that folder when this one is complete.

        Raises
        ------
        ValueError
            Without `path`, if the index has no folder yet.
        FileExistsError, IndexFolderError
            As for :meth:`muvera.MuveraIndex.save`.
        EngineError
            With a path, for pages in a database.
        """
        if isinstance(self._pages, EngineTexts):
            self._pages.save(path, overwrite)
            return
        if path is None and self._folder is None:
            raise ValueError("save() without a path needs a saved or loaded index. Give a path.")
        target = self._folder if path is None else as_path(path).resolve()
        assert target is not None
        with self._pages.changing:
            root = None if self._root is None else str(self._root)
            if target != self._folder and root is not None and root != self._pages.database.fact(ROOT):
                self._pages.database.change([], facts={ROOT: root})
            if is_former(target) and (overwrite or target == self._folder):
                with atomic_folder(target, overwrite=True) as beside:
                    self._pages.save(beside / target.name)
                    for path in (beside / target.name).iterdir():
                        path.rename(beside / path.name)
                    (beside / target.name).rmdir()
                stored = read_pages(target)
                self._pages = TextStore(stored.vectors, stored.database)
            else:
                self._pages.save(target, overwrite)
            self._folder = target

    def close(self) -> None:
        """Save the changes of an index from :meth:`open`, and release its folder.

        Searches still work.

        Raises
        ------
        OSError
            If the disk is full.  The folder is released nevertheless, and its journal
            contains all changes.
        """
        self._pages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Engine,
        encoder: PageEncoder | TableEncoder | str | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        save_changes: int = 1000,
        save_seconds: float = 300.0,
    ) -> PageIndex:
        """Open a saved index, or pages in a database, for durable changes.

        A change is durable once the method returns, as for
        :meth:`muvera.TextIndex.open`: it is first written to a journal, with the
        vectors of its pages.  Only one process can open a folder; others can load it.
        Use the index as a context manager, or call :meth:`close`.

        Parameters
        ----------
        path : path, str or Engine
            The folder of the index, or a collection of pages by its URL, such as
            ``"postgresql://user@host/database#pages"``, or as an opened engine.  The
            folder of a former version is first saved in the format of this one.
        encoder : PageEncoder, TableEncoder or str, optional
            As for :meth:`load`.  An empty collection needs it.
        root : path, optional
            As for :meth:`load`.  The first pages of an empty collection store it there.
        save_changes : int
            Save the folder after about this many changed pages; a page with
            many vectors counts as several.
        save_seconds : float
            Save the folder after this many seconds with changes.

        Returns
        -------
        PageIndex

        Raises
        ------
        FileNotFoundError, IndexFolderError, ValueError
            As for :meth:`load`, and if another process writes the folder.
        EngineError
            If the database cannot be reached or stores no tokens, or the collection has
            no pages.
        """
        if isinstance(path, Engine) or url_scheme(str(path)):
            opened = cls.__new__(cls)
            opened._open_engine(path if isinstance(path, Engine) else str(path), encoder, root)
            return opened
        require_int("save_changes", save_changes, 1)
        require_number("save_seconds", save_seconds, 0.001, TIMEOUT_MAX)
        place = as_path(path).resolve()
        if is_former(place):
            cls.load(place).save()
        with opened_folder(place, save_changes, save_seconds) as folder:
            return cls._load(place, encoder, root, folder)

    def _open_engine(
        self,
        engine: Engine | str,
        encoder: PageEncoder | TableEncoder | str | None,
        root: str | os.PathLike[str] | None,
    ) -> None:
        self._served_root = None if root is None else as_path(root).resolve()
        opened = open_engine_pages(engine, encoder, self._served_root)
        self._pages, self._encoder, self._made_by = opened.pages, opened.encoder, opened.made_by
        self._root = self._served_root or (Path(opened.root) if opened.root else None)
        self._folder = None

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: PageEncoder | TableEncoder | str | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
    ) -> PageIndex:
        """Load an index from a folder of :meth:`save`.

        Vectors stay on disk and are memory-mapped.

        Parameters
        ----------
        path : path
            The folder of the index.
        encoder : PageEncoder, TableEncoder or str, optional
            Must have the name of the encoder that made the vectors.  Default: that
            encoder, if it is "static", "colpali" or "colmodernvbert", loaded at the
            first query of words; none otherwise.
        root : path, optional
            Folder of the documents with relative names, if they were moved, or to serve
            their pictures.  Default: the folder that was indexed.

        Returns
        -------
        PageIndex

        Raises
        ------
        FileNotFoundError, IndexFolderError
            If the folder contains no page index, a damaged one, or one of another
            version.
        ValueError
            For an encoder that did not make the vectors.
        """
        return cls._load(as_path(path).resolve(), encoder, root)

    @classmethod
    def _load(
        cls,
        target: Path,
        encoder: PageEncoder | TableEncoder | str | None,
        root: str | os.PathLike[str] | None,
        folder: DurableFolder | None = None,
    ) -> PageIndex:
        """Load an index with the changes in its journal.

        The open `folder` then keeps each later change.
        """
        loaded = cls.__new__(cls)
        loaded._restore(target, encoder, root, folder)
        return loaded

    def _restore(
        self,
        target: Path,
        encoder: PageEncoder | TableEncoder | str | None,
        root: str | os.PathLike[str] | None,
        folder: DurableFolder | None,
    ) -> None:
        stored = read_pages(target)
        self._served_root = None if root is None else as_path(root).resolve()
        known = stored.database.fact(ROOT)
        self._root = Path(known) if known and self._served_root is None else self._served_root
        self._folder = target
        self._pages = store = TextStore(stored.vectors, stored.database)
        self._made_by = stored.database.text_encoder or ""
        self._encoder = required_page_encoder(self._made_by, encoder, target)
        if self._encoder is not None:
            attach_table(self._pages.table, self._reader or self._encoder, target)
        with repeating_changes(target):
            for change in stored.changes:
                self._repeat(change)
        if folder is not None:
            folder.unsaved = sum(len(change.ids) for change in stored.changes)
            store.keep(folder)

    def _repeat(self, change: TextChange) -> None:
        """Make a change of the journal."""
        for metadata in change.metadata or ():
            PageFacts.of(metadata)
        if change.metadata is None:
            self._pages.delete(change.ids, "ignore")
        elif change.texts is None:
            self._pages.put_metadata(self._pages.get(change.ids), change.metadata)
        elif self._pages.table is not None:
            self._put_texts(change.ids, change.texts, change.metadata, None, update=True)
        else:
            facts = list(map(PageFacts.of, change.metadata))
            flat = [np.frombuffer(tokens, "<f4") for tokens in change.tokens or ()]
            vectors = [tokens.reshape(-1, self.dimension) for tokens in flat]
            for page, tokens in zip(facts, vectors, strict=True):
                page.require_vectors(len(tokens))
            means = [
                pool_page(tokens, page.special, self._factor)
                for page, tokens in zip(facts, vectors, strict=True)
            ]
            encoded = MultiVectors.from_arrays(vectors).with_ids(change.ids)
            new = NewTexts(encoded, change.texts, change.metadata, MultiVectors.from_arrays(means))
            self._pages.put(new, None, update=True)


def _sizes(level: Level, lengths: NDArray[np.int64], dimension: int, codec: str) -> dict[str, Any]:
    count, size = int(lengths.sum()), level.bytes_per_token or 4 * dimension
    return {
        "tokens": count, "codec": codec, "fitted": isinstance(level, CodeStore), "bytes_per_token": size,
        "bytes_per_page": round(count * size / max(1, len(lengths))),
    }  # fmt: skip


def _read(source: Any) -> MultiVectors:
    from ..convert import read

    return read(source, drop_zero_rows=True)
