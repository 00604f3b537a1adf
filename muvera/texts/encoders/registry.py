"""Text encoders of other libraries or of a server, and all text encoders by name."""

from __future__ import annotations

import json
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from ...index.generations import IndexFolderError
from ...utils.checks import given, import_extra, install_command
from ...utils.hints import Argument, Hint, Message
from .base import ModelEncoder, NoEncoder, TextEncoder, TextSide
from .windows import Reader, Spans, reader_of

#: Encoders that are loaded by the name in an index folder: they run no foreign code and
#: send texts nowhere.
BUILT_IN = ("static", "colbert-small", "minilm")

_NAMES = (
    "static (a table of token vectors), colbert-small (a ColBERT model run by fastembed), minilm (384 "
    "dimensions; for trying the library), "
    "model2vec:FOLDER, sentence-transformers:CHECKPOINT[@REVISION], pylate:CHECKPOINT[@REVISION], fastembed:MODEL, "
    "http://HOST/PATH#MODEL (a server with vLLM's pooling interface; or https)"
)

# Tokens that mark a text as a document or a query.
_MARKER = 1

# Larger HTTP answers are not the vectors of one batch.
_MAX_BYTES = 1 << 30


class SentenceTransformersEncoder(ModelEncoder):
    """A MultiVectorEncoder of sentence-transformers, with the checkpoint's prompts.

    Parameters
    ----------
    model : str
        ``"CHECKPOINT[@REVISION]"``, where the checkpoint is a name or a folder.

    Raises
    ------
    ImportError
        Without sentence-transformers 6 or newer.
    """

    def __init__(self, model: str) -> None:
        library = import_extra("sentence_transformers", "sentence-transformers", "This encoder")
        if not hasattr(library, "MultiVectorEncoder"):
            raise ImportError(
                f"sentence-transformers {library.__version__} has no MultiVectorEncoder: version 6 or "
                f"newer is needed. Install it with: {install_command('sentence-transformers')}"
            )
        checkpoint, revision = _split_revision(model)
        self.name = f"sentence-transformers:{model}"
        self._model = library.MultiVectorEncoder(checkpoint, revision=revision)

    def matrices(self, texts: list[str], side: TextSide) -> Any:
        """Return the token vectors of each text."""
        encode = self._model.encode_query if side == "query" else self._model.encode_document
        return encode(texts, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True)

    def reader(self, side: TextSide) -> Reader | None:
        """Return how much text the model reads; None without a limit or offsets."""
        try:
            transformer = self._model[0]
        except TypeError:
            return None
        length = getattr(transformer, f"{side}_length", None) or getattr(self._model, "max_seq_length", None)
        prompt = (getattr(self._model, "prompts", None) or {}).get(side) or ""
        return _library_reader(getattr(self._model, "tokenizer", None), length, prompt)


class PyLateEncoder(ModelEncoder):
    """A ColBERT model run by PyLate.

    PyLate pins an older sentence-transformers than
    :class:`SentenceTransformersEncoder` needs: install each in its own environment.

    Parameters
    ----------
    model : str
        ``"CHECKPOINT[@REVISION]"``, where the checkpoint is a name or a folder.

    Raises
    ------
    ImportError
        Without PyLate.
    """

    def __init__(self, model: str) -> None:
        library = import_extra("pylate.models", "pylate", "This encoder")
        checkpoint, revision = _split_revision(model)
        self.name = f"pylate:{model}"
        self._model = library.ColBERT(model_name_or_path=checkpoint, revision=revision)

    def matrices(self, texts: list[str], side: TextSide) -> Any:
        """Return the token vectors of each text."""
        return self._model.encode(texts, is_query=side == "query", show_progress_bar=False)

    def reader(self, side: TextSide) -> Reader | None:
        """Return how much text the model reads; None without a limit or offsets."""
        length = getattr(self._model, f"{side}_length", None)
        return _library_reader(getattr(self._model, "tokenizer", None), length)


def _library_reader(tokenizer: Any, length: int | None, prompt: str = "") -> Reader | None:
    """Return the reader of a model that adds a marker and a prompt to each text.

    `tokenizer` is one of transformers, and only a fast one knows the characters of
    tokens.
    """
    if length is None or not getattr(tokenizer, "is_fast", False):
        return None

    def tokenize(text: str) -> Spans:
        # verbose=False: no warning about long texts
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        spans: Spans = tokenizer(text, **options)["offset_mapping"]
        return spans

    added = tokenizer.num_special_tokens_to_add() + _MARKER + len(tokenize(prompt))
    return Reader(tokenize, max(1, length - added))


