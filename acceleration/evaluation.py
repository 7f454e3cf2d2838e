"""One model evaluation of one branch: what happens at its gates.

Compute: the first blocks run and their residual is taken; the policy decides to compute; the rest
runs; at the last gate the residual of the skippable blocks is taken. Reuse: after the first blocks
the hidden state plus the forecast residual is set aside, the blocks in between hand their input
through, and the last gate returns what was set aside. So adds that the host makes between blocks
(ControlNet, VACE) are inside the residual and count once.

Blocks and host write into hidden states in place, so every snapshot is a clone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from .families import BlockStack, SideBlocks
from .families.base import HIDDEN_STATE, IMAGE, JOINED, TEXT, Family, Tap
from .forecast import Streams
from .gates import Handler, untraced, untraced_itself
from .signals import thinned


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


Shapes = dict[str, torch.Size]
"""Of the streams that a residual is added to."""

Decide = Callable[["Look"], "Streams | None"]
"""Told what the first blocks show: the residual to put in place, or None to compute."""


Outliving = Callable[[], AbstractContextManager[Any]]
"""Opens the context in which tensors are made that are there until the network has returned or
longer: the host may lay out by itself what a network allocates."""


class Abandoned(Exception):  # noqa: N818 - a way out
    """Something of ours went wrong at a gate; what it was is its cause."""


@dataclass(frozen=True)
class Look:
    """What one call of the network shows before it is decided."""

    signal: torch.Tensor
    """What a policy goes by: the first blocks' residual, or what the tap reads."""
    track: torch.Tensor
    """What tells pictures apart: the same, or the hidden state where the tap reads no picture."""
    hidden: torch.Size
    """Shape of the hidden state as it entered the first block."""
    shapes: Shapes
    must_run: bool


@dataclass
class Pass:
    """One call of the network. Blocks and host write in place, so its tensors are clones."""

    entry: Streams | None = None
    before: torch.Tensor | None = None
    base: Streams | None = None
    restored: Streams | None = None
    tokens: dict[str, int] = field(default_factory=lambda: {IMAGE: 0, TEXT: 0})
    must_run: bool = False
    hidden_shape: torch.Size | None = None
    output: torch.Tensor | None = None
    """A copy of the image stream after the last skippable block, where it was computed and is
    wanted."""
    signal: torch.Tensor | None = None
    residual: Streams | None = None
    returned: bool = False
    ended: bool = False
    """Whether the last gate was reached."""

    @property
    def skipped(self) -> bool:
        """Whether the decision was to reuse."""
        return self.restored is not None

    @property
    def holds(self) -> bool:
        """Whether tensors of ours are held."""
        held = (self.entry, self.before, self.base, self.restored, self.signal, self.residual)
        return any(tensors is not None for tensors in held)

    @property
    def lost(self) -> bool:
        """Whether blocks were handed through but the last gate was never reached."""
        return self.skipped and not self.returned


class Evaluation:
    """Handlers for the gates of one evaluation.

    The network is called once in it, or more often where somebody's wrapper does so (a batch in
    parts, a second pass without guidance); each call begins at the first block.

    Parameters
    ----------
    plan
        Parts of the blocks.
    decide
        Called once a pass: after the first blocks, with their residual on the image stream; or,
        with no first blocks, with what the tap reads.
    tap
        Where the signal is read when there are no first blocks.
    begins
        Called at the beginning of every pass.
    outliving
        See ``Outliving``.
    wants_output
        Whether a computed pass is to keep its output.
    """

    def __init__(
        self,
        plan: BlockPlan,
        decide: Decide,
        tap: TapPoint | None = None,
        begins: Callable[[], None] = lambda: None,
        outliving: Outliving = nullcontext,
        wants_output: bool = False,
    ) -> None:
        self._plan = plan
        self._decide = decide
        self._tap = tap or TapPoint()
        self._begins = begins
        self._outliving = outliving
        self._wants_output = wants_output
        self._tapped: torch.Tensor | None = None
        self.passes: list[Pass] = []
        self.failure: Exception | None = None
        """What went wrong in our own work."""
        self.tangled = False
        """Whether blocks were called again before a pass had ended: nothing tells whose is what."""
        # Read by the handlers, which call nothing of ours that is not guarded.
        self.skips = False
        """Whether blocks are handed through now."""
        self.undecided = False
        """Whether the tap inside the first block is still to be reached."""

    @property
    def now(self) -> Pass:
        """The pass that has begun last."""
        return self.passes[-1]

    @property
    def holds(self) -> bool:
        """Whether tensors of ours are held for this evaluation."""
        return any(each.holds for each in self.passes)

    @property
    def lost(self) -> bool:
        """Whether a pass that skipped never reached its last gate."""
        return any(each.lost for each in self.passes)

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
        return partial(untraced_itself(_run_input_tap), self, point.tap, _settle_tapped)

    def _handler(self, index: int, stack: BlockStack) -> Handler | None:
        plan = self._plan
        if index == plan.first == 0:
            begin, hand_through = _begin, _hand_through
            return partial(untraced_itself(_run_open), self, stack, begin, hand_through)
        if index < plan.first:
            enters, decides = index == 0, index == plan.first - 1
            return self._first(stack, enters, decides) if enters or decides else None
        return self._last(stack)

    def _first(self, stack: BlockStack, enters: bool, decides: bool) -> Handler:
        enter = _enter if enters else None
        decide = _take_decision if decides else None
        return partial(untraced_itself(_run_first), self, stack, enter, decide)

    def _middle(self, stack: BlockStack) -> Handler:
        return partial(untraced_itself(_run_middle), self, stack, _hand_through)

    def _last(self, stack: BlockStack) -> Handler:
        return partial(untraced_itself(_run_last), self, stack, _restore, _capture)

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
        return self.now.tokens[TEXT], self.now.tokens[IMAGE]


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
    if not evaluation.skips:
        try:
            return original(*args, **kwargs)
        except BlockSkipped:
            pass
    return hand_through(evaluation, stack, args, kwargs)


