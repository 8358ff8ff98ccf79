"""Whether every action led to the frame after it, frame by frame: swapped, lost and joined frames, and shifted actions.

What an action should have led to is known from the convention of the whole set (actions.py), which a few wrong frames
cannot change. Actions that are achieved moves, or poses, must agree with the next frame to the bit, or to a float32.
Commands, which a robot lags, cannot be held to that: there, a frame must not stand apart from both its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from worldaction.play.inspect.actions import (
    STILL,
    UNITS,
    Actions,
    Array,
    Run,
    detect,
    finite,
    is_on_poses,
    pose_of,
    wrapped,
)
from worldaction.play.inspect.problems import Problems, frames
from worldaction.play.inspect.sample import sample
from worldaction.play.readers.source import Source
from worldaction.spec import ACTION, CALVIN, ROBOT, ROBOT_FIELDS, Layout

SAMPLE: Final = 600
"""Frames from which the convention of a set is found, about."""
RUN: Final = 64
"""Of them are consecutive."""
AT_ONCE: Final = 4096
"""Frames in memory."""
EXACT: Final = 2e-3
"""By how much an action may differ from the move that it is (units: 1 is CALVIN's 0.02 m or 0.05 rad)."""
SPREAD: Final = 10.0
"""By how many times the middle deviation an action may differ, where a set is less exact."""
APART: Final = 0.1
"""How far a joint may be from between its neighbours' angles (rad): twice what our table's robot does."""
MANY: Final = 0.2
"""Share of frames from which an episode is wrong as a whole."""
ENOUGH: Final = 100
"""Moves from which commands can be said to stand in another frame than elsewhere."""
CLEARLY: Final = 0.1
"""By how much their R2 there has to be larger."""
LAGS: Final = (-1, 0, 1)


class Expected:
    """What the actions of a set promise.

    Args:
        runs: consecutive frames from all over the set, without images.
        layout: what a frame holds.

    Attributes:
        actions: the convention of the set.
        tolerance: by how much an action may differ from the move that it is (units); None for commands.
        apart: how far a joint may be from between its neighbours (rad); None where joints are not known.
    """

    def __init__(self, runs: Sequence[Run], layout: Layout) -> None:
        runs = finite(runs)
        self.actions: Actions = detect(runs, layout)
        self.euler = layout.euler if is_on_poses(layout) else None
        self.units = UNITS if self.actions.kind != "relative" else np.repeat(self.actions.units, 3)
        self.tolerance: float | None = None
        self.apart: float | None = None
        if self.euler is not None and self.actions.achieved:
            wrong = np.concatenate([self.residual(run, self.actions.lag) for run in runs] or [np.zeros(0)])
            self.tolerance = max(EXACT, SPREAD * float(np.median(wrong))) if len(wrong) else None
        elif layout.vectors == CALVIN.vectors:
            apart = np.concatenate([_apart(run) for run in runs] or [np.zeros(0)])
            # a robot of which these are no joint angles is not held to them
            self.apart = APART if len(apart) and np.quantile(apart, 0.99) < APART / 2 else None

    @classmethod
    def of(cls, source: Source) -> Expected:
        """What the actions of a set promise, from a sample of its frames; seconds at most for the largest.

        Raises:
            UserError: a frame that was chosen cannot be read.
        """
        return cls(sample(source, frames=SAMPLE, run=RUN), source.layout)

    def residual(self, run: Run, lag: int) -> Array:
        """By how much actions that stand `lag` frames late differ from the moves [T - 1 - |lag|] (units)."""
        made, said = self._pairs(run, lag)
        if self.actions.kind == "relative":
            return np.asarray(np.abs(np.clip(made, -1, 1) - np.clip(said, -1, 1)).max(1, initial=0))
        return np.asarray(np.abs(wrapped((made - said) * self.units) / self.units).max(1, initial=0))

    def _pairs(self, run: Run, lag: int) -> tuple[Array, Array]:
        """What happened and what an action says, [T - 1 - |lag|, 6] each (units); [..., 3] where turns are unknown."""
        assert self.euler is not None
        pose, action = pose_of(run[ROBOT], self.euler), run[ACTION][:, :6].astype(np.float64)
        if self.actions.kind == "relative":
            known = 6 if self.actions.units[1] else 3
            made = wrapped(np.diff(pose, axis=0))[:, :known] / self.units[:known]
            said = action[:-1, :known]
        elif self.actions.kind == "clipped":
            made, said = np.clip(pose[1:], -1, 1) / self.units, action[:-1] / self.units
        else:
            made, said = pose[1:] / self.units, action[:-1] / self.units
        last = len(made)
        return made[max(-lag, 0) : last - max(lag, 0)], said[max(lag, 0) : last - max(-lag, 0)]

    def moves(self, run: Run) -> int:
        """In how many frames something is told or moves."""
        made, said = (part[:, :3] for part in self._pairs(run, 0))
        return int((np.maximum(np.abs(made), np.abs(said)).max(1, initial=0) > STILL).sum())

    def sums(self, run: Run) -> Array:
        """Of position and action at each of `LAGS`, their products, squares of actions and of moves, [3, 3]."""
        found = []
        for lag in LAGS:
            made, said = (part[:, :3] for part in self._pairs(run, lag))
            known = np.isfinite(made).all(1) & np.isfinite(said).all(1)
            made, said = made[known], said[known]
            found.append([(made * said).sum(), (said**2).sum(), (made**2).sum()])
        return np.array(found)


class _Marked(NamedTuple):
    """Frames that are wrong, of so many."""

    frames: list[int]
    of: int


class Motion:
    """The moves of one episode, block by block in constant memory.

    Args:
        expected: what the actions of the set promise.
        where: the episode in words.
        problems: what is found goes there.
        warnings: and what may be an accident.
        start: number in the episode of the first frame that will come.
    """

    def __init__(
        self, expected: Expected, where: str, problems: Problems, warnings: Problems, *, start: int = 0
    ) -> None:
        self._expected, self._where = expected, where
        self._problems, self._warnings = problems, warnings
        self._kept: list[dict[str, np.ndarray]] = []
        self._first, self._length = start, start  # numbers of the first frame that is kept, and of the next one to come
        self._next = {"move": 0, "joint": 0}  # the first of which nothing is known yet
        self._wrong: list[int] = []
        self._apart: list[int] = []
        self._moves, self._fitting = 0, np.zeros(len(LAGS), int)
        self._sums = np.zeros((len(LAGS), 3))

    def add(self, block: Mapping[str, np.ndarray]) -> None:
        """Frames that follow those before."""
        if self._expected.euler is None:
            return
        self._kept.append({key: block[key].copy() for key in (ACTION, ROBOT)})
        self._length += len(block[ACTION])
        if self._length - self._first >= AT_ONCE:
            self._judge()

    def _judge(self) -> None:
        """Compare what is kept, and keep the last three frames: their neighbours come with the next block."""
        expected = self._expected
        run = {key: np.concatenate([part[key] for part in self._kept]) for key in (ACTION, ROBOT)}
        if expected.tolerance is not None:
            lag = expected.actions.lag
            wrong = self._new("move", expected.residual(run, lag) > expected.tolerance, max(-lag, 0))
            self._wrong += wrong.frames
            self._moves += wrong.of
            self._fitting += [int((expected.residual(run, lag) <= expected.tolerance).sum()) for lag in LAGS]
        elif expected.actions.kind == "relative":
            self._sums += expected.sums(run)
            self._moves += expected.moves(run)
        if expected.apart is not None:
            self._apart += self._new("joint", _apart(run) > expected.apart, 1).frames
        self._kept = [{key: values[-3:] for key, values in run.items()}]
        self._first = self._length - len(self._kept[0][ACTION])

    def _new(self, what: str, marked: np.ndarray, offset: int) -> _Marked:
        """The frames that are marked, the first mark being that of frame `offset`, without those known already."""
        numbers = np.arange(len(marked)) + self._first + offset
        new = numbers >= self._next[what]
        self._next[what] = max(self._next[what], self._first + offset + len(marked))
        return _Marked(numbers[new & marked].tolist(), int(new.sum()))

    def end(self) -> None:
        """The episode is whole: say what is wrong with it."""
        if self._length > self._first and self._length > 1:
            self._judge()
        if (lag := self._shift()) is not None:
            words = "late: each belongs to the frame before" if lag > 0 else "early: each belongs to the frame after"
            self._problems.name(f"actions stand one frame too {words}", f"{self._where}, all frames")
            return
        if self._wrong:
            share = f"{len(self._wrong)} of {self._moves} moves"
            self._problems.name(
                "the action does not lead to the next frame (frames swapped, lost, or joined from two episodes)",
                f"{self._where}, {frames(self._wrong)} ({share})",
            )
        if self._apart:
            self._warnings.name(
                f"a joint is more than {APART} rad away from between the frames before and after (frames swapped)",
                f"{self._where}, {frames(self._apart)}",
            )

    def _shift(self) -> int | None:
        """How many frames late the actions of this episode stand, if other than those of the set."""
        expected, usual = self._expected, self._expected.actions.lag
        if expected.tolerance is not None:
            best = LAGS[int(self._fitting.argmax())]
            is_clear = self._fitting.max() > max(2 * self._fitting[usual + 1], self._moves * (1 - MANY), 2)
        else:
            products, actions, moves = self._sums.T
            r2 = products**2 / np.maximum(actions * moves, 1e-12)
            best = LAGS[int(r2.argmax())]
            is_clear = self._moves > ENOUGH and r2.max() > max(0.5, r2[usual + 1] + CLEARLY)
        return best if is_clear and best != usual else None


def _apart(run: Run) -> Array:
    """How far the joints of the inner frames [T - 2] are from between those before and after (rad)."""
    joints = run[ROBOT][:, ROBOT_FIELDS["joints"]].astype(np.float64)
    middle = joints[1:-1] - (joints[:-2] + joints[2:]) / 2
    return np.asarray(np.abs(middle).max(1, initial=0))
