"""Ranks over gloo on the CPU, each a process that samples tiny models whole and split.

``run_ranks`` starts them and hands back what each found; run as a script this file is one of them.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
LONGEST_WAIT = 60
"""Seconds that a rank waits for another one."""


def run_ranks(
    world: int, cases: Sequence[dict[str, Any]], limit: float = 600, may_die: bool = False
) -> list[Any]:
    """Run cases on ``world`` ranks; for every case the findings of rank 0, 1, ….

    Raises AssertionError with a rank's output when one of them fails, or hands its end back as the
    ``error`` of its cases where it ``may_die``: gloo ends a process that is sent another length
    than it waits for.
    """
    with tempfile.TemporaryDirectory() as folder:
        job, outputs = Path(folder, "job.json"), [Path(folder, f"{r}.json") for r in range(world)]
        job.write_text(json.dumps(list(cases)), encoding="utf-8")
        command = [sys.executable, str(HERE / "split_ranks.py"), str(world), folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        ranks = [
            subprocess.Popen(
                [*command, str(rank)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(world)
        ]
        try:
            said = [rank.communicate(timeout=limit)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        found = []
        for rank, text, path in zip(ranks, said, outputs, strict=True):
            if may_die and rank.returncode:
                found.append([{"error": text[-4000:]}] * len(cases))
                continue
            assert rank.returncode == 0, text[-4000:]
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return [list(each) for each in zip(*found, strict=True)]


# ---------------------------------------------------------------- in a rank


def main(size: int, folder: str, rank: int) -> None:
    import conftest  # noqa: F401 - puts the host and the pack in their places
    import torch
    import torch.distributed as dist

    from dit_acceleration_pack.acceleration.parallel import World

    torch.set_num_threads(1)
    world, place = World(rank, size, torch.device("cpu")), str(Path(folder, "store"))
    world.join(place, 0, LONGEST_WAIT)
    cases = json.loads(Path(folder, "job.json").read_text(encoding="utf-8"))
    found = []
    for number, case in enumerate(cases):
        if "mistake" in case or case.get("do") == "run":
            # One before may have left a rank in the middle of an exchange.
            world.join(place, number + 1, case.get("wait", LONGEST_WAIT))
        where = Path(folder, f"case-{number}")
        found.append(DO[case.get("do", "sample")](case | {"folder": str(where)}, rank, size))
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    if dist.is_initialized() and "mistake" not in cases[-1]:
        dist.barrier()
    world.leave()


def sample_case(case: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """Sample a tiny model whole, split, and split once more."""
    import tiny_models as tiny
    import torch

    from dit_acceleration_pack.acceleration.families import describe

    name = case["family"]
    model = tiny.make_model(name)
    options = _options(case)
    base = tiny.attach(model, **case["cache"]) if "cache" in case else model
    want = tiny.sample(base, name, **options)
    whole = tiny.report_of(base) if "cache" in case else None
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        split = stack.enter_context(split_model(base, case, rank, world, found))
        try:
            got = tiny.sample(split, name, **options)
            found |= found.pop("now")
            again = tiny.sample(split, name, **options)
        except Exception as error:  # a mistake made on purpose may end so
            torch.distributed.destroy_process_group()
            return {"error": f"{type(error).__name__}: {error}"}
        found.pop("now")
    network = model.model.diffusion_model
    blocks = [block for _, block in describe(network).blocks(network)]
    found |= {
        "difference": _difference(got, want),
        "ranks_equal": _ranks_equal(got, world),
        "repeats": torch.equal(got, again),
        "finite": bool(got.isfinite().all()),
        "left": sum("forward" in module.__dict__ for b in blocks for module in b.modules()),
    }
    if whole is not None:
        mine = tiny.report_of(split)
        found |= {
            "skips": [e.skipped for e in mine.evaluations],
            "whole_skips": [e.skipped for e in whole.evaluations],
            "notices": list(mine.notices),
            "peak": mine.residual_peak_bytes,
            "whole_peak": whole.residual_peak_bytes,
        }
    return found


def _options(case: dict[str, Any]) -> dict[str, Any]:
    import tiny_models as tiny
    import torch

    name = case["family"]
    found: dict[str, Any] = {k: case[k] for k in ("steps", "cfg", "batch", "sampler") if k in case}
    found.setdefault("steps", 3)
    if "latent" in case:
        found["latent"] = tuple(case["latent"])
    prompts = {"positive": tiny.conditioning(name, 1), "negative": tiny.conditioning(name, 2)}
    if case.get("control"):
        control = tiny.control_for(name)
        prompts = {which: tiny.add_control(cond, control) for which, cond in prompts.items()}
    more = dict(case.get("conditions", {}))
    if "text_mask" in case:
        more["attention_mask"] = torch.tensor([case["text_mask"]])
    if more:
        prompts = {w: [[c, {**o, **more}] for c, o in cond] for w, cond in prompts.items()}
    if case.get("frame_times"):
        shape = found.get("latent") or tiny.TINY[name].latent
        found["noise_mask"] = torch.ones(1, 1, *shape[1:])
        found["noise_mask"][:, :, 0] = 0
    return found | prompts


@contextmanager
def split_model(
    model: Any, case: dict[str, Any], rank: int, world: int, found: dict[str, Any]
) -> Iterator[Any]:
    """A clone whose evaluations are split over all ranks; ``found["now"]`` tells of a run."""
    import torch
    from comfy.patcher_extension import WrappersMP

    from dit_acceleration_pack.acceleration import parallel
    from dit_acceleration_pack.acceleration.families import describe
    from dit_acceleration_pack.acceleration.host import caching
    from dit_acceleration_pack.acceleration.parallel import sharding as sharding_module
    from dit_acceleration_pack.acceleration.sampling.gates import installed
    from dit_acceleration_pack.acceleration.sampling.run import SamplingRun

    traffic = parallel.Traffic()
    group = parallel.Group(rank, world, None, traffic)
    together = parallel.Together(group, torch.device("cpu"))
    calls: list[Any] = []

    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        network = executor.class_obj.diffusion_model
        control = args[4] if len(args) > 4 else kwargs.get("control")
        shared = parallel.Sharding(describe(network), group, case["exchange"], control)
        options = args[5] if len(args) > 5 else kwargs["transformer_options"]
        options["optimized_attention_override"] = shared.override
        with installed(shared.gates(network), around=True), shared.whole():
            output = executor(*args, **kwargs)
        now = found.setdefault("now", {"attended": 0, "evaluations": 0})
        now["attended"] += shared.attended
        now["evaluations"] += 1
        now |= {"bytes": traffic.bytes, "calls": traffic.calls, "attention": list(calls)}
        return output

    original = sharding_module.attend

    def attend(a: Any, layout: Any, *rest: Any) -> Any:
        heads = a.q.shape[1] if a.heads_first else a.heads
        width = a.q.shape[3] if a.heads_first else a.q.shape[2] // a.heads
        masked = a.mask is not None and [*a.mask.shape]
        image = list(layout.shares["image"])
        calls.append([a.q.shape[0], heads, width, list(layout.sizes), masked, image])
        return original(a, layout, *rest)

    split = model.clone()
    split.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "tests_split", apply_model)
    # Outermost, as in the ranks of the node.
    kept = split.wrappers[WrappersMP.APPLY_MODEL]
    split.wrappers[WrappersMP.APPLY_MODEL] = {"tests_split": kept.pop("tests_split"), **kept}

    def run(*args: Any, **kwargs: Any) -> SamplingRun:
        return SamplingRun(*args, **kwargs, peers=together)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(sharding_module, "attend", attend))
        stack.enter_context(mock.patch.object(caching, "SamplingRun", run))
        if "mistake" in case:
            stack.enter_context(MISTAKES[case["mistake"]]())
        yield split


def _difference(got: Any, want: Any) -> float:
    return float((got - want).abs().max() / want.abs().max())


def _ranks_equal(got: Any, world: int) -> bool:
    import torch
    import torch.distributed as dist

    others = [torch.empty_like(got) for _ in range(world)]
    dist.all_gather(others, got.contiguous())
    return all(torch.equal(other, got) for other in others)


# ---------------------------------------------------------------- attention by itself


def attention_case(case: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """One attention call over tokens on several ranks, compared with torch's over all of them."""
    import torch
    import torch.nn.functional as F

    from dit_acceleration_pack.acceleration import parallel
    from dit_acceleration_pack.acceleration.attention.call import Arguments
    from dit_acceleration_pack.acceleration.parallel.exchange import attend

    generator = torch.Generator().manual_seed(3)
    batch, heads, width = case.get("batch", 2), case["heads"], 8
    text, image = case["text"], case["image"]
    total = text + image
    dtype = getattr(torch, case.get("dtype", "float32"))
    q, k, v = (
        torch.randn(batch, heads, total, width, generator=generator).to(dtype) for _ in range(3)
    )
    mask = None
    if "mask" in case:
        mask = torch.randn(case["mask"], generator=generator).to(dtype) * 3
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=_full(mask))
    group = parallel.Group(rank, world)
    layout = parallel.Layout(rank, world, {"text": text, "image": image})
    own = [layout.take(t, 2, "joined") for t in (q, k, v)]
    if mask is not None and case.get("local_mask"):
        mask = layout.take(mask, -1, "joined")
    rows = case.get("rows")
    if rows:
        own = [t.transpose(1, 2).flatten(2) for t in own]

    def kernel(q: Any, k: Any, v: Any, heads: int, mask: Any, first: bool, first_out: bool) -> Any:
        if not first:
            q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=_full(mask))
        return out if first_out else out.transpose(1, 2).flatten(2)

    a = Arguments(*own, heads, mask, None, False, False, not rows, not rows, False)
    out = attend(a, layout, group, case["exchange"], kernel)
    if rows:
        out = out.unflatten(2, (heads, -1)).transpose(1, 2)
    mine = layout.take(want, 2, "joined")
    return {
        "difference": float((out - mine).abs().max()) if out.numel() else 0.0,
        "bytes": group.traffic.bytes,
        "calls": group.traffic.calls,
        "sizes": list(layout.sizes),
    }


