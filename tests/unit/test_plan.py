"""Which evaluations a plan spends."""

from __future__ import annotations

import itertools
import math

import pytest

from dit_acceleration_pack.acceleration.policies import plan
from dit_acceleration_pack.acceleration.policies.plan import EvaluationPlan, cheapest, step_lengths

# The step in which each evaluation of a run lies, as the host's samplers make them.


def even(steps: int) -> tuple[float, ...]:
    """Lengths of the steps of a schedule whose sigmas fall evenly from 1 to 0."""
    return step_lengths([1 - i / steps for i in range(steps + 1)])


def euler(steps: int) -> list[int]:
    return list(range(steps))


def heun(steps: int) -> list[int]:
    """The corrector lies at the sigma of the next step; the last step has none."""
    return [0] + [step for step in range(1, steps) for _ in range(2)]


def dpm_2(steps: int) -> list[int]:
    """Both evaluations lie in the step, and the last step has one."""
    return [step for step in range(steps - 1) for _ in range(2)] + [steps - 1]


def spend(plan: EvaluationPlan, sequence: list[int]) -> str:
    picture = ""
    for step in sequence:
        wanted = plan.wants(step)
        if wanted:
            plan.spent()
        picture += "X" if wanted else "."
    return picture


@pytest.mark.parametrize("share", [0.25, 0.3, 0.36, 0.5, 0.67, 0.9])
@pytest.mark.parametrize("steps", [8, 20, 28, 50, 100])
@pytest.mark.parametrize(
    ("sampler", "sequence"), [("euler", euler), ("heun", heun), ("dpm_2", dpm_2)]
)
def test_the_number_is_kept(share: float, steps: int, sampler: str, sequence) -> None:
    evaluations = sequence(steps)
    picture = spend(EvaluationPlan(even(steps), share, sampler), evaluations)
    assert abs(picture.count("X") - share * len(evaluations)) <= 1


@pytest.mark.parametrize("share", [0.31, 0.43, 0.55])
@pytest.mark.parametrize(("sampler", "sequence"), [("heun", heun), ("dpm_2", dpm_2)])
def test_what_a_known_sampler_evaluates_is_foreseen(share: float, sampler: str, sequence) -> None:
    evaluations, lengths = sequence(20), even(20)
    coming = [lengths[step] / evaluations.count(step) for step in evaluations]
    plan = EvaluationPlan(lengths, share, sampler)
    picture = ""
    for number, step in enumerate(evaluations, start=1):
        wanted = plan.wants(step)
        picture += "X" if wanted else "."
        if wanted:
            plan.spent()
        if number == 3:  # heun's first step ends in the second evaluation
            rest = cheapest(plan._since, coming[3:], round(share * len(coming)) - plan.computed)
            foreseen = picture + "".join("X" if wanted else "." for wanted in rest)
    assert picture == foreseen


def test_a_sampler_whose_evaluations_are_not_known_before() -> None:
    sequence = heun(28)
    picture = spend(EvaluationPlan(even(28), 0.4, "of another pack"), sequence)
    assert abs(picture.count("X") - 0.4 * len(sequence)) <= 1


def test_everything_and_the_beginning() -> None:
    assert spend(EvaluationPlan(even(28), 1.0), euler(28)) == "X" * 28
    assert spend(EvaluationPlan(even(28), 0.3), euler(28))[:3].count("X") == 2
    gaps = [len(gap) for gap in spend(EvaluationPlan(even(50), 0.3), euler(50)).split("X")]
    assert max(gaps[:5]) < max(gaps) > max(gaps[-1:]), "dense at the start, no long tail"


def test_evaluations_that_were_computed_for_another_reason_count() -> None:
    plan, computed = EvaluationPlan(even(28), 0.5), 0
    for step in range(28):
        wanted = plan.wants(step)
        if wanted or 5 <= step < 10:
            plan.spent()
            computed += 1
    assert computed == 14


def test_a_branch_that_begins_late_gets_its_share() -> None:
    late = list(range(14, 28))
    picture = spend(EvaluationPlan(even(28), 0.5, first=14), late)
    assert abs(picture.count("X") - 7) <= 1


def cost(since: float, lengths: list[float], chosen: tuple[int, ...]) -> float:
    """As the module's docstring says, one skipped evaluation after the other."""
    total, way, whole = len(lengths), since, 0.0
    for i, length in enumerate(lengths):
        if i in chosen:
            way = 0.0
        else:
            following = [j for j in chosen if j > i]
            uncorrected = following[:1] in ([], [total - 1])
            factor = plan.UNCORRECTED if uncorrected else 1.0
            whole += factor * length * way**plan.POWER
        way += length
    return whole


@pytest.mark.parametrize("since", [0.5, 3.0, plan.NEVER])
@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize(
    "lengths",
    [[1.0] * 9, [0.1, 1.0] * 4 + [1.0], [3.0, 2.5, 2.0, 1.5, 1.2, 1.0, 1.0, 1.5, 4.0]],
    ids=["even", "alternating", "falling"],
)
def test_no_other_choice_costs_less(since: float, count: int, lengths: list[float]) -> None:
    found = cheapest(since, lengths, count)
    mine = tuple(i for i, chosen in enumerate(found) if chosen)
    assert len(mine) == count
    least = min(cost(since, lengths, any) for any in itertools.combinations(range(9), count))
    assert cost(since, lengths, mine) == pytest.approx(least)


def test_all_or_nothing_to_spend() -> None:
    assert cheapest(1.0, [1.0] * 3, 0) == [False] * 3
    assert cheapest(1.0, [1.0] * 3, -1) == [False] * 3
    assert cheapest(1.0, [1.0] * 3, 3) == cheapest(1.0, [1.0] * 3, 4) == [True] * 3


def test_length_of_a_step() -> None:
    lengths = step_lengths([1.0, 0.8, 0.4, 0.0])
    # The share of the noise that is taken away, and the start: at 0, 0.2 and 0.6 of the noise.
    expected = [
        share**plan.STRETCH * (1 + plan.START * math.exp(-place / plan.START_WIDTH))
        for share, place in ((0.2, 0.0), (0.5, 0.2), (1.0, 0.6))
    ]
    assert lengths == pytest.approx(expected)


def test_lengths_of_unusual_schedules() -> None:
    assert step_lengths([]) == step_lengths([1.0]) == ()
    assert step_lengths([9.0, 4.0, 0.0]) == pytest.approx(step_lengths([0.9, 0.8, 0.0]))
    for sigmas in ([0.0, 0.0], [0.5, 0.5, 0.9, 0.1], [14.6, 14.6, 0.0]):
        lengths = step_lengths(sigmas)
        assert len(lengths) == len(sigmas) - 1 and all(0 < length < 30 for length in lengths)
