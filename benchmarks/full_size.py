"""The speed of the pack on a GPU, with the real architectures in their real size.

The weights are random numbers: speed, memory and what the pack itself costs are those of the real
models, pictures are noise. So PSNR to the plain run says nothing of picture quality here, only
whether a latent is the same, and techniques that decide by thresholds (Cache-DiT, TeaCache) skip as
much as random weights let them, not as much as a trained model would. What is planned (the presets,
SCM) skips as it always does.

Every row is sampled once (``--repeats``) after a short warm-up of the model, and written to the
output as soon as it is there; a row that fails is written with its reason. ``--budget`` shares the
seconds among the models and starts no row that will probably not end in time; ``--resume`` goes on
with what is missing. ``--tiny`` tries all of this with tiny widths on any machine.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import full_size_profile
import full_size_rows as rows
import harness
from full_size_models import MODELS, Full, Sample, enable_dynamic
from full_size_rows import Row
from harness import say

SHARES = {"FLUX.1-dev": 0.42, "Qwen-Image": 0.25, "Wan 2.1 14B": 0.33}
"""Parts of the budget; what a model leaves goes to those after it."""
GUESSED_FLOPS = 450e12
"""Operations a second, for the plan until the plain run has been timed."""
BUILD_SECONDS, PROFILE_SECONDS = 10.0, 25.0
LOST = 3
"""Exit status when the device no longer works."""


class Bench:
    """One model, built when its first row is due, with the plain run that all are compared with."""

    def __init__(
        self, name: str, options: argparse.Namespace, warm_up: Callable[[Full], None]
    ) -> None:
        self.name, self.spec, self.options = name, MODELS[name], options
        self._warm_up = warm_up
        self._full: Full | None = None
        self._plain: Sample | None = None
        self.fails = False
        """Whether the model could not be built or sampled as it is."""

    @property
    def full(self) -> Full:
        if self._full is None:
            began = time.perf_counter()
            self._full = Full(self.name, self.options.tiny, self.options.dynamic)
            harness.synchronize()
            size = self._full.weight_bytes / 2**30
            say(f"{self.name}: {size:.1f} GiB in {time.perf_counter() - began:.1f} s")
        return self._full

    def plain(self) -> Sample:
        """The first plain run, after a short one that warms everything up."""
        if self._plain is None:
            self.fails = True
            self._warm_up(self.full)
            self.full.sample(self.full.model, rows.WARM_UP)
            self._plain = self.full.sample(self.full.model, self.spec.steps)
            self.fails = False
        return self._plain

    def evaluation_seconds(self) -> float:
        """Seconds of a plain evaluation, guessed until they have been measured."""
        if self._plain is not None:
            return self._plain.seconds / self.spec.steps
        if self.options.tiny:
            return 0.05
        return self.spec.flop / GUESSED_FLOPS

    def estimate(self, row: Row | None) -> float:
        """Seconds until a row is measured, with what has to be done before it."""
        one = self.evaluation_seconds()
        first = 0.0
        if self._plain is None:
            built = 0.0 if self.options.tiny else BUILD_SECONDS
            first = built + one * (self.spec.steps + 2 * rows.WARM_UP + rows.SKIPPING)
        if row is None:
            return first + one * full_size_profile.EVALUATIONS + PROFILE_SECONDS
        if row.name == rows.PLAIN:
            return first
        return first + self.options.repeats * row.estimate(one, self.spec.steps)

    def measure(self, row: Row) -> dict[str, Any]:
        """Sample one row and say what came out."""
        if row.on_gpu and self.full.device.type != "cuda":
            return {"reason": "needs a CUDA device"}
        plain = self.plain()
        model = row.make(self.full.model)
        steps = rows.SHORT if row.short else self.spec.steps
        found: dict[str, Any] = {"cfg": self.spec.cfg, "steps": steps}
        with row.around():
            untimed = steps if row.warm_up < 0 else row.warm_up
            first = self.full.sample(model, untimed) if untimed else None
            samples = [plain] if row.name == rows.PLAIN else []
            while len(samples) < self.options.repeats:
                samples.append(self.full.sample(model, steps))
        if row.compiling and first is not None:
            found["compile_seconds"] = first.seconds - samples[-1].seconds * untimed / steps
        found |= self._times(row, plain, samples)
        if steps == self.spec.steps:
            found |= likeness(plain.latent, samples[-1].latent)
        found["peak_bytes"] = samples[-1].peak_bytes
        return harness.rounded(found | told(model, samples[-1]))

    def _times(self, row: Row, plain: Sample, samples: list[Sample]) -> dict[str, Any]:
        seconds = statistics.median(s.seconds for s in samples)
        if row.short:
            one = statistics.median(samples[-1].evaluation_seconds()[1:])
            usual = statistics.median(plain.evaluation_seconds()[1:])
            return {"seconds": seconds, "speedup": usual / one}
        return {"seconds": seconds, "speedup": plain.seconds / seconds}

    def close(self) -> None:
        """Forget the model."""
        full, self._full, self._plain = self._full, None, None
        if full is not None:
            import torch

            torch._dynamo.reset()
            try:
                full.free()
            except RuntimeError as problem:
                say(f"{self.name} could not be freed: {problem}")


def told(model: Any, sample: Sample) -> dict[str, Any]:
    """What the reports say of the last run, and the time of its evaluations by kind."""
    from dit_acceleration_pack.acceleration import host

    report = host.last_report(model)
    skipped = [e.skipped for e in report.evaluations] if report else [False] * len(sample.spans)
    # The first evaluation does things that are done once.
    timed = list(zip(sample.evaluation_seconds(), skipped, strict=False))[1:]
    found: dict[str, Any] = {"evaluations": len(skipped), "computed": skipped.count(False)}
    for key, wanted in (("ms_computed", False), ("ms_skipped", True)):
        mine = [seconds for seconds, was_skipped in timed if was_skipped == wanted]
        if mine:
            found[key] = 1000 * statistics.median(mine)
    if report is not None:
        found["residual_bytes"] = report.residual_peak_bytes
        found["residuals_on"] = report.residual_placement
    reports = [lever.last_report for lever in host.levers_of(model).values()]
    found |= sizes(model)
    found["said"] = [r.sentence() for r in reports if r is not None]
    found["notices"] = [n for r in reports if r is not None for n in getattr(r, "notices", ())]
    return found


def sizes(model: Any) -> dict[str, Any]:
    """How many evaluations were small, and what one cost as a share of a full one."""
    from dit_acceleration_pack.acceleration import host

    lever = host.lever_of(model, host.PROGRESSIVE_KEY)
    report = lever.last_report if lever is not None else None
    stages = getattr(report, "stages", ())
    full = next((stage for stage in stages if stage.full and stage.evaluations), None)
    small = next((stage for stage in stages if not stage.full and stage.evaluations), None)
    if full is None or small is None or not full.each:
        return {}
    return {"coarse": small.evaluations, "share": small.each / full.each}


def likeness(plain: Any, other: Any) -> dict[str, Any]:
    """Whether a latent is that of the plain run; ``psnr`` None where it is."""
    import torch

    psnr = harness.psnr(plain, other)
    return {
        "finite": bool(torch.isfinite(other).all()),
        "identical": bool(torch.equal(plain, other)),
        "psnr": psnr if math.isfinite(psnr) else None,
    }


def device_works() -> bool:
    """Whether the device still takes work; after some errors it takes none in this process."""
    try:
        harness.synchronize()
    except RuntimeError:
        return False
    return True


def guarded(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a row measures, or why it could not be."""
    try:
        return measure()
    except Exception as problem:
        # Whatever fails, the next row may work, and this run of the machine is the only one.
        lines = str(problem).strip().splitlines() or ["no message"]
        kind = "" if isinstance(problem, RuntimeError) else f"{type(problem).__name__}: "
        return {"reason": f"{kind}{lines[0][:300]}"}


