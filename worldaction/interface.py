"""Between a robot and a policy: the robot's names, pictures and units, saved with the policy that acts on it.

    recorded data --reader--> play store --interface_of--> RobotInterface --> Policy, which takes what the robot gives

A policy sees square pictures of one size under the store's names, and acts in [-1, 1]. The robot has names, sizes and
units of its own. Pictures are fitted by the function with which readers fit them, and actions go back along the line by
which they were scaled, so that the action executed is the one that was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldaction.errors import UserError
from worldaction.play.images import fitted
from worldaction.play.layout import StoreMeta
from worldaction.spec import CONTROL_HZ, ROBOT

RECORDED: Final = "action_scale"
"""Where a store's config says how its actions were scaled: `low` and `high`, which became -1 and 1."""
CAMERAS_RECORDED: Final = "cameras"
"""Where it says what the source calls each camera, and how large its pictures are: `name`, `height`, `width`."""
TABLES: Final = ("playtable", "calvin", "calvin simulator")
"""Sources whose stores do not say their rate, because it is always the tables'."""
LEROBOT_IMAGE: Final = "observation.images."
LEROBOT_STATE: Final = "observation.state"


@dataclass(frozen=True)
class ActionScale:
    """One straight line for each number of an action, between the robot's units and [-1, 1].

    a' = (2 a - high - low) / (high - low), limited to [-1, 1]; a number that never changes is 0. To act,
    a = low + (a' + 1) (high - low) / 2.
    """

    low: tuple[float, ...]
    """[A] in the robot's units, what is -1."""
    high: tuple[float, ...]
    """[A], what is 1."""

    def to_unit(self, action: np.ndarray) -> np.ndarray:
        """Actions [..., A] of the robot in [-1, 1], float32."""
        middle, half = self._line()
        return ((action - middle) / np.where(half > 0, half, 1.0)).clip(-1, 1).astype(np.float32)

    def to_robot(self, action: np.ndarray) -> np.ndarray:
        """Actions [..., A] in [-1, 1] as the robot takes them, float32."""
        middle, half = self._line()
        return (middle + half * action).astype(np.float32)

    def _line(self) -> tuple[np.ndarray, np.ndarray]:
        """[A] float64: what is 0, and how far 1 is from it."""
        low, high = np.array(self.low), np.array(self.high)
        return (low + high) / 2, (high - low) / 2


@dataclass(frozen=True)
class RobotCamera:
    """A camera as the robot has it."""

    key: str
    """In the store, and for the world model."""
    name: str
    """In the recorded set."""
    height: int
    width: int
    """Pixels of what was recorded."""


@dataclass(frozen=True)
class RobotInterface:
    """What the robot calls things, and its units. One that knows nothing takes our names and gives [-1, 1]."""

    source: str = ""
    """What recorded the data, such as "lerobot"."""
    rate: float | None = None
    """Control steps per second; None where nobody says."""
    cameras: tuple[RobotCamera, ...] = ()
    state: tuple[str, ...] = ()
    """What the set calls the numbers of `robot_obs`, one after the other; a slash leads into a mapping."""
    scale: ActionScale | None = None
    """None: the robot acts in [-1, 1] itself."""

    @classmethod
    def from_dict(cls, values: Any, *, source: Path | str) -> RobotInterface:
        """From what JSON gives; the inverse of `worldaction.io.atomic.plain`.

        Args:
            values: every field.
            source: where they come from, for the error.

        Raises:
            UserError: they are no such fields.
        """
        try:
            scale = values["scale"]
            bounds = None if scale is None else ActionScale(_numbers(scale["low"]), _numbers(scale["high"]))
            return cls(
                source=_text(values["source"]),
                rate=None if values["rate"] is None else float(values["rate"]),
                cameras=tuple(_camera(one) for one in values["cameras"]),
                state=tuple(_text(name) for name in values["state"]),
                scale=bounds,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source}: what it says of the robot is damaged ({error!r}); make it again") from error

    # ---- what the robot gives

    def observe(self, observation: Any, *, cameras: Sequence[str], side: int, robot: int) -> dict[str, np.ndarray]:
        """An observation, or a batch of them, as a policy sees it.

        Args:
            observation: arrays or tensors under the names of the store, of the recorded set, or of LeRobot
                (`observation.images.<camera>`, `observation.state`). Pictures of any size from `side` on, uint8 or
                float in [0, 1], [..., H, W, 3] or [..., 3, H, W].
            cameras: of the store, that the policy sees.
            side: of its pictures in pixels.
            robot: numbers of `robot_obs`; 0 if it sees none.

        Returns:
            each camera uint8 [..., side, side, 3], and `robot_obs` [..., robot] float32.

        Raises:
            UserError: something is missing, or a picture cannot be fitted; says what would do.
        """
        given = observation if hasattr(observation, "keys") else {"": observation}
        seen = {camera: _picture(self._image(given, camera), camera, side) for camera in cameras}
        return seen | ({ROBOT: _float32(self._numbers(given, robot))} if robot else {})

    def _image(self, given: Any, camera: str) -> np.ndarray:
        names = [camera, *(one.name for one in self.cameras if one.key == camera), LEROBOT_IMAGE + camera]
        return _first(given, names)

    def _numbers(self, given: Any, robot: int) -> np.ndarray:
        whole = [name for name in (ROBOT, LEROBOT_STATE) if name not in self.state]
        if not self.state or any(name in given.keys() for name in whole):  # noqa: SIM118 - TensorDict has no `in`
            return _first(given, whole)
        return _joined([_first(given, [name, *whole]) for name in self.state], robot)

    # ---- what it is told

    def to_robot(self, action: np.ndarray) -> np.ndarray:
        """Actions [..., A] of a policy in the robot's units."""
        return action if self.scale is None else self.scale.to_robot(action)


