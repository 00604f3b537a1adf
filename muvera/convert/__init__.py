"""Read token embeddings in many formats, and write them in the common ones.

:func:`read` returns a collection, :func:`convert` writes one, :func:`survey` reports on
one, and :func:`formats` lists the readable formats.
"""

from .pipeline import Measure, Report, convert, read, survey
from .registry import IsolationLimits, formats, open_source
from .sources import Source
from .transforms import RULES, Options, PoolingRule, pool_tokens
from .words import pool_words, word_numbers

__all__ = [
    "RULES",
    "IsolationLimits",
    "Measure",
    "Options",
    "PoolingRule",
    "Report",
    "Source",
    "convert",
    "formats",
    "open_source",
    "pool_tokens",
    "pool_words",
    "read",
    "survey",
    "word_numbers",
]
