"""Whatever a settings file holds: settings, or one sentence that names the file."""

from __future__ import annotations

import dataclasses
import json
import random
import textwrap
from pathlib import Path
from typing import Any

import pytest

from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration.attention import CHOICES
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.settings.cache_dit_files import BACKENDS
from dit_acceleration_pack.acceleration.settings.file import MAX_BYTES, parse, render
from dit_acceleration_pack.acceleration.settings.sections import (
    SECTIONS,
    Configuration,
    make,
    read_configuration,
)

EXAMPLES = ROOT / "tests" / "data" / "settings"


def load(text: str | bytes, name: str = "mine.yaml") -> Configuration:
    data = text.encode() if isinstance(text, str) else text
    return read_configuration(parse(data, name), name)


def sentence_of(text: str | bytes, name: str = "mine.yaml") -> str:
    with pytest.raises(AccelerationError) as error:
        load(text, name)
    sentence = str(error.value)
    assert name in sentence and "\n" not in sentence and len(sentence) < 1500, sentence
    return sentence


@pytest.mark.parametrize("name", ["config.yaml", "parallel_config.yaml"])
def test_the_examples_of_sglang_load_unchanged(name: str) -> None:
    found = load((EXAMPLES / name).read_bytes(), name)
    assert found.sections["cache_config"].values == {
        "max_warmup_steps": 8,
        "warmup_interval": 2,
        "max_cached_steps": -1,
        "max_continuous_cached_steps": 2,
        "Fn_compute_blocks": 1,
        "Bn_compute_blocks": 0,
        "residual_diff_threshold": 0.12,
        "calibrator": "taylorseer",
        "taylorseer_order": 1,
    }
    told = " ".join(found.notices)
    assert ("extra_parallel_modules" in told) == (name == "parallel_config.yaml")
    assert "ulysses_size" not in told  # It has a meaning here.
    assert "attention_backend" not in told  # It has a section of its own here.
    assert ("attention_config" in found.sections) == (name == "parallel_config.yaml")


def test_the_attention_backend_of_a_parallelism_config_has_a_meaning() -> None:
    def read(text: str) -> tuple[Any, str]:
        found = load(text)
        given = found.sections.get("attention_config")
        return given and given.values, " ".join(found.notices)

    kwargs = "parallelism_config: {parallel_kwargs: {attention_backend: %s}}\n"
    assert read(kwargs % "native") == ({"backend": "sdpa"}, "")
    assert read(kwargs % "_native_cudnn") == ({"backend": "sdpa_cudnn"}, "")
    own, told = read(kwargs % "native" + "attention_config: {backend: flash}")
    assert own == {"backend": "flash"} and "attention_backend 'native'" in told
    own, told = read(kwargs % "_native_npu")
    assert own is None and "attention_backend '_native_npu'" in told
    own, told = read(kwargs % "sage" + "attention_config: {on_unsupported: error}")
    assert own == {"backend": "sage", "on_unsupported": "error"} and not told


@pytest.mark.parametrize(
    ("text", "backend", "told"),
    [
        ("attention_backend: flash", "flash", []),
        (
            "attention_backend: _flash_3\nparallelism_config: {attention_backend: _flash_3}",
            "flash3",
            [],
        ),
        ("attention_backend: _sdpa_cudnn", "sdpa_cudnn", []),
        ("parallelism_config: {attention_backend: sage, tp_size: 2}", "sage", ["tp_size 2"]),
        (
            "attention_backend: sage\nparallelism_config: {attention_backend: native}",
            "sage",
            ["parallelism_config: no effect here of attention_backend 'native'"],
        ),
        (
            "attention_backend: _native_npu\nparallelism_config: {attention_backend: native}",
            "sdpa",
            ["no effect here of attention_backend '_native_npu'"],
        ),
        (
            "attention_backend: native\nattention_config: {backend: sage}",
            "sage",
            ["no effect here of attention_backend 'native'", "backend in attention_config"],
        ),
        ("attention_backend: _native_npu", None, ["attention_backend '_native_npu'"]),
        ("attention_backend: [flash]", None, ["attention_backend ['flash']"]),
        ("attention_backend: flash\nquantize: [fp8]", "flash", ["quantize ['fp8']"]),
        (
            "attention_backend: flash\nquantize_config: {quant_type: int8, verbose: false}",
            "flash",
            ["quantize_config: verbose False has no effect here"],
        ),
    ],
)
def test_wherever_a_file_names_the_attention_backend(
    text: str, backend: str | None, told: list[str]
) -> None:
    found = load(text)
    given = found.sections.get("attention_config")
    assert (given and given.values) == (backend and {"backend": backend})
    said = " ".join(found.notices)
    assert all(part in said for part in told) and bool(said) == bool(told), said