def _run_input_tap(
    evaluation: Evaluation,
    tap: Tap,
    settle: Callable[..., None],
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if evaluation.undecided:
        settle(evaluation, kwargs[tap.keyword] if tap.keyword in kwargs else args[0])
        if evaluation.skips:
            raise BlockSkipped
    return original(*args, **kwargs)


def _run_output_tap(
    evaluation: Evaluation,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    output = original(*args, **kwargs)
    if evaluation._tapped is None:
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
    if not evaluation.skips:
        return original(*args, **kwargs)
    return hand_through(evaluation, stack, args, kwargs)


def _run_side(
    evaluation: Evaluation,
    side: SideBlocks,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if not evaluation.skips:
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
    if evaluation.skips:
        return restore(evaluation, stack, args, kwargs)
    output = original(*args, **kwargs)
    capture(evaluation, stack, output)
    return output


def guarded(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step of ours at a gate, whose error is told from one of the model's."""

    @functools.wraps(step)
    def safe(evaluation: Evaluation, *args: Any) -> Any:
        try:
            with evaluation._outliving():
                return step(evaluation, *args)
        except BlockSkipped:
            raise
        except Exception as error:
            evaluation.failure = error
            raise Abandoned from error

    return untraced(safe)


@guarded
def _enter(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    _begin_pass(evaluation, stack, args, kwargs)
    evaluation.now.before = stack.read_input(IMAGE, args, kwargs).clone()


def _begin_pass(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    evaluation._begins()
    if evaluation.passes and not evaluation.now.ended:
        evaluation.tangled = True
    evaluation.skips = evaluation.undecided = False
    now = Pass()
    evaluation.passes.append(now)
    now.hidden_shape = stack.read_input(IMAGE, args, kwargs).shape
    now.must_run = stack.must_run is not None and stack.must_run(args, kwargs)
    for name in now.tokens:
        tokens = stack.read_input(name, args, kwargs)
        if tokens is not None:
            now.tokens[name] = tokens.shape[1]


@guarded
def _begin(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    _begin_pass(evaluation, stack, args, kwargs)
    kept = [name for name in stack.outputs if name in evaluation._plan.kept]
    entry = {name: stack.read_input(name, args, kwargs) for name in kept}
    evaluation.now.entry = entry
    evaluation.undecided = True
    tap = evaluation._tap.tap
    if tap == HIDDEN_STATE:
        _settle(evaluation, entry[IMAGE])
    elif tap.output and evaluation._tapped is not None:
        _settle(evaluation, evaluation._tapped)
    evaluation._tapped = None


def _settle(evaluation: Evaluation, signal: torch.Tensor) -> None:
    """Decide on the streams as they entered the first block."""
    now = evaluation.now
    streams = now.entry
    assert streams is not None
    now.entry, evaluation.undecided = None, False
    now.signal = signal.clone()
    track = now.signal if signal is streams[IMAGE] else thinned(streams[IMAGE]).clone()
    _apply_decision(evaluation, streams, track)


@guarded
def _settle_tapped(evaluation: Evaluation, signal: torch.Tensor) -> None:
    _settle(evaluation, signal)


@guarded
def _take_decision(evaluation: Evaluation, stack: BlockStack, output: Any) -> None:
    now = evaluation.now
    before = now.before
    if before is None:
        return
    now.before = None
    streams = evaluation.split(stack, output)
    if streams[IMAGE].shape != before.shape:
        return  # the first blocks change the number of tokens: nothing to compare
    now.signal = _difference(streams[IMAGE], before)
    _apply_decision(evaluation, streams, now.signal)


def _difference(value: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """``value - base``, in the memory of ``base`` (a clone of ours) where it fits."""
    if value.dtype != base.dtype:
        return value - base
    return torch.sub(value, base, out=base)


def _apply_decision(evaluation: Evaluation, streams: Streams, track: torch.Tensor) -> None:
    now = evaluation.now
    assert now.signal is not None and now.hidden_shape is not None
    shapes = {name: value.shape for name, value in streams.items()}
    look = Look(now.signal, track, now.hidden_shape, shapes, now.must_run)
    residual = evaluation._decide(look)
    if residual is None:
        now.base = {name: value.clone() for name, value in streams.items()}
    else:
        now.restored = {name: streams[name] + residual[name] for name in streams}
        evaluation.skips = True


@guarded
def _hand_through(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return stack.pack_output({s: stack.read_input(s, args, kwargs) for s in stack.outputs})


def _end_pass(evaluation: Evaluation) -> None:
    evaluation.tangled = evaluation.tangled or evaluation.now.ended
    evaluation.now.ended = True


@guarded
def _capture(evaluation: Evaluation, stack: BlockStack, output: Any) -> None:
    now = evaluation.now
    _end_pass(evaluation)
    base = now.base
    if base is None:
        return
    now.base = None
    streams = evaluation.split(stack, output)
    if any(streams[name].shape != base[name].shape for name in base):
        return  # the skippable blocks change the number of tokens: no residual
    if evaluation._wants_output:
        now.output = streams[IMAGE].clone()
    now.residual = {name: _difference(streams[name], base[name]) for name in base}


@guarded
def _restore(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    restored = evaluation.now.restored
    assert restored is not None
    _end_pass(evaluation)
    evaluation.now.returned = True
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
