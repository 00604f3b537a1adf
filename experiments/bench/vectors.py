"""The default vectors: fit of moments, presets, wide tokens, choice by recall, and added documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import LearnedConfig, MomentsConfig, MultiVectors, MuveraIndex, top_k
from muvera.data.sampling import pseudo_queries
from muvera.encoders.base import Encoder
from muvera.encoders.registry import make_encoder, preset_config

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..evaluation.metrics import recall
from ..report.table import Table
from .plumbing import Cache, Data, Save, finish, load_collections, measured_on, progress

__all__ = [
    "added_table",
    "choice_table",
    "fit_table",
    "floats_table",
    "mixed_table",
    "presets_table",
    "vectors",
    "wide_table",
]

_ROOT = Path(__file__).parents[2]

# Exact best documents, depths of recall, queries, and candidates and queries after another collection was added.
_BEST, _DEPTHS, _QUERIES, _MIXED_CANDIDATES, _MIXED_QUERIES = 10, (10, 20, 30, 50, 100, 200), 150, 50, 100

# Depths of recall with more floats.
_MORE_DEPTHS = (20, 30, 50, 100, 160, 200, 320)

# Presets that are compared after another collection was added, and changes to them.
_MIXED_PRESETS: dict[str, dict[str, Any]] = {"mean": {}, "fde": {}, "moments": {}, "learned": {}}

# Program that fits moments with the muvera on PYTHONPATH; a first small fit compiles the kernels.
_FIT = """
import json, sys, time
import numpy as np
from muvera import MomentsConfig, MomentsEncoder, MultiVectors
data = np.load(sys.argv[1])
documents, queries = (MultiVectors.from_flat(data[side], data[side + "_lengths"]) for side in ("documents", "queries"))
config = MomentsConfig(dimension=documents.dimension)
MomentsEncoder(config).fit(documents[:280], threads=1)
begun = time.perf_counter()
encoder = MomentsEncoder(config).fit(documents, threads=1)
seconds = time.perf_counter() - begun
single = [queries[i : i + 1] for i in range(len(queries))]
times = []
for query in single * 5:
    begun = time.perf_counter()
    encoder.encode_queries(query, threads=1)
    times.append(time.perf_counter() - begun)
scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
np.save(sys.argv[2], np.argsort(-scores, axis=1, kind="stable")[:, :200])
print(json.dumps({"fit": seconds, "query": 1e6 * float(np.median(times))}))
"""


def _plain(texts: MultiVectors, rows: Any = None) -> MultiVectors:
    """Return the texts at `rows` that have tokens, without ids."""
    rows = np.arange(len(texts)) if rows is None else rows
    some = texts[rows[texts.lengths[rows] > 0]]
    return MultiVectors(some.tokens, some.offsets)


def _best(queries: MultiVectors, documents: MultiVectors) -> NDArray[np.int64]:
    return np.array([ranking.ids for ranking in top_k(queries, documents, _BEST)], np.int64)


def _ranked(encoder: Encoder, queries: MultiVectors, documents: MultiVectors) -> NDArray[np.int64]:
    scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    return np.argsort(-scores, axis=1, kind="stable")


def _recalls(
    ranked: NDArray[np.int64], best: NDArray[np.int64], depths: Sequence[int] = _DEPTHS
) -> list[str]:
    return [f"{recall(ranked[:, :depth], best).mean():.3f}" for depth in depths]


def fit_table(collections: list[Collection], old: Path | None) -> Table:
    """Fit moments on each collection, with this checkout and with the older one at `old`."""
    rows = []
    for collection in collections:
        documents = _plain(collection.documents)
        queries = _plain(collection.queries[:_QUERIES])
        best = _best(queries, documents)
        with tempfile.TemporaryDirectory() as folder:
            arrays: dict[str, Any] = {"documents": documents.tokens, "queries": queries.tokens}
            arrays |= {"documents_lengths": documents.lengths, "queries_lengths": queries.lengths}
            np.savez(Path(folder) / "texts.npz", **arrays)
            for label, checkout in (("before", old), ("now", _ROOT)):
                if checkout is None:
                    continue
                arguments = [sys.executable, "-c", _FIT, f"{folder}/texts.npz", f"{folder}/ranked.npy"]
                environment = {**os.environ, "PYTHONPATH": str(checkout)}
                output = subprocess.run(
                    arguments, env=environment, cwd=folder, check=True, capture_output=True
                )
                facts = json.loads(output.stdout)
                cells = [f"{facts['fit']:.1f}", f"{facts['query']:.0f}"]
                ranked = np.load(Path(folder) / "ranked.npy")
                rows.append([collection.name, f"{len(documents):,}", label, *cells, *_recalls(ranked, best)])
                progress(f"{collection.name}, {label}: {cells[0]} s")
    header = ["collection", "documents", "", "fit, s", "query, us", *(f"@{depth}" for depth in _DEPTHS)]
    caption = (
        f"Seconds to fit `moments` and microseconds to encode one query, one thread, and 10-recall of {_QUERIES} "
        "queries by number of candidates. Before: an older version of the library, measured in the same run."
    )
    return Table("Fit of moments", header, rows, caption)


def presets_table(collections: list[Collection]) -> Table:
    """Compare moments, the mean token and FDEs."""
    rows = []
    for collection in collections:
        documents, queries = _plain(collection.documents), _plain(collection.queries[:_QUERIES])
        best = _best(queries, documents)
        for preset in ("mean", "fde", "moments"):
            config = preset_config(preset, documents.dimension)
            ranked = _ranked(make_encoder(config).fit(documents), queries, documents)
            sizes = [f"{documents.dimension:,}", preset, f"{config.vector_dimension:,}"]
            rows.append([collection.name, *sizes, *_recalls(ranked, best)])
            progress(str(rows[-1]))
    header = ["collection", "columns", "preset", "floats", *(f"@{depth}" for depth in _DEPTHS)]
    return Table("Presets", header, rows, f"10-recall of {_QUERIES} queries by number of candidates.")


def floats_table(collections: list[Collection]) -> Table:
    """Compare moments and learned vectors of more floats than the default."""
    rows = []
    for collection in collections:
        documents, queries = _plain(collection.documents), _plain(collection.queries[:_QUERIES])
        best = _best(queries, documents)
        columns = documents.dimension
        for name, config in (
            *(
                ("moments", MomentsConfig(dimension=columns, compact_dimension=size))
                for size in (256, 512, 1024)
            ),
            *(
                ("learned", LearnedConfig(dimension=columns, vector_dimension=size))
                for size in (256, 512, 2048)
            ),
        ):
            ranked = _ranked(make_encoder(config).fit(documents), queries, documents)
            rows.append(
                [collection.name, name, f"{config.vector_dimension:,}", *_recalls(ranked, best, _MORE_DEPTHS)]
            )
            progress(str(rows[-1]))
    header = ["collection", "vectors", "floats", *(f"@{depth}" for depth in _MORE_DEPTHS)]
    return Table("More floats", header, rows, f"10-recall of {_QUERIES} queries by number of candidates.")


def wide_table(collection: Collection, widths: list[int]) -> Table:
    """Rotate tokens into more columns, add noise, and measure `moments` of each width."""
    documents, queries = _plain(collection.documents), _plain(collection.queries[:_QUERIES])
    best = _best(queries, documents)
    rows = []
    for width in [documents.dimension, *widths]:
        turned = [_widened(texts, width) for texts in (documents, queries)]
        own = best if width == documents.dimension else _best(turned[1], turned[0])
        encoder = make_encoder(preset_config("moments", width)).fit(turned[0])
        ranked = _ranked(encoder, turned[1], turned[0])
        rows.append([f"{width:,}", *_recalls(ranked, own)])
        progress(f"{width} columns: {rows[-1]}")
    header = ["columns", *(f"@{depth}" for depth in _DEPTHS)]
    caption = (
        f"The tokens of {collection.name}, rotated into more columns, plus normal noise of a tenth of their length, in "
        "float16. 10-recall by number of candidates, each against its own exact ranking."
    )
    return Table("Wide tokens", header, rows, caption)


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
        best = np.array([ranking.ids for ranking in top_k(queries, documents, _BEST + 1)], np.int64)
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
        "Compared: recall with 100 candidates of windows of documents that the encoder was not fitted on. The last two "
        'columns are 10-recall@50 of queries, with `encoder="moments"` and with the chosen encoder. Collections '
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
            (f"{count} and {count} of {second.name}", own[:-count], mixed),
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
    header = ["index of", "added", "before", "added ones", "all", "windows", "warning", "rebuilt", "add, s"]
    caption = (
        "Recall of the first stage with 100 candidates, measured with windows of document tokens: before the addition "
        "(before), for the added documents (added ones), for all documents (all), and after `rebuild()` (rebuilt). "
        "Windows: their number for the added documents. The time of `add` includes the measurement."
    )
    return Table("Added documents", header, rows, caption)


def mixed_table(
    first: Collection, second: Collection, presets: dict[str, dict[str, Any]] = _MIXED_PRESETS
) -> Table:
    """Fit encoders on each of two collections, add the other one, and compare with encoders fitted on both."""
    dimension, both = first.documents.dimension, _plain(first.documents)
    both = MultiVectors.concatenate([both, _plain(second.documents)])
    ways = []
    for fitted, added in ((first, second), (second, first)):
        queries = _plain(added.queries[:_MIXED_QUERIES])
        ways.append((fitted, added, queries, _best(queries, both)))
    rows = []
    for name, changes in presets.items():
        config = preset_config(name, dimension, **changes)
        rebuilt, cells = make_encoder(config).fit(both), [name, f"{config.vector_dimension:,}"]
        for fitted, _, queries, best in ways:
            for encoder in (make_encoder(config).fit(fitted.documents), rebuilt):
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
    old: Annotated[Path | None, typer.Option(help="For fit: an older checkout to compare with.")] = None,
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
        "fit": lambda: fit_table(chosen, old),
        "presets": lambda: presets_table(chosen),
        "floats": lambda: floats_table(chosen),
        "wide": lambda: wide_table(chosen[-1], [1024, 2560, 4096]),
        "choice": lambda: choice_table(chosen),
        "added": lambda: added_table(list(zip(chosen[::2], chosen[1::2], strict=True))),
        "mixed": lambda: mixed_table(chosen[0], chosen[1]),
    }
    if part not in tables:
        raise typer.BadParameter(f"the part must be one of {', '.join(tables)}, got {part!r}.")
    table = tables[part]()
    finish("default_vectors", "The default encoder", [replace(table, caption=f"{table.caption} {on}")], save)