@pytest.mark.parametrize(
    ("text", "values", "told"),
    [
        pytest.param(
            """
            cache_config:
              num_inference_steps: 40
              steps_computation_mask: medium
              enable_sperate_cfg: true
              enable_seperate_cfg: false
            """,
            {"scm_preset": "medium"},
            ["num_inference_steps 40", "enable_sperate_cfg True", "enable_seperate_cfg False"],
            id="its own spelling",
        ),
        pytest.param(
            """
            cache_config:
              enable_dmd: true
              enable_encoder_dmd: true
              calibrator_cache_type: residual
              dmd_history: 5
              dmd_rank: 0
              dmd_ridge: 1e-8
              dmd_svd_precision: high
            """,
            {"calibrator": "taylorseer"},
            [
                "no calibrator dmd here: taylorseer takes its place",
                "enable_encoder_dmd",
                "calibrator_cache_type",
                "dmd_history 5",
                "dmd_rank 0",
                "dmd_ridge 1e-08",
                "dmd_svd_precision 'high'",
            ],
            id="keys of dmd",
        ),
        pytest.param(
            "cache_config: {enable_foca: true, enable_encoder_foca: false}",
            {"calibrator": "taylorseer"},
            ["no calibrator foca here: taylorseer takes its place", "enable_encoder_foca False"],
            id="keys of foca",
        ),
        pytest.param(
            "cache_config: {enable_calibrator: true, enable_encoder_calibrator: true}",
            {"calibrator": "taylorseer"},
            ["enable_encoder_calibrator True"],
            id="a calibrator without a name",
        ),
        pytest.param(
            "cache_config: {enable_calibrator: false, calibrator_type: foca}",
            {"calibrator": "none"},
            [],
            id="a calibrator that is off",
        ),
        pytest.param(
            "calibrator_config: {taylorseer_order: 2}\ncache_config: {max_warmup_steps: 3}",
            {"calibrator": "taylorseer", "taylorseer_order": 2, "max_warmup_steps": 3},
            [],
            id="the calibrator in a section",
        ),
        pytest.param(
            "calibrator_config: {dmd_history: 5}",
            {"calibrator": "taylorseer"},
            ["no calibrator dmd here", "dmd_history 5"],
            id="only the calibrator",
        ),
        pytest.param(
            """
            cache_type: DBCache
            warmup_steps: 3
            max_continous_cached_steps: 2
            Fn_compute_blocks: 2
            residual_diff_threshold: 0.2
            enable_taylorseer: true
            enable_encoder_taylorseer: true
            taylorseer_cache_type: residual
            taylorseer_kwargs: {n_derivatives: 2}
            """,
            {
                "max_warmup_steps": 3,
                "max_continuous_cached_steps": 2,
                "Fn_compute_blocks": 2,
                "residual_diff_threshold": 0.2,
                "calibrator": "taylorseer",
                "taylorseer_order": 2,
            },
            ["enable_encoder_taylorseer True", "taylorseer_cache_type 'residual'"],
            id="no section, older names",
        ),
        pytest.param(
            """
            cache_type: DBPrune
            max_warmup_steps: 5
            enable_dynamic_prune_threshold: true
            max_dynamic_prune_threshold: 0.2
            dynamic_prune_threshold_relax_ratio: 1.5
            non_prune_block_ids: [3, 4]
            force_reduce_calibrator_vram: true
            """,
            {"max_warmup_steps": 5},
            ["cache_type 'DBPrune'", "DBCache", "non_prune_block_ids [3, 4]", "relax_ratio 1.5"],
            id="the other technique",
        ),
        pytest.param(
            """
            cache_config:
              max_accumulated_residual_diff_threshold: 0.5
              cfg_compute_first: false
              cfg_diff_compute_separate: true
              force_refresh_step_hint: 12
              force_refresh_step_policy: repeat
              enable_separate_cfg:
              steps_computation_mask:
            """,
            {},
            [
                "max_accumulated_residual_diff_threshold 0.5",
                "cfg_diff_compute_separate True",
                "force_refresh_step_hint 12",
                "force_refresh_step_policy 'repeat'",
            ],
            id="every other field",
        ),
    ],
)
def test_what_has_a_meaning_is_taken_and_the_rest_is_named(
    text: str, values: dict[str, Any], told: list[str]
) -> None:
    found = load(textwrap.dedent(text))
    assert {key: given.values for key, given in found.sections.items()} == {"cache_config": values}
    said = " ".join(found.notices)
    assert all(part in said for part in told) and bool(said) == bool(told), said
    assert "None" not in said


