"""FDEs: presets, small samples, more floats, wide tokens and added documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import MultiVectors, MuveraIndex
from muvera.data.batches import pseudo_queries
from muvera.fde.encoder import FDEEncoder

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..evaluation.metrics import recall
from ..learned_vectors import LearnedVectors
from ..report.table import Table
from .plumbing import Cache, Data, Save, exact_best, finish, load_collections, measured_on, progress

# Exact best documents, depths of recall, queries, and candidates and queries after
# another collection was added.
_BEST, _DEPTHS, _QUERIES, _MIXED_CANDIDATES, _MIXED_QUERIES = 10, (10, 20, 30, 50, 100, 200), 150, 50, 100

# Tokens of a window.
_WINDOW = 32

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


class _Judged(NamedTuple):
    """Documents, queries or windows, and the exact best documents of these."""

    documents: MultiVectors
    queries: MultiVectors
    #: Each window's own document, which does not count, or None for real queries.
    sources: NDArray[np.int64] | None
    best: NDArray[np.int64]

    def recalls(self, scores: NDArray[np.float32], depths: Sequence[int]) -> list[str]:
        """Return the recall at each depth of a ranking by `scores`.

        `scores` is (queries, documents).
        """
        best = self.best
        if self.sources is not None:
            scores = scores.copy()
            scores[np.arange(len(scores)), self.sources] = -np.inf
            others = best != self.sources[:, np.newaxis]
            best = np.array([row[kept][:_BEST] for row, kept in zip(best, others, strict=True)])
        ranked = np.argsort(-scores, axis=1, kind="stable")
        return _recalls(ranked, best[:, :_BEST], depths)


def _judged(collection: Collection) -> _Judged:
    """Return a collection's queries, or windows of its documents if it has none."""
    documents, queries, sources = _plain(collection.documents), _plain(collection.queries[:_QUERIES]), None
    if len(queries) == 0:
        queries, sources = pseudo_queries(documents, _QUERIES, _WINDOW, np.random.default_rng(5))
    return _Judged(documents, queries, sources, exact_best(queries, documents, _BEST + 1))


#: Rows of the family: a preset with changes, or LEMUR's form of learned vectors (None).
FAMILY: list[tuple[str, str | None, dict[str, Any]]] = [
    ("mean", "mean", {}),
    ("paper", "paper", {}),
    ("simhash", "simhash", {}),
    ("simhash, short form", "simhash", {"final_projection": "learned"}),
    ("moments", "moments", {}),
    ("**fde**", "fde", {}),
    ("fde, 256 floats", "fde", {"final_projection_dimension": 256}),
    ("fde, mean token only", "fde", {"moments": "mean"}),
    ("fde, SimHash cells", "fde", {"partition": "simhash"}),
    ("fde, large, 1,024", "fde", {"num_landmarks": 4096, "final_projection_dimension": 1024}),
    ("fde, large, 2,048", "fde", {"num_landmarks": 4096, "final_projection_dimension": 2048}),
    ("learned features", None, {"floats": 1024}),
]

_FAMILY_DEPTHS = (10, 20, 50)


def family_table(collections: list[Collection], names: Sequence[str] = ()) -> Table:
    """Compare all presets on one thread.

    The table has recall by candidates, seconds of a fit and microseconds of a query.
    """
    rows = []
    for collection in collections:
        judged = _judged(collection)
        dimension = judged.documents.dimension
        for label, preset, changes in FAMILY:
            if names and label.strip("*") not in names:
                continue
            made: Callable[[], Any] = partial(LearnedVectors, dimension, **changes)
            if preset is not None:
                made = partial(FDEEncoder.preset, preset, dimension, **changes)
            made().fit(judged.documents[:300], threads=1)  # compiles
            with threadpool_limits(1):
                begun = time.process_time()
                encoder = made().fit(judged.documents, threads=1)
                seconds = time.process_time() - begun
                microseconds = _query_time(encoder, judged.queries)
            vectors = encoder.encode_documents(judged.documents)
            scores = encoder.encode_queries(judged.queries) @ vectors.T
            facts = [f"{vectors.shape[1]:,}", f"{seconds:.1f}", f"{microseconds:.0f}"]
            rows.append(
                [collection.name, f"{dimension}", label, *facts, *judged.recalls(scores, _FAMILY_DEPTHS)]
            )
            progress(str(rows[-1]))
    header = ["collection", "columns", "FDE", "floats", "fit, s", "query, us", *_depths(_FAMILY_DEPTHS)]
    caption = (
        f"10-recall by number of candidates, by exact products of vectors; at most {_QUERIES} queries. Fits "
        "on at most 4,096 documents and encoding of one query take one thread; processor time. Collections "
        f"without queries use windows of {_WINDOW} tokens, whose own document does not count. The last row "
        "of each collection is LEMUR's form of vectors, trained for some seconds."
    )
    return Table("The family of FDEs", header, rows, caption)


