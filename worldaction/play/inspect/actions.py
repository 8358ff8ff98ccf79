"""What the actions of a data set mean, found out from how the robot moved: relative or absolute, and in which units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldaction.spec import ACTION, METRES_PER_UNIT, RADIANS_PER_UNIT, ROBOT, Layout

Array = NDArray[np.float64]
Run = Mapping[str, np.ndarray]

SEVERAL: Final = 8
"""Steps over which commands are also compared with moves, because an arm lags what it is told."""
OPENING: Final = 1e-3
"""Change of the width from which a gripper moves (m a frame)."""
ENOUGH: Final = 0.5
"""R2 from which one thing is said to explain another."""
NEAR: Final = 0.25
"""Relative distance within which a scale is the one expected."""
SATURATED: Final = 0.3
TRIMMED: Final = 0.05
"""Share of the rows, those that fit worst, on which no verdict depends."""
STILL: Final = 0.01
"""Parts of the largest command and of the largest move, below which neither is one."""
ROWS: Final = 20
"""Commands or moves from which a slope can be told."""
ROUNDS: Final = 20
"""Of the trimmed fit, which settles in a few."""
CLEARLY: Final = 0.02
"""By how much R2 has to be larger for actions to stand in another frame."""
EXACT: Final = 0.99
"""R2 from which actions are the moves that were achieved."""
MIDDLE: Final = 0.03
"""Median deviation, in parts of the median move, below which they are so as well."""
SAME: Final = 1e-3
"""By how much an absolute action may differ from the pose that it is (m, rad)."""
UNITS: Final = np.repeat([METRES_PER_UNIT, RADIANS_PER_UNIT], 3)


class Fit(NamedTuple):
    """How well `y = slope * x` holds."""

    slope: float
    r2: float
    """Of the rows that are not trimmed."""
    middle: float = 1.0
    """Median deviation of all rows, in parts of the median move."""

    @property
    def exact(self) -> bool:
        """Whether one is the other: half of the rows may be wrong without changing it."""
        return self.r2 > EXACT or self.middle < MIDDLE

    def __str__(self) -> str:
        return f"slope {self.slope:.4g}, R2 {self.r2:.3f}"


class Actions(NamedTuple):
    """What the actions of a set are."""

    convention: str
    """Named in words, or "unknown"."""
    evidence: list[str]
    """The numbers that say so, a line each."""
    gripper: str
    suspicions: list[str]
    achieved: bool
    """Whether actions are the moves that followed, rather than commands that the robot lags."""
    kind: Literal["relative", "absolute", "clipped", "other"] = "other"
    """Of actions on poses: moves, poses, poses that were cut into [-1, 1], or neither of them."""
    units: tuple[float, float] = (0.0, 0.0)
    """Of relative actions: how far an action of one goes (m, rad); 0 rad where turns are not explained by them."""
    lag: int = 0
    """How many frames after its move an action stands: +1 is a frame late, -1 a frame early."""

    @property
    def absolute(self) -> bool:
        """Whether they are where the robot is to be, scaled or not."""
        return self.convention.startswith("absolute")


def detect(runs: Sequence[Run], layout: Layout) -> Actions:
    """What the actions of a data set are.

    Args:
        runs: consecutive frames of one episode each: `action` [T, A] and `robot_obs` [T, P].
        layout: what a frame holds; a pose is looked for before its Euler angles.
    """
    runs = finite(runs)
    if not runs:
        return Actions("unknown", ["every frame holds NaN or infinity"], "unknown", [], False)
    action = np.concatenate([run[ACTION] for run in runs]).astype(np.float64)
    suspicions = _suspicions(action)
    if is_on_poses(layout):
        assert layout.euler is not None
        meant = _of_poses(runs, layout.euler)
        return meant._replace(gripper=_gripper(runs, layout), suspicions=suspicions)
    if layout.robot and layout.robot >= layout.action:
        convention, evidence = _of_joints(runs, layout.action)
        kind: Literal["clipped", "other"] = "clipped" if convention.startswith("absolute, clipped") else "other"
        return Actions(convention, evidence, _gripper(runs, layout), suspicions, False, kind)
    return Actions("unknown", ["there is no proprioception to compare with"], "unknown", suspicions, False)


def finite(runs: Sequence[Run]) -> list[Run]:
    """Runs without the frames that hold NaN or infinity: those before and after are runs of their own."""
    parts: list[Run] = []
    for run in runs:
        keys = [key for key in (ACTION, ROBOT) if key in run]
        whole = np.all([np.isfinite(run[key]).all(1) for key in keys], axis=0)
        edges = np.flatnonzero(np.diff(np.pad(whole.astype(int), 1)))
        parts += [{key: run[key][a:b] for key in run} for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return parts


def is_on_poses(layout: Layout) -> bool:
    """Whether the first six numbers of an action can be compared with a pose."""
    return layout.euler is not None and layout.euler >= 3 and layout.action >= 6


def pose_of(robot: np.ndarray, euler: int) -> Array:
    """Position (m) and Euler angles (rad) [T, 6] of the TCP.

    Args:
        robot: `robot_obs` [T, P].
        euler: where the angles begin.
    """
    return robot[:, euler - 3 : euler + 3].astype(np.float64)


def wrapped(difference: Array) -> Array:
    """Differences of poses [..., 6], the angles in [-pi, pi)."""
    turn = (difference[..., 3:] + np.pi) % (2 * np.pi) - np.pi
    return np.concatenate([difference[..., :3], turn], -1)


def _of_poses(runs: Sequence[Run], euler: int) -> Actions:
    """Convention of actions whose first six numbers are compared with a pose."""

    def position(run: Run) -> Array:
        return run[ROBOT][:, euler - 3 : euler].astype(np.float64)

    def angles(run: Run) -> Array:
        # unwrapped, so that differences over many frames are right
        return np.unwrap(run[ROBOT][:, euler : euler + 3].astype(np.float64), axis=0)

    lag = _lag(runs, position)
    moved = {steps: _relative(runs, position, slice(0, 3), steps, lag) for steps in (1, SEVERAL)}
    turned = {steps: _relative(runs, angles, slice(3, 6), steps, lag) for steps in (1, SEVERAL)}
    there = _absolute(runs, position, slice(0, 3))
    lines = [f"position: the next frame's against action: {there}"]
    for name, unit, fits in (("move", "m", moved), ("turn", "rad", turned)):
        lines += [f"{name} of {steps} frame{'s' * (steps > 1)} against action: {fit} ({unit} per unit)"
                  for steps, fit in fits.items()]  # fmt: skip
    if lag:
        lines.append(f"moves are explained best by the action of the frame {'after' if lag > 0 else 'before'}")
    unknown = Actions("unknown", lines, "", [], False)
    achieved = moved[1].exact
    # a lagging arm shows the scale over several frames only
    steps = 1 if achieved else SEVERAL
    aims = [(run[ACTION][:, :6].astype(np.float64), pose_of(run[ROBOT], euler)) for run in runs]
    if _is_clipped(aims):
        words = "absolute, clipped: the pose of the TCP in the next frame, cut into [-1, 1]"
        return unknown._replace(convention=words, achieved=True, kind="clipped")
    if there.r2 > 0.9 and is_near(there.slope, 1):
        lag = _lag_of_poses(aims)
        words = "absolute: the pose of the TCP in the next frame" + _stands(lag)
        return unknown._replace(convention=words, achieved=True, kind="absolute", lag=lag)
    if achieved or moved[steps].r2 > ENOUGH:
        words = _named(moved[steps].slope, turned[steps].slope, achieved) + _stands(lag)
        turns = turned[steps].exact or turned[steps].r2 > ENOUGH
        units = (moved[steps].slope, turned[steps].slope if turns else 0.0)
        return unknown._replace(convention=words, achieved=achieved, kind="relative", units=units, lag=lag)
    if _rescaled(runs, position, slice(0, 3)) > 0.9:
        words = "absolute, rescaled: the TCP's next position is a linear function of action, number by number"
        return unknown._replace(convention=words)
    return unknown


def _lag(runs: Sequence[Run], position: Callable[[Run], Array]) -> int:
    """How many frames too late actions stand: one where the next frame's action explains a move clearly better.

    A robot may lag its commands, but a move comes from no later one. Only where the actions of the frame before are
    moves to the bit, actions can be seen to stand too early.
    """
    late, now, early = (_relative(runs, position, slice(0, 3), 1, lag) for lag in (1, 0, -1))
    fit, lag = min((late, 1), (early, -1), key=lambda pair: pair[0].middle)
    if fit.middle < min(MIDDLE, now.middle / 2):
        return lag
    return int(not now.exact and late.r2 > max(now.r2 + CLEARLY, ENOUGH, early.r2))


def _stands(lag: int) -> str:
    """In words."""
    return f", one frame too {'late' if lag > 0 else 'early'}" if lag else ""


def _lag_of_poses(aims: Sequence[tuple[Array, Array]]) -> int:
    """How many frames too late absolute actions stand: nonzero only if they are the poses there, and not here."""
    apart = {
        lag: np.concatenate([np.abs(wrapped(a[1 + lag : len(a) - 2 + lag] - p[2:-1])).max(1) for a, p in aims])
        for lag in (0, 1, -1)
    }
    fits = {lag: np.median(values) < SAME for lag, values in apart.items() if len(values)}
    return next((lag for lag, fit in fits.items() if fit), 0)


def _is_clipped(aims: Sequence[tuple[Array, Array]]) -> bool:
    """Whether actions are states of the next frame of which what lies beyond 1 was cut: (actions, states) [T, n]."""
    state = np.concatenate([states[1:] for _, states in aims])
    action = np.concatenate([actions[:-1] for actions, _ in aims])
    cut = np.abs(action - np.clip(state, -1, 1)) < SAME
    beyond = np.abs(state) > 1 + SAME
    return bool(beyond.any() and min(cut.mean(), cut[beyond].mean()) > 1 - 2 * TRIMMED)


def _named(metres: float, radians: float, achieved: bool) -> str:
    """A relative convention in words."""
    what = "moves that were achieved" if achieved else "commands, which the robot lags"
    if is_near(metres, METRES_PER_UNIT) and is_near(radians, RADIANS_PER_UNIT):
        return (
            f"relative, scaled as CALVIN's rel_actions ({METRES_PER_UNIT} m, {RADIANS_PER_UNIT} rad per unit): {what}"
        )
    if is_near(metres, 1):
        return f"relative, unscaled (metres, radians): {what}"
    return f"relative, scaled by {metres:.4g} m and {radians:.4g} rad per unit: {what}"


def _of_joints(runs: Sequence[Run], size: int) -> tuple[str, list[str]]:
    """Convention of actions that are compared number by number with the first ones of the proprioception."""

    def state(run: Run) -> Array:
        return run[ROBOT][:, :size].astype(np.float64)

    there, moved = _absolute(runs, state, slice(0, size)), _relative(runs, state, slice(0, size), 1)
    lines = [f"robot_obs: the next frame's against action: {there}", f"its change against action: {moved}"]
    if _is_clipped([(run[ACTION].astype(np.float64), state(run)) for run in runs]):
        return "absolute, clipped: robot_obs in the next frame, cut into [-1, 1]", lines
    if there.r2 > 0.9 and is_near(there.slope, 1):
        return "absolute: robot_obs in the next frame", lines
    if moved.r2 > ENOUGH:
        return f"relative: action times {moved.slope:.4g} is the change of robot_obs", lines
    if _rescaled(runs, state, slice(0, size)) > 0.9:
        return "absolute, rescaled: robot_obs in the next frame is a linear function of action, number by number", lines
    return "unknown", lines


def _relative(runs: Sequence[Run], what: Callable[[Run], Array], columns: slice, steps: int, lag: int = 0) -> Fit:
    """The change over so many frames against the sum of their actions, or of those that stand `lag` frames later."""
    xs, ys = [], []
    for run in runs:
        if len(run[ACTION]) > steps + abs(lag):
            sums = np.cumsum(np.pad(run[ACTION][:, columns].astype(np.float64), ((1, 0), (0, 0))), axis=0)
            values = what(run)
            x, y = sums[steps:-1] - sums[: -1 - steps], values[steps:] - values[:-steps]
            xs.append(x[max(lag, 0) : len(x) + min(lag, 0)])
            ys.append(y[max(-lag, 0) : len(y) + min(-lag, 0)])
    return _through_origin(xs, ys)


def _absolute(runs: Sequence[Run], what: Callable[[Run], Array], columns: slice) -> Fit:
    """The next frame's values, less their medians, against the actions less the same."""
    ys = [what(run)[1:] for run in runs if len(run[ACTION]) > 1]
    xs = [run[ACTION][:-1, columns].astype(np.float64) for run in runs if len(run[ACTION]) > 1]
    if not ys:
        return Fit(0.0, 0.0)
    centre = np.median(np.concatenate(ys), 0)
    return _through_origin([x - centre for x in xs], [y - centre for y in ys])


