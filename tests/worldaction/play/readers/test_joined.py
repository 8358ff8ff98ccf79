"""Several recorded sets are one, in the units of the first, and what each holds out stays so whatever comes later."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorded_world import NUMBERS, TASKS, record

from worldaction.config import RecordedConfig
from worldaction.errors import UserError
from worldaction.play.action_scaling import Scaled
from worldaction.play.attempts import Attempts
from worldaction.play.convert import convert
from worldaction.play.readers.joined import SETS, in_units_of, joined
from worldaction.play.readers.source import Wrapped, open_source
from worldaction.play.store import PlayStore, Segment, StoreWriter
from worldaction.spec import ACTION, ROBOT, Layout

RNG = np.random.default_rng(3)


def another(path: Path, layout: Layout = NUMBERS, *, rate: float | None = 30.0, most: float = 1.0) -> Path:
    """A set of two attempts of a robot with this layout."""
    with StoreWriter(
        path, image_size=8, source="a robot", renderer="none", layout=layout, config={"rate": rate}
    ) as writer:
        for success in (True, False):
            arrays = {key: RNG.uniform(-most, most, (12, size)) for key, size in layout.vectors.items()}
            arrays |= {camera: np.zeros((12, 8, 8, 3), np.uint8) for camera in layout.cameras}
            writer.add_episode(arrays, kind="near_miss", segments=[Segment(TASKS[0], 0, 12, success)])
    return path


def test_all_episodes_are_there_one_set_after_the_other(tmp_path: Path) -> None:
    paths = [record(tmp_path / "old", 5), record(tmp_path / "new", 3, frames=12)]
    sources = [open_source(path) for path in paths]
    store = convert(joined(sources), tmp_path / "store", image_size=1)
    assert [e.length for e in store.episodes] == [20] * 5 + [12] * 3
    for key in (ROBOT, ACTION):
        parts = [PlayStore.open(path).frames[key].numpy() for path in paths]
        assert np.array_equal(store.frames[key].numpy(), np.concatenate(parts))
    assert store.meta.config[SETS] == [
        {"path": str(paths[0]), "episodes": 5, "frames": 100},
        {"path": str(paths[1]), "episodes": 3, "frames": 36},
    ]
    assert joined(sources[:1]) is sources[0]


def test_what_was_held_out_of_a_set_stays_so_when_another_one_comes(tmp_path: Path) -> None:
    old, new = (open_source(record(tmp_path / name, 24)) for name in ("old", "new"))
    alone = Attempts(old, config=RecordedConfig())
    both = joined([alone, Attempts(new, config=RecordedConfig())])
    assert [e.split for e in both.episodes[:24]] == [e.split for e in alone.episodes]
    assert {e.split for e in both.episodes[24:]} == {"training", "validation"}


def test_a_camera_and_a_scene_that_one_set_has_not_are_left_out(tmp_path: Path) -> None:
    full = replace(NUMBERS, cameras=("top", "wrist"), scene=4)
    old = open_source(another(tmp_path / "old", full))
    new = open_source(another(tmp_path / "new", replace(full, cameras=("wrist",), scene=0)))
    both = joined([old, new])
    assert (both.layout.cameras, both.layout.scene, both.image_size) == (("wrist",), 0, 8)
    assert {tuple(sorted(b)) for n in range(4) for b in both.blocks(n, image_size=8)} == {
        ("action", "robot_obs", "wrist")
    }
    assert {tuple(sorted(b)) for n in range(4) for b in both.blocks(n, image_size=0)} == {("action", "robot_obs")}


@pytest.mark.parametrize(
    ("layout", "rate", "said"),
    [
        (replace(NUMBERS, robot=3), 30.0, r"is of another robot than .*old: robot is 3, not 2; leave it out"),
        (replace(NUMBERS, action=3, null_action=(0.0,) * 3), 30.0, "action is 3, not 2"),
        (replace(NUMBERS, absolute=not NUMBERS.absolute), 30.0, "absolute is (True|False), not"),
        (NUMBERS, 15.0, r"has 15 frames a second, .*old has 30; leave it out"),
    ],
)
def test_sets_of_another_robot_or_rate_are_refused(tmp_path: Path, layout: Layout, rate: float, said: str) -> None:
    old, new = another(tmp_path / "old"), another(tmp_path / "new", layout, rate=rate)
    with pytest.raises(UserError, match=said):
        joined([open_source(old), open_source(new)])


class Wide(Wrapped):
    """A set whose actions are 100 times as large."""

    def blocks(self, episode: int, *, image_size: int | None, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        for block in self._source.blocks(episode, image_size=image_size, start=start):
            yield block | {ACTION: 100 * block[ACTION]}


def test_actions_are_scaled_as_those_of_the_first_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = Scaled(open_source(another(tmp_path / "old")), np.full(2, -50.0), np.full(2, 50.0))
    raw = Wide(open_source(another(tmp_path / "new")))
    with caplog.at_level(logging.WARNING, "worldaction"):
        found = np.concatenate([b[ACTION] for n in range(2) for b in in_units_of(old, raw).blocks(n, image_size=0)])
    given = np.concatenate([b[ACTION] for n in range(2) for b in raw.blocks(n, image_size=0)])
    assert np.allclose(found, (given / 50).clip(-1, 1), atol=1e-6)
    beyond = int((np.abs(given) > 50).any(1).sum())
    assert f"actions of {beyond} of 24 frames lie beyond those of" in caplog.text
    # a policy's own episodes are scaled already, as it learned to act
    again = convert(in_units_of(old, raw), tmp_path / "kept", image_size=8)
    kept = open_source(again.path)
    assert in_units_of(old, kept) is kept
    other = Scaled(open_source(tmp_path / "new"), np.full(2, -40.0), np.full(2, 50.0))
    for one, two in ((old, other), (raw, old)):
        with pytest.raises(UserError, match="its actions were scaled otherwise than those of"):
            in_units_of(one, two)
