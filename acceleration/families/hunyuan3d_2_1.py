"""Hunyuan3D 2.1: one stream with long skip connections from the first half to the second."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="Hunyuan3D 2.1",
    classes=("comfy.ldm.hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("hidden_states", 0)}, (IMAGE,)),),
    last_blocks_need_all=True,
    models="Hunyuan3D 2.1",
    one_size="its latent is a shape in space, which has no height and width",
)
