"""The example workflows open on every pinned ComfyUI without a missing node, and are up to date."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import host_version
from PIL import Image

import make_examples
from comfyui_environment import NEWEST, Environment, is_newer
from comfyui_server import Server
from comfyui_workflow import NOTES, inputs_of, to_prompt, widget_inputs
from workflow_check import problems

pytestmark = [pytest.mark.server]

EXAMPLES = sorted(make_examples.FOLDER.glob("*.json"))
NAMES = [path.stem for path in EXAMPLES]
RECIPES = {recipe.name: recipe for recipe in make_examples.RECIPES}
FAMILIES = (
    *("FLUX.1", "FLUX.2", "Wan 2.1", "Wan 2.2", "Qwen-Image", "Z-Image", "HunyuanVideo", "LTX-2"),
)


@pytest.fixture(scope="module")
def info(server: Server) -> dict[str, Any]:
    return server.object_info()


def read(path: Path) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return workflow


def test_there_is_an_example_for_every_family_and_a_comparison() -> None:
    assert [part for part in FAMILIES if not any(part in name for name in NAMES)] == []
    assert any(name.startswith("Compare quality") for name in NAMES)
    assert set(RECIPES) <= set(NAMES)


def test_no_two_examples_write_under_one_name() -> None:
    """Pictures with and without a lever must not lie in one row."""
    found = [prefix for path in EXAMPLES for prefix in prefixes(read(path))]
    assert len(found) >= len(EXAMPLES) and len(set(found)) == len(found)


def prefixes(workflow: dict[str, Any]) -> set[str]:
    """Under which names a workflow writes."""
    saving = [node for node in workflow["nodes"] if node["type"] in ("SaveImage", "SaveVideo")]
    return {node["widgets_values"][0] for node in saving}


@pytest.mark.every_host
@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_example_is_valid_against_the_nodes_of_the_server(info: dict[str, Any], path: Path) -> None:
    assert problems(read(path), info) == []


@pytest.mark.every_host
@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_example_becomes_a_prompt(info: dict[str, Any], path: Path) -> None:
    """All that is required has a value, so that only the files may be missing."""
    prompt = to_prompt(read(path), info)
    for node in prompt.values():
        required = info[node["class_type"]]["input"].get("required", {})
        assert set(required) <= set(node["inputs"]), node["class_type"]
    assert any(info[node["class_type"]]["output_node"] for node in prompt.values())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_examples_use_core_nodes_and_ours(info: dict[str, Any], name: str) -> None:
    workflow = read(make_examples.FOLDER / f"{name}.json")
    kinds = {node["type"] for node in workflow["nodes"]} - set(NOTES)
    modules = {kind: info[kind]["python_module"] for kind in kinds}
    others = [kind for kind, module in modules.items() if module.startswith("custom_nodes")]
    assert others and all(kind.startswith("Accel") for kind in others)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_note_names_every_file_that_the_nodes_load(name: str) -> None:
    workflow = read(make_examples.FOLDER / f"{name}.json")
    (note,) = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    loaded = {
        value
        for node in workflow["nodes"]
        for value in node["widgets_values"]
        if isinstance(value, str) and value.endswith(".safetensors")
    }
    text = note["widgets_values"][0]
    assert loaded == {file.name for file in RECIPES[name].files}
    assert all(file in text for file in loaded)


def test_files_are_what_the_script_makes(info: dict[str, Any]) -> None:
    """If this fails, run ``python3 workflows/make_examples.py``."""
    made = make_examples.files(info)
    other = [path.name for path, text in made.items() if path.read_text("utf-8") != text]
    if is_newer(host_version()) and other:
        pytest.skip(f"made for ComfyUI {NEWEST}; this one's nodes would make {other} otherwise")
    assert other == []


@pytest.mark.every_host
def test_templates_are_offered_with_thumbnails(server: Server, environment: Environment) -> None:
    offered = server.get("/workflow_templates")
    pack = next(name for name in environment.packs if name in offered)
    assert sorted(offered[pack]) == sorted(NAMES)
    for path in EXAMPLES:
        assert server.get(f"/api/workflow_templates/{pack}/{quote(path.name)}") == read(path)
        # The page asks for a .jpg beside the workflow.
        picture = server.request(f"/api/workflow_templates/{pack}/{quote(path.stem)}.jpg")
        with Image.open(io.BytesIO(picture)) as image:
            assert image.format == "JPEG" and image.width == image.height


@pytest.mark.every_host
def test_blueprint_is_offered_and_fits_the_nodes(server: Server, info: dict[str, Any]) -> None:
    listed = server.get("/global_subgraphs")
    name = make_examples.BLUEPRINT.stem
    (key,) = [key for key, entry in listed.items() if entry["name"] == name]
    workflow = json.loads(server.get(f"/global_subgraphs/{key}")["data"])
    assert workflow == read(make_examples.BLUEPRINT)
    (outer,) = workflow["nodes"]
    (subgraph,) = workflow["definitions"]["subgraphs"]
    assert outer["type"] == subgraph["id"]
    assert len(outer["widgets_values"]) == len(outer["inputs"]) - 1
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for node in nodes.values():
        assert node["type"] in info
        assert set(widget_inputs(node, info[node["type"]])) <= set(
            dict(inputs_of(info[node["type"]]))
        )
    for link in subgraph["links"]:
        entries = nodes[link["target_id"]]["inputs"] if link["target_id"] in nodes else None
        assert entries is None or entries[link["target_slot"]]["link"] == link["id"]


@pytest.mark.parametrize("name", RECIPES)
def test_example_carries_where_its_files_come_from(name: str) -> None:
    """As the host's own templates do, so that the page offers to download what is missing."""
    workflow = read(make_examples.FOLDER / f"{name}.json")
    offered = {}
    for node in workflow["nodes"]:
        for model in node["properties"].get("models", ()):
            assert model["name"] in node["widgets_values"], node["type"]
            assert model["url"].startswith("https://") and model["url"].endswith(model["name"])
            offered[model["name"]] = model["directory"]
    assert offered == {file.name: file.folder for file in RECIPES[name].files}
    (note,) = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    (text,) = note["widgets_values"]
    assert "|" not in text, "no table fits the width of a note"
    assert all(f"[{file.name}]({file.url})" in text for file in RECIPES[name].files)


