"""TextIndex: from texts to ranked, filtered, explained answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.multivectors import MultiVectors
from ..index.manifest import TEXTS
from ..index.muvera_index import MuveraIndex
from .database import DocumentDatabase
from .encoders.base import TextEncoder, as_texts, encode_in_batches, encode_texts, require_text_encoder
from .encoders.registry import load_text_encoder
from .searchable_texts import SearchableTexts

__all__ = ["TextIndex"]

# The database's property that names the encoder.
_ENCODER = "text_encoder"

Progress = Callable[[int], object]


class TextIndex(SearchableTexts):
    """A searchable collection of texts with metadata: an encoder, a :class:`MuveraIndex`, a database.

    Searching is safe from several threads at once, also while another one adds, updates or deletes.

    Parameters
    ----------
    index : MuveraIndex
        Of the texts' token vectors, under the same ids.
    database : DocumentDatabase
        Of the texts and their metadata.
    encoder : TextEncoder

    Examples
    --------
    >>> from muvera import TextIndex
    >>> index = TextIndex.build(["a red apple", "a green pear"], encoder="minilm-demo")  # doctest: +SKIP
    >>> index.search("fruit that is red", k=1)[0].text  # doctest: +SKIP
    'a red apple'
    """

    # -- building and changing ------------------------------------------------

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        encoder: TextEncoder | str = "minilm",
        *,
        vectors: Any = "moments",
        ids: Sequence[int | str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> TextIndex:
        """Build an index of texts.

        Parameters
        ----------
        texts : iterable of str
            May be empty: an index to add to.  A blank text is kept, but has no token vectors, and no search
            finds it.
        encoder : TextEncoder or str
            A name is one of :func:`muvera.load_text_encoder`.  An expensive model is best wrapped in
            :class:`muvera.texts.encoders.cache.CachedEncoder`: a build that was interrupted then goes on.
        vectors : str, configuration or fitted encoder
            How token vectors become one vector per text: ``encoder`` of :meth:`muvera.MuveraIndex.build`.
        ids : sequence of int or of str, optional
            Default: 0, 1, 2, ...
        metadata : sequence of dict, optional
            One for each text; what filters can ask for.
        path : path, optional
            Save there too.
        overwrite : bool
            Replace what is at `path` once the new index is complete.
        threads : int, optional
            Default: all usable cores.
        progress : callable, optional
            Called with the number of texts after each batch.
        **settings
            As for :meth:`muvera.MuveraIndex.build`: settings, backend, exact_tokens and the like.

        Returns
        -------
        TextIndex

        Raises
        ------
        TypeError, ValueError
            For texts that are no strings, metadata that JSON cannot hold, or ids that are used twice.
        FileExistsError
            Where `path` exists and `overwrite` is False.
        """
        if path is not None and not overwrite and Path(path).exists():
            raise FileExistsError(f"{path} exists. Give another name, or overwrite=True to replace it.")
        model = load_text_encoder(encoder) if isinstance(encoder, str) else require_text_encoder(encoder)
        found = as_texts(texts)
        names = list(range(len(found))) if ids is None else _one_each(ids, found, "ids")
        values = [{}] * len(found) if metadata is None else _one_each(metadata, found, "metadata")
        database = DocumentDatabase()
        database.set_property(_ENCODER, model.name)
        database.put(names, found, values)
        if found:
            batches = _with_ids(encode_in_batches(model.encode_documents, found, progress), names)
            index = MuveraIndex.build(batches, vectors, threads=threads, **settings)
        else:  # one text tells the dimension of an empty index
            columns = model.encode_documents(["."]).dimension
            index = MuveraIndex(vectors, dimension=columns, **settings)
        made = cls(index, database, model)
        if path is not None:
            made.save(path, overwrite=overwrite)
        return made

    def add(
        self,
        texts: Iterable[str] | str,
        *,
        ids: Sequence[int | str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        threads: int | None = None,
    ) -> list[int | str]:
        """Add texts under new ids, all or none of them.

        Parameters
        ----------
        texts, ids, metadata
            As for :meth:`build`; without ids they get the next integers.
        threads : int, optional

        Returns
        -------
        list of int or str
            Their ids.

        Raises
        ------
        ValueError
            For an id that is in use, see :meth:`update`.
        """
        found = as_texts(texts)
        values = [{}] * len(found) if metadata is None else _one_each(metadata, found, "metadata")
        encoded = encode_texts(self._encoder.encode_documents, found)
        if ids is not None:
            encoded = encoded.with_ids(_one_each(ids, found, "ids"))
        with self._database.transaction():
            before = len(self._index.ids)
            self._index.add(encoded, threads=threads)
            names: list[int | str] = self._index.ids[before:].tolist()
            try:
                self._database.put(names, found, values)
            except BaseException:
                self._index.delete(names)
                raise
        return names

    def update(
        self,
        texts: Iterable[str] | str,
        *,
        ids: Sequence[int | str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        threads: int | None = None,
    ) -> None:
        """Add texts under these ids, in place of those that have them; all or none of them.

        Parameters
        ----------
        texts, ids, metadata
            As for :meth:`build`; metadata replaces what was there.
        threads : int, optional
        """
        found = as_texts(texts)
        names = _one_each(ids, found, "ids")
        values = [{}] * len(found) if metadata is None else _one_each(metadata, found, "metadata")
        encoded = encode_texts(self._encoder.encode_documents, found).with_ids(names)
        with self._database.transaction():
            self._database.put(names, found, values)
            self._index.update(encoded, threads=threads)

    def delete(self, ids: Iterable[int | str], *, missing: Literal["raise", "ignore"] = "raise") -> None:
        """Delete texts by id.

        Parameters
        ----------
        ids : iterable of int or str
        missing : {"raise", "ignore"}
            What to do about ids that are not there.

        Raises
        ------
        KeyError
            For an id that is not there, unless they are ignored; nothing is deleted then.
        """
        names = list(ids)
        with self._database.transaction():
            self._index.delete(names, missing=missing)
            self._database.delete(names)

    # -- keeping --------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the index, the texts and the encoder's name to a folder, at once.

        The folder always holds a whole index, the old or the new one, whatever interrupts the writing.

        Parameters
        ----------
        path : path
        overwrite : bool
            Replace another index in that folder.
        """
        with self._database.unchanged():
            self._index._save(path, overwrite=overwrite, attachments={TEXTS: self._database.save})

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: TextEncoder | str | None = None) -> TextIndex:
        """Load an index of texts.

        Parameters
        ----------
        path : path
            A folder that :meth:`save` wrote.
        encoder : TextEncoder or str, optional
            Must have the name that the index was built with.  Default: the one of that name, where
            :func:`muvera.load_text_encoder` knows it.

        Raises
        ------
        ValueError
            For an index without texts, or another encoder than it was built with.
        """
        index = MuveraIndex.load(path)
        file = index._attachment(TEXTS)
        if file is None:
            raise ValueError(f"{path} is an index of token vectors without texts. Use MuveraIndex.load.")
        database = DocumentDatabase.open(file)
        name = str(database.property(_ENCODER))
        if encoder is None or isinstance(encoder, str):
            model = load_text_encoder(name if encoder is None else encoder)
        else:
            model = require_text_encoder(encoder)
        if model.name != name:
            raise ValueError(
                f"{path} was built with the encoder {name!r}, got {model.name!r}: their vectors do not compare. "
                "Load that one, or build the index again."
            )
        if len(database) != len(index) or any(document.id not in index for document in database.documents()):
            raise ValueError(
                f"{path} has {len(database)} texts and {len(index)} sets of token vectors that do not belong "
                "together: vectors were changed without their texts. Build the index again."
            )
        return cls(index, database, model)


def _one_each(values: Any, texts: list[str], name: str) -> list[Any]:
    found = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(found) != len(texts):
        raise ValueError(f"There are {len(found)} {name} for {len(texts)} texts. Give one for each.")
    return found


def _with_ids(batches: Iterator[MultiVectors], ids: list[Any]) -> Iterator[MultiVectors]:
    start = 0
    for batch in batches:
        yield batch.with_ids(ids[start : start + len(batch)])
        start += len(batch)
