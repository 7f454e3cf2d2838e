"""The model nobody has described: its structure is found by looking, and proved before it is used.

Looking: the ModuleList of like blocks that holds most of the parameters. Watching: one evaluation
that records the shapes of what goes into and comes out of every block. Proving: the same evaluation
again with all but the first block handed through and the recorded residual put in place; only if
that gives the same output is the structure trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..families import Arg, BlockStack, Family, Structure
from ..families.base import IMAGE
from ..forecasts.forecast import Streams
from .evaluation import Evaluation
from .gates import installed
from .passes import BlockPlan

MIN_BLOCKS = 4
MIN_SHARE = 0.5
"""Share of the network's parameters that a stack must hold to be worth skipping."""

TOLERANCE = 1e-2
"""Largest relative difference between computed and handed-through output; rounding of low precision
is far below it, a wrong structure far above."""


@dataclass
class _Seen:
    """One call of a block: shapes of the tensors it was given, by slot, and of what it returned."""

    slots: dict[Arg, torch.Size]
    outputs: tuple[torch.Size | None, ...]
    """None for what is no tensor."""
    packed: bool
    """Whether a tuple was returned."""


@dataclass
class _Watch:
    """What one evaluation shows of a list of blocks. Of tensors only two calls' results stay."""

    count: int
    calls: list[tuple[int, _Seen]] = field(default_factory=list)
    ends: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """Results of the first and of the last block; the network goes on to write into its own."""


@dataclass(frozen=True)
class Finding:
    """Outcome of probing: the model's output and either a structure or a reason."""

    output: Any
    structure: Structure | None
    reason: str = ""


def probe(network: Any, execute: Callable[[], Any]) -> Finding:
    """Run one evaluation while looking for the structure of an unknown network."""
    path = find_stack(network)
    if path is None:
        return Finding(execute(), None, "it has no stack of like blocks")
    blocks = list(network.get_submodule(path))
    watch = _Watch(len(blocks))
    plan = [(block, partial(_watch, watch, index)) for index, block in enumerate(blocks)]
    with installed(plan):
        output = execute()
    stack = _read_stack(path, watch.calls, len(blocks))
    if isinstance(stack, str):
        return Finding(output, None, stack)
    name = type(getattr(network, "_orig_mod", network)).__name__
    family = Family(name=name, classes=(), stacks=(stack,), results=stack.outputs)
    structure = Structure(family, (len(blocks),), source="structure found by probing")
    if not _proved(structure, network, execute, output, _residual(stack, watch)):
        return Finding(output, None, f"handing through {path} did not give the same output")
    return Finding(output, structure)


def find_stack(network: Any) -> str | None:
    """Path of the ModuleList of at least four like blocks with most parameters, or None."""
    total = sum(p.numel() for p in network.parameters()) or 1
    best: tuple[int, str] | None = None
    for path, module in network.named_modules():
        if not isinstance(module, torch.nn.ModuleList) or len(module) < MIN_BLOCKS:
            continue
        if len({type(block) for block in module}) != 1:
            continue
        size = sum(p.numel() for p in module.parameters())
        if size >= MIN_SHARE * total and (best is None or size > best[0]):
            best = size, path
    return best[1] if best else None


def _watch(
    watch: _Watch,
    index: int,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    slots = {
        Arg("", position): value.shape
        for position, value in enumerate(args)
        if isinstance(value, torch.Tensor)
    }
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor):
            slots[Arg(name, len(args) + 99)] = value.shape
    output = original(*args, **kwargs)
    outputs = output if isinstance(output, tuple) else (output,)
    shapes = tuple(o.shape if isinstance(o, torch.Tensor) else None for o in outputs)
    watch.calls.append((index, _Seen(slots, shapes, isinstance(output, tuple))))
    if index in (0, watch.count - 1):
        watch.ends[index] = tuple(o.clone() if torch.is_tensor(o) else o for o in outputs)
    return output


def _residual(stack: BlockStack, watch: _Watch) -> Streams:
    """What the blocks after the first one added, by stream."""
    first, last = watch.ends[0], watch.ends[watch.count - 1]
    return {name: last[i] - first[i] for i, name in enumerate(stack.outputs)}


def _read_stack(path: str, calls: list[tuple[int, _Seen]], count: int) -> BlockStack | str:
    """What the calls say about the stack, or why they do not say enough."""
    if [index for index, _ in calls] != list(range(count)):
        return f"the blocks of {path} are not each called once and in order"
    seen = [call for _, call in calls]
    first = seen[0]
    if any(shape is None for call in seen for shape in call.outputs):
        return f"the blocks of {path} return something other than tensors"
    if len({(call.outputs, call.packed) for call in seen}) != 1:
        return f"the blocks of {path} change the shape of the hidden state"
    if any(set(call.slots) != set(first.slots) for call in seen):
        return f"the blocks of {path} are not all called alike"
    inputs: dict[str, Arg] = {}
    for number, output in enumerate(first.outputs):
        fitting = [a for a, shape in first.slots.items() if shape == output]
        fitting = [a for a in fitting if a not in inputs.values()]
        if not fitting:
            return f"a result of the blocks of {path} is not one of their inputs"
        if len(fitting) > 1 and len(first.outputs) > 1:
            return f"it is not clear which input of the blocks of {path} is the hidden state"
        inputs[IMAGE if number == 0 else f"stream {number}"] = fitting[0]
    return BlockStack(path, inputs, tuple(inputs), packed=first.packed)


def _proved(
    structure: Structure, network: Any, execute: Callable[[], Any], output: Any, residual: Streams
) -> bool:
    """Whether reusing the residual at an unchanged input gives the output of computing."""
    plan = BlockPlan.of(structure.family, structure.block_count, 1, 0)
    if plan is None:
        return False
    again = Evaluation(plan, lambda _: residual)
    with installed(again.gates_for(structure.blocks(network))):
        found = _floats(execute())
    expected = _floats(output)
    if again.lost or expected.shape != found.shape:
        return False
    difference = (found - expected).abs().mean() / expected.abs().mean().clamp_min(1e-9)
    return bool(difference < TOLERANCE)


def _floats(output: Any) -> torch.Tensor:
    tensor: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return tensor.float()
