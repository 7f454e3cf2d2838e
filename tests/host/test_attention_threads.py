"""Attention Backend where runs overlap and where things go wrong, on real models."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models as tm
import torch

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.attention import AttentionSettings
from dit_acceleration_pack.acceleration.attention.planner import Planner
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.host import attention as host_attention
from dit_acceleration_pack.acceleration.host.attention import ATTENTION_KEY, OVERRIDE

STEPS = 4


@pytest.fixture(autouse=True)
def choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Auto's choices go to a file of the test's own."""
    path = tmp_path / "user" / "attention_choices.json"
    monkeypatch.setattr(host_attention, "choices_file", lambda: path)
    yield path


@pytest.fixture(scope="module")
def model() -> Any:
    return tm.make_model("flux")


def attached(model: Any, backend: str = "sdpa", **settings: Any) -> Any:
    return host.attach_attention(model, AttentionSettings(backend=backend, **settings))


def report_of(model: Any) -> Any:
    return host.lever_of(model, ATTENTION_KEY).last_report


class Guider:
    """What OUTER_SAMPLE wrappers see of the host's guider."""

    def __init__(self, model: Any, options: dict[str, Any]) -> None:
        self.model_patcher = model
        self.model_options = {"transformer_options": options}


def run_through(lever: Any, guider: Guider, inside: Any) -> Any:
    """OUTER_SAMPLE with something in the host's place."""

    class Executor:
        class_obj = guider

        def __call__(self) -> Any:
            return inside()

    return lever.outer_sample(Executor())


def theirs(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Another pack's override."""
    return function(*args, **kwargs)


def asked(options: dict[str, Any]) -> Any:
    """An attention call as the host makes it; "host" when nobody took it."""
    q = torch.ones(1, 2, 4, 8)

    def function(*_: Any, **__: Any) -> Any:
        return "host"

    kwargs = {"skip_reshape": True, "transformer_options": options}
    if OVERRIDE not in options:
        return function()
    return options[OVERRIDE](function, q, q, q, 2, **kwargs)


ORDERS = [
    order
    for order in itertools.permutations(["+a", "+b", "+c", "-a", "-b", "-c"])
    if all(order.index(f"+{run}") < order.index(f"-{run}") for run in "abc")
]


@pytest.mark.parametrize("before", [None, theirs], ids=["plain", "theirs"])
def test_runs_that_share_options_come_and_go_in_any_order(model: Any, before: Any) -> None:
    """None takes another's away, and after the last one all is as before the first."""
    settings = AttentionSettings(backend="sdpa")
    for order in ORDERS:
        options = {"other": 1} | ({OVERRIDE: before} if before else {})
        alive: dict[str, Any] = {}
        for sign, name in order:
            if sign == "+":
                alive[name] = host_attention.PlacedRun(settings, options, {})
                assert alive[name].previous is before
                alive[name].put_in(options)
            else:
                alive.pop(name).take_out(options)
            if alive:
                assert not options[ATTENTION_KEY].closed, order
                assert isinstance(asked(options), torch.Tensor), order
        assert options == {"other": 1} | ({OVERRIDE: before} if before else {}), order
        assert asked(options) == "host"


def test_a_run_within_a_run(model: Any) -> None:
    """A node that samples while another one does hands its options on."""
    lever = host.lever_of(attached(model), ATTENTION_KEY)
    guider = Guider(model, {"other": 1})
    options = guider.model_options["transformer_options"]

    def inside() -> Any:
        outer = options[ATTENTION_KEY]
        run_through(lever, guider, lambda: asked(options | {"block_index": 0}))
        assert options[ATTENTION_KEY] is outer and lever.last_report.calls == 1
        # What the override does not understand goes to the host, not around in a ring.
        return options[OVERRIDE](lambda *_, **__: "host", transformer_options=options)

    assert run_through(lever, guider, inside) == "host"
    assert options == {"other": 1}
    assert not any("another attention override" in n for n in lever.last_report.notices)


def test_a_run_within_a_run_where_their_override_asks_ours(model: Any) -> None:
    lever = host.lever_of(attached(model, first_block=1), ATTENTION_KEY)
    guider = Guider(model, {})
    options = guider.model_options["transformer_options"]

    def inside() -> Any:
        ours = options[OVERRIDE]
        options[OVERRIDE] = lambda function, *a, **k: ours(function, *a, **k)
        try:
            return run_through(lever, guider, lambda: asked(options | {"block_index": 0}))
        finally:
            options[OVERRIDE] = ours

    assert run_through(lever, guider, inside) == "host"
    assert options == {}


def test_an_error_takes_out_only_the_run_that_it_ends(model: Any) -> None:
    lever = host.lever_of(attached(model), ATTENTION_KEY)
    guider = Guider(model, {})
    options = guider.model_options["transformer_options"]

    class Cancel(BaseException):
        pass

    def failing() -> Any:
        raise Cancel

    def inside() -> Any:
        with pytest.raises(Cancel):
            run_through(lever, guider, failing)
        assert lever.last_report.outcome == "interrupted"
        return asked(options)

    assert isinstance(run_through(lever, guider, inside), torch.Tensor)
    assert options == {}


@pytest.mark.every_host
@pytest.mark.parametrize("backend", ["sdpa", "sdpa_math"])
def test_two_threads_with_one_model(model: Any, backend: str) -> None:
    """The host itself may fail then; afterwards all is well, and nothing of ours is left."""
    accelerated = attached(model, backend)

    def sample(which: Any) -> torch.Tensor:
        return tm.sample(which, "flux", steps=STEPS)

    plain, alone = sample(model), sample(accelerated)
    problems: list[BaseException] = []

    def again() -> None:
        try:
            for _ in range(3):
                sample(accelerated)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=again) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(isinstance(problem, RecursionError) for problem in problems)
    for patcher in (model, accelerated):
        left = patcher.model_options.get("transformer_options", {})
        assert OVERRIDE not in left and ATTENTION_KEY not in left
    assert torch.equal(sample(accelerated), alone)
    assert report_of(accelerated).counts == {(backend, ""): 5 * STEPS}
    assert torch.equal(sample(model), plain)


