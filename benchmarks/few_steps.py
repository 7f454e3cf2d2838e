#!/usr/bin/env python3
"""What is honest to skip in a model that was distilled to eight steps.

Most models are sampled in 4 to 8 steps today. Here a model learns its own guided run: where the
teacher takes ``FINE`` steps with guidance, the student goes in one, without, from the same sample
(trajectory distillation by regression). Then evaluations of its eight steps are skipped, as
Performance Mode would if it were asked to, and compared with all eight and with fewer plain steps:

- ``teacher in 8 steps`` and ``student``: against the teacher's fine run; what the distilling gave;
- ``plan``, ``uniform``: so many of the student's eight steps computed, against all of them;
- ``plain``: the student in so many steps.

``change`` is the mean change of the model's denoised result from one step to the next, relative to
its size, of the student in 8 steps and of the teacher in 28: what a forecast has to bridge.

Seeds of the training and of what is reported are apart. That a preset computes at least six was
chosen on rows of other seeds (from 4000 on) than these.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import harness
import plans
import rivals

if TYPE_CHECKING:
    import torch

STEPS, FINE = 8, 3
GUIDANCE = 3.0
FIRST_SEED, TRAINING_SEED = 5000, 20000
RATE = 2e-4

Row = dict[str, Any]
Lesson = tuple["torch.Tensor", list[str]]
"""Samples ``[STEPS + 1, B, ...]`` of the teacher's run at the student's steps, and the prompts."""


def fine(sigmas: torch.Tensor) -> torch.Tensor:
    """A schedule with ``FINE`` steps for each of another one's."""
    import torch

    parts = [torch.linspace(a, b, FINE + 1)[:-1] for a, b in itertools.pairwise(sigmas)]
    return torch.cat([*parts, sigmas[-1:]])


