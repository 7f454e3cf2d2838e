"""One model evaluation of one branch: what happens at its gates.

Compute: the first blocks run and their residual is taken; the policy decides to compute; the rest
runs; at the last gate the residual of the skippable blocks is taken. Reuse: after the first blocks
the hidden state plus the forecast residual is set aside, the blocks in between hand their input
through, and the last gate returns what was set aside. So adds that the host makes between blocks
(ControlNet, VACE) are inside the residual and count once.

Blocks and host write into hidden states in place, so every snapshot is a clone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from .families import BlockStack, SideBlocks
from .families.base import HIDDEN_STATE, IMAGE, JOINED, TEXT, Family, Tap
from .forecast import Streams
from .gates import Handler, untraced, untraced_itself


@dataclass(frozen=True)
class BlockPlan:
    """Which blocks play which part: ``[0, first)`` always run, ``[first, last]`` may be skipped."""

    first: int
    last: int
    kept: tuple[str, ...] = (IMAGE,)
    """Streams that are read after the skipped blocks; the others need no residual."""

    @classmethod
    def of(
        cls, family: Family, block_count: int, first_blocks: int, last_blocks: int
    ) -> BlockPlan | None:
        """The plan for a network, or None when no block is left to skip."""
        last = block_count - last_blocks - 1
        if first_blocks > last or last == 0:
            return None
        has_text = any(TEXT in stack.inputs for stack in family.stacks)
        text = (TEXT,) if last_blocks and has_text else ()
        return cls(first_blocks, last, family.results + text)


class BlockSkipped(Exception):  # noqa: N818 - a way out, not an error
    """Leaves the first block once its tapped input has decided that it need not run."""


@dataclass(frozen=True)
class TapPoint:
    """A tap and the submodule that it reads on this network."""

    tap: Tap = HIDDEN_STATE
    module: torch.nn.Module | None = None


Outliving = Callable[[], AbstractContextManager[Any]]

Decide = Callable[[torch.Tensor, torch.Size, bool], "Streams | None"]
"""Given the signal ``[B, L, D]``, the shape of the hidden state and whether blocks must run: the
residual to put in place, or None to compute."""


class Evaluation:
    """Handlers for the gates of one evaluation.

    Parameters
    ----------
    plan
        Parts of the blocks.
    decide
        Called once: after the first blocks, with their residual on the image stream; or, with no
        first blocks, with what the tap reads.
    tap
        Where the signal is read when there are no first blocks.
    outliving
        The context in which tensors are made that are there until the network has returned or
        longer; the host may lay out what a network allocates by itself.
    wants_output
        Whether a computed evaluation is to keep a copy of the image stream after the last skippable
        block.
    """

    def __init__(
        self,
        plan: BlockPlan,
        decide: Decide,
        tap: TapPoint | None = None,
        outliving: Outliving = nullcontext,
        wants_output: bool = False,
    ) -> None:
        self._plan = plan
        self.outliving = outliving
        self._wants_output = wants_output
        self._decide = decide
        self._tap = tap or TapPoint()
        self._tapped: torch.Tensor | None = None
        self._entry: Streams | None = None
        self._before: torch.Tensor | None = None
        self._base: Streams | None = None
        self._restored: Streams | None = None
        self._tokens = {IMAGE: 0, TEXT: 0}
        self.must_run = False
        self.hidden_shape: torch.Size | None = None
        self.output: torch.Tensor | None = None
        """Image stream after the last skippable block, on computed evaluations, where wanted."""
        self.signal: torch.Tensor | None = None
        self.residual: Streams | None = None
        self.returned = False
        self.repeated = False
        """Whether the blocks were called again; what the calls made belongs to none of them."""

    @property
    def skipped(self) -> bool:
        """Whether the decision was to reuse."""
        return self._restored is not None

    @property
    def holds(self) -> bool:
        """Whether tensors of ours are held for this evaluation."""
        held = (self._entry, self._before, self._base, self._restored, self.signal, self.residual)
        return any(tensors is not None for tensors in held)

    @property
    def lost(self) -> bool:
        """Whether blocks were handed through but the last gate was never reached."""
        return self.skipped and not self.returned

    def gates_for(
        self,
        blocks: list[tuple[BlockStack, torch.nn.Module]],
        idle: Sequence[tuple[SideBlocks, torch.nn.Module]] = (),
    ) -> list[tuple[torch.nn.Module, Handler]]:
        """A handler for every block that takes part; blocks that merely run get none.

        ``idle`` are the side blocks that need not run on a skipped evaluation.
        """
        plan = self._plan
        chosen: list[tuple[torch.nn.Module, Handler]] = []
        for side, block in idle:
            chosen.append((block, partial(untraced_itself(_run_side), self, side)))
        if plan.first == 0 and self._tap.module is not None:
            chosen.append((self._tap.module, self._tap_handler(self._tap)))
        shared: dict[str, Handler] = {}
        for index, (stack, block) in enumerate(blocks[: plan.last + 1]):
            if max(plan.first, 1) <= index < plan.last:
                if stack.path not in shared:
                    shared[stack.path] = self._middle(stack)
                chosen.append((block, shared[stack.path]))
                continue
            handler = self._handler(index, stack)
            if handler is not None:
                chosen.append((block, handler))
        return chosen

    def _tap_handler(self, point: TapPoint) -> Handler:
        if point.tap.output:
            return partial(untraced_itself(_run_output_tap), self)
        return partial(untraced_itself(_run_input_tap), self, point.tap, untraced(_settle))

    def _handler(self, index: int, stack: BlockStack) -> Handler | None:
        plan = self._plan
        if index == plan.first == 0:
            begin, hand_through = untraced(_begin), untraced(_hand_through)
            return partial(untraced_itself(_run_open), self, stack, begin, hand_through)
        if index < plan.first:
            enters, decides = index == 0, index == plan.first - 1
            return self._first(stack, enters, decides) if enters or decides else None
        return self._last(stack)

    def _first(self, stack: BlockStack, enters: bool, decides: bool) -> Handler:
        enter = untraced(_enter) if enters else None
        decide = untraced(_take_decision) if decides else None
        return partial(untraced_itself(_run_first), self, stack, enter, decide)

    def _middle(self, stack: BlockStack) -> Handler:
        return partial(untraced_itself(_run_middle), self, stack, untraced(_hand_through))

    def _last(self, stack: BlockStack) -> Handler:
        restore, capture = untraced(_restore), untraced(_capture)
        return partial(untraced_itself(_run_last), self, stack, restore, capture)

    def split(self, stack: BlockStack, output: Any) -> Streams:
        """Views of the kept streams in a block's output."""
        kept = self._plan.kept
        if stack.is_joined:
            joined, lengths = stack.read_output(JOINED, output), self.lengths
            streams = {IMAGE: stack.image_part(joined, *lengths)}
            if TEXT in kept:
                streams[TEXT] = stack.text_part(joined, *lengths)
            return streams
        return {name: stack.read_output(name, output) for name in stack.outputs if name in kept}

    @property
    def lengths(self) -> tuple[int, int]:
        """Numbers of text and of image tokens, as seen at the first block."""
        return self._tokens[TEXT], self._tokens[IMAGE]


