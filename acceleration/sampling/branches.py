"""What a sampling run remembers: its branches, the policies that decide for them, their memory.

A *branch* is one stream of evaluations that may share residuals: called alike (same device, same
conds in the same order, same context window, same patches, same shape), and each going on from the
one before; see ``tracks``.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from ..forecasts.corrector import SAMPLERS, Corrector
from ..forecasts.forecast import Forecast, make_forecast
from ..policies.base import Policy, Seen, Technique
from ..report import RunReport
from ..schedule import Stage
from ..signals import Alone, Peers, thinned
from ..store.residual_store import CPU, ResidualStore, StoreFullError, bytes_of
from .comparing import compare
from .passes import Look, Pass, Shapes
from .tracks import MOST, Track, choose, hand_turn

JUMPED = "signal jumped"
NOT_FINITE = "not a finite change"
NO_RESIDUAL = "no residual yet"

LONGEST_PAUSE = 8.0
"""Steps after which a branch that is not met any more is forgotten, however old its residual may
grow while it is."""


class Memory(Protocol):
    """What a run asks of the host's memory."""

    branches: int
    """How many branches the run is expected to have."""

    @property
    def device(self) -> str:
        """Kind of device that the model runs on."""
        ...

    def room(self, device: torch.device) -> int:
        """Bytes that residuals may take on a device, as things are now."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that memory ran out."""
        ...


@dataclass(eq=False)
class Branch(Track):
    """State of one stream of evaluations: what decides for it, what stands in, what it owes."""

    label: str = ""
    device: torch.device = CPU
    policy: Policy | None = None
    forecast: Forecast | None = None
    corrector: Corrector | None = None
    hidden: torch.Size | None = None
    """Shape of the hidden state at the last computed evaluation."""
    shapes: Shapes = field(default_factory=dict)
    """Those of its residual's streams."""
    track: torch.Tensor | None = None
    """What tells pictures apart, of the evaluation before."""
    last: torch.Tensor | None = None
    """What the policy goes by, of the evaluation before; the same tensor, mostly."""
    computed: torch.Tensor | None = None
    """The same of the last computed evaluation."""

    @property
    def extrapolates(self) -> bool:
        """Whether its forecast differs from the last residual."""
        return self.forecast is not None and self.forecast.extrapolates

    def learn(self, seen: Pass, step: int, position: float) -> None:
        """Remember a computed call of the network, of which signal and residual were taken."""
        assert self.policy is not None and self.forecast is not None and self.last is not None
        assert seen.signal is not None and seen.residual is not None
        self.hidden = seen.hidden_shape
        self.shapes = {name: value.shape for name, value in seen.residual.items()}
        self.computed = self.last
        self.policy.first_block(seen.first)
        self.policy.computed(step, self.last, seen.output)
        self.forecast.update(position, seen.residual, seen.signal)

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept."""
        signals = [t for t in (self.track, self.last, self.computed) if t is not None]
        holders = (self.policy, self.forecast, self.corrector)
        return signals + [t for holder in holders if holder for t in holder.tensors()]


@dataclass
class Group:
    """Branches of evaluations that were called alike."""

    branches: list[Branch] = field(default_factory=list)
    clocks: dict[int, float] = field(default_factory=dict)
    """Position of the last evaluation, by turn."""

    def free_number(self, label: str) -> str:
        """A label that no other branch here has: ``cond``, ``cond #2``, …"""
        taken = {branch.label for branch in self.branches}
        names = (label if n == 1 else f"{label} #{n}" for n in itertools.count(1))
        return next(name for name in names if name not in taken)


@dataclass(frozen=True)
class Meeting:
    """A branch as an evaluation found it."""

    branch: Branch
    seen: Seen
    blocked: str | None = None
    """Why nothing that the branch knows may be used."""


