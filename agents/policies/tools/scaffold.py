"""A new policy head from nothing: one file that works, and the tests that hold it to the contract."""

from __future__ import annotations

from pathlib import Path

from agents.policies.registry import POLICIES
from worldaction.scaffold import write_plugin

CODE = '''"""{title}: how actions are chosen, in one sentence (the paper, its arXiv id)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.policies.base import Decision, PolicyHead, normal_log_density
from worldaction.world_model.nets import mlp


@dataclass(frozen=True)
class {title}Options:
    """Options of `{title}`; the command line sets them: {name}:{title},width=128."""

    width: int = 256
    """Width of the hidden layers; without a word, that of --policy.width."""
    std: float = 0.2
    """Standard deviation of every number of a chunk."""


class {title}(PolicyHead):
    """An example to be replaced: a Gaussian with a learned mean."""

    name = "{name}"
    Options = {title}Options
    has_deterministic = True

    def __init__(self, feature_size: int, action_size: int, *, width: int, std: float, **sizes: Any) -> None:
        super().__init__(feature_size, action_size, width=width, std=std, **sizes)
        self.std = std
        self.mean = mlp([feature_size, width, width, self.chunk_size])

    @property
    def noise_shape(self) -> tuple[int, int]:
        """[1, K * A]."""
        return 1, self.chunk_size

    def bc_loss(self, feature: Tensor, chunk: Tensor) -> Tensor:
        """See `PolicyHead.bc_loss`."""
        return (self.mean(feature) - chunk.flatten(1)).square().mean()

    @torch.no_grad()
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        """See `PolicyHead.sample`."""
        mean = self.mean(feature)
        return self.to_actions(mean if deterministic else mean + self.std * noise[:, 0])

    @torch.no_grad()
    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        """See `PolicyHead.decide`."""
        x = self.mean(feature) + max(self.std, min_std) * noise[:, 0]
        return Decision(self.to_actions(x), {{"x": x}})

    def log_prob(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Tensor:
        """See `PolicyHead.log_prob`."""
        std = torch.tensor(max(self.std, min_std))
        return normal_log_density(stored["x"], self.mean(feature), std).mean(-1, keepdim=True)
'''

TEST = '''"""{title} keeps to the contract, and its deviation is what it says."""

from __future__ import annotations

import torch

from agents.policies.tools.contract import check, small
from {name} import {title}


def test_it_keeps_to_the_contract() -> None:
    assert check({title}) == []


def test_decisions_spread_as_the_option_says() -> None:
    head = small({title}, [("std", "0.3")])
    noise = torch.randn(5000, *head.noise_shape, generator=torch.Generator().manual_seed(0))
    x = head.decide(torch.zeros(5000, 6), noise, min_std=0.0).stored["x"]
    assert (x.std(0) - 0.3).abs().max() < 0.02
'''


def new_policy(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a head that works and its tests; see `worldaction.scaffold.write_plugin`."""
    return write_plugin(POLICIES, name, folder, code=CODE, test=TEST)
