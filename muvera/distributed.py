"""Encoding in data-frame engines, and indexes in shards."""

from __future__ import annotations

import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from typing import Any, Literal, NamedTuple
from urllib.error import HTTPError

import numpy as np

from .data.multivectors import MultiVectors, as_multivectors
from .data.ranking import Ranking, best_first
from .data.validation import as_ids
from .fde.encoder import FDEEncoder
from .fde.files import load_encoder
from .index.settings import num_candidates
from .utils.checks import import_extra, require_choice

# Column of token vectors: lists of fixed-size lists of floats, as MultiVectors.to_arrow
# returns them.
_TOKENS = "tokens"

# Column of the first-stage vectors.
_VECTOR = "vector"


class EncodeDocuments:
    """Add the column "vector" to Arrow tables with the column "tokens".

    The vectors are fixed-size lists of float32.  Each worker creates one instance,
    which reads the encoder once, and calls it with its tables.  It uses one thread.
    However the rows are split into tables, the vectors are bitwise equal to the vectors
    that one process makes.

    Parameters
    ----------
    encoder : path or FDEEncoder
        A fitted encoder, or the folder of one.  A folder that every worker can read
        saves sending the encoder to every worker (about 60 MB).

    Raises
    ------
    FileNotFoundError, ValueError
        For a folder without an encoder, or an encoder that is not fitted.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from muvera import FDEConfig, FDEEncoder
    >>> texts = MultiVectors.from_arrays([np.eye(2, 4), np.ones((1, 4))])
    >>> encoder = FDEEncoder(FDEConfig(dimension=4)).fit(texts)
    >>> table = pa.table({"id": [1, 2], "tokens": texts.to_arrow()})
    >>> EncodeDocuments(encoder)(table).column_names
    ['id', 'tokens', 'vector']
    """

    def __init__(self, encoder: str | os.PathLike[str] | FDEEncoder) -> None:
        self._encoder = load_encoder(encoder) if isinstance(encoder, (str, os.PathLike)) else encoder
        if self._encoder.needs_fit:
            raise ValueError("The encoder is not fitted. Call its fit before encoding.")

    def __call__(self, table: Any) -> Any:
        """Return a table with the column of vectors.

        Parameters
        ----------
        table : pyarrow.Table
            With "tokens", lists of fixed-size lists of floats.

        Returns
        -------
        pyarrow.Table
            All columns, and "vector".

        Raises
        ------
        TypeError, ValueError
            For a missing column "tokens", a column "vector", or tokens of another
            dimension.
        """
        pa = import_extra("pyarrow", "parquet", "Encoding tables")
        if _TOKENS not in table.column_names:
            raise ValueError(
                f"The table must have a column {_TOKENS!r}, got {', '.join(table.column_names)}. Rename "
                "the column."
            )
        if _VECTOR in table.column_names:
            raise ValueError(f"The table has a column {_VECTOR!r} already. Rename it.")
        config = self._encoder.config
        vectors = np.empty((0, config.vector_dimension), np.float32)
        if len(table):
            texts = MultiVectors.from_arrow(table[_TOKENS])
            texts.require_dimension(config.dimension, _TOKENS, "the encoder")
            vectors = self._encoder.encode_documents(texts, threads=1)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), config.vector_dimension)
        return table.append_column(_VECTOR, lists)


class ShardError(RuntimeError):
    """A shard did not answer, so the answer would be incomplete.

    The message names the shard.
    """


class ShardedAnswer(NamedTuple):
    """The answer of a :class:`ShardedIndex`.

    Parameters
    ----------
    rankings : list of Ranking
        One per query, over the shards that answered.
    failed : dict of str to str
        For each shard that did not answer, by name, the reason.
    """

    rankings: list[Ranking]
    failed: dict[str, str]


