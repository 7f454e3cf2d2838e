"""cache-dit's names for several GPUs, as our settings."""

from __future__ import annotations

from typing import Any

import pytest

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.settings.file import parse
from dit_acceleration_pack.acceleration.settings.parallel import ParallelSettings
from dit_acceleration_pack.acceleration.settings.sections import (
    SECTIONS,
    make,
    read_configuration,
    resolve,
)


def read(text: str) -> tuple[dict[str, Any], str]:
    found = read_configuration(parse(f"parallelism_config: {text}".encode(), "a.yaml"), "a.yaml")
    given = found.sections["parallelism_config"]
    make(SECTIONS["parallelism_config"], given.values, given.origins)
    return given.values, " ".join(found.notices)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{ulysses_size: auto}", ("sequence", "ulysses", 0)),
        ("{ulysses_size: 4}", ("sequence", "ulysses", 4)),
        ("{ulysses_size: 2, ring_size: 2}", ("sequence", "ulysses", 4)),
        ("{ring_size: 2}", ("sequence", "keys", 2)),
        ("{ring_size: auto, ray_num_workers: 3}", ("sequence", "keys", 3)),
    ],
)
def test_sizes_become_our_settings(text: str, values: Any) -> None:
    found, told = read(text)
    assert (found["split"], found["exchange"], found["gpus"]) == values
    assert ("there is no ring" in told) == ("ring" in text)


def test_one_is_no_size_and_our_own_keys_are_themselves() -> None:
    assert read("{ulysses_size: 1, ring_size: null}") == ({}, "")
    assert read("{gpus: 3, split: cfg, use_ray: false}") == ({"gpus": 3, "split": "cfg"}, "")
    assert read("{ray_num_workers: 3}") == ({"gpus": 3}, "")
    assert read("{ulysses_size: auto, exchange: keys}")[0]["exchange"] == "keys"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("tp_size: 2", "every GPU holds the whole model"),
        ("ulysses_float8: true", "not rounded to fp8"),
        ("ulysses_async: true", "not laid over other work"),
        ("parallel_kwargs: {extra_parallel_modules: [vae]}", "stay with ComfyUI"),
        ("parallel_kwargs: {something: 1}", "this pack does not have it"),
    ],
)
def test_what_is_not_there_is_said(key: str, why: str) -> None:
    values, told = read(f"{{{key}}}")
    assert values == {} and why in told
    assert "file a.yaml, parallelism_config: no effect here of" in told


@pytest.mark.parametrize("size", ["0", "-1", "true", "many", "2.5", "65", "[2]"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(AccelerationError, match=r"a\.yaml.*ulysses_size is .*from 1 to 64"):
        read(f"{{ulysses_size: {size}}}")


def test_the_node_wins_over_the_file() -> None:
    file = read_configuration({"parallelism_config": {"ulysses_size": 4}}, "a.yaml")
    found = resolve("parallelism_config", {"gpus": 2, "split": "auto"}, file)
    assert found.settings == ParallelSettings(gpus=2, split="sequence", exchange="ulysses")
    assert found.origins["gpus"] == "node" and "a.yaml" in found.origins["split"]
