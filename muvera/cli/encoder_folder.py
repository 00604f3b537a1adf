"""A fitted encoder on the disk: in an index's folder, or alone in its own.

FDEs of documents and of queries only fit together when they come from one encoder, and a
centered one has learned something that its configuration does not say.
"""

from __future__ import annotations

from pathlib import Path

from ..encoders.base import Encoder, config_from_dict
from ..encoders.base import load_encoder as load_arrays
from ..encoders.base import save_encoder as save_arrays
from ..index.generations import MANIFEST, read_manifest, verify
from ..utils.atomic_files import atomic_folder, write_json

__all__ = ["FORMAT", "is_encoder_folder", "load_encoder", "save_encoder"]

FORMAT = "muvera-encoder"
FILE = "encoder.json"


def is_encoder_folder(folder: Path) -> bool:
    """Say whether :func:`save_encoder` wrote `folder`."""
    return (folder / FILE).is_file()


def save_encoder(encoder: Encoder, folder: Path, *, overwrite: bool = False) -> None:
    """Write configuration, matrices and center; the folder appears when it is complete."""
    with atomic_folder(folder, overwrite, own=(FILE, "encoder_*.npy")) as beside:
        save_arrays(encoder, beside)
        state = {"format": FORMAT, "format_version": 1, "config": encoder.config.to_dict()}
        write_json(beside / FILE, state)


def load_encoder(folder: Path) -> Encoder:
    """Read the encoder of an index or of a folder of :func:`save_encoder`.

    The index's other files stay unread.

    Raises
    ------
    ValueError, FileNotFoundError
        Where the folder is neither, is damaged, or is an index without FDEs.
    """
    if is_encoder_folder(folder):
        from .settings import read_config

        state = read_config(folder / FILE)
        if state.get("format") != FORMAT or state.get("format_version") != 1:
            raise ValueError(f"{folder / FILE} does not describe an encoder that this muvera reads.")
        return load_arrays(folder, config_from_dict(state["config"]))
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
    verify(folder, {"files": named}, thorough=True)
    return load_arrays(folder / manifest["folder"], config_from_dict(manifest["config"]))
