"""The parts of the panel that only compute, run by Node.js alone."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from comfyui_environment import ROOT

pytestmark = pytest.mark.browser

LIVE = ROOT / "web" / "live"
LANGUAGES = {path.stem: path for path in sorted((LIVE / "languages").glob("*.json"))}


def call(node: str, folder: Path, module: str, function: str, *arguments: Any) -> Any:
    """The result of one function of a module of ``web/live``."""
    call_ = f"console.log(JSON.stringify({function}(...{json.dumps(arguments)})));"
    return run(node, folder, f'import {{ {function} }} from "./{module}.js"; {call_}')


def run(node: str, folder: Path, script: str) -> Any:
    """What a script prints that may import the modules of ``web/live``."""
    for path in LIVE.glob("*.js"):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (folder / "main.mjs").write_text(script, encoding="utf-8")
    done = subprocess.run([node, str(folder / "main.mjs")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("steps", "of", "outcome", "left"),
    [
        pytest.param([0], 4, "running", 3, id="the first of four"),
        pytest.param([0, 1, 2], 28, "running", 25, id="one evaluation a step"),
        pytest.param([0, 0, 1, 1, 2], 4, "running", 3, id="heun in mid-step"),
        pytest.param([0, 0, 1, 1, 2, 2], 4, "running", 2, id="heun between steps"),
        pytest.param([3, 4], 10, "running", 5, id="a branch that began late"),
        pytest.param([0, 0, 1, 1, 2, 2, 3], 4, "finished", 0, id="heun's last step has one"),
        pytest.param([0, 1, 2], 10, "interrupted", 7, id="stopped"),
    ],
)
def test_cells_still_to_come(
    node: str, tmp_path: Path, steps: list[int], of: int, outcome: str, left: int
) -> None:
    row = {"name": "cond", "marks": "c" * len(steps), "steps": steps, "reasons": []}
    progress = {"steps": of, "outcome": outcome}
    assert call(node, tmp_path, "strip", "stillToCome", row, progress) == left


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        ("duration", 0.043, "0.043 s"),
        ("duration", 59.6, "60 s"),
        ("duration", 119.7, "2 min 0 s"),
        ("duration", 3725, "62 min 5 s"),
        ("bytes", 512 * 1024, "0.50 MiB"),
        ("bytes", 340 * 2**20, "340 MiB"),
        ("bytes", 3 * 2**30, "3.00 GiB"),
    ],
)
def test_quantities_in_words(
    node: str, tmp_path: Path, function: str, value: float, text: str
) -> None:
    assert call(node, tmp_path, "words", function, value) == text


def spoken(language: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(LANGUAGES[language].read_text(encoding="utf-8"))
    return found


def texts(language: str) -> dict[str, str]:
    found = spoken(language)
    return {**found["page"], **found["said"]}


def test_languages_have_the_same_texts_with_the_same_places() -> None:
    assert set(LANGUAGES) == {"zh", "ja"}
    assert list(texts("zh")) == list(texts("ja"))
    for language in LANGUAGES:
        for english, other in texts(language).items():
            assert sorted(re.findall(r"{\d}", other)) == sorted(re.findall(r"{\d}", english))


def test_every_text_is_still_said_by_somebody() -> None:
    """A sentence that has changed would silently stay English."""
    sources = [*(ROOT / "acceleration").rglob("*.py"), *LIVE.glob("*.js")]
    said = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    # Sentences that go over several lines of source.
    said = re.sub(r"\"\s*\n\s*f?\"", "", said)
    for english in texts("zh"):
        parts = [part.strip(" :") for part in re.split(r"{\d}|, ", english)]
        longest = max(parts, key=len).removeprefix("approximation: ").removeprefix("attention: ")
        longest = longest.removeprefix("weights: ").removesuffix(", ")
        assert longest.lower() in said.lower(), english


def test_what_the_page_says_itself_is_in_every_language() -> None:
    said = "\n".join(path.read_text(encoding="utf-8") for path in LIVE.glob("*.js"))
    words = set(re.findall(r'\bword\(\s*"([^"]+)"', said))
    assert "Compare presets" in words and "{0} at {1}" in words
    for language in LANGUAGES:
        assert words <= set(spoken(language)["page"])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["commands", "settings"])
def test_the_front_end_knows_our_commands_and_settings_in_other_languages(
    language: str, kind: str
) -> None:
    """By their ids, with the dots that it replaces."""
    path = ROOT / "locales" / language / f"{kind}.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    ids = {
        "commands": ["ditAcceleration.toggle", "ditAcceleration.comparePresets"],
        "settings": [f"DiTAcceleration.{name}" for name in ("Panels", "Preset", "History")],
    }[kind]
    assert list(known) == [name.replace(".", "_") for name in ids]
    said = "\n".join(path.read_text(encoding="utf-8") for path in LIVE.glob("*.js"))
    for name in ids:
        assert f'"{name}"' in said or f"${{SETTING}}.{name.partition('.')[2]}`" in said


@pytest.mark.parametrize("language", LANGUAGES)
def test_groups_of_our_settings_have_headings_in_other_languages(language: str) -> None:
    said = (LIVE / "controls.js").read_text(encoding="utf-8")
    groups = set(re.findall(r'category: \["DiT Acceleration", "(\w+)"', said))
    main = json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))
    assert groups == set(main["settingsCategories"]) == {"Nodes", "History"}


SAID = [
    "Cache-DiT: skipped 12 of 20 evaluations, about 1.2 s of 2.9 s saved.",
    "Performance Mode: skipped 7 of 12 evaluations, about 3.9 s of 8.1 s saved: 98% of the planned "
    "speed.",
    "Performance Mode: nothing skipped in 4 evaluations: 4 steps are too few to skip any: a model "
    "of so few steps is fast already, and Attention Backend or Quantize Model help here.",
    "Performance Mode: skipped 9 of 12 evaluations, about 3 s of 5 s saved; target asks for 10 "
    "times, and 12 steps of this model give 4.5 at most; pictures suffer above 3 times: a "
    "target_speedup of 2 to 3 keeps them nearer.",
    "Cache-DiT: nothing skipped in 12 evaluations: the core's EasyCache or LazyCache is on the "
    "same model; two caches would work on each other's errors, so this one skips nothing: remove "
    "one of them.",
    "Cache-DiT: the operator of this server has switched off what changes pictures "
    "(DIT_ACCEL_LOCK_LOSSY is set).",
    "Cache-DiT: scm_compute_bins and scm_cache_bins sum to 8 steps, but this run has 10: change "
    "the bins so that they sum to 10, or use scm_preset, which fits any number of steps.",
    "Performance Mode (auto, off): approximation: off, every evaluation is computed; weights: the "
    "model runs on the CPU, where nothing is moved.",
    "Progressive Resolution: of 20 evaluations 9 at 16 x 16; 1.46 times as fast as all at full "
    "size.",
    "full size from sigma 0.8 on (set to 0.8, earlier for min_full_steps 6)",
    "Split Across GPUs: 9 evaluations on 4 GPUs in 8.1 s (8 × 2 rows over 2, tokens over 2 each; "
    "1 × tokens over 4), up to 1.5 s of it in exchanges.",
    "Split Across GPUs: this picture or video has 2 frames with a time of their own, which 3 GPUs "
    "cannot share: use fewer GPUs, or split batch.",
    "1 of 2 rows, 3 text and 8 image tokens",
]
KEPT = (
    r"[A-Z_]{6,}|GPUs?|tokens?|split|batch|EasyCache|LazyCache|target(_speedup)?|min_full_steps|sigma|scm_\w+|CPU|"
    r"\d[\d.]* s|sum"
)


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_server_says_is_told_in_the_language_of_the_page(
    node: str, tmp_path: Path, language: str, said: str
) -> None:
    progress = {"technique": said.partition(": ")[0], "sentence": said}
    told = run(
        node,
        tmp_path,
        f'import {{ speak, sentence }} from "./words.js"; speak({json.dumps(spoken(language))});'
        f"console.log(JSON.stringify([sentence({json.dumps(progress)})]));",
    )[0]
    assert re.findall(r"[A-Za-z]{3,}", re.sub(KEPT, "", told)) == [], told


LINES = [
    "Cache-DiT: skipped 12 of 20 evaluations, about 1.2 s of 2.9 s saved.",
    "Model: flux (described); sampler euler, 20 steps, 20 evaluations, 2.90 s (finished).",
    "  cond: 8 computed, 12 skipped",
    "Residuals: 1.2 MiB at peak, kept on gpu.",
    "Settings: calibrator blend (node); the rest as by default.",
    "Note: 4 steps are too few to skip any: a model of so few steps is fast already, and Attention "
    "Backend or Quantize Model help here.",
    "No visible difference; 2 images: PSNR 45.10 dB, SSIM 0.9931.",
]
NAMES = (
    "Cache-DiT|flux|described|euler|finished|cond|MiB|gpu|calibrator|blend|node|images|PSNR|SSIM"
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_of_a_report_are_told_in_the_language_of_the_page(
    node: str, tmp_path: Path, language: str
) -> None:
    script = f'import {{ speak, line }} from "./words.js"; speak({json.dumps(spoken(language))});'
    script += f"console.log(JSON.stringify({json.dumps(LINES)}.map(line)));"
    for said, told in zip(LINES, run(node, tmp_path, script), strict=True):
        rest = re.sub(f"{NAMES}|{KEPT}", "", told)
        assert told != said and re.findall(r"[A-Za-z]{3,}", rest) == [], told
        assert told.endswith(".") == said.endswith(".") and told[:2].isspace() == said[:2].isspace()


def test_what_nobody_has_translated_stays_as_it_was(node: str, tmp_path: Path) -> None:
    said = "Cache-DiT: something new; skipped 1 of 9 evaluations."
    progress = {"technique": "Cache-DiT", "sentence": said}
    script = 'import {{ speak, sentence }} from "./words.js"; speak({0});'
    script += "console.log(JSON.stringify([sentence({1})]));"
    for language in LANGUAGES:
        filled = script.format(json.dumps(spoken(language)), json.dumps(progress))
        assert run(node, tmp_path, filled)[0].startswith("Something new; ")
    plain = script.format('{"page":{},"said":{}}', json.dumps(progress))
    assert run(node, tmp_path, plain)[0] == "Something new; skipped 1 of 9 evaluations."


RANK = {"rank": 1, "device": "NVIDIA H200", "computer": "", "sent": 3 * 2**30}
RANK |= {"exchanges": 9, "waited": 1.25}
ALONE = RANK | {"computer": "b", "sent": 0, "exchanges": 0}


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        (RANK, ["1 · H200", "3.00 GiB", "1.3 s"]),
        (ALONE, ["1 · H200 · b", "–", "–"]),
        (RANK | {"rank": 0, "waited": 0}, ["0 · H200", "3.00 GiB", "0.0 s"]),
    ],
)
def test_a_gpu_in_words(node: str, tmp_path: Path, rank: Any, words: list[str]) -> None:
    assert call(node, tmp_path, "ranks", "cells", rank) == words


ROW = {"preset": "fast", "computed": 9.4, "steps": 28, "speedup": 2.7}


@pytest.mark.parametrize(
    ("row", "measured", "words"),
    [
        (ROW, {}, ["fast", "9 of 28", "2.70×", "–"]),
        (ROW, {"fast": 4.0}, ["fast", "9 of 28", "2.70×", "4.0 s"]),
        (ROW, {"fast": 4.0, "off": 10.0}, ["fast", "9 of 28", "2.70×", "4.0 s (2.50×)"]),
        (ROW | {"computed": 28, "speedup": 1.0}, {}, ["fast", "all 28", "1×", "–"]),
        (ROW | {"preset": "off"}, {"off": 75.0}, ["off", "9 of 28", "2.70×", "75 s"]),
    ],
)
def test_a_preset_in_words(
    node: str, tmp_path: Path, row: dict[str, Any], measured: dict[str, float], words: list[str]
) -> None:
    assert call(node, tmp_path, "preset_rows", "cells", row, measured) == words


def test_measured_times_of_the_same_steps_are_kept(node: str, tmp_path: Path) -> None:
    earlier = {"steps": 28, "measured": {"off": 10.0, "fast": 4.0}}
    run = {"steps": 28, "approximation": "fast", "seconds": 3.5}
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    found = [
        call(node, folder, "preset_rows", "together", known, run)["measured"]
        for folder, known in zip(folders, (earlier, {**earlier, "steps": 20}, None), strict=True)
    ]
    assert found == [{"off": 10.0, "fast": 3.5}, {"fast": 3.5}, {"fast": 3.5}]


RUN = {"outcome": "finished", "skipped": 9, "seconds": 4.0, "seconds_saved": 3.6}


@pytest.mark.parametrize(
    ("last", "mode", "text"),
    [
        (None, 0, ""),
        ({**RUN, "outcome": "running"}, 0, ""),
        (RUN, 0, "1.9×"),
        (RUN, 4, "off"),
        (RUN, 2, "off"),
        ({**RUN, "skipped": 0, "seconds_saved": None}, 0, "off"),
        ({**RUN, "outcome": "replaced"}, 0, "replaced"),
        ({**RUN, "seconds_saved": None}, 0, ""),
    ],
)
def test_what_the_badge_says(
    node: str, tmp_path: Path, last: dict[str, Any] | None, mode: int, text: str
) -> None:
    given = f"{json.dumps(last)} ?? undefined, {mode}, () => false"
    script = 'import { badgeText } from "./badge_text.js";'
    script += f"console.log(JSON.stringify(badgeText({given})));"
    assert run(node, tmp_path, script) == text
