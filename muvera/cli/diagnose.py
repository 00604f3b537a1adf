"""``muvera diagnose``: measure token embeddings."""

from __future__ import annotations

import muvera

from .options import (
    FormatOption,
    JsonOption,
    QueriesOption,
    ReaderOptions,
    SampleOption,
    SourceArgument,
    ThreadsOption,
)
from .printing import progress_bar, show, wrapped


def diagnose(
    source: SourceArgument,
    queries: QueriesOption = None,
    format: FormatOption = None,
    option: ReaderOptions = None,
    sample: SampleOption = 1000,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure token embeddings, and recommend an encoder.

    \b
    Example:
      muvera diagnose docs --queries docs
    """
    from ..diagnostics.diagnose import DIAGNOSIS_STEPS
    from .sources import read_documents_and_queries

    documents, query_vectors = read_documents_and_queries(source, queries, format, option)
    with progress_bar(DIAGNOSIS_STEPS, "steps", "measuring") as advance:
        diagnosis = muvera.diagnose(
            documents, query_vectors, sample=sample, threads=threads, progress=advance
        )
    show(json_, {"source": str(source), **diagnosis.to_dict()}, wrapped(diagnosis.text))
