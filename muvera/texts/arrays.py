"""TextArrays: what a text index has by row beside token vectors, and the texts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from copy import copy
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import as_lengths
from ..index.contents import IndexContents
from ..index.generations import TEXTS, IndexFolderError, Save, require_latest, verify
from ..index.id_map import IdMap
from ..index.persistence import naming_damage, read_segments, require_columns, write_store
from ..index.token_store import FloatStore
from ..kernels.token_table import mean_norms
from ..reranking.coded_vectors import CodedVectors
from ..reranking.inverted import InvertedIndex, Segment
from ..reranking.table_codec import TableCodec
from ..utils.arrays import GrowingArray, load_npy, save_array
from ..utils.checks import counted
from ..utils.parallel import run_in_ranges, split_by_count
from .database import DocumentDatabase
from .hit import mean_vectors
from .words import TextWords

_LOG = logging.getLogger("muvera")

_WORD_LENGTHS = "word_lengths.npy"
_NORMS = "mean_norms.npy"
_MEANS = "text_means"
_MEAN_LENGTHS = "text_mean_lengths.npy"

#: Mean token vectors are stored in half precision.
MEAN = np.float16


class TextArrays:
    """The words of texts, and their mean token vectors, by row of the index.

    An index that stores tokens as rows of a table needs no mean vectors: a product with
    a mean is a mean of looked up products, divided by the length of the mean.

    Changing a copy (:func:`copy.copy`) does not change the original.

    Parameters
    ----------
    database : DocumentDatabase
        The texts.
    words : TextWords
        The words of each row.
    means : FloatStore, optional
        The mean token vector of each row, as a text of one token, or of none for a
        blank text.  None: an index without mean vectors.
    norms : float32 (n,), optional
        With a table, the length of the mean token of each row.
    """

    def __init__(
        self,
        database: DocumentDatabase,
        words: TextWords,
        means: FloatStore | None = None,
        norms: NDArray[np.float32] | None = None,
    ) -> None:
        self.database = database
        self.words = words
        self.means = means
        self._norms = None if norms is None else GrowingArray(norms)

    def __copy__(self) -> TextArrays:
        copied = TextArrays(self.database, copy(self.words), copy(self.means))
        copied._norms = copy(self._norms)
        return copied

    @classmethod
    def of(
        cls,
        database: DocumentDatabase,
        contents: IndexContents,
        means: Iterable[NDArray[Any]] | None = None,
        texts: Iterable[str] | None = None,
    ) -> TextArrays:
        """Make the arrays of all texts.

        `means` are the mean vectors of the texts in the order of rows, (n, dimension)
        for some texts after the other; zeros for a blank text.  `texts` are the texts
        in this order; by default, they are read from the database.
        """
        ids = contents.ids
        words = TextWords()
        words.append(texts or _texts(database, ids.names(ids.documents)), ids.documents, ids.num_rows)
        arrays = cls(database, words, None if means is None else FloatStore(_MEANS))
        if arrays.means is not None and ids.num_rows:
            vectors = np.concatenate([np.empty((0, contents.config.dimension), MEAN), *(means or ())])
            filled = contents.lengths[ids.documents] > 0
            arrays.means.append(_as_tokens(vectors, ids.documents, filled, ids.num_rows))
        arrays._add_norms(contents)
        return arrays

    def append(
        self, contents: IndexContents, texts: Sequence[str], names: list[Any], encoded: MultiVectors | None
    ) -> None:
        """Add texts that were added to `contents` as its last rows.

        `encoded` are their token vectors, if the index has mean vectors.
        """
        first, last = len(self.words), contents.ids.num_rows
        rows = contents.ids.rows_of(names)
        order = np.argsort(rows)
        self.words.append([texts[i] for i in order], rows[order], last)
        if self.means is not None and encoded is not None and last > first:
            vectors, filled = mean_vectors(encoded)[order], encoded.lengths[order] > 0
            self.means.append(_as_tokens(vectors, rows[order] - first, filled, last - first))
        self._add_norms(contents)

    def _add_norms(self, contents: IndexContents) -> None:
        """Compute the lengths of the mean tokens of new rows, if the table is known."""
        table = contents.tokens.table
        if table is not None and table.attached is not None:
            self.norms(table, contents)

    def kept(self, rows: NDArray[np.int64]) -> TextArrays:
        """Return the arrays of ascending `rows`, which are numbered 0, 1, 2, ..."""
        means = None
        if self.means is not None:
            means = FloatStore(_MEANS)
            if len(rows):
                means.append(self.means.rows(rows))
        norms = (
            None if self._norms is None or len(self._norms) < len(self.words) else self._norms.values[rows]
        )
        return TextArrays(self.database, self.words.kept(rows), means, norms)

    def norms(self, table: TableCodec, contents: IndexContents) -> NDArray[np.float32]:
        """Return the length of the mean token of each row of a table, float32 (n,).

        Lengths of new rows are computed at the first call.
        """
        known = GrowingArray(np.empty(0, np.float32)) if self._norms is None else copy(self._norms)
        if len(known) < len(self.words):
            assert contents.tokens.codes is not None
            for segment in contents.tokens.codes.segments:
                first, texts = segment.first, segment.vectors
                start = max(0, len(known) - first)
                if start < len(texts):
                    known.extend(_norms(table, texts, start))
            self._norms = known
        return np.asarray(known.values, np.float32)

    def mean_products(self, rows: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the products of mean vectors with a vector, float32 (n,).

        The product of a blank text is 0, as is that of an index without mean vectors.
        """
        out = np.zeros(len(rows), np.float32)
        if self.means is None or not len(rows):
            return out
        order = np.argsort(rows)
        texts = self.means.rows(rows[order])
        out[order[texts.lengths > 0]] = np.einsum("ij,j->i", np.asarray(texts.tokens, np.float32), query)
        return out

    # -- files ----------------------------------------------------------------

    def save(self, ids: IdMap, save: Save) -> dict[str, Any]:
        """Write the texts and the arrays, and return the entry of the manifest.

        The arrays are then mapped.  Raise ValueError if the ids differ from those of
        the texts.
        """
        require_same_ids(ids, self.database, "The index")
        self.database.save(save.folder / TEXTS)
        save_array(save.folder / _WORD_LENGTHS, self.words.lengths)
        entries, segments = [], []
        for segment in self.words.lists.segments:
            if segment.path in save.old_names:
                name = save.old_names[segment.path]
                save.kept.append(name)
            else:
                file = f"words-{segment.first:012d}.npy"
                save_array(save.folder / file, segment.to_bytes())
                segment = Segment.read(segment.first, save.folder / file, save.final / file)
                name = f"{save.final.name}/{file}"
            entries.append({"first": segment.first, "file": name})
            segments.append(segment)
        self.words.lists.segments = segments
        if self._norms is not None and len(self._norms) == len(self.words):
            save_array(save.folder / _NORMS, self._norms.values)
        means = None
        if self.means is not None:
            save_array(save.folder / _MEAN_LENGTHS, self.means.lengths)
            means = write_store(self.means, save, None)
        return {"words": entries, "means": means}

    @classmethod
    def load(
        cls, folder: Path, manifest: dict[str, Any], contents: IndexContents, database: DocumentDatabase
    ) -> TextArrays:
        """Read the files of :meth:`save`.

        Words and lengths that are missing or damaged are made again from texts and
        tokens, with a warning.  A folder of a former format has none.
        """
        require_same_ids(contents.ids, database, str(folder))
        with naming_damage(folder):
            return cls._load(folder, manifest, contents, database)

    @classmethod
    def _load(
        cls, folder: Path, manifest: dict[str, Any], contents: IndexContents, database: DocumentDatabase
    ) -> TextArrays:
        entry = manifest.get("texts")
        if entry is None:
            return cls.of(database, contents, _former_means(folder, contents, database))
        try:
            arrays = cls(database, _read_words(folder, manifest, contents))
        except _DAMAGE as error:
            _warn(folder, manifest, error, "The words in %s were read again from the texts")
            arrays = cls.of(database, contents)
        if entry["means"] is not None:
            arrays.means = FloatStore(_MEANS)
            path = folder / manifest["folder"] / _MEAN_LENGTHS
            lengths = as_lengths(load_npy(path, mmap=False), str(path))
            arrays.means.segments = read_segments(arrays.means, folder, entry["means"], lengths)
            require_columns(arrays.means.segments, contents.config.dimension)
        try:
            arrays._norms = _read_norms(folder, manifest, contents)
        except _DAMAGE as error:
            _warn(folder, manifest, error, "The lengths of means in %s are computed again from the tokens")
        return arrays


