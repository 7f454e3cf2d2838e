"""Where a value comes from: node > file > environment > default."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pytest

from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration.attention.settings import AttentionSettings
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.performance import PerformanceSettings
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings, TeaCacheSettings
from dit_acceleration_pack.acceleration.settings.environment import (
    LOCK,
    SCRIPTS,
    from_environment,
    lossy_locked,
    settings_for,
    unknown,
    variables,
)
from dit_acceleration_pack.acceleration.settings.file import parse, render
from dit_acceleration_pack.acceleration.settings.sections import (
    SECTIONS,
    Configuration,
    as_data,
    read_configuration,
)

BEGIN = "DIT_ACCEL_CACHE_DIT_"


def file(**values: Any) -> Configuration:
    return read_configuration({"cache_config": values}, "mine.yaml")


def env(**values: str) -> dict[str, str]:
    return {BEGIN + name: value for name, value in values.items()}


def test_the_nearest_source_wins_field_by_field() -> None:
    found = settings_for(
        "cache_config",
        {"max_warmup_steps": 2, "residual_diff_threshold": 0.24, "calibrator": "none"},
        file(max_warmup_steps=6, residual_diff_threshold=0.12),
        env(WARMUP="9", RDT="0.3", MC="5", TAYLORSEER="true"),
    )
    assert found.settings == CacheDiTSettings(
        max_warmup_steps=2,
        residual_diff_threshold=0.12,
        max_continuous_cached_steps=5,
        calibrator="taylorseer",
    )
    origins = {name: origin for name, origin in found.origins.items() if origin != "default"}
    assert origins == {
        "max_warmup_steps": "node",
        "residual_diff_threshold": "file mine.yaml, cache_config",
        "max_continuous_cached_steps": f"environment variable {BEGIN}MC",
        "calibrator": f"environment variable {BEGIN}TAYLORSEER",
    }
    assert set(found.origins) == set(asdict(found.settings)) and found.second is None


def test_nothing_set_is_the_default() -> None:
    for key, section in SECTIONS.items():
        found = settings_for(key, section.defaults(), None, {})
        assert found.settings == section.settings()
        assert set(found.origins.values()) == {"default"}


def test_a_file_may_say_the_default_against_the_environment() -> None:
    found = settings_for("cache_config", {}, file(max_warmup_steps=4), env(WARMUP="9"))
    assert found.settings.max_warmup_steps == 4
    assert found.origins["max_warmup_steps"].startswith("file")


def test_a_switch_that_is_off_turns_the_environments_calibrator_off() -> None:
    found = settings_for("cache_config", {}, file(enable_taylorseer=False), env(TAYLORSEER="1"))
    assert found.settings.calibrator == "none"


def test_values_that_do_not_go_together_are_blamed_on_their_sources() -> None:
    with pytest.raises(AccelerationError) as error:
        settings_for("cache_config", {"end_percent": 0.3}, file(start_percent=0.6), {})
    sentence = str(error.value)
    assert sentence.startswith("file mine.yaml, cache_config: start_percent is 0.6 and")


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"RDT": "high"}, [BEGIN + "RDT", "'high'", "a number"]),
        ({"RDT": "1.5"}, [BEGIN + "RDT", "1.5", "below 1"]),
        ({"RDT": "nan"}, [BEGIN + "RDT", "nan"]),
        ({"WARMUP": "2.5"}, [BEGIN + "WARMUP", "'2.5'", "whole number"]),
        ({"TAYLORSEER": "maybe"}, [BEGIN + "TAYLORSEER", "'maybe'", "true or false"]),
        ({"TAYLORSEER": "1", "CALIBRATOR": "foca"}, ["TAYLORSEER", "CALIBRATOR", "one forecast"]),
        ({"CORRECTOR": "half"}, [BEGIN + "CORRECTOR", "'half'", "true or false"]),
        ({"SCM_PRESET": "warp"}, [BEGIN + "SCM_PRESET", "'warp'", "ultra"]),
        ({"SCM_COMPUTE_BINS": "8,3"}, [BEGIN + "SCM_COMPUTE_BINS", "without scm_cache_bins"]),
        ({"RTD": "0.1"}, [BEGIN + "RTD", "'0.1'", "RDT"]),
        ({"SECONDARY_RTD": "0.1"}, [BEGIN + "SECONDARY_RTD", "RDT"]),
    ],
)
def test_a_bad_variable_is_named(values: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(AccelerationError) as error:
        settings_for("cache_config", {}, None, env(**values))
    sentence = str(error.value)
    assert all(part in sentence for part in parts) and "\n" not in sentence, sentence


def test_every_field_of_every_section_has_a_variable_that_sets_it() -> None:
    numbers = {int: "2", float: "0.5", bool: "true"}
    texts = {
        "calibrator": "blend",
        "scm_preset": "slow",
        "scm_policy": "static",
        "residual_device": "cpu",
        "coefficients": "raw",
        "custom_coefficients": "1,2",
        "backend": "sdpa_math",
        "on_unsupported": "error",
        "attention_kind": "self",
        "mode": "speed",
        "spectrum": "custom",
        "approximation": "fast",
        "target_speedup": "3",
        "split": "cfg",
        "exchange": "keys",
        "ray_address": "192.168.0.5:6379",
        "after_run": "release",
        "precision": "int8",
        "keep": "img_mlp",
        "fold_loras": "false",
        "measure": "off",
    }
    pairs = {"scm_compute_bins": "3,1", "scm_cache_bins": "2"}
    for key, section in SECTIONS.items():
        fields = {k: v for v, k in variables(section).items() if k not in section.switches}
        assert set(fields) == set(section.defaults())
        for name, variable in fields.items():
            if name in pairs:
                values = {fields[pair]: text for pair, text in pairs.items()}
            else:
                values = {variable: texts.get(name) or numbers[section.kinds[name]]}
                if key == "progressive_config" and name == "mode":
                    values = {variable: "fast"}
            given = from_environment(key, values)
            assert given.values[name] != section.defaults()[name], variable
            assert variable in given.origins[name]


def test_the_names_are_those_of_sglang() -> None:
    """SGLang-Diffusion's SGLANG_CACHE_DIT_ names, with our prefix."""
    theirs = {
        *("FN", "BN", "WARMUP", "RDT", "MC", "TAYLORSEER", "TS_ORDER"),
        *("SCM_PRESET", "SCM_COMPUTE_BINS", "SCM_CACHE_BINS", "SCM_POLICY"),
    }
    assert {BEGIN + name for name in theirs} <= set(variables(SECTIONS["cache_config"]))


