"""MuveraIndex: from token vectors to exactly ranked results."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .candidates import Backend, CandidateSearch
from .chamfer import Explanation, explain, require_k, require_query_tokens
from .fde.config import FDEConfig
from .fde.encoder import FDEEncoder
from .inputs import Ids
from .parallel import run_in_ranges, split_by_weight
from .ranking import Ranking, best_first
from .store.folder import IndexFolderError, commit, move, read_manifest, verify
from .store.names import Names
from .store.tokens import Segment, TokenStore, mapped
from .vectors import MultiVectors, as_multivectors

__all__ = ["MuveraIndex"]

#: Up to this many tokens an exact search of all of them is as fast as the two stages
#: (`python -m experiments speed` measures where), so no FDEs are made.
EXACT_TOKENS = 50_000

Filter = Collection[Any] | Callable[[Any], bool]


class MuveraIndex:
    """A searchable collection of token sets: FDE candidates, exact Chamfer ranking.

    Small collections are searched exactly, without FDEs; once they outgrow `exact_tokens`,
    FDEs are made of everything, and what is learnt from documents (the mean token, the
    maps of a ``compact_dimension``) is learnt then and frozen.  A build from an iterator of
    batches learns from those that have come by then: give it the documents in random order,
    or an encoder that is fitted on a sample of all.

    Searching from several threads at once is safe.  Changing the index is not safe while
    another thread searches it; changes among themselves wait for each other.

    Parameters
    ----------
    config : FDEConfig
        How FDEs are made.
    backend : {"auto", "exact", "hnsw"}
        How FDEs are searched, see :class:`muvera.candidates.CandidateSearch`.
    hnsw : dict, optional
        Settings of :class:`muvera.mips.HNSWSearch`: m, ef_construction, ef, space, seed.
    exact_tokens : int
        Search exactly up to this many tokens, also within a filter.  0: never.
    encoder : FDEEncoder, optional
        A fitted encoder to use instead of learning from the documents.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(5, 8)) for _ in range(3)], ids=["a", "b", "c"])
    >>> index = MuveraIndex.build(documents)
    >>> index.search([documents[1]], k=1)[0].ids
    array(['b'], dtype='<U1')
    """

    def __init__(
        self,
        config: FDEConfig,
        *,
        backend: Backend = "auto",
        hnsw: dict[str, Any] | None = None,
        exact_tokens: int = EXACT_TOKENS,
        encoder: FDEEncoder | None = None,
    ) -> None:
        if isinstance(exact_tokens, bool) or not isinstance(exact_tokens, int) or exact_tokens < 0:
            raise ValueError(f"exact_tokens must be an int of at least 0, got {exact_tokens!r}.")
        if encoder is not None and encoder.config != config:
            raise ValueError("The encoder's configuration is another than the index's.")
        CandidateSearch.check_settings(backend, hnsw)
        self.config = config
        self.exact_tokens = exact_tokens
        self._backend: Backend = backend
        self._hnsw = dict(hnsw or {})
        self._encoder = encoder
        self._names = Names()
        self._store = TokenStore()
        self._lengths = np.empty(0, np.int64)
        self._candidates: CandidateSearch | None = None
        self._changed = RLock()
        self._home: Path | None = None
        self._generation: int | None = None

    # -- building -------------------------------------------------------------

    @classmethod
    def build(
        cls,
        documents: Any,
        config: FDEConfig | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
        **settings: Any,
    ) -> MuveraIndex:
        """Build an index.

        Parameters
        ----------
        documents : MultiVectors, a list of arrays, or an iterable of MultiVectors
            An iterable is read once, a batch at a time.
        config : FDEConfig, optional
            Default: ``FDEConfig`` of the documents' dimension.
        path : path, optional
            Save there too.  Token vectors then go to the disk as they come, so that memory
            holds a batch, the FDEs and their graph.
        threads : int, optional
            Default: all usable cores.  Only the HNSW graph depends on it.
        progress : callable, optional
            Called with the number of documents after each batch.
        **settings
            As for the class.

        Returns
        -------
        MuveraIndex
        """
        batches = _as_batches(documents)
        first = next(batches, None)
        if first is None:
            raise ValueError("There are no documents to build an index of. Give at least one batch.")
        index = cls(FDEConfig(dimension=first.dim) if config is None else config, **settings)
        spool = None
        if path is not None:
            target = Path(path).absolute()
            index._require_free(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            spool = Path(tempfile.mkdtemp(prefix=f".{target.name}.spool-", dir=target.parent))
            index._store = TokenStore(spool)
        try:
            for batch in chain([first], batches):
                index.add(batch, threads=threads)
                if progress is not None:
                    progress(len(batch))
            index._measure(threads)
            if path is not None:
                index.save(path)
        finally:
            if spool is not None:
                shutil.rmtree(spool, ignore_errors=True)
        return index

    def add(self, documents: Any, *, threads: int | None = None) -> None:
        """Add documents under new ids.

        Parameters
        ----------
        documents : MultiVectors or a list of arrays
            Without ids of their own they get the next integers.
        threads : int, optional

        Raises
        ------
        ValueError
            For an id that is in use (see :meth:`update`), another dimension, or a number
            that is not finite; nothing is added then.
        """
        documents = self._checked(documents)
        with self._changed:
            ids = self._names.new_ids(documents)
            rows = np.arange(len(self._store), len(self._store) + len(documents))
            self._append(rows, ids, documents, threads)

    def update(self, documents: MultiVectors, *, threads: int | None = None) -> None:
        """Add documents, replacing those whose id is in use.

        Parameters
        ----------
        documents : MultiVectors
            With ids.
        """
        documents = self._checked(documents)
        if not documents.has_ids:
            raise ValueError("update needs documents with ids, which say what they replace. Use add.")
        with self._changed:
            self._names.require_kind(documents.ids)
            self._remove(self._names.rows_in_use(documents.ids))
            rows = np.arange(len(self._store), len(self._store) + len(documents))
            self._append(rows, documents.ids, documents, threads)

    def delete(self, ids: Iterable[Any]) -> None:
        """Delete documents by id.

        Raises
        ------
        KeyError
            For an id that is not in the index; nothing is deleted then.
        """
        with self._changed:
            self._remove(self._names.rows(_as_list(ids, "ids")))

    def compact(self, *, threads: int | None = None) -> None:
        """Drop the memory of deleted documents: rows are numbered anew and FDEs made again."""
        with self._changed:
            rows = self._names.live
            documents = self._store.rows(rows)
            ids = self._names.of(rows)
            encoder = None if self._candidates is None else self._candidates.encoder
            self._encoder = encoder or self._encoder
            self._names, self._store, self._candidates = Names(), TokenStore(), None
            self._lengths = np.empty(0, np.int64)
            self._append(np.arange(len(rows)), ids, documents, threads)
            self._measure(threads)

    def _checked(self, documents: Any) -> MultiVectors:
        checked = as_multivectors(documents, "documents")
        checked.require_dim(self.config.dimension, "documents", "this index")
        checked.require_finite("documents")
        return checked

    def _append(
        self, rows: NDArray[np.int64], ids: Ids, documents: MultiVectors, threads: int | None
    ) -> None:
        if self._candidates is not None:
            self._candidates.add(rows, documents, threads)
        self._store.append(documents)
        self._lengths = np.concatenate([self._lengths, documents.lengths])
        self._names.append(ids)
        if self._candidates is None and int(self._lengths[self._names.live].sum()) > self.exact_tokens:
            self._make_candidates(threads)

    def _make_candidates(self, threads: int | None) -> None:
        """Encode everything that is there, having learnt what is to be learnt."""
        encoder = FDEEncoder(self.config) if self._encoder is None else self._encoder
        live = self._names.live
        parts = [
            (row, self._store.rows(live[row : row + 4096]))
            for row in range(0, len(live), 4096)
            if len(self._store.segments) > 1 or len(live) < len(self._store)
        ] or [(0, self._store.segments[0].vectors)]
        if encoder.needs_fit:
            encoder.fit((part for _, part in parts), threads=threads)
        candidates = CandidateSearch(encoder, self._backend, self._hnsw)
        for start, part in parts:
            candidates.add(live[start : start + len(part)], part, threads)
        self._candidates = candidates

    def _remove(self, rows: NDArray[np.int64]) -> None:
        self._names.drop(rows)
        if self._candidates is not None:
            self._candidates.remove(rows)

    def _measure(self, threads: int | None) -> None:
        if self._candidates is not None:
            live = self._names.live
            stream = np.random.default_rng(0)
            sample = np.sort(stream.choice(live, min(256, len(live)), replace=False))
            self._candidates.measure(self._store.rows(sample), threads)

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        candidates: int = 100,
        filter: Filter | None = None,
        mean: bool = False,
        threads: int | None = None,
    ) -> list[Ranking]:
        """Return the `k` best documents for each query.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        k : int
            At most the number of documents that have tokens.
        candidates : int
            Documents that FDEs propose and exact Chamfer orders, at least k.  More find more
            and take longer, in proportion.
        filter : collection of ids, or callable, optional
            Search only among these ids, or those for which the callable returns true.  An
            empty collection finds nothing; ids that are not in the index are ignored.
        mean : bool
            Scores divided by the number of query tokens; the order is the same.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Ranking
            One a query, with at most k documents (fewer only where `filter` allows fewer);
            ties go to the document that was added first.  Documents without tokens are never
            returned.
        """
        queries = as_multivectors(queries, "queries")
        queries.require_dim(self.config.dimension, "queries", "this index")
        queries.require_finite("queries")
        require_query_tokens(queries)
        live = self._names.live
        rows = live[self._lengths[live] > 0]
        require_k(k, len(rows), "documents with tokens in the index")
        require_k(candidates, None, "")
        if candidates < k:
            raise ValueError(f"candidates={candidates} must be at least k={k}.")
        if filter is not None:
            rows = self._filtered(rows, filter)
        exactly = (
            self._candidates is None
            or len(rows) <= candidates
            or int(self._lengths[rows].sum()) <= self.exact_tokens
        )
        if exactly:
            return self._rank(queries, [rows], k, mean, threads)
        assert self._candidates is not None
        found = self._candidates.find(queries, candidates, None if filter is None else rows, threads)
        return self._rank(queries, [np.sort(row) for row in found], k, mean, threads)

    def explain(self, query: Any, id: Any) -> Explanation:
        """Tell which token of the document `id` answers each token of one query."""
        row = self._names.rows([id])
        return explain(query, self._store.rows(row)[0])

    def _filtered(self, rows: NDArray[np.int64], filter: Filter) -> NDArray[np.int64]:
        if callable(filter):
            keep = [bool(filter(name)) for name in self._names.of(rows).tolist()]
            return rows[np.array(keep, bool)]
        allowed = self._names.rows_in_use(_as_list(filter, "filter"))
        return np.asarray(rows[np.isin(rows, allowed)], np.int64)

    def _rank(
        self,
        queries: MultiVectors,
        rows: list[NDArray[np.int64]],
        k: int,
        mean: bool,
        threads: int | None,
    ) -> list[Ranking]:
        """Order rows exactly; one list of rows serves all queries, else each has its own."""
        rankings: list[Ranking] = [Ranking(self._names.of(rows[0][:0]), np.empty(0, np.float32))] * len(
            queries
        )
        alone = len(queries) == 1

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                picked = rows[0] if len(rows) == 1 else rows[q]
                if len(picked) == 0:
                    continue
                scores = self._store.scores(queries[q : q + 1], picked, mean, threads if alone else 1)[:, 0]
                best = best_first(scores, k)
                rankings[q] = Ranking(self._names.of(picked[best]), scores[best])

        run_in_ranges(work, split_by_weight(queries.offsets, 1, 1), threads)
        return rankings

    # -- looking --------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, id: object) -> bool:
        return id in self._names

    def __repr__(self) -> str:
        return f"MuveraIndex({len(self)} documents, dimension={self.config.dimension}, {self._kind})"

    @property
    def ids(self) -> Ids:
        """Ids of all documents, in the order they were added."""
        return self._names.of(self._names.live)

    @property
    def encoder(self) -> FDEEncoder | None:
        """The fitted encoder; None while the collection is searched exactly."""
        return None if self._candidates is None else self._candidates.encoder

    @property
    def _kind(self) -> str:
        return "all tokens" if self._candidates is None else self._candidates.search.kind

    def info(self) -> dict[str, Any]:
        """Return sizes, settings, the measured recall of the graph, and warnings in words."""
        live = self._names.live
        tokens = int(self._lengths[live].sum())
        deleted = len(self._store) - len(live)
        itemsize = self._store.segments[0].vectors.tokens.itemsize if self._store.segments else 4
        search = None if self._candidates is None else self._candidates.info()
        token_bytes = tokens * self.config.dimension * itemsize
        per_document = token_bytes / max(1, len(live)) + (search["bytes_per_vector"] if search else 0)
        warnings = [] if self._candidates is None else self._candidates.warnings()
        if deleted > max(100, len(live) // 2):
            warnings.append(f"{deleted} deleted documents still take memory: call compact().")
        return {
            "documents": len(live),
            "empty_documents": int((self._lengths[live] == 0).sum()),
            "deleted_documents": deleted,
            "tokens": tokens,
            "dimension": self.config.dimension,
            "search": self._kind,
            "exact_tokens": self.exact_tokens,
            "fde": {**self.config.to_dict(), "fde_dimension": self.config.fde_dimension},
            "vectors": search,
            "bytes_per_document": round(per_document),
            "warnings": warnings,
        }

    # -- keeping --------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder, or its changes to the folder it came from.

        The folder always holds a whole index, the old or the new one, whatever interrupts
        the writing; token vectors that are in it already are not written again.

        Raises
        ------
        IndexFolderError
            Where another process is writing the folder or has changed it since it was loaded.
        FileExistsError
            Where the folder holds something else.
        """
        target = Path(path).absolute()
        with self._changed:
            same = target == self._home
            segments: list[Segment] = []

            def fill(folder: Path) -> tuple[dict[str, Any], list[str]]:
                return self._write(target, folder, segments)

            self._generation = commit(target, fill, self._generation if same else None)
            self._home = target
            # From here on the tokens are read from where they were put.
            self._store.segments = [
                Segment(
                    part.first, mapped(target / str(part.path), part.vectors.lengths), target / str(part.path)
                )
                for part in segments
            ]

    def _write(self, target: Path, folder: Path, segments: list[Segment]) -> tuple[dict[str, Any], list[str]]:
        """Write a generation's files; note in `segments` where each will stand, relative to `target`."""
        name = f"generation-{(self._generation or 0) + 1 if target == self._home else 1:06d}"
        kept = []
        for part in self._store.segments:
            if part.path is not None and target in part.path.parents:
                relative = part.path.relative_to(target)
                kept.append(relative.as_posix())
                segments.append(Segment(part.first, part.vectors, relative))
        memory = TokenStore()
        memory.segments = [part for part in self._store.segments if part.path is None]
        memory.flush(folder)
        elsewhere = [p for p in self._store.segments if p.path is not None and target not in p.path.parents]
        for part in elsewhere:
            assert part.path is not None
            spooled = ".spool-" in part.path.parent.name
            (move if spooled else shutil.copyfile)(part.path, folder / part.path.name)
        for part in (*elsewhere, *memory.segments):
            assert part.path is not None
            segments.append(Segment(part.first, part.vectors, Path(name) / part.path.name))
        segments.sort(key=lambda part: part.first)
        np.save(folder / "lengths.npy", self._lengths)
        self._names.save(folder)
        entries = {
            "config": self.config.to_dict(),
            "config_hash": self.config.hash,
            "exact_tokens": self.exact_tokens,
            "backend": self._backend,
            "hnsw": self._hnsw,
            "segments": [
                {"first": part.first, "file": part.path.as_posix()} for part in segments if part.path
            ],
            "candidates": None if self._candidates is None else self._candidates.save(folder),
        }
        return entries, kept

    def _require_free(self, target: Path) -> None:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(
                f"{target} exists and is not empty. Give another name, or load the index there and change it."
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify_files: bool | None = None) -> MuveraIndex:
        """Load an index; token vectors stay on the disk and are mapped.

        Parameters
        ----------
        path : path
            A folder that :meth:`save` wrote.
        verify_files : bool, optional
            True: compare the checksum of every file.  False: sizes alone.  Default: checksums
            of files up to 256 MiB, sizes of larger ones.

        Raises
        ------
        FileNotFoundError, IndexFolderError
            Where the folder holds no index, or one that is damaged or of another version.
        """
        folder = Path(path).absolute()
        manifest = read_manifest(folder)
        verify(folder, manifest, verify_files)
        try:
            config = FDEConfig.from_dict(manifest["config"])
            if config.hash != manifest["config_hash"]:
                raise IndexFolderError(
                    f"{folder} was built with configuration {manifest['config_hash']}, but its manifest "
                    f"describes {config.hash}: the manifest was changed. Restore it from a copy."
                )
            loaded = cls(
                config,
                backend=manifest["backend"],
                hnsw=manifest["hnsw"],
                exact_tokens=manifest["exact_tokens"],
            )
            files = folder / manifest["folder"]
            loaded._lengths = np.load(files / "lengths.npy", allow_pickle=False)
            loaded._names = Names.load(files)
            entries = manifest["segments"]
            ends = [*(entry["first"] for entry in entries[1:]), len(loaded._lengths)]
            for entry, end in zip(entries, ends, strict=True):
                file = folder / entry["file"]
                vectors = mapped(file, loaded._lengths[entry["first"] : end])
                vectors.require_dim(config.dimension, f"The tokens in {file}", "its index")
                loaded._store.segments.append(Segment(entry["first"], vectors, file))
            if manifest["candidates"] is not None:
                removed = loaded._names.dropped
                loaded._candidates = CandidateSearch.load(files, config, manifest["candidates"], removed)
        except (KeyError, TypeError) as error:
            raise IndexFolderError(
                f"{folder} has an incomplete manifest: {error!r} is missing or wrong."
            ) from error
        loaded._home, loaded._generation = folder, manifest["generation"]
        return loaded


def _as_batches(documents: Any) -> Any:
    if isinstance(documents, MultiVectors) or hasattr(documents, "ndim"):
        return iter([as_multivectors(documents)])
    values = iter(documents)
    first = next(values, None)
    if first is None:
        return iter([])
    if isinstance(first, MultiVectors):
        return chain([first], values)
    return iter([MultiVectors.from_arrays(chain([first], values))])


def _as_list(values: Any, name: str) -> list[Any]:
    if isinstance(values, (str, bytes)):
        raise TypeError(
            f"{name} must be a collection of ids, got the single {type(values).__name__} {values!r}."
        )
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
