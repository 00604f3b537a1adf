"""Reader of the PLAID indexes of Stanford's ColBERT and of RAGatouille.

``centroids.pt`` and ``buckets.pt`` are the codec; chunk i is ``{i}.codes.pt``,
``{i}.residuals.pt`` and ``doclens.{i}.json``.  Vectors come back with the loss of their
1, 2, 4 or 8 bits a coordinate, and are normalized as ColBERT does before it scores.
Read without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..parsing.index_files import chunk_count, chunk_lengths, read_json_object
from ..parsing.pylate_id_maps import has_pylate_maps
from ..parsing.torch_file import StoredTensor, read_array, read_torch
from ..sources.plaid_codec import Chunk, Codec, QuantizedSource

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "plaid"
DESCRIPTION = "metadata.json with centroids.pt (a ColBERT or RAGatouille index)"


def matches(path: Path) -> bool:
    """Return whether `path` looks like a PLAID index that PyLate did not wrap."""
    try:
        return (path / "centroids.pt").is_file() and (
            (path / "metadata.json").is_file() and not has_pylate_maps(path)
        )
    except OSError:
        return False


def open_source(path: Path, *, dtype: DTypeLike = np.float32, threads: int | None = None) -> QuantizedSource:
    """Return the source of a PLAID index.

    Passages without a token keep their place.  Where RAGatouille's ``pid_docid_map.json``
    is there, its document ids are the ids; a document of several passages gives
    ``"id#0"``, ``"id#1"``, ... because ids are unique.

    Parameters
    ----------
    path : Path
        The index's folder.
    dtype : float32 or float16
        Of the decoded vectors.
    threads : int, optional
        Default: all usable cores.

    Raises
    ------
    FileNotFoundError, ValueError, RefusedPickleError
        For files that are missing or damaged, that do not belong together, or that ask for more
        than plain data.
    """
    path = Path(path)
    metadata = read_json_object(path / "metadata.json")
    config = metadata.get("config", {})
    if not isinstance(config, dict):
        raise ValueError(f"{path / 'metadata.json'} has a config that is no JSON object. Copy it again.")
    count = chunk_count(path, metadata)
    centroids = read_array(path / "centroids.pt")
    if "dim" in config and centroids.ndim == 2 and centroids.shape[1] != config["dim"]:
        raise ValueError(
            f"{path / 'centroids.pt'} has {centroids.shape[1]} columns, but metadata.json says "
            f"dim={config['dim']}. The files are of different builds: copy the whole folder again."
        )
    weights = _weights(path / "buckets.pt")
    nbits = config.get("nbits", len(weights).bit_length() - 1)
    codec = Codec(path, centroids, weights, nbits, dtype=dtype, threads=threads)
    chunks = [_chunk(path, i) for i in range(count)]
    documents = sum(len(chunk.lengths) for chunk in chunks)
    return QuantizedSource(NAME, codec, chunks, _ragatouille_ids(path, documents))


def _weights(path: Path) -> NDArray[Any]:
    buckets = read_torch(path)
    if (
        not isinstance(buckets, (tuple, list))
        or len(buckets) != 2
        or not all(isinstance(part, StoredTensor) and len(part.shape) == 1 for part in buckets)
    ):
        raise ValueError(f"{path} must hold the pair (cutoffs, weights); it does not. Copy it again.")
    return np.asarray(buckets[1].numpy())


def _chunk(path: Path, i: int) -> Chunk:
    name = f"{i}.codes.pt"
    for needed in (name, f"{i}.residuals.pt", f"doclens.{i}.json"):
        if not (path / needed).is_file():
            raise FileNotFoundError(
                f"{path} has no {needed}, but metadata.json counts that chunk. Copy the whole folder again."
            )

    def load() -> tuple[NDArray[Any], NDArray[Any]]:
        return read_array(path / name), read_array(path / f"{i}.residuals.pt")

    return Chunk(name, chunk_lengths(path / f"doclens.{i}.json"), load)


def _ragatouille_ids(path: Path, documents: int) -> list[str] | None:
    file = path / "pid_docid_map.json"
    if not file.is_file():
        return None
    names = read_json_object(file)
    missing = next((pid for pid in range(documents) if str(pid) not in names), None)
    if missing is not None:
        raise ValueError(
            f"{file} names {len(names)} passages, but not passage {missing} of {documents}. "
            "Copy the folder again, or remove the file to number the passages."
        )
    ordered = [str(names[str(pid)]) for pid in range(documents)]
    seen: dict[str, int] = {}
    for name in ordered:
        seen[name] = seen.get(name, 0) + 1
    counts: dict[str, int] = {}
    ids = []
    for name in ordered:
        if seen[name] > 1:
            part = counts.get(name, 0)
            counts[name] = part + 1
            name = f"{name}#{part}"
        ids.append(name)
    return ids
