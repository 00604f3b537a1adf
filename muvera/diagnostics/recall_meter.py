"""RecallMeter: the recall of an index, measured while people search."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Any

import numpy as np

from ..engines.engine_index import EngineIndex
from ..index.calibration import BEST, DEFAULT_RECALL, MIN_QUERIES
from ..index.muvera_index import MuveraIndex
from ..pages.page_index import PageIndex
from ..texts.text_index import TextIndex
from ..utils.checks import as_id_list, as_path, counted, require_int, require_number
from ..utils.hints import Argument, Message, message_of
from ..utils.intervals import CONFIDENCE
from ..utils.locks import renew_after_fork
from .metered import Query, Sampled, Scores, key_of, limits_of, metered
from .recall_report import (
    MOST_SEEN,
    MeasuredRecall,
    Outcome,
    Period,
    RecallCalibration,
    RecallReport,
    RecallState,
    measured_recall,
)

# Sampled searches that wait; others are dropped.
_WAITING = 64

# Queries that are kept for a calibration, and tokens of the longest of them: about
# 16 MB of queries like ColBERT's.
_KEPT, _MOST_TOKENS = 1000, 512

# Every _HELD-th of them does not calibrate, and shows the recall before and after.
_HELD = 3

# An automatic calibration waits for this many kept queries.
_ENOUGH = _HELD * MIN_QUERIES

# Seconds between two saves of the state.
_SAVE_SECONDS = 10.0

# Seconds without a search after which the thread ends.
_IDLE_SECONDS = 1.0

# Seconds that closing waits for the thread, which may be calibrating.
_PATIENCE = 60

# The thread's niceness, where threads have one (Linux): searches get the processor
# first.
_NICE = 10


class _ClosedError(Exception):
    """The meter was closed during an exact search."""


class RecallMeter:
    """Measure the recall of an index while people search, on a sample of the searches.

    Search with :meth:`search` instead of the search of the index.  A share of the
    queries is searched a second time, exactly, in one background thread.  The mean
    recall of the answers gets an interval that is valid at every moment, however often
    one looks.  A search never waits for the meter: if more than 64 sampled searches
    wait, others are dropped and counted.

    The exact best documents are those of a search whose candidates are all documents.
    Texts and pages are compared by similarity alone, because shared words reorder what
    similarity finds.

    If the interval of the searches that promise a recall lies below the promise, the
    sampled queries calibrate ``recall=``.  A calibration, a rebuild, and changes of
    more than a sixteenth of the documents begin a new interval.

    Parameters
    ----------
    index : MuveraIndex, TextIndex, PageIndex or EngineIndex
        The index to search.
    share : float
        The share of the queries that is measured, from 0 to 1.  A hash of the query
        decides, so the same query is always or never measured.
    k : int
        Number of exact best documents to look for; fewer, if a search asks for fewer.
    confidence : float
        Probability that the interval contains the mean, above 0 and below 1.
    seed : int
        Another seed measures other queries.
    search : callable, optional
        Another search of the same documents: ``search(queries, k, **options)`` gets
        MultiVectors and returns ids for each query, best first, a dict of scores or a
        Ranking.  Then `index` is a MuveraIndex that ranks exactly what it finds.
    state : path, optional
        A JSON file that keeps the counts, but no queries, over restarts.  Several
        processes that serve the same contents can use one file; their counts are added.

    Raises
    ------
    TypeError, ValueError
        For a wrong argument, or a state file that is damaged.
    EngineError
        If a collection stores no tokens to rank by.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import MuveraIndex, RecallMeter
    >>> rng = np.random.default_rng(0)
    >>> documents = rng.normal(size=(300, 8, 32))
    >>> index = MuveraIndex.build(documents, "simhash", exact_tokens=0)
    >>> with RecallMeter(index, share=1) as meter:
    ...     ranking = meter.search(documents[7][:4], k=3)[0]
    ...     done = meter.wait()
    >>> meter.report().queries
    1
    """

    def __init__(
        self,
        index: MuveraIndex | TextIndex | PageIndex | EngineIndex,
        share: float = 0.01,
        k: int = BEST,
        confidence: float = CONFIDENCE,
        seed: int = 0,
        *,
        search: Callable[..., Any] | None = None,
        state: str | os.PathLike[str] | None = None,
    ) -> None:
        self._share = require_number("share", share, 0, 1)
        self._k = require_int("k", k, 1)
        self._confidence = require_number("confidence", confidence)
        if not 0 < self._confidence < 1:
            raise ValueError(
                Message(Argument("confidence"), f" must be above 0 and below 1, got {confidence}.")
            )
        self._seed = require_int("seed", seed, 0).to_bytes(8, "little")
        self._index = metered(index, search)
        if 0 < len(index) < self._k:
            raise ValueError(
                f"k={self._k} exceeds the {counted(len(index), 'document')} in the index. Use k <= "
                f"{len(index)}."
            )
        self._state = RecallState(
            None if state is None else as_path(state, "state", "file"), self._confidence
        )
        self._kept: OrderedDict[bytes, Query] = OrderedDict()  # by hash: none twice
        self._mark: object = None
        self._problem: str | None = None
        self._automatic = 0
        self._saved = time.monotonic()
        self._seen = set(self._state.latest.seen if self._state.latest else ())
        self._closing = False
        self._renew()
        renew_after_fork(self._renew)
        self._begin()

    def _renew(self) -> None:
        """Begin without a thread and without waiting searches."""
        self._lock = threading.Lock()  # held for moments only
        self._beginning, self._calibrating = threading.Lock(), threading.Lock()
        self._waiting: Queue[tuple[Sampled, bytes] | None] = Queue(_WAITING)
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._state.renew()

    # -- searching ------------------------------------------------------------

    def search(self, queries: Any, k: int = BEST, **options: Any) -> Any:
        """Search the index, and measure a sample of the queries in the background.

        Searches for parts, sentences or groups of documents are not measured.

        Parameters
        ----------
        queries : Any
            As for the search of the index.
        k : int
            As for the search of the index.
        **options
            Other arguments of the search of the index.

        Returns
        -------
        list
            The answer of the index.

        Raises
        ------
        TypeError, ValueError
            As for the search of the index.
        """
        if options.get("ids") is not None:
            options["ids"] = as_id_list(options["ids"])  # an iterator could be read once
        state = self._index.exact.state
        answer, pairs = self._index.search(queries, k, options)
        if self._share and not self._closing:
            with suppress(Exception):  # the answer matters more than the measurement
                self._sample(pairs, k, limits_of(options), state)
        return answer

    def _sample(
        self, pairs: list[tuple[Any, Any]], k: int, limits: dict[str, Any] | None, state: object
    ) -> None:
        """Let the sampled queries wait for the thread."""
        if limits is None:
            return
        for query, found in pairs:
            key = blake2b(key_of(query, k, limits), digest_size=8, key=self._seed).digest()
            if int.from_bytes(key, "big") >= self._share * 2**64 or key in self._seen:
                continue
            if self._index.exact.note() is not None:
                return
            if not isinstance(query, str):
                query = np.array(query, np.float32)  # not a view of a larger array
            try:
                self._waiting.put_nowait((Sampled(query, k, limits, found, state), key))
            except Full:
                self._count_dropped()
                continue
            self._seen.add(key)
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._work, name="muvera-recall", daemon=True)
                self._thread.start()

    # -- measuring ------------------------------------------------------------

    def _work(self) -> None:
        """Measure waiting searches until there are none for a while."""
        with suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            try:
                waiting = self._waiting.get(timeout=_IDLE_SECONDS)
            except Empty:
                self._save()
                with self._lock:
                    self._thread = None
                    if self._waiting.empty():
                        return
                    self._thread = threading.current_thread()
                continue
            try:
                if waiting is not None:
                    self._measure(*waiting)
            except _ClosedError:
                self._count_dropped()
            except Exception as error:
                self._count_dropped()
                self._note_problem(error)
            finally:
                self._waiting.task_done()
            if self._closing and self._waiting.empty():
                return
            if time.monotonic() - self._saved > _SAVE_SECONDS:
                self._save()

    def _count_dropped(self) -> None:
        with self._lock:
            self._dropped += 1

    def _pause(self) -> None:
        """End an exact search if the meter is closed."""
        if self._closing:
            raise _ClosedError

    def _measure(self, sampled: Sampled, key: bytes) -> None:
        """Measure a search, and calibrate if a promise is broken."""
        self._pause()
        begun = time.thread_time()
        self._begin()
        measured = self._index.measure(sampled, self._k, self._pause)
        if measured is None:
            self._count_dropped()
            return
        self._seen.add(key)  # a new interval forgot it
        tokens, share = measured
        outcomes: list[Outcome] = []
        if share is not None:
            outcomes.append((self._index.promise(sampled.limits) or 0.0, share))
            if not sampled.is_filtered and len(tokens) <= _MOST_TOKENS:
                self._keep(tokens)
        self._count(outcomes, seconds=time.thread_time() - begun, seen=deque([key]))
        if len(self._kept) >= min(_KEPT, _ENOUGH << self._automatic) and self._is_broken():
            self._automatic += 1
            try:
                self.calibrate(threads=1)
            except (OSError, RuntimeError, ValueError) as error:
                self._note_problem(error)
            finally:
                self._kept.clear()

    def _keep(self, tokens: Query) -> None:
        with self._lock:
            self._kept[blake2b(key_of(tokens, 0, {}), digest_size=8).digest()] = tokens
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def _count(self, outcomes: list[Outcome], **numbers: Any) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        self._state.count(outcomes, dropped=dropped, **numbers)

    def _begin(self) -> None:
        """Begin an interval, if the contents are new."""
        with self._beginning:
            contents, mark = self._index.exact.contents(), self._index.exact.mark
            latest = self._state.latest
            replaced = self._mark is not None and mark is not self._mark
            if latest is None or latest.k != self._k or replaced or contents.is_new_beside(latest.contents):
                self._state.begin(Period(self._k, contents))
                self._seen.clear()
            elif len(self._seen) > 2 * MOST_SEEN:
                self._seen = set(latest.seen)
            self._mark = mark

    def _is_broken(self) -> bool:
        """Return True if the interval of a promised recall lies below it."""
        counts = self._state.outcomes()
        return any(measured_recall(counts[one], self._confidence).high < one for one in counts if one)

    def _save(self) -> None:
        self._saved = time.monotonic()
        try:
            if self._dropped and self._state.latest is not None:
                self._count([])
            self._state.save()
            self._problem = None
        except (OSError, ValueError) as error:
            self._note_problem(error)

    def _note_problem(self, error: Exception) -> None:
        """Keep a problem for the report, and log it once; searches continue."""
        problem = str(message_of(error))
        if problem != self._problem:
            logging.getLogger("muvera").warning("muvera: the recall meter: %s", problem)
        self._problem = problem

    # -- calibrating ----------------------------------------------------------

    def calibrate(self, *, threads: int | None = None) -> RecallCalibration:
        """Calibrate ``recall=`` of the index with the sampled queries that were kept.

        The last 1,000 are kept.  Two thirds of them calibrate.  With the others, the
        recall is measured before and after.  Begin a new interval.

        The meter does this by itself once the interval of a promised recall lies below
        the promise, and 192 queries are kept; the next time with twice as many.  An
        interval above the promise is not a reason: searches find more than was
        promised, and take longer.

        Parameters
        ----------
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        RecallCalibration

        Raises
        ------
        ValueError
            If fewer than 96 queries are kept, or the search is a function.
        """
        with self._calibrating:
            if (refusal := self._index.refusal()) is not None:
                raise ValueError(refusal)
            with self._lock:
                kept = list(self._kept.values())
            used = [query for i, query in enumerate(kept) if i % _HELD != _HELD - 1]
            held = kept[_HELD - 1 :: _HELD]
            if len(used) < MIN_QUERIES:
                raise ValueError(
                    f"A calibration needs {MIN_QUERIES * _HELD // (_HELD - 1)} sampled queries, and "
                    f"{len(kept)} are kept. Measure a larger share, or wait."
                )
            promises = [promise for promise in self._state.outcomes() if promise] or [DEFAULT_RECALL]
            best = [self._index.exact.best(query, BEST, {}, self._pause) for query in held]
            measure = partial(self._recalls, promises, held, best)
            before = measure()
            self._index.calibrate(used, threads)
            after = measure()
            pairs = {promise: (before[promise], after[promise]) for promise in promises}
            calibration = RecallCalibration(len(used), pairs)
            self._begin()
            self._count([], calibration=calibration)
            self._kept.clear()
            return calibration

    def _recalls(
        self, promises: list[float], queries: list[Query], best: list[Scores]
    ) -> dict[float, MeasuredRecall]:
        """Return the recall of searches for each promised recall."""
        found = {}
        for promise in promises:
            shares: Counter[float] = Counter()
            for query, scores in zip(queries, best, strict=True):
                self._pause()
                shares[self._index.share(query, scores, promise)] += 1
            found[promise] = measured_recall(shares, self._confidence)
        return found

    # -- reading --------------------------------------------------------------

    def report(self) -> RecallReport:
        """Return what was measured since the contents last changed.

        Returns
        -------
        RecallReport
        """
        self._begin()
        report = self._state.report(note=self._index.exact.note(), problem=self._problem)
        return replace(report, dropped=report.dropped + self._dropped)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the sampled searches so far are measured.

        Parameters
        ----------
        seconds : float, optional
            The longest time to wait.  Default: no limit.

        Returns
        -------
        bool
            False if some still wait.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._waiting.all_tasks_done.wait(left)
        return True

    def close(self) -> None:
        """End the thread after the current block of documents, and save the state.

        Searches still work, but are not measured.
        """
        self._closing = True
        with suppress(Full):
            self._waiting.put_nowait(None)  # wakes the thread up
        thread = self._thread
        if thread is not None:
            thread.join(_PATIENCE)
        self._save()

    def __enter__(self) -> RecallMeter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