def _norms(table: TableCodec, texts: CodedVectors, start: int) -> NDArray[np.float32]:
    """Return the lengths of the mean tokens of texts from position `start` on."""
    out = np.empty(len(texts) - start, np.float32)
    numbers, offsets = table.numbers(texts.tokens), texts.offsets[start:]

    def work(first: int, stop: int) -> None:
        mean_norms(numbers, offsets[first : stop + 1], table.table, out[first:stop])

    run_in_ranges(work, split_by_count(len(out), _STEP))
    return out


def _as_tokens(
    vectors: NDArray[Any], rows: NDArray[np.int64], filled: NDArray[np.bool_], count: int
) -> MultiVectors:
    """Return `count` texts; those at `rows` that are `filled` have a vector as a token.

    A text with tokens is filled, even if their mean is zero.
    """
    lengths = np.zeros(count, np.int64)
    lengths[rows[filled]] = 1
    return MultiVectors.from_flat(vectors[filled].astype(MEAN), lengths)


# Errors for a missing or damaged file that is made again.
_DAMAGE = (IndexFolderError, ValueError, OSError, KeyError, TypeError)


def _warn(folder: Path, manifest: dict[str, Any], error: Exception, remedy: str) -> None:
    """Warn of a damaged file.

    Raise IndexFolderError if a save has removed the file meanwhile.
    """
    require_latest(folder, manifest)
    cause = str(error).removesuffix(" Restore the folder from a copy.")
    _LOG.warning(f"muvera: {remedy}, and the next save writes them: %s", folder, cause)


