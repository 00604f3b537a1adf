"""StaticEncoder: token vectors from WordLlama's table, without a neural network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...utils.checks import import_extra, missing_extra
from .base import ModelEncoder, ScoreWeights, TextSide

_PURPOSE = "The static encoder"
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"

# Queries are cut, because a search takes longer in proportion to their tokens.
_QUERY_TOKENS = 512


class StaticEncoder(ModelEncoder):
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
    score_weights = ScoreWeights(words=0.3, mean=0.3)
    # Needs no long fit, which would take most of the time of a build.  Among the
    # candidates of "fde" are more relevant texts, but the ten best are as good.
    first_stage = "mean"

    def __init__(self) -> None:
        folder = _package_folder()
        safetensors = import_extra("safetensors.numpy", "static", _PURPOSE)
        tokenizers = import_extra("tokenizers", "static", _PURPOSE)
        rows = safetensors.load_file(folder / _WEIGHTS)["embedding.weight"].astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        self._rows: dict[TextSide, NDArray[np.float32]] = {
            "document": rows / lengths,
            "query": rows / lengths.mean(),
        }
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / _TOKENIZER))

    def matrices(self, texts: list[str], side: TextSide) -> list[NDArray[np.float32]]:
        """Return the token vectors of each text.

        Parameters
        ----------
        texts : list of str
            The documents or the queries.
        side : {"document", "query"}
            Unit vectors for documents; for queries, vectors whose lengths are weights.

        Returns
        -------
        list of float32 (tokens, 256)
            One array for each text, in order.
        """
        # Without positions in the text, which tokenizers before 0.20 cannot leave out.
        encode = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        encodings = encode(texts, add_special_tokens=False)
        most = _QUERY_TOKENS if side == "query" else None
        return [self._rows[side][np.asarray(encoding.ids[:most], np.int64)] for encoding in encodings]

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


def _package_folder() -> Path:
    """Return the folder of the package wordllama, without importing it.

    The import would load compiled modules and configure logging for the program, and
    only two files of the package are needed.
    """
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise missing_extra("wordllama", "static", _PURPOSE, "it is not installed")
    return Path(spec.origin).parent
