"""The TensorDict modules do what the world model does, under TorchRL's keys."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictSequential

from worldaction.losses.tools.contract import tiny_model
from worldaction.spec import ACTION, BELIEF, CODE, FEATURE, IS_INIT, PREVIOUS_ACTION, ROBOT, STATE
from worldaction.world_model.latent import Latent
from worldaction.world_model.model import WorldModel
from worldaction.world_model.modules import PosteriorModule, PriorModule

BATCH = 3


@pytest.fixture
def model() -> WorldModel:
    torch.manual_seed(0)
    return tiny_model().eval().requires_grad_(False)


def _frame(model: WorldModel) -> TensorDict:
    generator = torch.Generator().manual_seed(1)
    size, shapes = model.config.image_size, model.shapes
    values = {c: torch.randint(256, (BATCH, size, size, 3), generator=generator).byte() for c in model.config.cameras}
    values |= {
        ROBOT: torch.randn(BATCH, 15, generator=generator),
        BELIEF: torch.randn(BATCH, shapes.deter, generator=generator),
        CODE: torch.randint(shapes.classes, (BATCH, shapes.groups), generator=generator).byte(),
        ACTION: torch.rand(BATCH, shapes.action, generator=generator),
        PREVIOUS_ACTION: torch.rand(BATCH, shapes.action, generator=generator),
        IS_INIT: torch.zeros(BATCH, 1, dtype=torch.bool),
    }
    return TensorDict(values, [BATCH])


def _draws(model: WorldModel) -> torch.Tensor:
    draws = torch.rand(BATCH, model.config.groups, generator=torch.Generator().manual_seed(5))
    return draws.clamp(1e-7, 1.0 - 1e-7)


def test_the_prior_module_writes_the_next_latent(model: WorldModel) -> None:
    frame = _frame(model)
    expected = model.prior(Latent(frame[BELIEF], frame[CODE]), frame[ACTION], _draws(model))
    PriorModule(model, generator=torch.Generator().manual_seed(5))(frame)
    assert torch.equal(frame["next", BELIEF], expected.belief)
    assert torch.equal(frame["next", CODE], expected.code)
    state = frame["next", STATE].unflatten(-1, (model.config.groups, model.config.classes))
    assert torch.equal(state.argmax(-1), expected.code.long())


def test_the_posterior_module_takes_in_the_frame(model: WorldModel) -> None:
    frame = _frame(model)
    embed = model.embed({key: frame[key] for key in (*model.config.cameras, ROBOT)})
    before = Latent(frame[BELIEF].clone(), frame[CODE].clone())
    expected = model.posterior(before, frame[PREVIOUS_ACTION], embed, _draws(model))
    PosteriorModule(model, generator=torch.Generator().manual_seed(5))(frame)
    assert torch.equal(frame[BELIEF], expected.belief)
    assert torch.equal(frame[CODE], expected.code)
    assert torch.equal(frame[FEATURE], model.feature(expected))


def test_is_init_forgets_the_latent_of_its_row_alone(model: WorldModel) -> None:
    one, other = _frame(model), _frame(model)
    other[BELIEF] = other[BELIEF] + 1.0
    for frame in (one, other):
        frame[IS_INIT] = torch.tensor([[False], [True], [False]])
        PosteriorModule(model, generator=torch.Generator().manual_seed(5))(frame)
    same = (one[BELIEF] == other[BELIEF]).all(-1)
    assert same.tolist() == [False, True, False]


def test_the_modules_chain_by_their_keys(model: WorldModel) -> None:
    chain = TensorDictSequential(PosteriorModule(model), PriorModule(model))
    assert ("next", BELIEF) in chain.out_keys
    assert chain(_frame(model))["next", CODE].dtype == torch.uint8
