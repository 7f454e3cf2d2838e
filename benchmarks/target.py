"""A target speed-up beside every other way to decide which evaluations to compute.

For each number of steps and each sampler, every way is sampled for every prompt and seed on the
demo model at cfg 1 and compared with the full run of the same noise; `computed` and `psnr` are
means; `ssim` is the mean on the decoded pictures. `off_plan` is the largest distance of a target's
computed evaluations from its plan. `uniform` computes as many as the target of its name, evenly
spread, with the same forecast and corrector.
EasyCache of ComfyUI runs in bfloat16, where its in-place write into float32 outputs does not
matter, and is compared with the full run in bfloat16. The rivals use the last residual, as they do
by default.

Rows are written as they come, so `--resume` goes on after an interruption. A busy machine does no
harm: nothing is timed, and `--jobs` shares the work among as many processes of one thread.
`--time` adds, on a machine that is not busy, `seconds` and `speedup` to the targets' rows: of the
first prompt, sampled in turns with the full run step by step, every step the median of the rounds.
It comes last: a target that is measured again loses them.
`--finalists 3` keeps that work small: every way is measured with `--prompts` and `--seeds`, then
the targets and, for each of them, the three other ways that came nearest are measured with all
prompts and two seeds, and those rows replace the first ones.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import harness
import plans
import turns

FIRST_SEED = 1000
TARGETS = (1.5, 2.0, 2.5, 3.0)
TEACACHE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
EASYCACHE = (0.05, 0.1, 0.2, 0.3)
DBCACHE = {0.06: 2, 0.12: 2, 0.18: 3, 0.24: 3, 0.32: 4, 0.40: 4, 0.50: 6, 0.60: 6}
"""Thresholds with the ``max_continuous_cached_steps`` that goes with each."""

OURS = ("target", "uniform")
"""Both with the forecast and the corrector of Performance Mode."""
KINDS = (*OURS, "plain", "SCM", "DBCache", "TeaCache", "EasyCache")
PROMPTS, SEEDS = 8, 2

Row = dict[str, Any]
Schedule = tuple[int, str]
"""Number of steps and name of the sampler."""


@dataclass(frozen=True)
class Way:
    """One way to decide, and what it is given."""

    kind: str
    name: str
    value: Any = None


class TargetBench:
    """The demo model in float32 and, for EasyCache, in bfloat16, with their full runs."""

    def __init__(self, prompts: int, seeds: int) -> None:
        self.demo = harness.Demo()
        self.runs = [(p, FIRST_SEED + s) for s in range(seeds) for p in self.demo.prompts[:prompts]]
        self.others: list[harness.Demo] = []
        """More of the same, one a target, for what is timed."""
        self._full: dict[tuple[bool, int, str], list[harness.Sample]] = {}

    @cached_property
    def half(self) -> Any:
        """The demo model in bfloat16."""
        import comfy.sd
        import torch

        model = comfy.sd.load_diffusion_model(
            str(harness.MODEL), model_options={"dtype": torch.bfloat16}
        )
        # Without this the host computes in float32 on a CPU, where EasyCache writes into its input.
        model.set_model_compute_dtype(torch.bfloat16)
        return model

    def full(self, half: bool, steps: int, sampler: str) -> list[harness.Sample]:
        """Full runs of every prompt and seed, sampled once."""
        key = (half, steps, sampler)
        if key not in self._full:
            model = self.half if half else self.demo.model
            self._full[key] = [
                self.demo.sample(model, prompt, seed, 1.0, steps, sampler)
                for prompt, seed in self.runs
            ]
        return self._full[key]

    def model_for(self, way: Way, model: Any = None) -> Any:
        """The model behind the nodes of a way."""
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.policies.planned import Planned
        from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
        from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

        model = model or self.demo.model
        if way.kind == "target":
            return host.attach(model, Planned(way.value, "target", strict=True))
        if way.kind == "uniform":
            evaluations, count = way.value
            chosen = plans.uniform([1.0] * evaluations, count)
            return host.attach(model, plans.chosen_evaluations(chosen))
        if way.kind == "TeaCache":
            settings = TeaCacheSettings(rel_l1_thresh=way.value, max_continuous_cached_steps=6)
            return host.attach(model, TeaCache(settings))
        if way.kind == "EasyCache":
            from comfy_extras.nodes_easycache import EasyCacheNode

            return EasyCacheNode.execute(self.half, way.value, 0.15, 0.95, False).result[0]
        return model if way.kind == "plain" else harness.accelerate(model, **way.value)

    def measure(self, way: Way, steps: int, sampler: str) -> dict[str, Any]:
        """The row of one way."""
        half = way.kind == "EasyCache"
        model = self.model_for(way)
        own_steps = way.value if way.kind == "plain" else steps
        computed, distances, alike, totals, off = [], [], [], [], []
        for (prompt, seed), full in zip(self.runs, self.full(half, steps, sampler), strict=True):
            sample = self.demo.sample(model, prompt, seed, 1.0, own_steps, sampler)
            totals.append(full.evaluations if not half else self._evaluations(steps, sampler))
            computed.append(self._computed(way, model, sample))
            pair = full.latent.float(), sample.latent.float()
            distances.append(harness.psnr(*pair))
            alike.append(harness.ssim(*map(self.demo.picture, pair)))
            if way.kind == "target":
                off.append(abs(computed[-1] - self.planned(way.value, steps, totals[-1])))
        row = {
            "kind": way.kind,
            "name": way.name,
            "steps": steps,
            "sampler": sampler,
            "pictures": len(self.runs),
            "evaluations": statistics.fmean(totals),
            "computed": statistics.fmean(computed),
            "psnr": statistics.fmean(distances),
            "least_psnr": min(distances),
            "ssim": statistics.fmean(alike),
        }
        return harness.rounded(row | ({"off_plan": max(off)} if off else {}))

    def timed(self, steps: int, sampler: str, rounds: int) -> dict[str, dict[str, float]]:
        """Seconds and speed-up of every target, by name."""
        while len(self.others) < len(TARGETS):
            self.others.append(harness.Demo())
        ways = {
            f"{target:g}": functools.partial(self.model_for, Way("target", f"{target:g}", target))
            for target in TARGETS
        }
        run = (*self.runs[0], 1.0, steps, sampler)
        samples = turns.beside_full([self.demo, *self.others], ways, run, rounds)
        full = turns.typical(samples.pop(turns.FULL))
        return {
            name: {"seconds": seconds, "speedup": full / seconds}
            for name, seconds in ((n, turns.typical(each)) for n, each in samples.items())
        }

    def _evaluations(self, steps: int, sampler: str) -> int:
        """Evaluations of a full run; those of the model in bfloat16 are not counted."""
        return self.full(False, steps, sampler)[0].evaluations

    @staticmethod
    def _computed(way: Way, model: Any, sample: harness.Sample) -> int:
        if way.kind == "plain":
            return sample.evaluations
        if way.kind == "EasyCache":
            return int(EASY_COUNT[0])
        return int(harness.report_of(model).computed)

    def planned(self, speedup: float, steps: int, evaluations: int) -> float:
        """How many evaluations the plan of a target computes."""
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.policies.cost import cost_of
        from dit_acceleration_pack.acceleration.policies.outlook import Guess
        from dit_acceleration_pack.acceleration.policies.planned import Planned

        model = self.demo.model
        structure = host.structure_of(model)
        cost = cost_of(structure, host.network_of(model), model.load_device.type, 1)
        share = Planned(speedup, "target", strict=True).share(Guess.of_steps(steps, cost))
        return share * evaluations


EASY_COUNT = [0]
"""Calls of the first block since the last reset: EasyCache does not say what it skipped."""


def count_easycache(bench: TargetBench) -> None:
    """Count computed evaluations of the model in bfloat16 at its first block."""
    import torch

    block = bench.half.model.diffusion_model.double_blocks[0]

    def seen(*_: Any) -> None:
        EASY_COUNT[0] += 1

    block.register_forward_pre_hook(seen)
    original = bench.demo.sample_sigmas

    def sample(*args: Any, **kwargs: Any) -> harness.Sample:
        EASY_COUNT[0] = 0
        with torch.inference_mode():
            return original(*args, **kwargs)

    bench.demo.sample_sigmas = sample  # type: ignore[method-assign]


def every_way(data: dict[str, Any], schedule: Schedule, wanted: list[str]) -> Iterator[Way]:
    """The ways to decide that are wanted, by kind or by kind and name.

    Uniform and plain sampling go by the targets' rows, which are there by then.
    """
    for way in _every_way(data, schedule, wanted):
        if way.kind in wanted or full_name(way) in wanted:
            yield way


def _every_way(data: dict[str, Any], schedule: Schedule, wanted: list[str]) -> Iterator[Way]:
    for target in TARGETS:
        yield Way("target", f"{target:g}", target)
    for row in rows_of(data, schedule):
        if row["kind"] == "target":
            counts = round(row["evaluations"]), round(row["computed"])
            yield Way("uniform", row["name"], counts)
    fewer = [int(name.split()[1]) for name in wanted if name.startswith("plain ")]
    for steps in fewer or plain_steps(rows_of(data, schedule), schedule[0]):
        yield Way("plain", f"{steps}", steps)
    for preset in ("slow", "medium", "fast", "ultra"):
        yield Way("SCM", preset, {"scm_preset": preset, "scm_policy": "static"})
    for threshold, limit in DBCACHE.items():
        inputs = {"residual_diff_threshold": threshold, "max_continuous_cached_steps": limit}
        yield Way("DBCache", f"{threshold:g}", inputs)
    for threshold in TEACACHE:
        yield Way("TeaCache", f"{threshold:g}", threshold)
    for threshold in EASYCACHE:
        yield Way("EasyCache", f"{threshold:g}", threshold)


def plain_steps(rows: list[Row], steps: int) -> list[int]:
    """Fewer steps whose evaluations are those of the targets, and one more."""
    full = max((r["evaluations"] for r in rows), default=steps)
    found = {round(r["computed"] * steps / full) for r in rows if r["kind"] == "target"}
    return sorted({s for n in found for s in (n, n + 1)})


def finalists(rows: list[Row], most: int) -> list[str]:
    """The targets and the other ways that came nearest to the full run beside each."""
    targets = [row for row in rows if row["kind"] == "target"]
    others = [other for row in targets for other in rivals_of(row, rows)[:most]]
    return [*OURS, *dict.fromkeys(f"{other['kind']} {other['name']}" for other in others)]


def rivals_of(row: Row, rows: list[Row]) -> list[Row]:
    """What other ways reach with at most one evaluation more, the nearest picture first."""
    same = [
        other
        for other in rows
        if all(other[key] == row[key] for key in ("steps", "sampler"))
        and other["kind"] not in OURS
        and other["computed"] <= row["computed"] + 1
    ]
    return sorted(same, key=lambda other: -other["psnr"])


def full_name(way: Way) -> str:
    return f"{way.kind} {way.name}"


def rows_of(data: dict[str, Any], schedule: Schedule) -> list[Row]:
    """What has been measured of one schedule."""
    return [row for row in data["rows"] if (row["steps"], row["sampler"]) == schedule]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="how many: %(default)s")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds a prompt: %(default)s")
    parser.add_argument("--steps", type=int, nargs="+", default=[28, 20, 50])
    parser.add_argument("--samplers", nargs="+", default=list(plans.SAMPLERS))
    parser.add_argument(
        "--ways", nargs="+", default=list(KINDS), help="kinds, or single ones as 'plain 12'"
    )
    parser.add_argument("--finalists", type=int, default=0, metavar="N", help="see above")
    parser.add_argument("--time", action="store_true", help="time the targets that have rows")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="processes: %(default)s")
    harness.add_results_options(parser, "target")


def main(options: argparse.Namespace, environment: Any) -> int:
    options.resume |= options.time
    data = harness.begun(options, environment)
    schedules = [(steps, sampler) for steps in options.steps for sampler in options.samplers]
    if options.time:
        time_targets(data, schedules, options)
        return 0
    measure = measure_here if options.jobs == 1 else share_out
    measure(data, dict.fromkeys(schedules, options.ways), options)
    if options.finalists:
        nearest = {s: finalists(rows_of(data, s), options.finalists) for s in schedules}
        options.prompts, options.seeds = PROMPTS, SEEDS
        measure(data, nearest, options)
    return 0


def time_targets(
    data: dict[str, Any], schedules: list[Schedule], options: argparse.Namespace
) -> None:
    """Add seconds and speed-up to the rows of the targets."""
    bench = TargetBench(1, 1)
    for schedule in schedules:
        timed = bench.timed(*schedule, options.rounds)
        for row in rows_of(data, schedule):
            if row["kind"] == "target":
                row |= harness.rounded(timed[row["name"]])
                harness.show(row)
        harness.write(options.output, data, tell=False)


def measure_here(
    data: dict[str, Any], wanted: Mapping[Schedule, list[str]], options: argparse.Namespace
) -> None:
    """Measure what is missing, one way after the other."""
    bench = TargetBench(options.prompts, options.seeds)
    if any(name.startswith("EasyCache") for names in wanted.values() for name in names):
        count_easycache(bench)
    for schedule, names in wanted.items():
        for way in every_way(data, schedule, names):
            if not is_known(data, schedule, full_name(way), options):
                row = bench.measure(way, *schedule)
                harness.show(row)
                take(data, [row], options)


def share_out(
    data: dict[str, Any], wanted: Mapping[Schedule, list[str]], options: argparse.Namespace
) -> None:
    """Measure every schedule and kind in a process of its own, the longest first."""
    tasks = []
    for schedule in sorted(wanted, key=lambda s: -s[0] * (2 if s[1] == "heun" else 1)):
        missing = [n for n in wanted[schedule] if not is_known(data, schedule, n, options)]
        kinds: dict[str, list[str]] = {}
        for name in missing:
            kinds.setdefault(name.split()[0], []).append(name)
        following = [name for name in ("uniform", "plain") if name in missing]
        if following:  # these go by the rows of the targets
            kinds = {kind: names for kind, names in kinds.items() if kind not in following}
            kinds["target"] = ["target", *following]
        tasks += [(schedule, names) for names in kinds.values()]
    arguments = [
        [
            "--steps", str(steps), "--samplers", sampler, "--ways", *names,
            "--prompts", str(options.prompts), "--seeds", str(options.seeds),
        ]
        for (steps, sampler), names in tasks
    ]  # fmt: skip
    for found in harness.in_processes(__file__, arguments, options):
        take(data, found, options)


def is_known(
    data: dict[str, Any], schedule: Schedule, name: str, options: argparse.Namespace
) -> bool:
    """Whether there are rows of a kind or a way with as many pictures as are wanted."""
    pictures = options.prompts * options.seeds
    rows = [r for r in rows_of(data, schedule) if name in (r["kind"], f"{r['kind']} {r['name']}")]
    return bool(rows) and all(row["pictures"] >= pictures for row in rows)


def take(data: dict[str, Any], found: list[Row], options: argparse.Namespace) -> None:
    """Put rows into the results, in place of earlier ones about the same, and write them."""

    def about(row: Row) -> tuple[Any, ...]:
        return row["steps"], row["sampler"], row["kind"], row["name"]

    rows = {about(row): row for row in data["rows"]} | {about(row): row for row in found}
    data["rows"] = sorted(rows.values(), key=lambda r: KINDS.index(r["kind"]))
    schedules = [(steps, sampler) for steps in options.steps for sampler in options.samplers]
    place = {schedule: i for i, schedule in enumerate(schedules)}
    data["rows"].sort(key=lambda r: place.get((r["steps"], r["sampler"]), -1))
    harness.write(options.output, data, tell=False)


if __name__ == "__main__":
    harness.run(__file__, add_options, main)
