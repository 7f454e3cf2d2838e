"""The README's table of families is the one that the engine's data gives."""

from __future__ import annotations

from typing import Any

from benchmark_script import benchmark_script
from comfyui_environment import ROOT


def script() -> Any:
    return benchmark_script("families_table")


def test_the_readme_lists_the_families_as_they_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script().renew(text) == text, "run: python benchmarks/families_table.py"
    assert "| FLUX |" in text and "| Wan |" in text


def test_every_family_has_a_file_a_class_and_a_stack() -> None:
    families = script().load_families()
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    classes = [name for family in families for name in family.classes]
    assert len(set(classes)) == len(classes)
    assert all(family.stacks and family.models for family in families)


def test_published_settings_are_settings_of_the_node_with_a_source() -> None:
    from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

    families = script().load_families()
    for family in families:
        assert family.cache_dit and all(preset.source for preset in family.cache_dit)
        for preset in family.cache_dit:
            asked = CacheDiTSettings(**preset.settings)
            assert (asked == CacheDiTSettings()) == (not preset.settings), "says more than defaults"
    own = {family.name for family in families if family.cache_dit[0].settings}
    assert own == {"FLUX", "NextDiT", "Qwen-Image", "Wan", "Wan VACE"}


def test_the_plan_published_for_z_image_turbo_has_its_steps() -> None:
    from dit_acceleration_pack.acceleration.policies.masks import mask_for
    from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

    family = next(family for family in script().load_families() if family.name == "NextDiT")
    assert mask_for(CacheDiTSettings(**family.cache_dit[0].settings), 9) == [
        *(1, 1, 1, 1, 1, 0, 1, 0, 1)
    ]
