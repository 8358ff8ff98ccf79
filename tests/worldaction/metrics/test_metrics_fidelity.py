"""The whole measurement: what it holds for any model and layout, and that it goes into JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from metrics_world import EPISODES, LENGTH, play
from paths import ROOT

from worldaction.io.atomic import plain
from worldaction.losses.tools.contract import IMAGE_SIZE, tiny_model
from worldaction.metrics.fidelity import fidelity
from worldaction.metrics.open_loop import Rolls, open_loop
from worldaction.spec import CALVIN, CAMERAS, ROBOT, SCENE, Layout
from worldaction.world_model.model import WorldModel

SECTIONS = {"probes", "tcp_error", "transit_interaction", "action_probe", "causal_sensitivity"}
PAGE = ROOT / "docs" / "metrics.md"


def measured(layout: Layout = CALVIN, *, losses: tuple[str, ...] = ("reconstruction",), horizon: int = 12) -> Any:
    """An untrained model on play with pictures of noise."""
    sizes = {"cameras": layout.cameras, "layout": layout}
    model: WorldModel = tiny_model(losses, **sizes).requires_grad_(False)
    frames = play()
    generator = torch.Generator().manual_seed(0)
    for camera in CAMERAS:
        shape = (len(frames), IMAGE_SIZE, IMAGE_SIZE, 3)
        frames[camera] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    for key, size in ((ROBOT, layout.robot), (SCENE, layout.scene)):
        frames[key] = frames[key][:, :size].clone()
    starts = torch.arange(EPISODES) * LENGTH
    training, validation = (
        open_loop(model, frames, part, context=4, horizon=horizon, seed=0) for part in starts.chunk(2)
    )
    return plain(fidelity(Rolls(model, frames, training, validation), seed=0, steps=5))


@pytest.fixture(scope="module")
def found() -> Any:
    """Of the tables' layout."""
    return measured()


def test_every_section_is_there_and_goes_into_json(found: Any) -> None:
    assert found.keys() == SECTIONS | {"psnr", "ssim", "moving"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert not [name for name in SECTIONS if "skipped" in found[name]]


def test_the_same_seed_gives_the_same_numbers(found: Any) -> None:
    assert measured() == found


@pytest.mark.parametrize(
    ("layout", "skipped"),
    [
        (replace(CALVIN, cameras=()), {"causal_sensitivity"}),
        (replace(CALVIN, scene=0), {"transit_interaction"}),
        (replace(CALVIN, scene=1, robot=0, euler=None), {"tcp_error"}),
        (Layout(("rgb_static",), 4, 1, 7, (0.0,) * 7), {"tcp_error", "transit_interaction"}),
        (
            Layout(("rgb_static",), 0, 0, 7, (0.0,) * 7),
            {"tcp_error", "transit_interaction", "causal_sensitivity"},
        ),
    ],
)
def test_what_a_layout_lacks_is_skipped_with_a_reason(layout: Layout, skipped: set[str]) -> None:
    found = measured(layout)
    assert {name for name in SECTIONS if "skipped" in found[name]} == skipped
    assert all(len(found[name]["skipped"]) > 20 for name in skipped)


def test_a_model_without_a_decoder_is_measured_without_pictures() -> None:
    found = measured(losses=())
    assert found.keys() == SECTIONS
    assert "pictures" not in found["action_probe"]
    assert "decoder" not in found["tcp_error"]


def test_a_short_horizon_has_no_late_part() -> None:
    found = measured(horizon=8)
    for section in ("probes", "transit_interaction"):
        assert "imagined_late" not in json.dumps(found[section])
    assert found["tcp_error"]["decoder"].keys() == {"seen", "imagined_8"}


def names(value: Any) -> set[str]:
    """Every key of nested mappings."""
    if not isinstance(value, dict):
        return set()
    return set(value) | {name for part in value.values() for name in names(part)}


def test_every_key_is_explained_in_the_documentation(found: Any) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not [name for name in sorted(names(found)) if f"`{name}`" not in page]
