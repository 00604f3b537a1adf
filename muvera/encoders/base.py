"""Base classes of encoders, of their configurations and of their arrays."""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.batches import DocumentSample, as_batches, mean_token
from ..data.multivectors import MultiVectors, as_kernel_arrays, checked_texts
from ..data.validation import validated_out
from ..utils.atomic_files import atomic_folder, content_checksum, described_file, write_json
from ..utils.checks import given, require_int
from ..utils.parallel import run_in_ranges, split_by_weight

#: Saved encoders, see docs/index-format.md.
ENCODER_FORMAT = {"format": "muvera-encoder", "format_version": 3}
ENCODER_FILE = "encoder.json"

#: The two sides of a search.
Side = Literal["documents", "queries"]

#: Tokens as float32, as float16 bit patterns (one of the two is empty), and the texts' offsets.
KernelArrays = tuple[NDArray[np.float32], NDArray[np.uint16], NDArray[np.int64]]

Shapes = tuple[tuple[int, ...], ...]

# Tokens per task: enough to hide the cost of starting it, few enough to balance the threads.
_TASK_TOKENS = 2048

_Config = TypeVar("_Config", bound="EncoderConfig")
_Arrays = TypeVar("_Arrays", bound="EncoderArrays")
_Encoder = TypeVar("_Encoder", bound="Encoder")


class EncoderConfig(ABC):
    """Base class of configurations: frozen dataclasses with all parameters of an encoder."""

    #: Name of the kind of encoder, see :data:`muvera.encoders.registry.ENCODERS`.
    kind: ClassVar[str]
    # Smallest and largest value of integer fields; the default is (1, None), and (0, None) for `seed`.
    _limits: ClassVar[dict[str, tuple[int, int | None]]] = {}
    dimension: int
    seed: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            name, value = field.name, getattr(self, field.name)
            if field.type == "bool" and not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, got {given(value)}.")
            none = value is None and field.type.endswith("None")
            if field.type.startswith("int") and value is not field.default and not none:
                limits = {"seed": (0, None), **self._limits}.get(name, (1, None))
                object.__setattr__(self, name, require_int(name, value, *limits))

    @property
    @abstractmethod
    def vector_dimension(self) -> int:
        """Floats of a vector."""

    @property
    def needs_fit_sample(self) -> bool:
        """True if fitting needs many documents; a mean token needs only a few."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for :meth:`from_dict`; "encoder" is the kind."""
        return {"encoder": self.kind, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls: type[_Config], values: dict[str, Any]) -> _Config:
        """Return the configuration from the result of :meth:`to_dict`; raise ValueError for any other values."""
        values = {**values}
        kind = values.pop("encoder", cls.kind)
        if kind != cls.kind:
            raise ValueError(f"{cls.__name__} describes encoder {cls.kind!r}, got {kind!r}.")
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"{cls.__name__} has no {unknown[0]!r}. It has: {', '.join(known)}.")
        if "dimension" not in values:
            raise ValueError(f"{cls.__name__} needs dimension, the columns of a token vector.")
        return cls(**values)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that depend only on the values."""
        return content_checksum(self.to_dict())[:16]


class EncoderArrays(ABC):
    """Base class of frozen dataclasses with an encoder's arrays, annotated as ``NDArray[np.<dtype>]``."""

    #: Precedes the names of the arrays in files.
    prefix: ClassVar[str] = ""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by the names under which they are saved."""
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return {self.prefix + name: getattr(self, name) for name in names}

    @classmethod
    def from_files(cls: type[_Arrays], read: Callable[[str], NDArray[Any]]) -> _Arrays:
        """Return the arrays that :func:`write_encoder_arrays` stored; `read` returns one by its name."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        arrays = [np.ascontiguousarray(read(cls.prefix + field.name)) for field in fields]
        for i, field in enumerate(fields):
            if field.type in ("NDArray[np.int8]", "NDArray[np.uint8]"):
                # The next field contains the unit of each column.
                rows = _inflated(arrays[i], field.name, len(arrays[i + 1]))
                arrays[i] = rows.view(np.int8) if field.type == "NDArray[np.int8]" else rows
        return cls(*arrays)

    @abstractmethod
    def _shapes(self, config: Any) -> Shapes:
        """Return the shapes that a configuration needs, in the order of the fields."""

    def require_shape(self, config: Any) -> None:
        """Raise ValueError if the arrays belong to another configuration.

        Compiled code reads these arrays without bounds checks.
        """
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        for field, shape in zip(fields, self._shapes(config), strict=True):
            array, dtype = getattr(self, field.name), field.type.removeprefix("NDArray[np.").removesuffix("]")
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"The encoder's array {field.name!r} has shape {array.shape} and dtype {array.dtype}, but its "
                    f"configuration needs {shape} and {dtype}. Restore the encoder from a copy."
                )


