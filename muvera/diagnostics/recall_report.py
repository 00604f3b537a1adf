"""RecallReport: what a RecallMeter measured, and the file that keeps it."""

from __future__ import annotations

import base64
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from ..utils.atomic_files import named_errors, read_json, write_json
from ..utils.checks import counted
from ..utils.intervals import share_interval
from .metered import Contents

# Version of the state file.
_VERSION = 1

# Intervals that a file and a report keep.
_PERIODS = 20

#: Queries that are remembered, because each counts once in an interval.
MOST_SEEN = 16_384

# Bytes of a remembered query.
_KEY_BYTES = 8

# Seconds that a save waits for another process.
_PATIENCE = 5

_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}

#: The promise of a search (0: none), and the share of its exact best that was found.
Outcome = tuple[float, float]


def state_file(index: Path) -> Path:
    """Return the state file of a folder's meter, which is beside the folder."""
    folder = index.resolve()
    return folder.with_name(f"{folder.name}.recall.json")


@dataclass(frozen=True)
class MeasuredRecall:
    """The recall of sampled searches, and its interval.

    Parameters
    ----------
    mean : float or None
        Mean share of the exact best that was found; None without queries.
    low, high : float
        Interval of the mean over time, valid at every look.
    queries : int
        Number of different queries.
    """

    mean: float | None
    low: float
    high: float
    queries: int

    @property
    def text(self) -> str:
        """The interval, such as "96%, between 95% and 97%"."""
        digits = 0 if self.high - self.low >= 0.02 else 1
        mean, low, high = (f"{share:.{digits}%}" for share in (self.mean or 0.0, self.low, self.high))
        return f"{mean}, between {low} and {high}"


def measured_recall(counts: Counter[float], confidence: float) -> MeasuredRecall:
    """Return the recall of shares that occurred this often."""
    shares = np.array(sorted(counts))
    times = np.array([counts[share] for share in shares], np.int64)
    queries = int(times.sum())
    mean = float(shares @ times / queries) if queries else None
    return MeasuredRecall(mean, *share_interval(shares, times, confidence), queries)


@dataclass(frozen=True)
class RecallCalibration:
    """A calibration by kept queries, and the recall of other queries before and after.

    Parameters
    ----------
    queries : int
        Number of queries that calibrated.
    recall : dict of float to tuple of MeasuredRecall
        For each promised recall: of the other queries, before and after.
    """

    queries: int
    recall: dict[float, tuple[MeasuredRecall, MeasuredRecall]]

    @property
    def text(self) -> str:
        """One sentence for each promised recall."""
        return " ".join(
            f"After a calibration by {counted(self.queries, 'query', 'queries')}, recall={promise:g} finds "
            f"{after.text}, of the best of {counted(after.queries, 'other query', 'other queries')}; before, "
            f"{before.text}."
            for promise, (before, after) in self.recall.items()
        )


