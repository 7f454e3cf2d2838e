"""Handlers on one block: around, within, and after one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dit_acceleration_pack.acceleration.sampling.gates import Handler, installed


class Block(torch.nn.Module):
    def forward(self, x: str) -> str:
        return f"block({x})"


def named(name: str) -> Handler:
    def handler(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return f"{name}({original(*args, **kwargs)})"

    return handler


def test_a_handler_around_hands_on_to_the_last_within() -> None:
    block = Block()
    with installed([(block, named("split"))], around=True):
        assert block("x") == "split(block(x))"
        with installed([(block, named("cache"))]):
            assert block("x") == "split(cache(block(x)))"
            with installed([(block, named("nested"))]):
                assert block("x") == "split(nested(block(x)))"
            assert block("x") == "split(cache(block(x)))"
        assert block("x") == "split(block(x))"
    assert block("x") == "block(x)" and "forward" not in vars(block)


def test_what_is_put_around_later_is_around_what_was_there() -> None:
    block = Block()
    with installed([(block, named("cache"))]), installed([(block, named("split"))], around=True):
        assert block("x") == "split(cache(block(x)))"
    assert "forward" not in vars(block)


def test_the_first_of_those_around_is_outermost() -> None:
    block = Block()
    with (
        installed([(block, named("stop"))], around=True),
        installed([(block, named("split"))], around=True),
        installed([(block, named("cache"))]),
    ):
        assert block(x="x") == "stop(split(cache(block(x))))"
    assert "forward" not in vars(block)


def test_handlers_go_when_something_fails_within() -> None:
    block = Block()
    try:
        with installed([(block, named("split"))], around=True):
            raise KeyError
    except KeyError:
        pass
    assert block("x") == "block(x)" and "forward" not in vars(block)
