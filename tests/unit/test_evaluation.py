"""Gates and evaluations on two-stack dummies whose numbers can be added up by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dit_acceleration_pack.acceleration.families import Arg, BlockStack, Family
from dit_acceleration_pack.acceleration.forecasts.forecast import Streams
from dit_acceleration_pack.acceleration.sampling.evaluation import Evaluation
from dit_acceleration_pack.acceleration.sampling.gates import installed
from dit_acceleration_pack.acceleration.sampling.passes import BlockPlan


class Add(torch.nn.Module):
    """Adds a number to its input in place and counts its calls."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x += self.number
        return x


STACK = BlockStack("blocks", {"image": Arg("x", 0)}, ("image",))
SEPARATE = BlockStack("a", {"image": Arg("img", 0), "text": Arg("txt", 1)}, ("image", "text"))
JOINED_STACK = BlockStack("b", {"joined": Arg("x", 0)}, ("joined",))


class Dummy:
    """Four blocks that add 1, 10, 100, 1000; the caller adds 0.5 after each, as a ControlNet."""

    def __init__(self) -> None:
        self.blocks = [Add(1.0), Add(10.0), Add(100.0), Add(1000.0)]

    def run(self, start: float, evaluation: Evaluation | None = None) -> float:
        x = torch.full((1, 1, 1), start)
        plan = [] if evaluation is None else evaluation.gates_for([(STACK, b) for b in self.blocks])
        with installed(plan):
            for block in self.blocks:
                x = block(x)
                x += 0.5
        return float(x)

    @property
    def calls(self) -> list[int]:
        return [block.calls for block in self.blocks]


def compute(*_: Any) -> None:
    return None


def reuse(residual: Streams) -> Any:
    return lambda *_: residual


def test_computing_gives_the_residual_of_the_skippable_blocks() -> None:
    dummy = Dummy()
    evaluation = Evaluation(BlockPlan(1, 3), compute)
    assert dummy.run(5.0, evaluation) == 5 + 1111 + 2.0
    assert evaluation.now.signal is not None and evaluation.now.residual is not None
    assert float(evaluation.now.signal) == 1.0
    # From the output of block 0 to that of block 3: the adds after 0, 1 and 2 are inside.
    assert float(evaluation.now.residual["image"]) == 1110 + 1.5


def test_reusing_counts_the_adds_in_between_once() -> None:
    dummy = Dummy()
    first = Evaluation(BlockPlan(1, 3), compute)
    expected = dummy.run(5.0, first)
    assert first.now.residual is not None
    second = Evaluation(BlockPlan(1, 3), reuse(first.now.residual))
    assert dummy.run(5.0, second) == expected
    assert second.skips and not second.lost
    assert dummy.calls == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("first", "last", "calls"),
    [(1, 3, [1, 0, 0, 0]), (2, 3, [1, 1, 0, 0]), (1, 2, [1, 0, 0, 1]), (1, 1, [1, 0, 1, 1])],
)
def test_only_first_and_last_blocks_run(first: int, last: int, calls: list[int]) -> None:
    dummy = Dummy()
    learn = Evaluation(BlockPlan(first, last), compute)
    expected = dummy.run(2.0, learn)
    before = dummy.calls
    assert learn.now.residual is not None
    again = Evaluation(BlockPlan(first, last), reuse(learn.now.residual))
    assert dummy.run(2.0, again) == expected
    assert [b - a for a, b in zip(before, dummy.calls, strict=True)] == calls


def test_block_plan() -> None:
    one = Family("one stream", (), (STACK,))
    two = Family("two streams", (), (SEPARATE, JOINED_STACK))
    assert BlockPlan.of(one, 4, 1, 0) == BlockPlan(1, 3, ("image",))
    assert BlockPlan.of(two, 4, 1, 0) == BlockPlan(1, 3, ("image",))
    assert BlockPlan.of(two, 4, 1, 2) == BlockPlan(1, 1, ("image", "text"))
    assert BlockPlan.of(one, 4, 2, 2) is None


def test_gates_leave_nothing_behind_even_on_an_error() -> None:
    dummy = Dummy()
    before = [set(vars(b)) for b in dummy.blocks]

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dummy.run(0.0, Evaluation(BlockPlan(1, 3), fail))
    assert [set(vars(b)) for b in dummy.blocks] == before


def test_a_forward_that_was_set_on_the_instance_comes_back() -> None:
    """Other packs set forward on block instances; theirs is called and stays."""
    dummy = Dummy()

    def theirs(x: torch.Tensor) -> torch.Tensor:
        return x + 7

    dummy.blocks[2].__dict__["forward"] = theirs
    assert dummy.run(0.0, Evaluation(BlockPlan(1, 3), compute)) == 1 + 10 + 7 + 1000 + 2
    assert dummy.blocks[2].__dict__["forward"] is theirs


def test_streams_of_a_joined_stack() -> None:
    """Two text tokens come first in the joined tensor; only image tokens are remembered."""

    class Pair(torch.nn.Module):
        def forward(self, img: torch.Tensor, txt: torch.Tensor) -> Any:
            return img + 1, txt + 2

    class Joint(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    blocks = [(SEPARATE, Pair()), (JOINED_STACK, Joint()), (JOINED_STACK, Joint())]

    def run(evaluation: Evaluation) -> torch.Tensor:
        with installed(evaluation.gates_for(blocks)):
            img, txt = blocks[0][1](img=torch.ones(1, 3, 1), txt=torch.ones(1, 2, 1))
            x = torch.cat((txt, img), 1)
            for _, block in blocks[1:]:
                x = block(x)
        return x[:, 2:]

    learn = Evaluation(BlockPlan(1, 2), compute)
    expected = run(learn)
    assert learn.now.residual is not None and set(learn.now.residual) == {"image"}
    assert learn.now.residual["image"].shape == (1, 3, 1)
    assert torch.equal(run(Evaluation(BlockPlan(1, 2), reuse(learn.now.residual))), expected)


def test_blocks_that_change_the_number_of_tokens_give_no_residual() -> None:
    class Drop(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 1:]

    blocks = [(STACK, Add(1.0)), (STACK, Drop()), (STACK, Add(2.0))]
    evaluation = Evaluation(BlockPlan(1, 2), compute)
    with installed(evaluation.gates_for(blocks)):
        x = torch.zeros(1, 3, 1)
        for _, block in blocks:
            x = block(x)
    assert x.shape == (1, 2, 1) and evaluation.now.residual is None and not evaluation.lost
