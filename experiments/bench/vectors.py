"""The default vectors: fit of moments, presets, wide tokens, choice by recall, and added documents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import MultiVectors, MuveraIndex
from muvera.data.batches import pseudo_queries
from muvera.fde.encoder import FDEEncoder
from muvera.fde.config import FDEConfig
from muvera.fde.encoder import FDEEncoder

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..evaluation.metrics import recall
from ..report.table import Table
from .plumbing import Cache, Data, Save, exact_best, finish, load_collections, measured_on, progress

# Exact best documents, depths of recall, queries, and candidates and queries after another collection was added.
_BEST, _DEPTHS, _QUERIES, _MIXED_CANDIDATES, _MIXED_QUERIES = 10, (10, 20, 30, 50, 100, 200), 150, 50, 100

# Depths of recall with more floats.
_MORE_DEPTHS = (20, 30, 50, 100, 160, 200, 320)

_CAPTION = f"10-recall of {_QUERIES} queries by number of candidates."


def _plain(texts: MultiVectors, rows: Any = None) -> MultiVectors:
    """Return the texts at `rows` that have tokens, without ids."""
    rows = np.arange(len(texts)) if rows is None else rows
    some = texts[rows[texts.lengths[rows] > 0]]
    return MultiVectors(some.tokens, some.offsets)


def _inputs(collection: Collection) -> tuple[MultiVectors, MultiVectors, NDArray[np.int64]]:
    """Return the documents, some queries and the exact best documents of these."""
    documents, queries = _plain(collection.documents), _plain(collection.queries[:_QUERIES])
    return documents, queries, exact_best(queries, documents, _BEST)


def _ranked(encoder: FDEEncoder, queries: MultiVectors, documents: MultiVectors) -> NDArray[np.int64]:
    scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    return np.argsort(-scores, axis=1, kind="stable")


def _recalls(
    ranked: NDArray[np.int64], best: NDArray[np.int64], depths: Sequence[int] = _DEPTHS
) -> list[str]:
    return [f"{recall(ranked[:, :depth], best).mean():.3f}" for depth in depths]


def _depths(depths: Sequence[int] = _DEPTHS) -> list[str]:
    return [f"@{depth}" for depth in depths]


def fit_table(collections: list[Collection]) -> Table:
    """Measure the time to fit moments and to encode a query, on one thread."""
    rows = []
    for collection in collections:
        documents, queries, best = _inputs(collection)
        config, times = FDEConfig.preset("moments", documents.dimension), []
        FDEEncoder(config).fit(documents[:280], threads=1)  # compiles
        with threadpool_limits(1):
            begun = time.perf_counter()
            encoder = FDEEncoder(config).fit(documents, threads=1)
            seconds = time.perf_counter() - begun
            for i in np.tile(np.arange(len(queries)), 5):
                begun = time.perf_counter()
                encoder.encode_queries(queries[i : i + 1], threads=1)
                times.append(time.perf_counter() - begun)
        cells = [f"{len(documents):,}", f"{seconds:.1f}", f"{1e6 * np.median(times):.0f}"]
        rows.append([collection.name, *cells, *_recalls(_ranked(encoder, queries, documents), best)])
        progress(str(rows[-1]))
    caption = f"Time to fit `moments` and to encode one query, on one thread. {_CAPTION}"
    return Table(
        "Fit of moments", ["collection", "documents", "fit, s", "query, us", *_depths()], rows, caption
    )


#: Presets and changed parameters: those without fitted features, and more floats than the default.
PLAIN: list[tuple[str, dict[str, int]]] = [("mean", {}), ("fde", {}), ("moments", {})]
MORE_FLOATS = [
    *(("moments", {"compact_dimension": size}) for size in (256, 512, 1024)),
    *(("learned", {"vector_dimension": size}) for size in (256, 512, 2048)),
]


def encoders_table(
    title: str,
    collections: list[Collection],
    encoders: Sequence[tuple[str, dict[str, int]]],
    depths: Sequence[int] = _DEPTHS,
) -> Table:
    """Compare encoders: presets with changed parameters."""
    rows = []
    for collection in collections:
        documents, queries, best = _inputs(collection)
        for name, changes in encoders:
            config = FDEConfig.preset(name, documents.dimension, **changes)
            ranked = _ranked(FDEEncoder(config).fit(documents), queries, documents)
            sizes = [f"{documents.dimension:,}", name, f"{config.vector_dimension:,}"]
            rows.append([collection.name, *sizes, *_recalls(ranked, best, depths)])
            progress(str(rows[-1]))
    return Table(title, ["collection", "columns", "encoder", "floats", *_depths(depths)], rows, _CAPTION)


def wide_table(collection: Collection, widths: list[int]) -> Table:
    """Rotate tokens into more columns, add noise, and measure `moments` of each width."""
    documents, queries, best = _inputs(collection)
    rows = []
    for width in [documents.dimension, *widths]:
        turned = [_widened(texts, width) for texts in (documents, queries)]
        own = best if width == documents.dimension else exact_best(turned[1], turned[0], _BEST)
        encoder = FDEEncoder(FDEConfig.preset("moments", width)).fit(turned[0])
        ranked = _ranked(encoder, turned[1], turned[0])
        rows.append([f"{width:,}", *_recalls(ranked, own)])
        progress(f"{width} columns: {rows[-1]}")
    caption = (
        f"The tokens of {collection.name}, rotated into more columns, plus normal noise of a tenth of their length, in "
        "float16. 10-recall by number of candidates, each against its own exact ranking."
    )
    return Table("Wide tokens", ["columns", *_depths()], rows, caption)


def _widened(texts: MultiVectors, width: int) -> MultiVectors:
    """Return the tokens, rotated into `width` columns, with noise."""
    if width == texts.dimension:
        return texts
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((width, texts.dimension)))[0]
    rng = np.random.default_rng(texts.num_tokens)
    tokens = np.empty((texts.num_tokens, width), np.float16)
    for start in range(0, len(tokens), 4096):
        some = texts.tokens[start : start + 4096].astype(np.float32) @ turn.T.astype(np.float32)
        some += rng.standard_normal(some.shape, np.float32) * np.float32(0.1 / np.sqrt(width))
        tokens[start : start + 4096] = some / np.linalg.norm(some, axis=1, keepdims=True)
    return MultiVectors(tokens, texts.offsets)


def choice_table(collections: list[Collection]) -> Table:
    """Compare the default index of each collection with an index of moments."""
    rows = []
    for collection in collections:
        documents = _plain(collection.documents)
        queries, sources = _plain(collection.queries[:_QUERIES]), None
        if len(queries) == 0:
            queries, sources = pseudo_queries(documents, _QUERIES, 32, np.random.default_rng(5))
        best = exact_best(queries, documents, _BEST + 1)
        cells = []
        for encoder in ("moments", None):
            index = MuveraIndex.build(documents, encoder, exact_tokens=0)
            assert index.encoder is not None
            ranked = _ranked(index.encoder, queries, documents)
            found = []
            for query, (wanted, proposed) in enumerate(zip(best, ranked, strict=True)):
                own = -1 if sources is None else sources[query]
                found.append(np.isin(wanted[wanted != own][:_BEST], proposed[proposed != own][:50]).mean())
            cells.append(f"{np.mean(found):.3f}")
        compared = index.info().encoder["compared"]
        shown = ", ".join(f"{name} {value:.3f}" for name, value in compared.items())
        rows.append([collection.name, shown, index.config.kind, *cells])
        progress(str(rows[-1]))
    header = ["collection", "compared", "chosen", "moments @50", "chosen @50"]
    caption = (
        "Compared: recall with 100 candidates, with windows of documents as queries. If two encoders are listed, "
        "neither was fitted on these documents. The last two columns are 10-recall@50 of queries, with "
        '`encoder="moments"` and with the chosen encoder. Collections '
        "without queries use windows of 32 tokens, whose own document does not count."
    )
    return Table("Choice of the default", header, rows, caption)


def added_table(pairs: list[tuple[Collection, Collection]], count: int = 200) -> Table:
    """Add documents of the same collection, or `count` of it and `count` of another collection; then rebuild."""
    rows = []
    for first, second in pairs:
        rng = np.random.default_rng(1)
        own, other = (_plain(one.documents, rng.permutation(len(one.documents))) for one in (first, second))
        half = len(own) // 2
        mixed = MultiVectors.concatenate([_plain(own[-count:]), _plain(other[:count])])
        cases = [
            ("second half", own[:half], own[half:]),
            (f"{count} more and {count} of {second.name}", own[:-count], mixed),
        ]
        for label, base, more in cases:
            index = MuveraIndex.build(base, "moments", exact_tokens=0)
            before = index.info().first_stage
            begun = time.perf_counter()
            index.add(MultiVectors(more.tokens, more.offsets))
            seconds = time.perf_counter() - begun
            after = index.info()
            warned = any("added after" in warning for warning in after.warnings)
            assert before is not None and after.added is not None and after.first_stage is not None
            shown = [before.recall, after.added.recall, after.first_stage.recall]
            rebuilt = ""
            if warned:
                index.rebuild()
                again = index.info().first_stage
                assert again is not None
                rebuilt = f"{again.recall:.3f}"
            facts = [str(after.added.queries), "yes" if warned else "no", rebuilt, f"{seconds:.1f}"]
            rows.append([first.name, label, *(f"{value:.3f}" for value in shown), *facts])
            progress(str(rows[-1]))
    header = [
        "index of", "addition", "before: all", "after: added", "after: all", "windows", "warning", "after rebuild",
        "add, s",
    ]  # fmt: skip
    caption = (
        "Recall of the first stage with 100 candidates, before and after an addition: of all documents, and of the "
        'added ones. Windows of document tokens are the queries; the column "windows" is the number of those of added '
        "documents. The time of `add` includes the measurement."
    )
    return Table("Added documents", header, rows, caption)


def mixed_table(
    first: Collection, second: Collection, encoders: Sequence[str] = ("mean", "fde", "moments", "learned")
) -> Table:
    """Fit encoders on each of two collections, add the other one, and compare with encoders fitted on both."""
    dimension, both = first.documents.dimension, _plain(first.documents)
    both = MultiVectors.concatenate([both, _plain(second.documents)])
    ways = []
    for fitted, added in ((first, second), (second, first)):
        queries = _plain(added.queries[:_MIXED_QUERIES])
        ways.append((fitted, added, queries, exact_best(queries, both, _BEST)))
    rows = []
    for name in encoders:
        config = FDEConfig.preset(name, dimension)
        rebuilt, cells = FDEEncoder(config).fit(both), [name, f"{config.vector_dimension:,}"]
        for fitted, _, queries, best in ways:
            for encoder in (FDEEncoder(config).fit(fitted.documents), rebuilt):
                ranked = _ranked(encoder, queries, both)[:, :_MIXED_CANDIDATES]
                cells.append(f"{recall(ranked, best).mean():.3f}")
        rows.append(cells)
        progress(str(cells))
    header = ["encoder", "floats"]
    for fitted, added, *_ in ways:
        header += [f"{fitted.name}, then {added.name}: before", "rebuilt"]
    caption = (
        f"10-recall@{_MIXED_CANDIDATES} of the added collection's queries over both collections, at most "
        f"{_MIXED_QUERIES} queries. Before: encoders fitted on the first collection alone. Rebuilt: fitted on both, as "
        "`rebuild()` does."
    )
    return Table("Adding documents of another kind", header, rows, caption)


def _documents_of(folder: Path) -> Collection:
    """Return the documents of a folder without queries."""
    lengths = np.load(folder / "docs_lens.npy").astype(np.int64)
    documents = MultiVectors.from_flat(np.load(folder / "docs_tokens.npy"), lengths)
    return Collection(folder.name, documents, documents[:0], "", list(map(str, range(len(documents)))), [])


def vectors(
    part: Annotated[
        str, typer.Argument(help="Measurement: fit, presets, floats, wide, choice, added or mixed.")
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Collections, or folders of documents (default: cisi-e5 and lareqa-en-e5); `added` needs pairs."
        ),
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure one property of the default vectors, such as the time of the fit or the recall of added documents."""
    chosen, on = list[Collection](), measured_on()
    for name in names or ["cisi-e5", "lareqa-en-e5"]:
        folder = Path(name)
        chosen += [_documents_of(folder)] if folder.is_dir() else load_collections([name], data, cache)
    tables = {
        "fit": lambda: fit_table(chosen),
        "presets": lambda: encoders_table("Presets", chosen, PLAIN),
        "floats": lambda: encoders_table("More floats", chosen, MORE_FLOATS, _MORE_DEPTHS),
        "wide": lambda: wide_table(chosen[-1], [1024, 2560, 4096]),
        "choice": lambda: choice_table(chosen),
        "added": lambda: added_table(list(zip(chosen[::2], chosen[1::2], strict=True))),
        "mixed": lambda: mixed_table(chosen[0], chosen[1]),
    }
    if part not in tables:
        raise typer.BadParameter(f"the part must be one of {', '.join(tables)}, got {part!r}.")
    table = tables[part]()
    finish("default_vectors", "The default encoder", [replace(table, caption=f"{table.caption} {on}")], save)
