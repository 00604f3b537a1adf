"""EngineIndex: token vectors in, exact rankings out, with a vector database as the first stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.sampling import as_batches
from ..data.validation import Ids, as_ids
from ..encoders.base import EncoderConfig
from ..encoders.registry import as_config, make_encoder
from ..index.two_stage_search import MIN_FIT_DOCUMENTS
from ..metadata.values import encode_metadata
from ..utils.checks import as_id_list
from .base import Description, Rows
from .encoder_bytes import encoder_hash, encoder_to_bytes
from .limits import check_dimension
from .reports import AddReport
from .searched_engine import SearchedEngine, no_ids

__all__ = ["EngineIndex"]

#: Bytes of vectors and tokens that are written at a time.
_BATCH_BYTES = 8 << 20


class EngineIndex(SearchedEngine):
    """A collection in a vector database, searched by vectors there and ranked by exact Chamfer similarity.

    The encoder that makes the vectors is fitted once and kept in the database beside the documents, so that
    any process can query; what was encoded by another one is refused.

    Parameters
    ----------
    engine : Engine or str
        A URL such as ``"postgresql://user@host/database#docs"`` or ``"lancedb:folder#docs"``, see
        :func:`muvera.engines.open_engine`.
    config : EncoderConfig or str, optional
        How vectors are made, for a new collection; compared with that of one that exists.  Default:
        "learned", whose 1,024 floats every engine's graph takes.
    encoder : Encoder, optional
        A fitted one to use, or to compare with the one that is there.
    tokens : "engine", MuveraIndex or None
        Where the tokens for exact ranking are: in the engine, in half precision, in a local index of the
        same documents, or nowhere.  Default: in the engine, where it keeps tokens.
    precision : {"float32", "float16"}, optional
        Of the vectors in a new collection.  Default: the engine's own.
    graph : GraphSettings, optional
        Of a new collection.

    Raises
    ------
    EngineError
        Where the engine cannot be reached, or holds something else or vectors of another encoder.
    TypeError, ValueError
        For a wrong setting.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(5, 8)) for _ in range(3)], ids=["a", "b", "c"])
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     index = EngineIndex(f"lancedb:{folder}#docs", "fde")
    ...     _ = index.add(documents, [{"year": 2001}, {"year": 2002}, {"year": 2003}])
    ...     index.search([documents[1]], k=1, where={"year": {"$gte": 2002}})[0].ids.tolist()
    ['b']
    """

    # -- changing -------------------------------------------------------------

    def add(
        self,
        documents: Any,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        *,
        resume: bool = False,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> AddReport:
        """Write documents in batches, in place of those with the same ids; the first ones make the collection.

        Parameters
        ----------
        documents : MultiVectors, a list of arrays, or an iterable of MultiVectors
            With ids; those without are numbered from 0, in an empty collection or where `resume` is set.
            A new collection's encoder is fitted on the first batch: give an iterable an encoder of its own.
        metadata : iterable of dict, optional
            One for each document, in their order; what `where` asks for.
        resume : bool
            Leave documents alone whose ids are there: an addition that was interrupted goes on.
        threads : int, optional
            Default: all usable cores.
        progress : callable, optional
            Called with the number of documents after each batch.

        Returns
        -------
        AddReport

        Raises
        ------
        TypeError, ValueError
            For documents or metadata that do not fit.  Batches before that one are kept.
        EngineError
            Where the engine fails.
        """
        values = None if metadata is None else iter(metadata)
        position = added = skipped = empty = 0
        for whole in as_batches(documents):
            for batch in _parts(whole, self._row_bytes(whole)):
                texts = batch if whole.has_ids else batch.with_ids(np.arange(position, position + len(batch)))
                if not whole.has_ids and not resume and position == 0 and len(self):
                    raise ValueError(
                        "The documents have no ids, and the collection has documents that they would replace. "
                        "Give them ids, or set resume to go on with an addition."
                    )
                rows = _metadata_of(values, texts, position)
                position += len(texts)
                self._prepare(whole, texts, threads)
                keep = texts.lengths > 0
                empty += int((~keep).sum())
                if resume:
                    there = self._engine.existing(texts.ids[keep])
                    new = keep & ~np.isin(texts.ids, _ids(list(there), texts.ids))
                    skipped += int(keep.sum() - new.sum())
                    keep = new
                chosen = np.flatnonzero(keep)
                if len(chosen):
                    self._write(texts[chosen], [rows[i] for i in chosen.tolist()], threads)
                    added += len(chosen)
                if progress is not None:
                    progress(len(texts))
        if values is not None and next(values, None) is not None:
            raise ValueError(f"There is more metadata than the {position} documents. Give one for each.")
        if self._description is not None:
            self._engine.finish()
        return AddReport(added, skipped, empty)

    def _row_bytes(self, documents: MultiVectors) -> int:
        mean = 2 * documents.dimension * documents.num_tokens // max(1, len(documents))
        return mean + 4 * (1024 if self._description is None else self._description.vector_dimension)

    def _prepare(self, whole: MultiVectors, texts: MultiVectors, threads: int | None) -> None:
        """Make the collection where there is none; compare the documents with it where there is."""
        integers = texts.ids.dtype.kind == "i"
        if self._description is None:
            self._create(whole, integers, threads)
        there = self._there()
        texts.require_dimension(there.token_dimension, "documents", str(self._engine.location))
        if there.integer_ids != integers:
            kinds = ("integers", "strings") if there.integer_ids else ("strings", "integers")
            raise TypeError(
                f"{self._engine.location} has {kinds[0]} as ids, and the documents have {kinds[1]}."
            )

    def _create(self, documents: MultiVectors, integers: bool, threads: int | None) -> None:
        encoder = self._encoder
        if encoder is None:
            config = as_config("learned" if self._config is None else self._config, documents.dimension)
            self._check_size(config)
            encoder = make_encoder(config)
            if encoder.needs_fit:
                filled = documents[np.flatnonzero(documents.lengths > 0)]
                if config.needs_fit_sample and len(filled) < MIN_FIT_DOCUMENTS:
                    raise ValueError(
                        f"This configuration is learned from {MIN_FIT_DOCUMENTS} documents at least, and the first "
                        f"batch has {len(filled)}. Give more, a fitted encoder, or config='fde'."
                    )
                encoder.fit(filled, threads=threads)
        self._check_size(encoder.config)
        content = encoder_to_bytes(encoder)
        description = Description(
            vector_dimension=encoder.config.vector_dimension,
            token_dimension=encoder.config.dimension,
            tokens=self._tokens == "engine",
            integer_ids=integers,
            precision=self._precision,
            graph=self._graph,
            config=encoder.config.hash,
            encoder=encoder_hash(content),
        )
        documents.require_dimension(description.token_dimension, "documents", "the encoder")
        self._engine.create(description, content)
        self._encoder, self._description = encoder, description

    def _check_size(self, config: EncoderConfig) -> None:
        half = self._precision == "float16" and len(self._engine.precisions) > 1
        check_dimension(config.vector_dimension, self._engine.kind, half=half)

    def _write(self, texts: MultiVectors, rows: list[Mapping[str, Any]], threads: int | None) -> None:
        vectors = self.encoder.encode_documents(texts, threads=threads)
        tokens = None
        if self._there().tokens:
            halves = texts.tokens.astype(np.float16, copy=False)
            if not np.isfinite(halves).all():
                raise ValueError("documents have a number beyond 65504, which half precision does not hold.")
            tokens = MultiVectors(halves, texts.offsets, texts.ids)
        self._engine.add(Rows(texts.ids, vectors, rows, tokens))

    def delete(self, ids: Iterable[Any]) -> None:
        """Delete documents by id; ids that are not there are ignored."""
        if self._description is not None:
            names = as_id_list(ids, "ids")
            self._engine.delete(_ids(names, no_ids(self._description)))

    def drop(self) -> None:
        """Remove the collection with its encoder and its index."""
        self._engine.drop()
        self._description = None

    def close(self) -> None:
        """Free connections and files."""
        self._engine.close()

    def __enter__(self) -> EngineIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parts(documents: MultiVectors, row_bytes: int) -> Iterator[MultiVectors]:
    step = max(1, _BATCH_BYTES // max(1, row_bytes))
    for start in range(0, len(documents), step):
        yield documents[start : start + step]


def _metadata_of(
    values: Iterator[Mapping[str, Any]] | None, texts: MultiVectors, position: int
) -> list[Mapping[str, Any]]:
    if values is None:
        return [{}] * len(texts)
    found = list(islice(values, len(texts)))
    if len(found) < len(texts):
        raise ValueError(
            f"There is metadata for {position + len(found)} documents, and there are at least "
            f"{position + len(texts)}. Give one for each."
        )
    for name, one in zip(texts.ids.tolist(), found, strict=True):
        encode_metadata(one, name)
    return found


def _ids(names: Sequence[Any], like: Ids) -> Ids:
    """Return ids as an array of the kind of `like`."""
    return as_ids(list(names), len(names)) if len(names) else like[:0]
