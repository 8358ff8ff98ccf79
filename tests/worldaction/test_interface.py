"""What a robot gives reaches the policy as recorded frames do, and what it is told is what was recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_sets
import numpy as np
import pytest
import torch
from foreign_sets import Episodes

from worldaction import spec
from worldaction.errors import UserError
from worldaction.interface import ActionScale, RobotInterface, interface_of
from worldaction.io.atomic import plain
from worldaction.play.action_scaling import Scaled
from worldaction.play.convert import convert
from worldaction.play.images import fitted
from worldaction.play.layout import StoreMeta
from worldaction.play.readers.source import Source, open_source
from worldaction.play.store import PlayStore

CALVIN_SET = Path(__file__).resolve().parents[1] / "data/calvin_sample_native"
SIDE = 8


FORMATS: dict[str, Callable[[Path], Any]] = {
    "lerobot-2.1": foreign_sets.write_v21,
    "lerobot-3.0": foreign_sets.write_v30,
    "robomimic.hdf5": foreign_sets.write_robomimic,
    "minari": foreign_sets.write_minari,
    "calvin": lambda path: path.symlink_to(CALVIN_SET),
}


@pytest.fixture
def joints(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny sets hold joint positions in degrees, the last number a gripper from 0 to 100."""
    made = foreign_sets.episodes

    def degrees(*args: Any, **kwargs: Any) -> Episodes:
        found = made(*args, **kwargs)
        for episode in found:
            action = episode[spec.ACTION]
            episode[spec.ACTION] = (action * [100, 60, 50] + [0, 20, 50]).astype(np.float32)
        return found

    monkeypatch.setattr(foreign_sets, "episodes", degrees)


def recorded(source: Source, key: str) -> np.ndarray:
    """Of all episodes, pictures in their own size."""
    blocks = [block for n in range(len(source.episodes)) for block in source.blocks(n, image_size=None)]
    return np.concatenate([block[key] for block in blocks])


def scaled(source: Source) -> Scaled:
    """By the range of the set, whatever that is."""
    action = recorded(source, spec.ACTION)
    return Scaled(source, action.min(0), action.max(0))


def stored(folder: Path, name: str) -> tuple[Source, PlayStore]:
    FORMATS[name](folder / name)
    source = open_source(folder / name)
    return source, convert(scaled(source), folder / "store", image_size=SIDE)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("joints")
def test_the_action_executed_is_the_action_recorded(tmp_path: Path, name: str) -> None:
    source, store = stored(tmp_path, name)
    meant = recorded(source, spec.ACTION)
    learned = store.frames[spec.ACTION].numpy()
    assert np.abs(learned).max() <= 1
    executed = interface_of(store.meta).to_robot(learned)
    np.testing.assert_allclose(executed, meant, rtol=0, atol=1e-6 * np.abs(meant).max())


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_robot_sees_is_what_was_recorded_of_it(tmp_path: Path, name: str) -> None:
    source, store = stored(tmp_path, name)
    interface, layout = interface_of(store.meta), store.meta.layout
    names = {one.key: one.name for one in interface.cameras}
    given: dict[str, Any] = {names.get(c, c): recorded(source, c) for c in layout.cameras}
    if name != "minari":
        # as robots give it: floats, channels first
        given = {c: torch.from_numpy(value).movedim(-1, -3) / 255 for c, value in given.items()}
    else:
        given |= {"state": recorded(source, spec.ROBOT)[:, 1:], "goal": recorded(source, spec.ROBOT)[:, :1]}
    if name.startswith("robomimic"):
        parts = np.split(recorded(source, spec.ROBOT), [3], axis=1)
        given |= dict(zip(interface.state, parts, strict=True))
    elif name != "minari":
        given |= {(interface.state or (spec.ROBOT,))[0]: recorded(source, spec.ROBOT)}
    frames = [{key: value[t] for key, value in given.items()} for t in range(len(store))]
    sizes = {"cameras": layout.cameras, "side": SIDE, "robot": layout.robot}
    for key, value in interface.observe(given, **sizes).items():
        np.testing.assert_array_equal(value, store.frames[key].numpy())
        alone = np.stack([interface.observe(frame, **sizes)[key] for frame in frames])
        np.testing.assert_array_equal(alone, value)


