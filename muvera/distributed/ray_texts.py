"""RayTexts: text indexes in the actors of a Ray cluster, searched as one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from ..data.multivectors import MultiVectors
from ..index.generations import MANIFEST
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..metadata import Filter, TextDocument
from ..metadata.groups import Group
from ..reranking.table_codec import TableCodec
from ..texts.encoders.base import NoEncoder, TextEncoder, table_encoder
from ..texts.encoders.registry import required_encoder
from ..texts.hit import GROUPED, GROUPED_OF_ALL, SearchOptions
from ..texts.protocol import NewTexts
from ..texts.ranking import Parts, Unranked, join, rank_groups
from ..texts.store import TextStore
from ..texts.text_index import TextIndex
from ..utils.checks import as_path, counted, import_extra
from .actors import Actors, ShardError

Result = TypeVar("Result")

# Texts that an iteration reads at once.
_TEXTS = 500


class _About(NamedTuple):
    """What the shards must have in common, and what is counted."""

    size: int
    encoder: str
    has_rows: bool
    has_means: bool
    first: int | str | None


class TextShard:
    """A text index in a separate process, which searches with `threads` threads.

    `encoder` is loaded only if tokens are rows of its table: queries arrive encoded.
    """

    def __init__(self, folder: str, threads: int, encoder: TextEncoder | str | None) -> None:
        index = TextIndex.load(folder, NoEncoder())
        self._encoder = index.encoder.name
        if index.texts.table is not None:
            index = TextIndex.load(folder, encoder)
        assert isinstance(index.texts, TextStore)
        self._texts = index.texts
        self._threads = threads

    def about(self) -> _About:
        """Return what is known before a search."""
        texts = self._texts
        first = next((document.id for document in texts), None)
        return _About(len(texts), self._encoder, texts.table is not None, texts.has_means, first)

    def candidates(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Unranked]:
        """Return the candidates of this shard for each query."""
        return self._texts.candidates(queries, encoded, replace(options, threads=self._threads))

    def similarities(
        self, encoded: MultiVectors, ids: list[list[int | str]], options: SearchOptions
    ) -> list[dict[int | str, float]]:
        """Return the exact similarities of this shard's texts, by id."""
        return self._texts.similarities(encoded, ids, replace(options, threads=self._threads))

    def get(self, ids: list[int | str]) -> list[TextDocument]:
        """Return the texts of these ids that this shard has."""
        return self._texts.get(ids, missing="ignore")

    def tokens(self, ids: list[int | str]) -> MultiVectors | None:
        """Return the token vectors of these ids that this shard has, or None."""
        own = [id for id in ids if id in self._texts]
        return self._texts.tokens(own).with_ids(own) if own else None

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of texts that satisfy a condition, in insertion order."""
        return self._texts.select(where)

    def groups(self, field: str, ids: list[int | str]) -> dict[int | str, Group] | ValueError:
        """Return the values of a field by id, or the error that no text has one."""
        try:
            return self._texts.groups(field, ids)
        except ValueError as error:
            return error

    def most_groups(self, field: str) -> int:
        """Return a bound of the number of groups in this shard."""
        return self._texts.database.most_groups(field)


class RayTexts:
    """Text indexes in the actors of a Ray cluster, with the methods of Texts.

    :class:`muvera.texts.protocol.Texts` describes the methods.  Texts can be read and
    searched, not changed.  An answer is that of one index of all texts, but the weight
    of a word is that of its shard.
    """

    #: No lock: nothing changes.
    changing: AbstractContextManager[object] = nullcontext()

    def __init__(self, actors: Actors, place: Path, size: int, means: bool, table: TableCodec | None) -> None:
        self._actors = actors
        self._place = place
        self._size = size
        self.has_means = means
        self.table = table

    def __repr__(self) -> str:
        return f"{counted(self._size, 'text')} in {counted(len(self._actors.of_shards), 'shard')}"

    # -- reading --------------------------------------------------------------

    def __len__(self) -> int:
        return self._size

    def __contains__(self, id: object) -> bool:
        return isinstance(id, (int, str)) and bool(self.get([id], missing="ignore"))

    def __iter__(self) -> Iterator[TextDocument]:
        ids = self.select({})
        for start in range(0, len(ids), _TEXTS):
            yield from self.get(ids[start : start + _TEXTS])

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Return the answer of each shard."""
        if not self._actors.of_shards:
            raise ShardError("These shards are closed. Open them again with open_text_shards.")
        answers, failed = self._actors.ask(method, arguments)
        if failed:
            raise ShardError(self._actors.failure(failed))
        return list(answers.values())

    def get(self, ids: list[int | str], *, missing: Missing = "raise") -> list[TextDocument]:
        """Return texts and metadata in the order of `ids`."""
        found = {document.id: document for some in self.ask("get", ids) for document in some}
        if missing == "raise":
            _require_known(ids, found)
        return [found[id] for id in ids if id in found]

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of texts that satisfy a condition, shard by shard."""
        return [id for some in self.ask("select", where) for id in some]

    def groups(self, field: str, ids: Sequence[int | str]) -> dict[int | str, Group]:
        """Return the values of a metadata field by id, without ids that have none."""
        answers = self.ask("groups", field, list(ids))
        known = [groups for groups in answers if isinstance(groups, dict)]
        if not known:
            raise answers[0]
        return {id: group for groups in known for id, group in groups.items()}

    def tokens(self, ids: list[int | str]) -> MultiVectors:
        """Return the token vectors of texts, in the order of `ids`."""
        found = [some for some in self.ask("tokens", ids) if some is not None]
        positions = {id: at for at, id in enumerate(id for some in found for id in some.ids.tolist())}
        _require_known(ids, positions)
        return MultiVectors.concatenate(found)[[positions[id] for id in ids]]

    @property
    def vectors(self) -> MuveraIndex:
        """Raise ShardError: the token vectors are in other processes."""
        self._refuse("has shards, so index and info are not available. Load one of its folders.")

    # -- searching ------------------------------------------------------------

    def rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        """Return the score parts of the best texts for each query."""
        if options.group_by is not None:
            return self._rank_groups(queries, encoded, options, options.group_by)
        answers = self.ask("candidates", queries, encoded, options)
        joined = [join(parts, 2 * options.num_candidates) for parts in zip(*answers, strict=True)]
        for unranked in joined:
            _require_unique(unranked.ids)
        if any(unranked.rescored for unranked in joined):
            joined = self._rescored(joined, encoded, options)
        return [one.candidates.parts(one.ids, options.weights, options.k) for one in joined]

    def _rescored(
        self, joined: list[Unranked], encoded: MultiVectors, options: SearchOptions
    ) -> list[Unranked]:
        """Return the best candidates with exact similarities."""
        rows = [one.candidates.promising(options.weights, one.rescored) for one in joined]
        ids = [[one.ids[row] for row in some.tolist()] for one, some in zip(joined, rows, strict=True)]
        answers = self.ask("similarities", encoded, ids, options)
        exact = []
        for one, some, names, *found in zip(joined, rows, ids, *answers, strict=True):
            scores = {id: score for scored in found for id, score in scored.items()}
            ranked = one.candidates.rescored(some, [scores[id] for id in names])
            exact.append(Unranked(names, ranked, one.vectors, one.words, 0))
        return exact

    def _rank_groups(
        self, queries: list[str], encoded: MultiVectors, options: SearchOptions, field: str
    ) -> list[Parts]:
        """Return the score parts of the best text of each group, for each query."""

        def rank(numbers: list[int], depth: int) -> list[Parts]:
            deep = replace(options, k=depth, group_by=None)
            return self.rank([queries[q] for q in numbers], encoded[numbers], deep)

        return rank_groups(
            rank,
            lambda ids: self.groups(field, ids),
            lambda: sum(self.ask("most_groups", field)),
            len(queries),
            options.k,
            options.grouped or (GROUPED if self.table is None else GROUPED_OF_ALL),
        )

    def on_one_state(self, read: Callable[[], Result]) -> Result:
        """Return ``read()``: nothing changes."""
        return read()

    # -- what shards cannot do ------------------------------------------------

    def calibrate(self, queries: MultiVectors, threads: int | None) -> None:
        """Raise ShardError."""
        self._refuse_changes()

    def put(self, new: NewTexts, threads: int | None, update: bool = False) -> list[int | str]:
        """Raise ShardError."""
        self._refuse_changes()

    def put_metadata(self, documents: list[TextDocument], metadata: list[dict[str, Any]]) -> None:
        """Raise ShardError."""
        self._refuse_changes()

    def delete(self, ids: list[int | str], missing: Missing) -> None:
        """Raise ShardError."""
        self._refuse_changes()

    def rebuild(self, fit: bool, threads: int | None) -> None:
        """Raise ShardError."""
        self._refuse_changes()

    def save(self, path: str | os.PathLike[str] | None, overwrite: bool = False) -> None:
        """Raise ShardError."""
        self._refuse_changes()

    def close(self) -> None:
        """End the actors."""
        self._actors.close()

    def _refuse_changes(self) -> NoReturn:
        self._refuse("has shards, which are only read. Change the index of a shard, and open them again.")

    def _refuse(self, reason: str) -> NoReturn:
        raise ShardError(f"{self._place} {reason}")


def open_text_shards(
    path: str | os.PathLike[str],
    encoder: TextEncoder | str | None = None,
    *,
    replicas: int = 1,
    cores: float = 1.0,
    timeout: float = 60.0,
) -> TextIndex:
    """Search a folder of text indexes as one, each in an actor of a Ray cluster.

    Shards rank their texts as :meth:`muvera.TextIndex.search` does, and send ids and
    scores, which are joined.  Conditions, groups, sentences and explanations work, too.
    How rare a word is depends on its shard.  The texts can only be read.  The actors
    end with this process, or with :meth:`muvera.TextIndex.close`.

    Connect to a cluster with ``ray.init`` first; otherwise Ray starts one on this
    machine.

    Parameters
    ----------
    path : path
        A folder that all machines see under this name.  Each folder in it is a saved
        :class:`muvera.TextIndex`, a shard.  The ids of all shards must be different.
    encoder : TextEncoder or str, optional
        As for :meth:`muvera.TextIndex.load`.
    replicas : int
        Actors for each shard, as for :meth:`RayIndex.open`.
    cores : float
        Cores that Ray reserves for each actor; also the threads of a search.
    timeout : float
        Seconds that a shard has to load, and to answer each call of a search, which
        makes three.

    Returns
    -------
    TextIndex

    Raises
    ------
    FileNotFoundError
        If the folder contains no index.
    ValueError
        As for :meth:`muvera.TextIndex.load`, or if shards have different encoders or
        equal ids.
    ShardError
        If a shard is damaged, is no text index, or is not loaded in time.
    """
    import_extra("ray", "ray", "open_text_shards")
    root = as_path(path).absolute()
    names = sorted(file.parent.name for file in root.glob(f"*/{MANIFEST}"))
    if not names:
        raise FileNotFoundError(
            f"{root} contains no folders of indexes. Save a TextIndex for each shard in it."
        )
    actors = Actors(
        TextShard, root, names, replicas=replicas, cores=cores, timeout=timeout, options=(encoder,)
    )
    about = actors.first_answers("about")
    try:
        require_alike(about, root)
        first = about[names[0]]
        model = required_encoder(first.encoder, encoder, root)
        rows = table_encoder(model) if first.has_rows else None
        size, means = sum(one.size for one in about.values()), all(one.has_means for one in about.values())
        texts = RayTexts(actors, root, size, means, None if rows is None else rows.codec)
        # Indexes that were built without ids have 0, 1, 2, ... each.
        some = [one.first for one in about.values() if one.first is not None]
        _require_unique([document.id for found in texts.ask("get", some) for document in found])
    except BaseException:
        actors.close()
        raise
    return TextIndex(texts, model)


def require_alike(about: dict[str, _About], root: Path) -> None:
    """Raise ValueError for shards that cannot be searched together."""
    (name, first), *others = about.items()
    for other, facts in others:
        differs = None
        if facts.encoder != first.encoder:
            differs = f"text encoders: {first.encoder!r} and {facts.encoder!r}"
        elif facts.has_rows != first.has_rows:
            differs = "kinds of tokens: rows of a table and vectors"
        if differs:
            raise ValueError(f"{name!r} and {other!r} in {root} have different {differs}. Build them alike.")
    kinds = {isinstance(facts.first, int) for facts in about.values() if facts.first is not None}
    if len(kinds) > 1:
        raise ValueError(f"Some shards in {root} have integers as ids, and others strings. Use one kind.")


def _require_unique(ids: Sequence[Any]) -> None:
    if len(set(ids)) < len(ids):
        repeated = next(id for id, count in Counter(ids).items() if count > 1)
        raise ValueError(f"The id {repeated!r} is in two shards. Build them with ids= that differ.")


def _require_known(ids: Sequence[Any], found: Container[Any]) -> None:
    for id in ids:
        if id not in found:
            raise KeyError(f"id {id!r} is not in the index.")
