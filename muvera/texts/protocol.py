"""Texts: what a TextIndex needs from the place where its texts are stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

from ..data.multivectors import MultiVectors
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..metadata import Filter, TextDocument
from ..metadata.groups import Group
from ..reranking.coded_vectors import CodedVectors
from ..reranking.table_codec import TableCodec
from .hit import SearchOptions
from .ranking import Parts

Result = TypeVar("Result")


class NewTexts(NamedTuple):
    """Texts to add or replace.

    Without ids in `encoded`, they get the next integers.
    """

    #: Their token vectors; codes if :attr:`Texts.table` is not None.
    encoded: MultiVectors | CodedVectors
    texts: list[str]
    metadata: Sequence[Mapping[str, Any]]
    #: Means of groups of tokens, for an index in this process with ``pool``.  Then no
    #: encoder can make the tokens again, so a journal keeps them.
    means: MultiVectors | None = None


class Texts(Protocol):
    """Texts with their metadata and their token vectors, under the same ids.

    A :class:`muvera.TextIndex` checks arguments, encodes texts and queries, and makes
    hits.  It leaves storing and ranking to an object with these methods:
    :class:`muvera.texts.store.TextStore` in this process, or
    :class:`muvera.texts.engine_texts.EngineTexts` in a vector database.

    ``repr`` of such an object shows where the texts are stored.  With `threads` None, a
    method uses all usable cores.
    """

    # -- reading --------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of texts."""

    def __contains__(self, id: object) -> bool:
        """Return True if a text has this id."""

    def __iter__(self) -> Iterator[TextDocument]:
        """Yield all texts in the order of :meth:`select`."""

    def get(self, ids: list[int | str], *, missing: Missing = "raise") -> list[TextDocument]:
        """Return texts and metadata in the order of `ids`.

        For an unknown id, raise KeyError, or skip it with ``missing="ignore"``.
        """

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of texts that satisfy a condition, in insertion order.

        A database returns them in the order of the ids.
        The condition ``{}`` selects all texts.
        """

    def groups(self, field: str, ids: Sequence[int | str]) -> dict[int | str, Group]:
        """Return the values of a metadata field by id, without ids that have none.

        Raise ValueError if no text has a value in the field.
        """

    def tokens(self, ids: list[int | str]) -> MultiVectors:
        """Return the stored token vectors of texts, in the order of `ids`.

        Raise KeyError for an unknown id.
        """

    @property
    def vectors(self) -> MuveraIndex:
        """The index of the token vectors, if they are in this process."""

    # -- searching ------------------------------------------------------------

    @property
    def has_means(self) -> bool:
        """True if each text has a mean token vector, which ``options.mean`` needs."""

    @property
    def table(self) -> TableCodec | None:
        """The codec of tokens that are rows of the encoder's table, or None."""

    def rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        """Find the best texts for each query.

        Parameters
        ----------
        queries : list of str
            Their words count if ``options.words`` is above 0.
        encoded : MultiVectors
            The token vectors of the queries, in the same order.
        options : SearchOptions
            Of these, `explain` is ignored.

        Returns
        -------
        list of dict
            For each query, the parts of the score of at most ``options.k`` texts, best
            text first.
        """

    def on_one_state(self, read: Callable[[], Result]) -> Result:
        """Return ``read()``, which may call several methods.

        All of them see the same texts, if the backend can ensure this.  `read` can be
        called twice, because another thread may change the texts meanwhile.
        """

    def calibrate(self, queries: MultiVectors, threads: int | None) -> None:
        """Measure how many candidates a search with ``recall=`` needs.

        `queries` are the token vectors of at least 64 typical queries.
        """

    # -- changing -------------------------------------------------------------

    @property
    def changing(self) -> AbstractContextManager[object]:
        """A lock that keeps other threads of this process from changing texts."""

    def put(self, new: NewTexts, threads: int | None, update: bool = False) -> list[int | str]:
        """Add texts, and return their ids.

        All are added or none, except in a database, where batches written before an
        error stay.

        `update` replaces texts with the same ids.  Otherwise, raise ValueError for an
        id that is in use.
        """

    def put_metadata(self, documents: list[TextDocument], metadata: list[dict[str, Any]]) -> None:
        """Replace the metadata of stored texts.

        `documents` are the texts as they are stored, and `metadata` is the new metadata
        of each of them.
        """

    def delete(self, ids: list[int | str], missing: Missing) -> None:
        """Delete texts.

        For an unknown id, raise KeyError and delete nothing, or ignore the id with
        ``missing="ignore"``.
        """

    # -- folders --------------------------------------------------------------

    def rebuild(self, fit: bool, threads: int | None) -> None:
        """Free the memory of deleted texts and recompute all FDEs.

        With `fit`, fit the encoder of FDEs again even if ``vectors.info()`` does not
        warn.
        """

    def save(self, path: str | os.PathLike[str] | None, overwrite: bool = False) -> None:
        """Write everything to a folder, or without `path` to the place of the texts.

        `overwrite` replaces another index in that folder.
        """

    def close(self) -> None:
        """Make all changes durable, and release the folder or connection."""
