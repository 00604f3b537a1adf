"""PageIndex: index the patch vectors of pages, search them, and show what matched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..convert import open_source
from ..convert.parsing import read_json_object
from ..data.multivectors import MultiVectors, as_multivectors, checked_texts
from ..fde.config import FDEConfig
from ..index.contents import IndexContents
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..index.settings import IndexInfo, IndexSettings
from ..metadata import Filter, TextDocument
from ..reranking.codecs import CODECS
from ..texts.database import DocumentDatabase, require_ids
from ..texts.encoders.base import ScoreWeights
from ..texts.encoders.pages import COLPALI_GRID, PageEncoder
from ..texts.encoders.registry import as_page_encoder, required_page_encoder
from ..texts.hit import require_weights
from ..texts.ranking import Parts, add_parts
from ..texts.store import TextStore
from ..utils.atomic_files import atomic_folder
from ..utils.checks import as_id_list, as_path, counted, require_choice, require_int, require_number
from ..utils.locks import renew_after_fork
from .folder import PATCHES, POOLED, Facts, is_page_index, read_parts
from .hit import PageHit, Source
from .page import DOCUMENT, Page, PageFacts, of_each, own_metadata
from .query import PageQueries, Words, required

#: Patches that are replaced by one mean.  ColPali's authors keep 97.8% of the nDCG with
#: it; `python -m experiments pages` compares it with others.
FACTOR = 3.0

# Pages that are ranked by their means, in tens of milliseconds on one core.  With
# fewer, the single vectors miss pages: see `python -m experiments pages`.
_CANDIDATES = 5000

# Pages of a collection with at most this many pooled tokens, about 10,000 pages, are
# all ranked.
_EXACT_TOKENS = 3_500_000

# Pages beside 2 k that the unpooled patches rank.
_MORE = 10

# Weight of shared words if a query has words: the weight for texts, not measured on
# pages.
_WORDS = ScoreWeights().words


class PageIndex:
    """A searchable collection of pages, each a set of patch vectors.

    Means of similar patches rank the pages.  Codes of all patches, on disk once the
    index is saved, rank the best pages again and make heat maps.  Vectors without a
    place on the page, such as vectors of a prompt, are not pooled.  If pages have text,
    words that they share with the query can count, too.

    Several threads may search while another thread changes or saves the index.

    Parameters
    ----------
    dimension : int
        Columns of a vector.
    encoder : PageEncoder or str, optional
        The model that encodes pages and queries, or its name.  Needed for text
        queries; not for vector queries.
    factor : float
        Patches that one mean replaces.  Divides the memory and the time of the ranking;
        the best pages are ranked again by all patches.
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
        encoder: PageEncoder | str | None = None,
        *,
        factor: float = FACTOR,
        patches: str = "int8",
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        columns = require_int("dimension", dimension, 1)
        self._factor = float(require_number("factor", factor, 1))
        require_choice("patches", patches, CODECS)
        self._root = None if root is None else as_path(root).resolve()
        self._served_root = self._root
        self._encoder = None if encoder is None else as_page_encoder(encoder)
        self._made_by = "" if self._encoder is None else self._encoder.name
        # "simhash" is not fitted on the first pages, which later ones may not resemble.
        pooled = MuveraIndex("simhash", dimension=columns, tokens="int8", exact_tokens=_EXACT_TOKENS)
        self._pages = TextStore(pooled, DocumentDatabase(self._made_by))
        # They only rank the best pages again, so they need no single vectors.
        settings = IndexSettings.of(tokens=patches, exact_tokens=1 << 62)
        self._patches = MuveraIndex(FDEConfig.preset("mean", columns), settings=settings)
        self._folder: Path | None = None
        self._renew_locks()
        renew_after_fork(self)

    def _renew_locks(self) -> None:
        # Held during a change of both.
        self._changing = RLock()

    # -- building -------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        vectors: Any,
        lengths: Any = None,
        *,
        grids: Any = None,
        special: Any = None,
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
    def from_byaldi(cls, folder: str | os.PathLike[str], *, grids: Any = None, **options: Any) -> PageIndex:
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
        """
        added = list(pages)
        if not added:
            return []
        ids = require_ids([page.id for page in added])
        whole = checked_texts([page.vectors for page in added], "pages", self.dimension, "this index")
        pooled = MultiVectors.from_arrays([page.pooled(self._factor) for page in added]).with_ids(ids)
        with self._changing, self._patches.change() as change:
            # The next integers: each number is used once, so that no reader takes it
            # for the number of another page.
            numbers: list[int] = change.add(whole, threads=threads).tolist()
            change.commit()  # without a page that names them, they are never read
            facts = [page.stored_metadata(number) for page, number in zip(added, numbers, strict=True)]
            try:
                return self._pages.put(pooled, [page.text for page in added], facts, threads)
            except BaseException:
                change.delete(numbers)
                raise
            finally:
                change.commit()

    def delete(self, ids: Iterable[int | str], *, missing: Missing = "raise") -> None:
        """Delete pages by id.

        Parameters
        ----------
        ids : collection of int or of str
            The pages to delete.  Their patches stay until the next :meth:`save`.
        missing : {"raise", "ignore"}
            For an unknown id, raise KeyError and delete nothing, or ignore it.

        Raises
        ------
        KeyError
            See `missing`.
        """
        with self._changing:
            self._pages.delete(require_ids(as_id_list(ids)), missing)

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        text: str | Sequence[str] | None = None,
        where: Filter | None = None,
        candidates: int | None = None,
        rescore: int | None = None,
        words: float | None = None,
        threads: int | None = None,
    ) -> Any:
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
        candidates : int, optional
            Pages that single vectors propose and the means rank, in a collection of
            more than about 10,000 pages.  Default: 5,000.  Fewer take less time, and
            miss more of the best.
        rescore : int, optional
            Pages that the unpooled patches rank again, at least `k`.  More raise recall
            and read more from disk.  Default: 2 k + 10.
        words : float, optional
            Weight of words that page and query share, from 0 to below 1.  Default: 0.2
            if a query has words.
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
            words, or a wrong setting.
        """
        asked = PageQueries.of(queries, text, self.dimension, self._encoder, self._made_by)
        require_int("k", k, 1)
        count = 2 * k + _MORE if rescore is None else require_int("rescore", rescore, k)
        proposed = _CANDIDATES if candidates is None else require_int("candidates", candidates, k)
        require_weights(words, None)
        found = []
        for vectors, line, spans in asked.queries:
            weight = (_WORDS if words is None else words) if line else 0.0
            rank = partial(self._rank, vectors, line, count, where, proposed, weight, threads)
            parts, documents, patches = self._pages.on_one_state(rank)
            best = [(documents[id], scores) for id, scores in list(parts.items())[:k]]
            found.append([self._hit(page, scores, patches, vectors, spans) for page, scores in best])
        return found[0] if asked.single else found

    def _rank(
        self,
        query: NDArray[np.float32],
        line: str,
        count: int,
        where: Filter | None,
        candidates: int,
        weight: float,
        threads: int | None,
    ) -> tuple[Parts, dict[Any, TextDocument], IndexContents]:
        """Return the score parts of the best pages by id, their texts, and patches."""
        store = self._pages
        within = store.select(where) if where else None
        ranking = store.vectors.search(
            [query], count, ids=within, candidates=max(candidates, count),
            threads=threads,
        )[0]  # fmt: skip
        ids = ranking.ids.tolist()
        matches = dict(store.database.match_words(line, 2 * count, where)) if weight else {}
        known = set(ids)
        ids += [id for id in matches if id not in known][: count // 4]
        documents = {document.id: document for document in store.get(ids)}
        numbers: dict[Any, Any] = {
            PageFacts.of(document.metadata).patches_id: id for id, document in documents.items()
        }
        contents = self._patches.contents  # has all of them that `rerank` finds
        scores = self._patches.rerank([query], [list(numbers)], missing="ignore", threads=threads)[0]
        exact = {numbers[number]: score for number, score in scores}
        return add_parts(exact, matches, {}, ScoreWeights(weight, 0.0), len(exact)), documents, contents

    def _hit(
        self,
        page: TextDocument,
        parts: dict[str, float],
        patches: IndexContents,
        query: NDArray[np.float32],
        words: Words,
    ) -> PageHit:
        facts = PageFacts.of(page.metadata)

        def read() -> NDArray[np.float32]:
            return np.asarray(patches.tokens.rows(patches.ids.rows([facts.patches_id]))[0], np.float32)

        return PageHit(
            page.id, (facts.document, facts.number), sum(parts.values()), parts,
            own_metadata(page.metadata), page.text, Source(facts, query, words, read, self._root),
        )  # fmt: skip

    # -- reading --------------------------------------------------------------

    @property
    def dimension(self) -> int:
        """Columns of a vector."""
        return self._pages.vectors.config.dimension

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
        """The ids of all pages, in insertion order."""
        return self._pages.select({})

    def pages_of(self, document: str) -> list[int | str]:
        """Return the ids of a document's pages, in insertion order.

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

    def __repr__(self) -> str:
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
        number = PageFacts.of(self._pages.get([id])[0].metadata).patches_id
        return np.asarray(self._patches.tokens([number])[0], np.float32)

    def info(self) -> dict[str, Any]:
        """Return sizes and settings.

        Returns
        -------
        dict
            "pages", "dimension", "factor", "encoder", "root", and for the "pooled"
            vectors and the "patches": their number "tokens", how they are stored
            ("codec", "fitted", "bytes_per_token"), and "bytes_per_page".  "search" says
            what reads the pooled vectors, as in :class:`muvera.IndexInfo`.
        """
        pooled, patches = self._pages.vectors.info(), self._patches.info()
        return {
            "pages": len(self), "dimension": self.dimension, "factor": self._factor,
            "encoder": self._made_by or None, "root": None if self._root is None else str(self._root),
            "search": pooled.search, "pooled": _sizes(pooled), "patches": _sizes(patches),
        }  # fmt: skip

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
        """
        if path is None and self._folder is None:
            raise ValueError("save() without a path needs a saved or loaded index. Give a path.")
        target = self._folder if path is None else as_path(path).resolve()
        assert target is not None
        with self._changing:
            if target == self._folder and is_page_index(target):
                self._save_changes(target)
            else:
                self._save_new(target, overwrite)

    def _save_changes(self, target: Path) -> None:
        """Write new patches before the pages that name them, and remove unused ones."""
        self._patches.save(target / PATCHES)
        self._pages.save(target / POOLED)
        unused = self._unused()
        if unused:
            self._patches.delete(unused)
            self._patches.save(target / PATCHES)

    def _unused(self) -> list[int]:
        """Return the numbers of patches that no page names."""
        if len(self._patches) == len(self._pages):  # each page names one
            return []
        used = {PageFacts.of(document.metadata).patches_id for document in self._pages}
        contents = self._patches.contents
        return [number for number in contents.ids.of(contents.ids.live).tolist() if number not in used]

    def _save_new(self, target: Path, overwrite: bool) -> None:
        self._patches.delete(self._unused())
        if overwrite and target.is_dir() and any(target.iterdir()) and not is_page_index(target):
            raise FileExistsError(
                f"{target} is not a page index, so it is not replaced. Give another name, or empty it "
                "yourself."
            )
        with atomic_folder(target, overwrite) as beside:
            self._patches.save(beside / PATCHES)
            self._pages.save(beside / POOLED)
            Facts(self._factor, None if self._root is None else str(self._root)).write(beside)
        # From now on, they read from the new folder and save their changes to it.
        self._pages, self._patches = read_parts(target)
        self._folder = target

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: PageEncoder | str | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
    ) -> PageIndex:
        """Load an index from a folder of :meth:`save`.

        Vectors stay on disk and are memory-mapped.

        Parameters
        ----------
        path : path
            The folder of the index.
        encoder : PageEncoder or str, optional
            Must have the name of the encoder that made the vectors.  Default: that
            encoder, if it is "colpali" or "colmodernvbert", loaded at the first query
            of words; none otherwise.
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
        target = as_path(path).resolve()
        facts = Facts.read(target)
        loaded = cls.__new__(cls)
        loaded._factor = facts.factor
        loaded._served_root = None if root is None else as_path(root).resolve()
        stored = None if facts.root is None else Path(facts.root)
        loaded._root = stored if loaded._served_root is None else loaded._served_root
        loaded._folder = target
        loaded._pages, loaded._patches = read_parts(target)
        loaded._made_by = loaded._pages.database.text_encoder or ""
        loaded._encoder = required_page_encoder(loaded._made_by, encoder, target)
        loaded._renew_locks()
        renew_after_fork(loaded)
        return loaded


def _sizes(info: IndexInfo) -> dict[str, Any]:
    codec = {name: info.token_codec[name] for name in ("codec", "fitted", "bytes_per_token")}
    return {"tokens": info.tokens, **codec, "bytes_per_page": info.bytes_per_document}


def _read(source: Any) -> MultiVectors:
    from ..convert import read

    return read(source, drop_zero_rows=True)
