"""What a backend can take, as data, and the sentence for what it cannot."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .call import CallShape
from .device import DeviceFacts

HALF = frozenset({torch.float16, torch.bfloat16})
FLOATS = HALF | {torch.float32}

LOW_PRECISION_REFUSED = "this model asks for full precision here"


@dataclass(frozen=True)
class Limits:
    """Limits of one backend. The files in ``backends/`` name the source of each number."""

    devices: frozenset[str] | None = None
    """Kinds of device (``DeviceFacts.kind``); None is any."""
    capability: tuple[int, int] = (0, 0)
    """Lowest compute capability, asked on NVIDIA devices only."""
    capability_end: tuple[int, int] = (99, 0)
    """First compute capability that is too new."""
    dtypes: frozenset[torch.dtype] | None = None
    head_size: int | None = None
    """Largest head size."""
    head_sizes: frozenset[int] | None = None
    """The only head sizes, if not every one up to ``head_size``."""
    head_multiple: int = 1
    masks: frozenset[str] = frozenset({"none", "bool", "float"})
    grouped: bool = False
    """Whether it takes fewer key than query heads. If not, keys and values are repeated for it, as
    the host does, so this is no reason to refuse a call."""
    causal: bool = True
    causal_rectangle: bool = False
    """Whether causal attention may have other numbers of queries and keys."""
    scale: bool = True
    least_q_tokens: int = 1
    least_kv_tokens: int = 1
    value_size_differs: bool = False
    quantizes: bool = False

    def why_not(self, call: CallShape, device: DeviceFacts) -> str:
        """The first limit that a call exceeds, as part of a sentence; empty when it fits."""
        return self.why_not_device(device) or self._why_not_sizes(call) or self._why_not_kind(call)

    def why_not_device(self, device: DeviceFacts) -> str:
        """Why no call fits on a device; empty when some may."""
        if self.devices is not None and device.kind not in self.devices:
            return f"it needs {' or '.join(sorted(self.devices))}, this is {device}"
        if device.capability is not None:
            if device.capability < self.capability:
                return f"it needs compute capability {_dotted(self.capability)}, this is {device}"
            if device.capability >= self.capability_end:
                return f"it has no kernel for {device}"
        return ""

    def _why_not_sizes(self, call: CallShape) -> str:
        if self.dtypes is not None and call.dtype not in self.dtypes:
            return f"{_short(call.dtype)} not supported (only {_listed(map(_short, self.dtypes))})"
        size = call.head_size
        if self.head_size is not None and size > self.head_size:
            return f"head size {size} not supported (at most {self.head_size})"
        if self.head_sizes is not None and size not in self.head_sizes:
            return f"head size {size} not supported (only {_listed(self.head_sizes)})"
        if size % self.head_multiple:
            return f"head size {size} not supported (only multiples of {self.head_multiple})"
        if call.value_size != size and not self.value_size_differs:
            return f"head size {size} with values of {call.value_size} not supported"
        if call.q_tokens < self.least_q_tokens:
            return f"{call.q_tokens} queries are too few (at least {self.least_q_tokens})"
        if call.kv_tokens < self.least_kv_tokens:
            return f"{call.kv_tokens} keys are too few (at least {self.least_kv_tokens})"
        return ""

    def _why_not_kind(self, call: CallShape) -> str:
        if call.mask not in self.masks:
            return f"{call.mask} mask not supported"
        if call.causal and not self.causal:
            return "causal attention not supported"
        if call.causal and call.q_tokens != call.kv_tokens and not self.causal_rectangle:
            return "causal attention with unequal numbers of queries and keys not supported"
        if call.scaled and not self.scale:
            return "a scale of its own not supported"
        if call.full_precision and self.quantizes:
            return LOW_PRECISION_REFUSED
        return ""


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(items: object) -> str:
    return ", ".join(str(item) for item in sorted(items))  # type: ignore[call-overload]