def _query_time(encoder: Any, queries: MultiVectors) -> float:
    """Return the median microseconds of encoding one query."""
    times = []
    for i in np.tile(np.arange(len(queries)), 3):
        begun = time.perf_counter()
        encoder.encode_queries(queries[i : i + 1], threads=1)
        times.append(time.perf_counter() - begun)
    return 1e6 * float(np.median(times))


def few_table(collections: list[Collection], counts: Sequence[int] = (300, 1000, 4096)) -> Table:
    """Fit moments and fde on few documents of a collection, and measure them on all."""
    rows = []
    for collection in collections:
        judged = _judged(collection)
        order = np.random.default_rng(1).permutation(len(judged.documents))
        for count in counts:
            some = _plain(judged.documents, np.sort(order[:count]))
            for preset in ("moments", "fde"):
                encoder = FDEEncoder.preset(preset, some.dimension).fit(some)
                scores = encoder.encode_queries(judged.queries) @ encoder.encode_documents(judged.documents).T
                cells = judged.recalls(scores, _FAMILY_DEPTHS)
                rows.append([collection.name, f"{len(some):,} of {len(judged.documents):,}", preset, *cells])
                progress(str(rows[-1]))
    header = ["collection", "documents of the fit", "FDE", *_depths(_FAMILY_DEPTHS)]
    return Table("Fits on few documents", header, rows, _CAPTION)


def drift_table(pairs: list[tuple[Collection, Collection]], count: int = 400) -> Table:
    """Fit on documents of one kind, add as many of another, and search for both."""
    rows = []
    for first, second in pairs:
        rng = np.random.default_rng(1)
        parts = [
            _plain(one.documents, rng.permutation(len(one.documents))[:count]) for one in (first, second)
        ]
        both = MultiVectors.concatenate(parts)
        both = MultiVectors(both.tokens, both.offsets)
        asked = [_plain(one.queries[:_QUERIES]) for one in (first, second)]
        best = [exact_best(queries, both, _BEST) for queries in asked]
        for preset in ("mean", "simhash", "moments", "fde"):
            encoder = FDEEncoder.preset(preset, both.dimension).fit(parts[0])
            vectors = encoder.encode_documents(both)
            cells = []
            for queries, wanted in zip(asked, best, strict=True):
                ranked = np.argsort(-(encoder.encode_queries(queries) @ vectors.T), axis=1, kind="stable")
                cells += _recalls(ranked, wanted, (20, 50))
            rows.append([first.name, second.name, preset, *cells])
            progress(str(rows[-1]))
    header = [
        "fitted on", "then added", "FDE", "own queries @20", "@50", "queries of the added kind @20", "@50 ",
    ]  # fmt: skip
    caption = (
        f"Encoders are fitted on {count} documents of one kind. Then {count} of another kind are added, and "
        "both are searched. 10-recall by number of candidates."
    )
    return Table("Documents of another kind", header, rows, caption)