# The compiler stays out of the handlers themselves, so that what differs from block to block
# and from evaluation to evaluation never makes it compile them again, but it enters the block's
# own forward, `original`. What they call beside that is kept out with all that it calls.


def _run_first(
    evaluation: Evaluation,
    stack: BlockStack,
    enter: Callable[..., None] | None,
    decide: Callable[..., None] | None,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if enter is not None:
        enter(evaluation, stack, args, kwargs)
    output = original(*args, **kwargs)
    if decide is not None:
        decide(evaluation, stack, output)
    return output


def _run_open(
    evaluation: Evaluation,
    stack: BlockStack,
    begin: Callable[..., None],
    hand_through: Callable[..., Any],
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    begin(evaluation, stack, args, kwargs)
    if evaluation._restored is None:
        try:
            return original(*args, **kwargs)
        except BlockSkipped:
            pass
    return hand_through(stack, args, kwargs)


def _run_input_tap(
    evaluation: Evaluation,
    tap: Tap,
    settle: Callable[..., None],
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if evaluation._entry is not None:
        settle(evaluation, kwargs[tap.keyword] if tap.keyword in kwargs else args[0])
        if evaluation._restored is not None:
            raise BlockSkipped
    return original(*args, **kwargs)


def _run_output_tap(
    evaluation: Evaluation,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    output = original(*args, **kwargs)
    if evaluation._tapped is None and evaluation.signal is None:
        evaluation._tapped = output
    return output


def _run_middle(
    evaluation: Evaluation,
    stack: BlockStack,
    hand_through: Callable[..., Any],
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if evaluation._restored is None:
        return original(*args, **kwargs)
    return hand_through(stack, args, kwargs)


def _run_side(
    evaluation: Evaluation,
    side: SideBlocks,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if evaluation._restored is None:
        return original(*args, **kwargs)
    return side.skip(args, kwargs)


def _run_last(
    evaluation: Evaluation,
    stack: BlockStack,
    restore: Callable[..., Any],
    capture: Callable[..., None],
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if evaluation._restored is not None:
        return restore(evaluation, stack, args, kwargs)
    output = original(*args, **kwargs)
    capture(evaluation, stack, output)
    return output


P = ParamSpec("P")
R = TypeVar("R")


def _outliving(
    function: Callable[Concatenate[Evaluation, P], R],
) -> Callable[Concatenate[Evaluation, P], R]:
    """Make what a function allocates in the evaluation's context for that."""

    @wraps(function)
    def outside(evaluation: Evaluation, *args: P.args, **kwargs: P.kwargs) -> R:
        with evaluation.outliving():
            return function(evaluation, *args, **kwargs)

    return outside


@_outliving
def _enter(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if _called_again(evaluation):
        return
    evaluation._before = stack.read_input(IMAGE, args, kwargs).clone()
    _note_call(evaluation, stack, args, kwargs)


def _called_again(evaluation: Evaluation) -> bool:
    """Whether the first block was called before in this evaluation.

    Qwen-Image 2.1 does so with the tokens of prompt and references, to keep their keys and values.
    """
    if evaluation.hidden_shape is None:
        return False
    evaluation.repeated = True
    evaluation._before = evaluation._base = evaluation._entry = evaluation.residual = None
    return True


def _note_call(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    evaluation.hidden_shape = stack.read_input(IMAGE, args, kwargs).shape
    evaluation.must_run = stack.must_run is not None and stack.must_run(args, kwargs)
    for name in evaluation._tokens:
        tokens = stack.read_input(name, args, kwargs)
        if tokens is not None:
            evaluation._tokens[name] = tokens.shape[1]


@_outliving
def _begin(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if _called_again(evaluation):
        return
    _note_call(evaluation, stack, args, kwargs)
    kept = [name for name in stack.outputs if name in evaluation._plan.kept]
    evaluation._entry = {name: stack.read_input(name, args, kwargs) for name in kept}
    tap = evaluation._tap.tap
    if tap == HIDDEN_STATE:
        _settle_on(evaluation, evaluation._entry[IMAGE])
    elif tap.output and evaluation._tapped is not None:
        _settle_on(evaluation, evaluation._tapped)
        evaluation._tapped = None


@_outliving
def _settle(evaluation: Evaluation, signal: torch.Tensor) -> None:
    _settle_on(evaluation, signal)


def _settle_on(evaluation: Evaluation, signal: torch.Tensor) -> None:
    """Decide on the streams as they entered the first block."""
    streams = evaluation._entry
    assert streams is not None
    evaluation._entry = None
    evaluation.signal = signal.clone()
    _apply_decision(evaluation, streams)


@_outliving
def _take_decision(evaluation: Evaluation, stack: BlockStack, output: Any) -> None:
    before = evaluation._before
    if before is None:
        return
    evaluation._before = None
    streams = evaluation.split(stack, output)
    if streams[IMAGE].shape != before.shape:
        return  # the first blocks change the number of tokens: nothing to compare
    evaluation.signal = _difference(streams[IMAGE], before)
    _apply_decision(evaluation, streams)


def _difference(value: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """``value - base``, in the memory of ``base`` (a clone of ours) where it fits."""
    if value.dtype != base.dtype:
        return value - base
    return torch.sub(value, base, out=base)


def _apply_decision(evaluation: Evaluation, streams: Streams) -> None:
    assert evaluation.signal is not None
    assert evaluation.hidden_shape is not None
    residual = evaluation._decide(evaluation.signal, evaluation.hidden_shape, evaluation.must_run)
    if residual is None:
        evaluation._base = {name: value.clone() for name, value in streams.items()}
    else:
        evaluation._restored = {name: streams[name] + residual[name] for name in streams}


def _hand_through(stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return stack.pack_output({s: stack.read_input(s, args, kwargs) for s in stack.outputs})


@_outliving
def _capture(evaluation: Evaluation, stack: BlockStack, output: Any) -> None:
    base = evaluation._base
    if base is None:
        return
    evaluation._base = None
    streams = evaluation.split(stack, output)
    if any(streams[name].shape != base[name].shape for name in base):
        return  # the skippable blocks change the number of tokens: no residual
    if evaluation._wants_output:
        evaluation.output = streams[IMAGE].clone()
    evaluation.residual = {name: _difference(streams[name], base[name]) for name in base}


@_outliving
def _restore(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    restored = evaluation._restored
    assert restored is not None
    evaluation.returned = True
    if stack.is_joined:
        joined = stack.read_input(JOINED, args, kwargs)
        text = restored.get(TEXT, stack.text_part(joined, *evaluation.lengths))
        return stack.pack_output({JOINED: stack.join(text, restored[IMAGE])})
    return stack.pack_output(
        {
            s: restored[s] if s in restored else stack.read_input(s, args, kwargs)
            for s in stack.outputs
        }
    )
