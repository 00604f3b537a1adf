"""What writes a generation of an index, and what is in a folder afterwards."""

from pathlib import Path
from typing import Any

from muvera.index.generations import LOCK

__all__ = ["failing", "files", "writing"]


def writing(content: dict[str, bytes], keep: Any = ()) -> Any:
    """Return a `fill` that writes these values into files of tokens."""

    def fill(folder: Path, name: str, old: set[str]) -> tuple[dict[str, Any], list[str]]:
        for file, value in content.items():
            (folder / f"tokens-{file}.npy").write_bytes(value)
        return {"content": sorted(content), "segments": []}, [file for file in keep if file in old]

    return fill


def failing(error: BaseException) -> Any:
    """Return a `fill` that writes half and raises."""

    def fill(folder: Path, name: str, old: set[str]) -> Any:
        (folder / "half").write_bytes(b"x")
        raise error

    return fill


def files(target: Path) -> list[str]:
    """Return everything in a folder but its lock, which stays."""
    found = [path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()]
    return sorted(set(found) - {LOCK})
