"""FDEEncoder: turn token sets into Fixed Dimensional Encodings.

The steps, in this order; each may be absent (:class:`muvera.FDEConfig`):

1. Cells.  Partition the tokens by SimHash (:mod:`muvera.fde.simhash`) or landmarks
   (:mod:`muvera.fde.landmarks`), and aggregate them per cell.
2. Count sketch.  Reduce the cells alone to fewer floats
   (:mod:`muvera.fde.count_sketch`).
3. Moments.  Mean token and covariance stand beside the cells
   (:mod:`muvera.fde.moments`).
4. Learned projection.  Reduce cells and moments together to few floats
   (:mod:`muvera.fde.learned_projection`).
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.batches import (
    MAX_FIT_DOCUMENTS,
    DocumentSample,
    DocumentsLike,
    as_batches,
    mean_token,
    valid_batches,
)
from ..data.multivectors import MultiVectors, MultiVectorsLike, checked_texts
from ..data.validation import validated_out
from ..utils.atomic_files import atomic_folder, content_checksum, described_file, write_json
from ..utils.checks import require_choice
from .arrays import EncoderArrays, write_encoder_arrays
from .config import PRESETS, SIZES, FDEConfig
from .count_sketch import SketchedCells
from .graph import OPSET, Graph, write_model
from .landmarks import LandmarkCells
from .learned_projection import ProjectionStep
from .moments import SAMPLE_DOCUMENTS, MomentStep
from .simhash import SimHashCells
from .steps import CountSketch, Covariance, Landmarks, LearnedProjection, MeanToken, SimHash
from .tasks import TASK_TOKENS, ArrayClasses, FitSample, Side, Step, run_tasks

if TYPE_CHECKING:
    import onnx

# Shorter tokens are not scaled to length 1.
_SHORTEST = 1e-12

#: Saved encoders, see docs/index-format.md.
ENCODER_FORMAT = {"format": "muvera-encoder", "format_version": 4}
ENCODER_FILE = "encoder.json"

# The step of each kind of value, in the order of the steps.  A count sketch reads only
# cells, so it precedes the moments.
_STEPS: dict[type, type[Step]] = {
    SimHash: SimHashCells,
    Landmarks: LandmarkCells,
    CountSketch: SketchedCells,
    Covariance: MomentStep,
    MeanToken: MomentStep,
    LearnedProjection: ProjectionStep,
}


class FDEEncoder:
    """Turn token sets into vectors whose inner product approximates Chamfer.

    An encoder of the presets "paper" and "reference" can encode at once; all others
    need :meth:`fit` first.

    Parameters
    ----------
    config : FDEConfig
        How tokens are encoded.
    **arrays : EncoderArrays
        Arrays of a saved encoder by name, instead of drawing or fitting them; see
        :func:`muvera.load_encoder`.

    Raises
    ------
    TypeError
        If `config` is not an FDEConfig.
    ValueError
        If arrays belong to another configuration.

    Examples
    --------
    The paper's FDE of a random document:

    >>> import numpy as np
    >>> from muvera import FDEConfig, FDEEncoder
    >>> tokens = np.random.default_rng(0).normal(size=(80, 128))
    >>> FDEEncoder.preset("paper", 128).encode_documents(tokens).shape
    (1, 10240)

    The default, fitted to documents:

    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.normal(size=(9, 32)) for _ in range(300)]
    >>> encoder = FDEEncoder(FDEConfig(32)).fit(documents)
    >>> encoder.encode_documents(documents).shape
    (300, 512)
    """

    #: A power of two.  Tokens are divided by it before encoding, and vectors are
    #: multiplied by it.  It is 1 unless float32 cannot hold the fourth power of tokens.
    scale: float = 1.0

    def __init__(self, config: FDEConfig, **arrays: EncoderArrays | None) -> None:
        if not isinstance(config, FDEConfig):
            raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
        self.config = config
        present: dict[str, Any] = {name: values for name, values in arrays.items() if values is not None}
        for name in present:
            if name not in array_classes(config):
                raise ValueError(f"{name} were given, but an encoder of {config} has none.")
        learned, landmarks = present.get("learned"), present.get("landmarks")
        if learned and landmarks and len(learned.cells) != landmarks.count:
            raise ValueError(
                f"The encoder's map has {len(learned.cells)} rows of cells, but there are {landmarks.count} "
                "landmarks. Restore the encoder from a copy."
            )
        #: The steps that the configuration has; the last one writes the vectors.
        self.steps: list[Step] = []
        for value, kind in _kinds(config):
            self.steps.append(kind(value, config, present, self.steps[-1] if self.steps else None))
        self._is_fitted = len(self.arrays) == len(array_classes(config))

    @classmethod
    def preset(cls, name: str, dimension: int, **changes: Any) -> FDEEncoder:
        """Return an encoder of a named configuration.

        Parameters
        ----------
        name : {"fde", "moments", "mean", "simhash", "paper", "reference"}
            See :meth:`FDEConfig.preset`.
        dimension : int
            d, columns of a token vector.
        **changes
            As for :meth:`FDEConfig.preset`.

        Returns
        -------
        FDEEncoder
            Not fitted yet; "paper" and "reference" need no fit.

        Examples
        --------
        >>> encoder = FDEEncoder.preset("paper", 128, num_simhash_projections=4)
        >>> encoder.config.vector_dimension
        5120
        """
        return cls(FDEConfig.preset(name, dimension, **changes))

    @property
    def needs_fit(self) -> bool:
        """True if :meth:`fit` must be called before encoding."""
        return not self._is_fitted

    @property
    def arrays(self) -> dict[str, Any]:
        """The drawn and fitted arrays, by parameter of this class."""
        return {name: values for step in self.steps for name, values in step.arrays.items()}

    @property
    def center(self) -> NDArray[np.float32]:
        """The mean token that SimHash cells subtract, float32 (d,), or zeros."""
        self._require_fit()
        token = self.arrays.get("mean_token")
        return np.zeros(self.config.dimension, np.float32) if token is None else token.center

    # -- fitting -----------------------------------------------------------------------

    def fit(
        self, documents: DocumentsLike, queries: MultiVectorsLike | None = None, *, threads: int | None = None
    ) -> FDEEncoder:
        """Fit the encoder to a sample of documents, and return it.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough.  At most 4,096 documents (512 without landmarks and
            learned projection) are used and held in memory, chosen at random.
        queries : MultiVectors or arrays, optional
            Queries to fit to.  Default: windows of the documents' own tokens.
        threads : int, optional
            Default: all usable cores.  The result does not depend on it.

        Returns
        -------
        FDEEncoder
            This encoder.

        Raises
        ------
        ValueError
            If it is fitted already, or the documents have no tokens, numbers that are
            not finite, or another dimension.
        """
        config = self.config
        if not config.needs_fit:
            return self
        if not self.needs_fit:
            raise ValueError(
                "This encoder is fitted already, and vectors of two fits cannot be compared. Make a new "
                "encoder."
            )
        texts = checked_texts([] if queries is None else queries, "queries", config.dimension, "this encoder")
        self._fit_to(as_batches(documents), texts, texts[:0], threads)
        return self

    def _fit_to(
        self,
        batches: Iterable[MultiVectors],
        queries: MultiVectors,
        others: MultiVectors,
        threads: int | None,
    ) -> None:
        """Fit; see :func:`fitted_without_queries_from` for `others`."""
        config, dimension = self.config, self.config.dimension
        learned = isinstance(config.projection, LearnedProjection)
        floats = config.long_dimension if learned else config.vector_dimension
        most = MAX_FIT_DOCUMENTS if config.needs_fit_sample else SAMPLE_DOCUMENTS
        sampling = DocumentSample(floats, config.seed, most)
        valid = valid_batches(sampling.sample_while_yielding(batches), dimension)
        centered = "mean_token" in array_classes(config)
        mean = mean_token(valid, dimension) if centered else np.zeros(dimension, np.float32)
        deque(valid, maxlen=0)
        documents = sampling.documents(dimension)
        scale = _scale_of(documents)
        documents, queries, others = (_divided(texts, scale) for texts in (documents, queries, others))
        sample = FitSample(documents, queries, others, mean / np.float32(scale), threads)
        # After an exception, this encoder is as before.
        fitted = FDEEncoder(config, **self.arrays)
        for step in fitted.steps:
            step.fit(sample)
        self.steps, self.scale, self._is_fitted = fitted.steps, scale, True

    # -- encoding ----------------------------------------------------------------------

    def encode_documents(
        self,
        documents: MultiVectorsLike,
        *,
        out: NDArray[np.float32] | None = None,
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Encode documents.

        Parameters
        ----------
        documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A document without tokens gets the zero vector.
        out : numpy.ndarray, optional
            float32 (n, vector_dimension), C-contiguous, to write to, such as a memory
            map.
        threads : int, optional
            Default: all usable cores.  The result does not depend on it.

        Returns
        -------
        numpy.ndarray
            float32 (n, vector_dimension).  The inner product with a query's vector
            approximates ``chamfer(query, document)`` up to a constant per query.
            With SimHash and no `moments`, it approximates ``num_repetitions`` times the
            similarity, as in the paper.

        Raises
        ------
        ValueError
            If the encoder is not fitted, or the documents have another dimension or
            invalid numbers.
        """
        return self._encode(documents, "documents", out, threads)

    def encode_queries(
        self, queries: MultiVectorsLike, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Encode queries.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A query without tokens gets the zero vector.
        out : numpy.ndarray, optional
            As for :meth:`encode_documents`.
        threads : int, optional
            As for :meth:`encode_documents`.

        Returns
        -------
        numpy.ndarray
            float32 (n, vector_dimension).  A query's vector is the sum of the
            vectors of its tokens, up to rounding.

        Raises
        ------
        ValueError
            As for :meth:`encode_documents`.
        """
        return self._encode(queries, "queries", out, threads)

    def _encode(
        self, values: MultiVectorsLike, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        texts = checked_texts(values, side, self.config.dimension, "this encoder")
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        if self.scale != 1:
            texts = _divided(texts, self.scale)
        last = self.steps[-1]
        run_tasks(partial(last.write, side), texts, out, threads, TASK_TOKENS, last.most_texts)
        if self.scale != 1:
            out *= np.float32(self.scale)
        if side == "documents":  # sums over the tokens of an empty query are zero
            out[texts.lengths == 0] = 0
        return out

    # -- files -------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the drawn and fitted arrays by name.

        Drawn arrays are included, because random streams may change between versions of
        NumPy.  The columns of token vectors are padded with zeros to a multiple of 16.
        Bit j of a cell's code is set if its hyperplane j has a positive product, and
        the blocks of a SimHash FDE run through repetitions, then codes (a Gray code
        with ``dialect="reference"``), then the d_proj floats of a cell.

        Returns
        -------
        dict

        Raises
        ------
        ValueError
            If the encoder is not fitted.
        """
        self._require_fit()
        stored = {} if self.scale == 1 else {"scale": np.array([self.scale], np.float32)}
        for values in self.arrays.values():
            stored |= values.to_arrays()
        return stored

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write configuration and arrays to a folder for :func:`muvera.load_encoder`.

        The folder gets its name only when it is complete.

        Parameters
        ----------
        path : path
            The folder to create.
        overwrite : bool
            Replace an encoder's folder.

        Raises
        ------
        ValueError
            If the encoder is not fitted.
        FileExistsError
            If `path` exists and `overwrite` is False, or if it contains anything but an
            encoder.
        """
        arrays = self.to_arrays()
        with atomic_folder(path, overwrite, own=(ENCODER_FILE, "encoder_*.npy")) as folder:
            write_encoder_arrays(arrays, folder)
            files = {path.name: described_file(path) for path in sorted(folder.iterdir())}
            state = {**ENCODER_FORMAT, "config": self.config.to_dict(), "files": files}
            write_json(folder / ENCODER_FILE, {**state, "sha256": content_checksum(state)})

    def to_onnx(
        self, path: str | os.PathLike[str], side: Side = "queries", *, overwrite: bool = False
    ) -> None:
        """Write one side of the encoder as an ONNX file for other languages.

        The file needs the extra "onnx" to be written, and any ONNX Runtime from 1.6 on
        (opset 13) to be run.  It gets its name only when it is complete.

        Its inputs are `tokens`, float32 (texts, n, dimension), and `mask`, int64
        (texts, n): 1 for a token, and 0 for a row that only fills a text up to n rows.
        Its output is `fde`, float32 (texts, vector_dimension).  A single text is a
        batch of one.

        Parameters
        ----------
        path : path
            The file to create.
        side : {"queries", "documents"}
            What the file encodes.
        overwrite : bool
            Replace a file.

        Raises
        ------
        ImportError
            Without the extra "onnx".
        ValueError
            If the encoder is not fitted, or there is no such side.
        FileExistsError
            If `path` exists and `overwrite` is False, or if it is a folder.
        """
        write_model(onnx_model(self, side), path, overwrite)

    def _require_fit(self) -> None:
        if self.needs_fit:
            raise ValueError("This encoder is not fitted. Call fit(documents) first.")


def fitted_without_queries_from(
    config: FDEConfig, batches: Iterable[MultiVectors], others: MultiVectors, threads: int | None
) -> FDEEncoder:
    """Return an encoder fitted on documents, and to windows of all but `others`.

    `others` are only used as documents, by the fit of the learned projection.  So their
    windows are like real queries: they look for documents that the encoder was fitted
    on, but it was not fitted to them.
    """
    encoder = FDEEncoder(config)
    encoder._fit_to(batches, others[:0], others, threads)
    return encoder


def onnx_model(
    encoder: FDEEncoder, side: Side, *, opset: int = OPSET, normalize: bool = False
) -> onnx.ModelProto:
    """Return the model of :meth:`FDEEncoder.to_onnx`.

    With `normalize`, tokens are first scaled to length 1.
    """
    require_choice("side", side, get_args(Side))
    encoder._require_fit()
    config, scale, graph = encoder.config, encoder.scale, Graph(opset)
    texts = graph.texts()
    if normalize:
        tokens = texts.tokens / texts.tokens.length().op("Max", np.float32(_SHORTEST))
        texts = texts._replace(tokens=tokens)
    if scale != 1:
        texts = texts._replace(tokens=texts.tokens / scale)
    fde = encoder.steps[-1].onnx(side, texts)
    if scale != 1:
        fde = fde * scale
    if side == "documents":  # sums over the tokens of an empty query are zero
        fde = (texts.counts > 0.0).where(fde, np.float32(0))
    # An import statement would close a circle, which the layers forbid.
    version = import_module("muvera").__version__
    facts = {"version": version, "side": side, "preset": _preset_of(config), "hash": config.hash}
    return graph.model(fde, config.dimension, config.vector_dimension, facts)


def _preset_of(config: FDEConfig) -> str:
    """Return the name of a configuration's preset in any size, or "none"."""
    for name in PRESETS:
        preset = FDEConfig.preset(name, config.dimension, seed=config.seed)
        if config in (preset, *(preset.sized(size.documents or 0, size.tokens) for size in SIZES)):
            return name
    return "none"


def array_classes(config: FDEConfig) -> ArrayClasses:
    """Return the classes of an encoder's arrays, by name."""
    return {name: each for value, kind in _kinds(config) for name, each in kind.needed(value).items()}


def _kinds(config: FDEConfig) -> list[tuple[Any, type[Step]]]:
    """Return the values of a configuration and the classes of their steps, in order."""
    values = {type(value): value for value in (config.cells, config.moments, config.projection)}
    return [(values[kind], step) for kind, step in _STEPS.items() if kind in values]


def _scale_of(documents: MultiVectors) -> float:
    """Return a power of two near the largest number, or 1 for ordinary numbers.

    Float32 must hold the fourth power of a token's entries.
    """
    tokens = documents.tokens
    largest = max(float(tokens.max(initial=0)), -float(tokens.min(initial=0)))
    if largest == 0 or 2.0**-20 <= largest <= 2.0**20:
        return 1.0
    return 2.0 ** min(max(math.floor(math.log2(largest)), -50), 40)


def _divided(texts: MultiVectors, scale: float) -> MultiVectors:
    if scale == 1:
        return texts
    return MultiVectors.from_flat(texts.tokens.astype(np.float32) / np.float32(scale), texts.lengths)
