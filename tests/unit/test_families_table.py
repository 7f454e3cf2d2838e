"""What the engine's data says of families, and their table in the documentation."""

from __future__ import annotations

from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration.families import FAMILIES


def test_the_documentation_lists_every_family() -> None:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert len(FAMILIES) > 30
    for family in FAMILIES:
        assert f"| {family.name} | {family.models} |" in text


def test_every_family_has_a_file_a_class_and_a_stack() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    classes = [name for family in FAMILIES for name in family.classes]
    assert len(set(classes)) == len(classes)
    assert all(family.stacks and family.models for family in FAMILIES)


def test_published_settings_are_settings_of_the_node_with_a_source() -> None:
    from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

    for family in FAMILIES:
        assert family.cache_dit and all(preset.source for preset in family.cache_dit)
        for preset in family.cache_dit:
            asked = CacheDiTSettings(**preset.settings)
            assert (asked == CacheDiTSettings()) == (not preset.settings), "says more than defaults"
    own = {family.name for family in FAMILIES if family.cache_dit[0].settings}
    assert own == {"FLUX", "NextDiT", "Qwen-Image", "Wan", "Wan VACE"}


def test_the_plan_published_for_z_image_turbo_has_its_steps() -> None:
    from dit_acceleration_pack.acceleration.policies.masks import mask_for
    from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

    family = next(family for family in FAMILIES if family.name == "NextDiT")
    assert mask_for(CacheDiTSettings(**family.cache_dit[0].settings), 9) == [
        *(1, 1, 1, 1, 1, 0, 1, 0, 1)
    ]
