"""Settings that travel, in the nodes: files, environment, lock, second expert."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tm
import torch

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.attention.settings import AttentionSettings
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.host.config_files import choices, find, save_configuration
from dit_acceleration_pack.acceleration.performance import PerformanceSettings
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings, TeaCacheSettings
from dit_acceleration_pack.acceleration.settings.environment import LOCK

STEPS = 10
GOOD = "cache_config: {max_warmup_steps: 2, residual_diff_threshold: 0.9}\n"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The host's input and user folders, empty."""
    import folder_paths

    (tmp_path / "input").mkdir()
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path / "user"))
    return {
        "input": tmp_path / "input",
        "user": tmp_path / "user" / "dit_acceleration" / "settings",
        "outside": tmp_path,
    }


@pytest.fixture
def model() -> Any:
    return tm.make_model("flux")


def applied(model: Any, node: str = "apply_cache_dit.ApplyCacheDiT", **inputs: Any) -> Any:
    """The MODEL that a node gives."""
    import importlib

    module, _, name = node.partition(".")
    found = importlib.import_module(f"dit_acceleration_pack.nodes.{module}")
    return getattr(found, name).execute(model=model, **inputs).result[0]


def test_the_list_holds_settings_files_of_both_folders_only(places: dict[str, Path]) -> None:
    assert choices() == []
    places["user"].mkdir(parents=True)
    for name in ("b.yaml", "a.yml", "c.json", "picture.png", ".hidden.yaml"):
        (places["input"] / name).write_text(GOOD)
    (places["user"] / "mine.yaml").write_text(GOOD)
    (places["input"] / "folder.yaml").mkdir()
    (places["outside"] / "secret.yaml").write_text(GOOD)
    (places["input"] / "link.yaml").symlink_to(places["outside"] / "secret.yaml")
    (places["input"] / "dangling.yaml").symlink_to(places["outside"] / "nothing.yaml")
    (places["input"] / "loop.yaml").symlink_to(places["input"] / "loop.yaml")
    (places["input"] / "inside.yaml").symlink_to(places["input"] / "b.yaml")
    assert choices() == [
        "user/mine.yaml",
        *("input/a.yml", "input/b.yaml", "input/c.json", "input/inside.yaml"),
    ]


@pytest.mark.parametrize(
    "choice",
    [
        *("input/../secret.yaml", "../secret.yaml", "user/../../../secret.yaml", "secret.yaml"),
        *("{outside}/secret.yaml", "input/{outside}/secret.yaml", "input//etc/passwd"),
        *(
            "input/link.yaml",
            "input/folder/inner.yaml",
            "input\\..\\secret.yaml",
            "input/..\\x.yaml",
        ),
        *("output/secret.yaml", "input/missing.yaml", "input/", "", "input/..", "input/."),
        *("input/b.yaml\0", "input/b.yaml:stream.yaml", "C:\\secret.yaml", "input/picture.png"),
        *("~/secret.yaml", "file:///secret.yaml", "input/" + "x" * 5000 + ".yaml"),
        *(None, 3, ["input/b.yaml"]),
    ],
)
def test_no_name_leads_out_of_the_folders(places: dict[str, Path], choice: Any) -> None:
    (places["outside"] / "secret.yaml").write_text(GOOD)
    (places["input"] / "b.yaml").write_text(GOOD)
    (places["input"] / "picture.png").write_text(GOOD)
    if os.name != "nt":  # Names that would lead elsewhere on Windows are refused everywhere.
        for name in ("..\\x.yaml", "b.yaml:stream.yaml"):
            (places["input"] / name).write_text(GOOD)
    (places["input"] / "folder").mkdir()
    (places["input"] / "folder" / "inner.yaml").write_text(GOOD)
    (places["input"] / "link.yaml").symlink_to(places["outside"] / "secret.yaml")
    if isinstance(choice, str):
        choice = choice.format(outside=places["outside"])
    with pytest.raises(AccelerationError, match="There is no settings file") as error:
        find(choice)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert host.fingerprint(choice) == ""
    from dit_acceleration_pack.nodes.load_config import LoadAccelerationConfig

    told = LoadAccelerationConfig.validate_inputs(file=choice)
    assert told is True if choice is None else "There is no settings file" in str(told)
    assert find("input/b.yaml").name == "b.yaml"


