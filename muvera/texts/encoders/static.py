"""StaticEncoder: token vectors from WordLlama's table, without a neural network."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from platform import machine

import numpy as np
from numpy.typing import NDArray

from ...utils.checks import import_extra, missing_extra
from .base import TableEncoder, TextSide, token_ids

_PURPOSE = "The static encoder"
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"

# Words whose rows are kept: about 20 MB.
_KEPT_WORDS = 1 << 16

# Text that the tokenizer reads as a token of its own, without a space before the rest.
_MARKER = re.compile("<unk>|</?s>")

# A run of spaces with the characters after it.
_WORD = re.compile(" +[^ ]*")

# Queries are cut, because a search takes longer in proportion to their tokens.
_QUERY_TOKENS = 512


class StaticEncoder(TableEncoder):
    """A text encoder that looks up each token in a table of 32,000 x 256 floats.

    pip installs the table with the package ``wordllama`` (MIT), so nothing is
    downloaded later.  A token has the same vector in every text.  Document tokens are
    unit vectors.  Query tokens keep the length of the table's row, which is small for
    words that say little, divided by the mean length of all rows.

    Documents are never cut.  Of a query, the first 512 tokens count.

    Raises
    ------
    ImportError
        Without the packages of the extra "static".

    Examples
    --------
    >>> encoder = StaticEncoder()  # doctest: +SKIP
    >>> encoder.token_spans("of red trees", "query")  # doctest: +SKIP
    [(0, 2), (3, 6), (7, 12)]
    """

    name = "static"

    def __init__(self) -> None:
        folder = _package_folder()
        safetensors = import_extra("safetensors.numpy", "static", _PURPOSE)
        tokenizers = import_extra("tokenizers", "static", _PURPOSE)
        rows = safetensors.load_file(folder / _WEIGHTS)["embedding.weight"].astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        super().__init__(rows / lengths)
        self._query_rows = rows / lengths.mean()
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / _TOKENIZER))
        # The rows of words, which are the same in every text.
        self._space = [self._tokenizer.token_to_id("\u2581")]
        self._words: dict[str, list[int]] = {"": self._space}

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
        # The tokenizer reads a text as one word, which takes longer.  No token contains
        # a space after another character.
        split = [_words_of(text) for text in texts]
        words = self._words
        unknown = list(set(chain.from_iterable(split)).difference(words))
        words.update(zip(unknown, token_ids(self._tokenizer, unknown), strict=True))
        rows = [list(chain.from_iterable(map(words.__getitem__, own))) for own in split]
        if len(words) > _KEPT_WORDS:
            self._words = {"": self._space}
        return rows

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
        """Return the characters of each token vector, without space around them.

        Parameters
        ----------
        text : str
            The document or the query.
        side : {"document", "query"}
            Queries are cut.

        Returns
        -------
        list of (start, stop)
            One for each token vector; tokens of spaces have start == stop.
        """
        # Tokenizers refuse lone surrogates, which `_encode` names.
        text = text.encode("utf-8", "replace").decode()
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = encoding.offsets[:_QUERY_TOKENS] if side == "query" else encoding.offsets
        return [(stop - len(text[start:stop].lstrip()), stop) for start, stop in offsets]


def _words_of(text: str) -> list[str]:
    """Split a text before each run of spaces, and leave out the first of them.

    The tokenizer puts a space before each word.
    """
    if not text or _MARKER.search(text):
        return [text] if text else []
    if "  " in text or text[0] == " ":
        return [word[1:] for word in _WORD.findall(f" {text}")]
    return text.split(" ")


def _package_folder() -> Path:
    """Return the folder of the package wordllama, without importing it.

    The import would load compiled modules and configure logging for the program, and
    only two files of the package are needed.
    """
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        error = missing_extra("wordllama", "static", _PURPOSE, "it is not installed")
        if sys.version_info < (3, 14) and (sys.platform, machine()) != ("linux", "aarch64"):
            raise error
        raise ImportError(
            f"{_PURPOSE} needs wordllama, which has no wheels for Python 3.14 and for Linux on arm64. Give "
            'the encoder "model2vec:FOLDER" instead, with a model of model2vec, or install wordllama with a '
            "C compiler."
        )
    return Path(spec.origin).parent
