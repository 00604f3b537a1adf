"""tune: compare encoders on a sample.

Held-out queries estimate the recall of the choice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectorsLike
from ..diagnostics.diagnose import K, bullets, draw_sample
from ..fde.config import FDEConfig
from ..fde.steps import SimHash
from ..index.candidates import auto_kind
from ..index.settings import EXACT_TOKENS
from ..mips import make_search
from ..utils.atomic_files import write_json
from ..utils.checks import require_int
from ..utils.hints import Argument, Message
from ..utils.intervals import share_interval

#: Smallest number of documents with tokens.
MIN_DOCUMENTS = 50

#: Smallest number of given queries with tokens: a third of them is held out.
MIN_QUERIES = 30

# Largest number of queries that are used.
_MOST_QUERIES = 300

# Default number of candidates, at most a quarter of the sample.
_CANDIDATES = 100

# (num_repetitions, num_simhash_projections, projection_dimension) of FDEs with sketches
# of 640 to 20,480 floats.
_FDE_SHAPES = ((20, 2, 8), (20, 3, 8), (40, 3, 8), (40, 3, 16), (40, 4, 16), (40, 5, 16))


@dataclass(frozen=True)
class TunedRow:
    """A measured encoder.

    Parameters
    ----------
    name : str
        Name in the table, such as "fde 1,024".
    config : FDEConfig
        The configuration of the encoder.
    bytes : int
        Bytes of a document's vector in the index.
    recall : float
        Share of the exact ten best among the candidates, of the selection queries.
    mean_recall : float
        Mean of `recall` and of the recall among half as many candidates; rows are
        compared by it.
    held_out : float
        Recall of the held-out queries.
    interval : tuple of float
        95% confidence interval of `held_out`.
    """

    name: str
    config: FDEConfig
    bytes: int
    recall: float
    mean_recall: float
    held_out: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {**vars(self), "config": self.config.to_dict(), "floats": self.config.vector_dimension}


@dataclass(frozen=True)
class Tuning:
    """Result of :func:`muvera.tune`.

    Parameters
    ----------
    documents, sampled_documents : int
        Numbers of documents with tokens, and of measured documents.
    queries, held_out_queries : int
        Number of selection queries, and of held-out queries.
    pseudo_queries : bool
        True if both are windows of documents, because no queries were given.
    candidates : int
        Documents that a search will rank exactly.
    target_recall : float or None
        Recall that the choice should reach.
    rows : tuple of TunedRow
        All measured encoders, by bytes.
    exact_search : bool
        True if the collection is so small that an index reads all tokens and needs no
        vectors.
    """

    documents: int
    sampled_documents: int
    queries: int
    held_out_queries: int
    pseudo_queries: bool
    candidates: int
    target_recall: float | None
    rows: tuple[TunedRow, ...]
    exact_search: bool

    @property
    def choice(self) -> TunedRow:
        """The smallest row that reaches the target, or else the best row.

        Rows are compared by `mean_recall`, then by bytes and dimension.
        """
        target = self.target_recall
        good = [row for row in self.rows if target is not None and row.recall >= target]
        least = min((row.bytes for row in good), default=0)
        return max(
            [row for row in good if row.bytes == least] or self.rows,
            key=lambda row: (row.mean_recall, -row.bytes, -row.config.vector_dimension),
        )

    @property
    def config(self) -> FDEConfig:
        """Configuration of the encoder to use."""
        return self.choice.config

    def within(self, max_bytes: int) -> TunedRow:
        """Return the row with the highest `mean_recall` within a number of bytes.

        Parameters
        ----------
        max_bytes : int
            Limit of a document's vector.  A lower limit takes less memory and finds
            less.

        Returns
        -------
        TunedRow

        Raises
        ------
        ValueError
            If no row is within the limit.
        """
        rows = tuple(row for row in self.rows if row.bytes <= max_bytes)
        if not rows:
            least = f" must be at least {self.rows[0].bytes}, got {max_bytes}."
            raise ValueError(Message(Argument("max_bytes"), least))
        return replace(self, rows=rows, target_recall=None).choice

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration as a JSON file for ``muvera index --config``.

        Parameters
        ----------
        path : path
            File to write; an existing one is replaced.
        """
        write_json(Path(path), self.config.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON, with the text.

        Returns
        -------
        dict
        """
        rows = [row.to_dict() for row in self.rows]
        return {**vars(self), "choice": self.choice.to_dict(), "rows": rows, "text": self.text}

    @property
    def text(self) -> str:
        """The table and the choice as text, several lines."""
        source = "windows of documents" if self.pseudo_queries else "given"
        lines = [
            f"documents   {self.documents:,}, {self.sampled_documents:,} of them measured",
            f"queries     {self.queries + self.held_out_queries:,}, {source}: {self.queries:,} for "
            f"selection, {self.held_out_queries:,} held out",
            f"recall      share of the exact ten best among {self.candidates} candidates (held-out queries)",
        ]
        return "\n".join([*lines, "", *self._table(), "", *bullets(self._advice(), self.pseudo_queries)])

    def _table(self) -> Iterator[str]:
        wide = max(len(row.name) for row in self.rows)
        yield f"  {'':{wide}}   floats    bytes  recall (95 %)"
        for row in self.rows:
            low, high = row.interval
            yield (
                f"{'*' if row == self.choice else ' '} {row.name:<{wide}}  "
                f"{row.config.vector_dimension:>7,}  "
                f"{row.bytes:>7,}  {row.held_out:.3f} ({low:.3f}-{high:.3f})"
            )

    def _advice(self) -> Iterator[str]:
        """Yield the choice, the target, and the limits of the measurement."""
        row = self.choice
        target = self.target_recall
        low, high = row.interval
        yield (
            f"Use {row.name}, {row.bytes:,} bytes per document: held-out queries estimate its recall among "
            f"{self.candidates} candidates as {row.held_out:.1%} ({low:.1%} to {high:.1%})."
        )
        if target is not None and row.recall < target:
            yield f"No encoder reaches {target:.1%}. Rank more candidates."
        elif target is not None:
            yield f"It is the smallest encoder that reaches {target:.1%} on the selection queries."
        if self.documents > self.sampled_documents:
            yield (
                f"With the same number of candidates, recall is lower among all {self.documents:,} "
                "documents. Rank more candidates."
            )
        if self.exact_search:
            yield (
                "The collection is so small that an index reads all tokens and is exact. It uses the encoder "
                "once the collection has grown, or with exact_tokens=0."
            )


def tune(
    documents: MultiVectorsLike,
    queries: MultiVectorsLike | None = None,
    *,
    target_recall: float | None = None,
    max_bytes: int | None = None,
    candidates: int | None = None,
    sample: int = 1500,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Tuning:
    """Find the encoder that suits documents and their queries.

    FDEs of all presets and many sizes are compared with exact Chamfer on a sample.  Two
    thirds of the queries are used to choose an encoder; the other third estimates its
    recall.  Encoders are fitted to documents only.

    Parameters
    ----------
    documents : MultiVectors or a list of arrays (tokens, dimension)
        At least 50 with tokens.
    queries : MultiVectors or a list of arrays, optional
        Queries of the same model; at most 300 are used, fewer if tokens are many or
        wide.  Default: windows of the documents' tokens.
    target_recall : float, optional
        Select the smallest vectors for which this share of the exact ten best is among
        the candidates. Default: select the highest mean of recall among the candidates
        and among half as many.
    max_bytes : int, optional
        Limit of a document's vector in bytes.
    candidates : int, optional
        Documents that a search ranks exactly.  Default: 100, at most a quarter of the
        sample.
    sample : int
        Documents to measure; time grows in proportion.  With the same number of
        candidates, recall is lower in a larger collection.
    seed : int
        Seed of the random draws.  The choice depends only on the seed and the data.
    threads : int, optional
        Default: all usable cores.
    progress : callable, optional
        Called with 1 after the exact scores and after each encoder.

    Returns
    -------
    Tuning
        ``config`` for :meth:`MuveraIndex.build`, ``save`` for ``muvera index
        --config``, ``rows`` and ``text``.

    Raises
    ------
    TypeError
        If a number is not an int.
    ValueError
        If fewer than 50 documents or 30 queries have tokens, a value is out of range,
        or no encoder is within the limit.

    Examples
    --------
    >>> tuning = tune(documents, queries, max_bytes=1024)  # doctest: +SKIP
    >>> index = MuveraIndex.build(documents, tuning.config)  # doctest: +SKIP
    """
    if target_recall is not None and not 0 < target_recall <= 1:
        bounds = f" must be above 0 and at most 1, got {target_recall}."
        raise ValueError(Message(Argument("target_recall"), bounds))
    if max_bytes is not None:
        require_int("max_bytes", max_bytes, 1)
    if candidates is not None:
        require_int("candidates", candidates, K)
    require_int("sample", sample, MIN_DOCUMENTS)
    drawn = draw_sample(
        documents, queries, size=sample, least=(MIN_DOCUMENTS, MIN_QUERIES), most_queries=_MOST_QUERIES,
        min_fitting=0, seed=seed, threads=threads,
    )  # fmt: skip
    size = len(drawn.documents)
    candidates = _num_candidates(candidates, size)
    allowed = _within(encoder_configs(drawn.documents.dimension), drawn.population, max_bytes)
    advance = progress or (lambda _: None)
    order = np.random.default_rng([seed, 1]).permutation(len(drawn.scores))
    advance(1)
    held_out, selection = np.split(order, [round(len(order) / 3)])
    rows = []
    for name, (config, size_in_bytes) in allowed.items():
        ranks = drawn.ranks(config)
        recall = _mean_share(ranks[selection], candidates)
        # If all encoders have a recall of nearly 1 among the candidates, half as many
        # still separate them.
        half = _mean_share(ranks[selection], max(K, candidates // 2))
        shares = (ranks[held_out] < candidates).mean(axis=1)
        held = float(shares.mean())
        interval = share_interval(shares)
        rows.append(TunedRow(name, config, size_in_bytes, recall, (recall + half) / 2, held, interval))
        advance(1)
    rows.sort(key=lambda row: (row.bytes, row.config.vector_dimension))
    return Tuning(
        documents=drawn.population,
        sampled_documents=size,
        queries=len(selection),
        held_out_queries=len(held_out),
        pseudo_queries=queries is None,
        candidates=candidates,
        target_recall=target_recall,
        rows=tuple(rows),
        exact_search=drawn.collection.num_tokens <= EXACT_TOKENS,
    )


def _num_candidates(candidates: int | None, size: int) -> int:
    """Return the number of candidates among `size` documents, at most half of them."""
    number = min(_CANDIDATES, size // 4) if candidates is None else int(candidates)
    if number > size // 2:
        raise ValueError(
            Message(
                Argument("candidates"),
                f" must be at most half of the {size} sampled documents, got {number}: with more, "
                "every encoder finds nearly everything. Sample more documents.",
            )
        )
    return number


def encoder_configs(dimension: int) -> dict[str, FDEConfig]:
    """Return the configurations to measure, by names such as "mean 129".

    `dimension` is the number of columns of a token.
    """
    sized = [("mean", FDEConfig.preset("mean", dimension))]
    for preset, sizes in (("moments", (128, 256, 512)), ("fde", (128, 256, 512, 1024, 2048))):
        for size in sizes:
            config = FDEConfig.preset(preset, dimension, final_projection_dimension=size)
            sized.append((preset, config))
    configs = {f"{kind} {config.vector_dimension:,}": config for kind, config in sized}
    for repetitions, planes, columns in _FDE_SHAPES:
        width = min(columns, dimension)
        configs[f"simhash R={repetitions} k={planes} p={width}"] = FDEConfig.preset(
            "simhash", dimension, num_repetitions=repetitions, num_simhash_projections=planes,
            projection_dimension=width,
        )  # fmt: skip
    planes = SimHash().num_simhash_projections
    repetitions = max(1, 10_240 // (dimension << planes))
    identity = FDEConfig.preset("simhash", dimension, num_repetitions=repetitions, projection="identity")
    configs[f"simhash R={repetitions} k={planes} identity"] = identity
    return configs


def _within(
    configs: dict[str, FDEConfig], documents: int, max_bytes: int | None
) -> dict[str, tuple[FDEConfig, int]]:
    """Return the configurations within `max_bytes`, with the bytes of their vectors.

    The index has this number of `documents`.
    """
    sizes = {}
    for name, config in configs.items():
        dimension = config.vector_dimension
        search = make_search(auto_kind(documents, dimension), dimension)
        sizes[name] = int(search.info()["bytes_per_vector"])
    if max_bytes is not None and max_bytes < min(sizes.values()):
        least, limited = min(sizes.values()), Argument("max_bytes", f"{max_bytes}")
        raise ValueError(Message("No encoder is within ", limited, f": the smallest has {least} bytes."))
    return {
        name: (configs[name], size) for name, size in sizes.items() if max_bytes is None or size <= max_bytes
    }


def _mean_share(ranks: NDArray[np.int64], candidates: int) -> float:
    """Return the mean share of the exact best that are among so many candidates."""
    return float((ranks < candidates).mean())