class Session:
    """The rows of one call of the script, and its time."""

    def __init__(self, options: argparse.Namespace, data: dict[str, Any]) -> None:
        self.options, self.data = options, data
        self.ends = options.began + options.budget
        self.late: list[str] = []
        self.is_warm = False

    def is_wanted(self, model: str, name: str) -> bool:
        globs = self.options.only
        known = any((r["model"], r["setting"]) == (model, name) for r in self.data["rows"])
        chosen = not globs or any(fnmatch.fnmatchcase(name, g) for g in globs)
        return chosen and not known and name not in MODELS[model].leave_out

    def warm_up(self, full: Full) -> None:
        """Do what a process does once: import Cache-DiT, load the libraries of the forecasts."""
        if not self.is_warm:
            full.sample(rows.cache_dit()(full.model), rows.WARM_UP)
            full.sample(rows.planned()(full.model), rows.SKIPPING)
            self.is_warm = True

    def run(self) -> int:
        """Every row of every model; the exit status."""
        models = self.options.models
        for index, name in enumerate(models):
            left = self.ends - time.time()
            mine = SHARES[name] / sum(SHARES[other] for other in models[index:])
            bench = Bench(name, self.options, self.warm_up)
            works = self._rows_of(bench, time.time() + left * mine)
            if not works:
                return LOST
            bench.close()
        return 0

    def _rows_of(self, bench: Bench, ends: float) -> bool:
        every: list[Row | None] = [*rows.all_rows()]
        # After what skips, before what is only nice to know.
        every.insert(next(i for i, r in enumerate(every) if r and r.compiling), None)
        for row in every:
            name = row.name if row else rows.SYNCHRONISATIONS
            if not self.is_wanted(bench.name, name):
                continue
            if time.time() + bench.estimate(row) > ends:
                self.late.append(f"{bench.name}: {name} (about {bench.estimate(row):.0f} s)")
                continue
            began = time.perf_counter()
            if row is not None:
                found = guarded(lambda row=row: bench.measure(row))
            else:
                found = guarded(lambda: full_size_profile.measure(bench.full))
            found["row_seconds"] = round(time.perf_counter() - began, 1)
            self._add({"model": bench.name, "setting": name, **found})
            if not device_works():
                return False
            if bench.fails:
                break
        return True

    def _add(self, row: dict[str, Any]) -> None:
        self.data["rows"].append(row)
        harness.show(row)
        harness.write(self.options.output, self.data, tell=False)


