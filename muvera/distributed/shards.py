"""ShardedIndex: indexes of parts of a collection, searched together and merged by exact score."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ..data.multivectors import MultiVectors, as_multivectors
from ..data.ranking import Ranking
from ..index.muvera_index import MuveraIndex
from ..utils.checks import require_choice, require_int

__all__ = ["HTTPShard", "Shard", "ShardError", "ShardedAnswer", "ShardedIndex"]


class ShardError(RuntimeError):
    """A shard did not answer, so that the answer of all would be incomplete; the message names it."""


class Shard(Protocol):
    """Interface of a part of a collection."""

    def search(self, queries: MultiVectors, k: int, *, candidates: int) -> list[Ranking]:
        """Return the `k` best documents of the part for each query, by exact Chamfer similarity."""
        ...


@dataclass(frozen=True)
class ShardedAnswer:
    """Rankings over all shards that answered, and those that did not.

    Parameters
    ----------
    rankings : list of Ranking
        One a query.
    failed : dict of str to str
        Shards that did not answer, and why.
    """

    rankings: list[Ranking]
    failed: dict[str, str]


class ShardedIndex:
    """Shards that are searched at the same time; their exact scores compare, so that the best are the best of all.

    Parameters
    ----------
    shards : dict of str to Shard
        By name: a :class:`muvera.MuveraIndex` in this process, an :class:`HTTPShard`.  An id must be in one
        shard alone.

    Raises
    ------
    ValueError
        For no shards, or indexes in this process whose encoders differ: what they propose would differ in
        kind, though not in score.
    """

    def __init__(self, shards: dict[str, Shard]) -> None:
        if not shards:
            raise ValueError("There are no shards. Give at least one.")
        self._shards = dict(shards)
        hashes = {name: one.config.hash for name, one in shards.items() if isinstance(one, MuveraIndex)}
        if len(set(hashes.values())) > 1:
            first, other = list(dict(zip(hashes.values(), hashes, strict=True)).values())[:2]
            raise ValueError(
                f"The shards {first!r} and {other!r} have encoders of other configurations. Build all with the "
                "encoder of the first: MuveraIndex.build(documents, encoder=encoder)."
            )

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        candidates: int = 100,
        on_failure: Literal["raise", "report"] = "raise",
    ) -> ShardedAnswer:
        """Return the `k` best documents of all shards for each query.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        k : int
        candidates : int
            Documents that each shard ranks exactly.
        on_failure : {"raise", "report"}
            With "report", the shards that did not answer are named beside the rankings of the others.

        Raises
        ------
        ShardError
            Where a shard does not answer, or none does.
        """
        require_int("k", k, 1)
        require_choice("on_failure", on_failure, ("raise", "report"))
        texts = as_multivectors(queries, "queries")

        def ask(shard: Shard) -> list[Ranking] | Exception:
            try:
                return shard.search(texts, k, candidates=max(candidates, k))
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(self._shards)) as pool:
            answers = dict(zip(self._shards, pool.map(ask, self._shards.values()), strict=True))
        wrong = {
            name: answer for name, answer in answers.items() if isinstance(answer, (ValueError, TypeError))
        }
        if wrong:  # of the queries, and no fault of a shard
            raise next(iter(wrong.values()))
        failed = {name: str(answer) for name, answer in answers.items() if isinstance(answer, Exception)}
        if failed and (on_failure == "raise" or len(failed) == len(answers)):
            name, reason = next(iter(failed.items()))
            raise ShardError(
                f"{len(failed)} of {len(answers)} shards did not answer, {name!r} among them: {reason} Search with "
                "on_failure='report' to get the answers of the others."
            )
        rankings = [answer for answer in answers.values() if not isinstance(answer, Exception)]
        merged = [_merged([one[i] for one in rankings], k) for i in range(len(texts))]
        return ShardedAnswer(merged, failed)


class HTTPShard:
    """An index that ``muvera serve`` answers for.

    Parameters
    ----------
    url : str
        Such as ``"http://127.0.0.1:8080"``.
    timeout : float
        Seconds to wait for an answer.
    """

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        self._url, self._timeout = url.rstrip("/"), timeout

    def search(self, queries: MultiVectors, k: int, *, candidates: int) -> list[Ranking]:
        """Return the `k` best documents of the server for each query.

        Raises
        ------
        ShardError
            Where the server does not answer, or refuses.
        """
        body = {"vectors": [np.asarray(one).tolist() for one in queries], "k": k, "candidates": candidates}
        request = urllib.request.Request(
            f"{self._url}/search",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                found = json.load(answer)["results"]
        except urllib.error.HTTPError as error:
            said = error.read()[:300].decode("utf-8", "replace")
            raise ShardError(f"{self._url} answered {error.code}: {said}.") from None
        except (OSError, ValueError, KeyError) as error:
            raise ShardError(f"{self._url} does not answer: {error}.") from None
        return [
            Ranking(
                np.array([hit["id"] for hit in hits]), np.array([hit["score"] for hit in hits], np.float32)
            )
            for hits in found
        ]


def _merged(rankings: Sequence[Ranking], k: int) -> Ranking:
    """Merge rankings by score; equal scores keep the order of the shards."""
    some = [one for one in rankings if len(one)] or list(rankings[:1])
    scores = np.concatenate([one.scores for one in some])
    best = np.argsort(-scores, kind="stable")[:k]
    ids = np.concatenate([one.ids for one in some])
    return Ranking(ids[best], scores[best], all(one.exact for one in some))
