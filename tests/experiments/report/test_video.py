"""Films decode to what was put in, in sizes every player accepts, and never half-written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from experiments.report.video import (
    FAILED,
    SUCCEEDED,
    Rollout,
    open_loop_video,
    rollout_video,
    write_video,
)
from worldaction.errors import UserError
from worldaction.io.pictures import GAP, contact_sheet, tile


def _decode(path: Path) -> tuple[np.ndarray, float]:
    """[T, H, W, 3] and frames per second."""
    reader = imageio_ffmpeg.read_frames(str(path))
    info = next(reader)
    width, height = info["size"]
    return np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader]), info["fps"]


def _near(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    """How many pixels have about this colour."""
    return int((np.abs(pixels.astype(int) - colour).max(-1) < 40).sum())


def test_a_film_decodes_to_its_frames(tmp_path: Path) -> None:
    frames = np.stack([np.full((32, 48, 3), v, np.uint8) for v in (20, 90, 160, 230)])
    write_video(frames, tmp_path / "a.mp4", fps=15)
    decoded, fps = _decode(tmp_path / "a.mp4")
    assert decoded.shape == frames.shape
    assert fps == 15
    assert np.abs(decoded.astype(int) - frames).max() < 6


def test_odd_sizes_are_padded_never_rescaled(tmp_path: Path) -> None:
    write_video([np.zeros((33, 51, 3), np.uint8)] * 2, tmp_path / "a.mp4")
    decoded, _ = _decode(tmp_path / "a.mp4")
    assert decoded.shape[1:] == (34, 52, 3)
    assert decoded[0, :32, :50].max() < 40
    assert decoded[0, 33, 51].min() > 150


@pytest.mark.parametrize(
    "film",
    [
        lambda path: write_video([], path),
        lambda path: rollout_video([], path),
        lambda path: rollout_video([Rollout("BC", np.zeros((0, 8, 8, 3), np.uint8), False)], path),
        lambda path: contact_sheet(np.zeros((0, 8, 8, 3), np.uint8), path),
        lambda path: open_loop_video(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 3), np.uint8), path),
    ],
)
def test_films_of_nothing_or_of_unequal_things_are_refused(film: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        film(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_film_whose_frames_break_off_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((8, 8, 3), np.uint8)
        raise KeyError("camera")

    with pytest.raises(KeyError):
        write_video(broken(), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_tiles_keep_every_pixel_in_reading_order() -> None:
    images = [np.full((4, 6, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = tile(images, 2)
    assert sheet.shape == (3 * (4 + GAP) + GAP, 2 * (6 + GAP) + GAP, 3)
    for i, image in enumerate(images):
        y, x = GAP + i // 2 * (4 + GAP), GAP + i % 2 * (6 + GAP)
        assert (sheet[y : y + 4, x : x + 6] == image).all()
    assert (sheet[-GAP - 4 :, -GAP - 6 :] == 255).all()


def test_the_error_panel_is_black_where_the_model_is_right_and_bright_where_it_is_wrong(tmp_path: Path) -> None:
    true = np.full((6, 32, 32, 3), 90, np.uint8)
    imagined = true.copy()
    imagined[:, :, 16:] = 160
    open_loop_video(true, imagined, tmp_path / "a.mp4", context=2)
    frame = _decode(tmp_path / "a.mp4")[0][4]
    panel = frame[60:-60, frame.shape[1] * 2 // 3 + 2 * GAP : -2 * GAP]
    middle = panel.shape[1] // 2
    assert panel[:, : middle - 12].max() < 30
    assert panel[:, middle + 12 :].min() > 180


def test_an_open_loop_film_has_a_row_a_camera_and_stills_beside_it(tmp_path: Path) -> None:
    one = np.zeros((5, 16, 16, 3), np.uint8)
    open_loop_video(one, one, tmp_path / "one.mp4")
    open_loop_video(np.stack([one, one]), np.stack([one, one]), tmp_path / "two.mp4", labels=["static", "gripper"])
    heights = [_decode(tmp_path / f"{name}.mp4")[0].shape[1] for name in ("one", "two")]
    assert heights[1] == pytest.approx(2 * heights[0], abs=GAP + 1)
    with Image.open(tmp_path / "two.png") as sheet:
        assert sheet.width > 4 * 96


def test_an_episode_freezes_in_its_outcome_while_the_other_goes_on(tmp_path: Path) -> None:
    episode = np.full((10, 16, 16, 3), 120, np.uint8)
    rollout_video([Rollout("BC", episode, False), Rollout("PPO", episode[:4], True)], tmp_path / "a.mp4", fps=10)
    film, _ = _decode(tmp_path / "a.mp4")
    assert len(film) == 10 + 10
    left, right = film[6, :, : film.shape[2] // 2], film[6, :, film.shape[2] // 2 :]
    assert _near(film[1], SUCCEEDED) == _near(film[1], FAILED) == 0
    assert _near(right, SUCCEEDED) > 1000
    assert _near(left, FAILED) == 0
    assert _near(film[-1, :, : film.shape[2] // 2], FAILED) > 1000


def test_a_contact_sheet_shows_the_first_and_the_last_frame(tmp_path: Path) -> None:
    frames = np.stack([np.full((96, 96, 3), 2 * t, np.uint8) for t in range(101)])
    contact_sheet(frames, tmp_path / "sheet.png", columns=4, count=5)
    with Image.open(tmp_path / "sheet.png") as image:
        values = {int(v) for v in np.unique(np.asarray(image)[..., 0])}
    assert {0, 50, 100, 150, 200} <= values
