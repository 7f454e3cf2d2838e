"""Profiling of one sampling run: PyTorch's profiler or NVTX ranges, times and memory of every step.

The first evaluation is never traced: it loads weights, tunes kernels and compiles. The times of
the steps and what lies between them (set-up, starting and stopping the profiler) add up to the
time of the run.
"""

from __future__ import annotations

import gzip
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import profiler as autograd_profiler

from ..errors import AccelerationError
from ..families import describe
from ..schedule import Schedule
from ..timing import Moment
from .report import ProfileReport, StepRecord
from .trace import BLOCK, EVALUATION, RANGE, break_down

MODES = ("trace", "nvtx")
ALL = -1
TOP_OPERATIONS = 12


@dataclass(frozen=True)
class ProfileSettings:
    """What Profile Sampling was asked for."""

    evaluations: int = 5
    """How many evaluations are traced after the first; -1 is all, 0 is off."""
    mode: str = "trace"
    """``trace``: PyTorch's profiler and a file; ``nvtx``: only ranges, for ``nsys profile``."""
    record_shapes: bool = False
    with_stack: bool = False

    def __post_init__(self) -> None:
        if self.evaluations < ALL:
            raise AccelerationError(
                f"evaluations is {self.evaluations}, but must be {ALL} (all), 0 (off) or more."
            )
        if self.mode not in MODES:
            raise AccelerationError(f"mode is {self.mode!r}: choose {' or '.join(MODES)}.")


@dataclass(frozen=True)
class ProfiledCall:
    """One call of the host's model."""

    execute: Callable[[], Any]
    network: Any
    sigma: torch.Tensor
    """Current sigma, ``[B]``."""
    branch: str
    device: torch.device
    is_compiled: Callable[[], bool]
    """Whether parts of the network are compiled, into which no range may be put."""


@dataclass
class _Timed:
    """Moments of one evaluation, read at the end of the run."""

    call_sigma: torch.Tensor
    branch: str
    began: Moment
    traced: bool
    left_model: Moment | None = None
    ended: Moment | None = None
    memory: tuple[int, int | None] = (0, None)


