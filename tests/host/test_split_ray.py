"""Split Across GPUs with a real Ray, and two processes of the CPU in the place of GPUs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from split_factory import SIGN, kept, process, tiny
from tiny_models import add_control, attach, conditioning, control_for, report_of, sample

from dit_acceleration_pack.acceleration import cluster, host
from dit_acceleration_pack.acceleration.cluster import connection
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.settings.parallel import ParallelSettings

# Ray takes minutes to start on a busy machine: only the whole check waits for it. It is not
# imported here, as the pack tells it first that it is to listen to nobody else.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.whole,
    pytest.mark.skipif(not connection.is_installed(), reason="Ray is not installed here"),
]

CLOSE = 1e-5
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module", autouse=True)
def processes_of_the_cpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    sign = tmp_path_factory.mktemp("sign") / "sign"
    given = {"DIT_ACCEL_SPLIT_ON_CPU": "1", SIGN: str(sign), "OMP_NUM_THREADS": "1"}
    given["PYTHONPATH"] = os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield sign
    cluster.end_all()
    import ray

    ray.shutdown()


@pytest.fixture
def sign(processes_of_the_cpu: Path) -> Iterator[Path]:
    yield processes_of_the_cpu
    processes_of_the_cpu.unlink(missing_ok=True)


def split(model: Any, **settings: Any) -> Any:
    return host.attach_split(model, ParallelSettings(**{"gpus": 2, **settings}))


def split_report(model: Any) -> Any:
    return host.lever_of(model, host.SPLIT_KEY).last_report


def in_ranks(function: Callable[[Any], Any]) -> list[Any]:
    """What a function of ``split_factory`` returns in every process."""
    import ray

    (team,) = cluster.team._teams.values()
    return [ray.get(one.__ray_call__.remote(function)) for one in team._actors]


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.fixture(scope="module")
def flux() -> Any:
    return tiny("flux")


def test_samplers_guidance_and_control_are_as_in_one_process(flux: Any) -> None:
    far = split(flux, split="sequence")
    assert sum(p.numel() for p in far.model.parameters()) == 0
    control = control_for("flux")
    prompts = {
        "positive": add_control(conditioning("flux", 1), control),
        "negative": add_control(conditioning("flux", 2), control),
    }
    for sampler in ("euler", "dpmpp_2m", "heun"):
        seen: list[int] = []
        options: dict[str, Any] = {"steps": 4, "cfg": 3.0, "sampler": sampler, **prompts}
        want = sample(flux, "flux", **options)
        got = sample(far, "flux", callback=lambda step, *_, seen=seen: seen.append(step), **options)
        assert difference(got, want) <= CLOSE, sampler
        assert seen == [0, 1, 2, 3]
    assert sum(p.numel() for p in far.model.parameters()) == 0
    report = split_report(far)
    assert report.started is None and report.loaded is None, "the second prompt has them already"
    assert [rank.sent > 0 and rank.exchanges > 0 for rank in report.ranks] == [True, True]
    assert "tokens over 2" in report.sentence()
    assert [rank.held for rank in report.ranks] == [
        "2 of 2 rows, 3 text and 8 image tokens",
        "2 of 2 rows, 2 text and 8 image tokens",
    ]
    text = report.text()
    assert "rank 1 (cpu): " in text and "2 text and 8 image tokens" in text
    assert report.as_dict()["ranks"][0]["weights"] > 0


@pytest.mark.parametrize(
    ("how", "batch", "cfg", "shared"),
    [
        ("auto", 1, 3.0, "2 rows over 2"),
        ("batch", 3, 1.0, "3 rows over 2"),
        ("cfg", 2, 3.0, "4 rows over 2"),
        ("auto", 3, 1.0, "tokens over 2"),
    ],
)
def test_rows_are_dealt_out(flux: Any, how: str, batch: int, cfg: float, shared: str) -> None:
    far = split(flux, split=how)
    want = sample(flux, "flux", steps=3, batch=batch, cfg=cfg)
    assert difference(sample(far, "flux", steps=3, batch=batch, cfg=cfg), want) <= CLOSE
    report = split_report(far)
    assert set(report.shared) == {shared}
    assert all((rank.sent == 0) == ("rows" in shared) for rank in report.ranks)


@pytest.mark.parametrize(("file", "latent"), [("flux", (16, 16, 16)), ("wan", (16, 5, 12, 12))])
def test_a_file_of_the_hosts_own_loader(file: str, latent: Any) -> None:
    import comfy.sd

    path = (
        Path(TESTS).parent / "workflows" / "demo" / "models" / f"dit_accel_demo_{file}.safetensors"
    )
    model = comfy.sd.load_diffusion_model(str(path))
    network = model.model.diffusion_model
    text = getattr(network, "txt_in", None) or network.text_embedding[0]
    generator = torch.Generator().manual_seed(1)
    prompt = [torch.randn(1, 5, text.in_features, generator=generator), {}]
    if file == "flux":
        prompt[1]["pooled_output"] = torch.randn(1, network.vector_in.in_layer.in_features)
    options: dict[str, Any] = {"steps": 2, "latent": latent, "positive": [prompt]}
    want = sample(model, file, **options)
    far = split(model, split="sequence")
    assert difference(sample(far, file, **options), want) <= CLOSE
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    assert [rank.weights for rank in split_report(far).ranks] == [weights] * 2


def test_a_model_that_cannot_be_split_along_tokens_has_its_rows_dealt_out() -> None:
    model = tiny("aura_flow")
    with pytest.raises(AccelerationError, match=r"AuraFlow.*not described"):
        split(model, split="sequence")
    far = split(model)
    want = sample(model, "aura_flow", steps=2, cfg=3.0)
    assert difference(sample(far, "aura_flow", steps=2, cfg=3.0), want) <= CLOSE


def test_four_processes_share_prompts_and_each_two_of_them_its_tokens(flux: Any) -> None:
    far = split(flux, gpus=4)
    want = sample(flux, "flux", steps=3, cfg=3.0)
    assert difference(sample(far, "flux", steps=3, cfg=3.0), want) <= CLOSE
    report = split_report(far)
    assert dict(report.shared) == {"2 rows over 2, tokens over 2 each": 3}
    assert len(report.ranks) == 4 and all(rank.sent > 0 for rank in report.ranks)


def test_a_lora_travels_and_changes_without_loading_again(flux: Any) -> None:
    weights = flux.model.diffusion_model.state_dict()
    key = "double_blocks.0.img_mlp.0.weight"
    more = torch.randn(weights[key].shape, generator=torch.Generator().manual_seed(4)) * 0.3

    def with_lora(model: Any, strength: float) -> Any:
        patched = model.clone()
        taken = patched.add_patches({f"diffusion_model.{key}": ("diff", (more,))}, strength)
        assert taken == [f"diffusion_model.{key}"]
        return patched

    plain = sample(flux, "flux", steps=3)
    far = split(flux, split="sequence")
    sample(far, "flux", steps=1)
    for strength in (1.0, 0.5):
        want = sample(with_lora(flux, strength), "flux", steps=3)
        assert difference(plain, want) > 100 * CLOSE, "it does something"
        before, after = split(with_lora(flux, strength), split="sequence"), with_lora(far, strength)
        for patched in (before, after):
            assert difference(sample(patched, "flux", steps=3), want) <= CLOSE
            assert split_report(patched).loaded is None
    assert difference(sample(far, "flux", steps=3), plain) <= CLOSE, "and it goes again"


@pytest.mark.parametrize("how", ["sequence", "auto"])
def test_caching_decides_as_in_one_process(flux: Any, how: str) -> None:
    settings = {"max_warmup_steps": 2, "residual_diff_threshold": 0.35}
    options: dict[str, Any] = {"steps": 10, "cfg": 3.0}
    alone = attach(flux, **settings)
    want = sample(alone, "flux", **options)
    skips = [e.skipped for e in report_of(alone).evaluations]
    assert any(skips)
    for far in (
        attach(split(flux, split=how), **settings),
        split(attach(flux, **settings), split=how),
    ):
        got = sample(far, "flux", **options)
        report = report_of(far)
        assert [e.skipped for e in report.evaluations] == skips
        assert difference(got, want) <= CLOSE
        residuals = [rank.residuals for rank in split_report(far).ranks]
        assert 0 < max(residuals) <= report_of(alone).residual_peak_bytes * 0.6


@pytest.mark.parametrize("kind", ["TeaCache", "planned"])
def test_other_techniques_decide_as_in_one_process(flux: Any, kind: str) -> None:
    from dit_acceleration_pack.acceleration.policies.planned import Planned
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    technique: Any = Planned(1.7, "target", strict=True)
    if kind == "TeaCache":
        technique = TeaCache(TeaCacheSettings(rel_l1_thresh=0.4, coefficients="raw"))
    alone = host.attach(flux, technique)
    want = sample(alone, "flux", steps=12)
    skips = [e.skipped for e in report_of(alone).evaluations]
    assert any(skips)
    far = host.attach(split(flux, split="sequence"), technique)
    got = sample(far, "flux", steps=12)
    assert [e.skipped for e in report_of(far).evaluations] == skips
    assert difference(got, want) <= 10 * CLOSE  # forecasts are made of differences
    assert len({e.branch for e in report_of(far).evaluations}) == 1


def test_a_calibration_is_refused(flux: Any) -> None:
    from dit_acceleration_pack.acceleration.policies.recording import Recorder, Recording

    far = host.attach(split(flux), Recorder(Recording()))
    with pytest.raises(AccelerationError, match=r"before Split Across GPUs"):
        sample(far, "flux", steps=1)


def test_an_attention_backend_acts_in_the_ranks(flux: Any) -> None:
    from dit_acceleration_pack.acceleration.attention import AttentionSettings

    want = sample(flux, "flux", steps=2)
    far = host.attach_attention(split(flux, split="sequence"), AttentionSettings(backend="sdpa"))
    assert difference(sample(far, "flux", steps=2), want) <= CLOSE
    counts = host.lever_of(far, host.ATTENTION_KEY).last_report.counts
    assert counts["sdpa", ""] == 2 * 5


COMPUTED_WITHIN = 20.0
"""Seconds from one rank's lack of memory to the end of the short run, which all compute."""


