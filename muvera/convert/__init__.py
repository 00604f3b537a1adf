"""Existing token embeddings, from wherever they are: one format a file.

:func:`read` returns a collection, :func:`convert` writes one, :func:`survey` reports on one;
:func:`formats` says what can be read.
"""

from .convert import convert, read, survey
from .options import Options
from .pooling import RULES, PoolingRule, pool_tokens
from .registry import formats, open_source
from .report import Measure, Report
from .source import Source
from .words import Vocabulary, pool_words

__all__ = [
    "RULES",
    "Measure",
    "Options",
    "PoolingRule",
    "Report",
    "Source",
    "Vocabulary",
    "convert",
    "formats",
    "open_source",
    "pool_tokens",
    "pool_words",
    "read",
    "survey",
]
