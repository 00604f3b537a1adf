"""The interface of encoders and of their configurations, and what all of them share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, checked_texts
from ..utils.atomic_files import atomic_folder, write_json
from ..utils.checksums import content_checksum, described_file

__all__ = [
    "ENCODER_FILE",
    "ENCODER_FORMAT",
    "ENCODER_FORMAT_VERSION",
    "BaseConfig",
    "BaseEncoder",
    "Encoder",
    "EncoderConfig",
    "ReadArray",
    "Side",
    "write_encoder_arrays",
]

#: The format's name, the file that describes a saved encoder, and its version; see docs/index-format.md.
ENCODER_FORMAT = "muvera-encoder"
ENCODER_FILE = "encoder.json"
ENCODER_FORMAT_VERSION = 1

#: What is encoded.
Side = Literal["documents", "queries"]

#: Returns a saved array by its name.
ReadArray = Callable[[str], NDArray[Any]]


class EncoderConfig(Protocol):
    """Interface of configurations: every choice that makes a vector, frozen and hashable."""

    kind: ClassVar[str]

    @property
    def dimension(self) -> int:
        """Columns of a token vector."""
        ...

    @property
    def vector_dimension(self) -> int:
        """Floats of a vector that the encoder makes."""
        ...

    @property
    def needs_fit_sample(self) -> bool:
        """Whether fitting needs a fair sample of many documents; a mean token needs a few."""
        ...

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that depend on every value and on nothing else."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, "encoder" among them: the kind."""
        ...


class Encoder(Protocol):
    """Interface of encoders: token sets become vectors whose inner products rank documents."""

    @property
    def config(self) -> EncoderConfig:
        """What makes this encoder."""
        ...

    @property
    def needs_fit(self) -> bool:
        """Whether something is still to be learned from documents."""
        ...

    def fit(self, documents: Any, queries: Any = None, *, threads: int | None = None) -> Encoder:
        """Learn what the configuration asks for, and return this encoder."""
        ...

    def encode_documents(
        self, documents: Any, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Return the documents' vectors, float32 (n, vector_dimension)."""
        ...

    def encode_queries(
        self, queries: Any, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Return the queries' vectors, float32 (n, vector_dimension)."""
        ...

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was drawn and learned, by name."""
        ...

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the encoder to a folder, which :func:`muvera.load_encoder` reads."""
        ...


_Config = TypeVar("_Config", bound="BaseConfig")


class BaseConfig:
    """Base class of configurations that are frozen dataclasses."""

    #: Name of the kind of encoder, see :data:`muvera.encoders.registry.ENCODERS`.
    kind: ClassVar[str]

    @property
    def needs_fit_sample(self) -> bool:
        """Whether fitting needs a fair sample of many documents; a mean token needs a few."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` takes; "encoder" is the kind."""
        return {"encoder": self.kind, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls: type[_Config], values: dict[str, Any]) -> _Config:
        """Return the configuration that :meth:`to_dict` described.

        Raises
        ------
        ValueError
            For an unknown key, another kind of encoder, or a wrong value.
        """
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
        """Sixteen hexadecimal digits that depend on every value and on nothing else."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class BaseEncoder(ABC):
    """Base class of encoders: the two verbs, saving, and the check of what is encoded."""

    config: Any

    @property
    @abstractmethod
    def needs_fit(self) -> bool:
        """Whether something is still to be learned from documents."""

    def encode_documents(
        self, documents: Any, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Encode documents.

        Parameters
        ----------
        documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A document without tokens gets the zero vector.
        out : float32 (n, vector_dimension), optional
            Where to write, such as a memory map; C-contiguous.
        threads : int, optional
            Default: all usable cores.  The result does not depend on it.

        Returns
        -------
        float32 (n, vector_dimension)
            Its inner product with a query's vector approximates ``chamfer(query, document)``, up to a
            constant a query; of an FDE without ``split_mean``, ``num_repetitions`` times that.

        Raises
        ------
        ValueError
            Where the encoder is not fitted, or the documents do not suit it.
        """
        return self._encode(documents, "documents", out, threads)

    def encode_queries(
        self, queries: Any, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Encode queries: sums of what their tokens ask for, where a document's vector has means.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A query without tokens gets the zero vector.
        out, threads
            As for :meth:`encode_documents`.

        Returns
        -------
        float32 (n, vector_dimension)

        Raises
        ------
        ValueError
            Where the encoder is not fitted, or the queries do not suit it.
        """
        return self._encode(queries, "queries", out, threads)

    @abstractmethod
    def _encode(
        self, values: Any, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        """Return the vectors of documents or of queries, or raise where they do not suit."""

    @abstractmethod
    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was drawn and learned, by name.

        Raises
        ------
        ValueError
            Where the encoder still :attr:`needs_fit`.
        """

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write configuration and arrays to a folder, which :func:`muvera.load_encoder` reads.

        The folder appears under its name only when it is complete.

        Parameters
        ----------
        path : path
            The folder, which is made.
        overwrite : bool
            Replace an encoder's folder.

        Raises
        ------
        ValueError
            Where the encoder is not fitted.
        FileExistsError
            Where `path` exists and is not to be replaced, or holds anything else.
        """
        arrays = self.to_arrays()
        with atomic_folder(path, overwrite, own=(ENCODER_FILE, "encoder_*.npy")) as folder:
            write_encoder_arrays(arrays, folder)
            files = {path.name: described_file(path) for path in sorted(folder.iterdir())}
            state = {
                "format": ENCODER_FORMAT,
                "format_version": ENCODER_FORMAT_VERSION,
                "config": self.config.to_dict(),
                "files": files,
            }
            write_json(folder / ENCODER_FILE, {**state, "sha256": content_checksum(state)})

    def _checked(self, texts: Any, name: str) -> MultiVectors:
        """Return what is to be encoded as finite MultiVectors of the encoder's dimension, or raise."""
        return checked_texts(texts, name, self.config.dimension, "this encoder")


def write_encoder_arrays(arrays: dict[str, NDArray[Any]], folder: Path) -> None:
    """Write an encoder's arrays as ``encoder_*.npy``; its configuration is the caller's to keep."""
    for name, array in arrays.items():
        np.save(folder / f"encoder_{name}.npy", array)
