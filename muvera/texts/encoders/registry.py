"""Text encoders by name: what the command line and a server take."""

from __future__ import annotations

from .base import TextEncoder

__all__ = ["ENCODERS", "load_text_encoder"]

#: What can be named, and what stands behind it.
ENCODERS = {
    "minilm": "token states of all-MiniLM-L6-v2, 384 dimensions, without a download",
    "minilm-demo": "the same in the demo's 128 dimensions",
    "sentence-transformers:CHECKPOINT[@REVISION]": "a MultiVectorEncoder of sentence-transformers 6 or newer",
    "pylate:CHECKPOINT[@REVISION]": "a ColBERT model of PyLate",
    "fastembed:MODEL": "a late-interaction model of fastembed",
    "http://HOST/PATH#MODEL": "a server that speaks vLLM's pooling interface (https, too)",
}


def load_text_encoder(name: str) -> TextEncoder:
    """Return the text encoder of a name.

    Parameters
    ----------
    name : str
        One of ``ENCODERS``.  Models that are not on this machine are downloaded by their library.

    Raises
    ------
    ValueError
        For an unknown name.
    ImportError
        Where the library that runs the model is missing; the message names the extra.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}.")
    kind, _, rest = name.partition(":")
    model, _, revision = rest.rpartition("@") if "@" in rest else (rest, "", "")
    if name == "minilm":
        from .minilm import MiniLMEncoder

        return MiniLMEncoder()
    if name == "minilm-demo":
        from .minilm import MiniLMEncoder

        return MiniLMEncoder.of_the_demo()
    if kind == "sentence-transformers" and model:
        from .sentence_transformers import SentenceTransformersEncoder

        return SentenceTransformersEncoder(model, revision=revision or None)
    if kind == "pylate" and model:
        from .pylate import PyLateEncoder

        return PyLateEncoder(model, revision=revision or None)
    if kind == "fastembed" and rest:
        from .fastembed import FastembedEncoder

        return FastembedEncoder(rest)
    if kind in ("http", "https") and "#" in rest:
        from .http import HTTPEncoder

        url, _, served = name.rpartition("#")
        return HTTPEncoder(url, served)
    known = "; ".join(f"{known} ({what})" for known, what in ENCODERS.items())
    raise ValueError(f"There is no text encoder {name!r}. There are: {known}.")