def floats_table(collections: list[Collection]) -> Table:
    """Compare sizes of the learned projection."""
    rows = []
    for collection in collections:
        judged = _judged(collection)
        for preset in ("moments", "fde"):
            for size in (128, 256, 512, 1024, 2048):
                changes = {"final_projection_dimension": size}
                encoder = FDEEncoder.preset(preset, judged.documents.dimension, **changes).fit(
                    judged.documents
                )
                scores = encoder.encode_queries(judged.queries) @ encoder.encode_documents(judged.documents).T
                rows.append([collection.name, preset, f"{size:,}", *judged.recalls(scores, _MORE_DEPTHS)])
                progress(str(rows[-1]))
    return Table("More floats", ["collection", "FDE", "floats", *_depths(_MORE_DEPTHS)], rows, _CAPTION)


def wide_table(collection: Collection, widths: list[int]) -> Table:
    """Rotate tokens into more columns, add noise, and measure `fde` of each width."""
    documents, queries, best = _inputs(collection)
    rows = []
    for width in [documents.dimension, *widths]:
        turned = [_widened(texts, width) for texts in (documents, queries)]
        own = best if width == documents.dimension else exact_best(turned[1], turned[0], _BEST)
        encoder = FDEEncoder.preset("fde", width).fit(turned[0])
        ranked = _ranked(encoder, turned[1], turned[0])
        rows.append([f"{width:,}", *_recalls(ranked, own)])
        progress(f"{width} columns: {rows[-1]}")
    caption = (
        f"The tokens of {collection.name}, rotated into more columns, plus normal noise of a tenth of their "
        "length, in float16. 10-recall by number of candidates, each against its own exact ranking."
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


def added_table(pairs: list[tuple[Collection, Collection]], count: int = 200) -> Table:
    """Add documents of the same collection or of another, then rebuild.

    In the second case, the index gets `count` documents of each collection.
    """
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
            index = MuveraIndex.build(base, exact_tokens=0)
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
        "index of", "addition", "before: all", "after: added", "after: all", "windows", "warning",
        "after rebuild",
        "add, s",
    ]  # fmt: skip
    caption = (
        "Recall of the first stage with 100 candidates, before and after an addition: of all documents, and "
        "of the added ones. Windows of document tokens are the queries; the column "
        '"windows" is the number of those of added documents. '
        "The time of `add` includes the measurement."
    )
    return Table("Added documents", header, rows, caption)


def _collection_of(folder: Path) -> Collection:
    """Return the documents of a folder, and its queries if it has any."""
    sides: list[MultiVectors] = []
    for side in ("docs", "queries"):
        if not (folder / f"{side}_lens.npy").is_file():
            sides.append(sides[0][:0])
            continue
        lengths = np.load(folder / f"{side}_lens.npy").astype(np.int64)
        sides.append(MultiVectors.from_flat(np.load(folder / f"{side}_tokens.npy"), lengths))
    documents, queries = sides
    document_ids, query_ids = (list(map(str, range(len(texts)))) for texts in sides)
    return Collection(folder.name, documents, queries, "", document_ids, query_ids)


def vectors(
    part: Annotated[str, typer.Argument(help="family, few, drift, floats, wide or added.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Collections, or folders of documents (default: cisi-e5 and lareqa-en-e5); `added` and "
            "`drift` need pairs."
        ),
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure one property of FDEs.

    Examples are the recall of all presets, or of documents that were added later.
    """
    chosen, on = list[Collection](), measured_on()
    for name in names or ["cisi-e5", "lareqa-en-e5"]:
        folder = Path(name)
        chosen += [_collection_of(folder)] if folder.is_dir() else load_collections([name], data, cache)
    pairs = list(zip(chosen[::2], chosen[1::2], strict=False))
    tables = {
        "family": lambda: family_table(chosen),
        "few": lambda: few_table(chosen),
        "drift": lambda: drift_table(pairs),
        "floats": lambda: floats_table(chosen),
        "wide": lambda: wide_table(chosen[-1], [1024, 2560, 4096]),
        "added": lambda: added_table(pairs),
    }
    if part not in tables:
        raise typer.BadParameter(f"the part must be one of {', '.join(tables)}, got {part!r}.")
    table = tables[part]()
    finish("default_vectors", "FDEs", [replace(table, caption=f"{table.caption} {on}")], save)
