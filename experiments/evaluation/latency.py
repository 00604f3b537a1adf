"""Times of queries, in short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["latency"]


def latency(seconds: Iterable[float]) -> dict[str, Any]:
    """Return queries per second and the distribution of times; None where they were not measured."""
    times = np.asarray(list(seconds), np.float64)
    if len(times) == 0 or np.isnan(times).any():
        return {"queries_per_second": None, "latency_ms": None}
    spread = np.percentile(times, [50, 95, 99]) * 1000
    return {
        "queries_per_second": round(len(times) / max(float(times.sum()), 1e-12), 2),
        "latency_ms": {
            **{name: round(float(ms), 4) for name, ms in zip(("p50", "p95", "p99"), spread, strict=True)},
            "mean": round(float(times.mean()) * 1000, 4),
        },
    }
