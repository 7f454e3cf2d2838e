"""Performance Mode on a MODEL: what it asks of the host, and what it leaves to other nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..attention import AttentionSettings
from ..failures import log_failure
from ..families import Structure
from ..families.base import PICTURE_GB, blocks_at
from ..performance import PerformanceSettings, compiling, residency
from ..performance.report import PerformanceReport
from ..policies.base import RunInfo
from ..policies.cost import Cost
from ..policies.outlook import USUAL_COST, outlook
from ..policies.planned import Planned
from ..report import RunReport
from ..sampling.listener import Guarded
from ..schedule import Schedule
from ..settings.sections import Resolved
from ..timing import Span
from .attention import ATTENTION_KEY, attach_attention
from .caching import KEY, attach
from .far_levers import split_of
from .levers import COMPILE_KEY, Lever, SwitchedOff, argument, lever_of, put, require_model, without
from .live_report import PRESETS_EVENT, LiveNode
from .memory import expected_branches, pages_weights
from .model import network_of, sampler_name, structure_of
from .quantize import would_help
from .wrapping import RunLever, Sampling

PERFORMANCE_KEY = "dit_acceleration.performance"
NAME = "Performance Mode"

PAGED = (
    "ComfyUI fetches them as they are used and keeps them while there is room (dynamic VRAM): left "
    "to it"
)

ELSEWHERE = "off, the model runs in processes of its own (Split Across GPUs)"


class PerformanceAttachment(RunLever):
    """The lever: decides when a run begins, as memory and schedule are known only then."""

    name = NAME
    key = PERFORMANCE_KEY

    def __init__(
        self, settings: PerformanceSettings, left: dict[str, str], node_id: str | None
    ) -> None:
        self.settings = settings
        self.left = left
        self.resolved: Resolved | None = None
        self.attention: Lever | None = None
        """The attention lever that this mode put on the model."""
        self.kept: Lever | None = None
        """The caching lever that another node had set before."""
        super().__init__(LiveNode.of(node_id))
        self._compile: Callable[..., Any] | None = None
        self._weights = ""

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """One reports and switches compiling, the other asks for memory when models are loaded."""
        from comfy.patcher_extension import WrappersMP

        return [*super().wrappers(), (WrappersMP.PREPARE_SAMPLING, self.prepare_sampling)]

    def prepare_sampling(self, executor: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        """PREPARE_SAMPLING: ``(model, noise_shape, conds, model_options, force_…)``."""
        try:
            kwargs |= self._wishes(model, args, kwargs)
        except Exception as error:
            log_failure(error)
        loaded = executor(model, *args, **kwargs)
        try:
            self._begin_timing(model, args, kwargs)
        except Exception as error:
            log_failure(error)
        return loaded

    def _begin_timing(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The time of the run counts from here, without what loading the model took."""
        given = argument(args, kwargs, 2, "model_options") or {}
        run = given.get("transformer_options", {}).get(PERFORMANCE_KEY)
        if isinstance(run, ModeRun):
            run.span = Span(model.load_device)

    def _wishes(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """What the host's loader is asked for, as keywords."""
        mode = self.settings.mode
        if mode == "manual":
            return {}
        if model.load_device.type == "cpu":
            self._weights = "the model runs on the CPU, where nothing is moved"
            return {}
        if pages_weights(model):
            # The host's loader takes neither of the two wishes below from such a model.
            self._weights = PAGED
            return {}
        found = residency.decide(mode, memory_of(model), _resident_gb(structure_of(model)))
        self._weights = found.why
        # What the caller asked for is not taken back, whether given by place or by name.
        if found.loads_whole and len(args) < 4 and not kwargs.get("force_offload"):
            return {"force_full_load": True}
        if found.offloads and len(args) < 5 and not kwargs.get("force_full_load"):
            return {"force_offload": True}
        return {}

    def _open(self, sampling: Sampling) -> ModeRun:
        patcher, steps = sampling.patcher, len(sampling.sigmas) - 1
        wrappers = sampling.options.get("wrappers", {})
        verdict = self._verdict(patcher, steps, COMPILE_KEY in wrappers.get("apply_model", {}))
        if split_of(sampling.options) is not None:
            verdict = ELSEWHERE
        report = PerformanceReport(settings=asdict(self.settings))
        report.came_from(self.resolved)
        if hint := would_help(patcher, steps):
            report.notice(hint)
        # When the run is planned, caching tells the node of every evaluation.
        planned = isinstance(getattr(lever_of(patcher, KEY), "technique", None), Planned)
        live = None if planned or self.shown is None else self.shown.listener()
        plain = RunReport(report.title(), steps=steps)
        compiled = self._compiled(patcher) if compiling.compiles(verdict) else None
        span = Span(patcher.load_device)
        run = ModeRun(report, patcher, verdict, wrappers, compiled, plain, Guarded(live), span)
        try:
            run.look_ahead(sampling)
        except Exception as error:
            log_failure(error)  # the table of presets is not worth the mode
        return run

    def _put_in(self, run: ModeRun, options: dict[str, Any]) -> None:
        if run.compiled is not None:
            run.wrappers.setdefault("apply_model", {})[COMPILE_KEY] = [run.compiled]
        run.live.began(run.plain)

    def _take_out(self, run: ModeRun, options: dict[str, Any]) -> None:
        if run.compiled is not None:
            run.wrappers["apply_model"].pop(COMPILE_KEY, None)

    def _close(self, run: ModeRun, finished: bool) -> None:
        report, plain = run.report, run.plain
        report.decisions = self._decisions(run.patcher, run.verdict)
        report.seconds = run.span.stop().seconds()
        plain.explanation = report.decided()
        report.outcome = plain.outcome = "finished" if finished else "interrupted"
        run.live.ended(plain)
        if self.shown is not None and finished and run.outlook:
            self.shown.send(PRESETS_EVENT, self._presets(run))

    def _presets(self, run: ModeRun) -> dict[str, Any]:
        """What each preset plans for this run's schedule and model, and what this one took."""
        return {
            "steps": run.plain.steps,
            "presets": run.outlook,
            "computed_cost": run.cost.computed,
            "skipped_cost": run.cost.skipped,
            "approximation": self.settings.approximation,
            "seconds": run.report.seconds,
        }

    def _verdict(self, patcher: Any, steps: int, compiled: bool) -> str:
        structure = structure_of(patcher)
        is_video = structure is not None and structure.family.is_video
        device = patcher.load_device.type
        return compiling.verdict(self.settings.mode, device, is_video, steps, compiled)

    def _compiled(self, patcher: Any) -> Callable[..., Any]:
        """The host's wrapper with every block compiled; made once, so that code is made once."""
        if self._compile is None:
            from comfy.patcher_extension import WrappersMP
            from comfy_api.torch_helpers import set_torch_compile_wrapper

            structure = structure_of(patcher)
            assert structure is not None
            keys = [
                f"diffusion_model.{stack.path}.{index}"
                for stack in structure.family.stacks
                for index in range(len(blocks_at(patcher.model.diffusion_model, stack.path)))
            ]
            other = patcher.clone()
            set_torch_compile_wrapper(other, backend="inductor", keys=keys)
            self._compile = other.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY)[0]
        return self._compile

    def _decisions(self, patcher: Any, verdict: str) -> dict[str, str]:
        if self.settings.mode == "manual":
            found = {"weights": "manual, left to ComfyUI"}
        else:
            found = {"weights": self._weights, "compile": verdict}
        # What people ask first: does it skip anything?
        found = self.left | {"approximation": self._approximation(patcher)} | found
        order = sorted(found, key=lambda lever: lever != "approximation")
        return {lever: found[lever] for lever in order if found[lever]}

    def _approximation(self, patcher: Any) -> str:
        """What became of the choice; a node behind this one may have taken its place."""
        asked, lever = self.settings.approximation, lever_of(patcher, KEY)
        if lever is not None and lever is not self.kept and not _is_ours(lever, self):
            return (
                f"{asked} gave way to {lever.name}, which comes after it on this model: keep one "
                "of the two"
            )
        if "approximation" in self.left:
            return self.left["approximation"]
        times = f", {self.settings.target_speedup:g} times asked for"
        return asked + (times if asked == "target" else "")


