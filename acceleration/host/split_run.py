"""One sampling run whose network is in other processes, as the host's process sees it."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import cluster
from ..errors import AccelerationError
from ..failures import log_failure
from ..parallel import Plan, RankReport, SplitReport, cut_rows, plan
from ..parallel.parcels import is_plain, packed, unpacked
from ..parallel.report import NAME
from ..report import EvaluationRecord
from ..sampling.listener import Guarded, Listener
from .levers import PREFIX, argument
from .split_orders import Course, EvaluationOrder, Outcome, RunOrder
from .split_size import require_enough_tokens
from .wrapping import Sampling

if TYPE_CHECKING:
    from .split import SplitAttachment

log = logging.getLogger("dit_acceleration")

START_LIMIT, LOAD_LIMIT, EVALUATION_LIMIT, ANSWER_LIMIT = 300.0, 1800.0, 1800.0, 120.0
"""Seconds after which starting, loading, an evaluation and anything small have failed."""

PACK = __name__.split(".acceleration.")[0]

LEFT_HERE = frozenset(
    {"wrappers", "callbacks", "patches", "patches_replace", "optimized_attention_override"}
)
"""Options whose meaning is in this process, or that were looked at before sampling."""


def on_cpu() -> bool:
    """Whether processes of the CPU stand in the place of GPUs, as in tests."""
    return bool(os.environ.get("DIT_ACCEL_SPLIT_ON_CPU"))


class SplitRun:
    """Opened before sampling; the network's calls come to ``evaluate``.

    Raises
    ------
    AccelerationError
        When the processes cannot be started, or the model cannot be loaded in them.
    """

    def __init__(
        self,
        lever: SplitAttachment,
        sampling: Sampling,
        report: SplitReport,
        listener: Listener | None,
    ) -> None:
        self.report, self._lever = report, lever
        self._listener, self._steps = Guarded(listener), len(sampling.sigmas) - 1
        self.course: Course | None = None
        """Where the evaluation that begins now stands in a caching run."""
        self.records: list[EvaluationRecord] = []
        """What caching decided in the network's calls, added to by ``evaluate``."""
        self._shape = tuple(argument(sampling.args, sampling.kwargs, 0, "noise").shape)
        self.team = self._started(sampling)
        report.gpus = self.team.size
        self._load(sampling.patcher)

    def __deepcopy__(self, memo: dict[int, Any]) -> SplitRun:
        # The run travels in transformer_options, which other packs copy.
        return self

    # ---------------------------------------------------------------- before sampling

    def _started(self, sampling: Sampling) -> cluster.Team:
        lever, began = self._lever, time.perf_counter()
        address = lever.settings.ray_address
        size = lever.gpus or cluster.gpus_of(cluster.connect(address, 1))
        if size < 2:
            raise AccelerationError(
                f"the Ray cluster at {address} has {size} GPUs: it takes two or more to share a "
                "model."
            )
        if lever.whole is None:
            require_enough_tokens(lever.settings.split, size, sampling)
        try:
            team, new = cluster.team_of(address, size, not on_cpu(), _start, START_LIMIT)
        except (cluster.RankDiedError, cluster.TooLongError) as error:
            raise AccelerationError(f"{NAME}: {error}.") from error
        if new:
            self.report.started = time.perf_counter() - began
        return team

    def _load(self, patcher: Any) -> None:
        team, loader = self.team, self._lever.loader
        key, patches = loader.key, patcher.patches_uuid
        began = time.perf_counter()
        here = self._ask("has", key, patches)
        if not all(model for model, _ in here):
            self._ask("load", loader, limit=LOAD_LIMIT)
        if not all(same for _, same in here):
            self._ask("patch", key, _on_cpu(patcher.patches), patches, limit=LOAD_LIMIT)
        self._join()
        order = RunOrder(self._shape, self._lever.settings.exchange)
        opened = self._ask("open", key, order, limit=LOAD_LIMIT)
        if not all(model for model, _ in here):
            self.report.loaded = time.perf_counter() - began
        alone = len({one.computer for one in opened}) == 1
        self.report.ranks[:] = [
            RankReport(rank, one.device, "" if alone else one.computer, one.weights)
            for rank, one in enumerate(opened)
        ]
        assert team.size == len(opened)

    def _join(self) -> None:
        """Let the ranks meet, if they are not together."""
        team = self.team
        if team.joined:
            return
        team.generation += 1
        if self._lever.settings.ray_address:
            places = self._ask("serve", 0)
            place = next(place for place in places if place)
        else:
            team.folder = tempfile.TemporaryDirectory(prefix="dit_acceleration_")
            place = str(Path(team.folder.name, "ranks"))
        self._ask("join", place, team.generation, ANSWER_LIMIT)
        team.joined = True

    def _ask(self, name: str, *args: Any, limit: float = ANSWER_LIMIT) -> list[Any]:
        try:
            return self.team.ask(name, *args, limit=limit, watch=_let_cancel_through)
        except (cluster.RankDiedError, cluster.TooLongError) as error:
            raise AccelerationError(f"{NAME}: {error}.") from error

    # ---------------------------------------------------------------- levers inside

    def open_lever(self, what: str, order: Any) -> None:
        """Let every rank open what another lever asked for."""
        self._ask(f"open_{what}", order)

    def close_lever(self, what: str, finished: bool) -> list[Any]:
        """Close it; what every rank reports, None where it is gone."""
        if self.team.ended:
            return [None] * self.team.size
        return self._ask(f"close_{what}", finished)

    # ---------------------------------------------------------------- an evaluation

    def evaluate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the network, ``(x, timestep, …)`` with ``x`` of ``[B, C, …]``.

        Raises
        ------
        AccelerationError
            When something cannot travel, or a process ended.
        """
        began = time.perf_counter()
        order = self._order(args, kwargs)
        outcomes = self._outcomes(order)
        again = next((one.again for one in outcomes if one is not None and one.again), None)
        if again is not None:
            self.report.notice(again)
            self._join()
            outcomes = self._outcomes(order)
        self._require(outcomes)
        leaders = [team[0] for team in order.plan.teams]
        x = args[0]
        found = [outcomes[rank] for rank in leaders]
        parts = [unpacked(one.output, x.device) for one in found if one is not None]
        self.records += [one.record for one in found[:1] if one and one.record]
        self.report.seconds += time.perf_counter() - began
        self._tell(outcomes)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _tell(self, outcomes: list[Outcome | None]) -> None:
        """Show who holds what, after evaluations 1, 2, 4, 8, …: most are like those before them."""
        for rank, one in zip(self.report.ranks, outcomes, strict=True):
            if one is not None and one.so_far is not None:
                rank.take(one.so_far)
        if self.report.evaluations.bit_count() == 1:
            self._listener.began(self.report.shown(self._steps))

    def _order(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> EvaluationOrder:
        options = dict(kwargs.get("transformer_options") or {})
        rest = {name: value for name, value in kwargs.items() if name != "transformer_options"}
        for name in ("patches", "patches_replace"):
            if any((options.get(name) or {}).values()):
                raise AccelerationError(
                    f"a patch of {', '.join(options[name])} came onto the model in mid-run, which "
                    f"cannot travel to the processes of the GPUs: remove it, or {NAME}."
                )
        given: dict[str, Any] = {f"argument {i + 1}": one for i, one in enumerate(args)} | rest
        for name, value in given.items():
            if not is_plain(value):
                raise AccelerationError(
                    f"the model is called with {name} of type {type(value).__name__}, which cannot "
                    f"travel to the processes of the GPUs: remove what gives it, or {NAME}."
                )
        plain = {
            name: value
            for name, value in options.items()
            if name not in LEFT_HERE and not name.startswith(PREFIX) and is_plain(value)
        }
        rows = args[0].shape[0]
        shared = self._plan(args, rest, options, rows)
        return EvaluationOrder(packed(args), packed(rest), packed(plain), shared, rows, self.course)

    def _plan(
        self, args: tuple[Any, ...], rest: dict[str, Any], options: dict[str, Any], rows: int
    ) -> Plan:
        settings, size = self._lever.settings, self.team.size
        conds = len(options.get("cond_or_uncond", ()))
        whole = self._lever.whole
        found = plan(settings.split, size, rows, conds, whole is not None)
        if len(found.teams) > 1:
            try:
                cut_rows((args, rest), rows, 0, 1)
            except ValueError as error:
                if whole is not None:
                    raise AccelerationError(
                        f"{whole} Its batch cannot be either ({error})."
                    ) from None
                self.report.notice(f"rows of the batch could not be dealt out ({error})")
                found = plan("sequence", size, rows, conds)
        if whole is not None and settings.split != "batch":
            self.report.notice(whole.rstrip("."))
        self.report.shared[_described(found, rows)] += 1
        if len(found.members) < size:
            self.report.notice(
                f"{size - len(found.members)} of {size} GPUs had nothing to do where there were "
                f"only {len(found.members)} pictures or prompts: split auto uses them"
            )
        return found

    def _outcomes(self, order: EvaluationOrder) -> list[Outcome | None]:
        try:
            return self.team.ask(
                "evaluate",
                order,
                limit=EVALUATION_LIMIT,
                watch=_let_cancel_through,
                failed=lambda one: one is not None and one.failed,
            )
        except (cluster.RankDiedError, cluster.TooLongError) as error:
            raise AccelerationError(f"{NAME}: {error}.") from error

    @staticmethod
    def _require(outcomes: list[Outcome | None]) -> None:
        """Raise what went wrong, if anything did: what is nearest to the cause."""
        for kind in ("setting", "memory", "model", "stopped", "peer"):
            for rank, one in enumerate(outcomes):
                if one is None or not one.failure or one.kind != kind:
                    continue
                if kind == "setting":
                    raise AccelerationError(one.failure)
                where = f"rank {rank} of {NAME}: {one.failure}"
                if kind == "memory":
                    raise torch.OutOfMemoryError(where)
                raise RuntimeError(where)
        again = next((one.again for one in outcomes if one is not None and one.again), None)
        if again is not None:
            raise RuntimeError(f"{NAME}: an evaluation failed twice ({again})")
        if any(one is None for one in outcomes):
            raise AccelerationError(
                f"{NAME}: a process hung after another one had failed, so all were ended; the next "
                "run starts them again."
            )

    # ---------------------------------------------------------------- after it

    def close(self, finished: bool) -> SplitReport:
        """Free what the run held in the processes, and return the finished report."""
        report, team = self.report, self.team
        report.outcome = "finished" if finished else "interrupted"
        if not team.ended:
            try:
                # Not to be cancelled: what was sampled is there.
                closed = team.ask("close", limit=ANSWER_LIMIT)
                for mine, rank in zip(report.ranks, closed, strict=True):
                    mine.take(rank)
            except Exception as error:
                log_failure(error)
                team.end()
        if self._lever.settings.after_run == "release":
            team.end()
        self._listener.ended(report.shown(self._steps))
        return report

    def note_residuals(self, peaks: list[int]) -> None:
        """How many bytes caching kept, by rank."""
        for rank, peak in zip(self.report.ranks, peaks, strict=False):
            rank.residuals = peak


def _described(shared: Plan, rows: int) -> str:
    """What the GPUs shared, in words."""
    teams, size = len(shared.teams), len(shared.teams[0])
    if teams == 1 and size > 1:
        return f"tokens over {size}"
    of_rows = f"{rows} rows over {teams}"
    return of_rows if size == 1 else f"{of_rows}, tokens over {size} each"


def _start(address: str) -> dict[str, Any]:
    """What an actor is started with: where the host and the pack are, and the host's options."""
    import comfy.cli_args

    host = Path(comfy.cli_args.__file__).parents[1]
    pack = Path(__file__).parents[2]
    arguments = {
        name: value
        for name, value in vars(comfy.cli_args.args).items()
        if is_plain(value) and name not in ("listen", "port", "cuda_device", "default_device")
    }
    return {
        "pack": (PACK, str(pack)),
        "paths": [str(host)],
        "worker": ("acceleration.host.rank", "RankWorker"),
        "given": {"arguments": arguments},
    }


def _let_cancel_through() -> None:
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()


def _on_cpu(patches: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Patches of weights as they can be sent. They are as the LoRA's loader made them, on the CPU;
    what an earlier run has moved is brought back."""
    return {key: [_brought_back(patch) for patch in found] for key, found in patches.items()}


def _brought_back(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, list | tuple):
        return type(value)(map(_brought_back, value))
    return value


class BranchNumbers:
    """Numbers for what evaluations are called with: that itself holds objects of this process."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def of(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers))