def test_a_file_is_read_again_when_its_content_changes(places: dict[str, Path]) -> None:
    from dit_acceleration_pack.nodes.load_config import LoadAccelerationConfig as Node

    path = places["input"] / "mine.yaml"
    path.write_text(GOOD)
    before = Node.fingerprint_inputs(file="input/mine.yaml")
    assert before and before == Node.fingerprint_inputs(file="input/mine.yaml")
    path.write_text(GOOD.replace("0.9", "0.8"))
    assert Node.fingerprint_inputs(file="input/mine.yaml") != before
    path.write_text("cache_config: {rdt: 1}")
    told = Node.validate_inputs(file="input/mine.yaml")
    assert isinstance(told, str) and "file input/mine.yaml" in told and "'rdt'" in told


def test_the_report_says_where_every_value_comes_from(
    places: dict[str, Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places["input"] / "mine.yaml").write_text(GOOD + "parallelism_config: {tp_size: 2}\n")
    monkeypatch.setenv("DIT_ACCEL_CACHE_DIT_MC", "1")
    config = host.load_configuration("input/mine.yaml")
    accelerated = applied(model, config=config, max_warmup_steps=3)
    tm.sample(accelerated, "flux", steps=STEPS)
    report = tm.report_of(accelerated)
    assert report.settings["max_warmup_steps"] == 3 and report.origins["max_warmup_steps"] == "node"
    assert report.origins["residual_diff_threshold"] == "file input/mine.yaml, cache_config"
    text, data = report.text(), report.as_dict()
    assert "residual_diff_threshold 0.9 (file input/mine.yaml, cache_config)" in text
    assert "max_warmup_steps 3 (node)" in text
    assert "max_continuous_cached_steps 1 (environment variable DIT_ACCEL_CACHE_DIT_MC)" in text
    assert "no effect here of tp_size 2" in text
    assert data["origins"] == report.origins and data["origins"]["end_percent"] == "default"
    # It did what the sources said: three steps of warm-up, then every second one.
    assert [e.skipped for e in report.evaluations] == [False] * 3 + [True, False] * 3 + [True]


def test_defaults_alone_are_not_told(places: dict[str, Path], model: Any) -> None:
    accelerated = applied(model)
    tm.sample(accelerated, "flux", steps=4)
    assert "Settings:" not in tm.report_of(accelerated).text()
    assert set(tm.report_of(accelerated).origins.values()) == {"default"}


def test_a_file_gives_the_same_picture_as_the_widgets(places: dict[str, Path], model: Any) -> None:
    values = {"max_warmup_steps": 2, "residual_diff_threshold": 0.9, "calibrator": "taylorseer"}
    (places["input"] / "mine.yaml").write_text(GOOD.replace("}", ", enable_taylorseer: true}"))
    by_file = applied(model, config=host.load_configuration("input/mine.yaml"))
    by_node = applied(model, **values)
    assert torch.equal(
        tm.sample(by_file, "flux", steps=STEPS), tm.sample(by_node, "flux", steps=STEPS)
    )
    assert tm.report_of(by_file).skipped == tm.report_of(by_node).skipped > 2


def test_interval_and_limit_act_in_a_run(places: dict[str, Path], model: Any) -> None:
    """Warm-up 0 2 4; 1 3 are served, then 5 until four are used up."""
    (places["input"] / "mine.yaml").write_text(
        "cache_config: {max_warmup_steps: 6, warmup_interval: 2, max_cached_steps: 4, "
        "max_continuous_cached_steps: -1, residual_diff_threshold: 0.99}"
    )
    accelerated = applied(model, config=host.load_configuration("input/mine.yaml"))
    tm.sample(accelerated, "flux", steps=STEPS)
    report = tm.report_of(accelerated)
    assert [e.step for e in report.evaluations if e.skipped] == [1, 3, 5, 6]
    reasons = [e.reason for e in report.evaluations]
    assert reasons[2] == "warm-up" and set(reasons[7:]) == {"max_cached_steps used up"}


ATTENTION = "attention_backend.AttentionBackend"
TEA = "apply_tea_cache.ApplyTeaCache"


@pytest.mark.parametrize(
    ("node", "inputs", "kind"),
    [
        (
            "apply_cache_dit.ApplyCacheDiT",
            {"max_warmup_steps": 2, "calibrator": "taylorseer", "scm_compute_bins": "3, 2"}
            | {"scm_cache_bins": "5", "residual_diff_threshold": 0.31, "end_percent": 0.95},
            CacheDiTSettings,
        ),
        (
            TEA,
            {"rel_l1_thresh": 0.37, "coefficients": "raw", "calibrator": "blend"},
            TeaCacheSettings,
        ),
        (ATTENTION, {"backend": "sdpa_math", "last_block": 1}, AttentionSettings),
        (
            "performance_mode.PerformanceMode",
            {"mode": "manual", "approximation": "off", "target_speedup": 1.7},
            PerformanceSettings,
        ),
    ],
)
@pytest.mark.parametrize("name", ["mine", "mine.json"])
def test_node_to_file_to_node(
    places: dict[str, Path], model: Any, node: str, inputs: dict[str, Any], kind: type, name: str
) -> None:
    from dit_acceleration_pack.nodes.save_config import SaveAccelerationConfig as Save

    first = applied(model, node, **inputs)
    file = Save.execute(model=first, file_name=name).result[0]
    assert file in choices() and file.startswith("user/mine.")
    second = applied(model, node, config=host.load_configuration(file))
    (before,), (after,) = host.settings_of(first), host.settings_of(second)
    assert before == after == kind(**inputs)


def test_every_lever_of_a_model_is_saved_and_the_attention_report_tells_origins(
    places: dict[str, Path], model: Any
) -> None:
    (places["input"] / "mine.yaml").write_text(
        GOOD + "parallelism_config: {parallel_kwargs: {attention_backend: _native_math}}"
    )
    config = host.load_configuration("input/mine.yaml")
    both = applied(applied(model, config=config), ATTENTION, config=config, last_block=1)
    tm.sample(both, "flux", steps=3)
    report = host.levers_of(both)["dit_acceleration.attention"].last_report
    assert report is not None
    assert "backend sdpa_math (file input/mine.yaml, attention_config)" in report.text()
    assert "last_block 1 (node)" in report.text()
    assert report.as_dict()["origins"]["start_percent"] == "default"
    file = save_configuration(host.settings_of(both), "both", False)
    sections = host.load_configuration(file).sections
    assert list(sections) == ["cache_config", "attention_config"]
    assert sections["attention_config"].values["backend"] == "sdpa_math"


def test_saving_never_loses_another_file(places: dict[str, Path], model: Any) -> None:
    one, two = CacheDiTSettings(), CacheDiTSettings(max_warmup_steps=9)
    assert save_configuration([one], "mine", False) == "user/mine.yaml"
    assert save_configuration([one], "mine.yaml", False) == "user/mine.yaml"
    # Other settings get a number, and the same ones again no further file.
    assert save_configuration([two], "mine.yaml", False) == "user/mine_2.yaml"
    assert save_configuration([two], "mine.yaml", False) == "user/mine_2.yaml"
    three = CacheDiTSettings(max_warmup_steps=8)
    assert save_configuration([three], "mine.yaml", False) == "user/mine_3.yaml"
    assert "max_warmup_steps: 4" in (places["user"] / "mine.yaml").read_text()
    save_configuration([two], "mine.yaml", True)
    assert "max_warmup_steps: 9" in (places["user"] / "mine.yaml").read_text()
    names = ["mine.yaml", "mine_2.yaml", "mine_3.yaml"]
    assert sorted(p.name for p in places["user"].iterdir()) == names
    target = places["outside"] / "target.yaml"
    (places["user"] / "link.yaml").symlink_to(target)
    assert save_configuration([one], "link.yaml", True) == "user/link_2.yaml"
    assert not target.exists()
    with pytest.raises(AccelerationError, match="no settings to save"):
        save_configuration(host.settings_of(model), "mine.yaml", True)


def saved(model: Any, **inputs: Any) -> tuple[str, str]:
    """What Save Acceleration Config gives and what it shows."""
    from dit_acceleration_pack.nodes.save_config import SaveAccelerationConfig

    output = SaveAccelerationConfig.execute(model, **inputs)
    return output.result[0], output.ui["text"][0]


def test_saving_never_ends_a_prompt(places: dict[str, Path], model: Any) -> None:
    """The host ends the whole prompt at an error, before or after its pictures."""
    from dit_acceleration_pack.nodes.save_config import SaveAccelerationConfig as Save

    assert saved(applied(model)) == ("user/acceleration.yaml", "Saved as user/acceleration.yaml.")
    file, text = saved(applied(model, max_warmup_steps=7))
    assert file == "user/acceleration_2.yaml"
    assert "Saved as user/acceleration_2.yaml. acceleration.yaml holds other settings" in text
    assert saved(model) == ("", "Nothing was saved: This MODEL has no settings to save: connect "
                            "the output of an acceleration node.")  # fmt: skip
    # A name that can be checked is refused before anything runs.
    assert "file_name is" in str(Save.validate_inputs(file_name="../x"))
    assert Save.validate_inputs(file_name="mine") is True
    assert Save.validate_inputs() is True


def test_a_folder_that_cannot_be_used_is_a_sentence(places: dict[str, Path]) -> None:
    places["user"].parent.mkdir(parents=True)
    places["user"].write_text("in the way")
    with pytest.raises(AccelerationError, match="cannot be written"):
        save_configuration([CacheDiTSettings()], "mine", False)
    assert choices() == []


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "", ".hidden", "x" * 200, "nul", "con.yaml", "a:b", "a\nb", "ü", "/x"],
)
def test_unsafe_names_are_refused(places: dict[str, Path], name: str) -> None:
    with pytest.raises(AccelerationError, match="file_name is"):
        save_configuration([CacheDiTSettings()], name, True)
    assert not places["user"].exists()


