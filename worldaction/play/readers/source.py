"""Recorded data of any format, as episodes that are read in blocks: what a play store is converted from.

A format is one file beside this one with a class that keeps to `Source`, and a line in `FORMATS`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from worldaction.errors import UserError
from worldaction.errors import unknown as no_such
from worldaction.play.labels import answer
from worldaction.play.layout import Segment
from worldaction.spec import Kind, Layout, Split

logger = logging.getLogger(__name__)

BLOCK: Final = 256
"""Frames in memory at once."""
GIVEN: Final = ("path", "strict")
"""What every format's class is called with."""


@dataclass(frozen=True)
class Recording:
    """One episode of a source, before a frame of it has been read."""

    length: int
    """Frames."""
    where: str
    """File or part of a file, for whoever looks for it."""
    kind: Kind = "play"
    split: Split = "training"
    scene: str = ""
    segments: tuple[Segment, ...] = ()
    """Annotated ranges, counted from the episode's first frame."""


@dataclass(frozen=True)
class Origin:
    """Where the frames of a source come from, as the play store made of it will say; see `StoreMeta`."""

    source: str
    """What made the frames, such as "calvin"."""
    renderer: str = "unknown"
    """What drew the images."""
    seed: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    """What else there is to say: where the set lies, which of its parts were chosen, how actions were scaled."""


class Source(Protocol):
    """A data set whose small files have been read and checked; its frames are read when they are asked for."""

    path: Path
    format: str
    """The format and its version, such as "LeRobot 3.0"."""
    layout: Layout
    """What a frame holds; the cameras are those that the set has, under the names of the store."""
    image_size: int
    """The largest side of square images that can be made from it in pixels; 0 if there are none."""
    rate: float | None
    """Frames per second, where the set says so."""
    episodes: Sequence[Recording]
    origin: Origin
    skipped: Sequence[str]
    """What is damaged or missing and was left out, a line each that names it."""

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """The frames of an episode in order, `BLOCK` at most at a time, as `StoreWriter.append` takes them.

        Args:
            episode: its number in `episodes`.
            image_size: side of the images in pixels, at most that of the source; smaller ones are averaged by area.
                None gives every camera in its own size, as recorded (the largest square in the middle, but for CALVIN).
                0 leaves the images out, and reads the vectors alone, which is much faster.
            start: the frame of the episode to begin with.

        Raises:
            UserError: a file is missing, damaged or does not fit the description; names the file.
        """
        ...


