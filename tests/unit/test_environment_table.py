"""The README lists the environment variables that the engine reads."""

from __future__ import annotations

import re
from typing import Any

from benchmark_script import benchmark_script
from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration.settings.environment import LOCK, SECONDARY, variables
from dit_acceleration_pack.acceleration.settings.file import parse
from dit_acceleration_pack.acceleration.settings.sections import SECTIONS, read_configuration

README = ROOT / "README.md"


def script() -> Any:
    return benchmark_script("environment_table")


def test_the_readme_lists_the_variables_as_they_are() -> None:
    text = README.read_text(encoding="utf-8")
    assert script().renew(text) == text, "run: python benchmarks/environment_table.py"
    for section in SECTIONS.values():
        for variable in variables(section):
            assert f"| `{variable}` |" in text
    assert f"`{LOCK}`" in text and f"_{SECONDARY}" in text


def test_the_example_of_the_documentation_loads() -> None:
    for path in (README, ROOT / "web" / "docs" / "AccelLoadConfig.md"):
        examples = re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        assert examples, path
        for example in examples:
            found = read_configuration(parse(example.encode(), "x.yaml"), "x.yaml")
            assert found.sections and not found.notices
