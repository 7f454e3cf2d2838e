"""A run within a run: the inner one does not take the outer one's levers away."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tm
import torch

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.attention import AttentionSettings
from dit_acceleration_pack.acceleration.host.wrapping import step_in, step_out
from dit_acceleration_pack.acceleration.performance import PerformanceSettings
from dit_acceleration_pack.acceleration.profiling.profiler import ProfileSettings

STEPS = 6


def cache_dit(model: Any) -> Any:
    return tm.attach(model, residual_diff_threshold=0.95, max_warmup_steps=2)


def attention(model: Any) -> Any:
    return host.attach_attention(model, AttentionSettings(backend="sdpa_math"))


def performance(model: Any) -> Any:
    return host.attach_performance(
        model, PerformanceSettings(approximation="target", target_speedup=1.5)
    )


def profiling(model: Any) -> Any:
    return host.profile(model, ProfileSettings(evaluations=1, mode="nvtx"), "profile/nested")


LEVERS = [cache_dit, attention, performance, profiling]


def again_with_one_guider(executor: Any, args: Any, kwargs: Any) -> None:
    """As a pack that samples a picture twice: all wrappers once more, with the same options."""
    from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers

    guider = executor.class_obj
    wrappers = get_all_wrappers(WrappersMP.OUTER_SAMPLE, guider.model_options, True)
    conds = {name: [dict(one) for one in found] for name, found in guider.conds.items()}
    WrapperExecutor.new_class_executor(guider.outer_sample, guider, wrappers).execute(
        *args, **kwargs
    )
    guider.conds = conds


def again_with_a_guider_of_its_own(executor: Any, args: Any, kwargs: Any) -> None:
    """As a sampler node that another node calls: the same MODEL once more."""
    tm.sample(executor.class_obj.model_patcher, "flux", steps=STEPS)


def told(model: Any) -> dict[str, Any]:
    """What every lever reports, without times."""
    found = {}
    for key, lever in host.levers_of(model).items():
        data = lever.last_report.as_dict()
        found[key] = {
            name: data.get(name)
            for name in ("outcome", "computed", "skipped", "evaluations", "counts", "notices")
        } | {"steps": len(data["steps"]) if isinstance(data.get("steps"), list) else None}
    return found


@pytest.mark.every_host
@pytest.mark.parametrize("again", [again_with_one_guider, again_with_a_guider_of_its_own])
@pytest.mark.parametrize("lever", LEVERS)
def test_the_outer_run_is_accelerated_and_reported_as_ever(
    lever: Callable[[Any], Any], again: Callable[..., None], tmp_path: Path
) -> None:
    import folder_paths
    from comfy.patcher_extension import WrappersMP

    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path))
    try:
        accelerated = lever(tm.make_model("flux"))
        alone = tm.sample(accelerated, "flux", steps=STEPS)
        expected = told(accelerated)
        runs: list[str] = []

        def twice(executor: Any, *args: Any, **kwargs: Any) -> Any:
            runs.append("outer" if not runs else "inner")
            if len(runs) == 1:
                again(executor, args, kwargs)
                assert told(nested) == expected, "the inner run"
                for one in host.levers_of(nested).values():
                    one.last_report = None
            return executor(*args, **kwargs)

        nested = accelerated.clone()
        nested.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "theirs", twice)
        assert torch.equal(tm.sample(nested, "flux", steps=STEPS), alone)
        assert runs == ["outer", "inner"] and told(nested) == expected
    finally:
        folder_paths.set_output_directory(before)


def test_runs_step_in_and_out_in_any_order() -> None:
    moves = ["+a", "+b", "+c", "-a", "-b", "-c"]
    for order in itertools.permutations(moves):
        if any(order.index(f"+{run}") > order.index(f"-{run}") for run in "abc"):
            continue
        options: dict[str, Any] = {"other": 1}
        standing: list[str] = []
        for sign, run in order:
            if sign == "+":
                step_in(options, "key", run)
                standing.append(run)
            else:
                assert step_out(options, "key", run) == (standing[-1] == run)
                standing.remove(run)
            assert options.get("key") == (standing[-1] if standing else None), order
        assert options == {"other": 1}