class Branches:
    """The branches of one run. Threads may use it."""

    def __init__(
        self, technique: Technique, memory: Memory, sampler: str = "", peers: Peers | None = None
    ) -> None:
        self._technique = technique
        self._peers = peers or Alone()
        self._memory = memory
        self._sampler = sampler
        self._lock = threading.RLock()
        self._groups: dict[Hashable, Group] = {}
        self._stages: dict[torch.device, Stage | None] = {}
        self._met = 0
        self._most_together = 1
        self.jumps = 0
        """How often an evaluation was far from what its branch had shown."""
        self._store = ResidualStore("gpu", memory.room, 0)
        kept = self.new_forecast().tensors_kept
        self.expected_tensors = (kept + 1) * memory.branches
        """About how many tensors of the hidden state's size the run is going to keep."""
        self._store = ResidualStore(
            technique.settings.residual_device, memory.room, self.expected_tensors
        )

    def clock(self, key: Hashable, turn: int) -> float | None:
        """Position of the last evaluation that was called so, None before the first."""
        with self._lock:
            group = self._groups.get(key)
            return None if group is None else group.clocks.get(turn)

    def meet(
        self,
        key: Hashable,
        turn: int,
        prediction: int,
        position: float,
        look: Look,
        make: Callable[[], Branch],
    ) -> Meeting:
        """The branch that an evaluation goes on with, and how its signals differ.

        This is where a decision waits for the device, once. The branch is busy until ``leave``.

        Parameters
        ----------
        key
            What the evaluation was called with.
        make
            Opens a branch.
        """
        policy_signal = thinned(look.signal)
        track = policy_signal if look.track is look.signal else thinned(look.track)
        with self._lock:
            group = self._groups.setdefault(key, Group())
            group.clocks[turn] = position
            found = compare(group.branches, track, policy_signal, self._peers)
            apart = [math.inf if math.isnan(c.track) else c.track for c in found]
            choice = choose(group.branches, apart, turn, prediction, position)
            branch, blocked = choice.track, None
            seen = Seen(policy_signal)
            if isinstance(branch, Branch):
                change = found[group.branches.index(branch)]
                branch.comes_twice = branch.comes_twice or branch.position == position
                if choice.jumped:
                    blocked = self._begin_anew(branch, change.track)
                else:
                    seen = Seen(policy_signal, change.last, change.computed)
                    branch.shown.append(change.track)
            else:
                branch = self._open(group, make(), turn, position)
            hand_turn(group.branches, branch, turn)
            self._met += 1
            branch.position, branch.prediction, branch.met = position, prediction, self._met
            branch.busy = True
            self._most_together = max(self._most_together, len(group.branches))
        branch.track, branch.last = track, policy_signal
        changes = (seen.since_last, seen.since_computed)
        if any(change is not None and not math.isfinite(change) for change in changes):
            seen, blocked = Seen(policy_signal), NOT_FINITE
        return Meeting(branch, seen, blocked)

    def leave(self, branch: Branch) -> None:
        """The evaluation is over."""
        branch.busy = False

    def expected(self, key: Hashable, turn: int, position: float) -> Branch | None:
        """The branch whose turn it is, for an evaluation that shows no signal."""
        with self._lock:
            group = self._groups.get(key)
            own = [b for b in group.branches if b.turn == turn] if group is not None else []
            branch = min(own, key=lambda b: b.met, default=None)
            if group is not None and branch is not None:
                self._met += 1
                group.clocks[turn] = branch.position = position
                branch.met = self._met
            return branch

    def new_branch(self, label: str, device: torch.device, policy: Policy, conds: int) -> Branch:
        """A branch that knows nothing yet.

        ``conds`` says how many prompts are evaluated in one batch: these are one branch.
        """
        together = min(max(conds, 1), self._memory.branches)
        self._store.expected_tensors = self.expected_tensors // together
        corrector = self._new_corrector()
        return Branch(
            0, 0.0, 0.0, label=label, device=device, policy=policy, corrector=corrector,
            forecast=self.new_forecast(),
        )  # fmt: skip

    def _open(self, group: Group, branch: Branch, turn: int, position: float) -> Branch:
        branch.turn, branch.born, branch.position = turn, position, position
        branch.label = group.free_number(branch.label)
        own = sorted((b for b in group.branches if not b.busy), key=lambda b: b.met)
        own = [b for b in own if b.turn == branch.turn]
        for oldest in own[: max(len(own) - MOST + 1, 0)]:
            self._note()
            group.branches.remove(oldest)
        group.branches.append(branch)
        return branch

    def _begin_anew(self, branch: Branch, change: float) -> str:
        """Forget what a branch knows. ``change`` is nan for no number, infinite for no fit."""
        self._note()
        branch.shown.clear()
        branch.computed = None
        branch.forecast = self.new_forecast()
        if branch.corrector is not None:
            branch.corrector.forget()
        if math.isnan(change):
            return NOT_FINITE
        if math.isinf(change):
            return NO_RESIDUAL
        self.jumps += 1
        return JUMPED

    def new_forecast(self) -> Forecast:
        """A forecast that knows nothing yet."""
        settings = self._technique.settings
        return make_forecast(
            settings.calibrator, settings.taylorseer_order, self._store, self._peers
        )

    def _new_corrector(self) -> Corrector | None:
        """A corrector that owes nothing, where the user and the sampler allow one."""
        if not self._technique.settings.corrector or self._sampler not in SAMPLERS:
            return None
        return Corrector(SAMPLERS[self._sampler])

    def drop_abandoned(self, device: torch.device, position: float) -> None:
        """Forget branches of a device whose residual is too old, such as windows that moved on."""
        with self._lock:
            old = [
                (key, branch)
                for key, group in self._groups.items()
                for branch in group.branches
                if branch.device == device and not branch.busy and _abandoned(branch, position)
            ]
            if old:
                self._note()
            for key, branch in old:
                self._groups[key].branches.remove(branch)
            for key in {key for key, _ in old}:
                if not self._groups[key].branches:
                    del self._groups[key]

    # ---------------------------------------------------------------- memory

    def why_dropped(self, error: Exception, device: torch.device, held: bool) -> str | None:
        """The sentence for the report when an error goes away by dropping what is remembered.

        ``held`` says that the evaluation at hand holds tensors of ours. With nothing held, a lack
        of memory is the host's affair: None.
        """
        if isinstance(error, StoreFullError):
            return str(error)
        if not self._memory.is_out_of_memory(error) or not (held or self.holds(device)):
            return None
        size = bytes_of(self._tensors(device)) / 2**20
        return (
            f"memory ran out, so what this run remembered ({size:.1f} MiB) was dropped and the "
            "rest of it was computed in full: residual_device cpu, calibrator none or a smaller "
            "picture needs less"
        )

    def holds(self, device: torch.device) -> bool:
        """Whether there is anything to free on a device."""
        return bool(self._tensors(device))

    def free(self, device: torch.device) -> None:
        """Free everything that is remembered for a device; other threads have other devices."""
        with self._lock:
            self._note()
            for group in self._groups.values():
                group.branches = [b for b in group.branches if b.device != device]

    def enter(self, device: torch.device, stage: Stage | None) -> None:
        """A device is in a stage from here on: what it remembers of another one is freed."""
        if self._stages.setdefault(device, stage) != stage:
            self._stages[device] = stage
            self.free(device)

    def tell_memory(self, report: RunReport) -> None:
        """Write what is and was held into the report."""
        self._note()
        report.residual_placement = self._store.placement
        report.residual_peak_bytes = self._store.peak_bytes

    def explanation(self, report: RunReport, little: bool) -> str:
        """What limited the run, and with ``little`` skipped also why, as the policies see it."""
        all_ = [branch.policy for branch in self._all() if branch.policy is not None]
        asked = [each.advise for each in all_] + [each.explain for each in all_ if little]
        return next((reason for ask in asked if (reason := ask(report))), "")

    def promised(self) -> float:
        """How many times faster the policies planned to make the run; 0 where none did."""
        return max((b.policy.promised for b in self._all() if b.policy is not None), default=0.0)

    def notices(self) -> list[str]:
        """What was done to keep evaluations apart that look alike."""
        found = []
        if self._most_together > 1:
            found.append(
                f"up to {self._most_together} evaluations of a step were called alike (tiles, a "
                "second pass of guidance, pictures side by side), so each was followed for itself"
            )
        if self.jumps:
            found.append(
                f"{self.jumps} evaluation{'s' if self.jumps > 1 else ''} came far from what the "
                "branch had shown, as if from another picture: computed, and the branch began anew"
            )
        return found

    def close(self) -> None:
        """Free everything."""
        with self._lock:
            self._groups.clear()
            self._store.close()

    def _all(self) -> list[Branch]:
        with self._lock:
            return [branch for group in self._groups.values() for branch in group.branches]

    def _tensors(self, device: torch.device | None = None) -> list[torch.Tensor]:
        branches = [b for b in self._all() if device in (None, b.device)]
        return [tensor for branch in branches for tensor in branch.tensors()]

    def _note(self) -> None:
        # What is held grows until something is dropped: looking then and at the end is enough.
        self._store.note_bytes(bytes_of(self._tensors()))


def _abandoned(branch: Branch, position: float) -> bool:
    """Whether a branch was not met for longer than its residual may be used."""
    age = branch.policy.max_age if branch.policy is not None else 0.0
    return position - branch.position > min(age, LONGEST_PAUSE) + 1
