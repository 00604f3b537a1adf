"""Counts of a server in the text format of Prometheus, for ``GET /metrics``."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..diagnostics.recall_report import RecallReport

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Upper bounds in seconds of the durations that are counted together.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Methods of the routes.  Clients can invent others, and each would be a time series.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_OTHER = "other"


class Metrics:
    """Finished requests by method, route and status, their durations, and searches."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        # Requests of each route by duration; the last count has no upper bound.
        self._durations: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_BOUNDS) + 1))
        self._running = 0
        self._lock = Lock()  # only for running searches: the event loop alone counts requests

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Count a running search while the block runs."""
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a finished request."""
        self._requests[method if method in _METHODS else _OTHER, route, status] += 1
        self._seconds[route] += seconds
        self._durations[route][bisect_left(_BOUNDS, seconds)] += 1

    def answer(self, documents: int, recall: RecallReport | None = None) -> Response:
        """Return all metrics, the number of documents, and the measured recall."""
        requests = [
            f'{{method="{method}",path="{route}",status="{status}"}} {count}'
            for (method, route, status), count in sorted(self._requests.items())
        ]
        lines = [
            *_metric("muvera_http_requests_total", "counter", "Finished requests.", requests),
            *_metric(
                "muvera_http_request_duration_seconds", "histogram",
                "Time from a request's headers to the end of its answer.", self._histogram(),
            ),
            *_metric("muvera_searches_running", "gauge", "Searches that run now.", [f" {self._running}"]),
            *_metric("muvera_documents", "gauge", "Documents or pages in the index.", [f" {documents}"]),
        ]  # fmt: skip
        if recall is not None:
            mean = math.nan if recall.mean is None else recall.mean
            for name, value, text in (
                ("", mean, f"Mean share of the {recall.k} exact best documents that sampled searches found."),
                ("_low", recall.low, f"Lower end of its {recall.confidence:.0%} interval."),
                ("_high", recall.high, f"Upper end of its {recall.confidence:.0%} interval."),
                ("_queries", recall.queries, "Measured queries since the contents changed."),
                ("_dropped", recall.dropped, "Sampled searches that were not measured."),
            ):
                lines += _metric(f"muvera_recall{name}", "gauge", text, [f" {value:.9g}"])
        return Response("\n".join(lines) + "\n", media_type=_CONTENT_TYPE)

    def _histogram(self) -> Iterable[str]:
        bounds = [*(f"{bound:g}" for bound in _BOUNDS), "+Inf"]
        for route, counts in sorted(self._durations.items()):
            for bound, count in zip(bounds, accumulate(counts), strict=True):
                yield f'_bucket{{path="{route}",le="{bound}"}} {count}'
            yield f'_sum{{path="{route}"}} {self._seconds[route]:.6f}'
            yield f'_count{{path="{route}"}} {sum(counts)}'


def _metric(name: str, kind: str, text: str, samples: Iterable[str]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(f"{name}{sample}" for sample in samples)]


class CountRequests:
    """Middleware that counts each request when it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; an exception before the answer counts as status 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            # The path of the route, such as /documents/{identity:path}; an address has
            # no bound on its values.
            route = getattr(scope.get("route"), "path", _OTHER)
            self._metrics.count(scope["method"], route, status, time.perf_counter() - begun)
