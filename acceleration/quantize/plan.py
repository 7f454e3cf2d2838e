"""Which layer gets which format: the least error in so many bytes, or the fewest bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from .measure import Choice

MOST_ERROR = 0.03
"""Relative error of the whole model's prediction above which layers go back."""
AUTO_ERROR = 0.01
"""What auto lets a format have."""

Plan = dict[str, Choice]
"""By path; a layer that is not in it stays as it is."""


def predicted(choices: Iterable[Choice]) -> float | None:
    """Error of the whole model from those of single layers, which are independent of each other.

    None where one was not measured.
    """
    errors = [choice.error for choice in choices]
    if any(error is None for error in errors):
        return None
    return math.sqrt(sum(error**2 for error in errors if error is not None))


def saved(plan: Plan) -> int:
    """Bytes by which quantized weights are smaller."""
    return sum(choice.layer.bytes - choice.bytes for choice in plan.values())


def _loss(choice: Choice | None) -> float:
    if choice is None:
        return 0.0
    return (choice.local if choice.error is None else choice.error) ** 2


def mixed(options: Mapping[str, Sequence[Choice]], enough: Callable[[Plan], bool]) -> Plan:
    """Make layers smaller, each time where a saved byte costs the least error.

    Parameters
    ----------
    options
        By path, what a layer may become.
    enough
        Whether a plan is small enough. Without a plan that is, the smallest comes back.
    """
    plan: Plan = {}
    while not enough(plan):
        move = min(_moves(options, plan), key=lambda found: found[0], default=None)
        if move is None:
            break
        plan[move[1].layer.path] = move[1]
    return plan


def _moves(options: Mapping[str, Sequence[Choice]], plan: Plan) -> Iterable[tuple[float, Choice]]:
    """Smaller formats of single layers, with the squared error that a saved byte costs."""
    for path, choices in options.items():
        now = plan.get(path)
        size = choices[0].layer.bytes if now is None else now.bytes
        for choice in choices:
            if choice.bytes < size:
                yield (_loss(choice) - _loss(now)) / (size - choice.bytes), choice


def smallest_within(options: Mapping[str, Sequence[Choice]], most: float) -> Plan:
    """The fewest bytes at which the predicted error stays within a limit."""
    before: list[Plan] = [{}]

    def beyond(plan: Plan) -> bool:
        if math.sqrt(sum(_loss(choice) for choice in plan.values())) > most:
            return True
        before.append(dict(plan))
        return False

    mixed(options, beyond)
    return before[-1]


def within_error(plan: Plan, measured: float, most: float) -> tuple[Plan, list[str]]:
    """A plan without its worst layers, and which those were.

    Parameters
    ----------
    measured
        What the whole plan was found to lose. Where that is more than predicted, so many times
        more is expected of the rest, too.
    """
    left = sorted(plan.values(), key=_loss)
    total = math.sqrt(sum(map(_loss, left)))
    times = measured / total if total and math.isfinite(measured) else 1.0
    gone: list[str] = []
    while left and (not gone or times * math.sqrt(sum(map(_loss, left))) > most):
        gone.append(left.pop().layer.path)
    return {choice.layer.path: choice for choice in left}, gone