def _read_words(folder: Path, manifest: dict[str, Any], contents: IndexContents) -> TextWords:
    """Map the words of each row."""
    path, count = folder / manifest["folder"] / _WORD_LENGTHS, contents.ids.num_rows
    entries = manifest["texts"]["words"]
    _verify(folder, manifest, [f"{manifest['folder']}/{_WORD_LENGTHS}", *(one["file"] for one in entries)])
    lengths = load_npy(path, mmap=False)
    segments = [Segment.read(one["first"], folder / one["file"]) for one in entries]
    starts = [*accumulate((one.size for one in segments), initial=0)]
    if [*(one.first for one in segments), count] != starts:
        raise ValueError(f"{folder} has words that begin at other rows than its manifest names.")
    if lengths.dtype != np.uint32 or lengths.shape != (count,):
        raise ValueError(f"{path} does not match the rows.")
    return TextWords(InvertedIndex(segments), lengths)


def _read_norms(folder: Path, manifest: dict[str, Any], contents: IndexContents) -> GrowingArray | None:
    """Read the length of the mean token of each row, if the folder has them."""
    name = f"{manifest['folder']}/{_NORMS}"
    if name not in manifest["files"]:
        return None
    _verify(folder, manifest, [name])
    norms = load_npy(folder / name, mmap=False)
    if norms.dtype != np.float32 or norms.shape != (contents.ids.num_rows,):
        raise ValueError(f"{folder / name} does not match the rows.")
    return GrowingArray(norms)


def _verify(folder: Path, manifest: dict[str, Any], names: list[str]) -> None:
    verify(folder, {name: manifest["files"][name] for name in names})


def _former_means(
    folder: Path, contents: IndexContents, database: DocumentDatabase
) -> list[NDArray[Any]] | None:
    """Return the mean vectors that a former format stored beside the texts, or None."""
    found = database.former_means()
    if found is None:
        return None
    ids, columns = contents.ids, contents.config.dimension
    means = np.zeros((len(ids), columns), MEAN)
    for mean, name in zip(means, ids.names(ids.documents), strict=True):
        vector = found.get(name)
        if vector is not None:
            if not isinstance(vector, bytes) or len(vector) != mean.nbytes:
                raise ValueError(f"the mean vector of {name!r} has not {columns} columns.")
            mean[:] = np.frombuffer(vector, MEAN)
    if not np.isfinite(means).all():
        raise ValueError("a mean vector is not finite.")
    return [means]


def _texts(database: DocumentDatabase, names: list[Any]) -> Iterable[str]:
    """Yield the texts of ids."""
    for start in range(0, len(names), _STEP):
        for document in database.get(names[start : start + _STEP]):
            yield document.text


# Texts that are read together, or that one task works on.
_STEP = 512


def require_same_ids(ids: IdMap, database: DocumentDatabase, name: str) -> None:
    """Raise ValueError if a database has other ids than an index; `name` names both."""
    if len(database) != len(ids) or set(database.select({})) != set(ids.names(ids.documents)):
        sizes = f"{counted(len(database), 'text')} and {counted(len(ids), 'set')} of token vectors"
        raise ValueError(
            f"{name} has {sizes}, and their ids must be the same: the vectors were changed without the "
            "texts. Build the index again."
        )
