"""The trained check models: the host's classes take them, and they draw at two sizes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import tiny_models as tm
import torch
from whole import whole

from comfyui_environment import ROOT

LARGEST = 12 * 2**20
STEPS, SEED = 14, 3
NAMES = ("Qwen-Image", "HunyuanVideo")


@pytest.fixture(scope="module")
def benchmarks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import few_steps
        import plans
        import two_sizes

        yield plans, two_sizes, few_steps


@pytest.fixture(scope="module")
def labs(benchmarks: Any) -> Any:
    return {name: benchmarks[1].TwoSizes(name, 1) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_its_place(labs: Any, name: str) -> None:
    import comfy.utils

    demo = labs[name].demo
    assert demo.network.file.stat().st_size <= LARGEST
    weights = comfy.utils.load_torch_file(str(demo.network.file))
    demo.model.model.diffusion_model.load_state_dict(weights, strict=True)


def test_the_stock_loader_takes_the_video_model_for_hunyuan_video(labs: Any) -> None:
    import comfy.sd

    model = comfy.sd.load_diffusion_model(str(labs["HunyuanVideo"].demo.network.file))
    assert type(model.model.model_config).__name__ == "HunyuanVideo"


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("Qwen-Image", "red ball"),
        ("HunyuanVideo", "blue box rising"),
        *whole([("Qwen-Image", "blue box"), ("Qwen-Image", "yellow ball")]),
        *whole([("HunyuanVideo", "red ball growing")]),
    ],
)
def test_the_prompt_decides_the_color_at_both_sizes(
    labs: Any, name: str, prompt: str, half: bool
) -> None:
    import comfy.sample

    lab, demo = labs[name], labs[name].demo
    side = demo.canvas.side // (2 if half else 1)
    noise = comfy.sample.prepare_noise(demo.empty(side), SEED)
    scene = demo.scene(lab.part(noise, prompt, 3.0, lab.demo.sigmas(STEPS).tolist()))
    middle = scene[len(scene) // 2, side // 4 : -side // 4, side // 4 : -side // 4]
    colors = torch.tensor(list(demo.scenes.COLORS.values()))
    # Light differs, so what counts is the color's direction.
    near = torch.nn.functional.cosine_similarity(middle[..., None, :], colors, dim=-1)
    votes = near.argmax(-1)[near.amax(-1) > 0.97].bincount(minlength=len(colors))
    assert list(demo.scenes.COLORS)[int(votes.argmax())] == prompt.split()[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_two_parts_is_one_run(labs: Any, name: str) -> None:
    """How ``dct_rewind`` goes on from a noisy sample in the benchmark."""
    import comfy.sample

    lab = labs[name]
    sigmas, prompt = lab.demo.sigmas(STEPS).tolist(), lab.demo.prompts[0]
    whole_run = lab.full(lab.demo.model, (prompt, SEED), 1.0, STEPS)
    noise = comfy.sample.prepare_noise(lab.demo.empty(), SEED)
    first = lab.part(noise, prompt, 1.0, sigmas[:6])
    assert tm.psnr(whole_run, lab.part(first, prompt, 1.0, sigmas[5:])) > 80


@pytest.mark.parametrize("way", ["plan", "uniform"])
def test_ways_compute_what_they_are_asked_for(benchmarks: Any, way: str) -> None:
    bench = benchmarks[0].Bench("HunyuanVideo", 1)
    for count in (6, 9, 13):
        row = bench.row(way, count, "euler", STEPS, 1.0)
        assert row["computed"] == count and row["psnr"] >= row["worst"] > 15


def test_uniform_spreads_evaluations_not_steps(benchmarks: Any) -> None:
    bench = benchmarks[0].Bench("Qwen-Image", 1)
    assert bench.row("uniform", 7, "heun", STEPS, 1.0)["computed"] == round(7 * 27 / STEPS)
    spread = sorted(bench.evaluations_of("uniform", 7, "heun", STEPS, 1.0))
    assert (spread[0], spread[-1]) == (0, 26)
    gaps = [after - before for before, after in itertools.pairwise(spread)]
    assert max(gaps) - min(gaps) <= 1
    with pytest.raises(ValueError, match="more than once"):
        bench.evaluations_of("recorded", 7, "heun", STEPS, 1.0)


def test_pictures_of_a_batch_are_those_of_single_runs(benchmarks: Any) -> None:
    bench = benchmarks[0].Bench("Qwen-Image", 3)
    batch = bench.baseline("euler", STEPS, 3.0)
    for row, run in zip(batch, bench.runs, strict=True):
        alone = bench.demo.sample(bench.demo.model, *run, 3.0, STEPS)
        assert tm.psnr(alone.latent, row) > 80


def test_a_student_learns_from_its_teacher(benchmarks: Any) -> None:
    student = benchmarks[2].Student("Qwen-Image", 2)
    (path, prompts), *more = student.lessons(benchmarks[0].BATCH)
    assert not more and path.shape[:2] == (benchmarks[2].STEPS + 1, len(prompts))
    before = torch.nn.utils.parameters_to_vector(student.teacher.model.model.parameters()).clone()
    losses = list(student.learn([(path, prompts)], 12))
    own = torch.nn.utils.parameters_to_vector(student.own.model.model.parameters())
    taught = torch.nn.utils.parameters_to_vector(student.teacher.model.model.parameters())
    assert torch.equal(taught, before) and not torch.equal(own, before)
    assert all(0 < loss < 1 for loss in losses)
    rows = {(row["way"], row.get("count")): row for row in student.rows()}
    assert rows["plan", 7]["psnr"] > rows["plan", 4]["psnr"] > 20
