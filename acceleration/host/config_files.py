"""Settings files in the host's folders: listed, read and written there and nowhere else.

A file is named as in the list of Load Acceleration Config: ``input/NAME`` or ``user/NAME``. No
name leads out of the two folders, neither by ``..`` nor through a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from pathlib import Path
from typing import Any

from ..errors import AccelerationError, shown
from ..settings.file import ENDINGS, MAX_BYTES, parse, render
from ..settings.sections import Configuration, as_data, read_configuration, section_of
from .levers import levers_of

WRITTEN_BY = "Written by Save Acceleration Config of ComfyUI-DiT-Acceleration."

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .-]{0,99}")
# What Windows takes for a device, whatever its ending.
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def folders() -> dict[str, Path]:
    """The folders that files may lie in, by the first part of a file's name in the list."""
    import folder_paths

    return {
        "input": Path(folder_paths.get_input_directory()),
        "user": Path(folder_paths.get_user_directory()) / "dit_acceleration" / "settings",
    }


def choices() -> list[str]:
    """Every settings file that can be loaded, those of the user folder first."""
    found = []
    for place, folder in sorted(folders().items(), reverse=True):
        # A folder that cannot be read must not keep the server from describing its nodes.
        with contextlib.suppress(OSError):
            names = sorted(path.name for path in folder.iterdir())
            found += [f"{place}/{name}" for name in names if _path(place, name) is not None]
    return found


def _path(place: str, name: str) -> Path | None:
    """The file of a name, None where it is no settings file of that folder."""
    folder = folders().get(place)
    plain = name == Path(name).name and not set(name) & set("/\\:\0") and name[:1] not in ("", ".")
    if folder is None or not plain or not name.lower().endswith(ENDINGS):
        return None
    try:
        path = (folder / name).resolve()
        inside = path.is_relative_to(folder.resolve())
        return path if inside and path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def find(choice: Any) -> Path:
    """The file behind an entry of the list.

    Raises
    ------
    AccelerationError
        When there is none, or it lies outside the two folders.
    """
    place, _, name = choice.partition("/") if isinstance(choice, str) else ("", "", "")
    path = _path(place, name)
    if path is None:
        where = " or ".join(str(Path(*folder.parts[-2:])) for folder in folders().values())
        raise AccelerationError(
            f"There is no settings file {shown(choice)}: put a file that ends in "
            f"{', '.join(ENDINGS)} into ComfyUI's folder {where}, reload the page and choose it "
            "from the list; other folders are not read."
        )
    return path


def _content(choice: Any) -> bytes:
    path = find(choice)
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AccelerationError(
            f"The settings file {choice} cannot be read: {error.strerror}."
        ) from None


def configuration_text(choice: Any) -> str:
    """What stands in a file of the list."""
    return _content(choice).decode("utf-8", "replace")


def load_configuration(choice: Any) -> Configuration:
    """Read and check a file of the list; raises AccelerationError with one sentence."""
    content = _content(choice)
    return read_configuration(parse(content, choice), choice)


def fingerprint(choice: Any) -> str:
    """What changes when the file's content changes."""
    try:
        return hashlib.sha256(_content(choice)).hexdigest()
    except AccelerationError:
        return ""


def settings_of(model: Any) -> list[Any]:
    """The settings of every lever on a MODEL that a file can hold."""
    found = [getattr(lever, "settings", None) for lever in levers_of(model).values()]
    return [settings for settings in found if section_of(settings) is not None]


def full_name(name: str) -> str:
    """The name of a settings file to write, with its ending.

    Raises
    ------
    AccelerationError
        When the name is not safe.
    """
    if not name.lower().endswith(ENDINGS):
        name += ".yaml"
    if not _SAFE_NAME.fullmatch(name) or _DEVICES.fullmatch(name):
        raise AccelerationError(
            f"file_name is {shown(name)}: give a name of letters, digits, spaces, dots, - and _, "
            "at most 100 long and without a folder."
        )
    return name


def save_configuration(settings: list[Any], name: str, overwrite: bool) -> str:
    """Write settings to the user folder and return the file's name in the list.

    Where a file of that name holds other settings, and may not be replaced, the new one gets a
    number. A half-written file never takes the place of a whole one.

    Raises
    ------
    AccelerationError
        When there is nothing to write, the name is not safe, or the file cannot be written.
    """
    if not settings:
        raise AccelerationError(
            "This MODEL has no settings to save: connect the output of an acceleration node."
        )
    name = full_name(name)
    content = render(as_data(*settings), name, WRITTEN_BY).encode()
    try:
        path = _place(name, content, overwrite)
    except OSError as error:
        raise _not_written(name, error) from None
    choice, part = f"user/{path.name}", path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise _not_written(path.name, error) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return choice


def _place(name: str, content: bytes, overwrite: bool) -> Path:
    """The file of this name, or that of the name with the lowest number, that loses nothing."""
    plain = folders()["user"] / name
    numbered = (plain.with_stem(f"{plain.stem}_{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([plain], numbered) if _is_free(p, content, overwrite))


def _is_free(path: Path, content: bytes, overwrite: bool) -> bool:
    # A link may lead anywhere.
    if path.is_symlink():
        return False
    return overwrite or not path.exists() or path.read_bytes() == content


def _not_written(name: str, error: OSError) -> AccelerationError:
    return AccelerationError(
        f"user/{name} cannot be written: {error.strerror}; look at ComfyUI's user folder."
    )
