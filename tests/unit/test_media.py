"""Reading what nodes saved: pictures, moving pictures and videos, and nothing outside the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.host import media


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import folder_paths

    output = tmp_path / "output"
    output.mkdir()
    monkeypatch.setattr(folder_paths, "get_directory_by_type", {"output": str(output)}.get)
    return output


def frames(count: int) -> list[np.ndarray]:
    return [
        np.full((32, 48, 3), round(250 * n / max(count - 1, 1)), np.uint8) for n in range(count)
    ]


def write_video(path: Path, count: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for values in frames(count):
            for packet in stream.encode(av.VideoFrame.from_ndarray(values, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.parametrize("count", [3, 80])
@pytest.mark.parametrize("name", ["a.webp", "a.mp4"])
def test_frames_are_read_and_of_many_some_spread_evenly(
    folder: Path, name: str, count: int
) -> None:
    path = folder / name
    if name.endswith("mp4"):
        write_video(path, count)
    else:
        first, *rest = (Image.fromarray(values) for values in frames(count))
        first.save(path, save_all=True, append_images=rest, lossless=True)
    found = media.frames_of({"filename": name, "subfolder": "", "type": "output"})
    assert found.shape == (min(count, media.MOST_FRAMES), 32, 48, 3)
    means = found.float().mean(dim=(1, 2, 3))
    assert (means.diff() > 0).all()
    assert means[0] < 6 and means[-1] > 240, "the first and the last are among them"


@pytest.mark.parametrize(
    "item",
    [
        {"filename": "../secret.png"},
        {"filename": "secret.png", "subfolder": ".."},
        {"filename": "link.png"},
        {"filename": "gone.png"},
        {"filename": "secret.png", "type": "elsewhere"},
        {"filename": "/etc/hostname"},
    ],
)
def test_nothing_outside_the_folder_is_read(folder: Path, item: dict[str, Any]) -> None:
    Image.new("RGB", (4, 4)).save(folder.parent / "secret.png")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(AccelerationError, match="cannot be read"):
        media.file_of(item)


def test_saved_files_have_names_that_repeat() -> None:
    outputs = {
        "9": {"images": [{"filename": "a_1.png"}, {"filename": "a_2.png"}], "animated": (True,)},
        "10": {"gifs": [{"filename": "b.mp4"}], "text": ["no file"]},
        "11": {"images": [{"filename": "not behind.png"}]},
        "12": {"audio": [{"filename": "sound.flac"}]},
    }
    found = dict(media.saved(outputs, ["9", "10", "12", "13"]))
    assert list(found) == ["9/images/0", "9/images/1", "10/gifs/0"]
