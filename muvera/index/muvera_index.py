"""MuveraIndex: from token vectors to exactly ranked results."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..encoders.base import Encoder, EncoderConfig
from ..encoders.registry import as_config, require_config
from ..mips import HNSWSettings, PQSettings, USearchSettings
from ..reranking.codecs.base import CodedVectors
from ..utils.parallel import thread_count
from .contents import IndexContents
from .default_preset import default_preset, number_of_documents
from .generations import Generation, staging_beside
from .id_map import Missing
from .manifest import TEXTS
from .persistence import read_contents, write_contents
from .search_plan import as_id_list
from .searchable import SearchableIndex
from .settings import EXACT_TOKENS, Backend, IndexSettings, Tokens, TokenSettings
from .source_codes import batches_with_codes

__all__ = ["MuveraIndex"]


class MuveraIndex(SearchableIndex):
    """A searchable collection of token sets: candidates by vectors, exact Chamfer ranking.

    Small collections are searched exactly, without vectors; once they outgrow `exact_tokens`,
    vectors are made of everything, and what is learned from documents (the mean token, the
    maps of a ``compact_dimension`` or of a :class:`LearnedConfig`) is learned then and frozen.
    Maps need 256 documents at least; until there are so many, all tokens are read.  A build
    from an iterator of batches learns maps from the first 4,096 documents, and the mean token
    from the batches that outgrow `exact_tokens`: give it the documents in random order, or an
    encoder that is fitted on all of them, as ``muvera index`` and ``muvera encode`` do.

    Several threads may search at once, also while another one adds, updates, deletes, saves or
    rebuilds: a search sees all of a change or nothing of it.  Changes wait for each other.  A search
    waits for the moments in which vectors are inserted, not for their encoding.

    Parameters
    ----------
    config : EncoderConfig
        How vectors are made: an FDEConfig, a LearnedConfig or another kind's.
    backend : {"auto", "exact", "hnsw", "usearch", "int8", "pq"}
        How vectors are searched, see :class:`muvera.index.settings.IndexSettings`.
    hnsw : HNSWSettings or dict, optional
        Of the graph, such as ``{"m": 32}``.
    usearch : USearchSettings or dict, optional
        Of the graph of usearch, such as ``{"precision": "int8"}``.
    pq : PQSettings or dict, optional
        Of product codes, such as ``{"rescore": 200}``.
    exact_tokens : int
        Search exactly up to this many tokens, also within a filter.  0: never.
    tokens : str, TokenSettings or dict, optional
        How tokens are kept, see :class:`muvera.index.settings.TokenSettings`: "as_given" (the default),
        "float32", "float16", or as codes that are learned from the documents, "int8", "4bit", "2bit" or
        "1bit"; ``{"codec": "2bit", "keep_exact": True}`` keeps exact tokens beside the codes.
    encoder : Encoder, optional
        A fitted encoder to use instead of learning from the documents.

    Raises
    ------
    TypeError, ValueError
        For a wrong setting, or an encoder of another configuration.

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
        config: EncoderConfig,
        *,
        backend: Backend = "auto",
        hnsw: HNSWSettings | Mapping[str, Any] | None = None,
        usearch: USearchSettings | Mapping[str, Any] | None = None,
        pq: PQSettings | Mapping[str, Any] | None = None,
        exact_tokens: int = EXACT_TOKENS,
        tokens: Tokens = None,
        encoder: Encoder | None = None,
    ) -> None:
        require_config(config)
        if encoder is not None and encoder.config != config:
            raise ValueError(
                f"The encoder has configuration {encoder.config.hash}, but the index is to have {config.hash}. "
                "Give encoder.config, or leave the encoder out."
            )
        settings = IndexSettings.from_dict(
            {
                "backend": backend,
                "hnsw": hnsw,
                "usearch": usearch,
                "pq": pq,
                "exact_tokens": exact_tokens,
                "tokens": tokens,
            }
        )
        super().__init__(IndexContents(config, settings, encoder=encoder))
        self._changed = RLock()
        self._generations: dict[Path, Generation] = {}  # by folder: what was read or written there last
        self._attachments: dict[str, Path] = {}

    # -- building -------------------------------------------------------------

    @classmethod
    def build(
        cls,
        documents: Any,
        config: EncoderConfig | str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        backend: Backend = "auto",
        hnsw: HNSWSettings | Mapping[str, Any] | None = None,
        usearch: USearchSettings | Mapping[str, Any] | None = None,
        pq: PQSettings | Mapping[str, Any] | None = None,
        exact_tokens: int = EXACT_TOKENS,
        tokens: Tokens = None,
        encoder: Encoder | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> MuveraIndex:
        """Build an index.

        Parameters
        ----------
        documents : MultiVectors, a list of arrays, or an iterable of MultiVectors
            An iterable is read once, a batch at a time.  With ``tokens="source"``: a PLAID index as
            :func:`muvera.convert.open_source` opens it, whose codes are kept.
        config : EncoderConfig or str, optional
            A configuration, or a preset's name, such as "learned" (:data:`muvera.encoders.registry.PRESETS`).
            Default: that of `encoder`, or what suits the number of documents: see
            :func:`muvera.index.default_preset.default_preset`.
        path : path, optional
            Save there too.  Token vectors then go to the disk as they come, so that memory
            holds a batch, the vectors and their graph.
        overwrite : bool
            Replace the index in `path`, once the new one is complete.
        backend, hnsw, usearch, pq, exact_tokens, tokens, encoder
            As for the class.
        threads : int, optional
            Default: all usable cores.  Only the HNSW graph depends on it.
        progress : callable, optional
            Called with the number of documents after each batch.

        Returns
        -------
        MuveraIndex

        Raises
        ------
        TypeError, ValueError
            For documents or settings that cannot be used, or no documents.
        FileExistsError
            Where `path` exists and is not to be replaced, or is no index.
        """
        with ExitStack() as stack:
            staging = None
            if path is not None:
                staging = stack.enter_context(staging_beside(_absolute(path), overwrite))
            batches = batches_with_codes(documents, TokenSettings.of(tokens))
            begun = next(batches, None)
            if begun is None:
                raise ValueError("There are no documents to build an index of. Give at least one batch.")
            first, codes = begun
            if config is None:
                chosen = default_preset(number_of_documents(documents), first.dimension)
                config = chosen if encoder is None else encoder.config
            index = cls(
                as_config(config, first.dimension),
                backend=backend,
                hnsw=hnsw,
                usearch=usearch,
                pq=pq,
                exact_tokens=exact_tokens,
                tokens=tokens,
                encoder=encoder,
            )
            if codes is not None:
                index._contents.use_codec(codes.codec)
            with index._contents.filling(threads, staging):
                for batch, codes in chain([begun], batches):
                    index._add(batch, threads, codes)
                    if progress is not None:
                        progress(len(batch))
            if path is not None:
                index._save(index._contents, _absolute(path), overwrite, {})
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
        TypeError, ValueError
            For an id that is in use (see :meth:`update`), another dimension, a number that is
            not finite, or no number of threads; nothing is added then.
        """
        with self._changed:
            drifted = self._contents.has_drifted
            self._add(documents, threads)
            self._contents.measure(threads)
            self._warn_of_drift(drifted)

    def _add(self, documents: Any, threads: int | None, codes: CodedVectors | None = None) -> None:
        thread_count(threads)  # also where nothing needs any
        documents = self._checked(documents, "documents")
        self._contents.append(self._contents.ids.new_ids(documents), documents, threads, codes)

    def _warn_of_drift(self, before: bool) -> None:
        """Warn at the first change after which the added documents are unlike the encoder's sample."""
        candidates = self._contents.candidates
        if before or candidates is None or candidates.profile is None:
            return
        sentence = candidates.profile.warning
        if sentence is not None:
            warnings.warn(sentence, stacklevel=3)

    def update(self, documents: MultiVectors, *, threads: int | None = None) -> None:
        """Add documents, replacing those whose id is in use.

        Parameters
        ----------
        documents : MultiVectors
            With ids.
        threads : int, optional

        Raises
        ------
        ValueError
            For documents without ids, another dimension, or a number that is not finite; nothing is
            changed then.
        TypeError
            For ids of another kind than the index has.
        """
        thread_count(threads)
        documents = self._checked(documents, "documents")
        if not documents.has_ids:
            raise ValueError("update needs documents with ids, which say what they replace. Use add.")
        with self._changed:
            self._contents.ids.require_kind(documents.ids)
            drifted = self._contents.has_drifted
            self._contents.append(documents.ids, documents, threads)
            self._contents.measure(threads)
            self._warn_of_drift(drifted)

    def delete(self, ids: Iterable[Any], missing: Missing = "raise") -> None:
        """Delete documents by id.

        Parameters
        ----------
        ids : iterable of int or of str
        missing : {"raise", "ignore"}
            What to do with ids that are not in the index.

        Raises
        ------
        KeyError
            For an id that is not in the index, unless it is to be ignored; nothing is deleted then.
        TypeError
            For ids of another kind than the index has, a bool and a float among them.
        """
        with self._changed:
            rows = self._contents.rows_of(as_id_list(ids, "ids"), missing)
            self._contents.remove(np.unique(np.array(rows, np.int64)))

    def rebuild(self, *, path: str | os.PathLike[str] | None = None, threads: int | None = None) -> None:
        """Drop the memory of deleted documents: rows are numbered anew and vectors made again.

        Maps that were learned from few documents, or from documents unlike those that came later, as
        :meth:`info` warns, and product codes are learned again, so that candidates may differ from before.

        Parameters
        ----------
        path : path, optional
            Save there too, in this index's folder or a new one; if that fails, the index stays as it was.
            Token vectors then go to the disk as they come, so that memory holds a batch, the vectors and
            their graph.  Without it, all tokens are in memory until the next :meth:`save`.
        threads : int, optional
        """
        thread_count(threads)
        with self._changed, ExitStack() as stack:
            if path is None:
                self._contents = self._contents.rebuilt(threads)
                return
            target = _absolute(path)
            staging = stack.enter_context(staging_beside(target, overwrite=True))
            contents = self._contents.rebuilt(threads, staging)
            self._save(contents, target, False, {})
            self._contents = contents

    # -- keeping --------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        attachments: Mapping[str, Callable[[Path], object]] | None = None,
    ) -> None:
        """Write the index to a folder, or its changes to a folder that it was loaded from or saved to.

        The folder always holds a whole index, the old or the new one, whatever interrupts
        the writing; token vectors that are in it already are not written again.

        Parameters
        ----------
        path : path
        overwrite : bool
            Replace another index in that folder, once this one is complete.
        attachments : mapping of str to callable, optional
            Files to keep with the index in the same step, by their names in
            :data:`muvera.index.manifest.FILE_PATTERNS`; each callable writes the file of the path that it is
            given.  Those that an index was loaded with are kept where no others are given.

        Raises
        ------
        IndexFolderError
            Where another process is writing the folder or has changed it since this index read or wrote it.
        FileExistsError
            Where the folder holds something else.
        """
        with self._changed:
            self._save(self._contents, _absolute(path), overwrite, attachments or {})

    def _save(
        self,
        contents: IndexContents,
        target: Path,
        overwrite: bool,
        attachments: Mapping[str, Callable[[Path], object]],
    ) -> None:
        kept: dict[str, Callable[[Path], object]] = {
            name: partial(shutil.copyfile, path) for name, path in self._attachments.items()
        }
        files = {**kept, **attachments}
        generation = write_contents(contents, target, self._generations.get(target), overwrite, files)
        self._generations[target] = generation
        self._attachments = {name: target / generation.folder / name for name in files}

    def attachment(self, name: str) -> Path | None:
        """Return the file that was saved with the index under this name, or None."""
        return self._attachments.get(name)

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
        folder = _absolute(path)
        contents, generation = read_contents(folder, verify_files)
        loaded = cls(contents.config)
        loaded._contents, loaded._generations = contents, {folder: generation}
        texts = folder / generation.folder / TEXTS
        loaded._attachments = {TEXTS: texts} if texts.is_file() else {}
        return loaded


def _absolute(path: str | os.PathLike[str]) -> Path:
    # Resolved, for a folder is known to be the same by its name.
    return Path(path).resolve()
