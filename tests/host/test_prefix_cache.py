"""A model that keeps what its blocks made of the prompt, and runs fewer tokens from then on.

Qwen-Image 2.1 and HiDream O1 do: text and references do not change from step to step, so their keys
and values are kept from the first evaluation. It runs them in one sequence with the picture or, by
calling every block twice, apart from it; later evaluations run the picture alone. The stand-in is
a real Wan with such a prefix.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch

PICTURE_TOKENS = 48
EQUAL_SIGMAS, STEPS = [0.8, 0.8, 0.8, 0.4, 0.0], 7

JOINED, APART = "in one sequence", "in two calls of every block"
CALLS = {JOINED: 1, APART: 2}


def with_prefix(how: str, tokens: int, forgets: int = 0) -> Any:
    """A MODEL that runs ``tokens`` of a prefix where it does not remember them.

    With ``forgets`` it has lost them again at that evaluation of a prompt.
    """
    from comfy.ldm.wan import model as wan

    class Prefixed(wan.WanModel):  # type: ignore[misc]
        """Its blocks see the prefix only as what is added to the picture after each."""

        remembered: dict[Any, list[torch.Tensor]]
        seen: dict[Any, int]
        runs: list[list[int]]

        def forward_orig(
            self,
            x: torch.Tensor,
            t: torch.Tensor,
            context: torch.Tensor,
            freqs: Any = None,
            transformer_options: Any = None,
            **_: Any,
        ) -> torch.Tensor:
            x = self.patch_embedding(x)
            grid = x.shape[2:]
            x = x.flatten(2).transpose(1, 2)
            e = self.time_embedding(wan.sinusoidal_embedding_1d(self.freq_dim, t.flatten()))
            e = e.reshape(t.shape[0], -1, e.shape[-1])
            fixed = torch.zeros_like(e)
            context = self.text_embedding(context)
            prompt = tuple(transformer_options["uuids"])
            self.seen[prompt] = self.seen.get(prompt, 0) + 1
            if self.seen[prompt] == forgets:
                self.remembered.pop(prompt, None)
            self.runs.append([0] * len(self.blocks))
            x = self.through(x, e, fixed, freqs, context, prompt)
            return self.unpatchify(self.head(x, e), grid)

        def through(
            self, x: Any, e: Any, fixed: Any, freqs: Any, context: Any, prompt: Any
        ) -> torch.Tensor:
            told = self.remembered.get(prompt)
            prefix = None
            if told is None:
                told = self.remembered[prompt] = []
                prefix = torch.linspace(-9, 9, tokens * self.dim).view(1, tokens, self.dim)
                prefix = prefix.to(x).expand(len(x), -1, -1)
            joined = prefix is not None and how == JOINED
            if joined:
                x = torch.cat((prefix, x), dim=1)
                freqs = torch.cat((freqs[:, :tokens], freqs), dim=1)
            for index, block in enumerate(self.blocks):
                self.at = index
                if prefix is not None and not joined:
                    prefix = self.call(block, prefix, fixed, freqs[:, :tokens], context)
                    told.append(prefix.mean(dim=1, keepdim=True))
                x = self.call(block, x, e, freqs, context)
                if joined:
                    told.append(x[:, :tokens].mean(dim=1, keepdim=True))
                picture = x[:, tokens:] if joined else x
                picture += 0.01 * told[index]
            if prefix is not None and min(self.runs[-1]) < CALLS[how]:
                del self.remembered[prompt]  # not all blocks have made their part
            return x[:, tokens:] if joined else x

        def call(self, block: Any, x: Any, e: Any, freqs: Any, context: Any) -> torch.Tensor:
            projected = self.time_projection(e).unflatten(2, (6, self.dim))
            output: torch.Tensor = block(x, e=projected, freqs=freqs, context=context)
            return output

    model = tm.make_model("wan")
    network = model.model.diffusion_model
    network.__class__ = Prefixed
    network.remembered, network.seen, network.runs = {}, {}, []
    for index, block in enumerate(network.blocks):
        attention = block.self_attn
        attention.register_forward_hook(lambda *_, index=index: count(network, index))
    return model


def count(network: Any, index: int) -> None:
    network.runs[-1][index] += 1


def forget(model: Any) -> None:
    network = model.model.diffusion_model
    network.remembered, network.seen, network.runs = {}, {}, []


def sample(model: Any, sigmas: list[float] | None = None, cfg: float = 1.0) -> torch.Tensor:
    import comfy.sample
    import comfy.samplers

    forget(model)
    if sigmas is None:
        return tm.sample(model, "wan", steps=STEPS, cfg=cfg)
    empty = tm.empty_latent("wan")
    with torch.inference_mode():
        output: torch.Tensor = comfy.sample.sample_custom(
            model,
            comfy.sample.prepare_noise(empty, 0),
            cfg,
            comfy.samplers.sampler_object("euler"),
            torch.tensor(sigmas),
            tm.conditioning("wan", 1),
            tm.conditioning("wan", 2),
            empty,
            disable_pbar=True,
            seed=0,
        )
    return output


PREFIXES = [(JOINED, 6), (JOINED, PICTURE_TOKENS), (APART, 6), (APART, PICTURE_TOKENS)]


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize(("how", "tokens"), PREFIXES)
def test_never_skipping_is_bit_identical(how: str, tokens: int, cfg: float) -> None:
    model = with_prefix(how, tokens)
    plain = sample(model, cfg=cfg)
    runs = model.model.diffusion_model.runs
    assert max(map(max, runs)) == CALLS[how], "the stand-in does what it is for"
    never = tm.attach(model, residual_diff_threshold=1e-12)
    assert torch.equal(sample(never, cfg=cfg), plain)
    assert tm.report_of(never).skipped == 0


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("computed", [1, 2])
@pytest.mark.parametrize(("how", "tokens"), PREFIXES)
def test_nothing_of_the_evaluation_with_the_prefix_is_reused(
    how: str, tokens: int, computed: int, last: int
) -> None:
    """Three evaluations of one input: whatever is skipped must be what computing would give.

    The plan wants to skip from the second or the third evaluation on.
    """
    model = with_prefix(how, tokens)
    plain = sample(model, EQUAL_SIGMAS)
    accelerated = tm.attach(
        model,
        Bn_compute_blocks=last,
        scm_compute_bins=f"{computed},1",
        scm_cache_bins=f"{3 - computed}",
        scm_policy="static",
    )
    quick = sample(accelerated, EQUAL_SIGMAS)
    assert quick.isfinite().all()
    assert (quick - plain).norm() / plain.norm() < 1e-5
    skipped = [e.skipped for e in tm.report_of(accelerated).evaluations]
    assert not skipped[1], "there is only what the evaluation with the prefix has made"
    assert skipped[2], "the next one has the same tokens as the one before"


@pytest.mark.parametrize(("how", "tokens"), PREFIXES)
def test_a_prefix_that_was_forgotten_in_mid_run_is_made_anew(how: str, tokens: int) -> None:
    """Blocks that are handed through would not make it: the evaluation in which it is made runs."""
    model = with_prefix(how, tokens, forgets=4)
    plain = sample(model)
    accelerated = tm.attach(model, scm_compute_bins="3,1", scm_cache_bins="3", scm_policy="static")
    quick = sample(accelerated)
    network = model.model.diffusion_model
    assert quick.isfinite().all() and tm.psnr(plain, quick) > 45
    assert len(network.remembered) == 1, "every block has made its part"


@pytest.mark.parametrize(("how", "tokens"), PREFIXES)
def test_tea_cache_and_forecasts_keep_the_shapes_apart(how: str, tokens: int) -> None:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    model = with_prefix(how, tokens)
    plain = sample(model, cfg=2.0)
    settings = TeaCacheSettings(rel_l1_thresh=3.0, coefficients="raw", calibrator="taylorseer")
    tea_cache = host.attach(model, TeaCache(settings))
    blended = tm.attach(model, residual_diff_threshold=0.9, max_warmup_steps=1, calibrator="blend")
    for accelerated in (tea_cache, blended):
        quick = sample(accelerated, cfg=2.0)
        report = tm.report_of(accelerated)
        assert report.skipped > 0
        assert quick.isfinite().all() and tm.psnr(plain, quick) > 20
