"""EngineTexts: the texts or pages of an index in a vector database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeVar

import numpy as np

from ..data.multivectors import MultiVectors, cut_parts, join_parts
from ..engines.base import Engine, EngineError, slices
from ..engines.engine_index import EngineIndex, read_groups
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..metadata import Filter, TextDocument
from ..metadata.groups import Group
from ..utils.hints import Hint, Message
from .database import count_reading, shared_words
from .encoders.base import NoEncoder, TextEncoder, passage_length
from .encoders.registry import as_text_encoder, required_encoder
from .hit import SearchOptions
from .protocol import NewTexts
from .ranking import Parts, add_parts, best_parts

Result = TypeVar("Result")

# Documents that an iteration reads at once.
_DOCUMENTS = 500

_NO_VECTORS = "is a database, so index, info and rebuild are not available. Use EngineIndex instead."


class EngineTexts:
    """A collection of texts or pages in a vector database, with the methods of Texts.

    :class:`muvera.texts.protocol.Texts` describes the methods.  Changes are durable at
    once.  The methods that need all texts or the vectors raise EngineError.  Shared
    words only reorder candidates.

    Parameters
    ----------
    index : EngineIndex
        A collection with texts, or a new one whose `text_encoder` is named.
    passage : int, optional
        Longer texts are stored as parts of at most this many tokens, if the collection
        takes parts.
    """

    #: No lock: the database orders concurrent changes.
    changing: AbstractContextManager[object] = nullcontext()

    #: A database stores no mean vectors.
    has_means = False

    #: A database stores token vectors.
    table = None

    def __init__(self, index: EngineIndex, passage: int | None = None) -> None:
        self.index = index
        self._passage = passage

    def __repr__(self) -> str:
        return self.index.engine.location

    # -- reading --------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, (int, str)) and bool(self.get([id], missing="ignore"))

    def __iter__(self) -> Iterator[TextDocument]:
        for some in slices(self.select({}), _DOCUMENTS):
            # Another program can have deleted some since.
            yield from self.get(some, missing="ignore")

    def get(self, ids: list[int | str], *, missing: Missing = "raise") -> list[TextDocument]:
        """Return texts and metadata in the order of `ids`.

        For an unknown id, raise KeyError, or skip it with ``missing="ignore"``.
        """
        found = self.index.documents(ids, missing=missing)
        count_reading(sum(len(document.text) for document in found))
        return found

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of documents that satisfy a condition, in the order of ids."""
        return [] if self.index.engine.description is None else self.index.engine.ids(where)

    def groups(self, field: str, ids: Sequence[int | str]) -> dict[int | str, Group]:
        """Return the values of a metadata field by id, without ids that have none."""
        return read_groups(self.index, field, ids)

    def tokens(self, ids: list[int | str]) -> MultiVectors:
        """Return the token vectors of texts; the parts of a long one are joined.

        They have half precision.  Raise KeyError for an unknown id.
        """
        found = join_parts(self.index.engine.tokens(ids))
        if len(found) < len(ids):
            self.get(ids)  # names the unknown id
        return found

    @property
    def vectors(self) -> MuveraIndex:
        """Raise EngineError: the token vectors are in the database."""
        self._refuse(_NO_VECTORS)

    # -- searching ------------------------------------------------------------

    def rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        """Return the score parts of the best ``options.k`` texts for each query."""
        if self.index.engine.description is None:
            return [{} for _ in queries]
        count = self.index.num_candidates(options.k, options.candidates, options.recall)
        field, most = options.group_by, options.k if options.group_by is None else count
        rankings = self.index.search(
            encoded,
            count if options.words else most,
            where=options.where,
            ids=options.ids,
            candidates=count,
            threads=options.threads,
        )
        if options.candidates is None:  # the candidates can be parts of fewer than k texts
            short = [
                q for q, found in enumerate(rankings) if found.parts is not None and len(found) < options.k
            ]
            more = self.index.search(
                encoded[short], options.k, where=options.where, ids=options.ids, threads=options.threads
            )
            for q, found in zip(short, more, strict=True):
                rankings[q] = found
        ranked: list[Parts] = []
        for query, ranking in zip(queries, rankings, strict=True):
            maxsim = dict(ranking)
            if options.words:
                shared = self._shared_words(query, list(maxsim))
                ranked.append(add_parts(maxsim, shared, {}, options.weights, most))
            else:
                ranked.append({id: {"maxsim": score} for id, score in maxsim.items()})
        if field is None:
            return ranked
        groups = self.groups(field, list({id: None for parts in ranked for id in parts}))
        return [best_parts(parts, groups, options.k) for parts in ranked]

    def _shared_words(self, query: str, candidates: list[Any]) -> dict[Any, float]:
        """Return BM25 scores of candidates, computed over the candidates only."""
        documents = self.get(candidates, missing="ignore")
        return shared_words(query, [one.id for one in documents], [one.text for one in documents])

    def on_one_state(self, read: Callable[[], Result]) -> Result:
        """Return ``read()``.

        Other programs can change the database between its reads.
        """
        return read()

    def calibrate(self, queries: MultiVectors, threads: int | None) -> None:
        """Store in the collection how many candidates ``recall=`` needs.

        At least 64 typical queries are needed.
        """
        self.index.calibrate(queries, threads=threads)

    # -- changing -------------------------------------------------------------

    def put(self, new: NewTexts, threads: int | None, update: bool = False) -> list[int | str]:
        """Add texts, and return their ids.

        Raise ValueError for texts without ids, a blank text, or an id in use without
        `update`.  Raise EngineError if the engine fails; earlier batches stay written.
        """
        encoded = new.encoded
        assert isinstance(encoded, MultiVectors)  # rows of a table need a folder
        if not encoded.has_ids:
            raise ValueError(Message("Texts in a database need ids. ", Hint("give_ids", "Give ids=.")))
        names: list[int | str] = encoded.ids.tolist()
        empty = np.flatnonzero(encoded.lengths == 0)
        if len(empty):
            raise ValueError(
                f"The text of {names[empty[0]]!r} is blank, and a database cannot find blank texts. "
                "Remove it."
            )
        if self._passage is not None and self.index.engine.takes_parts:
            encoded = cut_parts(encoded, self._passage)
        write = self.index.update if update else self.index.add
        write(encoded, new.metadata, texts=new.texts, threads=threads)
        return names

    def put_metadata(self, documents: list[TextDocument], metadata: list[dict[str, Any]]) -> None:
        """Replace the metadata of stored texts.

        `documents` are the texts as they are stored, and `metadata` is the new metadata
        of each of them.
        """
        tokens = self.index.engine.tokens([document.id for document in documents])
        self.index.update(tokens, metadata, texts=[document.text for document in documents])

    def delete(self, ids: list[int | str], missing: Missing) -> None:
        """Delete texts.

        For an unknown id, raise KeyError, or ignore it with ``missing="ignore"``.
        """
        self.index.delete(ids, missing=missing)

    # -- folders --------------------------------------------------------------

    def rebuild(self, fit: bool, threads: int | None) -> None:
        """Raise EngineError: the token vectors are in the database."""
        self._refuse(_NO_VECTORS)

    def save(self, path: str | os.PathLike[str] | None, overwrite: bool = False) -> None:
        """Do nothing without a path, since changes are durable.

        Raise EngineError for a path.
        """
        if path is not None:
            self._refuse("has no folder. Build a TextIndex to save one.")

    def close(self) -> None:
        """Close connections and files."""
        self.index.close()

    def _refuse(self, reason: str) -> NoReturn:
        raise EngineError(Message(f"{self.index.engine.location} ", reason))


