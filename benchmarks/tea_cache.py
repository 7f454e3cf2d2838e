"""What Apply TeaCache saves and costs on the demo model, before and after calibration.

The calibration is made as Calibrate TeaCache makes it, on one prompt and a seed that is not
measured afterwards. Rows are measured as in ``quality.py``.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import quality
from harness import say

CALIBRATION_SEED = 7
WITH = ("none", "taylorseer 1", "trajectory 1", "blend")
CORRECTED = tuple(k for k in quality.FORECASTS if k.endswith(quality.CORRECTED))
FORECASTS = {k: quality.FORECASTS[k] for k in (*WITH, *CORRECTED)}


def calibrate(demo: harness.Demo, cfg: float, steps: int) -> Any:
    """The calibration of the demo model for one guidance scale."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.calibration import calibrate as fit
    from dit_acceleration_pack.acceleration.policies.recording import Recorder, Recording

    recording = Recording()
    recorder = host.attach(demo.model, Recorder(recording))
    demo.sample(recorder, demo.prompts[0], CALIBRATION_SEED, cfg, steps, "euler")
    return fit("demo", "FLUX", recording.inputs, recording.outputs)


@dataclass
class TeaCacheBench(quality.Bench):
    """A bench whose settings are TeaCache's."""

    calibration: Any = None

    def accelerated(self, setting: quality.Setting) -> Any:
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
        from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

        if setting.steps:
            return self.demo.model
        fit = self.calibration.fit()
        return host.attach(
            self.demo.model, TeaCache(TeaCacheSettings(**setting.inputs), lambda _: fit)
        )


def settings_for(calibration: Any) -> Iterator[quality.Setting]:
    """The calibrated thresholds for several shares of skipped steps, and raw ones."""
    for share, threshold in calibration.thresholds.items():
        for name, forecast in FORECASTS.items():
            inputs = {"rel_l1_thresh": threshold, **forecast}
            yield quality.Setting(f"TeaCache calibrated for {share}", name, inputs)
    for threshold in (0.1, 0.2, 0.4):
        inputs = {"coefficients": "raw", "rel_l1_thresh": threshold}
        yield quality.Setting(f"TeaCache raw {threshold:g}", "none", inputs)


def measure(bench: TeaCacheBench, cfg: float, only: str, timed: str) -> list[dict[str, Any]]:
    """Every row of one guidance scale, each followed by plain sampling at the same work."""
    rows: list[dict[str, Any]] = []

    def add(setting: quality.Setting) -> None:
        row = bench.quality(setting, "euler", cfg)
        if fnmatch.fnmatch(setting.name, timed):
            row |= bench.speeds([setting], "euler", cfg)[0]
        rows.append(row)
        harness.show(row)

    for setting in settings_for(bench.calibration):
        if fnmatch.fnmatch(setting.name, only):
            add(setting)
    for steps in sorted({round(row["computed"]) for row in rows}, reverse=True):
        add(quality.Setting(f"{quality.PLAIN} {steps} steps", "none", steps=steps))
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=8, help="how many of them: %(default)s")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0], help="default: 1 3")
    parser.add_argument("--steps", type=int, default=28, help="default: %(default)s")
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs a row: %(default)s")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN", help="settings to measure, by name: %(default)s"
    )
    parser.add_argument(
        "--timed", default="*", metavar="PATTERN", help="settings to time, by name: %(default)s"
    )
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "tea_cache.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    demo = harness.Demo()
    runs = [(prompt, quality.FIRST_SEED) for prompt in demo.prompts[: options.prompts]]
    data: dict[str, Any] = {
        "environment": harness.describe(environment),
        "prompts": options.prompts,
        "seeds": 1,
        "rows": [],
        "calibrations": {},
    }
    for cfg in options.cfg:
        calibration = calibrate(demo, cfg, options.steps)
        say(calibration.text())
        data["calibrations"][f"{cfg:g}"] = calibration.as_dict()
        bench = TeaCacheBench(demo, runs, options.steps, options.pairs, calibration=calibration)
        data["rows"] += measure(bench, cfg, options.only, options.timed)
        harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)
