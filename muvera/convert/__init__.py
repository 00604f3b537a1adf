"""Read token embeddings in many formats, and write them in the common ones.

:func:`read` returns a collection, :func:`convert` writes one, :func:`survey` reports on one, and
:func:`formats` lists the readable formats.
"""

from .isolation import IsolationLimits
from .options import Options
from .pipeline import convert, read, survey
from .pooling import RULES, PoolingRule, pool_tokens
from .registry import formats, open_source
from .report import Measure, Report
from .sources import Source

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
    "read",
    "survey",
]
