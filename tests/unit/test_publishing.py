"""What the registry reads of the pack, what goes into its archive, and what issues ask for."""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import archive
import run
from comfyui_builder import HOSTS, LATEST
from comfyui_environment import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

REPOSITORY = "https://github.com/dit-acceleration/ComfyUI-DiT-Acceleration"
ASSETS = "https://raw.githubusercontent.com/dit-acceleration/ComfyUI-DiT-Acceleration/main/"
ARCHIVE_LIMIT = 5 * 2**20
ICON_LIMIT = 400


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


@pytest.fixture(scope="module")
def packed() -> list[Path]:
    files = archive.files()
    if not files:
        pytest.skip("not a git checkout")
    return files


def test_project_table_follows_the_registry_rules(metadata: dict[str, Any]) -> None:
    project = metadata["project"]
    assert re.fullmatch(r"[a-z]+([-_.]?[a-z0-9]+)*", project["name"])
    assert "comfyui" not in project["name"] and len(project["name"]) < 100
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert 20 < len(project["description"]) < 200
    assert (ROOT / project["license"]["file"]).is_file()
    assert project["urls"]["Repository"] == REPOSITORY
    assert all(url.startswith(REPOSITORY) for url in project["urls"].values())
    assert project["classifiers"] == ["Operating System :: OS Independent"]


def test_version_has_a_section_in_the_changelog(metadata: dict[str, Any]) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{metadata['project']['version']}]" in changelog


def test_requirements_are_those_of_a_git_clone(metadata: dict[str, Any]) -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    told = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    assert sorted(told) == sorted(metadata["project"]["dependencies"])


def test_comfy_table_names_the_publisher_and_the_oldest_tested_host(
    metadata: dict[str, Any],
) -> None:
    comfy = metadata["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["DisplayName"] == "DiT Acceleration"
    oldest = min(HOSTS, key=lambda name: tuple(map(int, name.split("."))))
    assert comfy["requires-comfyui"] == f">={oldest}"


def test_icon_and_banner_are_pictures_of_the_allowed_size(metadata: dict[str, Any]) -> None:
    comfy = metadata["tool"]["comfy"]
    paths = [ROOT / comfy[name].removeprefix(ASSETS) for name in ("Icon", "Banner")]
    with Image.open(paths[0]) as icon, Image.open(paths[1]) as banner:
        assert icon.width == icon.height <= ICON_LIMIT
        assert banner.width * 9 == banner.height * 21


def test_archive_holds_what_runs_and_nothing_else(packed: list[Path]) -> None:
    names = [path.as_posix() for path in packed]
    for needed in (
        "__init__.py",
        "pyproject.toml",
        "requirements.txt",
        "LICENSE",
        "nodes/__init__.py",
        "acceleration/__init__.py",
        "web/docs/AccelApplyCacheDiT.md",
        "workflows/FLUX.1 dev, text to image.json",
        "workflows/FLUX.1 dev, text to image.jpg",
        "locales/en/nodeDefs.json",
        "subgraphs/Accelerate (preset).json",
    ):
        assert needed in names
    for unwanted in ("tests/*", "benchmarks/*", ".*", "workflows/*demo*"):
        assert [name for name in names if fnmatch(name, unwanted)] == []
    # People run it on their own models; it needs nothing that is not in the archive.
    assert [n for n in names if fnmatch(n, "workflows/*.py")] == ["workflows/compare_presets.py"]
    assert sum((ROOT / path).stat().st_size for path in packed) < ARCHIVE_LIMIT


def test_every_issue_form_asks_for_the_report() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    forms = [path for path in forms if path.stem != "config"]
    assert len(forms) >= 2
    for path in forms:
        fields = {part.get("id"): part for part in yaml.safe_load(path.read_text("utf-8"))["body"]}
        assert fields["report"]["attributes"]["render"] == "json", path.name
        assert fields["report"]["validations"]["required"], path.name


def test_results_are_asked_for_as_the_comparison_writes_them() -> None:
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "result.yml").read_text(encoding="utf-8")
    assert "compare_presets.py" in text and "presets.json" in text and "presets.png" in text
    fields = {part.get("id"): part for part in yaml.safe_load(text)["body"]}
    assert fields["markdown"]["validations"]["required"]
    source = (ROOT / "workflows" / "compare_presets.py").read_text(encoding="utf-8")
    assert all(name in source for name in ("presets.json", "presets.md", "presets.png"))


def workflow(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """When a workflow of GitHub runs, and the workflow."""
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    return flow[True], flow  # YAML 1.1 reads the key `on` as a truth value.


def commands(flow: dict[str, Any]) -> list[str]:
    """What the job ``check`` of a workflow runs."""
    return [step["run"] for step in flow["jobs"]["check"]["steps"] if "run" in step]


def test_pull_requests_run_the_quick_check() -> None:
    triggers, flow = workflow("check")
    assert "pull_request" in triggers and "schedule" not in triggers
    assert commands(flow) == [".ci/run"]
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").endswith("\npython3 tests/run.py\n")


def test_the_newest_host_is_tried_every_week() -> None:
    triggers, flow = workflow("latest")
    (once,) = triggers["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* \d", once["cron"])
    (command,) = commands(flow)
    options, others = run.parse(command.split()[2:])
    assert options.host_version == LATEST and others == []


def test_publishing_checks_first_and_needs_the_owner_s_token() -> None:
    triggers, flow = workflow("publish")
    assert triggers["push"]["paths"] == ["pyproject.toml"]
    assert commands(flow) == ["python3 tests/run.py --all"]
    publish = flow["jobs"]["publish"]
    assert publish["needs"] == "check" and "github.repository" in publish["if"]
    token = publish["steps"][-1]["with"]["personal_access_token"]
    assert token == "${{ secrets.REGISTRY_ACCESS_TOKEN }}"