def _split_revision(model: str) -> tuple[str, str | None]:
    checkpoint, _, revision = model.rpartition("@") if "@" in model else (model, "", "")
    return checkpoint, revision or None


class FastembedEncoder(ModelEncoder):
    """A late-interaction model run by fastembed on onnxruntime, without torch.

    It uses all cores.

    Parameters
    ----------
    model : str
        A name, such as ``"colbert-ir/colbertv2.0"``.  The model is loaded at its first
        use.

    Raises
    ------
    ImportError
        Without fastembed.
    """

    def __init__(self, model: str) -> None:
        self.name = f"fastembed:{model}"
        self._given = model
        self._library = import_extra("fastembed", "fastembed", "This encoder")

    @cached_property
    def _model(self) -> Any:
        return fastembed_model(self._library.LateInteractionTextEmbedding, self._given)

    def matrices(self, texts: list[str], side: TextSide) -> Any:
        """Return the token vectors of each text."""
        if side == "query":
            return self._model.query_embed(texts)
        # A batch is padded to its longest text, so texts of similar length are encoded
        # together.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        encoded = self._model.embed([texts[i] for i in order], batch_size=8)
        matrices = dict(zip(order, encoded, strict=True))
        return [matrices[i] for i in range(len(texts))]

    def reader(self, side: TextSide) -> Reader | None:
        """Return how much text the model reads; None without a tokenizer."""
        colbert: Any = getattr(self._model, "model", None)
        tokenizer = getattr(colbert, "tokenizer" if side == "document" else "query_tokenizer", None)
        # fastembed's limit leaves room for the marker of the side.
        return None if tokenizer is None else reader_of(tokenizer)

    def window_spans(self, text: str, side: TextSide) -> list[tuple[int, int]] | None:
        """Return the characters of each token vector; None without a tokenizer."""
        colbert: Any = getattr(self._model, "model", None)
        if not hasattr(colbert, "tokenize"):
            return None
        encoding = colbert.tokenize([text], is_doc=side == "document")[0]
        tokens = list(zip(encoding.ids, encoding.offsets, strict=True))
        tokens.insert(1, (None, (0, 0)))  # the marker of the side
        skipped = {*colbert.skip_list, colbert.pad_token_id} if side == "document" else set()
        return [span for token, span in tokens if token not in skipped]


def fastembed_model(kind: Any, name: str) -> Any:
    """Load a model of fastembed; without a connection, fail at once.

    `kind` is a class of fastembed.  Raise ValueError for an unknown name, or if the
    model cannot be downloaded.
    """
    hub = import_extra("huggingface_hub", "fastembed", "This encoder")
    folder = import_extra("fastembed.common.utils", "fastembed", "This encoder").define_cache_dir()
    try:
        for known in kind.list_supported_models():
            if known["model"].lower() == name.lower():
                source = known["sources"]["hf"]
                if not hub.try_to_load_from_cache(source, known["model_file"], folder):
                    # Fails at once without a connection; fastembed would try again for
                    # 40 seconds.
                    hub.model_info(source, timeout=10)
        return kind(name)
    except Exception as error:  # an unknown name, or no connection
        raise ValueError(
            f"fastembed cannot load {name!r} ({error}). Connect to the internet once to "
            "download it, or set FASTEMBED_CACHE_PATH to a folder that contains it."
        ) from error