def _through_origin(xs: Sequence[Array], ys: Sequence[Array]) -> Fit:
    """The slope on which half of the rows agree, if they do; else that of all rows but those that fit worst.

    A swapped frame or a lost one is a row that must have no say, and so are all actions of an episode that is shifted.
    Rows in which nothing is told and nothing moves fit any slope, so they have none either.
    """
    if not xs:
        return Fit(0.0, 0.0)
    x, y = np.concatenate(xs), np.concatenate(ys)
    told = _happens(x) | _happens(y)
    x, y = x[told], y[told]
    if len(x) < ROWS:
        return Fit(0.0, 0.0)
    half = _trimmed(x, y, len(x) - len(x) // 2)
    return half if half.middle < MIDDLE else _trimmed(x, y, len(x) - int(TRIMMED * len(x)))


def _happens(values: Array) -> NDArray[np.bool_]:
    """In which rows [n] of commands or of moves [n, d] there is one."""
    size = np.abs(values).max(1, initial=0)
    return np.asarray(size > STILL * size.max(initial=0))


def _trimmed(x: Array, y: Array, count: int) -> Fit:
    """Least trimmed squares (Rousseeuw 1984) of so many rows.

    Concentration steps (Rousseeuw and Van Driessen 2006) alternate between the slope of the rows that are kept and the
    rows that the slope fits best.
    """
    kept = np.arange(len(x))
    slope, wrong = 0.0, np.zeros(len(x))
    for _ in range(ROUNDS):
        slope = float((x[kept] * y[kept]).sum() / max((x[kept] ** 2).sum(), 1e-12))
        wrong = ((y - slope * x) ** 2).sum(1)
        # stable, so that ties are broken alike on every machine
        best = np.sort(np.argsort(wrong, kind="stable")[:count])
        if np.array_equal(best, kept):
            break
        kept = best
    moved, middle = float((y[kept] ** 2).sum()), float(np.median((y**2).sum(1)))
    # of what stands still nothing is explained
    r2 = 1 - float(wrong[kept].sum()) / moved if moved else 0.0
    return Fit(slope, r2, float(np.sqrt(np.median(wrong) / middle)) if middle else 1.0)


def _rescaled(runs: Sequence[Run], what: Callable[[Run], Array], columns: slice) -> float:
    """The smallest squared correlation of an action's number with the next frame's value of the same place."""
    pairs = [(run[ACTION][:-1, columns], what(run)[1:]) for run in runs if len(run[ACTION]) > 1]
    if not pairs:
        return 0.0
    x, y = (np.concatenate(part).astype(np.float64) for part in zip(*pairs, strict=True))
    x, y = x - x.mean(0), y - y.mean(0)
    return float(((x * y).sum(0) ** 2 / np.maximum((x**2).sum(0) * (y**2).sum(0), 1e-24)).min())


def _gripper(runs: Sequence[Run], layout: Layout) -> str:
    """What the sign of the gripper's number does to the opening width."""
    if not layout.binary:
        return "no number of an action is read by its sign"
    number = layout.binary[0]
    values = np.unique(np.concatenate([run[ACTION][:, number] for run in runs]))
    shown = ", ".join(f"{value:g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
    if layout.euler is None or layout.robot <= layout.euler + 3:
        return f"action[{number}] takes {shown}; no width is known to compare it with"
    width = layout.euler + 3
    pairs = [(np.sign(run[ACTION][:-1, number]), np.diff(run[ROBOT][:, width])) for run in runs if len(run[ACTION]) > 1]
    sign, change = (np.concatenate(part) for part in zip(*pairs, strict=True)) if pairs else (np.zeros(0), np.zeros(0))
    moving = np.abs(change) > OPENING
    if moving.sum() < 2 or sign[moving].std() == 0:
        return f"action[{number}] takes {shown}; the gripper hardly moves, so which sign opens is not seen"
    correlation = float(np.corrcoef(sign[moving], change[moving])[0, 1])
    opens = "+1 opens" if correlation > 0.3 else "-1 opens" if correlation < -0.3 else "neither sign clearly opens"
    return f"{opens} (correlation with the change of width {correlation:+.2f}); action[{number}] takes {shown}"


def _suspicions(action: Array) -> list[str]:
    """What looks as if actions had been scaled once too often."""
    found = []
    moving = action[:, :6][:, action[:, :6].std(0) > 0]
    if moving.size == 0:
        return ["actions never change"]
    largest = float(np.abs(moving).max())
    if largest <= 1.001 and (share := float((np.abs(moving) >= 0.999).mean())) > SATURATED:
        found.append(f"{share:.0%} of the numbers of actions are at -1 or +1: they look clipped, or scaled twice")
    if largest > 1.001 and (abs(moving.std(0) - 1) < 0.1).all() and (abs(moving.mean(0)) < 0.1).all():
        found.append("actions have mean 0 and deviation 1: they look normalised already")
    if largest < 0.1:
        found.append(f"actions never exceed {largest:.3g}: they look unscaled, or scaled down twice")
    return found


def is_near(value: float, expected: float) -> bool:
    """Whether a scale is the one expected, by a quarter of it."""
    return abs(value / expected - 1) < NEAR