def show_plan(options: argparse.Namespace) -> None:
    """Print every row with the guess of its seconds."""
    total = 0.0
    for name in options.models:
        bench = Bench(name, options, lambda _: None)
        for row in [*rows.all_rows(), None]:
            label = row.name if row else rows.SYNCHRONISATIONS
            if label in MODELS[name].leave_out:
                continue
            first = bench.estimate(rows.all_rows()[0])
            seconds = bench.estimate(row) - (0 if row and row.name == rows.PLAIN else first)
            total += seconds
            print(f"{seconds:7.1f} s  {name}: {label}")
    print(f"{total:7.1f} s  in all")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--only", nargs="+", metavar="GLOB", help="only these rows")
    parser.add_argument("--repeats", type=int, default=1, help="runs a row: %(default)s")
    parser.add_argument("--budget", type=float, default=1800, help="seconds: %(default)s")
    parser.add_argument("--resume", action="store_true", help="add to the rows of the output file")
    parser.add_argument("--tiny", action="store_true", help="tiny widths, for a test")
    parser.add_argument("--dynamic", action="store_true", help="the dynamic memory manager")
    parser.add_argument("--plan", action="store_true", help="only show the rows and guessed times")
    parser.add_argument("--output", type=Path, help="default: full_size.json in the results")


def header(options: argparse.Namespace, environment: Any) -> dict[str, Any]:
    """What the rows have in common."""
    return {
        "environment": harness.describe(environment),
        "tiny": options.tiny,
        "dtype": "bfloat16" if options.gpu else "float32",
        "repeats": options.repeats,
        "memory_manager": "dynamic" if options.dynamic else "classic",
        "rows": [],
    }


def main(options: argparse.Namespace, environment: Any) -> int:
    import torch

    # A process that takes over from one whose device was lost has its clock.
    options.began = float(os.environ.setdefault("DIT_ACCEL_FULL_SIZE_BEGAN", str(time.time())))
    if options.plan:
        show_plan(options)
        return 0
    if options.gpu and torch.cuda.is_available():
        torch.cuda.init()
    elif not options.tiny:
        print("This needs a CUDA device: run it with --gpu, or with --tiny to try it.")
        return 2
    if options.dynamic:
        enable_dynamic()
    if options.output is None:
        folder = environment.cache if options.tiny else harness.RESULTS
        options.output = folder / "full_size.json"
    data = header(options, environment)
    if options.resume and options.output.exists():
        data["rows"] = json.loads(options.output.read_text(encoding="utf-8"))["rows"]
    session = Session(options, data)
    status = session.run()
    if status == LOST:
        say("The device was lost; another process goes on with the next row.")
        again = [a for a in sys.argv if a != "--resume"]
        os.execv(sys.executable, [sys.executable, *again, "--resume"])
    for late in session.late:
        print(f"No time for {late}")
    say(f"Wrote {options.output}")
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)
