"""The benchmark of what evaluations cost in a planned run."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from comfyui_environment import ROOT


@pytest.fixture(scope="module")
def costs() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import costs

        yield costs


def test_times_that_follow_two_costs_give_them_back(costs: Any) -> None:
    shares = (0.9, 0.6, 0.3)
    found = costs.fit(shares, [1.05 * share + 0.2 * (1 - share) for share in shares])
    assert found == pytest.approx((1.05, 0.2))
    assert costs.farthest(found, {0.5: 0.625}) == pytest.approx(0)
    assert costs.farthest(found, {0.5: 0.625, 0.4: 0.5}) == pytest.approx(0.04 / 0.5)


def test_what_is_not_counted_is_the_least_of_the_models_of_real_size(costs: Any) -> None:
    from dit_acceleration_pack.acceleration.policies.cost import UNCOUNTED

    rows = json.loads((costs.harness.RESULTS / "full_size.json").read_text(encoding="utf-8"))[
        "rows"
    ]
    beyond = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model and "speedup" in row]
        times = costs.of_presets(own)
        _, skipped = costs.fit(list(times), list(times.values()))
        said = next(row["notices"][0] for row in own if row["setting"] == "balanced")
        counted = re.search(r"costs (\d+)%", said)
        assert counted is not None
        beyond.append(skipped - int(counted[1]) / 100)
    assert len(beyond) == 3 and min(beyond) == pytest.approx(UNCOUNTED, abs=0.005)


def test_a_skipped_evaluation_costs_less_than_a_computed_one(costs: Any) -> None:
    row = costs.measure("Qwen-Image", 1.0, rounds=1)
    assert 0 < row["skipped"] < row["computed"]
    assert row["evaluation_ms"] > 0 and row["off"] >= 0
    assert (row["planned_computed"], row["source"]) == (1.0, "by its parameters"), "a check model"
    assert 0 < row["planned_skipped"] < 1 and row["planned_off"] >= 0
