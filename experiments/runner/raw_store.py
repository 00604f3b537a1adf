"""Raw results: what every point of an experiment returned, kept under a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera.utils.atomic_files import write_bytes, write_json

__all__ = ["Raw", "RawStore", "key_of"]

# Arrays in a file; numbers about each query stand beside them under a prefix.
_ARRAYS, _FACT = ("ids", "scores", "seconds", "chamfer", "fitted_on"), "fact "


@dataclass(frozen=True, eq=False)
class Raw:
    """One point's raw results.

    Parameters
    ----------
    ids : int64 (n, k)
        Positions of documents, -1 where fewer were found.
    scores : float32 (n, k)
        The system's own.
    seconds : float64 (n,)
        NaN where not measured.
    chamfer : float32 (n, k) or (0, 0)
        Exact Chamfer similarities of the returned documents; empty where they were not computed.
    facts : dict
        ``build_seconds``, ``bytes_per_document``, numbers about the index, ``faults`` in sentences, and
        what the result depends on.
    fitted_on : int64 (m,)
        Positions of the documents that the system's maps were learned from; empty where these are all.
    query_facts : dict of float64 (n,)
        Other numbers about each query.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    seconds: NDArray[np.float64]
    chamfer: NDArray[np.float32]
    facts: dict[str, Any]
    fitted_on: NDArray[np.int64]
    query_facts: dict[str, NDArray[np.float64]]


class RawStore:
    """A folder of raw results; a result is there wholly or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, collection: str, system: str, key: str) -> Path:
        """Return where a result is or would be."""
        return self.folder / collection / f"{system}-{key}.npz"

    def save(self, path: Path, raw: Raw) -> None:
        """Write a result: its facts first, its arrays last, each beside and renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path.with_suffix(".json"), raw.facts)
        beside = path.with_name(f".{path.stem}.partial.npz")
        arrays = {name: getattr(raw, name) for name in _ARRAYS}
        arrays |= {f"{_FACT}{name}": values for name, values in raw.query_facts.items()}
        np.savez(beside, **arrays)
        try:
            write_bytes(path, beside.read_bytes())
        finally:
            beside.unlink()

    def load(self, path: Path) -> Raw | None:
        """Return a result, None where it is missing or not whole."""
        try:
            # From memory: where NumPy refuses a file, it leaves it open.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS}
                query_facts = {
                    name.removeprefix(_FACT): file[name] for name in file.files if name.startswith(_FACT)
                }
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None
        return Raw(**arrays, facts=facts, query_facts=query_facts)


def key_of(**parts: Any) -> str:
    """Return sixteen hexadecimal digits that depend on all `parts` and on nothing else."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
