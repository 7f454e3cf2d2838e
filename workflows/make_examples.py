"""Writes the example workflows with their thumbnails, the subgraph blueprint, and old workflows.

``python3 workflows/make_examples.py`` asks a running ComfyUI for its list of nodes and builds all
files against it. The tests open the old workflows, and ``tests/host/test_examples.py`` sees to it
that no file is out of date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import example_cards
import examples_image
import examples_video

import example_blueprint
import old_workflows
from comfyui_environment import ROOT, add_arguments, ensure_environment, say
from comfyui_server import Server
from example_builder import Graph, as_json
from example_parts import NOTE_WIDTH, Recipe

FOLDER = ROOT / "workflows"
OLD_FOLDER = ROOT / "tests" / "data" / "old_workflows"
BLUEPRINT = ROOT / "subgraphs" / f"{example_blueprint.NAME}.json"
RECIPES: tuple[Recipe, ...] = (*examples_image.RECIPES, *examples_video.RECIPES)
NOTE_HEIGHT = 640


def build(recipe: Recipe, info: Mapping[str, Any]) -> dict[str, Any]:
    """One example, built against the server's list of nodes."""
    graph = Graph(info, recipe.name)
    with graph.group("Read me", width=NOTE_WIDTH):
        graph.note(recipe.note(), NOTE_HEIGHT)
    recipe.build(graph)
    graph.offer([file.as_model() for file in recipe.files])
    return graph.build()


def files(info: Mapping[str, Any]) -> dict[Path, str]:
    """The text of every file that this script writes."""
    made = {FOLDER / f"{recipe.name}.json": as_json(build(recipe, info)) for recipe in RECIPES}
    made[BLUEPRINT] = as_json(example_blueprint.build(info))
    for old in old_workflows.SAVED:
        made[OLD_FOLDER / f"{old}.json"] = as_json(old_workflows.build(info, old))
    return made


def pictures() -> dict[Path, bytes]:
    """The thumbnail of every template, the demo's included; the page wants them as .jpg."""
    made = {
        FOLDER / f"{recipe.name}.jpg": example_cards.card(recipe.model, recipe.task)
        for recipe in RECIPES
    }
    demo = example_cards.from_picture(FOLDER / "demo" / "example.png")
    return {**made, FOLDER / "dit_acceleration_demo.jpg": demo}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    add_arguments(parser)
    chosen = parser.parse_args()
    environment = ensure_environment(chosen.host_version, chosen.comfyui, chosen.python)
    with Server(environment) as server:
        made = {path: text.encode() for path, text in files(server.object_info()).items()}
    for path, content in {**made, **pictures()}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        say(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
