"""TextIndex: from texts to ranked, filtered, explained answers."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.multivectors import MultiVectors
from ..encoders.registry import as_config
from ..index.manifest import TEXTS
from ..index.muvera_index import MuveraIndex
from ..reranking.spans import rank_spans, spans_from_characters
from ..utils.checks import require_choice, require_int
from .database import DocumentDatabase, TextDocument
from .encoders.base import TextEncoder, as_texts, encode_in_batches, require_text_encoder
from .encoders.registry import load_text_encoder
from .explanation import TextExplanation, explain_texts
from .filters import Filter
from .sentences import sentences_of

__all__ = ["Hit", "TextIndex"]

# The database's property that names the encoder.
_ENCODER = "text_encoder"

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Hit:
    """One answer of a search.

    Parameters
    ----------
    id : int or str
    score : float
        Chamfer similarity of the query with the text, higher is better; with ``unit="sentence"`` that of the
        sentence plus alpha times that of the text.
    text : str
        The text, or the sentence.
    metadata : dict
    span : (start, stop) or None
        Characters of the sentence within the text.
    explanation : TextExplanation or None
        Which words answered which, where the search was asked to explain; a notebook then shows them shaded.
    """

    id: int | str
    score: float
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    span: tuple[int, int] | None = None
    explanation: TextExplanation | None = None

    def _repr_html_(self) -> str:
        shown = f"<p>{html.escape(self.text)}</p>" if self.explanation is None else self.explanation.to_html()
        return f"<strong>{html.escape(str(self.id))}</strong> {self.score:.3f}{shown}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values of JSON."""
        return {
            "id": self.id,
            "score": self.score,
            "text": self.text,
            "metadata": self.metadata,
            "span": None if self.span is None else list(self.span),
            "explanation": None if self.explanation is None else self.explanation.to_dict(),
        }


