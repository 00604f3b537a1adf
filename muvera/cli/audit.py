"""``muvera audit``: recall and latency of somebody else's multi-vector search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

import muvera

from .options import JsonOption, ThreadsOption, pair
from .printing import progress_bar, show, wrapped


def audit(
    found: Annotated[
        str,
        Argument(
            metavar="URL|RUN",
            help="A collection of token vectors, such as qdrant://localhost:6333#NAME, "
            "qdrant-edge:FOLDER#NAME, lancedb:FOLDER#NAME, milvus:FILE.db#NAME or "
            "postgresql://HOST/DATABASE#NAME; or a run: a file in TREC's format, or JSON with "
            "a list of ids for each query.",
        ),
    ],
    queries: Annotated[Path, Option(help="Query embeddings in any format.")],
    documents: Annotated[
        Path | None,
        Option(
            help="Document embeddings in any format; needed for a run (default: the collection's vectors)."
        ),
    ] = None,
    k: Annotated[int, Option("-k", min=1, help="Number of exact best documents to find.")] = 10,
    setting: Annotated[
        list[Any] | None,
        Option(
            "--setting",
            "-s",
            metavar="NAME=VALUE",
            parser=pair,
            help="Setting of the collection's search, such as hnsw_ef=64, nprobes=20 or sql='SELECT ...'; "
            "can be repeated.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Audit the recall and latency of another multi-vector search.

    The truth is exact Chamfer similarity. If the recall is low, other settings are
    tried, and named if they help. Nothing is changed in the collection.

    \b
    Example:
      muvera audit lancedb:my-lancedb#docs --queries queries.npy
    """
    from ..convert import read
    from .sources import open_documents, open_queries

    with progress_bar(None, "passes", "searching") as advance:
        result = muvera.audit(
            found,
            read(open_queries(queries)),
            None if documents is None else read(open_documents(documents)),
            k=k,
            settings=dict(setting or ()),
            threads=threads,
            progress=advance,
        )
    show(json_, result.to_dict(), wrapped(result.text, later="    "))