class ShardedIndex:
    """Shards that are searched in parallel.

    Exact scores are comparable, so the merged ranking is exact.

    Parameters
    ----------
    shards : dict of str to MuveraIndex or HTTPShard
        By name: indexes in this process or behind servers, or other objects with the
        method ``HTTPShard.search``.  An id must be in only one shard.

    Raises
    ------
    ValueError
        For no shards.
    """

    def __init__(self, shards: dict[str, Any]) -> None:
        if not shards:
            raise ValueError("There are no shards. Give at least one.")
        self._shards = dict(shards)

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        candidates: int | None = None,
        on_failure: Literal["raise", "report"] = "raise",
    ) -> ShardedAnswer:
        """Return the `k` best documents of all shards for each query.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            The token vectors of each query; one array is one query.
        k : int
            Maximum number of documents for each query.
        candidates : int, optional
            Documents that each shard ranks exactly.  More raise recall and take longer,
            in proportion.  Default: 100, or `k` if that is more.
        on_failure : {"raise", "report"}
            With "report", return the rankings of the other shards and name the shards
            that failed.

        Returns
        -------
        ShardedAnswer

        Raises
        ------
        ShardError
            If a shard does not answer, or with "report" if none does; also if some
            shards have integers as ids and others strings.
        TypeError, ValueError
            For wrong queries or a wrong setting.
        """
        require_choice("on_failure", on_failure, ("raise", "report"))
        texts = as_multivectors(queries, "queries")
        count = max(k, num_candidates(k, candidates))
        with ThreadPoolExecutor(len(self._shards)) as pool:
            answers = {
                name: pool.submit(shard.search, texts, k, candidates=count)
                for name, shard in self._shards.items()
            }
        rankings = []
        failed = {}
        for name, answer in answers.items():
            error = answer.exception()
            if isinstance(error, (ValueError, TypeError)):  # wrong queries, not a fault of the shard
                raise error
            if error is None:
                rankings.append(answer.result())
            else:
                failed[name] = str(error)
        if failed and (on_failure == "raise" or not rankings):
            name, reason = next(iter(failed.items()))
            raise ShardError(
                f"{len(failed)} of {len(answers)} shards did not answer, such as {name!r}: {reason} Use "
                "on_failure='report' to get the answers of the others."
            )
        kinds = {ranking.ids.dtype.kind == "i" for found in rankings for ranking in found if len(ranking)}
        if len(kinds) > 1:
            raise ShardError(
                "The ids of all shards must be integers, or all strings, but these shards have both. Give "
                "the documents of all shards ids of one kind."
            )
        merged = [_merged(of_one_query, k) for of_one_query in zip(*rankings, strict=True)]
        return ShardedAnswer(merged, failed)


class HTTPShard:
    """An index behind ``muvera serve``.

    Parameters
    ----------
    url : str
        Such as ``"http://127.0.0.1:8080"``.
    timeout : float
        Seconds to wait for an answer.
    """

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout

    def search(self, queries: MultiVectors, k: int, *, candidates: int) -> list[Ranking]:
        """Return the best documents of the server for each query.

        Parameters
        ----------
        queries : MultiVectors
            The token vectors of each query, which are sent as JSON.
        k : int
            Maximum number of documents for each query.
        candidates : int
            Documents that the server ranks exactly.  More raise recall and take longer,
            in proportion.

        Returns
        -------
        list of Ranking
            One per query, best document first.

        Raises
        ------
        ShardError
            If the server does not answer, refuses, or answers anything but rankings.
        """
        vectors = [np.asarray(query).tolist() for query in queries]
        body = {"vectors": vectors, "k": k, "candidates": candidates}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._url}/search", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                answer = json.load(response)
        except (OSError, ValueError, HTTPException, RecursionError) as error:
            detail = ""
            if isinstance(error, HTTPError):
                with error, suppress(OSError, HTTPException):
                    detail = error.read(300).decode("utf-8", "replace")
            reason = " ".join(f"{error!r}. {detail}".split())
            raise ShardError(f"{self._url} does not answer the search: {reason}") from None
        try:
            results = answer["results"]
            if len(results) != len(queries):
                raise ValueError(f"{len(results)} rankings for {len(queries)} queries")
            return [_ranking(hits, k) for hits in results]
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ShardError(
                f"{self._url} must answer a search with rankings of ids and scores, but it gave something "
                f"else ({error}). Give the URL of muvera serve."
            ) from None


def _ranking(hits: list[dict[str, Any]], k: int) -> Ranking:
    """Return the ranking of a server's hits; raise an error for anything else."""
    if len(hits) > k:
        raise ValueError(f"{len(hits)} hits of at most {k}")
    ids = as_ids([hit["id"] for hit in hits], len(hits))
    values = [hit["score"] for hit in hits]
    with np.errstate(over="ignore"):
        scores = np.array(values, np.float32)
    if not all(type(value) in (int, float) for value in values) or not np.isfinite(scores).all():
        raise ValueError("a score that is not a finite number")
    return Ranking(ids, scores)


def _merged(rankings: tuple[Ranking, ...], k: int) -> Ranking:
    """Merge rankings by score; equal scores keep the order of the shards."""
    filled = [ranking for ranking in rankings if len(ranking)] or [rankings[0]]
    scores = np.concatenate([ranking.scores for ranking in filled])
    best = best_first(scores, k)
    ids = np.concatenate([ranking.ids for ranking in filled])
    return Ranking(ids[best], scores[best], all(ranking.exact for ranking in filled))
