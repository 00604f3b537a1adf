"""Open the inputs of a command: documents, queries, indexes and encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..convert import Source, open_source, read
from ..convert.registry import find_reader
from ..data.batches import collection_batches
from ..data.multivectors import MultiVectors, join_parts
from ..fde.config import DEFAULT_PRESET, PRESETS, FDEConfig
from ..fde.encoder import FDEEncoder
from ..fde.files import is_encoder_folder, load_encoder
from ..index.contents import MIN_FIT_DOCUMENTS
from ..index.estimate import expected_bytes, expected_seconds
from ..index.generations import MANIFEST, texts_file
from ..index.muvera_index import MuveraIndex
from ..index.settings import IndexSettings
from ..pages.folder import is_page_index
from ..pages.page_index import PageIndex
from ..reranking.codecs import ResidualCodec
from ..texts.database import TextDocument
from ..texts.encoders.base import NoEncoder
from ..texts.encoders.names import built_in
from ..texts.text_index import TextIndex
from ..utils.atomic_files import read_json
from ..utils.checks import counted
from .printing import announce, progress_bar

#: Options of a reader: names and values.
Options = Sequence[tuple[str, Any]] | None

# Batches are small, so that a progress bar moves early.
_BATCH_BYTES = 16 << 20

# Documents of an index that are read at a time.
_DOCUMENTS = 1024


def open_documents(path: Path, format: str | None = None, option: Options = None) -> Source:
    """Open documents, or an index, which takes no options."""
    if format is None and is_index(path):
        if option:
            raise ValueError(f"{path} is an index, which has no options. Omit --option.")
        return open_index(path)
    return open_source(path, format, **dict(option or ()))


def open_queries(path: Path, format: str | None = None, option: Options = None) -> Source:
    """Open the queries of a source that also has documents, else the whole source."""
    values = dict(option or ())
    if (
        "part" in values
        or (format is None and is_index(path))
        or "part" not in find_reader(path.expanduser(), format).options
    ):
        return open_documents(path, format, option)
    try:
        return open_source(path, format, part="queries", **values)
    except ValueError:
        # Damaged queries must not be replaced by the documents.
        folder = path.expanduser()
        if folder.is_dir() and any(file.stem.startswith(("quer", "test")) for file in folder.iterdir()):
            raise
        return open_source(path, format, part="docs", **values)


def read_documents_and_queries(
    source: Path, queries: Path | None, format: str | None = None, option: Options = None
) -> tuple[MultiVectors, MultiVectors | None]:
    """Read documents, and queries if there are any, into memory.

    `format` and `option` are of the documents; the format of the queries is detected.
    """
    documents = read(open_documents(source, format, option))
    return documents, None if queries is None else read(open_queries(queries))


def stream(source: Source) -> Iterator[MultiVectors]:
    """Yield the batches of a source, at least one document in total."""
    count = 0
    for batch in source.batches(max(1, _BATCH_BYTES // (4 * source.dimension))):
        count += len(batch)
        yield batch
    if count == 0:
        raise ValueError("The source has no documents.")


def is_index(path: Path) -> bool:
    """Return True if a folder contains an index."""
    return (path.expanduser() / MANIFEST).is_file()


def open_index(path: Path) -> IndexSource:
    """Return the source of an index's folder, with the changes in its journal."""
    folder = path.expanduser().resolve()
    if is_page_index(folder):
        pages = PageIndex.load(folder)
        return IndexSource(pages.texts.vectors, pages)
    if texts_file(folder) is None:
        return IndexSource(MuveraIndex.load(folder))
    texts = TextIndex.load(folder, NoEncoder())
    if texts.texts.table is not None:  # the encoder has the table that tokens are rows of
        name = texts.encoder.name
        if name not in built_in("text"):
            raise ValueError(
                f"{path} stores tokens as rows of the table of the encoder {name!r}, and commands load only "
                f"the tables of {', '.join(built_in('text'))}. Load it in Python, with "
                "TextIndex.load(path, encoder)."
            )
        texts = TextIndex.load(folder)
    return IndexSource(texts.index, texts)


class IndexSource(Source):
    """Tokens and ids of an index's documents, in the order of addition.

    `texts` is the index of texts or pages that has the vectors of `index`, if any has.
    `encoder` and `candidates_by_recall` are those of `index`.
    An index that stores the codes of a PLAID index is a
    :class:`muvera.data.batches.CodedSource`.
    """

    name = "muvera index"

    def __init__(self, index: MuveraIndex, texts: TextIndex | PageIndex | None = None) -> None:
        self._index = index
        self.texts = texts
        self.encoder = index.encoder
        self.candidates_by_recall = index.candidates_by_recall
        info = index.info()
        self.dimension = info.dimension
        self._rows = info.parts or info.documents
        self._joins = texts is not None  # a text belongs to all parts of a document
        self.num_documents = info.documents if self._joins else self._rows
        self.num_tokens = info.tokens
        codec = index.codec if index.settings.tokens is None else None
        if isinstance(codec, ResidualCodec):
            self.lossy = True
            self.nbits = codec.bits
            self.centroids = codec.arrays["centroids"]
            self.bucket_weights = codec.arrays["levels"]

    def keep_parts(self) -> None:
        """Let batches have the parts of long texts, too."""
        self._joins = False
        self.num_documents = self._rows

    def _blocks(self) -> Iterator[NDArray[Any]]:
        ids = self._index.ids
        return (ids[start : start + _DOCUMENTS] for start in range(0, len(ids), _DOCUMENTS))

    def documents(self) -> Iterator[TextDocument]:
        """Yield the stored texts or text layers, in the order of the tokens."""
        assert self.texts is not None
        for ids in self._blocks():
            yield from self.texts.texts.get(ids.tolist())

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents with their ids, at most `max_tokens` tokens at a time."""
        for ids in self._blocks():
            tokens = self._index.tokens(ids)
            yield from collection_batches(join_parts(tokens) if self._joins else tokens, max_tokens)

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents, centroid numbers of their tokens and packed residuals."""
        for documents in self.batches(max_tokens):
            coded = self._index.codes(documents.ids)
            assert isinstance(coded.codec, ResidualCodec)
            numbers, packed = coded.codec.split_codes(coded.tokens)
            yield documents, numbers, packed


