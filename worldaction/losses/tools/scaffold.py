"""A new loss from nothing: one file that works, and the tests that hold it to the contract."""

from __future__ import annotations

from pathlib import Path

from worldaction.errors import UserError
from worldaction.losses.building import name_taken
from worldaction.losses.registry import LOSSES
from worldaction.scaffold import write_plugin

LOSS = '''"""{title}: what the latents should know, in one sentence (the paper, its arXiv id, the equation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensordict import TensorDict

from worldaction.losses import Loss, LossOutput, Shapes
from worldaction.losses.base import joined
from worldaction.world_model.nets import mlp
from worldaction.world_model.latent import Latents

if TYPE_CHECKING:
    from worldaction.world_model.model import WorldModel


@dataclass(frozen=True)
class {title}Options:
    """Options of `{title}`; the command line sets them: {name}:{title}=SCALE,hidden=64."""

    scale: float = 1.0
    """Weight of the loss."""
    hidden: int = 128
    """Width of the hidden layer."""


class {title}(Loss):
    """An example to be replaced: half the squared error of the next embedding, foretold from the latent feature."""

    name = "{name}"
    Options = {title}Options
    needs = frozenset({{"belief", "state"}})

    def __init__(self, options: {title}Options, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.head = mlp([shapes.feature, options.hidden, shapes.seen])

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        """See `Loss.forward`."""
        wanted = latents.embed[:, 1:, : self.shapes.seen].detach()
        # [B, T - 1]
        error = 0.5 * (self.head(latents.feature[:, :-1]) - wanted).square().mean(-1)
        return LossOutput.ahead(error, joined(batch), {{"error": error.detach().mean()}}, steps=1)
'''

TEST = '''"""{title} keeps to the contract, and its value is what it says."""

from __future__ import annotations

import torch
from torch import nn
from worldaction.losses.tools.contract import check, noise_batch, seeded, tiny_model, trial
from worldaction.world_model.model import total

from {name} import {title}


def test_it_keeps_to_the_contract() -> None:
    assert check({title}) == []


def test_the_value_is_half_the_squared_error_of_frames_of_one_episode() -> None:
    one = trial({title})
    one.loss.head = nn.Linear(one.loss.shapes.feature, one.loss.shapes.seen)
    nn.init.zeros_(one.loss.head.weight)
    nn.init.zeros_(one.loss.head.bias)
    output = one.run()
    embed = one.latents.embed[:, 1:, : one.loss.shapes.seen]
    assert torch.allclose(output.value[:, :-1], 0.5 * embed.square().mean(-1))
    assert output.mask is not None
    # the last frame has no successor, and in the first window one is another episode's
    assert int((~output.mask).sum()) == len(output.mask) + 1


def test_a_world_model_learns_from_it() -> None:
    model, batch = tiny_model(["{name}:{title}"]), noise_batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values = []
    with seeded(0):
        for _ in range(20):
            terms, metrics, _ = model.losses_of(batch)
            optimizer.zero_grad()
            total(terms).backward()
            optimizer.step()
            values.append(float(metrics["loss/{name}"]))
    assert values[-1] < 0.8 * values[0]
'''


def new_loss(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a loss that works and its tests.

    Args:
        name: of the loss and of its file, in small letters.
        folder: where; nothing there is overwritten.

    Returns:
        the files of the loss and of its tests.

    Raises:
        UserError: the name cannot be used, or a file is there already.
    """
    if name_taken(name):
        raise UserError(f"loss name {name!r} is taken; give another")
    return write_plugin(LOSSES, name, folder, code=LOSS, test=TEST)
