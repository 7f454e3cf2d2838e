"""What is done at the gates of an evaluation, beside calling the blocks.

Blocks and host write into hidden states in place, so every snapshot is a clone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..families import BlockStack
from ..families.base import HIDDEN_STATE, IMAGE, JOINED, TEXT
from ..forecasts.forecast import Streams
from ..signals import thinned
from .gates import untraced
from .passes import Abandoned, BlockSkipped, Look, Pass

if TYPE_CHECKING:
    from .evaluation import Evaluation


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
def enter(
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
def begin(
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
def settle_tapped(evaluation: Evaluation, signal: torch.Tensor) -> None:
    _settle(evaluation, signal)


@guarded
def take_decision(evaluation: Evaluation, stack: BlockStack, output: Any) -> None:
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
def hand_through(
    evaluation: Evaluation, stack: BlockStack, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return stack.pack_output({s: stack.read_input(s, args, kwargs) for s in stack.outputs})


@guarded
def note_first(evaluation: Evaluation, stack: BlockStack, output: Any) -> None:
    now = evaluation.now
    image = evaluation.split(stack, output)[IMAGE]
    if now.base is not None and image.shape == now.base[IMAGE].shape:
        now.first = thinned(image - now.base[IMAGE])


def _end_pass(evaluation: Evaluation) -> None:
    evaluation.tangled = evaluation.tangled or evaluation.now.ended
    evaluation.now.ended = True


@guarded
def capture(evaluation: Evaluation, stack: BlockStack, output: Any) -> None:
    now = evaluation.now
    _end_pass(evaluation)
    base = now.base
    if base is None:
        return
    now.base = None
    streams = evaluation.split(stack, output)
    if any(streams[name].shape != base[name].shape for name in base):
        return  # the skippable blocks change the number of tokens: no residual
    if evaluation.watches:
        now.output = streams[IMAGE].clone()
    now.residual = {name: _difference(streams[name], base[name]) for name in base}


@guarded
def restore(
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
