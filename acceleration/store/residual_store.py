"""Where the tensors of a sampling run live.

Residuals are as large as the hidden state and several are kept per branch; the host's memory
manager does not see them. The store keeps them on the device while there is room, else in pinned
CPU memory, else in a compact form, within a budget of bytes for each place.

On CUDA the way to the CPU has a stream of its own, so that the model goes on meanwhile: the stream
waits for the tensor, ``record_stream`` keeps the tensor's memory from being reused before it has
been read, and an event keeps readers from the copy before it has arrived. The way back is queued
on the reader's own stream, since the reader needs it at once. The processor waits for neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from .compact import FULL, STORAGES, coarsest_on, pack, packed_bytes, shrinks, unpack

CPU = torch.device("cpu")

Room = Callable[[torch.device], int]
"""Bytes that residuals may take on a device."""


class StoreFullError(Exception):
    """What a run keeps does not fit into its budget; the message is a sentence for the report."""


class _Held:
    """Bytes held in each place, now and at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, int] = {}
        self.used: dict[str, None] = {}

    def now(self, place: str) -> int:
        return self._now.get(place, 0)

    def change(self, place: str, size: int) -> None:
        with self._lock:
            self._now[place] = self._now.get(place, 0) + size


class Kept:
    """A tensor in the store; gives its bytes back to the budget when the last reference goes."""

    __slots__ = ("_bytes", "_held", "_place", "dtype", "ready", "tensors")

    def __init__(
        self,
        tensors: tuple[torch.Tensor, ...],
        dtype: torch.dtype,
        held: _Held,
        place: str,
        ready: torch.cuda.Event | None = None,
    ) -> None:
        self.tensors = tensors
        """What is really kept, for the memory report."""
        self.dtype = dtype
        self.ready = ready
        """On CUDA: reached once a copy to pinned memory has arrived."""
        self._held, self._place = held, place
        self._bytes = sum(t.numel() * t.element_size() for t in tensors)
        held.change(place, self._bytes)

    def __del__(self) -> None:
        self._held.change(self._place, -self._bytes)


@dataclass(frozen=True)
class _Choice:
    """One way to keep a tensor."""

    device: torch.device
    storage: str

    @property
    def label(self) -> str:
        where = "cpu" if self.device.type == "cpu" else "gpu"
        return where if self.storage == FULL else f"{where} ({self.storage})"


@dataclass
class _Plan:
    """The ways open to tensors of one device, best first, and the one in use."""

    choices: list[_Choice]
    rooms: dict[str, int]
    """Budget in bytes by place; empty when the user chose the place."""
    index: int = 0


