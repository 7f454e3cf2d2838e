"""What Split Across GPUs cannot do is one sentence, before anything is started."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from split_factory import tiny
from split_ranks import page_that_is_told
from tiny_models import conditioning, make_model, sample

from dit_acceleration_pack.acceleration import cluster, host
from dit_acceleration_pack.acceleration.cluster import connection
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.host import quantize
from dit_acceleration_pack.acceleration.host.quantize import QUANTIZE_KEY, QuantizeAttachment
from dit_acceleration_pack.acceleration.quantize import QuantizeSettings
from dit_acceleration_pack.acceleration.settings.parallel import ParallelSettings


@pytest.fixture(autouse=True)
def ray_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "is_installed", lambda: True)
    monkeypatch.setenv("DIT_ACCEL_SPLIT_ON_CPU", "1")


@pytest.fixture
def model() -> Any:
    return tiny("flux")


def refused(model: Any, match: str, **settings: Any) -> None:
    with pytest.raises(AccelerationError, match=match) as caught:
        host.attach_split(model, ParallelSettings(**{"gpus": 2, **settings}))
    assert "\n" not in str(caught.value)


def on_cuda(monkeypatch: pytest.MonkeyPatch, model: Any, count: int) -> Any:
    """As if there were so many GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    model.load_device = torch.device("cuda")
    return model


def test_one_gpu(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cuda(monkeypatch, model, 1)
    for gpus in (0, 2):
        refused(model, r"two GPUs or more, and this computer has 1: remove the node, or", gpus=gpus)


def test_more_gpus_than_there_are_and_only_one(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cuda(monkeypatch, model, 2)
    refused(model, r"gpus is 3, but this computer has 2: lower it, or 0 for all", gpus=3)
    refused(model, r"gpus is 1: remove the node", gpus=1)
    refused(model, r"gpus is 1: it takes two or more", gpus=1, ray_address="a:1")


def test_no_gpu(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIT_ACCEL_SPLIT_ON_CPU")
    refused(model, r"needs several NVIDIA or AMD GPUs, and this model runs on cpu: remove the node")


def test_ray_is_missing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "is_installed", lambda: False)
    refused(model, r"`python -m pip install 'ray>=2\.40'`")


def test_windows(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    refused(model, r"not on Windows: use ComfyUI's node MultiGPU CFG Split, or .* WSL2")


def test_no_model() -> None:
    refused(object(), r"Split Across GPUs needs a MODEL, got object")


def test_a_model_that_cannot_be_loaded_again() -> None:
    refused(make_model("flux"), r"does not say how to load it again.*Load Diffusion Model")


def test_a_model_that_was_loaded_by_code(model: Any) -> None:
    factory, _ = model.cached_patcher_init
    model.cached_patcher_init = (factory, ("x", {"custom_operations": torch.nn}))
    refused(model, r"cannot be told to other processes.*safetensors")


def test_quantized_weights(model: Any) -> None:
    class Quantized(torch.Tensor):
        pass

    layer = model.model.diffusion_model.img_in
    weight = layer.weight.data.as_subclass(Quantized)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    refused(model, r"the weight img_in\.weight of this model is quantized \(Quantized\).*bf16")


def test_quantize_model_before_it(model: Any) -> None:
    model.set_attachments(QUANTIZE_KEY, QuantizeAttachment(QuantizeSettings(), None, None))
    refused(model, r"Quantize Model and Split Across GPUs are on the same model.*remove one")


def test_quantize_model_behind_it(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hosts without such weights say that first.
    monkeypatch.setattr(quantize, "why_not_here", lambda: "")
    far = host.attach_split(model, ParallelSettings(gpus=2))
    with pytest.raises(AccelerationError, match=r"holds no weights.*use one of the two"):
        host.attach_quantize(far, QuantizeSettings(precision="fp8"))


@pytest.mark.parametrize("name", ["wan_humo", "wan22_s2v", "wan22_animate", "ltxav", "aura_flow"])
def test_a_model_whose_tokens_are_not_described(name: str) -> None:
    refused(tiny(name), r"so several GPUs cannot share an evaluation of it: use", split="sequence")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"gpus": -1}, r"gpus is -1: it must be 0 for all"),
        ({"split": "rows"}, r"split is 'rows': choose one of auto, sequence, batch, cfg"),
        ({"exchange": "ring"}, r"exchange is 'ring': choose one of auto, ulysses, keys"),
        ({"after_run": "stay"}, r"after_run is 'stay': choose one of keep, release"),
    ],
)
def test_values(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(AccelerationError, match=match):
        ParallelSettings(**settings)


def replaced(model: Any) -> None:
    def my_block(args: Any, extra: Any) -> Any:
        return extra["original_block"](args)

    model.set_model_patch_replace(my_block, "dit", "double_block", 0)


def patched(model: Any) -> None:
    def my_attention(q: Any, k: Any, v: Any, **kwargs: Any) -> Any:
        return {}

    model.set_model_attn1_patch(my_attention)


def overridden(model: Any) -> None:
    def my_override(function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    options = model.model_options["transformer_options"]
    options["optimized_attention_override"] = my_override


def object_patched(model: Any) -> None:
    model.add_object_patch("diffusion_model.img_in", torch.nn.Identity())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (replaced, r"my_block.*cannot travel to the processes of the GPUs: remove it"),
        (patched, r"my_attention.*attn1_patch.*cannot travel"),
        (overridden, r"the attention override .*my_override cannot travel"),
        (object_patched, r"a patch that replaces diffusion_model\.img_in cannot travel"),
    ],
)
def test_what_cannot_travel_is_named_before_sampling(
    model: Any, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], match: str
) -> None:
    monkeypatch.setattr(cluster, "team_of", lambda *_: pytest.fail("nothing must be started"))
    far = host.attach_split(model, ParallelSettings(gpus=2)).clone()
    change(far)
    with pytest.raises(AccelerationError, match=match):
        sample(far, "flux", steps=1)


