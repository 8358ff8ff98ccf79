"""The videos of a LeRobot set: one camera's frames in files of bounded size and length, encoded by PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from worldaction.errors import UserError
from worldaction.play.lerobot_layout import VIDEO_PATH, place
from worldaction.play.readers.reading import need

MEGABYTES: Final = 200
"""Largest file, as in `lerobot`."""
SECONDS: Final = 1000
"""Longest file: `lerobot` finds frames by float32 times to 0.1 ms, which has no such times beyond 1024 s."""


@dataclass(frozen=True)
class Codec:
    """How frames are encoded."""

    name: str
    """FFmpeg's encoder."""
    pixels: str
    """Its pixel format."""
    options: Mapping[str, str] = field(default_factory=dict)
    """As FFmpeg names them. Every second frame is a whole one (g = 2), so that any frame is soon decoded."""


CODECS: Final = {
    "h264": Codec("libx264", "yuv444p", {"g": "2", "crf": "10", "bf": "0"}),
    "h264-420": Codec("libx264", "yuv420p", {"g": "2", "crf": "10", "bf": "0"}),
    "av1": Codec("libsvtav1", "yuv420p", {"g": "2", "crf": "30", "preset": "12"}),
    "lossless": Codec("libx264rgb", "rgb24", {"g": "2", "qp": "0", "bf": "0"}),
}
"""What frames can be encoded by; measured in docs/data.md. `av1` is what `lerobot` itself does."""


class Place(NamedTuple):
    """Where in the files an episode begins."""

    chunk: int
    file: int
    seconds: float


class VideoFiles:
    """Writes one camera, episode after episode; a new file is begun between episodes.

    Args:
        folder: of the set.
        key: LeRobot's name of the camera.
        shape: [H, W, 3] of its images.
        rate: frames per second.
        codec: how they are encoded.

    Raises:
        UserError: PyAV is not installed, lacks the encoder, or the encoder cannot take images of this size.
    """

    def __init__(self, folder: Path, key: str, *, shape: tuple[int, ...], rate: int, codec: Codec) -> None:
        if codec.pixels == "yuv420p" and (shape[0] % 2 or shape[1] % 2):
            raise UserError(f"{key}: images of {shape[1]} x {shape[0]} pixels; {codec.pixels} needs even sides")
        self._av: Any = need("av")
        if codec.name not in self._av.codecs_available:
            raise UserError(f"{key}: this PyAV has no encoder {codec.name}; choose another of {', '.join(CODECS)}")
        self._folder, self._key, self._shape, self._rate, self._codec = folder, key, shape, rate, codec
        self._number, self._frames = -1, 0
        self._path: Path | None = None
        self._container: Any = None
        self._stream: Any = None

    def begin(self) -> Place:
        """An episode starts: where its first frame will be."""
        if self._path is None or self._is_full(self._path):
            self._open()
        return Place(*place(self._number), self._frames / self._rate)

    def seconds(self) -> float:
        """Where the next frame will be in the file."""
        return self._frames / self._rate

    def write(self, images: np.ndarray) -> None:
        """Append frames.

        Args:
            images: [T, H, W, 3] uint8.
        """
        with self._encoding():
            for image in images:
                self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(image, format="rgb24")))
        self._frames += len(images)

    def close(self) -> None:
        """Finish the file; once is enough."""
        container, self._container = self._container, None
        if container is not None:
            with self._encoding():
                container.mux(self._stream.encode())
                container.close()

    def info(self) -> dict[str, Any]:
        """What `lerobot` records about a camera's videos, from the first file; after `close`."""
        first = self._folder / VIDEO_PATH.format(video_key=self._key, chunk_index=0, file_index=0)
        with self._av.open(str(first)) as container:
            stream = container.streams.video[0]
            found = {"codec": stream.codec.canonical_name, "pix_fmt": stream.pix_fmt}
        size = {"height": self._shape[0], "width": self._shape[1], "fps": self._rate, "channels": 3}
        options = {name: int(self._codec.options[name]) for name in ("g", "crf") if name in self._codec.options}
        named = {f"video.{name}": value for name, value in {**size, **found, **options}.items()}
        return {**named, "has_audio": False, "is_depth_map": False}

    def _is_full(self, path: Path) -> bool:
        return self.seconds() >= SECONDS or path.stat().st_size >= MEGABYTES * 2**20

    def _open(self) -> None:
        self.close()
        self._number, self._frames = self._number + 1, 0
        chunk, file = place(self._number)
        self._path = self._folder / VIDEO_PATH.format(video_key=self._key, chunk_index=chunk, file_index=file)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._path), "w")
        self._stream = self._container.add_stream(self._codec.name, self._rate, options=dict(self._codec.options))
        self._stream.height, self._stream.width = self._shape[:2]
        self._stream.pix_fmt = self._codec.pixels
        # one thread, so that every machine makes the same bytes
        self._stream.thread_count = 1

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            raise UserError(f"{self._key}: {self._codec.name} cannot encode ({error}); choose another codec") from error
