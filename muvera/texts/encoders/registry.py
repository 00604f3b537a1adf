"""Load encoders of texts and of pages by name, and check the encoders of an index."""

from __future__ import annotations

from pathlib import Path

from ...index.generations import IndexFolderError
from ...utils.checks import given, import_extra
from ...utils.hints import Argument, Hint, Message
from .base import Encoder, NoEncoder, TableEncoder, TextEncoder
from .http import HTTPEncoder
from .libraries import FastembedEncoder, PyLateEncoder, SentenceTransformersEncoder
from .names import Kind, built_in, described, find
from .pages import ColPaliEngineEncoder, FastembedPageEncoder, PageEncoder, TextLayerEncoder

_METHODS = {
    "text": "name, encode_documents, encode_queries and token_spans",
    "page": "name, encode_page, encode_queries and query_spans",
}


def load_text_encoder(name: str) -> TextEncoder:
    """Load a text encoder by name.

    Parameters
    ----------
    name : str
        ``"static"``, ``"colbert-small"``, ``"minilm"``, ``"model2vec:FOLDER"``,
        ``"sentence-transformers:CHECKPOINT[@REVISION]"``,
        ``"pylate:CHECKPOINT[@REVISION]"``, ``"fastembed:MODEL"`` or
        ``"http://HOST/PATH#MODEL"``.  The model's library downloads checkpoints that
        are not on this machine.  "static" and "minilm" come with pip.  "static" is a
        table of token vectors, which needs no model; see
        :class:`muvera.texts.encoders.static.StaticEncoder`.  "minilm" was not trained
        for late interaction: use it only to try the library.

    Returns
    -------
    TextEncoder

    Raises
    ------
    ValueError
        For an unknown name, or that of a page encoder.
    ImportError
        If the model's library is missing; the message names the extra.
    """
    encoder = load_model(name, "text")
    assert isinstance(encoder, TextEncoder)
    return encoder


def load_page_encoder(name: str) -> PageEncoder:
    """Load a page encoder by name.

    Parameters
    ----------
    name : str
        ``"static"``, ``"colmodernvbert"``, ``"colpali"``, ``"model2vec:FOLDER"``,
        ``"fastembed:MODEL"``, ``"colpali-engine:CHECKPOINT"`` or
        ``"http://HOST/PATH#MODEL"``.  "static" and "model2vec:FOLDER" encode the text
        layer of a page instead of its picture.

    Returns
    -------
    PageEncoder

    Raises
    ------
    ValueError
        For an unknown name, or that of a text encoder.
    ImportError
        If the model's library is missing; the message names the extra.
    """
    return as_page_encoder(load_model(name, "page"))


