"""The Attention Backend node on real models: what it leaves behind, with whom it composes, when."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tm
import torch

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.attention import AttentionSettings
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.host import attention as host_attention
from dit_acceleration_pack.acceleration.host import levers

OVERRIDE = "optimized_attention_override"
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
    return host.lever_of(model, host.ATTENTION_KEY).last_report


def by_backend(model: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    for (backend, _), calls in report_of(model).counts.items():
        found[backend] += calls
    return found


def with_override(model: Any, override: Any) -> Any:
    """The model as another pack's node would hand it on."""
    clone = model.clone()
    options = clone.model_options.get("transformer_options", {})
    clone.model_options["transformer_options"] = {**options, OVERRIDE: override}
    return clone


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.every_host
@pytest.mark.parametrize("backend", ["auto", "default", "sdpa", "sdpa_flash", "sdpa_math"])
def test_it_computes_the_same(model: Any, backend: str) -> None:
    plain = tm.sample(model, "flux", steps=STEPS, cfg=2.0)
    accelerated = attached(model, backend)
    assert error(tm.sample(accelerated, "flux", steps=STEPS, cfg=2.0), plain) < 1e-5
    report = report_of(accelerated)
    # Two double and three single blocks, both prompts in one batch.
    assert report.calls == 5 * STEPS and report.outcome == "finished"
    assert torch.equal(tm.sample(model, "flux", steps=STEPS, cfg=2.0), plain)


@pytest.mark.every_host
def test_default_changes_nothing(model: Any) -> None:
    accelerated = attached(model, "default")
    plain = tm.sample(model, "flux", steps=STEPS)
    assert torch.equal(tm.sample(accelerated, "flux", steps=STEPS), plain)
    assert "default (attention_" in report_of(accelerated).sentence()


@pytest.mark.every_host
@pytest.mark.parametrize("ending", ["finished", "error", "cancel"])
def test_nothing_is_left(model: Any, ending: str) -> None:
    import comfy.model_management

    accelerated = attached(model, "sdpa_math")
    before = dict(accelerated.model_options["transformer_options"])
    stop: dict[str, BaseException] = {
        "error": ValueError("in a block"),
        "cancel": comfy.model_management.InterruptProcessingException(),
    }
    seen: list[dict[str, Any]] = []

    def look(x: Any, context: Any, options: dict[str, Any]) -> None:
        seen.append(dict(options))
        if ending in stop and len(seen) == 2:
            raise stop[ending]

    watched = tm.watch(accelerated, look)
    if ending in stop:
        with pytest.raises(type(stop[ending])):
            tm.sample(watched, "flux", steps=STEPS)
    else:
        tm.sample(watched, "flux", steps=STEPS)
    assert OVERRIDE in seen[0] and host.ATTENTION_KEY in seen[0]
    for patcher in (model, accelerated, watched):
        left = patcher.model_options.get("transformer_options", {})
        assert OVERRIDE not in left and host.ATTENTION_KEY not in left
    assert accelerated.model_options["transformer_options"].keys() == before.keys()
    assert report_of(accelerated).outcome == ("finished" if ending == "finished" else "interrupted")


def test_two_branches_do_not_influence_each_other(model: Any) -> None:
    def sample(which: Any) -> torch.Tensor:
        return tm.sample(which, "flux", steps=STEPS)

    alone = {b: sample(attached(model, b)) for b in ("sdpa", "sdpa_math")}
    plain = sample(model)
    one, other = attached(model, "sdpa"), attached(model, "sdpa_math")
    for _ in range(2):
        assert torch.equal(sample(one), alone["sdpa"])
        assert torch.equal(sample(other), alone["sdpa_math"])
        assert torch.equal(sample(model), plain)
    assert by_backend(one) == {"sdpa": 5 * STEPS}
    assert by_backend(other) == {"sdpa_math": 5 * STEPS}


