"""A fitted encoder on the disk: in an index's folder, or alone in its own.

FDEs of documents and of queries only fit together when they come from one encoder, and a
centered one has learned something that its configuration does not say.
"""

from __future__ import annotations

from pathlib import Path

from ..encoders.base import Encoder
from ..encoders.registry import config_from_dict, is_encoder_folder, read_encoder
from ..encoders.registry import load_encoder as load_alone
from ..index.manifest import MANIFEST, read_manifest, verify

__all__ = ["is_encoder_folder", "load_encoder"]


def load_encoder(folder: Path) -> Encoder:
    """Read the encoder of an index's folder or of an encoder's own.

    The index's other files stay unread.

    Raises
    ------
    ValueError, FileNotFoundError
        Where the folder is neither, is damaged, or is an index without FDEs.
    """
    if is_encoder_folder(folder):
        return load_alone(folder)
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(
            f"{folder} has no encoder: give an index's folder, or one that encode --save-encoder made."
        )
    manifest = read_manifest(folder)
    if manifest["candidates"] is None:
        raise ValueError(
            f"{folder} is searched exactly and has no encoder. Build it with --exact-tokens 0 to have one."
        )
    named = {name: entry for name, entry in manifest["files"].items() if "/encoder_" in name}
    verify(folder, named, thorough=True)
    return read_encoder(folder / manifest["folder"], config_from_dict(manifest["config"]))