def interface_of(meta: StoreMeta) -> RobotInterface:
    """How to act on the robot whose data are in a play store.

    Args:
        meta: of the store; what older ones do not say is left open, and then the store's own names are the robot's.

    Raises:
        UserError: the store's config has been changed by hand.
    """
    config = meta.config
    cameras = config.get(CAMERAS_RECORDED) or {}
    try:
        names = (config.get("features") or {}).get(ROBOT) or []
        found = {
            "source": meta.source,
            "rate": config.get("rate", CONTROL_HZ if meta.source in TABLES else None),
            "cameras": [{"key": key, **cameras[key]} for key in meta.cameras if key in cameras],
            "state": [names] if isinstance(names, str) else names,
            "scale": config.get(RECORDED),
        }
    except (AttributeError, TypeError) as error:
        raise UserError(f"the play store's config is damaged ({error}); convert the data again") from error
    return RobotInterface.from_dict(found, source=f"the play store of {meta.source}")


def as_config(interface: RobotInterface) -> dict[str, Any]:
    """What a play store's config has to say so that `interface_of` finds a robot's interface, but for its source."""
    scale = interface.scale
    return {
        "rate": interface.rate,
        CAMERAS_RECORDED: {c.key: {"name": c.name, "height": c.height, "width": c.width} for c in interface.cameras},
        **({"features": {ROBOT: list(interface.state)}} if interface.state else {}),
        **({} if scale is None else {RECORDED: {"low": list(scale.low), "high": list(scale.high)}}),
    }


def recorded_cameras(cameras: Mapping[str, tuple[str, Sequence[int]]]) -> dict[str, Any]:
    """What readers write into a store's config about their cameras.

    Args:
        cameras: by the store's name: the set's, and height and width of what was recorded.
    """
    return {key: {"name": name, "height": h, "width": w} for key, (name, (h, w, *_)) in cameras.items()}


# ---- values ----------------------------------------------------------------------------------------------------------


_MISSING: Final = object()


def _float32(values: np.ndarray) -> np.ndarray:
    """Numbers as a policy reads them; those beyond its range are infinite, which a policy refuses by name."""
    if values.dtype.kind not in "biuf":
        raise UserError(f"observation {ROBOT!r} is no array of numbers (of {values.dtype}); give one")
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _first(given: Any, names: Sequence[str]) -> np.ndarray:
    """The array under the first of some names that is there."""
    name = next((name for name in names if _find(given, name) is not _MISSING), None)
    if name is None:
        other = f" (or {', '.join(map(repr, dict.fromkeys(names[1:])))})" if len(names) > 1 else ""
        raise UserError(f"observation has no {names[0]!r}{other}; it has {', '.join(map(str, given.keys()))}")
    found = _find(given, name)
    try:
        return np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
    except (TypeError, ValueError) as error:
        raise UserError(f"observation {name!r} is no array of numbers ({str(error)[:60]}); give one") from error


def _find(given: Any, name: str) -> Any:
    if name in given.keys():  # noqa: SIM118 - TensorDict has no `in`
        return given[name]
    head, slash, rest = name.partition("/")
    inside = slash and head in given.keys() and hasattr(given[head], "keys")  # noqa: SIM118
    return _find(given[head], rest) if inside else _MISSING


def _joined(parts: Sequence[np.ndarray], robot: int) -> np.ndarray:
    """Arrays of a frame, or of a batch of frames, as vectors [..., robot]."""
    one = all(part.ndim > 1 and len(part) == 1 for part in parts)
    lead = parts[0].shape[:1] if one or sum(part.size for part in parts) != robot else ()
    return np.concatenate([part.reshape(*lead, -1) for part in parts], axis=-1)


def _picture(value: np.ndarray, camera: str, side: int) -> np.ndarray:
    """Pictures as the world model sees them: uint8 [..., side, side, 3]."""
    if value.dtype == np.uint8 and value.shape[-3:] == (side, side, 3):
        return value
    pictures = _in_bytes(_channels_last(value, camera), camera)
    *lead, height, width, _ = pictures.shape
    if min(height, width) < side:
        raise UserError(
            f"{camera!r} is {height} x {width} pixels; this policy sees {side} x {side}, so give larger pictures"
        )
    return fitted(pictures.reshape(-1, height, width, 3), side).reshape(*lead, side, side, 3)


def _channels_last(value: np.ndarray, camera: str) -> np.ndarray:
    if value.ndim >= 3 and value.shape[-1] == 3:
        return value
    if value.ndim >= 3 and value.shape[-3] == 3:
        return np.moveaxis(value, -3, -1)
    raise UserError(f"{camera!r} is {list(value.shape)}; give pictures in colour, [..., H, W, 3] or [..., 3, H, W]")


def _in_bytes(value: np.ndarray, camera: str) -> np.ndarray:
    if value.dtype == np.uint8:
        return value
    if value.dtype.kind != "f" or not (value.min() >= 0 and value.max() <= 1):
        reach = f" from {value.min():.4g} to {value.max():.4g}" if value.dtype.kind in "fiu" else ""
        raise UserError(f"{camera!r} is {value.dtype}{reach}; give uint8 from 0 to 255, or float from 0 to 1")
    return np.rint(value * 255).astype(np.uint8)


# ---- JSON ------------------------------------------------------------------------------------------------------------


def _camera(values: Mapping[str, Any]) -> RobotCamera:
    return RobotCamera(_text(values["key"]), _text(values["name"]), int(values["height"]), int(values["width"]))


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
