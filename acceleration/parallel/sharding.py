"""Handlers for gates by which the blocks of a network work on one rank's tokens.

The first block of all gets this rank's part of what it is called with, every block gets its part of
what goes along tokens, the last one returns the whole image again. What the host does between
blocks happens on the parts; what it adds after the last block, on the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch

from ..attention.call import Arguments
from ..errors import AccelerationError
from ..families import Arg, BlockStack, Structure
from ..families.base import IMAGE, JOINED, TEXT, blocks_at
from ..families.tokens import Along, Count, Frames, Ranges, Rule, TokenPlan
from .exchange import attend
from .group import Group
from .layout import Layout

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""As of ``sampling.gates``."""

Host = Callable[..., torch.Tensor]


def why_whole(structure: Structure | None, network: Any) -> str | None:
    """Why a network's tokens cannot be split, as one sentence; None where they can."""
    network = getattr(network, "_orig_mod", network)
    name = type(network).__name__
    if structure is None:
        return f"{name} is not a diffusion transformer this pack knows, so it cannot be split."
    family = structure.family
    if not family.split:
        return (
            f"for {family.name} it is not described what runs along tokens, so several GPUs cannot "
            "share an evaluation of it: use split batch, or ComfyUI's MultiGPU CFG Split."
        )
    cls = f"{type(network).__module__}.{type(network).__qualname__}"
    if cls not in (*family.classes, *family.split_classes):
        return (
            f"{name} is a {family.name} that looks across tokens between its blocks, so several "
            "GPUs cannot share an evaluation of it: use split batch."
        )
    return None


