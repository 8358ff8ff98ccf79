"""Recorded actions replayed in the embedded table from recorded states: do they lead where the recording went?

Actions that are the moves achieved, as CALVIN's, are first turned into the commands that cause such moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.playtable.env import PlayTableEnv
from envs.playtable.recover import UNIT, recover_commands, recover_targets
from envs.playtable.rotation import wrap
from envs.playtable.tools.replay import SCENES
from envs.tasks import EIGHT
from worldaction.errors import UserError
from worldaction.play.inspect.actions import detect
from worldaction.play.inspect.sample import read_run, sample
from worldaction.play.readers.source import Source
from worldaction.spec import ACTION, CALVIN, ROBOT, ROBOT_FIELDS, SCENE

Array = NDArray[np.float64]

STEPS: Final = (8, 32, 64)
"""After how many steps the TCP is compared."""
PLAIN: Final = 65
"""Frames of a window without a task."""
FARTHEST: Final = 0.02
"""Median distance of the TCP after 32 steps from which actions are said not to fit (m)."""


class Span(NamedTuple):
    """Frames `start` to `stop` of an episode, in which `task` is done; an empty task if none is known."""

    episode: int
    start: int
    stop: int
    task: str


class Replay(NamedTuple):
    """What became of the actions of one span."""

    span: Span
    apart: dict[int, float]
    """Steps to the distance of the TCP from where it was recorded (m)."""
    success: bool
    """CALVIN's oracle saw the task done."""


class Replays(NamedTuple):
    """What became of all of them."""

    done: list[Replay]
    refused: list[str]
    """States that the table cannot be set to."""
    achieved: bool
    """Commands were computed from the motion, because the actions are the moves achieved."""

    def lines(self) -> list[str]:
        """In words, a line each."""
        how = "commands computed from the motion" if self.achieved else "actions as recorded"
        found = [f"replay    {len(self.done)} windows in the embedded table, {how}"]
        for steps in STEPS:
            apart = [1000 * replay.apart[steps] for replay in self.done if steps in replay.apart]
            if apart:
                spread = f"median {np.median(apart):.1f} mm, largest {max(apart):.1f} mm, {len(apart)} windows"
                found.append(f"          TCP after {steps} steps: {spread}")
        tried = [replay for replay in self.done if replay.span.task]
        if tried:
            found.append(f"          annotated tasks done again: {sum(r.success for r in tried)} of {len(tried)}")
        return found

    def problems(self) -> list[str]:
        """What is wrong with the set, judging by them."""
        found = [f"the table cannot be set to a recorded state: {reason}" for reason in self.refused[:3]]
        apart = [replay.apart[32] for replay in self.done if 32 in replay.apart]
        if apart and np.median(apart) > FARTHEST:
            found.append(
                f"replayed actions lead elsewhere: the TCP is {1000 * np.median(apart):.0f} mm away after 32 steps"
            )
        tried = [replay for replay in self.done if replay.span.task]
        if tried and 2 * sum(replay.success for replay in tried) < len(tried):
            found.append(f"replayed actions do {sum(r.success for r in tried)} of {len(tried)} annotated tasks again")
        return found


def replay_source(source: Source, count: int) -> Replays:
    """Replay windows of a set in the embedded table: annotated ones first, then others from all over it.

    Args:
        source: of CALVIN's layout.
        count: how many windows.

    Raises:
        UserError: the set has another layout, or a file of it is damaged.
    """
    if source.layout.vectors != CALVIN.vectors:
        raise UserError(f"{source.path} has {source.layout.vectors}; --replay needs CALVIN's {CALVIN.vectors}")
    achieved = detect(sample(source), source.layout).achieved
    tables: dict[str, PlayTableEnv] = {}
    done, refused = [], []
    for span in _spans(source, count):
        scene = _scene(source, span.episode)
        table = tables.setdefault(scene, PlayTableEnv(cameras=False, scene=scene))
        try:
            done.append(_replay(table, source, span, achieved))
        except UserError as error:
            refused.append(f"episode {span.episode}, frame {span.start}: {error}")
    return Replays(done, refused, achieved)


def _scene(source: Source, episode: int) -> str:
    """The table of an episode: the last letter of CALVIN's names, or that of generated play; D if nothing is said."""
    named = source.episodes[episode].scene[-1:] or source.origin.config.get("table", {}).get("scene", "")
    return named if named in SCENES else "D"


def _spans(source: Source, count: int) -> list[Span]:
    annotated = [
        Span(number, segment.start, segment.stop, segment.task)
        for number, episode in enumerate(source.episodes)
        for segment in episode.segments
        if segment.success and segment.task in EIGHT and segment.length >= 3
    ]
    plain = [
        Span(number, start, start + PLAIN, "")
        for number, episode in enumerate(source.episodes)
        for start in range(0, episode.length - PLAIN + 1, PLAIN)
    ]
    chosen = _spread(annotated, count)
    return chosen + _spread(plain, count - len(chosen))


def _spread(spans: Sequence[Span], count: int) -> list[Span]:
    """At most so many, evenly from first to last."""
    count = min(count, len(spans))
    return [spans[i] for i in np.linspace(0, len(spans) - 1, count).round().astype(int)] if count else []


def _replay(table: PlayTableEnv, source: Source, span: Span, achieved: bool) -> Replay:
    run = read_run(source, span.episode, span.start, span.stop - span.start)
    robot, recorded = run[ROBOT].astype(np.float64), run[ACTION].astype(np.float64)
    if achieved:
        actions, targets = recover_commands(robot, recorded[:, 6])
        target = targets[0]
    else:
        actions = recorded
        # where the target was is seen from where the first command led
        target = recover_targets(robot[:2, ROBOT_FIELDS["joints"]])[0] - UNIT * actions[0, :6]
        target[3:] = wrap(target[3:])
    task = span.task or "open_drawer"
    table.reset(seed=0, options={"task": task, ROBOT: robot[0], SCENE: run[SCENE][0].astype(np.float64)})
    table.target_position, table.target_euler = target[:3], target[3:]
    apart, success = {}, False
    for step, action in enumerate(actions[:-1], 1):
        success |= table.step(action)[2]
        if step in STEPS:
            apart[step] = float(np.linalg.norm(table.robot_obs()[:3] - robot[step, :3]))
    return Replay(span, apart, success)
