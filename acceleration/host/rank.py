"""One rank: a process that holds a network and computes its part of every evaluation.

Lives in an actor, where the host is imported but no server runs. What it is told comes from
``split_run`` in the process of the host.
"""

from __future__ import annotations

import functools
import importlib
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import torch

from ..attention import AttentionReport, AttentionSettings
from ..errors import AccelerationError
from ..failures import BeginAgainError
from ..families import Structure, describe
from ..lack_of_memory import is_out_of_memory
from ..parallel import Group, RankReport, Sharding, Together, World, peers_doing
from ..parallel.parcels import packed, unpacked
from ..parallel.rows import cut_rows
from ..report import EvaluationRecord, RunReport
from ..sampling.course import Call
from ..sampling.gates import installed
from ..sampling.run import SamplingRun
from ..schedule import Schedule
from . import prefetch
from .attention import OVERRIDE, PlacedRun
from .memory import HostMemory
from .split_orders import CachingOrder, EvaluationOrder, Loader, Opened, Outcome, RunOrder

log = logging.getLogger("dit_acceleration")

MOST_NETWORKS = 2
"""Networks that a rank keeps: Wan 2.2 samples with two in turn. The host's memory manager moves
them as it would in its own process."""


class _StoppedError(Exception):
    """The driver wants no more of this evaluation."""


class RankWorker:
    """See the module.

    Parameters
    ----------
    arguments
        The host's command line, as it was parsed.
    address
        At which other computers of the cluster reach this one.
    """

    def __init__(
        self, rank: int, size: int, arguments: dict[str, Any], address: str = "127.0.0.1"
    ) -> None:
        import comfy.cli_args

        for name, value in arguments.items():
            if hasattr(comfy.cli_args.args, name):
                setattr(comfy.cli_args.args, name, value)
        # Nothing can be exchanged within a recording of a block.
        comfy.cli_args.args.disable_cuda_graphs = True
        import comfy.model_management
        import folder_paths

        if arguments.get("user_directory"):
            # Calibrations are there.
            folder_paths.set_user_directory(arguments["user_directory"])
        self.rank, self._address = rank, address
        self._device: torch.device = comfy.model_management.get_torch_device()
        self._world = World(rank, size, self._device)
        self._models: dict[str, Any] = {}
        self._patcher: Any = None
        self._structure: Structure | None = None
        self._run: RunOrder | None = None
        self._caching: _Caching | None = None
        self._attention: PlacedRun | None = None
        self._stopped = threading.Event()
        self._held = ""

    # ---------------------------------------------------------------- before a run

    def hello(self) -> int:
        """It lives."""
        return self.rank

    def serve(self, only: int) -> str | None:
        """Where all may meet, told by one rank."""
        if self.rank != only:
            return None
        return f"{self._address}:{self._world.serve(self._address)}"

    def join(self, place: str, generation: int, limit: float) -> None:
        self._stopped.clear()
        self._world.join(place, generation, limit)

    def has(self, key: str, patches: Any) -> tuple[bool, bool]:
        """Whether a network is here, and with these patches."""
        model = self._models.get(key)
        return model is not None, model is not None and model.patches_uuid == patches

    def load(self, loader: Loader) -> None:
        """Load a network as the host's loader had loaded it.

        Raises
        ------
        AccelerationError
            When this computer lacks the file.
        """
        for path in (arg for arg in loader.args if isinstance(arg, str)):
            if Path(path).suffix and Path(path).is_absolute() and not Path(path).exists():
                raise AccelerationError(
                    f"the computer {socket.gethostname()} of the cluster has no file {path}: put "
                    "the model at the same place on all of them."
                )
        factory: Any = importlib.import_module(loader.module)
        for name in loader.name.split("."):
            factory = getattr(factory, name)
        with torch.inference_mode():
            found = factory(*loader.args)
        while len(self._models) >= MOST_NETWORKS:
            self._models.pop(next(iter(self._models)))
        self._models[loader.key] = found if loader.part is None else found[loader.part]

    def patch(self, key: str, patches: dict[str, list[Any]], patches_uuid: Any) -> None:
        """Take LoRAs and the like; the host merges them when it loads the weights."""
        model = self._models[key].clone()
        model.patches = patches
        model.patches_uuid = patches_uuid
        self._models[key] = model

    # ---------------------------------------------------------------- a run

    def open(self, key: str, order: RunOrder) -> Opened:
        """A sampling run begins: its weights come onto the device."""
        import comfy.model_management as management

        self._stopped.clear()
        self._models[key] = self._patcher = self._models.pop(key)
        self._run = order
        patcher = self._patcher
        with torch.inference_mode():
            needed = patcher.memory_required(list(order.shape))
            management.load_models_gpu([patcher], memory_required=needed)
        network = patcher.model.diffusion_model
        self._structure = describe(network)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._world.traffic.reset()
        self._held = ""
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        name = str(self._device)
        if self._device.type == "cuda":
            name = torch.cuda.get_device_name(self._device)
        return Opened(name, socket.gethostname(), weights)

    def open_caching(self, order: CachingOrder) -> None:
        self._caching = _Caching(order, self._patcher, self._device)

    def open_attention(self, settings: AttentionSettings) -> None:
        self._attention = PlacedRun(settings, {}, {})
        self._attention.check(self._device, self._patcher.model.get_dtype_inference())

    def close_caching(self, finished: bool) -> RunReport | None:
        caching, self._caching = self._caching, None
        return None if caching is None else caching.run.close(finished)

    def close_attention(self, finished: bool) -> AttentionReport | None:
        attention, self._attention = self._attention, None
        return None if attention is None else attention.close(finished)

    def close(self) -> RankReport:
        """The run is over; the weights stay."""
        self._caching = self._attention = None
        self._patcher = self._structure = None
        return self._so_far()

    def _so_far(self) -> RankReport:
        """What this rank has done in the run. On CUDA it waits for the last exchange, which the
        other ranks are at the end of as well."""
        traffic = self._world.traffic
        traffic.settle()
        peak = 0
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
        return RankReport(
            self.rank,
            "",
            held=self._held,
            peak=peak,
            sent=traffic.bytes,
            exchanges=traffic.calls,
            waited=traffic.seconds,
        )

    def stop(self) -> None:
        """Give up what is being evaluated, at the next block. Called from another thread."""
        self._stopped.set()

    # ---------------------------------------------------------------- an evaluation

    def evaluate(self, order: EvaluationOrder) -> Outcome:
        """This rank's part of an evaluation. What goes wrong is told, not raised."""
        part = _Part(self, order)
        try:
            with torch.inference_mode():
                return Outcome(part.compute(), part.record, so_far=self._so_far())
        except BeginAgainError as error:
            # What it was on the way: a setting fails in every attempt.
            outcome = part.failure or Outcome(again=str(error))
        except Exception as error:
            outcome = part.failure or told(error)
        self._world.leave()
        return outcome


