"""A robot with other cameras, other numbers, or none of them fits the same store, model and policy."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from worldaction.errors import UserError
from worldaction.io.sealed_json import SEAL
from worldaction.losses.tools.contract import tiny_model
from worldaction.play.layout import layout_problem
from worldaction.play.store import PlayStore, StoreWriter
from worldaction.spec import ACTION, CALVIN, IS_INIT, PREVIOUS_ACTION, ROBOT, SCENE, Layout
from worldaction.world_model.model import ModelConfig, total

SIZE, T = 16, 6
NUMBERS = Layout((), robot=5, scene=0, action=3, null_action=(0.5, 0.0, -0.5))
PIXELS = Layout(("left_eye",), robot=0, scene=1, action=2, null_action=(0.0, 0.0), binary=(0,))
LAYOUTS = {"numbers": NUMBERS, "pixels": PIXELS, "calvin": CALVIN}
LOSSES = ("reconstruction", "kl", "inverse_dynamics=1,hidden=8")


def arrays(layout: Layout, frames: int = T) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {camera: rng.integers(0, 256, (frames, SIZE, SIZE, 3), np.uint8) for camera in layout.cameras}
    return found | {key: rng.uniform(-1, 1, (frames, size)) for key, size in layout.vectors.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_store_keeps_what_the_layout_names_and_gives_it_back(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    given = arrays(layout)
    with StoreWriter(tmp_path / "s", image_size=SIZE, source="x", renderer="y", layout=layout) as writer:
        writer.add_episode(given, kind="play")
    store = PlayStore.open(tmp_path / "s")
    assert store.meta.layout == layout
    for key, value in given.items():
        kept = store.frames[key].numpy()
        assert np.array_equal(kept, value if value.dtype == np.uint8 else value.astype(np.float32))
    assert store.frames[PREVIOUS_ACTION][0].tolist() == pytest.approx(list(layout.null_action))
    assert set(store.frames.keys()) - set(given) == {PREVIOUS_ACTION, IS_INIT, "episode"}


def test_a_store_from_before_actions_could_be_absolute_holds_moves(tmp_path: Path) -> None:
    layout = replace(NUMBERS, absolute=True)
    with StoreWriter(tmp_path / "s", image_size=SIZE, source="x", renderer="y", layout=layout) as writer:
        writer.add_episode(arrays(layout), kind="play")
    assert PlayStore.open(tmp_path / "s").meta.layout.absolute
    path = tmp_path / "s/store.json"
    content = json.loads(path.read_text())
    del content[SEAL]
    content["layout"]["absolute"] = "yes"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"layout\.absolute is 'yes', not true or false"):
        PlayStore.open(tmp_path / "s")
    del content["layout"]["absolute"]
    path.write_text(json.dumps(content))
    assert PlayStore.open(tmp_path / "s").meta.layout == NUMBERS


def test_frames_of_another_layout_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"robot_obs has shape \(6, 15\), expected \(6, 5\)"),
        StoreWriter(tmp_path / "s", image_size=SIZE, source="x", renderer="y", layout=NUMBERS) as writer,
    ):
        writer.add_episode(arrays(NUMBERS) | {ROBOT: np.zeros((T, 15))}, kind="play")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_world_model_learns_from_what_there_is(name: str) -> None:
    layout = LAYOUTS[name]
    model = tiny_model(LOSSES, layout=layout, cameras=layout.cameras)
    values = {key: torch.as_tensor(value)[None] for key, value in arrays(layout).items()}
    values = {key: value if value.dtype == torch.uint8 else value.float() for key, value in values.items()}
    values[PREVIOUS_ACTION] = values[ACTION].roll(1, 1)
    values[PREVIOUS_ACTION][:, 0] = torch.tensor(layout.null_action)
    values[IS_INIT] = (torch.arange(T) == 0)[None]
    batch = TensorDict(values, [1, T])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for _ in range(30):
        torch.manual_seed(0)
        terms, _, _ = model.losses_of(batch)
        loss = total(terms)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < history[0]
    used = [key for key, value in model.named_parameters() if value.grad is not None and bool(value.grad.any())]
    assert any(key.startswith("encoder") for key in used)
    seen = {key: batch[key][0] for key in model.config.observed}
    assert model.embed(seen).shape == (T, model.encoder.size)


def test_a_model_s_layout_survives_its_configuration_file() -> None:
    for layout in LAYOUTS.values():
        config = replace(tiny_model().config, layout=layout, cameras=layout.cameras)
        plain = {**asdict(config), "layout": {key: _listed(value) for key, value in asdict(layout).items()}}
        assert ModelConfig.from_dict(plain, source=Path("config.json")) == config


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_euler_angles_become_a_rotation_only_where_the_layout_has_them() -> None:
    assert CALVIN.proprio == CALVIN.robot + 3
    assert NUMBERS.proprio == NUMBERS.robot
    model = tiny_model(layout=NUMBERS, cameras=())
    model.standardise(torch.arange(10.0).view(2, 5))
    assert model.proprio_mean.tolist() == pytest.approx([2.5, 3.5, 4.5, 5.5, 6.5])


def test_what_is_privileged_is_recorded_and_never_observed() -> None:
    for layout in LAYOUTS.values():
        assert SCENE not in tiny_model(layout=layout, cameras=layout.cameras).config.observed
        assert (SCENE in layout.vectors) == (layout.scene > 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"binary": (7,)}, "binary or an angle"),
        ({"binary": (-1,)}, "no number of things"),
        ({"euler": 13}, "binary or an angle"),
        ({"cameras": ("../x",)}, "is no word"),
        ({"action": 0}, "no number of things"),
        ({"action": 8}, "null action has 7 numbers"),
    ],
)
def test_a_layout_that_somebody_edited_has_to_fit_together(change: dict[str, Any], message: str) -> None:
    assert layout_problem(CALVIN) is None
    assert message in str(layout_problem(replace(CALVIN, **change)))