@dataclass
class ModeRun:
    """What a performance mode does for the length of one run."""

    report: PerformanceReport
    patcher: Any
    """The MODEL that is sampled."""
    verdict: str
    """Whether to compile, and why."""
    wrappers: dict[str, Any]
    """The host's wrappers of this run."""
    compiled: Callable[..., Any] | None
    """The wrapper that compiles the model, where this mode does."""
    plain: RunReport
    """What the node shows of a run in which it skips nothing."""
    live: Guarded
    span: Span
    """Of the sampling itself."""
    outlook: list[dict[str, Any]] = field(default_factory=list)
    """What each preset would plan; none for what is no transformer known here."""
    cost: Cost = USUAL_COST
    """What computed and skipped evaluations cost."""

    def look_ahead(self, sampling: Sampling) -> None:
        """Note what each preset would plan for this run."""
        structure = structure_of(sampling.patcher)
        if structure is None:
            return
        schedule = Schedule.from_sigmas(sampling.sigmas.tolist())
        name, network = sampler_name(sampling.sampler), network_of(sampling.patcher)
        device = sampling.patcher.load_device.type
        branches = expected_branches(sampling.guider)
        info = RunInfo(schedule, structure, name, network, device=device, branches=branches)
        self.outlook, self.cost = outlook(info), info.cost