def test_two_experts_have_a_node_and_a_report_each() -> None:
    workflow = read(make_examples.FOLDER / "Wan 2.2, text to video.json")
    kinds = [node["type"] for node in workflow["nodes"]]
    for kind in ("UNETLoader", "KSamplerAdvanced", "AccelReport"):
        assert kinds.count(kind) == 2, kind
    samplers = {
        node["title"]: node["widgets_values"]
        for node in workflow["nodes"]
        if node["type"] == "KSamplerAdvanced"
    }
    # add_noise, seed, control, steps, cfg, sampler, scheduler, start, end, leftover noise
    high, low = samplers["High noise"], samplers["Low noise"]
    assert (high[0], high[-1], low[0], low[-1]) == ("enable", "enable", "disable", "disable")
    assert high[-2] == low[-3] and high[3] == low[3]


def test_comparison_samples_both_from_one_seed() -> None:
    workflow = read(make_examples.FOLDER / "Compare quality, FLUX.1 dev.json")
    samplers = [node for node in workflow["nodes"] if node["type"] == "KSampler"]
    assert len(samplers) == 2
    assert samplers[0]["widgets_values"] == samplers[1]["widgets_values"]
    models = {node["inputs"][0]["link"] for node in samplers}
    sources = {link[1] for link in workflow["links"] if link[0] in models}
    assert len(sources) == 2


def test_every_recipe_of_ours_reaches_the_sampler() -> None:
    """The model that is sampled is the one that our node gives."""
    pack = importlib.import_module("dit_acceleration_pack.nodes")
    ids = {node.define_schema().node_id for node in pack.NODES}
    for name in RECIPES:
        workflow = read(make_examples.FOLDER / f"{name}.json")
        accelerated = {
            node["id"]
            for node in workflow["nodes"]
            if node["type"] in ids and any(out["type"] == "MODEL" for out in node["outputs"])
        }
        kinds = {node["id"]: node["type"] for node in workflow["nodes"]}
        fed = {kinds[link[3]] for link in workflow["links"] if link[1] in accelerated}
        assert fed & {"KSampler", "KSamplerAdvanced", "BasicGuider", "CFGGuider"}, name
