"""Model2VecEncoder: token vectors from the folder of a model2vec or potion model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.checks import as_path, counted, import_extra
from .base import TableEncoder, TextSide, token_ids

_PURPOSE = "The encoder of a model2vec folder"

# Files of a folder.
_WEIGHTS = "model.safetensors"
_TOKENIZER = "tokenizer.json"

# Queries are cut, because a search takes longer in proportion to their tokens.
_QUERY_TOKENS = 512


class Model2VecEncoder(TableEncoder):
    """A text encoder that looks up each token in the table of a model2vec model.

    Document tokens are unit vectors.  Query tokens keep the length of the table's row,
    divided by the mean length of all rows.  Unknown tokens are left out, as model2vec
    does.

    Parameters
    ----------
    folder : path
        A folder with ``model.safetensors`` and ``tokenizer.json``, such as a download
        of ``minishlab/potion-base-8M``.

    Raises
    ------
    ImportError
        Without the packages of the extra "static".
    FileNotFoundError, ValueError
        If a file is missing or has another content.
    """

    def __init__(self, folder: str | Path) -> None:
        place = as_path(folder)
        safetensors = import_extra("safetensors.numpy", "static", _PURPOSE)
        tokenizers = import_extra("tokenizers", "static", _PURPOSE)
        for name in (_WEIGHTS, _TOKENIZER):
            if not (place / name).is_file():
                raise FileNotFoundError(
                    f"{place} has no {name}. Give the folder of a model2vec model, which has {_WEIGHTS} and "
                    f"{_TOKENIZER}."
                )
        try:
            arrays = safetensors.load_file(place / _WEIGHTS)
            self._tokenizer = tokenizers.Tokenizer.from_file(str(place / _TOKENIZER))
        except Exception as error:
            raise ValueError(f"{place} is not a model2vec model: {error}. Download it again.") from error
        rows = _rows(arrays, self._tokenizer.get_vocab_size(with_added_tokens=True), place)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        super().__init__(np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32))
        self._query_rows = rows / (lengths[lengths > 0].mean() if lengths.any() else 1)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        unknown = json.loads(self._tokenizer.to_str())["model"].get("unk_token")
        self._unknown = None if unknown is None else self._tokenizer.token_to_id(unknown)
        self.name = f"model2vec:{place.resolve().name}@{self.codec.arrays['checksum'].tobytes().hex()[:12]}"

    def document_rows(self, texts: list[str]) -> list[list[int]]:
        """Return the rows of the table of each text.

        Parameters
        ----------
        texts : list of str
            The documents.

        Returns
        -------
        list of list of int
            One list for each text, in order.
        """
        return [[row for row in own if row != self._unknown] for own in token_ids(self._tokenizer, texts)]

    def query_matrices(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Return the token vectors of each query, whose lengths are weights.

        Parameters
        ----------
        texts : list of str
            The queries.

        Returns
        -------
        list of float32 (tokens, dimension)
            One matrix for each text, in order.
        """
        rows = [np.array(own[:_QUERY_TOKENS], np.int64) for own in self.document_rows(texts)]
        return [self._query_rows[own] for own in rows]

    def token_spans(self, text: str, side: TextSide) -> list[tuple[int, int]]:
        """Return the characters of each token vector.

        Parameters
        ----------
        text : str
            The document or the query.
        side : {"document", "query"}
            Queries are cut.

        Returns
        -------
        list of (start, stop)
            One for each token vector.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        spans = [span for row, span in pairs if row != self._unknown]
        return spans[:_QUERY_TOKENS] if side == "query" else spans


def _rows(arrays: dict[str, NDArray[Any]], count: int, place: Path) -> NDArray[np.float32]:
    """Return the vector of each token of the tokenizer, weighted as in model2vec."""
    if "embeddings" not in arrays or arrays["embeddings"].ndim != 2:
        raise ValueError(
            f'{place / _WEIGHTS} has no matrix "embeddings", only {", ".join(sorted(arrays)) or "nothing"}. '
            "Give the folder of a model2vec model."
        )
    rows = arrays["embeddings"].astype(np.float32)
    mapping = arrays.get("mapping")
    if mapping is not None:
        rows = rows[mapping.astype(np.int64)]
    if len(rows) < count:
        raise ValueError(
            f"{place} has vectors of {counted(len(rows), 'token')}, but its tokenizer has {count:,}. "
            "Download it again."
        )
    weights = arrays.get("weights")
    return rows if weights is None else rows * weights.astype(np.float32)[:, np.newaxis]
