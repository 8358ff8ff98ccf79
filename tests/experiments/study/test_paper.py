"""The table of docs/paper.md is the preset, and the preset's weights mean what they mean in the sources."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch
from paths import ROOT

from experiments.study.settings import PAPER
from worldaction.losses.registry import parse
from worldaction.losses.tools.contract import noise_batch, tiny_model

SECTIONS = ("world_model", "success", "policy", "clone", "update")


def table() -> dict[str, str]:
    """What docs/paper.md says that the preset has, by option."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \|", (ROOT / "docs/paper.md").read_text(), re.MULTILINE)
    return {option: here.strip("*") for option, here in rows}


def found(option: str) -> str:
    """What the preset has."""
    section, name = option.split(".")
    if section == "losses":
        return next(dict(parse(text).options)["scale"] for text in PAPER.losses if parse(text).target == name)
    value: Any = getattr(getattr(PAPER, section), name)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("option", table())
def test_the_preset_has_what_the_table_says(option: str) -> None:
    assert table()[option] == found(option)


def test_no_option_of_what_is_trained_is_missing() -> None:
    options = {
        f"{section}.{field.name}" for section in SECTIONS for field in dataclasses.fields(getattr(PAPER, section))
    }
    assert options <= table().keys()


def test_reconstruction_weighs_as_a_half_sum_of_squares_of_images_between_minus_one_and_one() -> None:
    model, batch = tiny_model([PAPER.losses[0]]), noise_batch()
    with torch.no_grad():
        torch.manual_seed(0)
        terms, _, latents = model.losses_of(batch)
        drawn = model.losses["reconstruction"].draw(latents.feature.flatten(0, 1))
    targets = {camera: batch[camera].flatten(0, 1).movedim(-1, 1) / 127.5 - 1.0 for camera in model.config.cameras}
    # ours twice as large is in their range
    errors = [(2 * drawn[camera] - targets[camera]).square().sum((1, 2, 3)) / 2 for camera in targets]
    assert terms["reconstruction"].item() == pytest.approx(sum(errors).mean().item(), rel=1e-4)  # type: ignore[union-attr]