def test_the_last_of_two_nodes_wins(model: Any) -> None:
    both = attached(attached(model, "sdpa_math"), "sdpa")
    tm.sample(both, "flux", steps=STEPS)
    assert by_backend(both) == {"sdpa": 5 * STEPS}
    assert any("replaced Attention Backend (sdpa_math)" in n for n in report_of(both).notices)


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_an_override_of_another_pack_stays(model: Any, first: str) -> None:
    """It serves the calls that we leave alone, and is there again after the run."""
    served: list[int | None] = []

    def theirs(function: Any, *args: Any, **kwargs: Any) -> Any:
        served.append(kwargs["transformer_options"].get("block_index"))
        return function(*args, **kwargs)

    if first == "theirs":
        both = attached(with_override(model, theirs), "sdpa", first_block=1)
    else:
        both = with_override(attached(model, "sdpa", first_block=1), theirs)
    plain = tm.sample(model, "flux", steps=STEPS)
    assert error(tm.sample(both, "flux", steps=STEPS), plain) < 1e-5
    # The first double and the first single block.
    assert served == [0, 0] * STEPS
    assert by_backend(both) == {"sdpa": 3 * STEPS, "default": 2 * STEPS}
    assert both.model_options["transformer_options"][OVERRIDE] is theirs
    assert any("another attention override" in n for n in report_of(both).notices)


def test_start_and_end(model: Any) -> None:
    part = attached(model, "sdpa", start_percent=0.3, end_percent=0.7)
    tm.sample(part, "flux", steps=10)
    counts = report_of(part).counts
    assert counts["default", "it is before start_percent"] > 0
    assert counts["default", "it is after end_percent"] > 0
    assert 0 < counts["sdpa", ""] < 50 == report_of(part).calls
    assert all(n % 5 == 0 for n in counts.values())


def test_blocks_and_kinds() -> None:
    model = tm.make_model("wan")
    blocks = len(model.model.diffusion_model.blocks)
    one = attached(model, "sdpa", first_block=1, last_block=1)
    tm.sample(one, "wan", steps=1)
    assert by_backend(one) == {"sdpa": 2, "default": 2 * blocks - 2}
    for kind in ("self", "cross"):
        some = attached(model, "sdpa", attention_kind=kind)
        tm.sample(some, "wan", steps=1)
        assert by_backend(some) == {"sdpa": blocks, "default": blocks}


def test_with_caching(model: Any) -> None:
    """Skipped blocks make no attention calls, and the same ones are skipped."""
    cached = tm.attach(model, residual_diff_threshold=0.9, max_warmup_steps=2)
    tm.sample(cached, "flux")
    expected = [e.skipped for e in tm.report_of(cached).evaluations]
    assert any(expected)
    for both in (
        attached(tm.attach(model, residual_diff_threshold=0.9, max_warmup_steps=2)),
        tm.attach(attached(model), residual_diff_threshold=0.9, max_warmup_steps=2),
    ):
        tm.sample(both, "flux")
        assert [e.skipped for e in tm.report_of(both).evaluations] == expected
        assert report_of(both).calls == sum(1 if skipped else 5 for skipped in expected)


def test_auto_chooses_the_same_again(model: Any, choices: Path) -> None:
    auto = attached(model, "auto")
    first = tm.sample(auto, "flux", steps=STEPS)
    kept = json.loads(choices.read_text(encoding="utf-8"))
    assert kept and all(set(c) == {"backend", "milliseconds"} for c in kept.values())
    second = tm.sample(auto, "flux", steps=STEPS)
    assert torch.equal(first, second)
    assert all("remembered" in c for c in report_of(auto).choices.values())
    assert json.loads(choices.read_text(encoding="utf-8")) == kept


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}'])
def test_a_damaged_file_of_choices_is_ignored(model: Any, choices: Path, content: str) -> None:
    choices.parent.mkdir(parents=True)
    choices.write_text(content, encoding="utf-8")
    auto = attached(model, "auto")
    tm.sample(auto, "flux", steps=1)
    assert report_of(auto).calls == 5
    assert all(isinstance(c, dict) for c in json.loads(choices.read_text("utf-8")).values())


def test_half_precision() -> None:
    model = tm.make_model("flux", torch.bfloat16)
    plain = tm.sample(model, "flux", steps=STEPS)
    accelerated = attached(model, "sdpa")
    assert error(tm.sample(accelerated, "flux", steps=STEPS), plain) < 0.05
    assert by_backend(accelerated) == {"sdpa": 5 * STEPS}


