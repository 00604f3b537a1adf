"""Text encoders that other libraries run."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from ...utils.checks import import_extra, install_command
from .base import ModelEncoder, TextSide
from .windows import Reader, Spans, reader_of

# Tokens that mark a text as a document or a query.
_MARKER = 1


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


class FastembedModel:
    """A model that fastembed runs, loaded at its first use."""

    #: Name of fastembed's class.
    _kind: ClassVar[str]

    def __init__(self, model: str, name: str | None = None) -> None:
        self.name = name or f"fastembed:{model}"
        self._given = model
        self._library = import_extra("fastembed", "fastembed", "This encoder")

    @cached_property
    def _model(self) -> Any:
        return fastembed_model(getattr(self._library, self._kind), self._given)


class FastembedEncoder(FastembedModel, ModelEncoder):
    """A late-interaction model run by fastembed on onnxruntime, without torch.

    It uses all cores.

    Parameters
    ----------
    model : str
        A name, such as ``"colbert-ir/colbertv2.0"``.  The model is loaded at its first
        use.
    name : str, optional
        Name of the encoder.  Default: ``"fastembed:model"``.

    Raises
    ------
    ImportError
        Without fastembed.
    """

    _kind = "LateInteractionTextEmbedding"

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