def load_model(name: str, kind: Kind | None = None) -> Encoder:
    """Load an encoder by name: of one kind, or of the kind that the name has.

    A model of fastembed whose kind is not known is loaded as a text encoder.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {given(name)}.")
    found = find(name)
    if found is None:
        raise ValueError(
            f"There is no {kind or 'text'} encoder {name!r}. Use one of: {described(kind or 'text')}."
        )
    known, model = found
    if kind is not None and kind not in known.kinds:
        raise ValueError(
            f"{name!r} is a {known.kinds[0]} encoder, but a {kind} encoder is needed. Use one of: "
            f"{described(kind)}."
        )
    match known.prefix:
        case "static":
            from .static import StaticEncoder

            return StaticEncoder()
        case "minilm":
            from .minilm import MiniLMEncoder

            return MiniLMEncoder()
        case "model2vec":
            from .model2vec import Model2VecEncoder

            return Model2VecEncoder(model)
        case "sentence-transformers":
            return SentenceTransformersEncoder(model)
        case "pylate":
            return PyLateEncoder(model)
        case "colpali-engine":
            return ColPaliEngineEncoder(model)
        case "http":
            url, _, served = name.rpartition("#")
            return HTTPEncoder(url, served)
        case "fastembed":
            return (
                FastembedPageEncoder(model)
                if (kind or _kind_in_fastembed(model)) == "page"
                else FastembedEncoder(model)
            )
    return FastembedEncoder(model, name) if "text" in known.kinds else FastembedPageEncoder(model, name)


def _kind_in_fastembed(model: str) -> Kind:
    library = import_extra("fastembed", "fastembed", "This encoder")
    known = library.LateInteractionMultimodalEmbedding.list_supported_models()
    return "page" if model.lower() in {each["model"].lower() for each in known} else "text"


def as_text_encoder(encoder: object) -> TextEncoder:
    """Return the text encoder of a name, or `encoder` itself.

    Raise TypeError for an object without the methods of a text encoder.
    """
    model = load_text_encoder(encoder) if isinstance(encoder, str) else encoder
    if not isinstance(model, TextEncoder):
        raise _wrong_kind(model, "text")
    return model


def as_page_encoder(encoder: object) -> PageEncoder:
    """Return the page encoder of a name, or `encoder` itself.

    A text encoder with a table encodes text layers.  Raise TypeError for another object
    without the methods of a page encoder.
    """
    model = load_page_encoder(encoder) if isinstance(encoder, str) else encoder
    if isinstance(model, TableEncoder):
        return TextLayerEncoder(model)
    if not isinstance(model, PageEncoder):
        raise _wrong_kind(model, "page")
    return model


def _wrong_kind(encoder: object, kind: Kind) -> TypeError:
    return TypeError(
        f"encoder must be a {kind} encoder with {_METHODS[kind]}, got {type(encoder).__name__}. Or give a "
        f"name: {described(kind)}."
    )


def required_encoder(
    name: str, encoder: TextEncoder | str | None, folder: Path | str, encodes: bool = False
) -> TextEncoder:
    """Return the encoder of a text index.

    Parameters
    ----------
    name : str
        The encoder that built the index.
    encoder : TextEncoder, str or None
        The encoder that the caller gave.  None: load `name`, if it is built in.
    folder : Path or str
        The index, for messages.
    encodes : bool
        Texts must be encoded now, so replace a NoEncoder.

    Raises
    ------
    ValueError
        For another encoder than `name`, or without one if `name` is not built in.
    IndexFolderError
        If texts must be encoded, but only a NoEncoder is given.
    """
    if isinstance(encoder, NoEncoder):
        if not encodes:
            return NoEncoder(name)
        if name not in built_in("text"):
            raise IndexFolderError(
                f"{folder} has texts in its journal that must be encoded first. Close the index in the "
                f"program that changes it, or open and close it with its encoder {name!r}."
            )
        encoder = None
    if encoder is None and name not in built_in("text"):
        raise ValueError(
            Message(
                f"{folder} names the text encoder {name!r}, but only {', '.join(built_in('text'))} are "
                "loaded by default. Give ",
                Argument("encoder", ""),
                " if you trust it.",
            )
        )
    model = as_text_encoder(name if encoder is None else encoder)
    _require_name(model, name, folder, Hint("adapt", ", or search it with muvera.adapt"))
    return model


def required_page_encoder(
    name: str, encoder: PageEncoder | TableEncoder | str | None, folder: Path | str
) -> PageEncoder | None:
    """Return the encoder of a page index, or None if only vectors can be searched.

    The arguments are described at :func:`required_encoder`; `name` is "" if the vectors
    were made elsewhere.  If the caller gave no encoder, load `name` if it is built in
    and its library is installed.
    """
    if encoder is None:
        try:
            return load_page_encoder(name) if name in built_in("page") else None
        except ImportError:
            return None
    model = as_page_encoder(encoder)
    if name:
        _require_name(model, name, folder)
    return model


def _require_name(model: Encoder, name: str, folder: Path | str, *way_out: Hint) -> None:
    """Raise ValueError unless the encoder is the one that built the index."""
    if model.name != name:
        raise ValueError(
            Message(
                f"{folder} was built with the encoder {name!r}, got {model.name!r}: their vectors are not "
                f"comparable. Load it with {name!r}, or build the index again",
                *way_out,
                ".",
            )
        )