class ResidualStore:
    """Keeps tensors on their device, in (pinned) CPU memory, or in a compact form.

    ``auto`` takes, decided from real sizes at the first tensor, the first of these that has room
    for all tensors of a run: device, CPU, device in bf16, CPU in bf16, device in fp8, CPU in fp8.
    When the budget of that place fills all the same (more branches than expected), further tensors
    go to the next. Where the user chose the place there is no budget.

    Parameters
    ----------
    mode
        ``"auto"``; ``"gpu"`` (the tensor's own device) or ``"cpu"``, as it is or followed by
        ``"_bf16"`` or ``"_fp8"``.
    room
        Bytes that residuals may take on a device: the budget, asked once a device and run.
    expected_tensors
        How many tensors of the first one's size the run is going to keep.
    """

    def __init__(self, mode: str, room: Room, expected_tensors: int) -> None:
        self._mode = mode
        self._room = room
        self.expected_tensors = expected_tensors
        self._plans: dict[torch.device, _Plan] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._held = _Held()
        self._lock = threading.Lock()
        self.peak_bytes = 0

    @property
    def placement(self) -> str:
        """Where and how tensors were kept, such as ``"gpu"`` or ``"gpu, then cpu (fp8)"``."""
        return ", then ".join(self._held.used) or self._mode

    def held(self, device: torch.device) -> int:
        """Bytes that the store holds on a device now."""
        return self._held.now(str(device))

    def put(self, tensor: torch.Tensor) -> Kept:
        """Take a tensor that nobody else writes to. Where its device has no fp8, none is chosen.

        Raises
        ------
        StoreFullError
            When no place has room for it.
        """
        choice, storage = self._choose(tensor, coarsest_on(tensor.device))
        parts = pack(tensor, storage)
        self._held.used[choice.label] = None
        place = str(choice.device)
        if choice.device == tensor.device:
            return Kept(parts, tensor.dtype, self._held, place)
        if tensor.device.type != "cuda":
            return Kept(tuple(p.cpu() for p in parts), tensor.dtype, self._held, place)
        copies, ready = self._copy_to_pinned(parts)
        return Kept(copies, tensor.dtype, self._held, place, ready)

    @staticmethod
    def get(kept: Kept, device: torch.device) -> torch.Tensor:
        """The kept tensor on ``device``, only to be read."""
        parts = kept.tensors
        if parts[0].device != device:
            if kept.ready is not None and device.type == "cuda":
                torch.cuda.current_stream(device).wait_event(kept.ready)
            elif kept.ready is not None:
                kept.ready.synchronize()
            parts = tuple(p.to(device, non_blocking=kept.ready is not None) for p in parts)
        return unpack(parts, kept.dtype)

    def close(self) -> None:
        """Give pinned memory back to the system; torch would keep it for the process."""
        if not self._streams:
            return
        self._streams.clear()
        # The first name is that of torch 2.12 and later, the second that of 2.5 and later.
        public = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)
        empty = public or getattr(torch._C, "_host_emptyCache", None)
        if empty is not None:
            empty()

    def note_bytes(self, held: int) -> None:
        """Record how many bytes are held now."""
        self.peak_bytes = max(self.peak_bytes, held)

    # ---------------------------------------------------------------- the choice

    def _choose(self, tensor: torch.Tensor, coarsest: str) -> tuple[_Choice, str]:
        """The way that was chosen, as far as this tensor can bear it, and the storage it gets."""
        with self._lock:
            plan = self._plans.get(tensor.device)
            if plan is None:
                plan = self._plans[tensor.device] = self._plan(tensor, coarsest)
            while plan.index < len(plan.choices):
                choice = plan.choices[plan.index]
                borne = min(choice.storage, coarsest, key=STORAGES.index)
                storage = borne if shrinks(borne, tensor) else FULL
                if self._fits(plan, choice, packed_bytes(storage, tensor)):
                    return _Choice(choice.device, borne), storage
                plan.index += 1
            raise StoreFullError(self._full_sentence(plan))

    def _fits(self, plan: _Plan, choice: _Choice, size: int) -> bool:
        place = str(choice.device)
        return place not in plan.rooms or self._held.now(place) + size <= plan.rooms[place]

    def _plan(self, tensor: torch.Tensor, coarsest: str) -> _Plan:
        if self._mode != "auto":
            where, _, storage = self._mode.partition("_")
            return _Plan([_Choice(tensor.device if where == "gpu" else CPU, storage or FULL)], {})
        places = list(dict.fromkeys([tensor.device, CPU]))
        bearable = STORAGES[: STORAGES.index(coarsest) + 1]
        storages = [s for s in bearable if s == FULL or shrinks(s, tensor)]
        choices = [_Choice(device, storage) for storage in storages for device in places]
        plan = _Plan(choices, {str(device): max(self._room(device), 0) for device in places})
        for index, choice in enumerate(choices):
            needed = packed_bytes(choice.storage, tensor) * self.expected_tensors
            if self._fits(plan, choice, needed):
                plan.index = index
                return plan
        # Nowhere is room for all of it: take the most compact form and fill every place.
        plan.index = len(choices) - len(places)
        return plan

    def _full_sentence(self, plan: _Plan) -> str:
        rooms = ", ".join(
            f"{room / 2**20:.0f} MiB on {'cpu' if place == 'cpu' else 'gpu'}"
            for place, room in plan.rooms.items()
        )
        return (
            f"what this run has to remember does not fit into the memory that is left for it "
            f"({rooms}), so it was dropped and the rest of the run was computed in full: choose "
            "calibrator none, a smaller batch or a smaller picture"
        )

    # ---------------------------------------------------------------- copies

    def _copy_to_pinned(
        self, parts: Iterable[torch.Tensor]
    ) -> tuple[tuple[torch.Tensor, ...], torch.cuda.Event | None]:
        parts = tuple(parts)
        try:
            copies = tuple(torch.empty(p.shape, dtype=p.dtype, pin_memory=True) for p in parts)
        except RuntimeError:
            return tuple(p.cpu() for p in parts), None  # no more memory can be pinned
        device = parts[0].device
        with self._lock:
            stream = self._streams.get(device)
            if stream is None:
                stream = self._streams[device] = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for copy, part in zip(copies, parts, strict=True):
                copy.copy_(part, non_blocking=True)
                part.record_stream(stream)
            ready = torch.cuda.Event()
            ready.record(stream)
        return copies, ready


def tensors_of(kept: Iterable[Kept]) -> list[torch.Tensor]:
    """Every tensor that is really kept."""
    return [tensor for one in kept for tensor in one.tensors]


def bytes_of(tensors: list[torch.Tensor]) -> int:
    """Bytes of storage behind tensors, each storage counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