def test_every_field_of_the_librarys_configs_is_known() -> None:
    """What the library itself reads from a file, so that no version of it goes unnoticed."""
    from cache_dit.caching.cache_contexts import calibrators
    from cache_dit.caching.cache_contexts.cache_config import BasicCacheConfig, DBCacheConfig
    from cache_dit.caching.cache_contexts.prune_config import DBPruneConfig

    kinds = (BasicCacheConfig, DBCacheConfig, DBPruneConfig, calibrators.TaylorSeerCalibratorConfig)
    kinds += (calibrators.FoCaCalibratorConfig, calibrators.DMDCalibratorConfig)
    theirs = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert theirs <= SECTIONS["cache_config"].file_keys


def test_every_backend_that_a_file_may_name_exists_here() -> None:
    assert set(BACKENDS.values()) <= set(CHOICES)


def test_words_of_yaml_mean_what_people_wrote() -> None:
    """``off`` is a word here, ``1e-3`` a number and ``010`` ten, unlike in YAML 1.1."""
    text = b"a: off\nb: 1e-3\nc: 010\nd: 2024-13-45\ne: 1:30\nf: .5\ng: -.inf\nh: ~\ni: True\nj: no"
    assert parse(text, "x.yaml") == {
        "a": "off",
        "b": 0.001,
        "c": 10,
        "d": "2024-13-45",
        "e": "1:30",
        "f": 0.5,
        "g": float("-inf"),
        "h": None,
        "i": True,
        "j": "no",
    }


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"\xff\xfe\x00", ["UTF-8"]),
        (b"a: 1" + b" " * MAX_BYTES, ["bytes", str(MAX_BYTES)]),
        pytest.param(b"[" * 5000, ["nested too deeply"], id="deep"),
        pytest.param(b"[" * 40 + b"]" * 40, ["nested too deeply"], id="not so deep"),
        (b"a: &x [1]\nb: *x", ["anchors", "line 1"]),
        (b"a: !!python/object/apply:os.system [ls]", ["tags"]),
        (b"a: 1\na: 2", ["'a' is given twice"]),
        (b"1: 2", ["the key 1"]),
        (b"a: [1", ["line 1"]),
        (b"a: " + b"9" * 5000, ["digits"]),
        (b"--- 1\n--- 2", ["line 2"]),
        (b"\x00", ["cannot be read as YAML"]),
        (b"", ["is empty", "cache_config"]),
        (b"# nothing\n", ["is empty"]),
        (b"{}", ["is empty"]),
        (b"[cache_config]", ["holds ['cache_config']"]),
        (b"cache_config", ["holds 'cache_config'"]),
        (b"cache_config: [1, 2]", ["cache_config", "[1, 2]", "keys and values"]),
        (b"quantize_config: fp8", ["quantize_config", "'fp8'", "keys and values"]),
        (b"cash_config: {a: 1}", ["'cash_config'", "{'a': 1}", "cache_config, teacache_config"]),
        (
            b"Fn_compute_blocks: 1\nattention_backend: native",
            ["'Fn_compute_blocks'", "belongs into the section cache_config"],
        ),
        (b"Fn_compute_blocks: 1\nrdt: 0.1", ["cache_config: the key 'rdt'", "unknown"]),
        (
            b"max_warmup_steps: 2\nwarmup_steps: 3",
            ["warmup_steps is an older name of max_warmup_steps"],
        ),
        (b"cache_config: {warmup_steps: many}", ["max_warmup_steps is 'many'", "whole number"]),
        (b"cache_config: {taylorseer_kwargs: {n: 2}}", ["{'n': 2}", "n_derivatives"]),
        (b"cache_config: {taylorseer_kwargs: {n_derivatives: 9}}", ["taylorseer_order is 9"]),
        (
            b"cache_config: {taylorseer_order: 1, taylorseer_kwargs: {n_derivatives: 2}}",
            ["taylorseer_kwargs asks for taylorseer_order 2", "give one of them"],
        ),
        (b"cache_config: {calibrator_type: magic}", ["calibrator_type is 'magic'", "foca"]),
        (b"cache_config: {enable_calibrator: 1}", ["enable_calibrator is 1", "true or false"]),
        (
            b"cache_config: {enable_taylorseer: false, enable_calibrator: true}",
            ["enable_taylorseer is False and enable_calibrator True"],
        ),
        (b"calibrator_config: dmd", ["calibrator_config is 'dmd'", "keys and values"]),
        (
            b"calibrator_config: {taylorseer_order: 1}\ncache_config: {taylorseer_order: 2}",
            ["calibrator_config and cache_config both give 'taylorseer_order'"],
        ),
        (b"cache_config: {rel_l1_thresh: 1}", ["'rel_l1_thresh'", "belongs into teacache_config"]),
        (b"cache_config: {rdt: 0.1}", ["'rdt'", "0.1", "residual_diff_threshold"]),
        (b"cache_config: {residual_diff_threshold: high}", ["'high'", "a number"]),
        (b"cache_config: {residual_diff_threshold: .nan}", ["residual_diff_threshold is nan"]),
        (b"cache_config: {residual_diff_threshold: 1.5}", ["is 1.5", "below 1"]),
        (b"cache_config: {residual_diff_threshold: }", ["is None", "a number"]),
        (b"cache_config: {max_warmup_steps: true}", ["max_warmup_steps is True", "whole number"]),
        (b"cache_config: {max_warmup_steps: 2.5}", ["max_warmup_steps is 2.5", "whole number"]),
        (b"cache_config: {max_warmup_steps: 1e300}", ["max_warmup_steps is 1e+300", "between"]),
        (b"cache_config: {calibrator: magic}", ["calibrator is 'magic'", "trajectory"]),
        (b"cache_config: {calibrator: 3}", ["calibrator is 3", "a text"]),
        (b"cache_config: {enable_taylorseer: 1}", ["enable_taylorseer is 1", "true or false"]),
        (b"cache_config: {enable_taylorseer: true, calibrator: dmd}", ["'dmd'", "one forecast"]),
        (b"cache_config: {enable_taylorseer: true, enable_foca: true}", ["one forecast"]),
        (b"cache_config: {enable_foca: false, calibrator: foca}", ["one forecast"]),
        (b"cache_config: {corrector: 1}", ["corrector is 1", "true or false"]),
        (b"teacache_config: {corrector: half}", ["corrector is 'half'", "true or false"]),
        (b"cache_config: {start_percent: 0.6, end_percent: 0.2}", ["0.6", "0.2", "below end"]),
        (b"cache_config: {cache_type: NONE}", ["'NONE'", "DBCache"]),
        (b"cache_config: {steps_computation_mask: [0, 1]}", ["[0, 1]", "begins with 1"]),
        (b"cache_config: {steps_computation_mask: [1, 1]}", ["no 0"]),
        (b"cache_config: {steps_computation_mask: warp}", ["'warp'", "ultra"]),
        (
            b"cache_config: {steps_computation_policy: static, scm_policy: dynamic}",
            ["'static'", "'dynamic'"],
        ),
        (b"teacache_config: {coefficients: fluxx}", ["'fluxx'", "flux-kontext"]),
        (b"attention_config: {backend: magic}", ["backend is 'magic'", "sdpa"]),
        (b"performance_config: {mode: off}", ["mode is 'off'", "auto, speed, memory, manual"]),
        (b"performance_config: {target_speedup: 99}", ["target_speedup is 99", "between 1"]),
        (b"teacache_config: {custom_coefficients: [1, x]}", ["custom_coefficients is [1, 'x']"]),
    ],
)
def test_what_is_wrong_is_said(text: bytes, parts: list[str]) -> None:
    sentence = sentence_of(text)
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b'{"cache_config": {"max_warmup_steps": NaN}}', ["max_warmup_steps is nan"]),
        (b'{"a": 1, "a": 2}', ["'a' is given twice"]),
        (b"{", ["line 1"]),
        # Some versions of Python read this much, others stop by themselves.
        pytest.param(b"[" * 5000 + b"]" * 5000, ["nested too deeply"], id="deep"),
        pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40, ["nested too deeply"], id="not so deep"),
        (b"null", ["is empty"]),
    ],
)
def test_what_is_wrong_with_json_is_said(text: bytes, parts: list[str]) -> None:
    sentence = sentence_of(text, "mine.json")
    assert all(part in sentence for part in parts), sentence


