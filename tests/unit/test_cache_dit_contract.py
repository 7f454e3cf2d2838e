"""What the adapter relies on in cache-dit, so that a new version that differs fails here."""

from __future__ import annotations

import math

from dit_acceleration_pack.acceleration.cache_dit.decisions import DecisionEngine
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings


def drive(
    engine: DecisionEngine, steps: list[int], values: list[float]
) -> list[tuple[bool, float | None]]:
    """Ask for every step and tell the engine what was done, as the policy does."""
    answers, computed = [], None
    for step, value in zip(steps, values, strict=True):
        change = None if computed is None else relative(value, computed)
        answer = engine.decide(step, change)
        answers.append(answer)
        if answer[0]:
            engine.reused(step)
        else:
            engine.computed(step)
            computed = value
    return answers


def relative(now: float, before: float) -> float:
    return abs(now - before) / before if before else math.nan


def test_warm_up_then_relative_l1_change_then_limit() -> None:
    engine = DecisionEngine(
        CacheDiTSettings(
            max_warmup_steps=2, residual_diff_threshold=0.2, max_continuous_cached_steps=2
        ),
        None,
    )
    answers = drive(engine, [0, 1, 2, 3, 4, 5, 6], [1.0, 1.0, 1.1, 1.1, 1.1, 1.1, 1.5])
    assert [reuse for reuse, _ in answers] == [False, False, True, True, False, True, False]
    assert answers[0][1] is None
    assert math.isclose(answers[2][1] or 0, 0.1, rel_tol=1e-5)
    assert math.isclose(answers[6][1] or 0, 0.4 / 1.1, rel_tol=1e-5)


def test_steps_come_from_the_schedule_not_from_calls() -> None:
    """Asking twice at one step neither ends the warm-up nor uses up the limit."""
    engine = DecisionEngine(
        CacheDiTSettings(
            max_warmup_steps=2, residual_diff_threshold=0.2, max_continuous_cached_steps=2
        ),
        None,
    )
    answers = drive(engine, [0, 0, 1, 1, 2, 2, 3, 3, 4], [1.0] * 9)
    assert [reuse for reuse, _ in answers] == [False] * 4 + [True] * 4 + [False]


def test_a_static_mask_decides_alone() -> None:
    engine = DecisionEngine(
        CacheDiTSettings(max_warmup_steps=4, scm_policy="static"), [1, 0, 0, 1, 0, 1]
    )
    answers = drive(engine, list(range(6)), [1.0, 5.0, 9.0, 1.0, 7.0, 1.0])
    assert [reuse for reuse, _ in answers] == [False, True, True, False, True, False]


def test_a_change_that_is_no_number_never_hits() -> None:
    engine = DecisionEngine(CacheDiTSettings(max_warmup_steps=1, residual_diff_threshold=0.9), None)
    answers = drive(engine, [0, 1], [0.0, 0.0])
    assert answers[1][0] is False and math.isnan(answers[1][1] or 0.0)


def test_branches_have_their_own_state() -> None:
    settings = CacheDiTSettings(max_warmup_steps=1, residual_diff_threshold=0.2)
    a, b = DecisionEngine(settings, None), DecisionEngine(settings, None)
    a.decide(0, None)
    a.computed(0)
    b.decide(0, None)
    b.computed(0)
    assert a.decide(1, 0.0) == (True, 0.0)
    assert b.decide(1, 0.3) == (False, 0.3)