class Wrapped:
    """A source as it is, of which subclasses change what they are for. What is verified is the set behind it.

    Args:
        source: the set.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.path, self.format, self.layout = source.path, source.format, source.layout
        self.image_size, self.rate, self.skipped = source.image_size, source.rate, source.skipped
        self.left_out: tuple[str, ...] = getattr(source, "left_out", ())
        self.origin, self.episodes = source.origin, source.episodes

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        return self._source.blocks(episode, image_size=image_size, start=start)

    def verify(self) -> None:
        """See `check_intact`."""
        check_intact(self._source)


class Labelled(Wrapped):
    """A source some of whose segments are told more of than the set says.

    Args:
        source: the set.
        unknown: whether attempts of which the set does not say it have succeeded.
        names: the task that a sentence stands for, so that a set which has sentences alone fits one that has names.
    """

    def __init__(self, source: Source, *, unknown: bool | None = None, names: Mapping[str, str] | None = None) -> None:
        super().__init__(source)
        self._unknown, self._names = unknown, dict(names or {})
        answer = {} if unknown is None else {"unknown": "success" if unknown else "failure"}
        self.origin = replace(source.origin, config=source.origin.config | answer)
        self.episodes = [
            replace(episode, segments=tuple(self._told(segment) for segment in episode.segments))
            for episode in source.episodes
        ]

    def _told(self, segment: Segment) -> Segment:
        if segment.task in self._names:
            sentence = segment.sentence or segment.task
            segment = replace(segment, task=self._names[segment.task], sentence=sentence)
        return replace(segment, success=self._unknown) if segment.success is None else segment


def check_intact(source: Source) -> None:
    """Read a set from end to end and compare it with the checksums that it brings along, if its format has any.

    Raises:
        UserError: a file has changed since it was written.
    """
    verify = getattr(source, "verify", None)
    if verify is not None:
        verify()


FORMATS: Final = {
    "calvin": "worldaction.play.readers.calvin:CalvinSource",
    "store": "worldaction.play.readers.store:StoreSource",
    "lerobot": "worldaction.play.readers.lerobot:LeRobotSource",
    "robomimic": "worldaction.play.readers.robomimic:RobomimicSource",
    "minari": "worldaction.play.readers.minari:MinariSource",
}
"""Every format and the class that reads it, `module:Class`: called with `GIVEN`, it has `recognises(path)`."""


def open_source(
    path: Path | str,
    *,
    format: str | None = None,
    strict: bool = False,
    unknown: str | None = None,
    names: Mapping[str, str] | None = None,
    **options: Any,
) -> Source:
    """Find out which format a data set has, and read its description.

    What is damaged or missing is left out, counted in a warning and listed in `skipped`.

    Args:
        path: a folder or a file.
        format: a name in `FORMATS`, for a set that is not recognised; the class then says what is wrong with it.
        strict: refuse a set of which anything is damaged or missing.
        unknown: "success" or "failure", what attempts are of which the set does not say it.
        names: the task that a sentence of the set stands for.
        options: those of the format's class, such as `language` for CALVIN; see docs/data.md.

    Raises:
        UserError: nothing is there, no format fits, the format has no such option, or the description is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is nothing at {path}; give the folder or the file of a data set")
    name = format or recognise(path)
    if name is None:
        near = next((c for c in _near(path) if recognise(c)), None)
        hint = f"did you mean {near}?" if near else "see docs/data.md for what each looks like"
        raise UserError(f"{path} has none of the formats {', '.join(FORMATS)}; {hint}")
    success = answer(unknown)
    reader = _reader(name)
    known = [option for option in inspect.signature(reader).parameters if option not in GIVEN]
    for option in options:
        if option not in known:
            raise (
                no_such(f"option of the format {name}", option, known)
                if known
                else UserError(f"the format {name} has no options; leave {option} out")
            )
    source: Source = reader(path, strict=strict, **options)
    told = {segment.task for episode in source.episodes for segment in episode.segments}
    if success is not None or told & {*(names or {})}:
        source = Labelled(source, unknown=success, names=names)
    _warn(source)
    return source


def _warn(source: Source) -> None:
    """Say what a set has not got."""
    if skipped := source.skipped:
        logger.warning("%s: %s", source.path, in_short(skipped))
    segments = [segment for episode in source.episodes for segment in episode.segments]
    if count := sum(segment.success is None for segment in segments):
        logger.warning(
            "%s does not say of %d of %d attempts whether they succeeded, and they count as neither; if they did, give "
            "--option unknown=success (--recorded.success ends in a study)",
            source.path,
            count,
            len(segments),
        )


def in_short(skipped: Sequence[str]) -> str:
    """One line of all that was left out."""
    things = "one thing is" if len(skipped) == 1 else f"{len(skipped)} things are"
    return f"{things} damaged or missing and left out (refused with --strict): {skipped[0]}" + (
        "" if len(skipped) == 1 else "; worldaction data inspect lists all"
    )


def recognise(path: Path) -> str | None:
    """The name in `FORMATS` of what lies at a path, by the look of it; None if it has no format of these."""
    return next((name for name in FORMATS if _reader(name).recognises(path)), None)


def _reader(name: str) -> Any:
    if name not in FORMATS:
        raise no_such("format", name, FORMATS)
    module, _, attribute = FORMATS[name].partition(":")
    return getattr(import_module(module), attribute)


def _near(path: Path) -> list[Path]:
    """Where a set often is instead: one folder up or down."""
    inside = sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
    return [path.parent, *inside[:20]]