def test_a_hook_of_weights_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "team_of", lambda *_: pytest.fail("nothing must be started"))
    import comfy.hooks

    far = host.attach_split(model, ParallelSettings(gpus=2))
    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    positive = [[c, {**o, "hooks": hooks}] for c, o in conditioning("flux", 1)]
    with pytest.raises(AccelerationError, match=r"a hook that changes weights .* cannot travel"):
        sample(far, "flux", steps=1, positive=positive)


def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of teams that a run asks for; it gets none."""
    found: list[int] = []

    def team_of(address: str, size: int, *_: Any) -> Any:
        found.append(size)
        raise cluster.TooLongError("the tests start none")

    monkeypatch.setattr(cluster, "team_of", team_of)
    return found


ONE_TOKEN: dict[str, Any] = {"latent": (16, 2, 2)}
TWO_TOKENS: dict[str, Any] = {"latent": (16, 2, 3)}  # the second half empty
TWO_FRAMES: dict[str, Any] = {"latent": (48, 2, 4, 4), "mask": [1, 1, 2, 1, 1]}


@pytest.mark.parametrize(
    ("name", "given", "settings", "what"),
    [
        ("flux", ONE_TOKEN, {}, "one token, which 2 GPUs"),
        ("flux", ONE_TOKEN, {"gpus": 3, "split": "sequence", "cfg": 3.0}, "one token, which 3"),
        ("flux", ONE_TOKEN, {"gpus": 4, "cfg": 3.0}, "one token, which 2 GPUs"),
        ("flux", TWO_TOKENS, {"gpus": 3}, "2 tokens, which 3 GPUs"),
        ("flux", ONE_TOKEN, {"cfg": 3.0}, ""),
        ("flux", ONE_TOKEN, {"split": "batch"}, ""),
        ("flux", TWO_TOKENS, {}, ""),
        ("aura_flow", {"latent": (4, 2, 2)}, {}, ""),
        ("ltxv", {"latent": (128, 1, 1, 2)}, {"gpus": 3}, "2 tokens, which 3"),
        ("ltxv", {"latent": (128, 1, 1, 2)}, {}, ""),
        ("wan22_5b", TWO_FRAMES, {"gpus": 3}, "2 frames with a time of their own, which 3"),
        ("wan22_5b", TWO_FRAMES, {}, ""),
        ("wan22_5b", {**TWO_FRAMES, "mask": None}, {"gpus": 3}, ""),
        ("wan", {**TWO_FRAMES, "latent": (16, 2, 4, 4)}, {"gpus": 3}, ""),
    ],
    ids=str,
)
def test_more_gpus_than_tokens_are_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, name: str, given: Any, settings: dict[str, Any], what: str
) -> None:
    asked = started(monkeypatch)
    settings = dict(settings)
    cfg = settings.pop("cfg", 1.0)
    mask = given.get("mask") and {"noise_mask": torch.ones(given["mask"])}
    far = host.attach_split(tiny(name), ParallelSettings(**{"gpus": 2, **settings}))
    match = rf"{what}( GPUs)? cannot share" if what else "the tests start none"
    with pytest.raises(AccelerationError, match=match) as caught:
        sample(far, name, steps=1, cfg=cfg, latent=given["latent"], **(mask or {}))
    assert "\n" not in str(caught.value)
    assert bool(asked) == (not what)


def test_the_node_shows_why_a_run_was_refused(model: Any) -> None:
    told: list[dict[str, Any]] = []
    far = host.attach_split(model, ParallelSettings(gpus=2), "split")
    with page_that_is_told(told), pytest.raises(AccelerationError, match="one token"):
        sample(far, "flux", steps=1, **ONE_TOKEN)
    (one,) = told
    assert (one["node"], one["outcome"], one["ranks"]) == ("split", "refused", [])
    assert one["sentence"].startswith("Split Across GPUs: this picture or video has one token")


def test_an_address_that_does_not_answer() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(AccelerationError, match=r"no Ray cluster answered at .* within 10 s"):
            connection._require_answer(address)
    for odd in ("somewhere", "ray://a:1", "a:b"):
        with pytest.raises(AccelerationError, match=r"ray_address is .*host and port"):
            connection._require_answer(odd)


def test_an_address_in_vain_does_not_load_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray reads how it is to listen when it is imported, so a run without an address may follow."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(AccelerationError, match=r"ray_address is 'somewhere'"):
        cluster.connect("somewhere", 2)
    assert "ray" not in sys.modules


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"what answers at 127.* is no Ray cluster"),
        (b"", r"no Ray cluster answered at 127.* within 0 s"),
    ],
)
def test_an_address_where_something_else_answers_or_nothing(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, match: str
) -> None:
    monkeypatch.setattr(connection, "REACHED_WITHIN", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            line, _ = other.accept()
            line.sendall(answer)
            with line, contextlib.suppress(OSError):
                line.settimeout(10)
                while line.recv(64):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(AccelerationError, match=match):
            connection._require_answer(f"127.0.0.1:{other.getsockname()[1]}")
        thread.join(10)


def test_a_computer_of_the_cluster_that_lacks_the_model(tmp_path: Path) -> None:
    from dit_acceleration_pack.acceleration.host.rank import RankWorker
    from dit_acceleration_pack.acceleration.host.split_orders import Loader

    gone = str(tmp_path / "model.safetensors")
    loader = Loader("comfy.sd", "load_diffusion_model", (gone,))
    with pytest.raises(AccelerationError, match=r"has no file .*model\.safetensors: put the model"):
        RankWorker(1, 2, {}).load(loader)


def test_no_block_is_recorded_in_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer hosts replay blocks as CUDA graphs, in which nothing is exchanged."""
    import comfy.cli_args

    from dit_acceleration_pack.acceleration.host.rank import RankWorker

    monkeypatch.setattr(comfy.cli_args.args, "disable_cuda_graphs", False, raising=False)
    RankWorker(0, 2, {"disable_cuda_graphs": False})
    assert comfy.cli_args.args.disable_cuda_graphs