def choose_encoder(name: str | None, config: Path | None, dimension: int) -> FDEConfig | FDEEncoder:
    """Return the encoder of --encoder and --config.

    `name` is a preset (default: fde), or the folder of an index or of a saved encoder.
    `config` is a file with a JSON object of parameters that change the preset.
    """
    values = {} if config is None else read_json(config)
    if not isinstance(values, dict):
        raise ValueError(f"{config} must contain a JSON object of parameters, got {type(values).__name__}.")
    if name is None or name in PRESETS:
        try:
            return FDEConfig.from_dict({"dimension": dimension, **PRESETS[name or DEFAULT_PRESET], **values})
        except (TypeError, ValueError) as error:
            raise type(error)(f"{config}: {error}" if values else error) from None
    if values:
        raise ValueError(f"--encoder {name} is fitted already. Remove {', '.join(values)} from {config}.")
    folder = Path(name).expanduser()
    if not is_encoder_folder(folder) and not is_index(folder):
        raise FileNotFoundError(
            f"--encoder must be one of {', '.join(PRESETS)}, or the folder of an index or of encode "
            f"--save-encoder, got {name!r}."
        )
    return encoder_of(folder)


def encoder_of(folder: Path) -> FDEEncoder:
    """Return the encoder of a folder: of an index, or of a saved encoder."""
    if is_encoder_folder(folder):
        return load_encoder(folder)
    if not is_index(folder):
        raise FileNotFoundError(
            f"{folder} is not the folder of an index or of encode --save-encoder. Give one of these."
        )
    encoder = MuveraIndex.load(folder).encoder
    if encoder is None:
        raise ValueError(
            f"{folder} is searched exactly and has no encoder. Build it with --exact-tokens 0 to have one."
        )
    return encoder


def sized(chosen: FDEConfig | FDEEncoder, source: Source) -> FDEConfig | FDEEncoder:
    """Return a configuration for the size of a source, if it is known."""
    documents, tokens = source.num_documents, source.num_tokens
    if isinstance(chosen, FDEEncoder) or documents is None or tokens is None:
        return chosen
    return chosen.sized(documents, tokens)


def to_encoder(chosen: FDEConfig | FDEEncoder) -> FDEEncoder:
    """Return a new encoder of a configuration, or the given encoder."""
    return FDEEncoder(chosen) if isinstance(chosen, FDEConfig) else chosen


def fit_for_index(
    chosen: FDEConfig | FDEEncoder,
    source: Source,
    exact_tokens: int,
    threads: int | None,
) -> FDEConfig | FDEEncoder:
    """Return an encoder that is fitted on all documents.

    `chosen` is returned unchanged if the index needs no vectors, because it has at most
    `exact_tokens` tokens, or if there are too few documents for a fit.
    """
    if isinstance(chosen, FDEEncoder):
        return chosen
    exact = source.num_tokens is not None and source.num_tokens <= exact_tokens
    few = source.num_documents is not None and source.num_documents < MIN_FIT_DOCUMENTS
    if exact or (few and chosen.needs_fit_sample):
        return chosen
    return fit(to_encoder(sized(chosen, source)), source, threads)


def announce_tokens(
    source: Source,
    chosen: FDEConfig | FDEEncoder,
    settings: IndexSettings,
    threads: int | None,
    keeps_tokens: bool = True,
) -> None:
    """Announce the time and the size of a long job with token vectors.

    Announce nothing if the source does not know its number of tokens.
    """
    documents, tokens = source.num_documents, source.num_tokens
    if documents is None or tokens is None:
        return
    config = chosen.sized(documents, tokens) if isinstance(chosen, FDEConfig) else chosen.config
    announce(
        f"{counted(documents, 'document')} of {counted(tokens, 'token')}",
        expected_seconds(config, documents, tokens, threads),
        lambda: expected_bytes(config, settings, documents, tokens, _dtype(source), keeps_tokens),
    )


def _dtype(source: Source) -> str:
    """Return the dtype of the token vectors of a source."""
    first = next(iter(source.batches(1)), None)
    return "float32" if first is None else str(first.tokens.dtype)


def fit(encoder: FDEEncoder, source: Source, threads: int | None = None) -> FDEEncoder:
    """Return an encoder, fitted to all documents of a source if it needs a fit."""
    if not encoder.needs_fit:
        return encoder
    with progress_bar(source.num_documents, "documents", "reading a sample") as advance:

        def batches() -> Iterator[MultiVectors]:
            for batch in stream(source):
                yield batch
                advance(len(batch))

        return encoder.fit(batches(), threads=threads)