@contextlib.contextmanager
def in_training(network: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """A network that the host lets learn meanwhile."""
    import comfy.model_management

    comfy.model_management.in_training = True
    try:
        yield network.requires_grad_(True)
    finally:
        comfy.model_management.in_training = False
        network.requires_grad_(False)


class Student:
    """A model, and a copy that learns to do in eight steps what it does in more."""

    def __init__(self, name: str, pictures: int) -> None:
        self.name = name
        self.teacher, self.own = plans.DEMOS[name](), plans.DEMOS[name]()
        self.sigmas = self.own.sigmas(STEPS)
        prompts = self.own.prompts
        self.runs = [(prompts[i % len(prompts)], FIRST_SEED + i) for i in range(pictures)]

    def lessons(self, pictures: int) -> list[Lesson]:
        import torch

        found = []
        prompts = self.teacher.prompts
        for first in range(0, pictures, plans.BATCH):
            numbers = range(first, first + plans.BATCH)
            runs = [(prompts[i % len(prompts)], TRAINING_SEED + i) for i in numbers]
            model, (samples, results) = rivals.watched(self.teacher.model)
            self.teacher.sample_batch(model, runs, GUIDANCE, fine(self.sigmas))
            path = torch.stack([*samples[::FINE], results[-1]]).clone()
            found.append((path, [prompt for prompt, _ in runs]))
        return found

    def learn(self, lessons: Sequence[Lesson], steps: int) -> Iterator[float]:
        """Train; the loss of every step is the squared error of the velocity."""
        import torch

        chance = random.Random(TRAINING_SEED)
        with in_training(self.own.model.model.diffusion_model) as network:
            optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.0)
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda step: min(step / 50, 1.0) * (1 + math.cos(math.pi * step / steps)) / 2,
            )
            for _ in range(steps):
                path, prompts = chance.choice(lessons)
                loss = self._loss(path, prompts, [chance.randrange(STEPS) for _ in prompts])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                yield loss.item()

    def _loss(self, path: torch.Tensor, prompts: list[str], steps: list[int]) -> torch.Tensor:
        """Of a step a row: how far the velocity is from the one that leads to the teacher's."""
        import torch

        inside = self.own.model.model
        at, rows = torch.tensor(steps), torch.arange(len(prompts))
        shape = (-1,) + (1,) * (path.ndim - 2)
        sigma, target = self.sigmas[at], self.sigmas[at + 1]
        here, there = path[at, rows], path[at + 1, rows]
        wanted = (there - here) / (target - sigma).view(shape)
        tokens, more = self.own.conditionings(prompts)[0]
        conds = inside.extra_conds(noise=here, device=here.device, cross_attn=tokens, **more)
        result = inside.apply_model(here, sigma, **{k: v.cond for k, v in conds.items()})
        return ((here - result) / sigma.view(shape) - wanted).square().mean()

    def rows(self) -> Iterator[Row]:
        reference = self.sample(self.teacher.model, GUIDANCE, fine(self.sigmas))
        yield self.row(
            "teacher in 8 steps", STEPS, reference, self.sample(self.teacher.model, GUIDANCE)
        )
        model, (_, results) = rivals.watched(self.own.model)
        full = self.sample(model)
        yield self.row("student", STEPS, reference, full) | {"change": change(results)}
        model, (_, results) = rivals.watched(self.teacher.model)
        self.sample(model, 1.0, self.own.sigmas(plans.STEPS))
        yield {"model": self.name, "way": "teacher in 28 steps", "change": change(results)}
        for count in range(STEPS - 1, 3, -1):
            for way in ("plan", "uniform"):
                yield self.row(way, count, full, self.skipped(way, count))
            fewer = self.sample(self.own.model, 1.0, self.own.sigmas(count))
            yield self.row("plain", count, full, fewer)

    def skipped(self, way: str, count: int) -> torch.Tensor:
        from dit_acceleration_pack.acceleration import host

        technique = (
            plans.planned(self.own.model, count, STEPS)
            if way == "plan"
            else plans.chosen_evaluations(plans.uniform(self.sigmas.tolist()[:-1], count))
        )
        model = host.attach(self.own.model, technique)
        found = self.sample(model)
        assert harness.report_of(model).computed == count
        return found

    def sample(
        self, model: Any, cfg: float = 1.0, sigmas: torch.Tensor | None = None
    ) -> torch.Tensor:
        sigmas = self.sigmas if sigmas is None else sigmas
        return self.own.sample_batch(model, self.runs, cfg, sigmas).latent

    def row(self, way: str, count: int, full: torch.Tensor, other: torch.Tensor) -> Row:
        pairs = list(zip(full.split(1), other.split(1), strict=True))
        near = [harness.psnr(*pair) for pair in pairs]
        alike = [harness.ssim(*map(self.own.picture, pair)) for pair in pairs]
        return {
            "model": self.name, "way": way, "count": count, "psnr": statistics.fmean(near),
            "worst": min(near), "ssim": statistics.fmean(alike), "pictures": len(near),
        }  # fmt: skip


def change(results: Sequence[torch.Tensor]) -> float:
    """Mean change of the denoised result from step to step, relative to its size."""
    shares = [
        float((now - before).norm() / now.norm()) for before, now in itertools.pairwise(results)
    ]
    return statistics.fmean(shares)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=["Qwen-Image"], choices=list(plans.DEMOS))
    parser.add_argument("--lessons", type=int, default=512, help="pictures: %(default)s")
    parser.add_argument("--training", type=int, default=2000, help="steps: %(default)s")
    parser.add_argument("--pictures", type=int, default=16, help="reported: %(default)s")
    harness.add_results_options(parser, "few_steps")


def main(options: argparse.Namespace, environment: Any) -> int:
    data = harness.begun(options, environment)
    for name in options.models:
        if any(row["model"] == name for row in data["rows"]):
            continue
        student = Student(name, options.pictures)
        lessons = student.lessons(options.lessons)
        harness.say(f"{name}: {options.lessons} pictures of the teacher")
        for step, loss in enumerate(student.learn(lessons, options.training), 1):
            if step % 100 == 0 or step == 1:
                harness.say(f"{name}: step {step} of {options.training}, loss {loss:.5f}")
        for row in student.rows():
            row = harness.rounded(row)
            data["rows"].append(row)
            harness.show(row)
        harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)