def test_outside_of_sampling_a_split_model_says_what_it_is(model: Any) -> None:
    far = host.attach_split(model, ParallelSettings(gpus=2))
    with pytest.raises(AccelerationError, match=r"called outside of sampling"):
        far.model.diffusion_model(torch.zeros(1, 16, 8, 8), torch.ones(1), context=None)


def test_the_model_is_untouched_and_its_like_is_without_weights(model: Any) -> None:
    network = model.model.diffusion_model
    before = {name: p.data_ptr() for name, p in network.named_parameters()}
    far = host.attach_split(model, ParallelSettings(gpus=2))
    assert {name: p.data_ptr() for name, p in network.named_parameters()} == before
    assert not list(far.model.diffusion_model.parameters())
    assert far.model.diffusion_model.patch_size == network.patch_size
    assert far.model.diffusion_model.state_dict().keys() == network.state_dict().keys()
    assert far.model_size() < 2 and model.model_size() > 1000
    assert host.structure_of(far).family.name == "FLUX"
    assert far.model.memory_required([4, 16, 8, 8]) == 0
    assert far.model.memory_required([6, 16, 8, 8]) == model.model.memory_required([3, 16, 8, 8])
    again = host.attach_split(far, ParallelSettings(gpus=3))
    assert host.lever_of(again, host.SPLIT_KEY).gpus == 3


def test_nothing_keeps_the_weights_in_this_process() -> None:
    model = tiny("flux")
    gone = [weakref.ref(p) for p in model.model.diffusion_model.parameters()]
    far = host.attach_split(model, ParallelSettings(gpus=2)).clone()
    del model
    gc.collect()
    assert far is not None and not any(ref() is not None for ref in gone)