def test_a_step_mask_becomes_bins() -> None:
    """1 1 0 0 0 1 0 1 is two computed, three free, one computed, one free, one computed."""
    found = load(b"cache_config: {steps_computation_mask: [1, 1, 0, 0, 0, 1, 0, 1]}")
    values = found.sections["cache_config"].values
    assert values == {"scm_compute_bins": "2,1,1", "scm_cache_bins": "3,1"}


def test_lists_of_numbers_are_read_like_their_texts() -> None:
    listed = load(b"cache_config: {scm_compute_bins: [6, 2, 2], scm_cache_bins: [3, 4]}")
    written = load(b"cache_config:\n  scm_compute_bins: 6,2,2\n  scm_cache_bins: 3,4")
    assert listed == written
    assert listed.sections["cache_config"].values["scm_compute_bins"] == "6,2,2"


def test_what_the_library_decides_and_this_pack_finds_out_is_named() -> None:
    found = load(b"cache_config: {num_inference_steps: 28, enable_separate_cfg: true}")
    told = " ".join(found.notices)
    assert "num_inference_steps 28" in told and "enable_separate_cfg True" in told
    assert found.sections["cache_config"].values == {}


GOOD: dict[str, Any] = {
    "cache_config": {
        "max_warmup_steps": 8,
        "warmup_interval": 2,
        "max_cached_steps": -1,
        "max_continuous_cached_steps": 2,
        "Fn_compute_blocks": 1,
        "residual_diff_threshold": 0.12,
        "enable_taylorseer": True,
        "taylorseer_order": 1,
        "scm_preset": "fast",
        "scm_policy": "static",
        "scm_compute_bins": "6,2,2,1",
        "scm_cache_bins": "3,4,4",
        "start_percent": 0.0,
        "end_percent": 0.9,
        "corrector": True,
    },
    "teacache_config": {
        "rel_l1_thresh": 0.4,
        "coefficients": "custom",
        "custom_coefficients": [498.65, -283.78, 55.86, -3.82, 0.264],
        "residual_device": "cpu",
    },
    "performance_config": {"mode": "speed", "approximation": "off", "target_speedup": 1.5},
    "attention_config": {"backend": "sdpa", "on_unsupported": "error", "last_block": -1},
    "parallelism_config": {
        "ulysses_size": "auto",
        "parallel_kwargs": {"attention_backend": "native", "modules": ["vae"]},
    },
}

ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3.7, 1e308, -1e308, float("nan"), float("inf"), 10**40),
    *("", " ", "none", "off", "yes", "1e-3", "ü" * 300, "a\nb", "\ud800", "\x07", "0x10", "1_000"),
    *([], {}, [[]], [1, "x"], {"a": {"b": {"c": 1}}}, [True], "6,2", "static", "medium", "raw"),
]
# Put into the text of a file: what only a text can hold.
ODD_TEXTS = [
    *(": ", "- ", "\t", "&a ", "*a", "!!python/object:os.system ", "{", "}", "[", "]", "'", '"'),
    *("<<: ", "2024-02-31", "1:30:61", "0o17", "%", "@", "`", "|\n ", "? ", "---\n", "...\n", "#"),
    *("\x00", "\u2028", "\ufeff", "!!timestamp 2024-99-99", "!!binary x", "!!set {a}", "," * 9),
]
ODD_BYTES = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00\x01", b"\xfe\xff"]


