"""A transformer that nobody has described: found by looking, proved, or run plainly."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every family unknown."""
    from dit_acceleration_pack.acceleration.host import model
    from dit_acceleration_pack.acceleration.sampling import targets

    monkeypatch.setattr(targets, "describe", lambda network: None)
    monkeypatch.setattr(model, "describe", lambda network: None)


def attributes(model: Any) -> dict[str, set[str]]:
    return {name: set(vars(module)) for name, module in model.model.named_modules()}


@pytest.mark.usefixtures("unknown")
def test_a_single_stream_is_found_and_used() -> None:
    model = tm.make_model("wan")
    plain = tm.sample(model, "wan")
    before = attributes(model)
    never = tm.attach(model, residual_diff_threshold=1e-12)
    assert torch.equal(tm.sample(never, "wan"), plain)
    report = tm.report_of(never)
    assert report.structure == "structure found by probing"
    assert report.evaluations[0].reason == "looked for the structure"
    quick = tm.attach(model, residual_diff_threshold=0.95)
    picture = tm.sample(quick, "wan")
    assert tm.report_of(quick).skipped >= 2 and tm.psnr(plain, picture) > 25
    assert torch.equal(tm.sample(quick, "wan"), picture), "run 2 = run 1"
    assert attributes(model) == before


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("name", ["flux", "chroma"])
def test_two_kinds_of_blocks_are_never_taken_for_one(name: str) -> None:
    """Double and single blocks: neither list alone is the network, or the proof decides."""
    model = tm.make_model(name)
    plain = tm.sample(model, name)
    accelerated = tm.attach(model, residual_diff_threshold=0.95)
    picture = tm.sample(accelerated, name)
    report = tm.report_of(accelerated)
    if report.structure:
        assert tm.psnr(plain, picture) > 25
    else:
        assert torch.equal(picture, plain)
        assert "runs uncached" in report.sentence()


class Stack(torch.nn.Module):
    """Four blocks and a head; ``trick`` makes the caller do something that caching would miss."""

    def __init__(self, trick: str) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))
        self.trick = trick

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        between = torch.zeros_like(x)
        for block in self.blocks:
            x = torch.tanh(block(x)) if self.trick == "activation" else x + 0.1 * block(x)
            between = between + x
        return between if self.trick == "collect" else x


@pytest.mark.parametrize("trick", ["activation", "collect"])
def test_the_proof_refuses_a_structure_that_would_give_a_wrong_picture(trick: str) -> None:
    """A caller that collects every block's result would get wrong ones on a skip.

    One that changes the hidden state between blocks may: its changes are inside the residual.
    """
    from dit_acceleration_pack.acceleration.sampling.probing import probe

    torch.manual_seed(0)
    network, x = Stack(trick), torch.randn(1, 3, 8)
    with torch.inference_mode():
        expected = network(x)
        finding = probe(network, lambda: network(x))
    assert torch.equal(finding.output, expected)
    if trick == "collect":
        assert finding.structure is None and "same output" in finding.reason
    else:
        assert finding.structure is not None


def test_blocks_that_are_called_twice_are_refused() -> None:
    from dit_acceleration_pack.acceleration.sampling.probing import probe

    class Twice(Stack):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in (*self.blocks, *self.blocks):
                x = block(x)
            return x

    network, x = Twice(""), torch.randn(1, 3, 8)
    with torch.inference_mode():
        finding = probe(network, lambda: network(x))
    assert finding.structure is None and "once and in order" in finding.reason
