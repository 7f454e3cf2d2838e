"""What a run sends to its page: few messages, with the size of every evaluation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models as tm
from progressive_runs import report_of, run

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.host import live_report
from dit_acceleration_pack.acceleration.performance import PerformanceSettings
from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
from dit_acceleration_pack.acceleration.progressive import ProgressiveSettings
from dit_acceleration_pack.acceleration.report import EvaluationRecord, RunReport
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

STEPS = 20
MOST_MESSAGES = 10
"""Of a run of 20 steps."""
SMALL, FULL = "16 x 16", "32 x 32"
SETTINGS = {"mode": "custom", "switch_sigma": 0.8, "min_full_steps": 2}

Sent = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Type and data of every message; every evaluation lasts long enough to be told of."""
    found: Sent = []
    server = SimpleNamespace(
        client_id="page",
        last_prompt_id="prompt",
        prompt_queue=SimpleNamespace(get_current_queue_volatile=lambda: ([], [])),
        send_sync=lambda event, data, _client: found.append((event, data)),
        send_progress_text=lambda *_: None,
    )
    monkeypatch.setattr(live_report, "running_server", lambda: server)
    monkeypatch.setattr(live_report, "EVENT_SECONDS", 0.0)
    monkeypatch.setattr(live_report, "MOST_SHARE", 1e9)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the messages, which stands until it is moved."""
    found = SimpleNamespace(now=100.0)
    stood = SimpleNamespace(perf_counter=lambda: found.now, thread_time=lambda: 0.0)
    monkeypatch.setattr(live_report, "time", stood)
    return found


def taking(model: Any, clock: SimpleNamespace, seconds: float) -> Any:
    """A clone whose evaluations take so long."""

    def wait(*_: Any) -> None:
        clock.now += seconds

    return tm.watch(model, wait)


def progressive(model: Any, node: str = "sizes", **settings: Any) -> Any:
    return host.attach_progressive(model, ProgressiveSettings(**{**SETTINGS, **settings}), node)


def cached(model: Any, **settings: Any) -> Any:
    return host.attach(model, CacheDiT(CacheDiTSettings(**settings)), "cache")


def of(sent: Sent, node: str) -> list[dict[str, Any]]:
    return [data for event, data in sent if data["node"] == node and event == live_report.EVENT]


def test_every_node_together_sends_few_messages(sent: Sent) -> None:
    model = progressive(tm.make_model("flux"))
    mode = host.attach_performance(model, PerformanceSettings(approximation="fast"), "mode")
    run(mode, steps=STEPS)
    assert {data["node"] for _, data in sent} == {"sizes", "mode"}
    assert len(sent) <= MOST_MESSAGES
    assert len(of(sent, "mode")) == 6 and len(of(sent, "sizes")) == 3


@pytest.mark.parametrize(("seconds", "every"), [(0.1, 4), (4.9, 4), (7.0, 3), (15.0, 2), (60.0, 1)])
def test_a_slow_run_is_told_of_sooner(
    sent: Sent, clock: SimpleNamespace, seconds: float, every: int
) -> None:
    run(taking(cached(tm.make_model("flux")), clock, seconds), steps=STEPS)
    *told, last = of(sent, "cache")
    assert [data["step"] for data in told] == list(range(0, STEPS, every))
    assert last["outcome"] == "finished"


@pytest.mark.parametrize("seconds", [0.1, 4.9, 7.0, 60.0])
def test_no_pace_sends_more_than_ten_or_one_in_ten_seconds(
    sent: Sent, clock: SimpleNamespace, seconds: float
) -> None:
    model = progressive(tm.make_model("flux"))
    mode = host.attach_performance(model, PerformanceSettings(approximation="fast"), "mode")
    run(taking(mode, clock, seconds), steps=STEPS)
    assert len(of(sent, "mode")) >= 6
    assert len(sent) <= max(MOST_MESSAGES, STEPS * seconds / 10)


def test_more_evaluations_a_step_send_no_more(sent: Sent) -> None:
    run(cached(tm.make_model("flux")), steps=STEPS, sampler="heun", cfg=2.0)
    assert len(of(sent, "cache")[-1]["rows"][0]["steps"]) == 2 * STEPS - 1
    assert 5 <= len(sent) <= MOST_MESSAGES


def test_cells_know_their_size_and_stages_their_time(sent: Sent) -> None:
    model = progressive(tm.make_model("flux"))
    run(cached(model, max_warmup_steps=2), steps=STEPS)
    for node in ("sizes", "cache"):
        last = of(sent, node)[-1]
        small, full = last["stages"]
        assert (small["size"], small["full"]) == (SMALL, False)
        assert (full["size"], full["full"]) == (FULL, True)
        (row,) = last["rows"]
        assert row["stages"] == [0] * small["evaluations"] + [1] * full["evaluations"]
        assert len(row["stages"]) == len(row["marks"]) == STEPS
        assert small["seconds"] > 0 and full["seconds"] > 0
        assert "full size from sigma 0.8 on" in last["switch"]


def test_the_switch_is_told_when_it_comes(sent: Sent) -> None:
    model = progressive(tm.make_model("flux"))
    run(model, steps=STEPS)
    first, at_full_size, last = of(sent, "sizes")
    assert [stage["size"] for stage in first["stages"]] == [SMALL]
    assert [stage["size"] for stage in at_full_size["stages"]] == [SMALL, FULL]
    assert at_full_size["stages"][1]["evaluations"] == 1
    assert last["sentence"] == report_of(model).sentence() and last["outcome"] == "finished"
    assert {event["switch"] for event in (first, at_full_size, last)} == {report_of(model).switch}


def test_without_small_evaluations_there_are_no_sizes(sent: Sent) -> None:
    run(cached(tm.make_model("flux")), steps=STEPS)
    last = of(sent, "cache")[-1]
    assert (last["stages"], last["switch"], last["rows"][0]["stages"]) == ([], "", [])


def test_a_node_that_is_off_says_so(sent: Sent) -> None:
    run(progressive(tm.make_model("flux"), mode="off"))
    (only,) = of(sent, "sizes")
    assert (only["outcome"], only["rows"]) == ("switched off", [])
    assert "mode is off" in only["sentence"]


def test_a_run_that_goes_on_at_full_size_keeps_its_cells(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network takes two small latents, and no third one."""
    model, taken = tm.make_model("flux"), []

    def watch(x: Any, *_: Any) -> None:
        if tuple(x.shape[-2:]) == (16, 16):
            taken.append(x)
            if len(taken) == 3:
                raise RuntimeError("no such size")

    run(progressive(tm.watch(model, watch)), steps=STEPS)
    last = of(sent, "sizes")[-1]
    (row,) = last["rows"]
    assert row["stages"] == [0, 0] + [1] * (STEPS - 2)
    assert last["reasons"] == ["above the switch", "smaller size not taken"]
    assert "then at full size, as" in last["sentence"]


def test_saved_time_compares_evaluations_of_one_size() -> None:
    report = RunReport("Cache-DiT")
    small = [(SMALL, False, 9.0), (SMALL, False, 1.0), (SMALL, True, 0.25)]
    full = [(FULL, False, 4.0), (FULL, True, 1.0), (FULL, True, 1.0)]
    for place, (size, skipped, seconds) in enumerate([*small, *full]):
        at = float(place)
        report.evaluations.append(
            EvaluationRecord(place, at, 1.0, "cond", skipped, "", None, seconds, size=size)
        )
    assert report.seconds_saved() == (1 - 0.25) + (2 * 4 - 2)