def mutated(rng: random.Random) -> tuple[bytes, str]:
    """A good file with one to three things wrong (or only different) with it."""
    data = json.loads(json.dumps(GOOD))
    for _ in range(rng.randint(0, 2)):
        part = rng.choice([data, *(v for v in data.values() if isinstance(v, dict))])
        key = rng.choice([*part, "unknown", "ü", "cache_config", "calibrator", "cache_type", "<<"])
        change = rng.randrange(3)
        if change == 0:
            part.pop(key, None)
        elif change == 1:
            part[key] = rng.choice(ODD_VALUES)
        else:
            part[rng.choice([*part, "x" * 500, "0", ""])] = part.get(key)
    name = rng.choice(["mine.yaml", "mine.yml", "mine.json"])
    text = render(data, name)
    content = text.encode("utf-8", "surrogatepass")
    for _ in range(rng.randint(0, 2)):
        at = rng.randrange(len(content) + 1)
        odd = rng.choice([*(t.encode() for t in ODD_TEXTS), *ODD_BYTES])
        cut = rng.choice([0, 0, 1, 5, 40])
        content = content[:at] + odd + content[at + cut :]
    return content, name


def test_a_thousand_mutations_give_settings_or_a_sentence() -> None:
    rng = random.Random(20261120)
    good, refused = 0, set()
    for _ in range(1000):
        content, name = mutated(rng)
        try:
            found = load(content, name)
        except AccelerationError as error:
            sentence = str(error)
            assert name in sentence and "\n" not in sentence and len(sentence) < 2000, content
            sentence.encode("utf-8")
            refused.add(sentence)
            continue
        good += 1
        for key, given in found.sections.items():
            settings = make(SECTIONS[key], given.values, given.origins)
            assert all(getattr(settings, name) == value for name, value in given.values.items())
    # Both outcomes are really met, and in variety.
    assert good > 100 and len(refused) > 200


@pytest.mark.parametrize("levels", [9, 30])
def test_a_bomb_of_anchors_costs_nothing(levels: int) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    assert "anchors" in sentence_of("\n".join(lines))


def test_reading_a_file_leaves_the_loaders_of_the_library_as_they_were(tmp_path: Path) -> None:
    import yaml

    load(b"cache_config: {enable_taylorseer: yes}")
    assert yaml.safe_load("a: off\nb: &x 1\nc: *x") == {"a": False, "b": 1, "c": 1}
