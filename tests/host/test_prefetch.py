"""What the host does around blocks: weights that it streams, memory that it records, replays.

The host streams on CUDA only. Here its own queue and its own ``prefetch_queue_pop`` run on any
device, and the transfer itself is replaced by a count of the bytes that it would have moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import tiny_models as tm
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("comfy.model_prefetch", reason="this ComfyUI streams no weights ahead")

SEVEN_STEPS = {"scm_compute_bins": "2,1,1", "scm_cache_bins": "1,2", "scm_policy": "static"}
SKIPPED = [False, False, True, False, True, True, False]

# Families whose loop pops a queue in the oldest host that has one.
STREAMED = ("ltxav", "minimax_h3")


def prefetch_room() -> Any:
    from dit_acceleration_pack.acceleration.host import prefetch

    return prefetch


class Traffic:
    """Bytes of weights that were streamed, for each evaluation and each block."""

    def __init__(self, model: Any) -> None:
        from dit_acceleration_pack.acceleration import host

        network = model.model.diffusion_model
        self.structure = host.structure_of(model)
        self.blocks = [block for _, block in self.structure.blocks(network)]
        self.leaves = [[m for m in block.modules() if is_streamed(m)] for block in self.blocks]
        self.evaluations: list[list[int]] = []

    @property
    def sizes(self) -> list[int]:
        return [sum(map(bytes_of, leaves)) for leaves in self.leaves]

    def begin(self, *_: Any) -> None:
        self.evaluations.append([0] * len(self.blocks))

    def cast(self, modules: Sequence[Any], *_: Any, **options: Any) -> Any:
        """In place of the host's transfer."""
        for module in modules:
            index = next(i for i, leaves in enumerate(self.leaves) if module in leaves)
            self.evaluations[-1][index] += bytes_of(module)
        return (None, False) if options.get("return_faulted") else None


def is_streamed(module: Any) -> bool:
    return isinstance(getattr(module, "weight", None), torch.Tensor) and hasattr(module, "bias")


def bytes_of(module: Any) -> int:
    return sum(t.nbytes for t in (module.weight, module.bias) if t is not None)