class HTTPEncoder(ModelEncoder):
    """A model behind an HTTP endpoint with vLLM's pooling interface.

    Start such a server with ``vllm serve --task token_embed``.  A request is
    ``{"model", "input"}``; an answer is ``{"data": [{"index": 0, "data": [[...],
    ...]}, ...]}``, where ``embedding`` may replace the inner ``data``.

    Parameters
    ----------
    url : str
        Its user and password go into a header.
    model : str
        The name that the server gives to the model.
    token : str, optional
        Is sent as ``Authorization: Bearer``.
    timeout : float
        Seconds to wait for an answer.

    Raises
    ------
    ValueError
        For a URL that is not HTTP.
    """

    def __init__(self, url: str, model: str, *, token: str | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must start with http:// or https:// and name a host, got {url!r}.")
        credentials, _, host = parts.netloc.rpartition("@")
        self._url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        elif credentials:
            self._headers["Authorization"] = f"Basic {b64encode(unquote(credentials).encode()).decode()}"
        self.name = f"http:{model}"
        self._model = model
        self._timeout = timeout

    def matrices(self, texts: list[str], side: TextSide) -> list[NDArray[np.float32]]:
        """Return the token vectors of each text.

        Raise ConnectionError without an answer, or ValueError for an answer that has no
        token vectors.
        """
        rows = self.ask({"input": texts}, len(texts), "texts")
        return [matrix for _, matrix in rows]

    def ask(
        self, content: dict[str, Any], count: int, kind: str
    ) -> list[tuple[dict[str, Any], NDArray[np.float32]]]:
        """Send a request, and return the rows of its answer with their vectors.

        `content` is what the server encodes; the name of the model is added.  The
        answer must have `count` rows with vectors, float32 (tokens, dimension).  `kind`
        is a plural noun of what is encoded, for messages.  Raise ConnectionError or
        ValueError like :meth:`matrices`.
        """
        body = json.dumps({"model": self._model, **content}).encode()
        request = urllib.request.Request(self._url, data=body, headers=self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                answer = response.read(_MAX_BYTES)
        except HTTPError as error:
            with error:
                detail = error.read(300).decode("utf-8", "replace")
            raise ConnectionError(f"{self._url} answered {error.code} {error.reason}: {detail}") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ConnectionError(
                f"{self._url} did not answer ({reason}). Is the server running at that address?"
            ) from error
        try:
            rows = sorted(json.loads(answer)["data"], key=lambda row: row.get("index", 0))
            found = [(row, _matrix(row.get("data", row.get("embedding")))) for row in rows]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{self._url} did not answer with token vectors ({error!r:.200}). Serve the model for token "
                "embeddings."
            ) from error
        if len(found) != count:
            raise ValueError(f"{self._url} returned {len(found)} sets of vectors for {count} {kind}.")
        return found


def _matrix(values: object) -> NDArray[np.float32]:
    matrix = np.asarray(values, np.float32)
    if matrix.ndim != 2:
        raise ValueError(f"vectors have shape {matrix.shape} instead of (tokens, dimension)")
    return matrix


_LIBRARIES: dict[str, Callable[[str], TextEncoder]] = {
    "fastembed": FastembedEncoder,
    "pylate": PyLateEncoder,
    "sentence-transformers": SentenceTransformersEncoder,
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
        For an unknown name.
    ImportError
        If the model's library is missing; the message names the extra.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {given(name)}.")
    if name == "minilm":
        from .minilm import MiniLMEncoder

        return MiniLMEncoder()
    if name == "static":
        from .static import StaticEncoder

        return StaticEncoder()
    if name == "colbert-small":
        encoder = FastembedEncoder("answerdotai/answerai-colbert-small-v1")
        encoder.name = name
        return encoder
    kind, _, model = name.partition(":")
    if kind == "model2vec" and model:
        from .model2vec import Model2VecEncoder

        return Model2VecEncoder(model)
    if kind in _LIBRARIES and model.partition("@")[0]:
        return _LIBRARIES[kind](model)
    if kind in ("http", "https") and "#" in model:
        url, _, served = name.rpartition("#")
        return HTTPEncoder(url, served)
    raise ValueError(f"There is no text encoder {name!r}. Use one of: {_NAMES}.")


def as_text_encoder(encoder: object) -> TextEncoder:
    """Return the text encoder of a name, or `encoder` itself.

    :func:`load_text_encoder` loads a name, and says what it raises.  Raise TypeError
    for an object without the methods of a text encoder.
    """
    if isinstance(encoder, str):
        return load_text_encoder(encoder)
    if not isinstance(encoder, TextEncoder):
        raise TypeError(
            "encoder must be a text encoder with name, encode_documents, encode_queries and token_spans, got "
            f"{type(encoder).__name__}. Use muvera.load_text_encoder('static') or another of its names."
        )
    return encoder


def required_encoder(
    name: str, encoder: TextEncoder | str | None, folder: Path | str, encodes: bool = False
) -> TextEncoder:
    """Return the encoder of an index.

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
        if name not in BUILT_IN:
            raise IndexFolderError(
                f"{folder} has texts in its journal that must be encoded first. Close the index in the "
                f"program that changes it, or open and close it with its encoder {name!r}."
            )
        encoder = None
    if encoder is None and name not in BUILT_IN:
        raise ValueError(
            Message(
                f"{folder} names the text encoder {name!r}, but only {', '.join(BUILT_IN)} are loaded "
                "by default. Give ",
                Argument("encoder", ""),
                " if you trust it.",
            )
        )
    model = as_text_encoder(name if encoder is None else encoder)
    if model.name != name:
        raise ValueError(
            Message(
                f"{folder} was built with the encoder {name!r}, got {model.name!r}: their vectors are not "
                f"comparable. Load it with {name!r}, or build the index again",
                Hint("adapt", ", or search it with muvera.adapt"),
                ".",
            )
        )
    return model
