"""PageQueries: the vectors and the words of queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import as_multivectors, checked_texts
from ..texts.encoders.names import built_in
from ..texts.encoders.pages import PageEncoder
from ..texts.encoders.registry import load_page_encoder
from ..utils.hints import Argument, Message

#: Words of a query, and the positions of the vectors of each.
Words = list[tuple[str, list[int]]]

Spans = list[tuple[int, int]]


class PageQuery(NamedTuple):
    """One query."""

    vectors: NDArray[np.float32]
    #: Its text, for the ranking by words; "" if it is not known.
    text: str
    words: Words


class PageQueries(NamedTuple):
    """Checked queries; `single` if the caller gave one query and not a list."""

    single: bool
    queries: list[PageQuery]

    @classmethod
    def of(
        cls,
        queries: Any,
        text: str | Sequence[str] | None,
        dimension: int,
        encoder: PageEncoder | None,
        made_by: str = "",
    ) -> PageQueries:
        """Check queries, and encode text queries.

        `queries` and `text` are the arguments of :meth:`muvera.PageIndex.search`.
        `dimension` is the number of columns of the vectors.  `made_by` is the name of
        the encoder that made the index's vectors, for messages.
        """
        listed = isinstance(queries, (list, tuple)) and len(queries) > 0
        spans: Sequence[Spans | None]
        if isinstance(queries, str) or (listed and all(isinstance(query, str) for query in queries)):
            if text is not None:
                raise ValueError("text= is only for queries given as vectors. Omit it.")
            single = isinstance(queries, str)
            lines = [queries] if single else list(queries)
            model = required(encoder, made_by)
            encoded = model.encode_queries(lines)
            spans = [model.query_spans(line) for line in lines]
        else:
            single = getattr(queries, "ndim", 0) == 2
            encoded = as_multivectors(queries, "queries")
            lines = [""] * len(encoded) if text is None else [text] if isinstance(text, str) else list(text)
            if len(lines) != len(encoded):
                raise ValueError(
                    f"text has {len(lines)} entries for {len(encoded)} queries. Give one for each query."
                )
            spans = [None] * len(lines)
        checked = checked_texts(encoded, "queries", dimension, "this index")
        return cls(
            single,
            [
                PageQuery(np.asarray(vectors, np.float32), line, _words(line, span, len(vectors)))
                for vectors, line, span in zip(checked, lines, spans, strict=True)
            ],
        )


def required(encoder: PageEncoder | None, made_by: str) -> PageEncoder:
    """Return the encoder; raise ValueError if there is none.

    `made_by` is the name of the encoder that made the index's vectors; "" if unknown.
    """
    if encoder is None:
        if made_by in built_in("page"):
            try:
                load_page_encoder(made_by)
            except ImportError as error:  # it names the missing library
                raise ValueError(f"This index has no encoder for words. {error}") from error
        origin = f": {made_by!r}, which made its vectors, is not loaded" if made_by else ""
        raise ValueError(
            Message(
                f"This index has no encoder for words{origin}. Search it with the vectors of a query, or "
                "load it with ",
                Argument("encoder", repr(made_by) if made_by else ""),
                ".",
            )
        )
    return encoder


def _words(text: str, spans: Spans | None, count: int) -> Words:
    """Return the words of a query that have vectors."""
    if spans is None or len(spans) != count:
        return []
    found: Words = []
    stop = 0
    for word in text.split():
        start = text.index(word, stop)
        stop = start + len(word)
        tokens = [
            i for i, (first, last) in enumerate(spans) if first < last and first < stop and last > start
        ]
        if tokens:
            found.append((word, tokens))
    return found
