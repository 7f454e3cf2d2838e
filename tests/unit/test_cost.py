"""What evaluations are taken to cost, and what follows for a plan."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dit_acceleration_pack.acceleration.families import Structure
from dit_acceleration_pack.acceleration.policies.cost import (
    COUNTED,
    MEASURED,
    UNCOUNTED,
    Cost,
    cost_of,
    counted,
)
from dit_acceleration_pack.acceleration.report import EvaluationRecord, RunReport

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_share_of_evaluations_for_a_speedup() -> None:
    assert Cost(1.0, 0.1).share(1.0) == 1.0
    assert Cost(1.0, 0.0).share(2.0) == 0.5
    # 28 evaluations at 2 times: 14 units; 8.4 computed and 19.6 at 2/7 of a unit.
    assert Cost(1.0, 2 / 7).share(2.0) == pytest.approx(0.3)
    # 7 computed at 1.1 and 21 at 0.3 are 14 units as well.
    assert Cost(1.1, 0.3).share(2.0) == pytest.approx(0.25)
    assert Cost(1.0, 0.2).share(10.0) == 0.0, "cannot be reached"
    assert Cost(1.0, 1.0).share(2.0) == 1.0
    assert Cost(1.1, 0.3).share(1.0) == 1.0, "nothing is remembered where nothing is skipped"


@pytest.mark.parametrize("cost", [Cost(1.0, 0.05), Cost(1.1, 0.4)])
def test_a_plan_promises_what_it_was_asked_for(cost: Cost) -> None:
    for speedup in (1.3, 1.5, 2.0, 2.4):
        assert cost.speedup(cost.share(speedup)) == pytest.approx(speedup)
    assert cost.speedup(1.0) == 1.0


def network_of(blocks: int) -> Any:
    network = torch.nn.Module()
    network.img_in = torch.nn.Linear(5, 4, bias=False)
    network.time_in = torch.nn.Linear(100, 100)  # of one token, so it does not count
    network.blocks = torch.nn.ModuleList(torch.nn.Linear(5, 4, bias=False) for _ in range(blocks))
    return network


def structure_of(name: str, blocks: int) -> Structure:
    family: Any = SimpleNamespace(name=name, stacks=[SimpleNamespace(path="blocks")])
    return Structure(family, (blocks,))


def test_a_skipped_evaluation_costs_what_every_token_passes() -> None:
    # Of five layers as large, the one before the blocks and the first block run.
    assert counted(structure_of("?", 4), network_of(4)) == pytest.approx(2 / 5)


def test_costs_are_those_of_family_device_and_size() -> None:
    known = MEASURED[0]
    network = network_of(4)
    network.time_in = torch.nn.Linear(round(known.parameters), 1, bias=False, device="meta")
    for branches, costs in ((1, known.costs[0]), (2, known.costs[1]), (3, known.costs[1])):
        found = cost_of(structure_of(known.family, 4), network, known.device, branches)
        assert (found.computed, found.skipped) == costs
        assert found.source == f"measured on {known.family}"
    plain = Cost(1.0, 2 / 5 + UNCOUNTED, COUNTED)
    assert cost_of(structure_of("other", 4), network, known.device, 1) == plain
    assert cost_of(structure_of(known.family, 4), network, "cuda", 1) == plain
    small = cost_of(structure_of(known.family, 4), network_of(4), known.device, 1)
    assert small == plain, "a model of another size"


def test_measured_costs_are_those_of_the_results() -> None:
    rows = json.loads((RESULTS / "costs.json").read_text(encoding="utf-8"))["rows"]
    for known in MEASURED:
        own = sorted((r for r in rows if r["model"] == known.family), key=lambda r: r["cfg"])
        assert [row["cfg"] for row in own] == [1.0, 3.0]
        for row, costs in zip(own, known.costs, strict=True):
            # As far as they move from one measurement to the next.
            assert costs == pytest.approx((row["computed"], row["skipped"]), abs=0.02), row


def test_presets_keep_their_promise_on_both_demos() -> None:
    # As the changelog says.
    rows = json.loads((RESULTS / "performance.json").read_text(encoding="utf-8"))["rows"]
    kept = [row["speedup"]["auto"] / row["promised"] for row in rows]
    assert len(kept) == 48 and kept == pytest.approx([1.0] * 48, abs=0.05)


def test_what_is_remembered_is_not_counted_as_saved() -> None:
    report = RunReport("Performance Mode")
    report.evaluations = [
        EvaluationRecord(step, step, 1.0, "cond", step > 1, "planned", None, seconds)
        for step, seconds in enumerate((1.1, 1.1, 0.2, 0.2))
    ]
    report.seconds = 2.6
    assert report.speedup() == pytest.approx((2 * 1.1 + 2 * 1.1) / 2.6)
    report.computed_cost = 1.1
    assert report.speedup() == pytest.approx(4 * 1.0 / 2.6)