def test_a_device_that_does_not_fit() -> None:
    model = tm.make_model("flux", device=tm.CPU)
    cudnn = attached(model, "sdpa_cudnn")
    tm.sample(cudnn, "flux", steps=1)
    assert report_of(cudnn).counts == {("sdpa", "sdpa_cudnn: it needs cuda, this is cpu"): 5}
    with pytest.raises(AccelerationError, match="it needs cuda, this is cpu"):
        tm.sample(attached(model, "sdpa_cudnn", on_unsupported="error"), "flux", steps=1)


@pytest.mark.every_host
def test_the_node() -> None:
    from dit_acceleration_pack.nodes.attention_backend import AttentionBackend

    schema = AttentionBackend.define_schema()
    assert schema.node_id == "AccelAttentionBackend" != "ModelAttentionBackend"
    assert schema.display_name.partition(" (")[0] == "Attention Backend"
    assert all(i.optional and i.tooltip for i in schema.inputs[1:])
    (backend,) = [i for i in schema.inputs if i.id == "backend"]
    assert "\nChanging the picture a little: sage, sage_fp16, sage3.\n" in backend.tooltip
    with pytest.raises(AccelerationError, match="connect a model loader"):
        AttentionBackend.execute("no model")


@pytest.mark.every_host
@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ("sage_fp8", None),
        ("sdpa", None),
        (["1", 0], None),
        ("warp", "backend is 'warp': choose one"),
    ],
)
def test_the_host_takes_choices_of_older_versions(
    backend: Any, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved workflow may still have one; the host alone would refuse it ("not in list")."""
    import execution

    import nodes
    from dit_acceleration_pack.nodes.attention_backend import AttentionBackend

    class Loader:
        RETURN_TYPES = ("MODEL",)

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the host's name
            return {}

    class Chooser(Loader):
        RETURN_TYPES = ("COMBO",)

    kinds = {"Loader": Loader, "Chooser": Chooser, "AccelAttentionBackend": AttentionBackend}
    for kind, node in kinds.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, kind, node)
    prompt = {
        "1": {"class_type": "Chooser", "inputs": {}},
        "2": {"class_type": "Loader", "inputs": {}},
        "3": {
            "class_type": "AccelAttentionBackend",
            "inputs": {"model": ["2", 0], "backend": backend},
        },
    }
    valid, errors, _ = asyncio.run(execution.validate_inputs("prompt", prompt, "3", {}))
    assert valid == (told is None)
    assert [told in error["details"] for error in errors if told] == [True] * bool(told)


def test_a_locked_server_leaves_former_quantizing_choices_out(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(levers, "lossy_locked", lambda: "locked here")
    locked = attached(model, "sage_fp8")
    tm.sample(locked, "flux", steps=1)
    assert "locked here" in report_of(locked).sentence()


def test_a_package_that_is_missing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence comes from the node, before anything is sampled."""
    from dit_acceleration_pack.acceleration.attention import registry
    from dit_acceleration_pack.nodes.attention_backend import AttentionBackend

    monkeypatch.setattr(registry, "is_installed", lambda _: False)
    (backend,) = [i for i in AttentionBackend.define_schema().inputs if i.id == "backend"]
    assert "sage (not installed)" in backend.tooltip
    assert "flash" in backend.options
    with pytest.raises(AccelerationError, match=r"pip install flash-attn .*choose auto"):
        AttentionBackend.execute(model, backend="flash")


def test_a_locked_server_leaves_quantizing_kernels_out(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(levers, "lossy_locked", lambda: "locked here")
    locked = attached(model, "auto", allow_low_precision=True)
    plain = tm.sample(model, "flux", steps=STEPS)
    assert torch.equal(tm.sample(locked, "flux", steps=STEPS), plain)
    assert "locked here" in report_of(locked).sentence()
    exact = attached(model, "sdpa")
    tm.sample(exact, "flux", steps=1)
    assert by_backend(exact) == {"sdpa": 5}


def test_a_model_without_the_override_is_left_alone() -> None:
    """PixArt does not hand its options to its attention."""
    model = tm.make_model("pixart_alpha")
    plain = tm.sample(model, "pixart_alpha", steps=1)
    alone = attached(model, "sdpa")
    assert torch.equal(tm.sample(alone, "pixart_alpha", steps=1), plain)
    assert "no attention call was seen" in report_of(alone).sentence()