@pytest.mark.parametrize(
    ("node", "aggressive", "bad"),
    [
        (
            "apply_cache_dit.ApplyCacheDiT",
            {"residual_diff_threshold": 0.99},
            {"Fn_compute_blocks": 99},
        ),
        (TEA, {"rel_l1_thresh": 9.0}, {"coefficients": "ltxv"}),
    ],
)
def test_a_locked_server_samples_plainly_and_says_so(
    places: dict[str, Path],
    model: Any,
    node: str,
    aggressive: dict[str, Any],
    bad: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dit_acceleration_pack.nodes.report import AccelerationReport
    from dit_acceleration_pack.nodes.save_config import SaveAccelerationConfig as Save

    plain = tm.sample(model, "flux", steps=STEPS)
    open_model = applied(model, node, **aggressive)
    monkeypatch.setenv(LOCK, "1")
    locked = applied(open_model, node, **aggressive)
    # Settings that would be refused on this model are no error either.
    for accelerated in (locked, applied(model, node, **bad)):
        assert torch.equal(tm.sample(accelerated, "flux", steps=STEPS), plain)
        text, data = AccelerationReport.execute(model=accelerated, after=0).result[1:3]
        assert "operator of this server" in text and LOCK in text and "\n" not in text
        assert '"outcome": "switched off"' in data
    assert Save.execute(model=locked, file_name="locked").result[0] == "user/locked.yaml"
    monkeypatch.delenv(LOCK)
    again = applied(locked, node, **aggressive)
    assert not torch.equal(tm.sample(again, "flux", steps=STEPS), plain)


PERFORMANCE = "performance_mode.PerformanceMode"
ATTENTION = "attention_backend.AttentionBackend"
LOSSY = [
    ("apply_cache_dit.ApplyCacheDiT", {"residual_diff_threshold": 0.99, "corrector": True}, ""),
    ("apply_cache_dit.ApplyCacheDiT", {}, "cache_config: {residual_diff_threshold: 0.99}"),
    (TEA, {"rel_l1_thresh": 9.0}, ""),
    *((PERFORMANCE, {"approximation": kind}, "") for kind in ("quality", "ultra", "target")),
    (PERFORMANCE, {}, "performance_config: {approximation: ultra}"),
    # The package is not installed: what is switched off needs none.
    *((ATTENTION, {"backend": kind}, "") for kind in ("sage", "sage3")),
    (ATTENTION, {"allow_low_precision": True}, ""),
    (ATTENTION, {}, "attention_config: {allow_low_precision: true}"),
    (ATTENTION, {}, "attention_backend: sage"),
]


@pytest.mark.parametrize(("node", "values", "file"), LOSSY)
def test_nothing_that_changes_pictures_passes_the_lock(
    places: dict[str, Path],
    model: Any,
    node: str,
    values: dict[str, Any],
    file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (places["input"] / "mine.yaml").write_text(file)
    config = host.load_configuration("input/mine.yaml") if file else None
    plain = tm.sample(model, "flux", steps=STEPS)
    monkeypatch.setenv(LOCK, "1")
    locked = applied(model, node, config=config, **values)
    assert torch.equal(tm.sample(locked, "flux", steps=STEPS), plain)
    told = [lever.last_report.text() for lever in host.levers_of(locked).values()]
    assert any("the operator of this server has switched off" in text for text in told), told
    monkeypatch.delenv(LOCK)
    monkeypatch.setenv("DIT_ACCEL_LOSSY_LOCK", "1")
    with pytest.raises(AccelerationError, match=f"DIT_ACCEL_LOSSY_LOCK .* write {LOCK}"):
        applied(model, node, config=config, **values)


def test_a_mistyped_lock_locks_what_is_attached_without_a_node(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT

    plain = tm.sample(model, "flux", steps=STEPS)
    monkeypatch.setenv("DIT_ACCEL_LOCK", "1")
    technique = CacheDiT(CacheDiTSettings(residual_diff_threshold=0.99))
    for locked in (
        host.attach(model, technique),
        host.attach_performance(model, PerformanceSettings(approximation="ultra")),
        host.attach_attention(model, AttentionSettings(backend="sage")),
    ):
        assert torch.equal(tm.sample(locked, "flux", steps=STEPS), plain)
        text = "".join(lever.last_report.text() for lever in host.levers_of(locked).values())
        assert f"(DIT_ACCEL_LOCK is set, which is no variable of this pack; {LOCK} is)" in text


def test_the_second_expert_of_wan_uses_its_own_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIT_ACCEL_CACHE_DIT_WARMUP", "5")
    monkeypatch.setenv("DIT_ACCEL_CACHE_DIT_SECONDARY_WARMUP", "1")
    settings = {"residual_diff_threshold": 0.98, "max_continuous_cached_steps": 1}
    for name, first, second in (("wan", 5, 1), ("flux", 5, 5)):
        model = applied(tm.make_model(name), **settings)
        for start, warm_up in ((0, first), (4, second)):
            tm.sample(model, name, steps=STEPS, start_step=start)
            report = tm.report_of(model)
            assert report.settings["max_warmup_steps"] == warm_up, (name, start)
            told = "second expert" in report.text()
            assert told == (warm_up == 1), (name, start)
            assert [e.skipped for e in report.evaluations].index(True) == warm_up