class _Caching:
    """The caching run of one sampling run, on one rank."""

    def __init__(self, order: CachingOrder, patcher: Any, device: torch.device) -> None:
        self.together = Together(Group(0, 1), device)
        self._prediction = 0
        self.run = SamplingRun(
            order.technique,
            Schedule.from_sigmas(list(order.sigmas), order.sigma_max, order.gain),
            order.sampler,
            patcher.model.diffusion_model,
            order.window,
            HostMemory(patcher, order.branches),
            peers=self.together,
        )

    def at(self, prediction: int) -> None:
        """An evaluation belongs to a prediction."""
        if prediction != self._prediction:
            self._prediction = prediction
            self.run.begin_prediction()


class _Part:
    """One rank's part of one evaluation."""

    def __init__(self, worker: RankWorker, order: EvaluationOrder) -> None:
        self._worker, self._order = worker, order
        self.record: EvaluationRecord | None = None
        self.failure: Outcome | None = None
        """What went wrong inside the network, if it was nobody's lack of memory."""

    def compute(self) -> Any:
        worker, order = self._worker, self._order
        world, plan = worker._world, order.plan
        # Every rank asks for every group, also for those it is not in.
        groups = [world.group(team) for team in plan.teams]
        members = world.group(plan.members)
        team = plan.team_of(worker.rank)
        if team is None:
            return None
        if worker._caching is not None:
            mine = groups[team]
            assert order.course is not None and members is not None and mine is not None
            worker._caching.together.group, worker._caching.together.team = members, mine
            worker._caching.at(order.course.prediction)
        output = self._cached(team, groups[team])
        if plan.teams[team][0] != worker.rank:
            return None
        return packed(output)

    def _cached(self, team: int, group: Any) -> Any:
        worker, course = self._worker, self._order.course
        execute = functools.partial(self._network, team, group)
        if worker._caching is None or course is None:
            return execute()
        sigma = unpacked(course.sigma, worker._device)
        records = worker._caching.run.report.evaluations
        before = len(records)
        output = worker._caching.run.evaluate(
            Call(
                execute=execute,
                network=worker._patcher.model.diffusion_model,
                sigma=sigma,
                key=course.key,
                label=course.label,
                device=worker._device,
                conds=course.conds,
                part_lengths=course.part_lengths,
                obstacle=prefetch.obstacle,
                leave_out=prefetch.leave_out,
                outliving=prefetch.outliving,
                stage=course.stage,
            )
        )
        self.record = records[before] if len(records) > before else None
        return output

    def _network(self, team: int, group: Any) -> Any:
        """Call the network with this team's rows; its blocks get this rank's tokens."""
        try:
            return self._called(team, group)
        except Exception as error:
            if not is_out_of_memory(error):
                self.failure = self.failure or told(error)
            raise

    def _called(self, team: int, group: Any) -> Any:
        worker, order = self._worker, self._order
        assert worker._structure is not None and worker._run is not None
        args, kwargs, options = (
            unpacked(each, worker._device) for each in (order.args, order.kwargs, order.options)
        )
        begin, end = order.plan.span(team)
        if end - begin < order.rows:
            args = cut_rows(args, order.rows, begin, end)
            kwargs = cut_rows(kwargs, order.rows, begin, end)
            options |= cut_conds(options, order.rows, begin, end)
        patcher = worker._patcher
        network = patcher.model.diffusion_model
        dynamic = getattr(patcher, "is_dynamic", lambda: False)
        options["prefetch_dynamic_vbars"] = bool(dynamic())
        if worker._attention is not None:
            worker._attention.put_in(options)
        kwargs["transformer_options"] = options
        blocks = worker._structure.blocks(network)
        with installed([(block, worker_check(worker)) for _, block in blocks], around=True):
            worker._held = f"{end - begin} of {order.rows} rows"
            if group.size == 1:
                return network(*args, **kwargs)
            sharding = Sharding(
                worker._structure, group, worker._run.exchange, kwargs.get("control")
            )
            options[OVERRIDE] = functools.partial(_over_tokens, sharding, options.get(OVERRIDE))
            with installed(sharding.gates(network), around=True), sharding.whole():
                output = network(*args, **kwargs)
            worker._held += f", {sharding.held}"
            return output


