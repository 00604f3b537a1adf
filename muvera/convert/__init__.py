"""Existing token embeddings, from wherever they are: one format a file.

:func:`read` returns a collection, :func:`convert` writes one, :func:`survey` reports on one;
:func:`formats` says what can be read.
"""

from .isolation import IsolationLimits
from .pipeline import convert, read, survey
from .registry import formats, open_source
from .report import Measure, Report
from .sources.base import Source
from .transforms.options import Options
from .transforms.ward_pooling import RULES, PoolingRule, pool_tokens
from .transforms.word_pooling import Vocabulary, pool_words

__all__ = [
    "RULES",
    "IsolationLimits",
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
