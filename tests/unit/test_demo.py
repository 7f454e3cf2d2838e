"""What the demo compares, and its picture; the runs are made up."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import demo_figure as figure
import demo_measurement as measurement
from comfyui_environment import SetupError
from demo_measurement import Sample

STEPS = 20
SECONDS = {"quality": 7.0, "balanced": 5.5, "fast": 4.0, None: 5.0}


class MadeUp:
    """A workflow whose runs take known times and give pictures of one color."""

    prompts = ("red circle", "blue square", "green triangle", "purple ring")

    def __init__(self) -> None:
        self.plain_steps: list[int] = []

    def pair(
        self, prompt: str, seed: int, cfg: float, steps: int, setting: Any
    ) -> tuple[Sample, Sample]:
        seconds = SECONDS[setting.values.get("approximation")]
        return sample(100, 10.0, STEPS), sample(110, seconds, STEPS // 2)

    def plain(self, prompt: str, seed: int, cfg: float, steps: int) -> Sample:
        self.plain_steps.append(steps)
        return sample(130, steps / 2, steps, of=steps)


def sample(color: int, seconds: float, computed: int, of: int = STEPS) -> Sample:
    picture = np.full((64, 64, 3), color, np.uint8)
    picture[:8] = 0
    latent = picture.astype(np.float32).mean(axis=2)[None, None]
    return Sample(latent, picture, seconds, of, computed)


def measured(workflow: MadeUp, **changes: Any) -> list[measurement.Result]:
    options = argparse.Namespace(**({"prompts": 4, "cfg": [3.0], "steps": STEPS} | changes))
    names = measurement.chosen(None)
    return measurement.measure(workflow, names, options)  # type: ignore[arg-type]


def test_it_compares_presets_cache_dit_and_fewer_steps_in_the_same_time() -> None:
    workflow = MadeUp()
    rows = [result.row() for result in measured(workflow)]
    names = [row["setting"] for row in rows]
    # As long as balanced took: 5.5 of 10 seconds are 11 of 20 steps.
    assert names == ["baseline", "quality", "balanced", "fast", "defaults", "plain, 11 steps"]
    assert workflow.plain_steps == [11] * 4
    assert [row["speedup"] for row in rows] == [1.0, 1.4286, 1.8182, 2.5, 2.0, 1.8182]
    text = measurement.table(rows)
    assert len(text.splitlines()) == 1 + len(rows)


def test_the_picture_shows_every_setting_beside_the_others(tmp_path: Path) -> None:
    workflow = MadeUp()
    results = measured(workflow)
    measurement.write_picture(results, workflow.prompts, tmp_path / "demo.png")
    picture = figure.read_picture(tmp_path / "demo.png")
    centers = [figure.MARGIN + n * (figure.TILE + figure.GAP) + figure.TILE // 2 for n in range(6)]
    for line in range(measurement.SHOWN):
        top = figure.top_of(line) + figure.TILE // 2
        assert [picture[top, x, 0] for x in centers] == [100, 110, 110, 110, 110, 130]
        below = top + figure.TILE + figure.GAP
        differences = [picture[below, x, 0] for x in centers[1:]]
        assert differences == [10 * figure.AMPLIFIED] * 4 + [30 * figure.AMPLIFIED]
    with Image.open(tmp_path / "demo.png") as image:
        assert image.height < figure.top_of(measurement.SHOWN) + 3 * figure.GAP


def test_captions_say_how_fast_and_how_near() -> None:
    columns = [measurement.column_of(result) for result in measured(MadeUp())]
    assert [c.family for c in columns] == [
        "plain", *["Performance Mode"] * 3, "Cache-DiT", "plain",
    ]  # fmt: skip
    assert [c.speed for c in columns][1:] == [f"{x}x as fast" for x in (1.4, 1.8, 2.5, "2.0", 1.8)]
    assert columns[0].speed == "10.0 s" and not columns[0].differences
    # 7 of 8 rows are 10 off of a range of 100: 10 lg(100² / 87.5).
    assert (columns[2].nearness, columns[2].work) == ("20.6 dB", "10 of 20 computed")


def test_settings_are_chosen_by_name() -> None:
    assert measurement.chosen(["ultra"]) == ["ultra"]
    assert measurement.chosen(["all"]) == list(measurement.SETTINGS)
    with pytest.raises(SetupError, match=r"no preset best; choose of quality, balanced"):
        measurement.chosen(["best"])
    with pytest.raises(SetupError, match="--prompts takes 1 to 4, not 9"):
        measured(MadeUp(), prompts=9)
