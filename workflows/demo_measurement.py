"""The measurement of the demo: the example workflow, with one setting after the other in it."""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

import demo_figure as figure
from comfyui_environment import ROOT, SetupError, say
from comfyui_server import Server
from comfyui_workflow import Prompt, downstream, find, inputs_of, to_prompt
from demo_figure import Array

WORKFLOW = ROOT / "workflows" / "dit_acceleration_demo.json"
APPLY, PERFORMANCE = "AccelApplyCacheDiT", "AccelPerformanceMode"
REPORT, SAMPLER, SAVE = "AccelReport", "KSampler", "SaveImage"
ENCODE, STOPWATCH_READ = "DiTAccelDemoTextEncode", "DiTAccelDemoStopwatchRead"
UNCONDITIONAL = "(unconditional)"
BASELINE = "baseline"
FIRST_SEED = 1000
WARM_UP_STEPS = 10


@dataclass(frozen=True)
class Setting:
    """A node that accelerates, with the values that differ from its defaults."""

    node: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The name of the node as people know it."""
        return {APPLY: "Cache-DiT", PERFORMANCE: "Performance Mode"}[self.node]


SETTINGS: dict[str, Setting] = {
    **{
        preset: Setting(PERFORMANCE, {"approximation": preset})
        for preset in ("quality", "balanced", "fast", "ultra")
    },
    "defaults": Setting(APPLY),
    "taylorseer": Setting(APPLY, {"calibrator": "taylorseer"}),
    "trajectory": Setting(APPLY, {"calibrator": "trajectory"}),
    "scm_fast_static": Setting(APPLY, {"scm_preset": "fast", "scm_policy": "static"}),
}
USUAL = ("quality", "balanced", "fast", "defaults")
# What plain sampling with fewer steps is to be as quick as, if it is measured.
AS_QUICK_AS = "balanced"
SHOWN = 3
"""Prompts in the picture; its figures are of all."""


@dataclass(frozen=True)
class Sample:
    """One sampling run: its latent [B, C, H, W], its picture [H, W, 3], its time and counts."""

    latent: Array
    picture: Array
    seconds: float
    evaluations: int
    computed: int
    branches: Sequence[Mapping[str, Any]] = ()


@dataclass
class Result:
    """The runs of one setting at one cfg, a run a prompt, beside the full runs of the same."""

    setting: str
    cfg: float
    steps: int
    baseline: list[Sample]
    samples: list[Sample] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """The figures as they go into ``demo.json``: medians of times, means of the rest."""
        pairs = list(zip(self.samples, self.baseline, strict=True))
        row: dict[str, Any] = {
            "setting": self.setting,
            "cfg": self.cfg,
            "steps": self.steps,
            "evaluations": statistics.fmean(s.evaluations for s in self.samples),
            "computed": statistics.fmean(s.computed for s in self.samples),
            "skipped": statistics.fmean(s.evaluations - s.computed for s in self.samples),
            "seconds": statistics.median(s.seconds for s in self.samples),
            "baseline_seconds": statistics.median(b.seconds for b in self.baseline),
            "speedup": statistics.median(b.seconds / s.seconds for s, b in pairs),
            **self.quality(),
            "branches": self.branches(),
        }
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}

    def quality(self) -> dict[str, float | None]:
        """PSNR of the latents, and PSNR and SSIM of the pictures, to the full runs."""
        if self.setting == BASELINE:
            return {"psnr": None, "ssim": None, "psnr_picture": None}
        pairs = list(zip(self.samples, self.baseline, strict=True))
        # One peak for all prompts, so that a pale picture does not count as a bad one.
        peak = figure.value_range([full.latent for full in self.baseline])
        return {
            "psnr": statistics.fmean(figure.psnr(s.latent, b.latent, peak) for s, b in pairs),
            "ssim": statistics.fmean(figure.ssim(s.picture, b.picture) for s, b in pairs),
            "psnr_picture": statistics.fmean(
                figure.psnr(s.picture, b.picture, 255) for s, b in pairs
            ),
        }

    def branches(self) -> list[dict[str, Any]]:
        """Evaluations computed and skipped of each branch, as means over the prompts."""
        return [
            {
                "name": same[0]["name"],
                "computed": round(statistics.fmean(b["computed"] for b in same), 4),
                "skipped": round(statistics.fmean(b["skipped"] for b in same), 4),
            }
            for same in zip(*(s.branches for s in self.samples), strict=False)
        ]


class Workflow:
    """The example workflow as a prompt whose two branches are told apart by the node in one."""

    def __init__(self, server: Server) -> None:
        self.server = server
        info = server.object_info()
        self.prompt = to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), info)
        self.apply = find(self.prompt, APPLY)[0]
        self.accelerated = downstream(self.prompt, self.apply)
        choices = dict(inputs_of(info[ENCODE]))["prompt"][1]["options"]
        self.prompts = [name for name in choices if name != UNCONDITIONAL]

    def pair(
        self, prompt: str, seed: int, cfg: float, steps: int, setting: Setting
    ) -> tuple[Sample, Sample]:
        """Sample without and with acceleration, one right after the other.

        The host remembers what did not change since the last call: for the next setting of the
        same prompt it samples only the accelerated branch, and gives the baseline again.
        """
        graph = self.filled(prompt, seed, cfg, steps)
        graph[self.apply] = self.node_of(setting)
        outputs = self.server.run(graph, on_wait=heartbeat)
        return self.sample(outputs, False), self.sample(outputs, True)

    def node_of(self, setting: Setting) -> dict[str, Any]:
        """The accelerating node of the prompt, as a setting has it."""
        inputs = self.prompt[self.apply]["inputs"]
        kept = inputs if setting.node == APPLY else {"model": inputs["model"]}
        return {"class_type": setting.node, "inputs": {**kept, **setting.values}}

    def values_of(self, setting: Setting) -> dict[str, Any]:
        """What a setting gives to its node, but for links."""
        inputs = self.node_of(setting)["inputs"]
        return {name: value for name, value in inputs.items() if not isinstance(value, list)}

    def plain(self, prompt: str, seed: int, cfg: float, steps: int) -> Sample:
        """Sample without acceleration in so many steps."""
        graph = self.filled(prompt, seed, cfg, steps)
        gone = downstream(graph, self.apply)
        graph = {key: node for key, node in graph.items() if key not in gone}
        return self.sample(self.server.run(graph, on_wait=heartbeat), False)

    def filled(self, prompt: str, seed: int, cfg: float, steps: int) -> Prompt:
        """A copy of the workflow with these values, which saves both latents as well."""
        graph = copy.deepcopy(self.prompt)
        for key in find(graph, ENCODE):
            if graph[key]["inputs"]["prompt"] != UNCONDITIONAL:
                graph[key]["inputs"]["prompt"] = prompt
        for key in find(graph, SAMPLER):
            graph[key]["inputs"].update(seed=seed, cfg=cfg, steps=steps)
            graph[latent_key(key)] = {
                "class_type": "SaveLatent",
                "inputs": {"samples": [key, 0], "filename_prefix": f"latents/{key}"},
            }
        return graph

    def sample(self, outputs: Mapping[str, Any], accelerated: bool) -> Sample:
        """Read what one branch of the workflow gave."""

        def key_of(kind: str) -> str:
            keys = find(self.prompt, kind)
            return next(key for key in keys if (key in self.accelerated) == accelerated)

        watched = json.loads(outputs[key_of(STOPWATCH_READ)]["text"][0])
        latent = outputs[latent_key(key_of(SAMPLER))]["latents"][0]
        picture = outputs[key_of(SAVE)]["images"][0]
        counts = {"evaluations": watched["model_calls"], "computed": watched["model_calls"]}
        if accelerated:
            counts = json.loads(outputs[key_of(REPORT)]["text"][1])
        return Sample(
            load_file(self.server.file(latent))["latent_tensor"],
            figure.read_picture(self.server.file(picture)),
            watched["seconds"],
            counts["evaluations"],
            counts["computed"],
            counts.get("branches", ()),
        )


def latent_key(sampler: str) -> str:
    return f"{sampler}:latent"


def heartbeat(seconds: float) -> None:
    """Say that a slow prompt is still running."""
    if int(seconds) % 10 == 9:
        say(f"  … {seconds:.0f} s")


def chosen(names: Sequence[str] | None) -> list[str]:
    """The presets that are measured."""
    if not names:
        return list(USUAL)
    if list(names) == ["all"]:
        return list(SETTINGS)
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise SetupError(
            f"There is no preset {', '.join(unknown)}; choose of {', '.join(SETTINGS)}, or all."
        )
    return list(names)


def measure(workflow: Workflow, names: Sequence[str], options: argparse.Namespace) -> list[Result]:
    """Run every preset for every prompt and cfg, and plain sampling in as little time."""
    if not 1 <= options.prompts <= len(workflow.prompts):
        raise SetupError(f"--prompts takes 1 to {len(workflow.prompts)}, not {options.prompts}.")
    prompts = workflow.prompts[: options.prompts]
    say("Warming up")
    for name in names:
        workflow.pair(prompts[0], FIRST_SEED - 1, max(options.cfg), WARM_UP_STEPS, SETTINGS[name])
    results: list[Result] = []
    for cfg in options.cfg:
        results += measure_cfg(workflow, prompts, names, cfg, options.steps)
    return results


def measure_cfg(
    workflow: Workflow, prompts: Sequence[str], names: Sequence[str], cfg: float, steps: int
) -> list[Result]:
    """Run every preset for every prompt at one cfg."""
    full: list[Sample] = []
    accelerated = [Result(name, cfg, steps, full) for name in names]
    for index, prompt in enumerate(prompts):
        times = []
        for result in accelerated:
            baseline, sample = workflow.pair(
                prompt, FIRST_SEED + index, cfg, steps, SETTINGS[result.setting]
            )
            if result is accelerated[0]:
                full.append(baseline)
            result.samples.append(sample)
            times.append(f"{result.setting} {sample.seconds:.2f} s")
        say(
            f"  cfg {cfg:g}, {index + 1} of {len(prompts)}, {prompt}: "
            f"full {full[-1].seconds:.2f} s, {', '.join(times)}"
        )
    goal = next((r for r in accelerated if r.setting == AS_QUICK_AS), accelerated[0])
    few = plain_steps(goal)
    plain = Result(f"plain, {few} steps", cfg, few, full)
    say(f"  cfg {cfg:g}: plain sampling with {few} steps")
    for index, prompt in enumerate(prompts):
        plain.samples.append(workflow.plain(prompt, FIRST_SEED + index, cfg, few))
    return [Result(BASELINE, cfg, steps, full, full), *accelerated, plain]


def plain_steps(result: Result) -> int:
    """With how many steps plain sampling takes as long as the accelerated runs did."""
    pairs = zip(result.samples, result.baseline, strict=True)
    share = statistics.median(quick.seconds / full.seconds for quick, full in pairs)
    return max(1, round(result.steps * share))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [
        f"{'setting':18} {'cfg':>4} {'steps':>5} {'computed':>12} {'seconds':>8} {'speedup':>8} "
        f"{'PSNR dB':>8} {'SSIM':>7}"
    ]
    for row in rows:
        quality = "       –       –" if row["psnr"] is None else ""
        lines.append(
            f"{row['setting']:18} {row['cfg']:4g} {row['steps']:5d} "
            f"{row['computed']:5.1f} of {row['evaluations']:3g} {row['seconds']:8.2f} "
            f"{row['speedup']:7.2f}x " + (quality or f"{row['psnr']:8.1f} {row['ssim']:7.4f}")
        )
    return "\n".join(lines)


def write_picture(results: Sequence[Result], prompts: Sequence[str], path: Path) -> None:
    """Draw what every setting made of the first prompts at the last cfg, side by side."""
    cfg, steps, count = results[-1].cfg, results[0].steps, len(results[-1].samples)
    columns = [column_of(result) for result in results if result.cfg == cfg]
    title = f"The demo model, {steps} steps, cfg {cfg:g}: speed and PSNR over {count} prompts"
    figure.draw(columns, prompts[:SHOWN], title, path)


def column_of(result: Result) -> figure.Column:
    """One setting in the picture."""
    row = result.row()
    pictures = [sample.picture for sample in result.samples]
    computed = f"{row['computed']:.3g} of {row['evaluations']:g} computed"
    if result.setting == BASELINE:
        seconds = f"{row['seconds']:.1f} s"
        name = f"{result.steps} steps"
        return figure.Column("plain", name, seconds, "the full run", computed, pictures)
    family, name = "plain", f"{result.steps} steps"
    if result.setting in SETTINGS:
        family, name = SETTINGS[result.setting].family, result.setting
    full = (sample.picture for sample in result.baseline)
    differences = [figure.difference(*pair) for pair in zip(pictures, full, strict=True)]
    speed, nearness = f"{row['speedup']:.1f}x as fast", f"{row['psnr']:.1f} dB"
    return figure.Column(family, name, speed, nearness, computed, pictures, differences)
