"""Frames of a video file, one after another, each at the time at which it should be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from worldaction.errors import UserError
from worldaction.play.readers.reading import DAMAGED, naming, need


def count_frames(path: Path) -> int | None:
    """How many frames the first video stream of a file says it has; None if it does not say, or cannot be opened."""
    av = need("av")
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames or None
    except (av.FFmpegError, *DAMAGED):
        return None


def video_frames(path: Path, *, first: float, rate: float, count: int) -> Iterator[np.ndarray]:
    """Decode successive frames, beginning at the key frame before them.

    Args:
        path: the file; its first video stream is read.
        first: time of the first frame in seconds.
        rate: frames per second.
        count: how many frames.

    Yields:
        [H, W, 3] uint8.

    Raises:
        UserError: PyAV is not installed; the file is missing, damaged or short, or a frame is not where it should be.
    """
    av = need("av")
    if not path.is_file():
        raise UserError(f"{path} is missing; copy the set again")
    done = 0
    with naming(path, av.FFmpegError), av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"err_detect": "explode"}
        tick = float(stream.time_base)
        container.seek(max(0, round((first - 0.5 / rate) / tick)), stream=stream, backward=True)
        for frame in container.decode(stream):
            late = frame.pts * tick - (first + done / rate)
            if late < -0.5 / rate:
                continue
            if late > 0.5 / rate:
                raise UserError(f"{path}: frame {done} at {first + done / rate:.3f} s is not there; get the file anew")
            if frame.is_corrupt:
                raise UserError(f"{path}: frame {done} at {first + done / rate:.3f} s is damaged; get the file anew")
            yield frame.to_ndarray(format="rgb24")
            done += 1
            if done == count:
                return
    raise UserError(f"{path} ends after {done} of {count} frames; get the file anew")