def test_the_robot_s_names_rate_and_sizes_are_known(tmp_path: Path) -> None:
    _, store = stored(tmp_path, "lerobot-3.0")
    interface = interface_of(store.meta)
    assert (interface.source, interface.rate, interface.state) == ("lerobot", 10.0, ("observation.state",))
    assert [(c.key, c.name, c.height, c.width) for c in interface.cameras] == [
        ("top", "observation.images.top", 16, 24),
        ("wrist", "observation.images.wrist", 16, 16),
    ]


def test_an_interface_survives_its_json(tmp_path: Path) -> None:
    _, store = stored(tmp_path, "robomimic.hdf5")
    interface = interface_of(store.meta)
    assert interface.scale is not None
    assert RobotInterface.from_dict(json.loads(json.dumps(plain(interface))), source="here") == interface


@pytest.mark.parametrize("change", [{"scale": 3}, {"rate": "fast"}, {"cameras": [{"key": "top"}]}, {"state": [1]}])
def test_a_damaged_interface_is_refused_by_the_name_of_its_file(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config\.json: what it says of the robot is damaged"):
        RobotInterface.from_dict({**plain(RobotInterface()), **change}, source="config.json")


def test_a_store_of_before_takes_its_own_names() -> None:
    meta = StoreMeta(SIDE, "lerobot", "unknown", None, spec.CALVIN, {"rate": None})
    assert interface_of(meta) == RobotInterface("lerobot")
    assert interface_of(StoreMeta(SIDE, "playtable", "rays", 0, spec.CALVIN)).rate == spec.CONTROL_HZ


@pytest.mark.parametrize("config", [{"cameras": 3}, {"features": 3}, {"action_scale": {"low": [0]}}, {"rate": "x"}])
def test_a_store_whose_config_was_changed_by_hand_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="damaged"):
        interface_of(StoreMeta(SIDE, "lerobot", "unknown", None, spec.CALVIN, config))


def test_a_number_that_never_changes_is_executed_as_it_was() -> None:
    scale = ActionScale((-2.0, 5.0), (2.0, 5.0))
    np.testing.assert_array_equal(scale.to_unit(np.array([[1.0, 5.0]])), [[0.5, 0.0]])
    np.testing.assert_array_equal(scale.to_robot(np.array([[0.5, 0.0], [1.0, 0.9]])), [[1.0, 5.0], [2.0, 5.0]])


def test_a_single_box_of_numbers_needs_no_name() -> None:
    numbers = np.arange(3.0)
    interface = RobotInterface(state=("",))
    assert interface.observe(numbers, cameras=(), side=SIDE, robot=3)[spec.ROBOT].tolist() == [0, 1, 2]
    assert interface.observe(numbers[None], cameras=(), side=SIDE, robot=3)[spec.ROBOT].shape == (1, 3)


def test_numbers_inside_of_mappings_are_found() -> None:
    interface = RobotInterface(state=("arm/angle", "hand"))
    given = {"arm": {"angle": np.ones((2, 2))}, "hand": np.zeros((2, 1))}
    assert interface.observe(given, cameras=(), side=SIDE, robot=3)[spec.ROBOT].tolist() == [[1, 1, 0]] * 2


def observe(picture: Any) -> np.ndarray:
    return RobotInterface().observe({"top": picture}, cameras=("top",), side=SIDE, robot=0)["top"]


def test_pictures_of_the_right_size_are_left_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert observe(picture) is picture
    large = np.random.default_rng(0).integers(0, 256, (4, 20, 33, 3), np.uint8)
    np.testing.assert_array_equal(observe(large), fitted(large, SIDE))


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((20, 7, 3), np.uint8), r"'top' is 20 x 7 pixels; this policy sees 8 x 8, so give larger pictures"),
        (np.zeros((20, 20), np.uint8), r"'top' is \[20, 20\]; give pictures in colour"),
        (np.full((20, 20, 3), 100.0), "from 100 to 100; give uint8 from 0 to 255, or float from 0 to 1"),
        (np.full((20, 20, 3), np.nan), "give uint8 from 0 to 255, or float from 0 to 1"),
        (np.zeros((20, 20, 3), np.int64), "'top' is int64 from 0 to 0; give uint8"),
    ],
)
def test_a_picture_that_cannot_be_meant_is_refused_with_what_would_do(picture: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        observe(picture)


def test_what_is_missing_is_named_by_all_names_that_would_do() -> None:
    with pytest.raises(UserError, match=r"no 'top' \(or 'observation.images.top'\); it has wrist"):
        RobotInterface().observe({"wrist": 0}, cameras=("top",), side=SIDE, robot=0)
