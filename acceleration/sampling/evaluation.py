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
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from ..families import BlockStack, SideBlocks
from ..families.base import IMAGE, JOINED, TEXT, Tap
from ..forecasts.forecast import Streams
from . import gate_steps
from .gates import Handler, untraced_itself
from .passes import BlockPlan, BlockSkipped, Decide, Outliving, Pass, TapPoint


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
    watches
        Whether a computed pass is to keep its output and, with no first blocks, what the first
        block added.
    """

    def __init__(
        self,
        plan: BlockPlan,
        decide: Decide,
        tap: TapPoint | None = None,
        begins: Callable[[], None] = lambda: None,
        outliving: Outliving = nullcontext,
        watches: bool = False,
    ) -> None:
        self._plan = plan
        self._decide = decide
        self._tap = tap or TapPoint()
        self._begins = begins
        self._outliving = outliving
        self.watches = watches
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
        return partial(untraced_itself(_run_input_tap), self, point.tap, gate_steps.settle_tapped)

    def _handler(self, index: int, stack: BlockStack) -> Handler | None:
        plan = self._plan
        if index == plan.first == 0:
            note = gate_steps.note_first if self.watches else None
            steps = gate_steps.begin, note, gate_steps.hand_through
            return partial(untraced_itself(_run_open), self, stack, *steps)
        if index < plan.first:
            enters, decides = index == 0, index == plan.first - 1
            return self._first(stack, enters, decides) if enters or decides else None
        return self._last(stack)

    def _first(self, stack: BlockStack, enters: bool, decides: bool) -> Handler:
        enter = gate_steps.enter if enters else None
        decide = gate_steps.take_decision if decides else None
        return partial(untraced_itself(_run_first), self, stack, enter, decide)

    def _middle(self, stack: BlockStack) -> Handler:
        return partial(untraced_itself(_run_middle), self, stack, gate_steps.hand_through)

    def _last(self, stack: BlockStack) -> Handler:
        steps = gate_steps.restore, gate_steps.capture
        return partial(untraced_itself(_run_last), self, stack, *steps)

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
    note: Callable[..., None] | None,
    hand_through: Callable[..., Any],
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    begin(evaluation, stack, args, kwargs)
    if not evaluation.skips:
        try:
            output = original(*args, **kwargs)
        except BlockSkipped:
            pass
        else:
            if note is not None:
                note(evaluation, stack, output)
            return output
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