class ProfileRun:
    """All state of profiling during one sampling run.

    Parameters
    ----------
    settings
        What was asked for; ``evaluations`` is not 0.
    schedule
        Sigmas of the run.
    device
        Where the model runs.
    output
        The host's output folder.
    new_file
        Makes the path of a new file in it from an ending.
    """

    def __init__(
        self,
        settings: ProfileSettings,
        schedule: Schedule,
        device: torch.device,
        output: Path,
        new_file: Callable[[str], Path],
    ) -> None:
        self.report = ProfileReport(settings=asdict(settings), device=str(device))
        self._settings = settings
        self._schedule = schedule
        self._device = device
        self._output = output
        self._new_file = new_file
        self._thread = threading.get_ident()
        self._opened = Moment(device)
        self._timed: list[_Timed] = []
        self._profiler: torch.profiler.profile | None = None
        self._running = False
        self._marking = False

    def __deepcopy__(self, memo: dict[int, Any]) -> ProfileRun:
        # The run travels in transformer_options, which other packs copy.
        return self

    # ---------------------------------------------------------------- one evaluation

    def evaluate(self, call: ProfiledCall) -> Any:
        """Run one evaluation, timed, and traced where it is its turn."""
        if threading.get_ident() != self._thread:
            self.report.notice(
                "evaluations on further GPUs run in threads of their own and are not followed"
            )
            return call.execute()
        self._end_step()
        index = len(self._timed)
        wanted = self._settings.evaluations
        if index == 1:
            self._start()
        elif wanted != ALL and index == wanted + 1:
            self._stop()
        if call.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(call.device)
        timed = _Timed(call.sigma, call.branch, Moment(call.device), self._marking)
        self._timed.append(timed)
        with self.mark(f"{EVALUATION} {index + 1}"), self._block_ranges(call):
            output = call.execute()
        timed.left_model = Moment(call.device)
        timed.memory = _memory(call.device)
        return output

    def _end_step(self) -> None:
        if self._timed:
            self._timed[-1].ended = Moment(self._device)

    def _start(self) -> None:
        self._marking = True
        if self._settings.mode == "nvtx":
            if self._device.type != "cuda":
                self._marking = False
                self.report.notice("NVTX ranges need a CUDA device, so none were made")
            return
        # Starting a second profiler would silently take the first one's place.
        if getattr(autograd_profiler, "_is_profiler_enabled", False):
            self.report.notice(
                "another PyTorch profiler is already running, so no file was written; our ranges "
                "are in its trace"
            )
            return
        profiler = torch.profiler.profile(
            activities=torch.profiler.supported_activities(),
            record_shapes=self._settings.record_shapes,
            with_stack=self._settings.with_stack,
            acc_events=True,  # There is one cycle only; without this PyTorch warns of losing some.
        )
        try:
            profiler.start()
        except RuntimeError as error:
            self._marking = False
            self.report.notice(f"PyTorch's profiler could not be started ({error})")
            return
        self._profiler, self._running = profiler, True

    def _stop(self) -> None:
        self._marking = False
        if self._running and self._profiler is not None:
            self._running = False
            self._profiler.stop()

    # ---------------------------------------------------------------- ranges

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """A range in the trace and for ``nsys``; nothing outside the traced evaluations."""
        if not self._marking or threading.get_ident() != self._thread:
            yield
            return
        on_cuda = self._device.type == "cuda"
        if on_cuda:
            torch.cuda.nvtx.range_push(RANGE + name)
        try:
            with torch.profiler.record_function(RANGE + name):
                yield
        finally:
            if on_cuda:
                torch.cuda.nvtx.range_pop()

    @contextmanager
    def _block_ranges(self, call: ProfiledCall) -> Iterator[None]:
        """Ranges of the blocks, by hooks that are gone afterwards."""
        structure = describe(call.network) if self._marking else None
        if structure is not None and call.is_compiled():
            self.report.notice("parts of the model are compiled, so blocks have no ranges")
            structure = None
        if structure is None:
            yield
            return
        opened: list[ExitStack] = []

        def begin(name: str) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                # A compiler that traces this hook must not keep it.
                if not torch.compiler.is_compiling():
                    opened.append(ExitStack())
                    opened[-1].enter_context(self.mark(f"{BLOCK} {name}"))

            return hook

        def end(*_: Any) -> None:
            if not torch.compiler.is_compiling() and opened:
                opened.pop().close()

        counts: dict[str, int] = {}
        with ExitStack() as hooks:
            hooks.callback(_close_all, opened)
            for stack, block in structure.blocks(call.network):
                number = counts[stack.path] = counts.get(stack.path, -1) + 1
                name = f"{stack.path}.{number}"
                hooks.callback(block.register_forward_pre_hook(begin(name)).remove)
                hooks.callback(block.register_forward_hook(end, always_call=True).remove)
            # Cancel passes by the hooks behind a block; what they left open is closed first.
            yield

    # ---------------------------------------------------------------- the end

    def close(self, finished: bool) -> ProfileReport:
        """Stop the profiler, write the files, and return the finished report."""
        report = self.report
        self._end_step()
        closed = Moment(self._device)
        try:
            self._stop()
            self._read_times(closed)
            report.outcome = "finished" if finished else "interrupted"
            if len(self._timed) == 1:
                report.notice("the run has one evaluation, and the first is never traced")
            elif self._settings.evaluations != ALL and finished:
                self._note_length()
            self._write()
        except (OSError, RuntimeError, ValueError) as error:
            # A profile that cannot be written must not cost the picture.
            report.notice(f"the profile could not be finished ({error})")
        finally:
            self._timed.clear()
            self._profiler = None
        return report

    def _note_length(self) -> None:
        wanted, there = self._settings.evaluations, len(self._timed) - 1
        if there < wanted:
            self.report.notice(f"{wanted} evaluations were asked for, the run has {there} to trace")

    def _read_times(self, closed: Moment) -> None:
        report = self.report
        report.seconds = closed.since(self._opened)
        positions: dict[str, float] = {}
        last = self._opened
        for index, timed in enumerate(self._timed):
            ended = timed.ended or closed
            waited = timed.began.since(last)
            if index == 0:
                report.setup_seconds = waited
            else:
                report.profiler_seconds += waited
            last = ended
            sigma = float(timed.call_sigma.flatten()[0])
            place = self._schedule.locate(sigma, positions.get(timed.branch))
            positions[timed.branch] = place
            report.steps.append(
                StepRecord(
                    evaluation=index + 1,
                    step=self._schedule.step_of(place),
                    sigma=sigma,
                    branch=timed.branch,
                    ms=1000 * ended.since(timed.began),
                    model_ms=1000 * (timed.left_model or ended).since(timed.began),
                    memory_bytes=timed.memory[0],
                    peak_bytes=timed.memory[1],
                    traced=timed.traced,
                )
            )

    def _write(self) -> None:
        report = self.report
        if self._profiler is None:
            if report.traced and self._settings.mode == "nvtx":
                path = self._new_file("steps.json")
                report.file = path.relative_to(self._output).as_posix()
                path.write_text(json.dumps(report.as_dict(), indent=1), encoding="utf-8")
            return
        path = self._new_file(".json.gz")
        self._profiler.export_chrome_trace(str(path))
        report.file = path.relative_to(self._output).as_posix()
        with gzip.open(path, "rt", encoding="utf-8") as file:
            report.breakdown = break_down(json.load(file)["traceEvents"])
        del report.breakdown.operations[TOP_OPERATIONS:]
        steps = path.with_name(path.name.replace(".json.gz", "steps.json"))
        steps.write_text(json.dumps(report.as_dict(), indent=1), encoding="utf-8")


def _close_all(opened: list[ExitStack]) -> None:
    while opened:
        opened.pop().close()


def _memory(device: torch.device) -> tuple[int, int | None]:
    """Bytes in use, and the most since the count was last begun anew (CUDA only)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    psutil: Any = importlib.import_module("psutil")  # The host needs it, too.
    return int(psutil.Process().memory_info().rss), None
