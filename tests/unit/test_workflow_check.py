"""The check of example workflows finds every kind of mistake it is there for."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from comfyui_workflow import WorkflowError, to_prompt
from example_builder import Graph, as_json
from workflow_check import problems

INFO: dict[str, Any] = {
    "Load": {
        "input": {
            "required": {"file": [["here.safetensors"]], "kind": ["COMBO", {"options": ["a", "b"]}]}
        },
        "output": ["MODEL", "VAE"],
        "output_name": ["MODEL", "VAE"],
    },
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0, "min": 0, "max": 9, "control_after_generate": True}],
                "cfg": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0}],
            },
            "optional": {"vae": ["VAE"], "late": ["INT", {"default": 4}]},
        },
        "output": ["LATENT"],
        "output_name": ["latent"],
    },
    "Save": {
        "input": {
            "required": {
                "anything": ["*"],
                "codec": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "auto", "inputs": {"required": {}}},
                            {
                                "key": "own",
                                "inputs": {"required": {"crf": ["FLOAT", {"default": 23.0}]}},
                            },
                        ]
                    },
                ],
            }
        },
        "output": [],
        "output_name": [],
    },
}


def example(info: dict[str, Any] = INFO, **codec: Any) -> dict[str, Any]:
    graph = Graph(info, "example")
    with graph.group("Read me"):
        graph.note("text", 100)
    with graph.group("Work"):
        model = graph.node("Load", file="elsewhere.safetensors", kind="b")
        sampled = graph.node("Sample", model=model, cfg=3)
    with graph.group("Result", below=True):
        graph.node("Save", anything=sampled, **codec)
    return graph.build()


def test_what_the_builder_makes_is_right_and_runs() -> None:
    workflow = example()
    assert problems(workflow, INFO) == []
    prompt = to_prompt(workflow, INFO)
    assert prompt["2"]["inputs"] == {"file": "elsewhere.safetensors", "kind": "b"}
    assert prompt["3"]["inputs"] == {"model": ["2", 0], "seed": 0, "cfg": 3}
    assert prompt["4"]["inputs"] == {"anything": ["3", 0], "codec": "auto"}
    assert as_json(workflow).count("\n") > len(workflow["nodes"])


def test_an_input_that_the_page_hides_needs_no_value_and_takes_no_room() -> None:
    """As the old codec input of SaveVideo, whose place a choice within the format has taken."""
    inputs = INFO["Save"]["input"]
    hidden = [inputs["required"]["codec"][0], {**inputs["required"]["codec"][1], "hidden": True}]
    save = {**INFO["Save"], "input": {**inputs, "optional": {"old_codec": hidden}}}
    newer = {**INFO, "Save": save}
    older = example()
    assert problems(older, newer) == []
    assert to_prompt(older, newer) == to_prompt(older, INFO)
    assert as_json(example(newer)) == as_json(older)


def test_choices_with_inputs_of_their_own() -> None:
    workflow = example(codec="own", **{"codec.crf": 20.0})
    assert to_prompt(workflow, INFO)["4"]["inputs"] == {
        "anything": ["3", 0],
        "codec": "own",
        "codec.crf": 20.0,
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w["nodes"][1].update(type="Gone"), "the server has no such node"),
        (lambda w: w["nodes"][1]["widgets_values"].__setitem__(1, "c"), "kind is 'c', choices"),
        (lambda w: w["nodes"][1]["widgets_values"].__setitem__(0, "file"), "file is 'file'"),
        (lambda w: w["nodes"][2]["widgets_values"].__setitem__(2, 11.0), "allowed are 0.0 to 10"),
        (lambda w: w["nodes"][2]["widgets_values"].__setitem__(0, 1.5), "seed is 1.5, which is no"),
        (lambda w: w["nodes"][2]["widgets_values"].__setitem__(1, "x"), "control after generate"),
        (lambda w: w["nodes"][2]["widgets_values"].pop(), "has 2 widget values for 3 widgets"),
        (lambda w: w["links"].pop(0), "Link 1 is listed by a node and missing"),
        (lambda w: w["nodes"][2]["inputs"][0].update(link=None), "model is not connected"),
        (lambda w: w["nodes"][2]["inputs"][0].update(name="mode"), "no input mode"),
        (lambda w: w["links"][0].__setitem__(2, 1), "do not list it"),
        (lambda w: w["links"][0].__setitem__(5, "VAE"), "saved as VAE"),
        (lambda w: w["nodes"][1]["outputs"].pop(), "only 1 of 2 outputs"),
        (lambda w: w["nodes"][1]["outputs"][0].update(type="CLIP"), "output 0 is saved as MODEL"),
        (lambda w: w["nodes"][2].update(pos=w["nodes"][1]["pos"]), "overlaps"),
        (lambda w: w["nodes"][3]["size"].__setitem__(0, 999), "sticks out of group 'Result'"),
        (lambda w: w["groups"][1].update(bounding=w["groups"][0]["bounding"]), "overlaps group"),
    ],
)
def test_every_mistake_is_found(change: Any, sentence: str) -> None:
    workflow = copy.deepcopy(example())
    change(workflow)
    assert sentence in "\n".join(problems(workflow, INFO))


def test_a_link_between_types_that_do_not_fit_is_found() -> None:
    workflow = example()
    workflow["nodes"][1]["outputs"][0]["links"] = []
    workflow["nodes"][1]["outputs"][1]["links"] = [1]
    workflow["links"][0][2] = 1
    assert "into model, which takes MODEL" in "\n".join(problems(workflow, INFO))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"kind": "b"}, "needs a value for file|elsewhere"),
        ({"file": "x.safetensors", "size": 3}, "Load has no input size"),
    ],
)
def test_the_builder_refuses_what_it_cannot_build(inputs: dict[str, Any], message: str) -> None:
    graph = Graph({**INFO, "Load": _without_choices(INFO["Load"])}, "example")
    with graph.group("Work"), pytest.raises(WorkflowError, match=message):
        graph.node("Load", **inputs)


def _without_choices(info: dict[str, Any]) -> dict[str, Any]:
    return {**info, "input": {"required": {**info["input"]["required"], "file": [[]]}}}
