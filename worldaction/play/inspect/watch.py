"""What is found out about a data set while its frames go by: when it is checked, and when it is converted.

Nothing is read twice but a sample of some hundred frames, from which the convention of the actions is known
before the first frame comes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from worldaction.errors import UserError
from worldaction.play.inspect.colours import Colours
from worldaction.play.inspect.conventions import conventions
from worldaction.play.inspect.motion import Expected, Motion
from worldaction.play.inspect.problems import Findings, Problems
from worldaction.play.layout import Segment
from worldaction.play.leaks import Marks, leaks, marks, refuse_leaks
from worldaction.play.readers.source import Recording, Source, Wrapped
from worldaction.spec import ACTION, CALVIN, ROBOT, ROBOT_FIELDS, SCENE, Split

logger = logging.getLogger(__name__)

JUMP: Final = 0.06
"""Move of the TCP from one frame to the next that no robot makes (m): three times CALVIN's fastest."""
SHARED: Final = 0.5
"""Part of a window that another one may share: windows of CALVIN overlap a little, where one task follows another."""

Judge = Callable[[str, np.ndarray, np.ndarray], str]
"""Called with a task and `scene_obs` [S] of the first and the last frame of a window: what was done instead of the
task, in words; empty if nothing speaks against the label."""


class Watch:
    """Looks at the frames of a set, episode by episode and block by block, in constant memory.

    Args:
        source: the set.
        judge: says whether a task was done, where somebody can.
    """

    def __init__(self, source: Source, *, judge: Judge | None = None) -> None:
        self._source, self._judge = source, judge
        self.problems, self.warnings = Problems(), Problems()
        self._colours = Colours()
        try:
            self._expected: Expected | None = Expected.of(source)
            whole = conventions(self._expected, source)
        except UserError:
            # whoever reads the frame that is damaged says so
            self._expected, whole = None, Findings([], [])
        self._whole = whole
        self._motion: Motion | None = None
        self._number, self._frame = 0, 0
        self._last: np.ndarray | None = None
        self._scenes: dict[int, np.ndarray] = {}
        self._marks: dict[int, list[Marks]] = {}

    def begin(self, number: int, *, start: int = 0) -> None:
        """An episode starts, or goes on at frame `start`."""
        self._number, self._frame, self._last, self._scenes = number, start, None, {}
        if self._expected is not None:
            where = f"episode {number}"
            self._motion = Motion(self._expected, where, self.problems, self.warnings, start=start)

    def add(self, block: Mapping[str, np.ndarray]) -> None:
        """The next frames of the episode."""
        layout = self._source.layout
        if any(key not in block or block[key].shape[1:] != (size,) for key, size in layout.vectors.items()):
            return
        for number in layout.binary:
            unset = block[ACTION][:, number] == 0
            where = f"episode {self._number}"
            self.problems.flag(f"action[{number}] is 0, neither -1 nor +1", where, unset, self._frame)
        if layout.vectors == CALVIN.vectors:
            self._jumps(block[ROBOT][:, ROBOT_FIELDS["tcp_position"]])
        self._marks.setdefault(self._number, []).append(marks({key: block[key] for key in layout.vectors}))
        if self._motion is not None:
            self._motion.add(block)
        self._colours.add(self._number, {camera: block[camera] for camera in layout.cameras if camera in block})
        if self._judge is not None and layout.scene == CALVIN.scene:
            self._remember(block[SCENE])
        self._frame += len(block[ACTION])

    def end(self) -> None:
        """The episode is whole."""
        episode = self._source.episodes[self._number]
        if self._motion is not None:
            self._motion.end()
        self._overlaps(episode)
        for segment in episode.segments if self._judge is not None else ():
            self._label(segment)

    def findings(self) -> Findings:
        """What was found in all episodes so far."""
        exchanged = Problems()
        self._colours.judge(dict(enumerate(self._source.episodes)), exchanged)
        problems = [*self._whole.problems, *self.problems.lines(), *exchanged.lines(), *leaks(self.marks())]
        return Findings(problems, [*self._whole.warnings, *self.warnings.lines()])

    def marks(self) -> dict[int, tuple[Split, Marks]]:
        """Split and marks of every episode so far, by its number."""
        parts = sorted(self._marks.items())
        return {number: (self._source.episodes[number].split, np.concatenate(each)) for number, each in parts}

    def _jumps(self, position: np.ndarray) -> None:
        """Ends of episodes that nobody marked; position [T, 3] (m)."""
        before = np.concatenate([position[:1] if self._last is None else self._last[None], position[:-1]])
        far = np.linalg.norm(position - before, axis=1) > JUMP
        where = f"episode {self._number}"
        self.problems.flag(f"the TCP jumps by more than {JUMP} m from one frame to the next", where, far, self._frame)
        self._last = position[-1].copy()

    def _remember(self, scene: np.ndarray) -> None:
        """The scene at both ends of every window; scene [T, 24]."""
        for segment in self._source.episodes[self._number].segments:
            for at in (segment.start, segment.stop - 1):
                if 0 <= at - self._frame < len(scene):
                    self._scenes[at] = scene[at - self._frame].copy()

    def _label(self, segment: Segment) -> None:
        ends = [self._scenes.get(at) for at in (segment.start, segment.stop - 1)]
        first, last = ends
        if self._judge is None or first is None or last is None or not segment.success:
            return
        if instead := self._judge(segment.task, first, last):
            where = f"episode {self._number}, frames {segment.start} to {segment.stop - 1}"
            self.problems.name(f"the window is labelled {segment.task}, what was done is {instead}", where)

    def _overlaps(self, episode: Recording) -> None:
        for one, other in overlapping(episode.segments):
            where = f"episode {self._number}, {one.task} {one.start} to {one.stop - 1}"
            self.warnings.name(
                "annotated windows overlap by more than half",
                f"{where} and {other.task} {other.start} to {other.stop - 1}",
            )


def overlapping(segments: Sequence[Segment]) -> list[tuple[Segment, Segment]]:
    """Windows that share more than `SHARED` of the shorter one, each with the one before that ends last."""
    found: list[tuple[Segment, Segment]] = []
    longest: Segment | None = None
    for segment in sorted(segments, key=lambda segment: (segment.start, segment.stop)):
        if longest is not None:
            both = min(longest.stop, segment.stop) - segment.start
            if both > SHARED * min(longest.length, segment.length):
                found.append((longest, segment))
        if longest is None or segment.stop > longest.stop:
            longest = segment
    return found


class Watched(Wrapped):
    """A source whose frames are looked at as they go by; it gives the same ones.

    Args:
        source: the set.
        judge: as for `Watch`.
    """

    def __init__(self, source: Source, *, judge: Judge | None = None) -> None:
        super().__init__(source)
        self._watch = Watch(source, judge=judge)

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.blocks`."""
        self._watch.begin(episode, start=start)
        for block in self._source.blocks(episode, image_size=image_size, start=start):
            self._watch.add(block)
            yield block
        self._watch.end()

    def refuse_leaks(self) -> None:
        """Refuse a set of which frames are in training and in validation.

        Raises:
            UserError: some are; names the episodes.
        """
        refuse_leaks(self.path, self._watch.marks())

    def warn(self) -> None:
        """Log what was found: a set that was written has it still."""
        found = self._watch.findings()
        for line in (*found.problems, *found.warnings):
            logger.warning("%s: %s", self.path, line)