def test_one_rank_that_runs_out_of_memory_makes_all_compute(flux: Any, sign: Path) -> None:
    settings = {"max_warmup_steps": 2, "residual_diff_threshold": 0.35}
    far = attach(split(flux, split="sequence"), **settings)
    want = sample(flux, "flux", steps=8)

    fault = []

    def callback(step: int, *_: Any) -> None:
        if step == 3:
            sign.write_text("memory 1 0")
            fault.append(time.monotonic())

    got = sample(far, "flux", steps=8, callback=callback)
    took = time.monotonic() - fault[0]
    assert not sign.exists(), "it has run out of memory"
    print(f"all had computed {took:.2f} s after it")
    assert took < COMPUTED_WITHIN
    report = report_of(far)
    assert any("memory ran out" in n or "another GPU" in n for n in report.notices)
    assert not any(e.skipped for e in report.evaluations[4:])
    assert torch.isfinite(got).all() and difference(got, want) < 1


def test_cancel_in_the_middle_of_an_evaluation(flux: Any, sign: Path) -> None:
    import comfy.model_management as management

    far = split(flux, split="sequence")
    want = sample(far, "flux", steps=2)
    processes, before = in_ranks(process), in_ranks(kept)
    cached = attach(far, residual_diff_threshold=0.9)
    sample(cached, "flux", steps=8)
    assert in_ranks(kept) == before, "what caching remembered goes with its run"
    sign.write_text("sleep 1 1")
    # The other rank is in an exchange then and waits.
    cancel = threading.Timer(0.7, management.interrupt_current_processing)
    cancel.start()
    with pytest.raises(management.InterruptProcessingException):
        sample(cached, "flux", steps=50)
    cancel.join()
    assert split_report(far).outcome == "interrupted"
    sign.unlink()
    assert in_ranks(process) == processes
    after = in_ranks(kept)
    assert after == before
    assert torch.equal(sample(far, "flux", steps=2), want), "the next run works"
    assert split_report(far).started is None, "with the same processes"