def _resident_gb(structure: Structure | None) -> float:
    return structure.family.resident_gb if structure is not None else PICTURE_GB


def memory_of(patcher: Any) -> residency.Memory:
    """Memory of a model's device, as the host counts it."""
    import comfy.model_management

    device = patcher.load_device
    loaded = {id(m.model): m.model for m in comfy.model_management.current_loaded_models if m.model}
    others = [m for m in loaded.values() if m.load_device == device and not patcher.is_clone(m)]
    weights = int(patcher.model_size())
    return residency.Memory(
        free=int(comfy.model_management.get_free_memory(device)) + int(patcher.loaded_size()),
        weights=weights,
        all_weights=weights + sum(int(m.model_size()) for m in others),
    )


def attach_performance(
    model: Any,
    settings: PerformanceSettings,
    node_id: str | None = None,
    resolved: Resolved | None = None,
) -> Any:
    """A clone of a MODEL in a performance mode.

    Levers that other nodes have set on the model before stay as they are.

    Raises
    ------
    AccelerationError
        When the input is no MODEL.
    """
    require_model(model, NAME)
    left: dict[str, str] = {}
    before, kept = _theirs(model, ATTENTION_KEY), _theirs(model, KEY)
    model = _with_attention(model, settings, left)
    model = _with_approximation(model, settings, node_id, left)
    lever = PerformanceAttachment(settings, left, node_id)
    lever.resolved, lever.kept = resolved, kept
    lever.attention = lever_of(model, ATTENTION_KEY) if before is None else None
    return put(model, PERFORMANCE_KEY, lever)


def _theirs(model: Any, key: str) -> Lever | None:
    """A lever that another node has set, not an earlier Performance Mode."""
    lever = lever_of(model, key)
    earlier = lever_of(model, PERFORMANCE_KEY)
    if lever is None or (isinstance(earlier, PerformanceAttachment) and _is_ours(lever, earlier)):
        return None
    return lever


def _is_ours(lever: Lever, earlier: PerformanceAttachment) -> bool:
    planned = isinstance(getattr(lever, "technique", None), Planned)
    return planned or lever.name == NAME or lever is earlier.attention


def _with_attention(model: Any, settings: PerformanceSettings, left: dict[str, str]) -> Any:
    if _theirs(model, ATTENTION_KEY) is not None:
        left["attention"] = "set by Attention Backend, kept"
        return model
    # What an earlier Performance Mode chose goes with it.
    model = without(model, ATTENTION_KEY)
    if settings.mode != "speed":
        return model
    left["attention"] = "the fastest exact kernel, found by trying (see the attention report)"
    return attach_attention(model, AttentionSettings(backend="auto"))


def _with_approximation(
    model: Any, settings: PerformanceSettings, node_id: str | None, left: dict[str, str]
) -> Any:
    theirs = _theirs(model, KEY)
    if theirs is not None:
        left["approximation"] = f"set by {theirs.name}, kept"
        return model
    if settings.speedup is None:
        left["approximation"] = "off, every evaluation is computed"
        return without(model, KEY)
    technique = Planned(
        settings.speedup, settings.approximation, strict=settings.approximation == "target"
    )
    patched = attach(model, technique, node_id)
    lever = lever_of(patched, KEY)
    if isinstance(lever, SwitchedOff):
        left["approximation"] = f"off, {lever.why}"
    return patched
