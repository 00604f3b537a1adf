"""Scores of texts as their formula says, in plain Python and float64.

Nothing of `muvera` is imported.  Words are runs of ASCII letters and digits.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import oracle
from py_rust_stemmers import SnowballStemmer

_STEM = SnowballStemmer("english").stem_word


def terms_of(text: str) -> list[str]:
    return [_STEM(word) for word in re.findall("[a-z0-9]+", text.lower())]


def bm25(query: Sequence[str], texts: Mapping[object, str]) -> dict[object, float]:
    """BM25 scores of all texts; a repeated term of the query counts repeatedly."""
    terms = {id: terms_of(text) for id, text in texts.items()}
    mean = sum(map(len, terms.values())) / max(1, len(terms)) or 1
    scores = dict.fromkeys(terms, 0.0)
    for term in query:
        count = sum(term in own for own in terms.values())
        idf = math.log(1 + (len(terms) - count + 0.5) / (count + 0.5))
        for id, own in terms.items():
            frequency = own.count(term)
            scores[id] += idf * frequency / (frequency + 1.2 * (0.25 + 0.75 * len(own) / mean))
    return scores


def parts_of_scores(
    query: np.ndarray,
    terms: Sequence[str],
    texts: Mapping[object, str],
    passages: Mapping[object, Sequence[np.ndarray]],
    means: Mapping[object, np.ndarray],
    words: float,
    mean: float,
) -> dict[object, dict[str, float]]:
    """The parts of the score of each text with tokens.

    `query` has its tokens, `terms` its terms, `passages` the passages of texts, and
    `means` their mean tokens.
    """
    shares = bm25(terms, texts)
    most = max(shares.values(), default=0) or 1
    unit = oracle.chamfer(query, query) / (1 - words - mean)
    whole = np.asarray(query, np.float64).sum(axis=0)
    lengths = {id: float(np.linalg.norm(whole) * np.linalg.norm(one)) for id, one in means.items()}
    return {
        id: {
            "maxsim": max(oracle.chamfer(query, one) for one in own),
            "words": words * unit * shares[id] / most,
            "mean": mean * unit * (float(whole @ means[id]) / lengths[id] if lengths[id] else 0.0),
        }
        for id, own in passages.items()
        if len(own[0])
    }
