"""The benchmark of targets: the uniform plan beside them, and what a run of each takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfyui_environment import ROOT

STEPS = 10


@pytest.fixture(scope="module")
def target() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import target

        yield target


@pytest.fixture(scope="module")
def bench(target: Any) -> Any:
    return target.TargetBench(1, 1)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_uniform_computes_as_many_as_the_target_of_its_name(
    target: Any, bench: Any, sampler: str
) -> None:
    schedule = (STEPS, sampler)
    data: dict[str, Any] = {"rows": []}
    for way in target.every_way(data, schedule, ["target 2", "uniform"]):
        data["rows"].append(bench.measure(way, *schedule))
    ours, even = data["rows"]
    assert (ours["kind"], even["kind"]) == target.OURS and ours["name"] == even["name"]
    assert ours["computed"] == even["computed"]
    for row in (ours, even):
        assert 0 < row["ssim"] < 1 and row["least_psnr"] == row["psnr"] < 100


def test_every_target_is_timed_beside_the_full_run(target: Any, bench: Any) -> None:
    timed = bench.timed(4, "euler", 1)
    assert list(timed) == [f"{each:g}" for each in target.TARGETS]
    assert all(row["seconds"] > 0 and row["speedup"] > 0 for row in timed.values())


def test_timing_keeps_what_was_measured(
    target: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = tmp_path / "target.json"
    results.write_text('{"rows": [{"kind": "target"}]}', encoding="utf-8")
    seen: list[Any] = []
    monkeypatch.setattr(target, "time_targets", lambda data, *_: seen.extend(data["rows"]))
    parser = argparse.ArgumentParser()
    target.add_options(parser)
    environment = SimpleNamespace(version="")
    target.main(parser.parse_args(["--time", "--output", str(results)]), environment)
    assert seen == [{"kind": "target"}]


def test_uniform_is_no_other_way(target: Any) -> None:
    row = {"steps": STEPS, "sampler": "euler", "computed": 5.0}
    rows = [
        row | {"kind": kind, "name": "2", "psnr": near}
        for kind, near in (("target", 50.0), ("uniform", 60.0), ("plain", 40.0))
    ]
    assert [other["kind"] for other in target.rivals_of(rows[0], rows)] == ["plain"]