def test_a_process_that_dies_is_one_sentence_and_the_next_run_works(flux: Any, sign: Path) -> None:
    far = split(flux, split="sequence")
    want = sample(far, "flux", steps=2)
    sign.write_text("die 1 1")
    with pytest.raises(AccelerationError, match=r"the process of rank 1 ended.*next run starts"):
        sample(far, "flux", steps=3)
    assert torch.equal(sample(far, "flux", steps=2), want)
    assert split_report(far).started is not None


KILLED_WITHIN = 5.0
"""Seconds in which the sentence about a killed process comes."""


def test_a_process_that_is_killed_from_outside(flux: Any, sign: Path) -> None:
    far = split(flux, split="sequence")
    want = sample(far, "flux", steps=2)
    victim, killed = in_ranks(process)[1], []

    def kill() -> None:
        os.kill(victim, signal.SIGKILL)
        killed.append(time.monotonic())

    # Its block sleeps and the other rank waits for it in an exchange.
    sign.write_text("sleep 1 1")
    killer = threading.Timer(1.0, kill)
    killer.start()
    with pytest.raises(AccelerationError, match=r"the process of rank 1 ended.*next run") as told:
        sample(far, "flux", steps=50)
    took = time.monotonic() - killed[0]
    assert "\n" not in str(told.value)
    print(f"a sentence {took:.2f} s after SIGKILL")
    assert took < KILLED_WITHIN
    sign.unlink()
    assert torch.equal(sample(far, "flux", steps=2), want), "the next run works"


def test_an_error_of_the_model_in_one_rank_is_told(flux: Any, sign: Path) -> None:
    far = split(flux, split="sequence")
    sign.write_text("fail 1 2")
    with pytest.raises(RuntimeError, match="failed on purpose"):
        sample(far, "flux", steps=2)
    sign.unlink()
    assert difference(sample(far, "flux", steps=2), sample(flux, "flux", steps=2)) <= CLOSE


def test_after_run_release_ends_the_processes(flux: Any) -> None:
    far = split(flux, after_run="release", split="sequence")
    sample(far, "flux", steps=1)
    sample(far, "flux", steps=1)
    assert split_report(far).started is not None, "they were started again"
