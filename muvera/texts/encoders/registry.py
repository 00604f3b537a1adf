"""Text encoders by name, for Python, the command line and saved indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...index.generations import IndexFolderError
from .base import NoEncoder, TextEncoder

#: Encoders that are loaded by the name in an index folder: they run no foreign code and send texts nowhere.
BUILT_IN = ("colbert-small", "minilm")

#: Names of text encoders and their meaning.
ENCODERS = {
    "colbert-small": "the ColBERT model answerdotai/answerai-colbert-small-v1, run by fastembed",
    "minilm": "token states of all-MiniLM-L6-v2, 384 dimensions, without a download; for trying the library",
    "sentence-transformers:CHECKPOINT[@REVISION]": "a MultiVectorEncoder of sentence-transformers 6 or newer",
    "pylate:CHECKPOINT[@REVISION]": "a ColBERT model of PyLate",
    "fastembed:MODEL": "a late-interaction model of fastembed",
    "http://HOST/PATH#MODEL": "a server with vLLM's pooling interface (or https)",
}


def load_text_encoder(name: str) -> TextEncoder:
    """Load a text encoder by name.

    Parameters
    ----------
    name : str
        One of ``ENCODERS``.  The model's library downloads checkpoints that are not on this machine.

    Raises
    ------
    ValueError
        For an unknown name.
    ImportError
        If the model's library is missing; the message names the extra.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}.")
    if name == "minilm":
        from .minilm import MiniLMEncoder

        return MiniLMEncoder()
    from . import models

    if name == "colbert-small":
        encoder = models.FastembedEncoder("answerdotai/answerai-colbert-small-v1")
        encoder.name = name
        return encoder
    kind, _, rest = name.partition(":")
    model, _, revision = rest.rpartition("@") if "@" in rest else (rest, "", "")
    if kind == "sentence-transformers" and model:
        return models.SentenceTransformersEncoder(model, revision=revision or None)
    if kind == "pylate" and model:
        return models.PyLateEncoder(model, revision=revision or None)
    if kind == "fastembed" and rest:
        return models.FastembedEncoder(rest)
    if kind in ("http", "https") and "#" in rest:
        url, _, served = name.rpartition("#")
        return models.HTTPEncoder(url, served)
    known = "; ".join(f"{known} ({meaning})" for known, meaning in ENCODERS.items())
    raise ValueError(f"There is no text encoder {name!r}. Use one of: {known}.")


def as_text_encoder(encoder: Any) -> TextEncoder:
    """Return the text encoder of a name, or `encoder` itself if it is a text encoder; else raise TypeError."""
    if isinstance(encoder, str):
        return load_text_encoder(encoder)
    if not isinstance(encoder, TextEncoder):
        raise TypeError(
            "encoder must be a text encoder with name, encode_documents, encode_queries and token_spans, got "
            f"{type(encoder).__name__}. Use muvera.load_text_encoder('minilm') or another of its names."
        )
    return encoder


def required_encoder(
    name: str, encoder: TextEncoder | str | None, folder: Path | str, encodes: bool = False
) -> TextEncoder:
    """Return the encoder of an index that was built with the encoder `name`; a NoEncoder is replaced if `encodes`."""
    if isinstance(encoder, NoEncoder):
        if not encodes:
            return NoEncoder(name)
        if name not in BUILT_IN:
            raise IndexFolderError(
                f"{folder} has texts in its journal that must be encoded first. Close the index in the program that "
                f"changes it, or open and close it with its encoder {name!r}."
            )
        encoder = None
    if encoder is None and name not in BUILT_IN:
        raise ValueError(
            f"{folder} names the text encoder {name!r}, but only {' and '.join(BUILT_IN)} are loaded by default. "
            "Give encoder= (--encoder) if you trust it."
        )
    model = as_text_encoder(name if encoder is None else encoder)
    if model.name != name:
        raise ValueError(
            f"{folder} was built with the encoder {name!r}, got {model.name!r}: their vectors are not comparable. "
            f"Load it with {name!r}, or build the index again."
        )
    return model
