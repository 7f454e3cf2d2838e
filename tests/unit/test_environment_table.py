"""The documentation lists the environment variables that the engine reads."""

from __future__ import annotations

import re

from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration.settings.environment import LOCK, SECONDARY, variables
from dit_acceleration_pack.acceleration.settings.file import parse
from dit_acceleration_pack.acceleration.settings.sections import SECTIONS, read_configuration

SETTINGS = ROOT / "docs" / "settings.md"


def test_the_documentation_lists_the_variables_and_the_lock() -> None:
    text = SETTINGS.read_text(encoding="utf-8")
    for section in SECTIONS.values():
        for variable in variables(section):
            assert f"| `{variable}` |" in text
    assert f"`{LOCK}`" in text and f"_{SECONDARY}" in text


def test_the_example_of_the_documentation_loads() -> None:
    for path in (SETTINGS, ROOT / "web" / "docs" / "AccelLoadConfig.md"):
        examples = re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        assert examples, path
        for example in examples:
            found = read_configuration(parse(example.encode(), "x.yaml"), "x.yaml")
            assert found.sections and not found.notices