def test_secondary_values_stand_over_the_first_ones() -> None:
    found = settings_for(
        "cache_config",
        {},
        file(max_continuous_cached_steps=2),
        env(WARMUP="8", RDT="0.3", SECONDARY_WARMUP="2", SECONDARY_MC="9"),
    )
    assert found.settings.max_warmup_steps == 8 and found.second is not None
    second = found.second.settings
    assert (second.max_warmup_steps, second.residual_diff_threshold) == (2, 0.3)
    assert second.max_continuous_cached_steps == 2  # The file wins here as well.
    assert found.second.origins["max_warmup_steps"].endswith("SECONDARY_WARMUP")


def test_something_else_in_the_config_socket_is_refused() -> None:
    with pytest.raises(AccelerationError, match="config is a dict: connect Load"):
        settings_for("cache_config", {}, {"cache_config": {}}, {})


OPEN = ("", "0", "false", " Off ", "no")


@pytest.mark.parametrize("value", [*OPEN, "1", "true", "yes", "on", "ture"])
def test_the_lock(value: str) -> None:
    why = lossy_locked({LOCK: value})
    assert (why is None) == (value in OPEN)
    assert why is None or ("operator" in why and LOCK in why)
    assert lossy_locked({}) is None


LIKE_THE_LOCK = [
    *("DIT_ACCEL_LOSSY_LOCK", "DIT_ACCEL_LOCK", "DIT_ACCEL_LOSSY", "DIT_ACCEL_LOCK_LOSY"),
    *("DIT_ACCEL_LOK_LOSSY", "DIT_ACCEL_LOCKED", "DIT_ACCEL_LOCKLOSSY", "DIT_ACCEL_NO_LOSSY"),
    *("dit_accel_lock_lossy", "DIT_ACCELL_LOCK_LOSSY", "DITACCEL_LOCK_LOSSY", "ACCEL_LOCK_LOSSY"),
    *("DIT_ACCEL_CACHE_DIT_LOCK", "DIT_ACCEL_PERFORMANCE_LOCK_LOSSY"),
]


@pytest.mark.parametrize("name", LIKE_THE_LOCK)
def test_a_mistyped_lock_is_refused_by_every_node_and_never_opens_the_lock(name: str) -> None:
    why = lossy_locked({name: "1"})
    assert why is not None and name in why and f"{LOCK} is)" in why
    assert lossy_locked({name: "0"}) is None and LOCK in str(lossy_locked({name: "1", LOCK: "1"}))
    for key in SECTIONS:
        # Refused whatever it holds: an operator has to know that it does nothing.
        for value in ("1", "0", ""):
            with pytest.raises(AccelerationError) as error:
                settings_for(key, {}, None, {"PATH": "/bin", name: value})
            sentence = str(error.value)
            assert f"environment variable {name} (with the value {value!r})" in sentence
            assert f"write {LOCK} to switch off" in sentence and "\n" not in sentence


