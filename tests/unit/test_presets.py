"""Comparing presets: which prompts are queued, and the table that is made of what they gave."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.performance import presets
from dit_acceleration_pack.acceleration.performance.settings import PRESET_SPEEDUPS
from dit_acceleration_pack.acceleration.policies.cost import Cost
from dit_acceleration_pack.acceleration.policies.outlook import Guess, outlook
from dit_acceleration_pack.acceleration.policies.planned import FEWEST_COMPUTED

TYPES = {
    "UNETLoader": ("MODEL",),
    presets.MODE: ("MODEL",),
    "LoraLoaderModelOnly": ("MODEL",),
    "BasicGuider": ("GUIDER",),
    "KSampler": ("LATENT",),
    "SamplerCustomAdvanced": ("LATENT", "LATENT"),
    "LatentUpscale": ("LATENT",),
    "VAEDecode": ("IMAGE",),
    presets.REPORT: ("*", "STRING", "STRING", "IMAGE"),
    presets.COMPARE: ("BOOLEAN", "FLOAT", "FLOAT", "IMAGE", "IMAGE", "STRING", "STRING"),
}


def types(kind: str) -> tuple[str, ...]:
    return TYPES.get(kind, ())


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph() -> presets.Graph:
    return {
        "1": node("UNETLoader", unet_name="a.safetensors"),
        "2": node(presets.MODE, model=["1", 0], approximation="fast"),
        "3": node("LoraLoaderModelOnly", model=["2", 0]),
        "4": node("KSampler", model=["3", 0], latent_image=["9", 0], seed=5),
        "5": node("LatentUpscale", samples=["4", 0]),
        "6": node("VAEDecode", samples=["5", 0]),
        "7": node("SaveImage", images=["6", 0]),
        "8": node("KSampler", model=["1", 0], latent_image=["9", 0], seed=5),
        "9": node("EmptyLatentImage", width=64),
        "10": node("VAEDecode", samples=["8", 0]),
        "11": node(presets.COMPARE, baseline=["10", 0], accelerated=["6", 0]),
        "12": node("PreviewImage", images=["11", 3]),
        "13": node(presets.REPORT, model=["2", 0], after=["6", 0]),
        "14": node("SaveImage", images=["13", 0]),
        "15": node("SaveImage", images=["13", 3]),
    }


def test_each_run_differs_in_the_preset_and_nothing_else() -> None:
    given = graph()
    before = copy.deepcopy(given)
    runs = presets.runs_of(given, ["ultra", "quality"], types)
    assert given == before
    assert [run["name"] for run in runs] == ["warm-up", "off", "quality", "ultra"]
    for run in runs[1:]:
        added = {k: v for k, v in run["prompt"].items() if k not in given}
        assert added == {
            "dit_acceleration_report_0": node("AccelReport", model=["2", 0], after=["4", 0])
        }
        changed = {k: v for k, v in run["prompt"].items() if k in given and v != given[k]}
        mode = node(presets.MODE, model=["1", 0], approximation=run["name"])
        assert changed == ({"2": mode} if run["name"] != "fast" else {})


def test_the_warm_up_only_samples_and_saves_nothing() -> None:
    (warm_up, *_) = presets.runs_of(graph(), ["fast"], types)
    kinds = {n["class_type"] for n in warm_up["prompt"].values()}
    assert "SaveImage" not in kinds and {"KSampler", presets.REPORT} <= kinds
    inputs = warm_up["prompt"]["2"]["inputs"]
    assert inputs["approximation"] == "target" and inputs["target_speedup"] == 10.0


def test_two_experts_have_a_report_each_of_their_own_mode() -> None:
    two = {
        "1": node("UNETLoader"),
        "a": node(presets.MODE, model=["1", 0]),
        "b": node(presets.MODE, model=["1", 0]),
        "first": node("KSampler", model=["a", 0], latent_image=["x", 0]),
        "guider": node("BasicGuider", model=["b", 0]),
        "second": node("SamplerCustomAdvanced", guider=["guider", 0], latent_image=["first", 0]),
    }
    (_, off) = presets.runs_of(two, ["off"], types)
    reports = [n["inputs"] for n in off["prompt"].values() if n["class_type"] == presets.REPORT]
    assert reports == [
        {"model": ["a", 0], "after": ["first", 0]},
        {"model": ["b", 0], "after": ["second", 0]},
    ]
    assert {off["prompt"][key]["inputs"]["approximation"] for key in "ab"} == {"off"}


def test_pictures_of_the_model_count_and_drawings_of_ours_do_not() -> None:
    behind = presets.downstream(graph(), ["2"])
    assert {"7", "14"} <= set(behind)
    assert not {"8", "10", "11", "12", "13", "15"} & set(behind)


@pytest.mark.parametrize(
    ("given", "names", "told"),
    [
        ({"nodes": [], "links": []}, ["fast"], "Export (API)"),
        ([1], ["fast"], "no workflow in API format"),
        ({"1": {"class_type": "KSampler"}}, ["fast"], "no workflow in API format"),
        ({"1": node("KSampler")}, ["fast"], "holds no Performance Mode"),
        ({"1": node(presets.MODE, model=["0", 0])}, ["fast"], "connect it to a sampler"),
        (graph(), ["turbo"], "There is no preset 'turbo': choose of off, quality"),
    ],
)
def test_what_cannot_be_compared_gets_a_sentence(given: Any, names: list[str], told: str) -> None:
    with pytest.raises(AccelerationError) as caught:
        presets.runs_of(given, names, types)
    assert told in str(caught.value)


def result() -> dict[str, Any]:
    full = {"performance": {"seconds": 8.0}, "sentence": "all computed"}
    half = [
        {"evaluations": 20, "skipped": 12, "performance": {"seconds": 3.0}, "notices": ["a"]},
        {"evaluations": 8, "skipped": 2, "performance": {"seconds": 1.0}, "sampled_by": "7"},
        {"evaluations": 8, "skipped": 2, "performance": {"seconds": 1.0}, "sampled_by": "7"},
    ]
    rows = [
        presets.row_of("off", [full]),
        presets.row_of("fast", half),
        presets.row_of("ultra", []),
    ]
    quality = {
        "fast": {"psnr": 41.23, "ssim": 0.987654, "lpips": None, "identical": False},
        "ultra": {"psnr": None, "ssim": 1.0, "lpips": None, "identical": True},
    }
    return {
        "rows": presets.compared(rows, quality),
        "notes": ["a note"],
        "model": {"family": "Wan", "sampler": "euler", "steps": 28},
        "environment": {"device": "a GPU", "comfyui": "0.30.0", "pack": "0.1.0"},
    }


def test_rows_add_up_samplers_and_compare_with_the_first() -> None:
    off, fast, ultra = result()["rows"]
    assert (off["seconds"], off["speedup"], off["computed"]) == (8.0, 1.0, None)
    assert (fast["seconds"], fast["speedup"]) == (4.0, 2.0)
    assert (fast["computed"], fast["evaluations"], fast["notices"]) == (14, 28, ["a"])
    assert ultra["speedup"] is None and ultra["identical"]


def test_the_table_reads() -> None:
    assert presets.markdown(result()) == (
        "| preset | seconds | speed | computed | PSNR | SSIM |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| off | 8.00 s | 1.00× | all | – | – |\n"
        "| fast | 4.00 s | 2.00× | 14 of 28 | 41.2 dB | 0.9877 |\n"
        "| ultra | 0.00 s | – | all | identical | 1.0000 |\n"
        "\nWan, euler, 28 steps, a GPU, ComfyUI 0.30.0, pack 0.1.0.\n"
        "\n- a note\n"
    )


def test_the_outlook_follows_steps_and_cost() -> None:
    rows = {row["preset"]: row for row in outlook(Guess.of_steps(28, Cost(1.05, 0.1)))}
    assert list(rows) == list(presets.PRESETS)
    assert (rows["off"]["computed"], rows["off"]["speedup"]) == (28, 1)
    for name, speedup in PRESET_SPEEDUPS.items():
        assert rows[name]["speedup"] == pytest.approx(speedup)
        computed = 28 * (1 / speedup - 0.1) / 0.95
        assert rows[name]["computed"] == pytest.approx(computed)
    assert all(row["speedup"] == 1.0 for row in outlook(Guess.of_steps(4)))
    shorter = {row["preset"]: row for row in outlook(Guess.of_steps(12))}
    assert 1 < shorter["ultra"]["speedup"] < rows["ultra"]["speedup"]
    assert shorter["ultra"]["computed"] == pytest.approx(FEWEST_COMPUTED)
