"""Actors that work as one: asked together, waited for with an end, and ended together."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from . import actor
from .connection import connect

log = logging.getLogger("dit_acceleration")

LOOK_EVERY = 0.2
"""Seconds between two looks at Cancel while ranks are waited for."""
STOPPED_WITHIN = 10.0
"""Seconds in which ranks that were told to stop must have stopped; they are ended else."""

ENVIRONMENT = {
    # The parent's allocator may be cudaMallocAsync, which runs out of memory in exchanges.
    "PYTORCH_CUDA_ALLOC_CONF": "backend:native",
    "CACHE_DIT_LOG_LEVEL": "ERROR",
}
ON_ONE_COMPUTER = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


class RankDiedError(Exception):
    """A process ended by itself, or was ended from outside. The message is a sentence."""


class TooLongError(Exception):
    """Ranks did not answer in time. The message is a sentence."""


class Team:
    """The actors of one address and number of ranks."""

    def __init__(self, ray: Any, actors: list[Any]) -> None:
        self._ray, self._actors = ray, actors
        self.generation = 0
        """How often the ranks have met; see ``parallel.World``."""
        self.joined = False
        """Whether they are together, as far as is known here."""
        self.ended = False
        self.folder: Any = None
        """Where ranks of one computer meet; it goes with the team."""

    @property
    def size(self) -> int:
        return len(self._actors)

    def ask(
        self,
        name: str,
        *args: Any,
        limit: float,
        watch: Callable[[], None] = lambda: None,
        failed: Callable[[Any], bool] = lambda result: False,
        each: list[Any] | None = None,
    ) -> list[Any]:
        """What every rank's worker returns.

        Parameters
        ----------
        args
            The same for all; ``each`` holds one further argument a rank.
        limit
            Seconds that all may take together.
        watch
            Called while waiting; what it raises ends the wait, and the ranks are told to stop.
        failed
            Whether a result says that this rank has given up, so that the others must be stopped.

        Raises
        ------
        RankDiedError, TooLongError
            The team is ended then.
        """
        shared = [self._ray.put(arg) for arg in args]
        asked = [
            one.do.remote(name, *shared, *([] if each is None else [each[rank]]))
            for rank, one in enumerate(self._actors)
        ]
        try:
            return self._await(asked, name, limit, watch, failed)
        except BaseException:
            self.joined = False
            raise

    def _await(
        self,
        asked: list[Any],
        name: str,
        limit: float,
        watch: Callable[[], None],
        failed: Callable[[Any], bool],
    ) -> list[Any]:
        ends, found, stopping = time.monotonic() + limit, {}, False
        pending = dict.fromkeys(asked)
        while pending:
            done, _ = self._ray.wait(list(pending), num_returns=1, timeout=LOOK_EVERY)
            for ref in done:
                pending.pop(ref)
                found[ref] = self._result(ref, asked.index(ref))
                if failed(found[ref]) and not stopping:
                    stopping, ends = True, min(ends, time.monotonic() + STOPPED_WITHIN)
                    self.stop()
            if pending and time.monotonic() > ends:
                if stopping:  # They hang in an exchange with a rank that is not there any more.
                    self.end()
                    return [found.get(ref) for ref in asked]
                late = [str(rank) for rank, ref in enumerate(asked) if ref in pending]
                self.end()
                raise TooLongError(
                    f"rank {' and '.join(late)} did not answer {name} within {limit:.0f} s, so the "
                    "processes of the GPUs were ended; the next run starts them again"
                )
            try:
                watch()
            except BaseException:
                self.stop()
                raise
        return [found[ref] for ref in asked]

    def _result(self, ref: Any, rank: int) -> Any:
        try:
            return self._ray.get(ref, timeout=STOPPED_WITHIN)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, Exception) else error) from None
        except self._ray.exceptions.RayError as error:
            self.end()
            raise RankDiedError(
                f"the process of rank {rank} ended ({type(error).__name__}), mostly for lack of "
                "memory, so the others were ended too; the next run starts them again"
            ) from error

    def stop(self) -> None:
        """Tell every rank to give up what it is doing, soon."""
        self.joined = False
        told = [one.say.options(concurrency_group="control").remote("stop") for one in self._actors]
        # Heard before anything else is asked, which it would stop as well.
        self._ray.wait(told, num_returns=len(told), timeout=STOPPED_WITHIN)

    def end(self) -> None:
        """End every process."""
        self.ended, self.joined = True, False
        for one in self._actors:
            try:
                self._ray.kill(one)
            except Exception as error:
                log.debug("An actor could not be ended: %s", error)


# An actor lives as long as somebody holds its handle, and Ray's connection is of the process, as
# these are. They hold no state of a run.
_teams: dict[tuple[str, int], Team] = {}


def team_of(
    address: str, size: int, on_gpus: bool, start: Callable[[str], dict[str, Any]], limit: float
) -> tuple[Team, bool]:
    """The team of an address and size, and whether it was started now.

    Parameters
    ----------
    on_gpus
        Whether each takes a GPU.
    start
        What an actor is started with, given the way in which ranks are to meet; see ``actor.Rank``.

    Raises
    ------
    AccelerationError
        When Ray cannot be reached.
    RankDiedError, TooLongError
        When a process does not start.
    """
    ray = connect(address, max(size, 1))
    team = _teams.get((address, size))
    if team is not None and not team.ended:
        return team, False
    for other in list(_teams.values()):
        other.end()  # They hold the GPUs that this one needs.
    _teams.clear()
    ray.cloudpickle.register_pickle_by_value(actor)
    given = start(address)
    given["environment"] = ENVIRONMENT | ({} if address else ON_ONE_COMPUTER)
    kind = ray.remote(concurrency_groups={"control": 1})(actor.Rank)
    here = f"split-{os.getpid()}-{time.monotonic_ns()}"
    actors = [
        kind.options(
            name=f"{here}-rank-{rank}-of-{size}",
            # Ray has as many as the first team needed; a larger one would wait for more.
            num_cpus=0,
            num_gpus=1 if on_gpus else 0,
            max_restarts=0,
        ).remote({**given, "given": {**given["given"], "rank": rank, "size": size}})
        for rank in range(size)
    ]
    team = _teams[address, size] = Team(ray, actors)
    team.ask("hello", limit=limit)
    return team, True


def end_all() -> None:
    """End every process that was started here."""
    for team in _teams.values():
        team.end()
    _teams.clear()
