"""Encoded texts kept on the disk, so that work that was interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...data.multivectors import MultiVectors
from .base import Side, TextEncoder, from_matrices

__all__ = ["CachedEncoder"]


class CachedEncoder:
    """A text encoder that encodes every text once.

    Parameters
    ----------
    encoder : TextEncoder
    path : Path
        An SQLite file, made where it is missing.  Vectors are found by the encoder's name, the side and the
        text, so several encoders may share it.  Each call commits what it encoded.
    """

    def __init__(self, encoder: TextEncoder, path: Path) -> None:
        self.name = encoder.name
        self._encoder = encoder
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, dtype TEXT, columns INTEGER, content BLOB)"
        )

    def __del__(self) -> None:
        # Python 3.13 warns of connections that nobody closed.
        if hasattr(self, "_connection"):
            self._connection.close()

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents."""
        return self._encode(texts, "document", self._encoder.encode_documents)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries."""
        return self._encode(texts, "query", self._encoder.encode_queries)

    def token_spans(self, text: str, side: Side) -> list[tuple[int, int]] | None:
        """Return where each token vector of a text comes from."""
        return self._encoder.token_spans(text, side)

    def _encode(
        self, texts: Sequence[str], side: Side, encode: Callable[[Sequence[str]], MultiVectors]
    ) -> MultiVectors:
        keys = [hashlib.sha256(f"{self.name}\0{side}\0{text}".encode()).digest() for text in texts]
        found = {key: stored for key in set(keys) if (stored := self._read(key)) is not None}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if new:
            encoded = encode(list(new.values()))
            for key, tokens in zip(new, encoded, strict=True):
                found[key] = np.asarray(tokens)
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
                    (
                        (
                            key,
                            found[key].dtype.str,
                            found[key].shape[1],
                            np.ascontiguousarray(found[key]).tobytes(),
                        )
                        for key in new
                    ),
                )
        return from_matrices([found[key] for key in keys]) if keys else encode([])

    def _read(self, key: bytes) -> np.ndarray | None:
        row = self._connection.execute(
            "SELECT dtype, columns, content FROM vectors WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        dtype, columns, content = row
        return np.frombuffer(content, np.dtype(dtype)).reshape(-1, columns)
