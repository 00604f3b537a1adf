"""Actors of a Ray cluster: one or several for each shard, asked together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..utils.checks import counted, import_extra, require_int, require_number

OnFailure = Literal["wait", "report"]

# Seconds between two attempts to reach a lost actor, which needs some seconds to start.
_PAUSE = 0.1

# Characters of a failure's reason in messages.
_REASON = 300


class ShardError(RuntimeError):
    """A shard did not answer, so the answer would be incomplete.

    The message names the shard.  Also raised for what shards cannot do, such as
    changes.
    """


class Answers(NamedTuple):
    """What the shards answered, and why others did not, by name."""

    found: dict[str, Any]
    failed: dict[str, str]


class Actors:
    """Processes on the machines of a cluster, each with the index of a shard.

    Ray starts an actor again, on another machine if necessary, when it or its machine
    is lost.  Several threads may ask at the same time.

    Parameters
    ----------
    kind : type
        The class of the actors, which are made with a folder, a number of threads and
        `options`.
    root : Path
        The folder of the shards, which all machines see under this name.
    names : list of str
        The folder of each shard in `root`.
    replicas, cores, timeout
        As for :meth:`muvera.distributed.RayIndex.open`.
    options
        Further arguments of each actor.
    """

    def __init__(
        self,
        kind: type,
        root: Path,
        names: list[str],
        *,
        replicas: int,
        cores: float,
        timeout: float,
        options: tuple[Any, ...] = (),
    ) -> None:
        ray = import_extra("ray", "ray", "Searching shards")
        copies = require_int("replicas", replicas, 1)
        reserved = require_number("cores", cores, 0.01)
        self.timeout = require_number("timeout", timeout, 0)
        threads = max(1, int(reserved))
        # Ray restarts a lost actor. `ask` repeats a lost call, or reports it.
        remote = ray.remote(kind).options(num_cpus=reserved, max_restarts=-1, scheduling_strategy="SPREAD")
        self.of_shards: Mapping[str, list[Any]] = {
            name: [remote.remote(str(root / name), threads, *options) for _ in range(copies)]
            for name in names
        }
        self._turns = itertools.count()
        self._root = root

    def first_answers(self, method: str) -> dict[str, Any]:
        """Wait until all actors have loaded their shards and answered a first call.

        Return one answer for each shard.  End the actors if one of them fails, and
        raise ShardError.
        """
        ray = import_extra("ray", "ray", "Searching shards")
        try:
            asked = {
                getattr(actor, method).remote(): name
                for name, copies in self.of_shards.items()
                for actor in copies
            }
            done, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=self.timeout)
            if waiting:
                raise ShardError(
                    f"{counted(len(waiting), 'actor')} of {len(asked)} did not load a shard of {self._root} "
                    f"within {self.timeout:g} seconds, such as {asked[waiting[0]]!r}. Does the cluster have "
                    "enough free cores (ray.available_resources())? Give fewer cores=, or a longer timeout=."
                )
            answers = {}
            for reference in done:
                try:
                    answers[asked[reference]] = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise ShardError(
                        f"{asked[reference]!r} of {self._root} cannot be loaded: {_reason(error)} All "
                        "machines must see the folder under this name."
                    ) from error
            return {name: answers[name] for name in self.of_shards}
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, arguments: tuple[Any, ...], on_failure: OnFailure = "wait") -> Answers:
        """Call a method of an actor of each shard, and return the answers in order.

        If all actors of a shard are lost, wait until one has started again, or with
        ``on_failure="report"`` do not wait.  A TypeError or ValueError of an actor is
        raised here.
        """
        ray = import_extra("ray", "ray", "Searching shards")
        turn = next(self._turns)
        deadline = time.monotonic() + self.timeout
        pending: dict[Any, tuple[str, int]] = {}  # each call, its shard and its attempt
        found: dict[str, Any] = {}
        failed: dict[str, str] = {}

        def call(name: str, attempt: int) -> None:
            actors = self.of_shards[name]
            actor = actors[(turn + attempt) % len(actors)]
            pending[getattr(actor, method).remote(*arguments)] = name, attempt

        for name in self.of_shards:
            call(name, 0)
        while pending and (left := deadline - time.monotonic()) > 0:
            for reference in ray.wait(list(pending), num_returns=1, timeout=left)[0]:
                name, attempt = pending.pop(reference)
                try:
                    found[name] = ray.get(reference)
                    failed.pop(name, None)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None)
                    if isinstance(cause, (ValueError, TypeError)):  # wrong queries
                        raise cause from None
                    failed[name] = _reason(error)
                    tried_all = attempt + 1 >= len(self.of_shards[name])
                    if tried_all and on_failure == "report":
                        continue
                    if tried_all:
                        time.sleep(_PAUSE)
                    call(name, attempt + 1)
        for name, _ in pending.values():
            failed.setdefault(name, f"no answer within {self.timeout:g} seconds.")
        return Answers({name: found[name] for name in self.of_shards if name in found}, failed)

    def failure(self, failed: Mapping[str, str]) -> str:
        """Return a sentence about shards that did not answer."""
        name, reason = next(iter(failed.items()))
        return (
            f"{len(failed)} of {counted(len(self.of_shards), 'shard')} did not answer, such as {name!r}: "
            f"{reason}"
        )

    def close(self) -> None:
        """End the actors; a second call does nothing."""
        ray = import_extra("ray", "ray", "Searching shards")
        for actor in itertools.chain.from_iterable(self.of_shards.values()):
            ray.kill(actor)
        self.of_shards = {}


def _reason(error: BaseException) -> str:
    """Return an error of Ray in one line, without the traceback of another process."""
    lines = str(error).strip().splitlines()
    text = lines[-1].strip() if lines else ""
    return f"{type(error).__name__}: {text[:_REASON].rstrip('.')}."