def test_two_runs_that_end_at_once_leave_whole_choices(
    choices: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both = threading.Barrier(2, timeout=30)
    write_text = Path.write_text

    def write(self: Path, *args: Any, **kwargs: Any) -> int:
        written = write_text(self, *args, **kwargs)
        both.wait()
        return written

    monkeypatch.setattr(Path, "write_text", write)
    threads = [
        threading.Thread(target=host_attention._write_choices, args=({name: {"backend": "sdpa"}},))
        for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not caplog.records
    assert json.loads(choices.read_text(encoding="utf-8")).keys() < {"a", "b", "c"}
    assert [path.name for path in choices.parent.iterdir()] == [choices.name]


# ------------------------------------------------------------------ faults of our own


@pytest.mark.parametrize("place", ["_open", "_read_choices", "check", "_show", "_outside", "plan"])
def test_a_fault_of_ours_samples_as_the_host_does(
    model: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def faulty(*_: Any, **__: Any) -> Any:
        raise KeyError(f"fault in {place}")

    owner: Any = host_attention.AttentionAttachment
    if place == "_read_choices":
        owner = host_attention
    elif place == "check":
        owner = host_attention.AttentionRun
    elif place == "plan":
        owner = Planner
    backend = "auto" if place == "_read_choices" else "sdpa_math"
    accelerated = attached(model, backend, start_percent=0.1)
    plain = tm.sample(model, "flux", steps=STEPS)
    monkeypatch.setattr(owner, place, faulty)
    out = tm.sample(accelerated, "flux", steps=STEPS)
    if place == "_show":
        assert float((out - plain).norm() / plain.norm()) < 1e-5
    else:
        assert torch.equal(out, plain)
    report = report_of(accelerated)
    assert len([notice for notice in report.notices if f"fault in {place}" in notice]) == 1
    assert report.text().count("went wrong") <= 2
    left = accelerated.model_options.get("transformer_options", {})
    assert OVERRIDE not in left and ATTENTION_KEY not in left


def test_what_on_unsupported_asks_for_still_stops(model: Any) -> None:
    with pytest.raises(AccelerationError):
        on_cpu = SimpleNamespace(model=tm.make_model("flux", device=tm.CPU))
        tm.sample(attached(on_cpu.model, "sdpa_cudnn", on_unsupported="error"), "flux", steps=1)


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize("order", ["caching first", "attention first"])
def test_a_kernel_without_memory_frees_the_residuals_and_stays(
    model: Any, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    settings: dict[str, Any] = {"residual_diff_threshold": 0.9, "max_warmup_steps": 2}
    if order == "caching first":
        both = attached(tm.attach(model, **settings), "sdpa_math")
    else:
        both = tm.attach(attached(model, "sdpa_math"), **settings)
    from dit_acceleration_pack.acceleration.attention import BACKENDS, probe

    original = BACKENDS["sdpa_math"].load()
    seen = [0]

    def kernel(*args: Any) -> torch.Tensor:
        seen[0] += 1
        if seen[0] == 8:  # in the second evaluation
            raise torch.OutOfMemoryError("simulated")
        return original(*args)

    plain = tm.sample(attached(model, "sdpa_math"), "flux", steps=3)
    for key in list(probe._findings):
        if key[0] == "sdpa_math":
            monkeypatch.setitem(
                probe._findings, key, probe.Finding(kernel, error=probe._findings[key].error)
            )
    out = tm.sample(both, "flux", steps=3)
    cached = tm.report_of(both)
    assert cached.outcome == "finished"
    assert any("memory ran out, so what this run remembered" in n for n in cached.notices)
    assert set(report_of(both).counts) == {("sdpa_math", "")}
    assert torch.equal(out, plain) and not cached.skipped
