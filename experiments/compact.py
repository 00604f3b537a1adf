"""How much a compact FDE finds: ``python -m experiments.compact FOLDER ...``.

For every folder of embeddings (docs_tokens.npy, docs_lens.npy, queries_tokens.npy, queries_lens.npy)
the maps are fitted on a random quarter of the documents, and the table shows which share of the exact
Chamfer top 10 is among the first 10, 50 and 100: over all documents, and over those outside the fit
alone. Means of the seeds; times of one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muvera import FDEConfig, FDEEncoder, MultiVectors, chamfer_matrix

DEPTHS = (10, 50, 100)


def load(folder: Path, side: str) -> MultiVectors:
    """Return one side, "docs" or "queries", of a folder of embeddings."""
    lengths = np.load(folder / f"{side}_lens.npy")
    return MultiVectors.from_flat(np.load(folder / f"{side}_tokens.npy"), lengths)


def exact_scores(folder: Path, cache: Path | None) -> npt.NDArray[np.float32]:
    """Return exact Chamfer of all queries with all documents, kept in `cache` where one is given."""
    kept = cache / f"{folder.name}.chamfer.npy" if cache is not None else None
    if kept is not None and kept.exists():
        return np.asarray(np.load(kept), np.float32)
    scores = chamfer_matrix(load(folder, "queries"), load(folder, "docs"))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, scores)
    return scores


def recalls(exact: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> list[float]:
    """Return the share of the exact top 10 among the first of `found`, at each of DEPTHS."""
    best = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    order = np.argsort(-found, axis=1, kind="stable")
    shares = [[np.isin(b, o[:depth]).mean() for b, o in zip(best, order, strict=True)] for depth in DEPTHS]
    return [float(np.mean(share)) for share in shares]


def measure(
    folder: Path, long: FDEConfig, sizes: Sequence[int], seeds: int, cache: Path | None
) -> npt.NDArray[np.float64]:
    """Return (1 + sizes, 8): recalls over all, recalls outside the fit, ms a document, seconds to fit.

    The first row is the long FDE. The largest size is fitted; smaller ones are its leading columns, which
    is what fitting them gives, so their times are not measured (0).
    """
    documents, queries = load(folder, "docs"), load(folder, "queries")
    exact = exact_scores(folder, cache)
    rows = np.zeros((seeds, 1 + len(sizes), 8))
    for seed in range(seeds):
        stream = np.random.default_rng(seed)
        inside = np.sort(stream.choice(len(documents), round(len(documents) / 4), replace=False))
        outside = np.setdiff1d(np.arange(len(documents)), inside)
        compact = dataclasses.replace(long, compact_dimension=max(sizes))
        for first, config, widths in ((0, long, [long.fde_dimension]), (1, compact, list(sizes))):
            start = time.perf_counter()
            encoder = FDEEncoder(config).fit(documents[inside], threads=1)
            fitted = time.perf_counter() - start
            encoder.encode_documents(documents[:50], threads=1)  # compiles
            start = time.perf_counter()
            vectors = encoder.encode_documents(documents, threads=1)
            spent = (time.perf_counter() - start) / len(documents) * 1e3
            asked = encoder.encode_queries(queries, threads=1)
            for i, width in enumerate(widths):
                scores = asked[:, :width] @ vectors[:, :width].T
                shares = recalls(exact, scores) + recalls(exact[:, outside], scores[:, outside])
                times = [spent, fitted] if width == config.fde_dimension else [0.0, 0.0]
                rows[seed, first + i] = shares + times
    return np.asarray(rows.mean(axis=0))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 256], help="compact dimensions")
    parser.add_argument("--repetitions", type=int, default=20, help="of the long FDE")
    parser.add_argument("--projections", type=int, default=5, help="hyperplanes a repetition of the long FDE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="folder for exact scores")
    options = parser.parse_args()
    print("| collection | floats | all @10 @50 @100 | outside the fit @10 @50 @100 | ms/document | fit s |")
    print("|---|---|---|---|---|---|")
    for folder in options.folders:
        long = FDEConfig(
            dimension=load(folder, "docs").dim,
            num_repetitions=options.repetitions,
            num_simhash_projections=options.projections,
        )
        rows = measure(folder, long, options.sizes, options.seeds, options.cache)
        for size, row in zip([long.fde_dimension, *options.sizes], rows, strict=True):
            over_all = " ".join(f"{share:.3f}" for share in row[:3])
            outside = " ".join(f"{share:.3f}" for share in row[3:6])
            name = f"| {folder.name} | {size}"
            print(f"{name} | {over_all} | {outside} | {row[6]:.3f} | {row[7]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
