"""A family's positions of arguments against the signatures of a network's blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dit_acceleration_pack.acceleration.families import Arg, BlockStack, Family, SideBlocks
from dit_acceleration_pack.acceleration.families import registry as families
from dit_acceleration_pack.acceleration.families.base import IMAGE, TEXT
from dit_acceleration_pack.acceleration.families.signatures import NO_POSITION, fitted

FAMILY = Family(
    name="Dummy",
    classes=(),
    stacks=(BlockStack("blocks", {IMAGE: Arg("img", 0), TEXT: Arg("txt", 1)}, (IMAGE, TEXT)),),
)


class AsKnown(torch.nn.Module):
    def forward(self, img: Any, txt: Any, vec: Any = None) -> Any:
        return img, txt


class Moved(torch.nn.Module):
    """A later version: two parameters came in front, and the prompt before the picture."""

    def forward(self, vec: Any, mask: Any, txt: Any, img: Any = None) -> Any:
        return img, txt


class OnlyByName(torch.nn.Module):
    def forward(self, vec: Any, *, img: Any, txt: Any) -> Any:
        return img, txt


class Renamed(torch.nn.Module):
    def forward(self, hidden: Any, txt: Any) -> Any:
        return hidden, txt


class Open(torch.nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args


class PartlyOpen(torch.nn.Module):
    def forward(self, vec: Any, img: Any, **rest: Any) -> Any:
        return img


def network(*blocks: torch.nn.Module) -> Any:
    module = torch.nn.Module()
    module.blocks = torch.nn.ModuleList(blocks)
    return module


def positions(family: Family) -> list[int]:
    return [arg.position for arg in family.stacks[0].inputs.values()]


@pytest.mark.parametrize(
    ("blocks", "places"),
    [
        ([AsKnown()], [0, 1]),
        ([Moved()], [3, 2]),
        ([OnlyByName()], [NO_POSITION, NO_POSITION]),
        ([Open()], [0, 1]),
        ([PartlyOpen()], [1, 1]),
        ([Moved(), Open()], [3, 2]),
        ([], [0, 1]),
    ],
)
def test_positions_are_those_of_the_blocks(
    blocks: list[torch.nn.Module], places: list[int]
) -> None:
    found = fitted(FAMILY, network(*blocks))
    assert positions(found) == places and not found.refused
    assert (found is FAMILY) == (places == [0, 1])


def test_a_moved_parameter_is_read_where_it_is_and_by_keyword() -> None:
    block = Moved()
    stack = fitted(FAMILY, network(block)).stacks[0]
    vec, mask, txt, img = (torch.full((1,), float(k)) for k in range(4))
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((vec, mask, txt, img), {}),
        ((vec, mask, txt), {"img": img}),
        ((), {"vec": vec, "mask": mask, "txt": txt, "img": img}),
    ]
    for args, kwargs in calls:
        assert stack.read_input(IMAGE, args, kwargs) is img
        assert stack.read_input(TEXT, args, kwargs) is txt
    # As the family has it, another tensor would be taken for the picture.
    assert FAMILY.stacks[0].read_input(IMAGE, *calls[0]) is vec
    by_name = fitted(FAMILY, network(OnlyByName())).stacks[0]
    assert by_name.read_input(IMAGE, (vec, mask), {}) is None


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([Renamed()], "blocks have no argument 'img' in this version"),
        ([AsKnown(), Renamed()], "blocks have no argument 'img' in this version"),
        ([AsKnown(), Moved()], "blocks take 'img' in different places"),
    ],
)
def test_what_cannot_be_found_runs_uncached_with_a_sentence(
    blocks: list[torch.nn.Module], said: str
) -> None:
    found = fitted(FAMILY, network(*blocks))
    assert said in found.refused and found.stacks == FAMILY.stacks


def test_the_class_is_asked_and_not_what_stands_in_for_a_forward() -> None:
    """A gate, a pack's replacement on one block, and a compiled block."""
    block = Moved()
    block.__dict__["forward"] = lambda img, txt, vec=None: (img, txt)
    assert positions(fitted(FAMILY, network(block))) == [3, 2]
    compiled = torch.compile(Moved(), backend="eager")
    assert positions(fitted(FAMILY, network(compiled))) == [3, 2]


def test_a_class_whose_forward_is_replaced_later_is_looked_at_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Block(Moved):
        pass

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return forward

    assert positions(fitted(FAMILY, network(Block()))) == [3, 2]
    monkeypatch.setattr(Block, "forward", decorated(AsKnown.forward), raising=False)
    assert positions(fitted(FAMILY, network(Block()))) == [0, 1]
    monkeypatch.setattr(Block, "forward", functools.partialmethod(AsKnown.forward))
    assert not fitted(FAMILY, network(Block())).refused


def test_the_streams_of_side_blocks_are_looked_up_as_well() -> None:
    family = Family(
        name="Side", classes=(), stacks=(), side=(SideBlocks("blocks", Arg("txt", 0), lambda _: 1),)
    )
    side = fitted(family, network(AsKnown())).side[0]
    assert side.skip((1, 2, 3), {}) == (0.0, 2) and side.skip((1,), {"txt": 5}) == (0.0, 5)


def test_describing_a_network_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def __init__(self, block: torch.nn.Module) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([block])

    name = f"{Network.__module__}.{Network.__qualname__}"
    monkeypatch.setitem(families._BY_CLASS, name, FAMILY)
    moved, renamed = families.describe(Network(Moved())), families.describe(Network(Renamed()))
    assert moved is not None and positions(moved.family) == [3, 2]
    assert moved == families.describe(Network(Moved()))
    assert renamed is not None and "no argument 'img'" in renamed.family.refused