def worker_check(worker: RankWorker) -> Any:
    """A handler that gives up where the driver wants no more."""

    def check(original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if worker._stopped.is_set():
            raise _StoppedError("stopped")
        return original(*args, **kwargs)

    return check


def _over_tokens(
    sharding: Sharding, kernel: Any, host: Any, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """The exchange around the kernel that Attention Backend has chosen, or the host's own."""
    chosen = host if kernel is None else functools.partial(kernel, host)
    return sharding.override(chosen, *args, **kwargs)


def cut_conds(options: dict[str, Any], rows: int, begin: int, end: int) -> dict[str, Any]:
    """Which conds these rows are of, in the host's options."""
    conds = options.get("cond_or_uncond")
    if not conds or rows % len(conds):
        return {}
    each = rows // len(conds)
    first, last = begin // each, -(-end // each)
    return {
        name: options[name][first:last]
        for name in ("cond_or_uncond", "uuids")
        if isinstance(options.get(name), list)
    }


def told(error: Exception) -> Outcome:
    """What went wrong, for the driver."""
    if isinstance(error, _StoppedError):
        return Outcome(failure="stopped", kind="stopped")
    if isinstance(error, AccelerationError):
        return Outcome(failure=str(error), kind="setting")
    kind = "memory" if is_out_of_memory(error) else "peer" if peers_doing(error) else "model"
    text = next(iter(str(error).splitlines()), "")[:300]
    log.warning("An evaluation failed.", exc_info=error)
    return Outcome(failure=f"{type(error).__name__}: {text}", kind=kind)