def open_engine_texts(
    engine: Engine | str, encoder: TextEncoder | str | None
) -> tuple[EngineTexts, TextEncoder]:
    """Open a collection of texts, or an empty one, and its text encoder.

    `engine` can be the collection's URL.  Without `encoder`, load the encoder that the
    collection names, if it may be loaded.

    Raises
    ------
    EngineError
        If the database cannot be reached, the collection has no texts, or it does not
        exist and no encoder is given.
    ValueError
        For another encoder than the collection's.
    """
    index = EngineIndex(engine)
    stored = index.engine.description
    location = index.engine.location
    try:
        if stored is None:
            if encoder is None or isinstance(encoder, NoEncoder):
                raise EngineError(
                    f"{location} does not exist. Load texts with muvera load, or give an encoder to "
                    "create it."
                )
            model = as_text_encoder(encoder)
            # The first texts create the collection, with the name of their encoder.
            index = EngineIndex(index.engine, text_encoder=model.name)
        elif stored.pages is not None:
            raise EngineError(f"{location} has pages, not texts. Open it with PageIndex.open.")
        elif stored.text_encoder is None:
            raise EngineError(f"{location} has no texts. Load an index of texts with muvera load.")
        else:
            model = required_encoder(stored.text_encoder, encoder, location)
    except BaseException:
        if isinstance(engine, str):
            index.close()
        raise
    return EngineTexts(index, passage_length(model)), model
