#!/usr/bin/env python3
"""What an evaluation costs in a run that skips some: a computed one, and a skipped one.

A run in which the share s of the evaluations is computed takes ``a s + k (1 - s)`` of the full run,
with a computed evaluation costing ``a`` (above 1 by what is remembered in it) and a skipped one
``k`` (the first block, what is outside the blocks, the forecast). Both are fitted to runs that
compute ``FITTED`` of the steps evenly, with the forecast and the corrector of Performance Mode.
``off`` is how far the time of runs that took no part in the fit (``HELD_OUT``) is from it, at most,
as a share of that time; ``planned_off`` how far it is from the costs that presets plan with.

All runs of a model take turns step by step, every step the median of the rounds, so nothing else
should use the machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import harness
import performance
import plans
import turns

SEED = 6000
FITTED, HELD_OUT = (27, 20, 12, 6), (24, 16, 10, 8)
"""So many of the steps are computed."""
NOTHING = "nothing skipped"
"""A row of ``full_size.py`` that plans for once the speed."""


def fit(shares: Sequence[float], times: Sequence[float]) -> tuple[float, float]:
    """Least squares: what a computed and what a skipped evaluation costs, as shares of the full."""
    import torch

    left = torch.tensor([[share, 1 - share] for share in shares], dtype=torch.float64)
    right = torch.tensor(times, dtype=torch.float64)
    computed, skipped = torch.linalg.lstsq(left, right.unsqueeze(1)).solution.flatten().tolist()
    return computed, skipped


def farthest(costs: tuple[float, float], times: Mapping[float, float]) -> float:
    """How far times by share are from what the costs say, at most and as a share of each."""
    computed, skipped = costs
    return max(
        abs(computed * share + skipped * (1 - share) - time) / time for share, time in times.items()
    )


def of_presets(rows: Sequence[Mapping[str, Any]]) -> dict[float, float]:
    """Times by share, both of the full run, of one model's rows of ``full_size.py``."""
    return {
        row["computed"] / row["evaluations"]: 1 / row["speedup"]
        for row in rows
        if row["setting"] in (NOTHING, *performance.PRESETS)
    }


def measure(name: str, cfg: float, rounds: int) -> dict[str, Any]:
    """The row of one model."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.cost import cost_of

    def computing(count: int) -> Callable[[Any], Any]:
        steps = plans.uniform((1.0,) * plans.STEPS, count)
        return lambda model: host.attach(model, plans.chosen_evaluations(steps))

    ways = {str(count): computing(count) for count in (*FITTED, *HELD_OUT)}
    demos = [plans.DEMOS[name]() for _ in range(len(ways) + 1)]
    demo = demos[0]
    samples = turns.beside_full(demos, ways, (demo.prompts[0], SEED, cfg, plans.STEPS), rounds)
    full = turns.typical(samples[turns.FULL])
    fitted, held_out = (
        {count / plans.STEPS: turns.typical(samples[str(count)]) / full for count in counts}
        for counts in (FITTED, HELD_OUT)
    )
    costs = fit(list(fitted), list(fitted.values()))
    model = demo.model
    plans_with = cost_of(
        host.structure_of(model), host.network_of(model), model.load_device.type, 1 + (cfg > 1)
    )
    return harness.rounded(
        {
            "model": name, "cfg": cfg, "steps": plans.STEPS,
            "evaluation_ms": 1000 * full / plans.STEPS, "computed": costs[0], "skipped": costs[1],
            "off": farthest(costs, held_out), "planned_computed": plans_with.computed,
            "planned_skipped": plans_with.skipped, "source": plans_with.source,
            "planned_off": farthest((plans_with.computed, plans_with.skipped), held_out),
        }
    )  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(plans.DEMOS), choices=list(plans.DEMOS))
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    harness.add_results_options(parser, "costs")


def main(options: argparse.Namespace, environment: Any) -> int:
    data = harness.begun(options, environment)
    for name in options.models:
        for cfg in options.cfg:
            if any((row["model"], row["cfg"]) == (name, cfg) for row in data["rows"]):
                continue
            row = measure(name, cfg, options.rounds)
            data["rows"].append(row)
            harness.show(row)
            harness.write(options.output, data, tell=False)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)