@dataclass(frozen=True)
class RecallReport:
    """The recall of sampled searches since the contents last changed.

    Parameters
    ----------
    mean : float or None
        Mean share of the exact `k` best documents that the sampled searches found.
        None without queries.
    low, high : float
        Ends of the interval.  It contains the mean over time of the expected recall, at
        every moment at once, with the given `confidence`.
    queries : int
        Number of measured queries.  A query counts once, however often it is asked.
    dropped : int
        Sampled searches that were not measured, because the machine was busy or the
        contents changed meanwhile.
    seconds : float
        Processor time of the measurement.
    since : str
        When the interval began, by the clock of the machine: ISO 8601, in UTC.
    documents : int
        Number of documents at that time.
    k : int
        Number of exact best documents to find.
    confidence : float
        Probability that the interval contains the mean.
    promises : dict of float to MeasuredRecall
        The recall of the searches that promised one: by ``recall=``, or .95 by default
        if the index is calibrated.
    calibration : RecallCalibration, optional
        The calibration with which the interval began.
    note : str, optional
        Why there is nothing to measure.
    problem : str, optional
        What went wrong last, such as a full disk; searches continue.
    earlier : tuple of RecallReport
        Earlier intervals, the latest first.
    """

    mean: float | None
    low: float
    high: float
    queries: int
    dropped: int
    seconds: float
    since: str
    documents: int
    k: int
    confidence: float
    promises: dict[float, MeasuredRecall]
    calibration: RecallCalibration | None = None
    note: str | None = None
    problem: str | None = None
    earlier: tuple[RecallReport, ...] = ()

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if self.note is not None:
            return self.note
        if not self.queries:
            return "No sampled search has been measured yet."
        measured = MeasuredRecall(self.mean, self.low, self.high, self.queries)
        searches = "sampled search" if self.queries == 1 else f"{self.queries:,} sampled searches"
        best = "best one" if self.k == 1 else f"best {_WORDS.get(self.k, self.k)}"
        mean, _, ends = measured.text.partition(", ")
        return f"Of the last {searches}, {mean} of the {best} were found, {ends}."

    @property
    def text(self) -> str:
        """The report, several lines."""
        lines = [self.sentence]
        lines += [f"recall={promise:g}: {found.text}" for promise, found in self.promises.items()]
        if self.dropped:
            were = "was" if self.dropped == 1 else "were"
            lines.append(f"{counted(self.dropped, 'sampled search', 'sampled searches')} {were} dropped.")
        lines += [one for one in (self.calibration and self.calibration.text, self.problem) if one]
        for one in self.earlier[:1]:
            lines.append(f"Before {self.since[:10]}: {one.sentence}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON, with the sentence.

        Returns
        -------
        dict
        """
        return {**asdict(self), "sentence": self.sentence}


@dataclass
class Period:
    """The outcomes of sampled searches while the contents stay the same."""

    k: int
    contents: Contents
    since: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    dropped: int = 0
    seconds: float = 0.0
    seen: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_SEEN))
    calibration: RecallCalibration | None = None

    def add(self, other: Period) -> None:
        """Add the outcomes of another process, or of the time since the last save."""
        self.outcomes.update(other.outcomes)
        self.dropped += other.dropped
        self.seconds += other.seconds
        known = set(self.seen) if other.seen else ()
        self.seen.extend(key for key in other.seen if key not in known)
        self.since = min(self.since, other.since)
        self.calibration = self.calibration or other.calibration

    def is_like(self, other: Period) -> bool:
        """Return True if both are about the same contents."""
        return self.k == other.k and self.contents == other.contents

    def report(self, confidence: float, **facts: Any) -> RecallReport:
        """Return the report of this interval."""
        counts = by_promise(self.outcomes)
        total = measured_recall(sum(counts.values(), Counter()), confidence)
        promises = {one: measured_recall(of, confidence) for one, of in counts.items() if one}
        return RecallReport(
            total.mean, total.low, total.high, total.queries, self.dropped, round(self.seconds, 3), self.since,
            self.contents.documents, self.k, confidence, promises, self.calibration, **facts,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        outcomes = [[*outcome, times] for outcome, times in sorted(self.outcomes.items())]
        seen = base64.b64encode(b"".join(self.seen)).decode()
        return {
            "k": self.k, "contents": self.contents.to_dict(), "since": self.since, "outcomes": outcomes,
            "dropped": self.dropped, "seconds": round(self.seconds, 3), "seen": seen,
            "calibration": None if self.calibration is None else asdict(self.calibration),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Period:
        """Return the period of :meth:`to_dict`."""
        outcomes = Counter({(float(a), float(b)): int(times) for a, b, times in values["outcomes"]})
        keys = base64.b64decode(values["seen"])
        seen = [keys[at : at + _KEY_BYTES] for at in range(0, len(keys), _KEY_BYTES)]
        calibration = values["calibration"]
        return cls(
            int(values["k"]), Contents(**values["contents"]), str(values["since"]), outcomes,
            int(values["dropped"]), float(values["seconds"]), deque(seen, MOST_SEEN),
            None if calibration is None else _calibration(calibration),
        )  # fmt: skip


def _calibration(values: dict[str, Any]) -> RecallCalibration:
    recall = {
        float(promise): (MeasuredRecall(**before), MeasuredRecall(**after))
        for promise, (before, after) in values["recall"].items()
    }
    return RecallCalibration(values["queries"], recall)


class RecallState:
    """The periods of a meter, the latest last, in memory and perhaps in a file.

    Several processes can use one file: each adds what it counted since its last save,
    while it holds a lock of the file.  Threads can share a state; none of them waits
    for the disk except in :meth:`save`.
    """

    def __init__(self, file: Path | None, confidence: float) -> None:
        self._file = file
        self._confidence = confidence
        self._periods = [] if file is None or not file.exists() else read_periods(file)[0]
        self.renew()

    def renew(self) -> None:
        """Begin in another process, without what the parent process has to save."""
        self._lock = threading.Lock()
        self._unsaved: list[Period] = []

    @property
    def latest(self) -> Period | None:
        """The latest period; read its numbers with :meth:`outcomes` and `report`."""
        return self._periods[-1] if self._periods else None

    def begin(self, period: Period) -> None:
        """Begin a period."""
        with self._lock:
            self._periods = [*self._periods, period][-_PERIODS:]

    def count(self, outcomes: Iterable[Outcome] = (), **numbers: Any) -> None:
        """Count outcomes in the latest period; `numbers` are other fields of it."""
        with self._lock:
            latest = self._periods[-1]
            more = Period(latest.k, latest.contents, latest.since, Counter(outcomes), **numbers)
            latest.add(more)
            if self._file is not None:
                self._unsaved = with_counts(self._unsaved, more)

    def outcomes(self) -> dict[float, Counter[float]]:
        """Return how often each share occurred, by the promise of the search."""
        with self._lock:
            return {} if not self._periods else by_promise(self._periods[-1].outcomes)

    def report(self, **facts: Any) -> RecallReport:
        """Return the report of all periods, at least one."""
        with self._lock:
            periods = deepcopy(self._periods)
        return report_of(periods, self._confidence, **facts)

    def save(self) -> None:
        """Add what was counted to the file, and take over what others counted.

        Raise OSError or ValueError, as one sentence, if that fails; nothing is lost.
        """
        with self._lock:
            counted, self._unsaved = self._unsaved, []
        if self._file is None or not counted:
            return
        try:
            periods = self._merged(self._file, counted)
        except BaseException:
            with self._lock:
                self._unsaved = counted + self._unsaved
            raise
        with self._lock:
            for more in self._unsaved:  # counted meanwhile
                periods = with_counts(periods, more)
            self._periods = periods

    def _merged(self, file: Path, counted: Iterable[Period]) -> list[Period]:
        """Add what was counted to the file, and return its periods."""
        lock = filelock.FileLock(file.with_name(f".{file.name}.lock"))
        try:
            with named_errors(f"{file} could not be written"), lock.acquire(timeout=_PATIENCE):
                periods = read_periods(file)[0] if file.exists() else []
                for more in counted:
                    periods = with_counts(periods, more)
                content = [period.to_dict() for period in periods]
                write_json(file, {"version": _VERSION, "confidence": self._confidence, "periods": content})
                return periods
        except filelock.Timeout:
            raise OSError(f"{file} could not be written: another process holds its lock.") from None


def with_counts(periods: Sequence[Period], more: Period) -> list[Period]:
    """Return periods to one of which counts were added; this one becomes the latest."""
    same = next((one for one in periods if one.is_like(more)), None)
    same = same or Period(more.k, more.contents, more.since)
    same.add(more)
    return [*(one for one in periods if one is not same), same][-_PERIODS:]


def by_promise(outcomes: Counter[Outcome]) -> dict[float, Counter[float]]:
    """Return how often each share occurred, by the promise of the search."""
    counts: dict[float, Counter[float]] = {}
    for (promise, share), times in sorted(outcomes.items()):
        counts.setdefault(promise, Counter())[share] += times
    return counts


def read_periods(file: Path) -> tuple[list[Period], float]:
    """Return the periods of a state file, and the confidence of its intervals.

    Raise ValueError for a file that is damaged, or of another version.
    """
    with suppress(KeyError, TypeError, ValueError, AttributeError, IsADirectoryError):
        values = read_json(file)
        if values["version"] == _VERSION:
            periods = [Period.from_dict(period) for period in values["periods"]]
            return periods, float(values["confidence"])
    raise ValueError(f"{file} is not the state of a RecallMeter, or of another version. Remove it.")


def report_of(periods: Sequence[Period], confidence: float, **facts: Any) -> RecallReport:
    """Return the report of the latest period, with the earlier ones."""
    *before, latest = periods
    earlier = tuple(one.report(confidence) for one in reversed(before))
    return latest.report(confidence, earlier=earlier, **facts)


def read_report(file: Path) -> RecallReport | None:
    """Return the report of a state file; None if there is none, or no period in it."""
    periods, confidence = read_periods(file) if file.exists() else ([], 0.0)
    return report_of(periods, confidence) if periods else None
