"""Every policy head of ours keeps to the contract, and the contract notices who breaks it."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.policies.base import Decision, PolicyHead
from agents.policies.gaussian import GaussianPolicy
from agents.policies.registry import POLICIES
from agents.policies.tools.contract import check, examine, small
from worldaction.errors import UserError


@pytest.mark.parametrize("name", sorted(POLICIES.own()))
def test_every_head_in_the_folder_keeps_to_the_contract(name: str) -> None:
    cls = POLICIES.find(name)
    assert cls.name == name
    assert check(cls) == []


def test_the_folder_has_the_heads_that_the_documents_name() -> None:
    assert set(POLICIES.own()) == {"beso", "diffusion", "flow", "gaussian"}


# Who breaks it --------------------------------------------------------------------------------------------------------


@dataclass
class Thawed:
    """Options that are not frozen."""

    width: int = 8


class Nameless(GaussianPolicy):
    name: Any = None


class Loose(GaussianPolicy):
    Options = Thawed


class Unclipped(GaussianPolicy):
    def to_actions(self, x: Tensor) -> Tensor:
        return 3.0 * x.unflatten(-1, (self.chunk, self.action_size))


class Summed(GaussianPolicy):
    def log_prob(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Tensor:
        return super().log_prob(feature, stored, min_std=min_std).sum(-1)


class Crowd(GaussianPolicy):
    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = super().forward(feature)
        return mean - mean.mean(0), std


class Dice(GaussianPolicy):
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        return super().sample(feature, torch.randn_like(noise), deterministic=deterministic)


class Silent(GaussianPolicy):
    has_deterministic = False


class Boastful(GaussianPolicy):
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        return super().sample(feature, noise)


class Shaken(GaussianPolicy):
    def sample(self, feature: Tensor, noise: Tensor, *, deterministic: bool = False) -> Tensor:
        return super().sample(feature, torch.randn_like(noise) if deterministic else noise)


class Rigid(GaussianPolicy):
    def decide(self, feature: Tensor, noise: Tensor, *, min_std: float) -> Decision:
        return super().decide(feature, torch.zeros_like(noise), min_std=min_std)


class Upside(GaussianPolicy):
    def log_prob(self, feature: Tensor, stored: Mapping[str, Tensor], *, min_std: float) -> Tensor:
        return -super().log_prob(feature, stored, min_std=min_std)


class Stiff(GaussianPolicy):
    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = super().forward(feature)
        return mean.detach(), std


class Far(GaussianPolicy):
    def divergence(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().divergence(*args, **kwargs) + 1.0


class Forgetful(GaussianPolicy):
    @property
    def config(self) -> dict[str, Any]:
        return {key: value for key, value in self._config.items() if key != "width"}

    @config.setter
    def config(self, values: dict[str, Any]) -> None:
        self._config = values


class Backwards(GaussianPolicy):
    def bc_loss(self, feature: Tensor, chunk: Tensor) -> Tensor:
        return -super().bc_loss(feature, chunk)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Nameless, "class: name is missing"),
        (Loose, "class: Options is no frozen dataclass"),
        (Forgetful, "class: config has no 'width'"),
        (Unclipped, r"shapes: sample gives actions outside \[-1, 1\]"),
        (Summed, r"shapes: log_prob is \[7\], not \[7, 1\]"),
        (Crowd, "rows: decisions depend on the other rows"),
        (Dice, "noise: two calls with the same noise differ"),
        (Rigid, "noise: decide does not depend on the noise"),
        (Silent, "sampler: deterministic=True changes the actions; say has_deterministic"),
        (Boastful, "sampler: deterministic=True changes nothing"),
        (Shaken, "sampler: two deterministic calls with the same noise differ"),
        (Upside, "log_prob: decisions are likelier by another policy"),
        (Stiff, "gradient: 'mean.weight' gets none from bc_loss"),
        (Far, "divergence: it is 1 for an equal copy"),
        (Backwards, "clones: the error goes from"),
    ],
)
def test_the_contract_names_what_is_broken(cls: type[PolicyHead], words: str) -> None:
    found: list[str] = []
    # a check may not survive what an earlier one has named
    with contextlib.suppress(RuntimeError, IndexError):
        for _, sentences in examine(cls):
            found += sentences
    assert any(re.search(words, sentence) for sentence in found), found


def test_the_examination_stops_where_the_class_is_wrong() -> None:
    assert len(list(examine(GaussianPolicy))) == 10
    assert len(list(examine(Loose))) == 1


# What the base class does ---------------------------------------------------------------------------------------------


class Estimated(GaussianPolicy):
    """Without a divergence of its own."""

    divergence: Callable[..., Tensor] = PolicyHead.divergence


@pytest.mark.parametrize("chunk", [1, 6])
def test_the_estimated_divergence_is_the_one_in_closed_form(chunk: int) -> None:
    torch.manual_seed(0)
    one = Estimated(3, 1, chunk=chunk, width=8)
    cloned = copy.deepcopy(one)
    with torch.no_grad():
        cloned.mean.bias += 0.15 * torch.randn(chunk)
        cloned.log_std += 0.1
    feature = torch.randn(50_000, 3)
    stored = one.decide(feature, torch.randn(50_000, 1, chunk), min_std=0.0).stored
    log_prob = one.log_prob(feature, stored, min_std=0.0)
    values = [
        base.divergence(one, cloned, feature, stored, log_prob, min_std=0.0).item()
        for base in (PolicyHead, GaussianPolicy)
    ]
    assert values[1] > 0.01
    assert values[0] == pytest.approx(values[1], rel=0.05)


def test_options_take_the_values_of_the_study_unless_the_user_says_otherwise() -> None:
    spec = POLICIES.parse("gaussian,layers=3")
    options = POLICIES.options(GaussianPolicy, spec.options, defaults={"width": 24, "blocks": 7})
    assert vars(options) == {"width": 24, "layers": 3}
    with pytest.raises(UserError, match="layers 0: give 1 to 1,000"):
        POLICIES.options(GaussianPolicy, [("layers", "0")])
    assert small(GaussianPolicy, [("layers", "3")]).config["layers"] == 3
