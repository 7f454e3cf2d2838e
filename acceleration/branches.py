"""What a sampling run remembers: its branches, the policies that decide for them, their memory.

A *branch* is one stream of evaluations that may share residuals: same device, same conds in the
same order, same context window, same patches, same shape.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .corrector import SAMPLERS
from .forecast import Forecast, make_forecast
from .parted_corrector import PartedCorrector
from .policies import Policy, RunInfo, Technique
from .report import RunReport
from .residual_store import ResidualStore, StoreFullError, bytes_of


class Memory(Protocol):
    """What a run asks of the host's memory."""

    branches: int
    """How many branches the run is expected to have."""

    def room(self, device: torch.device) -> int:
        """Bytes that residuals may take on a device, as things are now."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that memory ran out."""
        ...


@dataclass
class Branch:
    """State of one stream of evaluations."""

    name: str
    label: str
    device: torch.device
    forecast: Forecast
    corrector: PartedCorrector | None = None
    policy: Policy | None = None
    position: float | None = None
    shape: torch.Size | None = None
    """Shape of the hidden state at the last computed evaluation."""


class Branches:
    """The branches of one run, by their identity. Threads of several devices may use it."""

    def __init__(self, technique: Technique, memory: Memory, sampler: str = "") -> None:
        self._technique = technique
        self._memory = memory
        self._sampler = sampler
        self._lock = threading.RLock()
        self._branches: dict[Hashable, Branch] = {}
        self._policies: dict[tuple[torch.device, int], Policy] = {}
        self._named = 0
        self._store = ResidualStore("gpu", memory.room, 0)
        kept = self.new_forecast().tensors_kept
        self.expected_tensors = (kept + 1) * memory.branches
        """About how many tensors of the hidden state's size the run is going to keep."""
        self._store = ResidualStore(technique.residual_device, memory.room, self.expected_tensors)

    def find(self, key: Hashable, label: str, device: torch.device, conds: int = 1) -> Branch:
        """The branch with this identity, made when it is first met.

        ``conds`` says how many prompts are evaluated in one batch: these are one branch.
        """
        with self._lock:
            branch = self._branches.get(key)
            if branch is None:
                together = min(max(conds, 1), self._memory.branches)
                self._store.expected_tensors = self.expected_tensors // together
                self._named += 1
                branch = Branch(f"branch-{self._named}", label, device, self.new_forecast())
                branch.corrector = self._new_corrector()
                self._branches[key] = branch
            return branch

    def new_forecast(self) -> Forecast:
        """A forecast that knows nothing yet."""
        technique = self._technique
        return make_forecast(technique.calibrator, technique.taylorseer_order, self._store)

    def _new_corrector(self) -> PartedCorrector | None:
        """A corrector that owes nothing, where the user and the sampler allow one."""
        if not self._technique.corrector or self._sampler not in SAMPLERS:
            return None
        return PartedCorrector(SAMPLERS[self._sampler])

    def policy(self, branch: Branch, network: int, info: RunInfo) -> Policy:
        """The policy that decides for a branch: one for each device and network."""
        with self._lock:
            key = (branch.device, network)
            if key not in self._policies:
                self._policies[key] = self._technique.open(info)
            branch.policy = self._policies[key]
            return branch.policy

    def drop_abandoned(self, position: float) -> None:
        """Forget branches whose residual is too old to be used, such as windows that moved on."""
        with self._lock:
            old = [
                key
                for key, branch in self._branches.items()
                if branch.policy is not None
                and branch.position is not None
                and position - branch.position > branch.policy.max_age + 1
            ]
            if old:
                self._note()
            for key in old:
                branch = self._branches.pop(key)
                assert branch.policy is not None
                branch.policy.forget(branch.name)

    # ---------------------------------------------------------------- memory

    def why_dropped(self, error: Exception, device: torch.device, held: bool) -> str | None:
        """The sentence for the report when an error goes away by dropping what is remembered.

        ``held`` says that the evaluation at hand holds tensors of ours. With nothing held, a lack
        of memory is the host's affair: None.
        """
        if isinstance(error, StoreFullError):
            return str(error)
        if not self._memory.is_out_of_memory(error) or not (held or self._tensors(device)):
            return None
        size = bytes_of(self._tensors(device)) / 2**20
        return (
            f"memory ran out, so what this run remembered ({size:.1f} MiB) was dropped and the "
            "rest of it was computed in full: residual_device cpu, calibrator none or a smaller "
            "picture needs less"
        )

    def free(self, device: torch.device) -> None:
        """Free everything that is remembered for a device; other threads have other devices."""
        with self._lock:
            self._note()
            for branch in self._branches.values():
                if branch.device == device:
                    branch.forecast, branch.policy = self.new_forecast(), None
                    branch.corrector = None
            for key in [key for key in self._policies if key[0] == device]:
                self._policies.pop(key).close()

    def tell_memory(self, report: RunReport) -> None:
        """Write what is and was held into the report."""
        self._note()
        report.residual_placement = self._store.placement
        report.residual_peak_bytes = self._store.peak_bytes

    def explanation(self, report: RunReport) -> str:
        """Why little was skipped, as the policies see it."""
        reasons = (policy.explain(report) for policy in self._policies.values())
        return next((reason for reason in reasons if reason), "")

    def close(self) -> None:
        """Free everything."""
        with self._lock:
            for policy in self._policies.values():
                policy.close()
            self._policies.clear()
            self._branches.clear()
            self._store.close()

    def _tensors(self, device: torch.device | None = None) -> list[torch.Tensor]:
        with self._lock:
            branches = [b for b in self._branches.values() if device in (None, b.device)]
            policies = [p for (d, _), p in self._policies.items() if device in (None, d)]
        correctors = [b.corrector for b in branches if b.corrector is not None]
        holders: list[Any] = [*(b.forecast for b in branches), *correctors, *policies]
        return [tensor for holder in holders for tensor in holder.tensors()]

    def _note(self) -> None:
        # What is held grows until something is dropped: looking then and at the end is enough.
        self._store.note_bytes(bytes_of(self._tensors()))
