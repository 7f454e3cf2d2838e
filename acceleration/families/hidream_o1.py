"""HiDream O1: a language model whose layers also return keys and values.

The host keeps the prompt's keys and values from the first evaluation and reads them from every
layer of it, so that evaluation must run; it is the one with an empty ``past_key_value``.
"""

from typing import Any

from .base import IMAGE, Arg, BlockStack, Family


def _keeps_the_prompt(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return kwargs.get("past_key_value") == ()


FAMILY = Family(
    name="HiDream O1",
    classes=("comfy.ldm.hidream_o1.model.HiDreamO1Transformer",),
    stacks=(
        BlockStack(
            "language_model.layers",
            {IMAGE: Arg("x", 0)},
            (IMAGE, "keys and values"),
            must_run=_keeps_the_prompt,
            in_place=True,  # since a host newer than 0.30
        ),
    ),
    models="HiDream O1",
    one_size="its prompt holds a place for every part of the picture, at one size",
)
