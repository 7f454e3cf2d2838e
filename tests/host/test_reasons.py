"""What stands on the node when a run was not what was asked for: the reason, then the next step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tiny_models as tm

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.attention.report import AttentionReport
from dit_acceleration_pack.acceleration.errors import AccelerationError, MissingPackageError
from dit_acceleration_pack.acceleration.host.live_report import LiveNode
from dit_acceleration_pack.acceleration.performance import PerformanceSettings
from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
from dit_acceleration_pack.acceleration.report import REFUSED, REPLACED, SWITCHED_OFF, RunReport
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings, TeaCacheSettings

LOCK = "DIT_ACCEL_LOCK_LOSSY"
STEPS = 12


def performance(model: Any, node: str | None = None, **values: Any) -> Any:
    return host.attach_performance(model, PerformanceSettings(**values), node)


def cache_dit(model: Any, node: str | None = None, **values: Any) -> Any:
    return host.attach(model, CacheDiT(CacheDiTSettings(**values)), node)


def tea_cache(model: Any, node: str | None = None, **values: Any) -> Any:
    return host.attach(model, TeaCache(TeaCacheSettings(**values)), node)


def sentence(model: Any, **run: Any) -> str:
    """What the node of the caching lever says after a run."""
    tm.sample(model, "flux", **{"steps": STEPS, **run})
    said: str = tm.report_of(model).sentence()
    return said


def mode_text(model: Any) -> str:
    text: str = host.lever_of(model, host.PERFORMANCE_KEY).last_report.text()
    return text


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, RunReport]]:
    """Node and report of everything that is shown without a run of its own."""
    found: list[tuple[str, RunReport]] = []
    monkeypatch.setattr(LiveNode, "tell", lambda self, report: found.append((self.node_id, report)))
    return found


@pytest.mark.parametrize("apply", [performance, cache_dit])
def test_few_steps_are_fast_already(apply: Any) -> None:
    said = sentence(apply(tm.make_model("flux")), steps=4)
    assert said.startswith(("Performance Mode: nothing skipped in 4", "Cache-DiT: nothing skipped"))
    assert "4 steps are too few" in said or "4 steps, warm-up 4" in said
    assert said.endswith("is fast already, and Attention Backend or Quantize Model help here.")


def test_a_target_that_this_schedule_cannot_reach_says_what_it_gives() -> None:
    said = sentence(performance(tm.make_model("flux"), approximation="target", target_speedup=10))
    assert "target asks for 10 times, and 12 steps of this model give" in said
    assert "at most; pictures suffer above 3 times: a target_speedup of 2 to 3" in said
    calm = sentence(performance(tm.make_model("flux"), approximation="target", target_speedup=1.5))
    assert "asks for" not in calm and "suffer" not in calm


@pytest.mark.parametrize("apply", [performance, cache_dit])
def test_easycache_upstream_is_the_reason_and_is_told_once(apply: Any) -> None:
    from comfy_extras.nodes_easycache import EasyCacheNode

    model = EasyCacheNode.execute(tm.make_model("flux"), 0.2, 0.15, 0.95, False).result[0]
    accelerated = apply(model)
    said = sentence(accelerated)
    assert "nothing skipped in 12 evaluations: the core's EasyCache or LazyCache is on" in said
    assert said.endswith("so this one skips nothing: remove one of them.")
    assert tm.report_of(accelerated).text().count("EasyCache or LazyCache") == 1


def test_a_sampler_that_adds_noise_is_named_however_much_was_skipped() -> None:
    accelerated = performance(tm.make_model("flux"), approximation="fast")
    said = sentence(accelerated, sampler="euler_ancestral")
    assert tm.report_of(accelerated).skipped > 0
    assert "the sampler euler_ancestral adds fresh noise in every step" in said
    assert said.endswith("euler, heun, dpmpp_2m or res_multistep keep the picture nearer.")
    assert "adds fresh noise" not in sentence(accelerated)


def test_the_mode_promises_nothing_beside_what_was_measured() -> None:
    accelerated = performance(tm.make_model("flux"), approximation="fast")
    tm.sample(accelerated, "flux", steps=STEPS)
    both = tm.report_of(accelerated).text() + mode_text(accelerated)
    assert "2.7" not in both and "times the speed" not in both
    assert "  approximation: fast" in mode_text(accelerated).splitlines()
    asked = performance(tm.make_model("flux"), approximation="target", target_speedup=1.5)
    tm.sample(asked, "flux", steps=STEPS)
    assert "  approximation: target, 1.5 times asked for" in mode_text(asked).splitlines()


@pytest.mark.parametrize("approximation", ["fast", "off"])
def test_the_mode_knows_of_a_node_behind_it(approximation: str) -> None:
    model = performance(tm.make_model("flux"), approximation=approximation)
    accelerated = tea_cache(model, rel_l1_thresh=1.0)
    tm.sample(accelerated, "flux", steps=STEPS)
    assert (
        f"  approximation: {approximation} gave way to TeaCache, which comes after it on this "
        "model: keep one of the two"
    ) in mode_text(accelerated).splitlines()


def test_a_node_whose_place_was_taken_says_by_whom(told: list[tuple[str, RunReport]]) -> None:
    model = tea_cache(cache_dit(tm.make_model("flux"), "1"), "2")
    accelerated = performance(cache_dit(model, "3"), "4", approximation="off")
    tm.sample(accelerated, "flux", steps=4)
    assert [(node, report.outcome) for node, report in told] == [("1", REPLACED), ("2", REPLACED)]
    assert told[1][1].sentence() == (
        "TeaCache: Apply Cache-DiT comes after it on this model and takes its place."
    )


@pytest.mark.parametrize("apply", [cache_dit, tea_cache])
def test_a_locked_server_is_told_on_the_node(
    apply: Any, told: list[tuple[str, RunReport]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK, "1")
    locked = apply(tm.make_model("flux"), "7")
    for _ in range(2):
        tm.sample(locked, "flux", steps=4)
    assert [(node, report.outcome) for node, report in told] == [("7", SWITCHED_OFF)] * 2
    assert "the operator of this server has switched off what changes" in told[0][1].sentence()


def test_a_locked_mode_says_so_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK, "1")
    locked = performance(tm.make_model("flux"), approximation="ultra")
    tm.sample(locked, "flux", steps=STEPS)
    said = host.lever_of(locked, host.PERFORMANCE_KEY).last_report.sentence()
    assert said.startswith(
        "Performance Mode (auto, ultra): approximation: off, the operator of this server has"
    )


def test_a_kernel_that_took_no_call_says_why_and_what_does() -> None:
    report = AttentionReport(settings={"backend": "sage"})
    report.counts = Counter({("sdpa", "head size 512 is not supported"): 86})
    assert report.sentence() == (
        "Attention Backend (sage): of 86 calls none ran as chosen: 86 by sdpa because head size "
        "512 is not supported. Choose auto, which finds the fastest one that takes these calls."
    )
    report.counts[("sage", "")] = 4
    assert "of 90 calls sage 4; 86 by sdpa because" in report.sentence()


def test_what_fails_in_sampling_names_its_node_and_shows_there(
    told: list[tuple[str, RunReport]],
) -> None:
    """The host shows the error at the sampler, below the type of the exception."""
    accelerated = cache_dit(tm.make_model("flux"), "5", scm_compute_bins="4,1", scm_cache_bins="3")
    with pytest.raises(AccelerationError) as refused:
        tm.sample(accelerated, "flux", steps=10)
    error = refused.value
    assert str(error).startswith("Apply Cache-DiT: scm_compute_bins and scm_cache_bins sum to 8")
    assert [(node, report.outcome) for node, report in told] == [("5", REFUSED)]
    assert told[0][1].sentence().startswith("Cache-DiT: scm_compute_bins and scm_cache_bins sum")
    for kind in (AccelerationError, MissingPackageError):
        assert kind.__module__ == "dit_acceleration"


def test_a_kernel_that_must_take_every_call_names_its_node(
    told: list[tuple[str, RunReport]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of sampling, below another lever's run, whose node is not blamed."""
    from dit_acceleration_pack.acceleration.attention import AttentionSettings
    from dit_acceleration_pack.acceleration.host.attention import PlacedRun

    def refuse(*_: Any) -> Any:
        raise AccelerationError("on_unsupported is 'error' and sdpa_math cannot take a call.")

    monkeypatch.setattr(PlacedRun, "attend", refuse)
    model = cache_dit(tm.make_model("flux"), "5")
    chosen = host.attach_attention(model, AttentionSettings(backend="sdpa_math"), "6")
    with pytest.raises(AccelerationError, match=r"^Attention Backend: on_unsupported is 'error'"):
        tm.sample(chosen, "flux", steps=4)
    assert [(node, report.outcome) for node, report in told] == [("6", REFUSED)]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("apply_cache_dit.ApplyCacheDiT", {"scm_compute_bins": "6;2"}, "whole numbers separated by"),
    ("apply_cache_dit.ApplyCacheDiT", {"scm_compute_bins": "6,2"}, "without scm_cache_bins"),
    ("apply_cache_dit.ApplyCacheDiT", {"start_percent": 0.6, "end_percent": 0.5}, "below end"),
    ("apply_tea_cache.ApplyTeaCache", {"coefficients": "custom"}, "custom_coefficients is empty"),
    ("apply_tea_cache.ApplyTeaCache", {"custom_coefficients": "a"}, "highest power first"),
    ("attention_backend.AttentionBackend", {"backend": "sage"}, "is not installed"),
    ("attention_backend.AttentionBackend", {"first_block": 3, "last_block": 1}, "first_block is 3"),
]


@pytest.mark.parametrize(("node", "values", "phrase"), BAD)
def test_what_can_be_checked_is_refused_before_anything_runs(
    node: str, values: dict[str, Any], phrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    from dit_acceleration_pack.acceleration.attention import registry

    monkeypatch.setattr(registry, "is_installed", lambda _: False)
    module, _, name = node.partition(".")
    kind = getattr(importlib.import_module(f"dit_acceleration_pack.nodes.{module}"), name)
    assert phrase in str(kind.validate_inputs(**values))
    assert kind.validate_inputs() is True
    # The host gives None for what another node makes, which is known when it has run.
    assert kind.validate_inputs(**values, config=None) is True
    assert kind.validate_inputs(**dict.fromkeys(values)) is True
    if "backend" in values:
        monkeypatch.setenv(LOCK, "1")
        assert kind.validate_inputs(**values) is True, "a lock is never an error"
