"""A small recurrent model and inputs for kernels, new in every run, and what a rollout is held to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from worldaction.kernels.categorical.reference import probabilities
from worldaction.kernels.rollout.reference import PriorWeights, gru
from worldaction.world_model.cores.dreamer_v2 import RSSM

UNIMIX = 0.01


@pytest.fixture
def generator(record_property: Callable[[str, object], None]) -> torch.Generator:
    """New inputs in every run. The seed is kept in the report; WORLDACTION_TEST_SEED replays a failure."""
    seed = int(os.environ.get("WORLDACTION_TEST_SEED") or int.from_bytes(os.urandom(4), "big"))
    record_property("seed", seed)
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class World:
    """Weights and inputs of one rollout."""

    weights: PriorWeights
    belief: Tensor
    code: Tensor
    actions: Tensor
    uniforms: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments after the weights."""
        return self.belief, self.code, self.actions, self.uniforms


def world(
    generator: torch.Generator,
    *,
    batch: int,
    horizon: int,
    deter: int,
    hidden: int,
    groups: int,
    classes: int,
    action: int,
) -> World:
    """Random weights, with norms and biases that are not those of a fresh layer, and random inputs."""
    sizes = {"deter": deter, "hidden": hidden, "groups": groups, "classes": classes, "action": action}
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        model = RSSM(embed=2, unimix=UNIMIX, **sizes).requires_grad_(False)
        for parameter in model.parameters():
            # means that are not zero, or a layer norm could forget to take them off
            parameter.add_(0.05 + 0.1 * torch.randn_like(parameter))
    return World(
        weights=model.prior_weights(),
        belief=torch.randn(batch, deter, generator=generator).tanh(),
        code=torch.randint(classes, (batch, groups), generator=generator, dtype=torch.uint8),
        actions=2 * torch.rand(batch, horizon, action, generator=generator) - 1,
        uniforms=torch.rand(batch, horizon, groups, generator=generator).clamp(1e-6, 1 - 1e-6),
    )


def double(weights: PriorWeights) -> PriorWeights:
    """The weights in float64."""
    return PriorWeights(*(tuple(t.double() for t in p) if isinstance(p, tuple) else p.double() for p in weights))


def errors(made: World, beliefs: Tensor, codes: Tensor) -> tuple[float, float]:
    """How far a rollout is from the definition in float64 that is fed the rollout's own codes (teacher forcing).

    Returns:
        the largest error of a belief relative to its norm, and how far a uniform number lies outside of the interval of
        the class that was drawn for it.
    """
    w, layer_norm, elu = double(made.weights), torch.nn.functional.layer_norm, torch.nn.functional.elu
    groups = made.code.shape[1]
    classes = len(w.state_rows) // groups
    h, code, worst, outside = made.belief.double(), made.code, 0.0, 0.0
    for t in range(made.actions.shape[1]):
        rows = code.long() + torch.arange(groups) * classes
        x = w.state_rows[rows].sum(1) + made.actions[:, t].double() @ w.action.T + w.input_bias
        h = gru(elu(layer_norm(x, x.shape[-1:], *w.input_norm)), h, w.gates, w.gates_norm)
        worst = max(worst, float(((beliefs[:, t] - h).norm(dim=-1) / h.norm(dim=-1)).max()))
        y = h @ w.hidden.T + w.hidden_bias
        scores = elu(layer_norm(y, y.shape[-1:], *w.hidden_norm)) @ w.logits.T + w.logits_bias
        code = codes[:, t]
        # [B, S, C] upper ends of the classes' intervals, and of those that were drawn
        ends = probabilities(scores.unflatten(-1, (groups, classes)), UNIMIX).cumsum(-1)
        upper = ends.gather(-1, code.long().unsqueeze(-1)).squeeze(-1)
        lower = torch.nn.functional.pad(ends, (1, 0)).gather(-1, code.long().unsqueeze(-1)).squeeze(-1)
        u = made.uniforms[:, t].double()
        outside = max(outside, float(torch.maximum(lower - u, u - upper).max()))
    return (worst if beliefs.isfinite().all() else float("nan")), outside
