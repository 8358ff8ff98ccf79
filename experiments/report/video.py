"""Films and their contact sheets: what the model imagined beside what happened, and policies at work side by side.

Frames are uint8 [T, H, W, 3]. Films are MP4 (H.264, yuv420p, even sizes: what every browser plays), written one
frame at a time through the FFmpeg that imageio-ffmpeg ships. Beside every film lies a PNG of the same name with
stills from it, so that a report, a printed page or a reviewer without a player can see it too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np

from worldaction.errors import UserError
from worldaction.io.atomic import replacing
from worldaction.io.pictures import CELL, Colour, Pixels, captioned, contact_sheet, enlarge, save_png, spread, tile

RUNNING: Colour = (200, 200, 200)
SUCCEEDED: Colour = (0, 158, 115)  # Okabe and Ito's green and vermilion, told apart by colour-blind readers
FAILED: Colour = (213, 94, 0)
_OUTCOMES = {True: ("success", SUCCEEDED), False: ("failed", FAILED), None: ("end unknown", RUNNING)}

BORDER = 5
GAIN = 3  # brightness of errors


class Rollout(NamedTuple):
    """One filmed episode."""

    label: str
    """Who acts, such as "BC"."""
    frames: Pixels
    """[T, H, W, 3], the one before the first step included."""
    success: bool | None
    """None where nobody knows how it ended."""


# --- films ------------------------------------------------------------------------------------------------------------


def write_video(frames: Iterable[Pixels], path: Path, *, fps: int = 30) -> None:
    """Write frames as an MP4 file, atomically.

    Args:
        frames: each [H, W, 3] uint8, all of one size; an odd side gets one more row or column of paper.
        path: the file.
        fps: frames per second.

    Raises:
        UserError: when there is no frame, or FFmpeg is missing or fails.
    """
    stream = (_even(frame) for frame in frames)
    first = next(stream, None)
    if first is None:
        raise UserError(f"no frames for {path.name}; film at least one")
    with replacing(path) as temporary:
        _encode(temporary, first, stream, fps)


def open_loop_video(
    true: Pixels, imagined: Pixels, path: Path, *, context: int = 0, labels: Sequence[str] = (), fps: int = 15
) -> None:
    """True frames, imagined ones and their absolute difference (brightened) side by side; stills beside the film.

    Args:
        true: [T, H, W, 3] uint8, or [R, T, H, W, 3] for R rows, such as cameras or windows of play.
        imagined: as `true`. The first `context` frames were drawn from latents that had seen the frame.
        path: the MP4; the stills go to the same name with .png.
        context: how many frames the model saw before it went on without seeing one.
        labels: one a row, written into its caption.
        fps: frames per second; half of the control rate shows errors better.

    Raises:
        UserError: when the two differ in shape.
    """
    if true.shape != imagined.shape or true.ndim not in (4, 5):
        raise UserError(f"frames of shape {true.shape} and {imagined.shape} cannot be compared; give two equal shapes")
    if true.ndim == 4:
        # [1, T, H, W, 3]
        true, imagined = true[None], imagined[None]
    names = list(labels) or [""] * len(true)
    frames = (_open_loop_frame(true[:, t], imagined[:, t], names, t - context) for t in range(true.shape[1]))
    write_video(frames, path, fps=fps)
    error = _difference(true, imagined)
    # [T, 3 R H, W, 3]: each row's true, imagined and error frames below each other
    stack = np.concatenate([part[row] for row in range(len(true)) for part in (true, imagined, error)], axis=1)
    numbers = [f"{t - context + 1:+d}" if t >= context else "seen" for t in range(len(stack))]
    title = (
        f"From top, {'for each of ' + ', '.join(labels) if labels else 'for each row'}: true, imagined, error x{GAIN}."
    )
    contact_sheet(
        stack, path.with_suffix(".png"), names=numbers, title=f"{title} Numbers: frames since the last one seen."
    )


def rollout_video(rollouts: Sequence[Rollout], path: Path, *, columns: int = 2, fps: int = 30) -> None:
    """Episodes side by side; each freezes at its end in a green (success) or red frame, or a grey one where nobody
    knows. Stills beside the film.

    Args:
        rollouts: row by row, such as BC and PPO from the first start state, then from the second.
        path: the MP4; the stills go to the same name with .png.
        columns: episodes a row.
        fps: frames per second.

    Raises:
        UserError: when there are no episodes or no frames in one.
    """
    if not rollouts or any(len(r.frames) == 0 for r in rollouts):
        raise UserError(f"no frames for {path.name}; film at least one in every episode")
    last = max(len(r.frames) for r in rollouts)
    # the end stays for a second, so that it can be read
    times = chain(range(last), [last] * fps)
    write_video((tile([_cell(r, t, fps) for r in rollouts], columns) for t in times), path, fps=fps)
    strips = [_strip(r) for r in rollouts]
    save_png(tile(strips, 1), path.with_suffix(".png"))


# --- parts ------------------------------------------------------------------------------------------------------------


def _open_loop_frame(true: Pixels, imagined: Pixels, names: Sequence[str], ahead: int) -> Pixels:
    """One film frame. true, imagined: [R, H, W, 3]; ahead: frames since the model last saw one, from 0."""
    what = f"imagined, {ahead + 1} ahead" if ahead >= 0 else "seen and redrawn"
    cells = []
    for name, real, dream in zip(names, true, imagined, strict=True):
        texts = (f"true {name}".strip(), what, f"error x{GAIN}, {_psnr(real, dream):.1f} dB")
        images = (real, dream, _difference(real, dream))
        cells += [captioned(enlarge(image), text) for image, text in zip(images, texts, strict=True)]
    return tile(cells, 3)


def _cell(rollout: Rollout, time: int, fps: int) -> Pixels:
    """An episode at a time, framed and captioned; after its end, its last frame and its outcome."""
    last = len(rollout.frames) - 1
    text, colour = rollout.label, RUNNING
    if time >= last:
        outcome, colour = _OUTCOMES[rollout.success]
        text = f"{text}: {outcome} after {last / fps:.1f} s"
    return captioned(_framed(enlarge(rollout.frames[min(time, last)]), colour), text)


def _strip(rollout: Rollout, count: int = 8) -> Pixels:
    """Stills of an episode in a row under its caption; the last one is framed by the outcome."""
    times = spread(rollout.frames, count)
    outcome, colour = _OUTCOMES[rollout.success]
    colours = [RUNNING] * (len(times) - 1) + [colour]
    # an episode shorter than `count` leaves the rest of its row empty, so that all strips have one width
    stills = [_framed(enlarge(rollout.frames[t], CELL // 2), c) for t, c in zip(times, colours, strict=True)]
    stills += [np.full_like(stills[0], 255)] * (count - len(stills))
    return captioned(tile(stills, count), f"{rollout.label}: {outcome} after {len(rollout.frames) - 1} steps")


def _difference(a: Pixels, b: Pixels) -> Pixels:
    """Absolute difference times GAIN: at 20 dB, where objects are lost, it would otherwise look black."""
    return np.minimum(GAIN * np.abs(a.astype(np.int16) - b), 255).astype(np.uint8)


def _psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio in dB, at most 99 for equal images."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 99.0 if error == 0 else min(99.0, 10 * float(np.log10(255**2 / error)))


def _framed(image: Pixels, colour: Colour) -> Pixels:
    height, width = image.shape[:2]
    framed = np.full((height + 2 * BORDER, width + 2 * BORDER, 3), colour, np.uint8)
    framed[BORDER:-BORDER, BORDER:-BORDER] = image
    return framed


def _even(frame: Pixels) -> Pixels:
    """yuv420p halves the colour's resolution, so both sides must be even."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)


def _encode(path: Path, first: Pixels, rest: Iterator[Pixels], fps: int) -> None:
    height, width = first.shape[:2]
    # macro_block_size=1: the default of 16 rescales the picture in silence
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        quality=None,
        macro_block_size=1,
        output_params=["-crf", "20", "-movflags", "+faststart", "-f", "mp4"],
    )
    try:
        writer.send(None)
        for frame in chain([first], rest):
            writer.send(np.ascontiguousarray(frame))
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"FFmpeg cannot write the film ({reason}); reinstall imageio-ffmpeg or free the disk"
        ) from error
    finally:
        writer.close()
    # FFmpeg's own exit status is not handed on
    if not _whole(path):
        raise UserError("FFmpeg could not finish the film; free some room on the disk, or reinstall imageio-ffmpeg")


def _whole(film: Path) -> bool:
    """Whether an MP4 file has its index, and no part of it is cut off: parts have a length and a name."""
    data, names, position = film.read_bytes() if film.exists() else b"", set(), 0
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data.ljust(position + 16), position + 8)
        names.add(name)
        position += max(length, 8)
    return position == len(data) and b"moov" in names
