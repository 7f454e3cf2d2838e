"""Plots: what must be seen is there, at the places and in the colors that say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageColor

from dit_acceleration_pack.acceleration.plots import (
    Column,
    as_image_batch,
    calibration_plot,
    comparison_plot,
    heat_map,
    heat_sheet,
    message_plot,
    presets_plot,
    run_plot,
)
from dit_acceleration_pack.acceleration.plots.calibration import CHANGES, CURVE
from dit_acceleration_pack.acceleration.plots.chart import FRAME, nice_ticks
from dit_acceleration_pack.acceleration.plots.heat import HEAT, LEGEND_HEIGHT
from dit_acceleration_pack.acceleration.plots.quality import COLORS
from dit_acceleration_pack.acceleration.plots.run import COMPUTED, FORECAST, REUSED, THRESHOLD
from dit_acceleration_pack.acceleration.report import EvaluationRecord, RunReport


def record(step: int, skipped: bool = False, branch: str = "cond", **more: Any) -> EvaluationRecord:
    values = {"diff": 0.1, "seconds": 0.01 if skipped else 0.03, "threshold": 0.2} | more
    return EvaluationRecord(step, float(step), 1.0, branch, skipped, "", **values)


def plotted(*records: EvaluationRecord) -> np.ndarray:
    report = RunReport("Cache-DiT", family="FLUX", sampler="euler", steps=len(records))
    report.evaluations = list(records)
    return np.asarray(run_plot(report.as_dict()))


def count(picture: np.ndarray, color: str) -> int:
    """Pixels of exactly this color."""
    return int((picture == np.array(ImageColor.getrgb(color))).all(-1).sum())


def strip_colors(picture: np.ndarray) -> list[str]:
    """Colors of the cells of the only strip, in order."""
    known = {ImageColor.getrgb(c): c for c in (COMPUTED, REUSED, FORECAST)}
    for row in picture[::-1]:
        cells = [known.get(tuple(int(v) for v in pixel)) for pixel in row]
        changes = [c for c, before in zip(cells[1:], cells, strict=False) if c and c != before]
        if len(changes) >= 4 and sum(c is not None for c in cells) > 0.8 * (len(cells) - 116):
            return changes
    return []


def test_cells_show_what_was_computed_reused_and_forecast() -> None:
    picture = plotted(
        record(0), record(1, True), record(2), record(3, True, forecast=True), record(4)
    )
    assert strip_colors(picture) == [COMPUTED, REUSED, COMPUTED, FORECAST, COMPUTED]
    assert count(picture, THRESHOLD) > 200


def test_no_threshold_no_line() -> None:
    picture = plotted(*(record(i, threshold=None) for i in range(5)))
    assert count(picture, THRESHOLD) == 0 and count(picture, REUSED) < 200


def test_runs_without_any_change_measured_and_odd_values_still_draw() -> None:
    assert plotted(*(record(i, diff=None, threshold=None) for i in range(3))).any()
    assert plotted(record(0, diff=float("inf")), record(1, diff=0.0, threshold=0.0)).any()
    assert plotted(*(record(i, diff=9.0, accumulated=0.0) for i in range(400))).any()
    many = [record(i, branch=f"cond [{i}-{i + 16}]") for i in range(30)]
    assert plotted(*many).shape[0] < 1000, "branches beyond a few share a row"


def test_a_run_without_evaluations_says_so_in_a_picture() -> None:
    assert plotted().shape[0] == np.asarray(message_plot("x")).shape[0]


def test_image_batch_is_the_hosts_image() -> None:
    image = as_image_batch(message_plot("A sentence."))
    assert image.dtype == torch.float32 and image.ndim == 4 and image.shape[3] == 3
    assert 0 <= float(image.min()) < 0.3 and float(image.max()) == 1.0


@pytest.mark.parametrize("count_", [1, 2, 120])
def test_comparisons_draw_with_any_number_of_items(count_: int) -> None:
    items = [
        {"psnr": 40.0 + i % 3, "ssim": 0.9, "lpips": None, "identical": False}
        for i in range(count_)
    ]
    items[0] |= {"psnr": None, "ssim": 1.0, "identical": True}
    found = {"items": items, "kind": "image", "sentence": "Fine.", "min_psnr": 38.0}
    picture = np.asarray(comparison_plot(found))
    assert picture.ndim == 3 and (picture != 255).any()


def test_one_picture_gets_its_figures_and_no_curve_of_a_dot() -> None:
    item = {"psnr": 41.23, "ssim": 0.98, "lpips": None, "identical": False}
    found = {"items": [item], "kind": "image", "sentence": "Fine.", "min_psnr": 38.0}
    one = np.asarray(comparison_plot(found))
    two = np.asarray(comparison_plot({**found, "items": [item, item]}))
    assert count(one, COLORS["psnr"]) == 0 and count(one, FRAME) == 0
    assert count(two, COLORS["psnr"]) > 0 and count(two, FRAME) > 0
    assert one.shape[0] < two.shape[0] / 2


def test_a_heat_map_stands_above_its_legend() -> None:
    heat = heat_map(torch.full((1, 32, 64), 0.05), 0.1)[0]
    sheet = np.asarray(heat_sheet(heat, 0.1, 320))
    assert sheet.shape == (160 + 16 + LEGEND_HEIGHT, 320 + 16, 3)
    middle = tuple(round(255 * value) for value in HEAT[2])
    assert count(sheet[8:168, 8:328], "#{:02x}{:02x}{:02x}".format(*middle)) > 0.9 * 160 * 320
    legend = sheet[168:]
    light = legend.astype(int).sum(-1)
    assert light.min() < 30, "the scale begins with the darkest color"
    assert (legend[..., 2] < 210).sum() > 500


def test_presets_stand_side_by_side_with_their_differences() -> None:
    rows = [
        ["off", "8.0 s", "1.00×", "all", "–", "–"],
        ["fast", "3 s", "2×", "9 of 20", "41 dB", "0.9"],
    ]
    gray = torch.full((32, 32, 3), 0.5)
    columns = [
        Column(rows[0], gray, None),
        Column(rows[1], gray, torch.full((32, 32), 0.1)),
    ]
    picture = np.asarray(presets_plot(columns, "A model, euler, 20 steps."))
    assert count(picture, "#808080") > 1.9 * 256 * 256
    lightest = tuple(round(255 * value) for value in HEAT[-1])
    assert count(picture, "#{:02x}{:02x}{:02x}".format(*lightest)) > 0.9 * 256 * 256


@pytest.mark.parametrize("changes", [(), (0.02, 0.03, 0.08, 0.2)])
def test_a_calibration_shows_its_curve_and_the_changes(changes: tuple[float, ...]) -> None:
    found = {"family": "FLUX", "points": 27, "r2": 0.9, "coefficients": (2.0, 0.1)}
    picture = np.asarray(
        calibration_plot({**found, "input_range": (0.0, 0.5), "cache_dit_diffs": changes})
    )
    (rows, columns) = (picture == np.array(ImageColor.getrgb(CURVE))).all(-1).nonzero()
    left, right = columns.argmin(), columns.argmax()
    assert rows[right] < rows[left] - 100, "a rising line"
    assert (count(picture, CHANGES) > 5000) == bool(changes)


def test_ticks_are_round() -> None:
    assert nice_ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(39.2, 45.1, 5) == [40, 42, 44]
    assert nice_ticks(1, 1, 5) == [1]