class TextIndex:
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

    def __init__(self, index: MuveraIndex, database: DocumentDatabase, encoder: TextEncoder) -> None:
        self._index, self._database, self._encoder = index, database, encoder

    # -- building and changing ------------------------------------------------

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        encoder: TextEncoder | str = "minilm",
        *,
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
            May be empty: an index to add to.
        encoder : TextEncoder or str
            A name is one of :func:`muvera.load_text_encoder`.  An expensive model is best wrapped in
            :class:`muvera.texts.encoders.cache.CachedEncoder`: a build that was interrupted then goes on.
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
            As for :meth:`muvera.MuveraIndex.build`: config, backend, exact_tokens and the like.

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
            index = MuveraIndex.build(batches, threads=threads, **settings)
        else:  # one text tells the dimension of an empty index
            config = as_config(settings.pop("config", None), model.encode_documents(["."]).dimension)
            index = MuveraIndex(config, **settings)
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
        encoded = self._encoder.encode_documents(found)
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
        ids: Sequence[int | str],
        texts: Iterable[str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        """Add texts under these ids, in place of those that have them; all or none of them.

        Parameters
        ----------
        ids, texts, metadata
            As for :meth:`build`; metadata replaces what was there.
        threads : int, optional
        """
        found = as_texts(texts)
        names = _one_each(ids, found, "ids")
        values = [{}] * len(found) if metadata is None else _one_each(metadata, found, "metadata")
        encoded = self._encoder.encode_documents(found).with_ids(names)
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

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: str | Sequence[str],
        k: int = 10,
        *,
        where: Filter | None = None,
        ids: Sequence[int | str] | None = None,
        candidates: int = 100,
        words: int = 0,
        unit: Literal["document", "sentence"] = "document",
        alpha: float = 1.0,
        explain: bool = False,
        threads: int | None = None,
    ) -> Any:
        """Return the best texts for each query.

        Parameters
        ----------
        queries : str or sequence of str
        k : int
            At most so many; fewer where there are fewer.
        where : mapping, optional
            A condition on the metadata, see :mod:`muvera.texts.filters`.
        ids : sequence of int or of str, optional
            Only among these; ids that are not there are ignored.
        candidates : int
            Texts that the first stage proposes and exact Chamfer orders; more find more and take longer.
        words : int
            Also order so many texts that share words with the query (BM25): these find names and numbers that
            a model has no vector for.  0: none.
        unit : {"document", "sentence"}
            With "sentence", the best sentences of the best `candidates` texts.
        alpha : float
            Weight of the whole text's score beside its sentence's.
        explain : bool
            Give every hit the words that answered; takes some tenths of a millisecond a hit.
        threads : int, optional

        Returns
        -------
        list of Hit, or a list of such lists
            One for each query; for a single string, its hits alone.

        Raises
        ------
        FilterError
            For a condition that cannot be understood.
        """
        require_int("k", k, 1)
        require_int("words", words, 0)
        require_choice("unit", unit, ("document", "sentence"))
        asked = as_texts(queries, "queries")
        if not asked:
            return []
        encoded = self._encoder.encode_queries(asked)
        within = None if ids is None else set(ids)
        allowed = None if within is None else list(within)
        if where:
            kept = self._database.select(where)
            allowed = kept if within is None else [name for name in kept if name in within]
        wanted = k if unit == "document" else max(k, min(candidates, 10 * k))
        found = self._index.search(
            encoded, wanted, candidates=max(candidates, wanted), filter=allowed, threads=threads
        )
        hits = []
        for i, ranking in enumerate(found):
            names = ranking
            if words:
                matched = [name for name, _ in self._database.match_words(asked[i], words, where)]
                if within is not None:
                    matched = [name for name in matched if name in within]
                together = list(dict.fromkeys([*ranking.ids.tolist(), *matched]))
                names = self._index.rerank(encoded[i : i + 1], [together], wanted, threads=threads)[0]
            if unit == "sentence":
                hits.append(self._sentences(encoded[i], names.ids.tolist(), k, alpha))
            else:
                documents = self._documents(names.ids.tolist())
                scores = dict(zip(names.ids.tolist(), names.scores.tolist(), strict=True))
                hits.append([Hit(one.id, scores[one.id], one.text, one.metadata) for one in documents])
        if explain:
            hits = [self._explained(query, own) for query, own in zip(asked, hits, strict=True)]
        return hits[0] if isinstance(queries, str) else hits

    def _explained(self, query: str, hits: list[Hit]) -> list[Hit]:
        reasons = self.explain_all(query, [hit.id for hit in hits])
        return [replace(hit, explanation=reason) for hit, reason in zip(hits, reasons, strict=True)]

    def explain(self, query: str, id: int | str) -> TextExplanation:
        """Tell which words of a text answered which words of a query.

        Parameters
        ----------
        query : str
        id : int or str

        Returns
        -------
        TextExplanation

        Raises
        ------
        KeyError
            For an id that is not there.
        ValueError
            Where the encoder does not say which characters its tokens come from.
        """
        return self.explain_all(query, [id])[0]

    def explain_all(self, query: str, ids: Sequence[int | str]) -> list[TextExplanation]:
        """Explain several texts; the query is encoded once.  See :meth:`explain`."""
        documents = self.get(ids)
        query_spans = self._spans(query, "query")
        asked = self._encoder.encode_queries([query])[0]
        return [
            explain_texts(
                query,
                document.text,
                asked,
                np.asarray(self._index.tokens([document.id])[0]),
                query_spans,
                self._spans(document.text, "document"),
            )
            for document in documents
        ]

    def _spans(self, text: str, side: Literal["document", "query"]) -> list[tuple[int, int]]:
        spans = self._encoder.token_spans(text, side)
        if spans is None:
            raise ValueError(
                f"The encoder {self._encoder.name} does not say which characters its tokens come from, so that "
                "words and sentences are unknown. Search whole texts, or use an encoder that does."
            )
        return spans

    def _sentences(self, query: Any, ids: list[int | str], k: int, alpha: float) -> list[Hit]:
        documents = self._documents(ids)
        if not documents:
            return []
        ranges = [sentences_of(document.text) for document in documents]
        spans = [
            spans_from_characters(own, self._spans(document.text, "document"))
            for document, own in zip(documents, ranges, strict=True)
        ]
        tokens = self._index.tokens([document.id for document in documents])
        hits = []
        for best in rank_spans(query, tokens, spans, k, alpha=alpha):
            document = documents[best.document]
            at = spans[best.document].tolist().index([best.start, best.stop])
            start, stop = ranges[best.document][at]
            hits.append(
                Hit(document.id, best.score, document.text[start:stop], document.metadata, (start, stop))
            )
        return hits

    def _documents(self, ids: list[int | str]) -> list[TextDocument]:
        """Return documents that are still there: another thread may have deleted some meanwhile."""
        return self._database.get(ids, missing="ignore")

    # -- looking --------------------------------------------------------------

    def get(
        self, ids: Sequence[int | str], *, missing: Literal["raise", "ignore"] = "raise"
    ) -> list[TextDocument]:
        """Return the texts and metadata of ids, in their order.

        Raises
        ------
        KeyError
            For an id that is not there, unless they are ignored.
        """
        return self._database.get(ids, missing=missing)

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of the texts that satisfy a condition, in the order of adding; of ``{}``, all.

        Raises
        ------
        FilterError
            For a condition that cannot be understood.
        """
        return self._database.select(where)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, id: object) -> bool:
        return id in self._index

    def __iter__(self) -> Iterator[TextDocument]:
        return self._database.documents()

    def __repr__(self) -> str:
        return f"TextIndex({len(self)} texts, encoder={self._encoder.name!r})"

    @property
    def index(self) -> MuveraIndex:
        """The index of token vectors, for what it can do besides; change texts through this object alone."""
        return self._index

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder."""
        return self._encoder

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
            self._index.save(path, overwrite=overwrite, attachments={TEXTS: self._database.save})

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
        file = index.attachment(TEXTS)
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