class _Call:
    """The arguments of one call of a block, to be read and replaced."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = list(args), dict(kwargs)

    def read(self, arg: Arg) -> Any:
        return arg.read(tuple(self.args), self.kwargs)

    def write(self, arg: Arg, value: Any) -> None:
        if arg.keyword in self.kwargs:
            self.kwargs[arg.keyword] = value
        else:
            self.args[arg.position] = value


@dataclass(frozen=True)
class _Place:
    """Where a block stands."""

    stack: BlockStack
    plan: TokenPlan
    first: bool
    last: bool


class Sharding:
    """The handlers of one evaluation on one rank, and its attention override.

    Parameters
    ----------
    structure
        Of a network for which ``why_whole`` is None.
    group
        The ranks that share the evaluation.
    exchange
        ``auto``, ``ulysses`` or ``keys``.
    control
        What the network is given as ``control``: lists of what the host adds between blocks. It is
        changed, and put right again for every call of the network.
    """

    def __init__(
        self,
        structure: Structure,
        group: Group,
        exchange: str,
        control: dict[str, Any] | None = None,
    ) -> None:
        self._structure, self._group, self._exchange = structure, group, exchange
        self._control = control if control is not None else {}
        self._whole_adds = {name: list(adds) for name, adds in self._control.items() if adds}
        self._layout: Layout | None = None
        self._substitutes: dict[tuple[Any, Rule], tuple[Any, Any]] = {}
        self._over_tokens = self._calls = 0
        self._over: tuple[str, ...] = ()
        self._open = False
        self.attended = 0
        """Attention calls whose tokens were on several ranks."""
        self.held = ""
        """This rank's tokens, for people."""

    def gates(self, network: Any) -> list[tuple[torch.nn.Module, Handler]]:
        """A handler for every block, and for the attention of those that have other attention."""
        blocks = self._structure.blocks(network)
        found: list[tuple[torch.nn.Module, Handler]] = []
        for index, (stack, block) in enumerate(blocks):
            plan = self._structure.family.split[stack.path]
            place = _Place(stack, plan, index == 0, index == len(blocks) - 1)
            found.append((block, partial(self._block, place)))
            found += self._gates_of_attention(plan, block)
        for side in self._structure.family.side:
            plan = self._structure.family.split[side.path]
            for index, block in enumerate(blocks_at(network, side.path)):
                found.append((block, partial(self._side_block, plan, index == 0)))
                found += self._gates_of_attention(plan, block)
        return found

    def _gates_of_attention(
        self, plan: TokenPlan, block: torch.nn.Module
    ) -> list[tuple[torch.nn.Module, Handler]]:
        if not plan.attention:
            return []
        plain = getattr(block, "_orig_mod", block)
        return [(reduce(getattr, plan.attention.split("."), plain), self._attention)]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Surrounds a call of the network.

        Raises
        ------
        AccelerationError
            When its last block was not called, so that what came out is one rank's part.
        """
        self._open = False
        try:
            yield
        finally:
            self._substitutes.clear()
            self._layout = None
        if self._open:
            raise AccelerationError(
                "the last block of this model was not called (a patch replaces it or leaves it "
                "out), so its tokens cannot be split: use split batch."
            )

    def override(self, host: Host, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The host's attention override, around ``host``."""
        if not self._over_tokens:
            return host(*args, **kwargs)
        assert self._layout is not None
        self.attended += 1
        over = self._over[min(self._calls, len(self._over) - 1)] if self._over else ""
        self._calls += 1
        a = Arguments.of(args, kwargs)
        rest = {k: v for k, v in kwargs.items() if k not in _GIVEN_ANEW}
        if len(args) > 5:
            rest["attn_precision"] = args[5]

        def kernel(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int,
            mask: torch.Tensor | None, heads_first: bool, heads_first_out: bool,
        ) -> torch.Tensor:  # fmt: skip
            layouts = {"skip_reshape": heads_first, "skip_output_reshape": heads_first_out}
            return host(q, k, v, heads, mask=mask, **layouts, **rest)

        layout = self._layout.of(over) if over else self._layout
        return attend(a, layout, self._group, self._exchange, kernel)

    # ---------------------------------------------------------------- at the gates

    def _block(
        self,
        place: _Place,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        call = _Call(args, kwargs)
        if place.first:
            self._scatter(place, call)
        for rule in place.plan.rules:
            self._substitute(rule, call)
        self._over, self._calls = place.plan.over, 0
        self._over_tokens += not place.plan.attention
        try:
            output = original(*call.args, **call.kwargs)
        finally:
            self._over_tokens -= not place.plan.attention
        return self._gather(place.stack, output) if place.last else output

    def _side_block(
        self,
        plan: TokenPlan,
        first: bool,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A block beside the main ones, called when these have begun; what it gives is added to the
        parts of the image between them."""
        call, layout = _Call(args, kwargs), self._layout
        assert layout is not None
        for whole in plan.enters if first else ():
            call.write(whole.arg, _part(whole, call.read(whole.arg), layout))
        for rule in plan.rules:
            self._substitute(rule, call)
        self._over = plan.over
        return original(*call.args, **call.kwargs)

    def _attention(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._over_tokens += 1
        try:
            return original(*args, **kwargs)
        finally:
            self._over_tokens -= 1

    def _scatter(self, place: _Place, call: _Call) -> None:
        self._substitutes.clear()
        self._open = True
        streams = {n: place.stack.inputs[n] for n in (TEXT, IMAGE) if n in place.stack.inputs}
        lengths = {name: call.read(arg).shape[1] for name, arg in streams.items()}
        grain = self._grain(place.plan, call, lengths[IMAGE])
        layout = self._layout = Layout(self._group.rank, self._group.size, lengths, grain)
        self.held = (
            " and ".join(f"{layout.shares[n][layout.rank]} {n}" for n in streams) + " tokens"
        )
        for name, arg in streams.items():
            # Blocks write into their streams, which the host may still need as they were.
            call.write(arg, layout.take(call.read(arg), 1, name).clone())
        self._cut_adds(layout)

    @staticmethod
    def _grain(plan: TokenPlan, call: _Call, tokens: int) -> int:
        for rule in plan.rules:
            value = call.read(rule.arg) if isinstance(rule, Frames) else None
            if value is not None and value.ndim > 3 and value.shape[1] > 1:
                if tokens % value.shape[1]:
                    raise AccelerationError(
                        f"{tokens} tokens are not whole frames of {value.shape[1]} with a time of "
                        "their own each, so they cannot be split: use split batch."
                    )
                return int(tokens // value.shape[1])
        return 1

    def _cut_adds(self, layout: Layout) -> None:
        begin, end = layout.span(IMAGE)
        plans = self._structure.family.split
        last = len(self._structure.counts) - 1
        for number, stack in enumerate(self._structure.family.stacks):
            name = plans[stack.path].control
            whole = self._whole_adds.get(name, [])
            adds: list[torch.Tensor | None] = [
                None if add is None else add[:, begin : min(end, add.shape[1])] for add in whole
            ]
            at = self._structure.counts[number] - 1
            if number == last and at < len(adds):
                # The host adds it to what was gathered.
                adds[at] = whole[at]
            if whole:
                self._control[name] = adds

    def _substitute(self, rule: Rule, call: _Call) -> None:
        value, layout = call.read(rule.arg), self._layout
        if value is None:
            return
        assert layout is not None
        # The host gives every block the same; what it was is kept, so that its identity stays.
        by_identity = isinstance(value, torch.Tensor | tuple) or not isinstance(
            rule, Ranges | Count
        )
        key = (id(value) if by_identity else repr(value), rule)
        if key not in self._substitutes:
            self._substitutes[key] = (_part(rule, value, layout), value)
        call.write(rule.arg, self._substitutes[key][0])

    def _gather(self, stack: BlockStack, output: Any) -> Any:
        layout, self._open = self._layout, False
        assert layout is not None
        sizes = layout.shares[IMAGE]
        if stack.is_joined:
            # The host cuts the text off, by the length that it has seen: this rank's.
            begin, end = layout.span(TEXT)
            joined = stack.read_output(JOINED, output)
            text, image = joined[:, : end - begin], joined[:, end - begin :]
            whole = torch.cat([text, self._group.gather(image, 1, sizes)], dim=1)
            return stack.pack_output({JOINED: whole})
        streams = {name: stack.read_output(name, output) for name in stack.outputs}
        streams[IMAGE] = self._group.gather(streams[IMAGE], 1, sizes)
        return stack.pack_output(streams)


_GIVEN_ANEW = frozenset({"q", "k", "v", "heads", "mask", "skip_reshape", "skip_output_reshape"})


def _part(rule: Rule, value: Any, layout: Layout) -> Any:
    """This rank's part of an argument."""
    if isinstance(rule, Along) and isinstance(value, tuple):
        found = (_part(rule, v, layout) if isinstance(v, torch.Tensor) else v for v in value)
        return tuple(found)
    if isinstance(rule, Along):
        if not isinstance(value, torch.Tensor):
            raise AccelerationError(
                f"{rule.arg.keyword} is a {type(value).__name__} here, which cannot be split along "
                "tokens (LTX-Video: guides with a strength of their own): use split batch."
            )
        return layout.take(value, rule.dim, rule.tokens).contiguous()
    if isinstance(rule, Ranges):
        return layout.cut(value, rule.tokens)
    if isinstance(rule, Count):
        return layout.count(value, rule.tokens)
    if value.ndim > 3 and value.shape[1] > 1:
        begin, end = layout.span(IMAGE)
        return value[:, begin // layout.grain : end // layout.grain]
    return value
