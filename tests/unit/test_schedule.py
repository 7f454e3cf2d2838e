"""Where evaluations lie in a schedule, by hand-computed numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
import pytest

from dit_acceleration_pack.acceleration.schedule import Schedule

PLAIN = Schedule((1.0, 0.8, 0.5, 0.2, 0.0))
REPEATED = Schedule((1.0, 0.5, 0.5, 0.5, 0.0))
RESTARTED = Schedule((1.0, 0.6, 0.3, 0.6, 0.3, 0.0))


def walk(schedule: Schedule, sigmas: Sequence[float]) -> list[float]:
    """Positions of the evaluations of one branch, in order."""
    positions: list[float] = []
    for sigma in sigmas:
        positions.append(schedule.locate(sigma, positions[-1] if positions else None))
    return positions


def test_euler_evaluates_every_sigma_once() -> None:
    assert walk(PLAIN, [1.0, 0.8, 0.5, 0.2]) == [0, 1, 2, 3]


def test_heun_evaluates_the_next_sigma_too() -> None:
    assert walk(PLAIN, [1.0, 0.8, 0.8, 0.5, 0.5, 0.2, 0.2]) == [0, 1, 1, 2, 2, 3, 3]


def test_dpm_2_evaluates_geometric_middles() -> None:
    middles = [math.sqrt(1.0 * 0.8), math.sqrt(0.8 * 0.5), math.sqrt(0.5 * 0.2)]
    evaluated = [1.0, middles[0], 0.8, middles[1], 0.5, middles[2], 0.2]
    # (1 - 0.894427) / 0.2, (0.8 - 0.632456) / 0.3, (0.5 - 0.316228) / 0.3
    expected = [0, 0.527864, 1, 1.558482, 2, 2.612574, 3]
    assert walk(PLAIN, evaluated) == pytest.approx(expected, abs=1e-6)


def test_first_sigma_moved_a_little_by_a_solver() -> None:
    # dpmpp_sde and dpmpp_2s_ancestral cannot begin at exactly 1 on a flow model.
    assert walk(PLAIN, [0.9999, 0.9, 0.8]) == pytest.approx([0.0005, 0.5, 1])


def test_corrector_at_the_target_is_past_the_last_step() -> None:
    ending_above_zero = Schedule((1.0, 0.8, 0.5))
    assert walk(ending_above_zero, [1.0, 0.8, 0.8, 0.5]) == [0, 1, 1, 2]
    assert walk(PLAIN, [0.2, 0.0]) == [3, 4]


def test_sigma_above_the_schedule_is_at_its_beginning() -> None:
    assert PLAIN.locate(1.3) == 0


def test_sigma_below_the_schedule_is_at_its_end() -> None:
    assert Schedule((1.0, 0.8, 0.5)).locate(0.1, 1.0) == 2


def test_repeated_sigmas_are_steps_of_their_own() -> None:
    assert walk(REPEATED, [1.0, 0.5, 0.5, 0.5]) == [0, 1, 2, 3]


def test_more_evaluations_than_repetitions_stay_at_the_last_one() -> None:
    # heun on a repeated sigma
    assert walk(REPEATED, [1.0, *[0.5] * 6]) == [0, 1, 2, 3, 3, 3, 3]


def test_same_sigma_twice_without_repetition_is_one_position() -> None:
    assert walk(PLAIN, [1.0, 1.0, 0.8, 0.8, 0.8]) == [0, 0, 1, 1, 1]


def test_restart_goes_on_forward() -> None:
    assert walk(RESTARTED, [1.0, 0.6, 0.3, 0.6, 0.3]) == [0, 1, 2, 3, 4]


def test_restart_with_second_evaluations() -> None:
    heun = [1.0, 0.6, 0.6, 0.3, 0.3, 0.6, 0.6, 0.3, 0.3]
    assert walk(RESTARTED, heun) == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_middle_of_a_rising_step() -> None:
    assert RESTARTED.locate(0.45, 2.0) == pytest.approx(2.5)


def test_going_back_beyond_the_last_position_is_found() -> None:
    assert PLAIN.locate(0.9, 2.0) == pytest.approx(0.5)


def test_float32_rounding_is_the_same_sigma() -> None:
    rounded = [float(numpy.float32(sigma)) for sigma in (1.0, 0.8, 0.5, 0.2)]
    assert rounded[1] != 0.8
    assert walk(PLAIN, rounded) == [0, 1, 2, 3]


def test_branches_are_located_apart() -> None:
    """The second branch of a repeated sigma begins anew."""
    first = walk(REPEATED, [1.0, 0.5])
    second = walk(REPEATED, [1.0, 0.5])
    assert first == second == [0, 1]


@pytest.mark.parametrize(
    ("position", "step"), [(0, 0), (0.9, 0), (1, 1), (1.5, 1), (2.9999999, 3), (3, 3), (4, 3)]
)
def test_step_of_a_position(position: float, step: int) -> None:
    assert PLAIN.step_of(position) == step


@pytest.mark.parametrize(("sigmas", "steps"), [((), 0), ((1.0,), 0), ((1.0, 0.0), 1)])
def test_short_schedules(sigmas: tuple[float, ...], steps: int) -> None:
    schedule = Schedule.from_sigmas(sigmas)
    assert schedule.steps == steps
    assert schedule.step_of(schedule.locate(1.0)) == 0


def test_a_schedule_that_adds_noise_is_known() -> None:
    assert Schedule.from_sigmas([0.1, 0.5, 0.9]).rises
    assert Schedule.from_sigmas([0.9, 0.2, 0.5, 0.0]).rises
    assert not Schedule.from_sigmas([0.9, 0.9, 0.5, 0.0]).rises


def test_steps_beyond_the_noise_that_the_model_knows() -> None:
    schedule = Schedule.from_sigmas([1.6, 1.2, 1.0005, 0.5, 0.0], largest=1.0)
    assert [schedule.is_beyond(step) for step in range(4)] == [True, True, False, False]
    assert schedule.within == (1.0, 1.0, 1.0, 0.5, 0.0)
    assert not Schedule.from_sigmas([14.0, 0.0]).is_beyond(0), "nothing is known of the model"