def _full(mask: Any) -> Any:
    if mask is None:
        return None
    mask = mask.unsqueeze(0) if mask.ndim == 2 else mask
    return mask.unsqueeze(1) if mask.ndim == 3 else mask


def together_case(case: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """What ranks decide together."""
    import torch

    from dit_acceleration_pack.acceleration import parallel
    from dit_acceleration_pack.acceleration.signals import Alone

    generator = torch.Generator().manual_seed(5)
    before = torch.randn(1, 7, 4, generator=generator)
    now = before + torch.randn(1, 7, 4, generator=generator) * torch.arange(7).view(1, 7, 1)
    group = parallel.Group(rank, world)
    together = parallel.Together(group, torch.device("cpu"))
    layout = parallel.Layout(rank, world, {"image": 7})
    mine = (layout.take(now, 1, "image"), layout.take(before, 1, "image"))
    return {
        "whole": Alone().changes([(now, before)]),
        "together": together.changes([mine]),
        "alone": Alone().changes([mine]),
        "agreed": [together.agree(True), together.agree(rank != 1)],
    }


# ---------------------------------------------------------------- the node's run, without Ray


class Everywhere:
    """A ``cluster.Team`` whose ranks are these processes, each of which is a driver as well.

    All drivers do the same, so what one asks its own rank, every rank is asked.
    """

    ended = joined = False
    generation = 0
    folder: Any = None

    def __init__(self, worker: Any, size: int, folder: str) -> None:
        import torch.distributed as dist

        self.size, self._worker, self._folder, self._asked = size, worker, folder, 0
        self._said = dist.FileStore(f"{folder}-said", size)

    def ask(self, name: str, *args: Any, failed: Any = lambda one: False, **_: Any) -> list[Any]:
        if name == "join":
            args = (f"{self._folder}-met", *args[1:])
        try:
            mine = getattr(self._worker, name)(*args)
        except Exception as error:
            mine = error
        self._asked += 1
        self._said.set(f"{self._asked}/{self._worker.rank}", pickle.dumps(mine))
        all_of = [f"{self._asked}/{rank}" for rank in range(self.size)]
        found = [pickle.loads(self._said.get(key)) for key in all_of]
        wrong = next((one for one in found if isinstance(one, Exception)), None)
        if wrong is not None or any(map(failed, found)):
            self.joined = False
        if wrong is not None:
            raise wrong
        return found

    def end(self) -> None:
        self.ended = True


@contextmanager
def page_that_is_told(told: list[dict[str, Any]]) -> Iterator[None]:
    """A page in the place of one that watches the host; every message is added to ``told``."""
    from dit_acceleration_pack.acceleration.host import live_report

    server = SimpleNamespace(
        client_id="page",
        last_prompt_id="prompt",
        prompt_queue=SimpleNamespace(get_current_queue_volatile=lambda: ([], [])),
        send_sync=lambda _event, data, _client: told.append(data),
        send_progress_text=lambda *_: None,
    )
    with (
        mock.patch.object(live_report, "running_server", lambda: server),
        mock.patch.multiple(live_report, EVENT_SECONDS=0.0, MOST_SHARE=1e9),
    ):
        yield


def run_case(case: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """Sample by Split Across GPUs, as the node does it but for Ray, and in one process."""
    import tiny_models as tiny
    import torch.distributed as dist
    from split_factory import SIGN
    from split_factory import tiny as loaded

    from dit_acceleration_pack.acceleration import cluster, host
    from dit_acceleration_pack.acceleration.cluster import connection
    from dit_acceleration_pack.acceleration.host import prefetch
    from dit_acceleration_pack.acceleration.host.rank import RankWorker
    from dit_acceleration_pack.acceleration.settings.parallel import ParallelSettings

    sign = Path(f"{case['folder']}-sign-{rank}")
    os.environ |= {"DIT_ACCEL_SPLIT_ON_CPU": "1", SIGN: str(sign)}
    name, options = case["family"], _options(case)
    model = loaded(name)
    dist.destroy_process_group()  # The worker makes its own.
    worker = RankWorker(rank, world, {})
    team = Everywhere(worker, world, case["folder"])
    base = _with_levers(model, case)
    want = tiny.sample(base, name, **options)
    left_out: list[int] = []

    def leave_out(blocks: Any) -> None:
        left_out.append(len(blocks))

    def callback(step: int, *_: Any) -> None:
        if "goes wrong" in case and step == case["goes wrong"][0]:
            sign.write_text(case["goes wrong"][1], encoding="utf-8")

    told: list[dict[str, Any]] = []
    with ExitStack() as stack:
        stack.enter_context(page_that_is_told(told))
        stack.enter_context(mock.patch.object(connection, "is_installed", lambda: True))
        stack.enter_context(mock.patch.object(cluster, "team_of", lambda *_: (team, False)))
        if "mistake" in case:
            stack.enter_context(MISTAKES[case["mistake"]]())
        settings = ParallelSettings(gpus=world, **case.get("settings", {}))
        far = _with_levers(host.attach_split(model, settings, "split"), case)
        stack.enter_context(mock.patch.object(prefetch, "leave_out", leave_out))
        try:
            got = tiny.sample(far, name, callback=callback, **options)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
    report = host.lever_of(far, host.SPLIT_KEY).last_report
    found = {
        "difference": _difference(got, want),
        "shared": dict(report.shared),
        "held": [one.held for one in report.ranks],
        "sent": [one.sent for one in report.ranks],
        "residuals": [one.residuals for one in report.ranks],
        "notices": list(report.notices),
        "told": [one for one in told if one["node"] == "split"],
        "told of caching": [one for one in told if one["node"] == "caching"],
        "went_wrong": "goes wrong" in case and not sign.exists(),
    }
    if "cache" in case or "planned" in case:
        mine, whole = tiny.report_of(far), tiny.report_of(base)
        found |= {
            "left_out": left_out,
            "sizes": [e.size for e in mine.evaluations],
            "notices": [*found["notices"], *mine.notices],
            "whole_notices": list(whole.notices),
            "skips": [e.skipped for e in mine.evaluations],
            "whole_skips": [e.skipped for e in whole.evaluations],
            "whole_peak": whole.residual_peak_bytes,
        }
    return found


def _with_levers(model: Any, case: dict[str, Any]) -> Any:
    """The model with the levers of a case."""
    import tiny_models as tiny

    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.planned import Planned
    from dit_acceleration_pack.acceleration.progressive import ProgressiveSettings

    if "progressive" in case:
        model = host.attach_progressive(model, ProgressiveSettings(**case["progressive"]))
    if "planned" in case:
        model = host.attach(model, Planned(case["planned"], "target", strict=True), "caching")
    if "cache" in case:
        model = tiny.attach(model, **case["cache"])
    return model


# ---------------------------------------------------------------- mistakes made on purpose


@contextmanager
def _rules_left_out(*kinds: str) -> Iterator[None]:
    """As if a family's data did not say what goes along tokens."""
    from dit_acceleration_pack.acceleration.parallel import sharding

    original = sharding._part

    def part(rule: Any, value: Any, layout: Any) -> Any:
        left_out = rule.arg.keyword in kinds
        return value if left_out else original(rule, value, layout)

    with mock.patch.object(sharding, "_part", part):
        yield


@contextmanager
def _last_add_cut() -> Iterator[None]:
    """As if what is added after the last block were added to a part as well."""
    from dit_acceleration_pack.acceleration.parallel.sharding import Sharding

    original = Sharding._cut_adds

    def cut(self: Any, layout: Any) -> None:
        original(self, layout)
        begin, end = layout.span("image")
        name = self._structure.family.split[self._structure.family.stacks[-1].path].control
        if self._control.get(name):
            self._control[name][-1] = self._whole_adds[name][-1][:, begin:end]

    with mock.patch.object(Sharding, "_cut_adds", cut):
        yield


@contextmanager
def _mask_dropped() -> Iterator[None]:
    from dit_acceleration_pack.acceleration.parallel import exchange

    with mock.patch.object(exchange, "_with_all_keys", lambda mask, layout, group: None):
        yield


@contextmanager
def _grain_forgotten() -> Iterator[None]:
    from dit_acceleration_pack.acceleration.parallel.sharding import Sharding

    with mock.patch.object(Sharding, "_grain", lambda self, plan, call, tokens: 1):
        yield


@contextmanager
def _side_blocks_whole() -> Iterator[None]:
    """As if the first of the side blocks were given all tokens, and not a rank's."""
    from dit_acceleration_pack.acceleration.parallel.sharding import Sharding

    original = Sharding._side_block

    def side_block(self: Any, plan: Any, first: bool, *rest: Any) -> Any:
        return original(self, plan, False, *rest)

    with mock.patch.object(Sharding, "_side_block", side_block):
        yield


@contextmanager
def _all_attention_joined() -> Iterator[None]:
    """As if all attention of a block were over text and image, and none over the image alone."""
    from dit_acceleration_pack.acceleration.parallel import Layout

    with mock.patch.object(Layout, "of", lambda self, tokens: self):
        yield


@contextmanager
def _each_for_itself() -> Iterator[None]:
    """As if every rank went by its own tokens; that they agree in the end keeps them together."""
    from dit_acceleration_pack.acceleration.parallel import Together
    from dit_acceleration_pack.acceleration.signals import Alone

    with mock.patch.object(Together, "changes", Alone().changes):
        yield


@contextmanager
def _decides_alone() -> Iterator[None]:
    """As if a rank did what it likes, whatever the others have found."""
    from dit_acceleration_pack.acceleration.parallel import Together

    with (
        mock.patch.object(Together, "agree", lambda self, ready: ready and self.group.rank != 1),
        _each_for_itself(),
    ):
        yield


MISTAKES: dict[str, Any] = {
    "none": ExitStack,
    "rope": lambda: _rules_left_out("pe", "freqs"),
    "times": lambda: _rules_left_out("timestep"),
    "side": _side_blocks_whole,
    "joined": _all_attention_joined,
    "ranges": lambda: _rules_left_out("modulation_dims"),
    "last add": _last_add_cut,
    "mask": _mask_dropped,
    "grain": _grain_forgotten,
    "each for itself": _each_for_itself,
    "decides alone": _decides_alone,
}

DO: dict[str, Any] = {
    "sample": sample_case,
    "attention": attention_case,
    "together": together_case,
    "run": run_case,
}

if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