class Encoder(ABC):
    """Base class of encoders: token sets become vectors whose inner products rank documents."""

    config_class: ClassVar[type[EncoderConfig]]
    config: EncoderConfig

    #: First-stage recall of each kind of encoder among which this one was chosen; None without a comparison.
    compared: dict[str, float] | None = None

    #: A power of two.  Tokens are divided by it before encoding, and vectors are multiplied by it.  It is 1 unless
    #: float32 cannot hold the fourth power of tokens.
    scale: float = 1.0

    def __init__(self, config: EncoderConfig, **arrays: EncoderArrays | None) -> None:
        if not isinstance(config, self.config_class):
            raise TypeError(f"config must be of {self.config_class.__name__}, got {type(config).__name__}.")
        self.config = config
        classes = self._array_classes(config)
        for name, values in arrays.items():
            if values is not None:
                if name not in classes:
                    raise ValueError(f"{name} were given, but an encoder of {config} has none.")
                values.require_shape(config)
                setattr(self, name, values)

    @staticmethod
    @abstractmethod
    def _array_classes(config: Any) -> dict[str, type[EncoderArrays]]:
        """Return the classes of an encoder's arrays, by attribute name.  These attributes are None before a fit."""

    @property
    def needs_fit(self) -> bool:
        """True if :meth:`fit` must be called before encoding."""
        return any(getattr(self, name) is None for name in self._array_classes(self.config))

    def fit(self: _Encoder, documents: Any, queries: Any = None, *, threads: int | None = None) -> _Encoder:
        """Fit the encoder to a sample of documents, and return it.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough.  At most 4,096 documents (512 without a map) are used and held in memory, chosen at
            random.
        queries : MultiVectors or arrays, optional
            Queries to fit to.  Default: windows of the documents' own tokens.
        threads : int, optional
            Default: all usable cores.  The result does not depend on it.

        Raises
        ------
        ValueError
            If it is fitted already, or the documents have no tokens, numbers that are not finite, or
            another dimension.
        """
        if self._fit_size is None:
            return self
        if not self.needs_fit:
            raise ValueError(
                "This encoder is fitted already, and vectors of two fits cannot be compared. Make a new encoder."
            )
        dimension = self.config.dimension
        texts = checked_texts([] if queries is None else queries, "queries", dimension, "this encoder")
        floats, most = self._fit_size
        sampling = DocumentSample(floats, self.config.seed, most)
        mean = mean_token(sampling.sample_while_yielding(as_batches(documents)), dimension)
        sample = sampling.documents(dimension)
        scale = _scale_of(sample)
        self._fit(_divided(sample, scale), _divided(texts, scale), mean / np.float32(scale), threads)
        self.scale = scale
        return self

    @property
    @abstractmethod
    def _fit_size(self) -> tuple[int, int] | None:
        """Floats per sampled document, and the maximum number of documents; None if there is nothing to fit."""

    @abstractmethod
    def _fit(
        self, sample: MultiVectors, queries: MultiVectors, mean: NDArray[np.float32], threads: int | None
    ) -> None:
        """Fit to sampled documents, queries and the mean token; after an exception, `needs_fit` must still be true."""

    def encode_documents(
        self, documents: Any, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Encode documents.

        Parameters
        ----------
        documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A document without tokens gets the zero vector.
        out : float32 (n, vector_dimension), optional
            Array to write to, such as a memory map; C-contiguous.
        threads : int, optional
            Default: all usable cores.  The result does not depend on it.

        Returns
        -------
        float32 (n, vector_dimension)
            The inner product with a query's vector approximates ``chamfer(query, document)`` up to a constant
            per query.  For an FDE without ``split_mean`` it approximates ``num_repetitions`` times the
            similarity.

        Raises
        ------
        ValueError
            If the encoder is not fitted, or the documents have another dimension or invalid numbers.
        """
        return self._encode(documents, "documents", out, threads)

    def encode_queries(
        self, queries: Any, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Encode queries, like :meth:`encode_documents`.  Their vectors, float32 too, are sums over tokens.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A query without tokens gets the zero vector.
        out, threads
            As for :meth:`encode_documents`.
        """
        return self._encode(queries, "queries", out, threads)

    def _encode(
        self, values: Any, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        texts = checked_texts(values, side, self.config.dimension, "this encoder")
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        if self.scale != 1:
            texts = _divided(texts, self.scale)
        run_tasks(partial(self._write, side), texts, out, threads, *self._task_size(side))
        if self.scale != 1:
            out *= np.float32(self.scale)
        if side == "documents":  # sums over the tokens of an empty query are zero
            out[texts.lengths == 0] = 0
        return out

    @abstractmethod
    def _write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write the vectors of texts start..stop to `out`; those without tokens may get any vector."""

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        """Return the number of tokens of a task, and the largest number of texts, if there is one."""
        return _TASK_TOKENS, None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the drawn and fitted arrays by name; raise ValueError if the encoder is not fitted.

        Drawn arrays are included, because random streams may change between versions of NumPy.
        """
        self._require_fit()
        stored = {} if self.scale == 1 else {"scale": np.array([self.scale], np.float32)}
        for name in self._array_classes(self.config):
            stored |= getattr(self, name).to_arrays()
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
            If `path` exists and `overwrite` is False, or if it contains anything but an encoder.
        """
        arrays = self.to_arrays()
        with atomic_folder(path, overwrite, own=(ENCODER_FILE, "encoder_*.npy")) as folder:
            write_encoder_arrays(arrays, folder)
            files = {path.name: described_file(path) for path in sorted(folder.iterdir())}
            state = {**ENCODER_FORMAT, "config": self.config.to_dict(), "files": files}
            write_json(folder / ENCODER_FILE, {**state, "sha256": content_checksum(state)})

    def _require_fit(self) -> None:
        if self.needs_fit:
            raise ValueError("This encoder is not fitted. Call fit(documents) first.")


def run_tasks(
    write: Callable[[KernelArrays, int, int, NDArray[np.float32]], None],
    texts: MultiVectors,
    out: NDArray[np.float32] | int,
    threads: int | None,
    tokens: int = _TASK_TOKENS,
    most: int | None = None,
) -> NDArray[np.float32]:
    """Fill `out`, one row per text, by ``write(arrays, start, stop, rows)``; an int `out` is the width of a new array.

    A task has about `tokens` tokens and at most `most` texts, start..stop.
    """
    if isinstance(out, int):
        out = np.empty((len(texts), out), np.float32)
    arrays = (*as_kernel_arrays(texts), texts.offsets)
    if len(texts) == 1 and threads is None:  # planning takes as long as some encoders do
        write(arrays, 0, 1, out)
        return out
    ranges = split_by_weight(texts.offsets, tokens, most or max(1, len(texts)))
    run_in_ranges(lambda start, stop: write(arrays, start, stop, out[start:stop]), ranges, threads)
    return out


def _scale_of(documents: MultiVectors) -> float:
    """Return 1, or a power of two near the largest number if float32 does not hold its fourth power."""
    tokens = documents.tokens
    largest = max(float(tokens.max(initial=0)), -float(tokens.min(initial=0)))
    if largest == 0 or 2.0**-20 <= largest <= 2.0**20:
        return 1.0
    return 2.0 ** min(max(math.floor(math.log2(largest)), -50), 40)


def _divided(texts: MultiVectors, scale: float) -> MultiVectors:
    if scale == 1:
        return texts
    return MultiVectors.from_flat(texts.tokens.astype(np.float32) / np.float32(scale), texts.lengths)


def write_encoder_arrays(arrays: dict[str, NDArray[Any]], folder: Path) -> None:
    """Write the arrays as ``encoder_*.npy``, bytes compressed; the caller stores the configuration."""
    for name, array in arrays.items():
        if array.dtype.itemsize == 1:
            # A search for repeated bytes takes longer and saves no space.
            packer = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY)
            array = np.frombuffer(packer.compress(array.tobytes()) + packer.flush(), np.uint8)
        np.save(folder / f"encoder_{name}.npy", array)


def _inflated(packed: NDArray[Any], name: str, columns: int) -> NDArray[np.uint8]:
    """Return the bytes that :func:`write_encoder_arrays` compressed, in rows."""
    unpacker = zlib.decompressobj()
    try:
        # A Huffman code has at least one bit per byte.
        content = unpacker.decompress(packed.tobytes(), 8 * packed.nbytes + 1)
    except zlib.error:
        content = b""
    if not unpacker.eof or columns == 0 or len(content) % columns:
        raise ValueError(
            f"The encoder's array {name!r} must be deflated rows of {columns} bytes. Restore the encoder from a copy."
        )
    return np.frombuffer(content, np.uint8).reshape(-1, columns)