@contextlib.contextmanager
def streaming(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    """Let the host stream a model's blocks, and count."""
    import comfy.model_prefetch as host
    import comfy.ops

    def make_queue(modules: list[Any], *_: Any) -> list[Any]:
        queue = [None, *modules, None]
        host.PREFETCH_QUEUES.append(queue)
        return queue

    traffic = Traffic(model)
    for module in (module for leaves in traffic.leaves for module in leaves):
        module._v = object()  # The host's mark of weights that are streamed.
    with monkeypatch.context() as patch:
        patch.setattr(host, "make_prefetch_queue", make_queue)
        patch.setattr(comfy.ops, "cast_modules_with_vbar", traffic.cast)
        try:
            yield traffic
            left = [entry for queue in host.PREFETCH_QUEUES for entry in queue]
            assert left == [None] * len(host.PREFETCH_QUEUES), "every queue was emptied to its end"
        finally:
            host.cleanup_prefetch_queues()
            for module in (module for leaves in traffic.leaves for module in leaves):
                del module._v


@pytest.mark.parametrize(("first", "last"), [(1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("name", STREAMED)
def test_weights_of_skipped_blocks_are_not_streamed(
    name: str, first: int, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tm.make_model(name)
    settings = {**SEVEN_STEPS, "Fn_compute_blocks": first, "Bn_compute_blocks": last}
    accelerated = tm.attach(model, **settings)
    expected = tm.sample(accelerated, name, steps=7)
    with streaming(model, monkeypatch) as traffic:
        watched = tm.watch(accelerated, traffic.begin)
        assert torch.equal(tm.sample(watched, name, steps=7), expected)
    sizes = traffic.sizes
    runs = [at < first or at >= len(sizes) - last for at in range(len(sizes))]
    outer = [size if run else 0 for size, run in zip(sizes, runs, strict=True)]
    assert min(sizes) > 0
    assert [e.skipped for e in tm.report_of(watched).evaluations] == SKIPPED
    assert traffic.evaluations == [outer if skipped else sizes for skipped in SKIPPED]


@pytest.mark.parametrize("name", STREAMED)
def test_tea_cache_streams_no_more_than_the_first_block(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decision falls within the first block, whose weights are there by then."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    model = tm.make_model(name)
    settings = TeaCacheSettings(rel_l1_thresh=0.9, coefficients="raw")
    accelerated = host.attach(model, TeaCache(settings))
    with streaming(model, monkeypatch) as traffic:
        watched = tm.watch(accelerated, traffic.begin)
        tm.sample(watched, name, steps=7)
    sizes = traffic.sizes
    first = [sizes[0], *[0] * (len(sizes) - 1)]
    skipped = [e.skipped for e in tm.report_of(watched).evaluations]
    assert any(skipped)
    assert traffic.evaluations == [first if skip else sizes for skip in skipped]


def queue_of(*entries: Any) -> list[Any]:
    import comfy.model_prefetch as host

    queue = [None, *entries, None]
    host.PREFETCH_QUEUES.append(queue)
    return queue


@pytest.fixture(autouse=True)
def no_queue_stays() -> Iterator[None]:
    import comfy.model_prefetch as host

    yield
    host.PREFETCH_QUEUES.clear()


def linear() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 2))


def test_only_what_is_still_to_come_is_taken_out() -> None:
    running, next_one, last = linear(), linear(), linear()
    queue = queue_of(running, next_one, last)
    popped = (None, (running, []))
    queue[1] = popped
    assert prefetch_room().leave_out([running, next_one]) == 1
    assert queue == [None, popped, None, last, None]


def test_only_the_queue_of_this_evaluation_is_touched() -> None:
    block, other = linear(), linear()
    earlier, now, foreign = queue_of(block), queue_of(block), queue_of(other)
    assert prefetch_room().leave_out([block]) == 1
    assert (earlier, now, foreign) == ([None, block, None], [None] * 3, [None, other, None])
    assert prefetch_room().leave_out([linear()]) == 0


def test_entries_of_several_modules_and_compiled_blocks_are_recognized() -> None:
    """An entry may be a list of parts; the compiler may have put its wrapper in the queue."""
    skipped, runs = linear(), linear()
    queue = queue_of([skipped[0]], [skipped[0], runs[0]], [runs[0]])
    assert prefetch_room().leave_out([skipped]) == 1
    assert queue == [None, None, [skipped[0], runs[0]], [runs[0]], None]
    compiled = torch.compile(skipped, backend="eager")
    wrapped = queue_of(compiled, runs)
    assert prefetch_room().leave_out([skipped]) == 1
    assert wrapped == [None, None, runs, None]


def test_a_host_that_streams_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "comfy.model_prefetch")
    room = prefetch_room()
    assert room.leave_out([linear()]) == 0
    assert not room.captured(linear())
    with room.outliving():
        assert torch.ones(1).item() == 1


# ------------------------------------------------------------------ replayed blocks


def warmed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The host's set of blocks that it will record at their next call."""
    from weakref import WeakSet

    import comfy.model_prefetch as host

    found: WeakSet[torch.nn.Module] = WeakSet()
    monkeypatch.setattr(host, "GRAPH_WARMED_MODULES", found, raising=False)
    return found


def test_a_block_that_is_replayed_or_about_to_be_recorded_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    captured = prefetch_room().captured
    tried = warmed(monkeypatch)
    block = linear()
    assert not captured(block)
    tried.add(block)
    assert captured(block)
    assert captured(torch.compile(block, backend="eager"))
    tried.clear()
    block._comfy_graph = {"graph": None, "signature": None}  # type: ignore[assignment]
    assert captured(block)


@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_model_with_replayed_blocks_runs_uncached_and_says_why(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has tried the blocks in the third evaluation, and would record them in the next."""
    model = tm.make_model("wan")
    tried = warmed(monkeypatch)
    plain = tm.sample(model, "wan", steps=7)
    evaluations: list[None] = []

    def before(*_: Any) -> None:
        evaluations.append(None)
        if len(evaluations) == 3:
            tried.add(model.model.diffusion_model.blocks[which])

    accelerated = tm.attach(model, residual_diff_threshold=1e-12)
    watched = tm.watch(accelerated, before)
    gated: list[bool] = []
    block = model.model.diffusion_model.blocks[which]
    handle = block.register_forward_pre_hook(lambda m, _: gated.append("forward" in vars(m)))
    output = tm.sample(watched, "wan", steps=7)
    handle.remove()
    report = tm.report_of(watched)
    assert torch.equal(output, plain)
    assert gated == [True] * 3 + [False] * 4, "no gate is on a block while it is recorded"
    assert report.notices == [prefetch_room().REPLAYED]
    assert [e.reason for e in report.evaluations][3:] == ["not accelerated"] * 4


def test_a_replayed_block_keeps_even_the_first_evaluation_from_being_gated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tm.make_model("wan")
    warmed(monkeypatch).update(model.model.diffusion_model.blocks)
    accelerated = tm.attach(model, **SEVEN_STEPS)
    plain = tm.sample(model, "wan", steps=7)
    assert torch.equal(tm.sample(accelerated, "wan", steps=7), plain)
    assert tm.report_of(accelerated).notices == [prefetch_room().REPLAYED]


# ------------------------------------------------------------------ recorded memory


class Record(TorchDispatchMode):
    """The storages that are made while nothing pauses the recording."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.pauses = 0
        self.made: list[StorageWeakRef] = []

    @contextlib.contextmanager
    def pause(self, sync: bool = False) -> Iterator[None]:
        assert self.depth == 0, "pauses are not nested"
        self.depth += 1
        self.pauses += 1
        yield
        self.depth -= 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in args if isinstance(t, torch.Tensor)}
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(tensor, torch.Tensor) and not self.depth:
                storage = tensor.untyped_storage()
                if storage._cdata not in given:
                    self.made.append(StorageWeakRef(storage))
        return output

    def alive(self, output: Any) -> int:
        """How many of them are still there when the network has returned, beside its output."""
        tensors = output if isinstance(output, (tuple, list)) else (output,)
        own = {tensor.untyped_storage()._cdata for tensor in tensors}
        return sum(not ref.expired() and ref.cdata not in own for ref in self.made)


def recorded(model: Any, recordings: list[Record], patch: pytest.MonkeyPatch) -> list[int]:
    """Record every call of the network as the host would; returns what outlived each call."""
    import comfy.model_prefetch as host

    network = model.model.diffusion_model
    original, outlived = network.forward, []

    def pause(sync: bool = False) -> Any:
        return recordings[-1].pause(sync) if recordings else contextlib.nullcontext()

    def forward(*args: Any, **kwargs: Any) -> Any:
        recording = Record()
        recordings.append(recording)
        with recording:
            output = original(*args, **kwargs)
        outlived.append(recording.alive(output))
        return output

    patch.setattr(host, "pause_malloc_graph", pause, raising=False)
    patch.setitem(network.__dict__, "forward", forward)
    return outlived


@pytest.mark.parametrize("name", ["ltxav", "minimax_h3", "wan", "flux"])
@pytest.mark.parametrize("how", ["Cache-DiT", "TeaCache", "calibration", "attention"])
def test_nothing_that_outlives_the_network_is_made_while_the_host_records(
    name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tm.make_model(name)
    recordings: list[Record] = []
    outlived = recorded(model, recordings, monkeypatch)
    tm.sample(model, name, steps=2)
    host_itself = max(outlived)
    recordings.clear()
    outlived.clear()
    accelerated = attached(model, how)
    tm.sample(accelerated, name, steps=7)
    assert len(outlived) == 7 and max(outlived) <= host_itself
    # Kernels are tried and raced in the first evaluation, gates act in each.
    acting = recordings[:1] if how == "attention" else recordings
    assert all(recording.pauses > 0 for recording in acting)


def attached(model: Any, how: str) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.attention import AttentionSettings
    from dit_acceleration_pack.acceleration.policies.recording import Recorder, Recording
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    if how == "attention":
        return host.attach_attention(model, AttentionSettings(backend="auto"))
    if how == "Cache-DiT":
        return tm.attach(model, **SEVEN_STEPS, calibrator="taylorseer")
    if how == "TeaCache":
        settings = TeaCacheSettings(rel_l1_thresh=0.9, coefficients="raw")
        return host.attach(model, TeaCache(settings))
    return host.attach(model, Recorder(Recording()))