@pytest.mark.parametrize("name", ["DIT_ACCEL_CACHEDIT_FN", "DIT_ACCEL_", "DIT_ACCEL_MODE"])
def test_a_variable_of_no_section_is_refused_by_every_node(name: str) -> None:
    assert lossy_locked({name: "1"}) is None
    for key in SECTIONS:
        with pytest.raises(AccelerationError) as error:
            settings_for(key, {}, None, {name: "1"})
        sentence = str(error.value)
        assert f"environment variable {name} (" in sentence and "switch off" not in sentence
        assert f"{LOCK} and what begins with {BEGIN}, DIT_ACCEL_TEACACHE_" in sentence


def test_the_variables_of_scripts_and_of_others_are_left_alone() -> None:
    """Every name that the repository uses outside of the engine, as they stand there."""
    used: set[str] = set()
    for folder in ("tests", "tests/browser", "workflows", "workflows/demo", "benchmarks"):
        for path in (ROOT / folder).glob("*.py"):
            used |= set(re.findall(r"\b(DIT_ACCEL_[A-Z_]*[A-Z])\b", path.read_text("utf-8")))
    assert {"DIT_ACCEL_CACHE", "DIT_ACCEL_DEVICE", "DIT_ACCEL_BENCHMARK_INSIDE"} <= used
    others = {"FILELOCK_PATH", "LOCK", "BLOCK_SIZE", "SGLANG_CACHE_DIT_FN", "ACCELERATE_MODE"}
    environ = dict.fromkeys(used | SCRIPTS | others, "1") | {LOCK: "0"}
    assert unknown(environ) == [] and lossy_locked(environ) is None
    every = {name for key, section in SECTIONS.items() for name in variables(section)}
    assert unknown(dict.fromkeys(every, "1")) == []


ROUND_TRIPS = [
    CacheDiTSettings(),
    CacheDiTSettings(
        Fn_compute_blocks=3,
        Bn_compute_blocks=2,
        max_warmup_steps=7,
        residual_diff_threshold=0.1 + 0.2,
        max_continuous_cached_steps=-1,
        calibrator="blend",
        taylorseer_order=2,
        scm_policy="static",
        scm_compute_bins="6, 2,2,1",
        scm_cache_bins="3,4,4",
        start_percent=1e-5,
        end_percent=0.875,
        residual_device="cpu",
        warmup_interval=3,
        max_cached_steps=12,
        corrector=True,
    ),
    CacheDiTSettings(calibrator="taylorseer", scm_preset="fast"),
    TeaCacheSettings(
        rel_l1_thresh=1 / 3,
        coefficients="custom",
        custom_coefficients="1e-7, -2.5",
        max_continuous_cached_steps=0,
        calibrator="trajectory",
        end_percent=0.9,
        corrector=True,
    ),
    TeaCacheSettings(coefficients="flux-kontext"),
    AttentionSettings(backend="sage", start_percent=0.1, last_block=7, allow_low_precision=True),
    PerformanceSettings(mode="memory", approximation="off", target_speedup=1.7),
]


@pytest.mark.parametrize("name", ["mine.yaml", "mine.json"])
@pytest.mark.parametrize("settings", ROUND_TRIPS, ids=str)
def test_settings_written_to_a_file_are_read_back_equal(settings: Any, name: str) -> None:
    text = render(as_data(settings), name, "a comment")
    read = read_configuration(parse(text.encode(), name), name)
    (key,) = read.sections
    # Whatever the environment says: the file has every field.
    crowd = env(WARMUP="9", MC="7", RDT="0.5", CALIBRATOR="blend")
    found = settings_for(key, SECTIONS[key].defaults(), read, crowd)
    assert found.settings == settings and not read.notices
    assert set(found.origins.values()) == {f"file {name}, {key}"}


def test_what_is_saved_loads_in_the_library_itself(tmp_path: Any) -> None:
    from cache_dit.caching.load_configs import load_cache_config

    settings = CacheDiTSettings(
        max_warmup_steps=7, calibrator="taylorseer", warmup_interval=2, corrector=True
    )
    path = tmp_path / "mine.yaml"
    path.write_text(render(as_data(settings), path.name))
    config, calibrator = load_cache_config(str(path))
    assert (config.max_warmup_steps, config.warmup_interval) == (7, 2)
    assert config.residual_diff_threshold == settings.residual_diff_threshold
    assert calibrator is not None and calibrator.taylorseer_order == 1
