"""The names of all encoders, of texts and of pages: one table for all that lists them.

It imports no model and no array, so that the command line can print it at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

#: What an encoder encodes besides queries.
Kind = Literal["text", "page"]


class Known(NamedTuple):
    """A name of an encoder, or a form of names such as ``fastembed:MODEL``."""

    name: str
    kinds: tuple[Kind, ...]
    about: str
    #: An index loads it by the name in its folder: it runs no foreign code and sends
    #: nothing anywhere.
    built_in: bool = False
    #: The model of a short name.
    model: str = ""

    @property
    def prefix(self) -> str:
        """The part before the colon; the whole name if it has none."""
        return self.name.partition(":")[0]


#: All encoders, the default of each kind first.
KNOWN = (
    Known(
        "static", ("text", "page"), "a table of token vectors; of pages, for the text layer; extra static",
        True,
    ),
    Known(
        "colbert-small", ("text",), "a small ColBERT model, better than static; extra fastembed", True,
        "answerdotai/answerai-colbert-small-v1",
    ),
    Known("minilm", ("text",), "384 dimensions, only for demos; extra minilm", True),
    Known(
        "colmodernvbert", ("page",), "1 GB, for CPUs; extra fastembed", True, "Qdrant/colmodernvbert",
    ),
    Known("colpali", ("page",), "6.5 GB; extra fastembed", True, "Qdrant/colpali-v1.3-fp16"),
    Known(
        "model2vec:FOLDER", ("text", "page"),
        "a table of a model2vec or potion model; of pages, for the text layer",
    ),
    Known("sentence-transformers:CHECKPOINT[@REVISION]", ("text",), "a MultiVectorEncoder, run by torch"),
    Known("pylate:CHECKPOINT[@REVISION]", ("text",), "a ColBERT model, run by PyLate"),
    Known("fastembed:MODEL", ("text", "page"), "another model of fastembed, without torch"),
    Known("colpali-engine:CHECKPOINT", ("page",), "ColQwen2 and others, run by torch"),
    Known("http://HOST/PATH#MODEL", ("text", "page"), "a server with vLLM's pooling interface; or https"),
)  # fmt: skip


def find(name: str) -> tuple[Known, str] | None:
    """Return the entry of a name, and the model in the name; None if there is none."""
    prefix, colon, model = name.partition(":")
    for known in KNOWN:
        if name == known.name and ":" not in known.name:
            return known, known.model
        if colon and ":" in known.name and known.prefix == ("http" if prefix == "https" else prefix):
            complete = "#" in model if known.prefix == "http" else model.partition("@")[0]
            return (known, model) if complete else None
    return None


def built_in(kind: Kind | None = None) -> list[str]:
    """Return the names that an index loads by itself, of one kind or of both."""
    return [known.name for known in _of(kind) if known.built_in]


def described(kind: Kind) -> str:
    """Return the names of one kind with their descriptions, for a message."""
    return ", ".join(f"{known.name} ({known.about})" for known in _of(kind))


def _of(kind: Kind | None) -> Iterator[Known]:
    return (known for known in KNOWN if kind is None or kind in known.kinds)


def completions(kind: Kind | None, start: str) -> list[tuple[str, str]]:
    """Return names that begin with `start`, and what they are, for a shell.

    A form of names is completed up to its colon.
    """
    found = [
        (known.name if ":" not in known.name else f"{known.prefix}:", known.about) for known in _of(kind)
    ]
    return [(name, about) for name, about in found if name.startswith(start)]
