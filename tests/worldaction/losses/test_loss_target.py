"""Slow encoders: equal at first, later behind, never trained; and the two losses that have one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from worldaction.errors import UserError
from worldaction.io.atomic import load_tensors, save_tensors
from worldaction.losses.act_jepa import ActJEPA
from worldaction.losses.dynamo import DynaMo, off_diagonal
from worldaction.losses.target import TargetEncoder
from worldaction.losses.tools import contract
from worldaction.spec import ACTION_MASK, IS_INIT


def test_the_slow_encoder_begins_as_the_encoder_and_follows_by_its_share() -> None:
    one = contract.trial(ActJEPA)
    target = TargetEncoder(one.model.shapes, decay=0.75)
    with torch.no_grad():
        fast = one.model.filter(one.batch).embed[..., : target.seen]
        assert torch.allclose(target(one.batch, one.model.encoder), fast, atol=1e-6)
        before = [p.clone() for p in target.encoder.parameters()]
        for parameter in one.model.encoder.parameters():
            parameter += 1.0
    target.follow()
    for old, new in zip(before, target.encoder.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25, atol=1e-6)


def test_a_slow_encoder_that_nobody_has_asked_stays_where_it_is() -> None:
    target = TargetEncoder(contract.tiny_model().shapes, decay=0.5)
    before = [p.clone() for p in target.parameters()]
    target.follow()
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))


def test_after_a_resume_the_slow_encoder_is_where_it_was_and_not_the_encoder_again(tmp_path: Path) -> None:
    one = contract.trial(ActJEPA)
    target = TargetEncoder(one.model.shapes, decay=0.9)
    target(one.batch, one.model.encoder)
    for parameter in one.model.encoder.parameters():
        parameter.data.mul_(2.0)
    target.follow()
    save_tensors(tmp_path / "target.safetensors", target.state_dict())
    again = TargetEncoder(one.model.shapes, decay=0.9)
    again.load_state_dict(load_tensors(tmp_path / "target.safetensors"))
    assert torch.equal(again(one.batch, one.model.encoder), target(one.batch, one.model.encoder))


@pytest.mark.parametrize("decay", [-0.1, 1.5])
def test_a_decay_that_is_no_share_is_refused(decay: float) -> None:
    with pytest.raises(UserError, match="moving average"):
        TargetEncoder(contract.tiny_model().shapes, decay=decay)


def test_training_moves_the_slow_encoder_by_after_step_alone() -> None:
    model, batch = contract.tiny_model(["act_jepa,ema=0.5"]), contract.noise_batch()
    loss = model.each_loss()["act_jepa"]
    assert isinstance(loss, ActJEPA)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with contract.seeded(0):
        model.losses_of(batch)[0]["act_jepa"].backward()
    own = list(loss.target.encoder.parameters())
    before = [p.clone() for p in own]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, own, strict=True))
    loss.after_step()
    apart = [(a - 0.5 * (b + c)).abs().max() for a, b, c in zip(own, before, model.encoder.parameters(), strict=True)]
    assert max(apart) < 1e-6
    assert any(not torch.equal(a, b) for a, b in zip(before, own, strict=True))


# DynaMo ---------------------------------------------------------------------------------------------------------------


def test_the_covariance_term_is_that_of_the_rows_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    counts = torch.rand(3, 5, generator=generator) < 0.7
    covariance = torch.cov(x[counts].T)
    expected = (covariance.square().sum() - covariance.diagonal().square().sum()) / 4
    assert float(off_diagonal(x, counts)) == pytest.approx(float(expected), rel=1e-5)
    assert float(off_diagonal(torch.eye(4).repeat(100, 1), torch.ones(400, dtype=torch.bool))) < 0.1


def test_dynamo_is_one_minus_the_cosine_to_the_frame_some_steps_later() -> None:
    one = contract.trial(DynaMo)
    loss = DynaMo(DynaMo.Options(steps=2, covariance=0.0), one.loss.shapes)

    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(*x.shape[:-1], loss.shapes.seen)

    loss.forward_net = Constant()  # type: ignore[assignment]
    output = loss(one.latents, one.batch, one.model)
    later = one.latents.embed[:, 2:, : loss.shapes.seen]
    assert torch.allclose(output.value[:, :-2], 1 - later.sum(-1) / later.norm(dim=-1) / loss.shapes.seen**0.5)
    # the target is held fixed, and the constant depends on nothing
    assert torch.autograd.grad(output.mean(), one.latents.embed)[0].abs().max() == 0.0


def test_dynamo_teaches_without_any_action() -> None:
    one = contract.trial(DynaMo)
    before = one.run().mean()
    one.batch[ACTION_MASK] = torch.zeros_like(one.batch[IS_INIT])
    assert torch.equal(one.run().mean(), before)
    assert before > 0


# ACT-JEPA -------------------------------------------------------------------------------------------------------------


def test_act_jepa_goes_on_teaching_from_frames_where_actions_are_unknown() -> None:
    one = contract.trial(ActJEPA)
    one.batch[ACTION_MASK] = torch.zeros_like(one.batch[IS_INIT])
    output = one.run()
    assert output.metrics["l1"] == 0.0
    assert float(output.mean().detach()) == pytest.approx(float(output.metrics["frames"]))
    assert output.metrics["frames"] > 0


def test_act_jepa_foresees_each_of_its_frames_in_its_place() -> None:
    one = contract.trial(ActJEPA)
    loss = one.loss
    slow = nn.functional.layer_norm(loss.target(one.batch, one.model.encoder), (loss.shapes.seen,))

    class Oracle(nn.Module):
        def forward(self, context: torch.Tensor) -> torch.Tensor:
            return torch.cat([slow[:, i : 4 + i] for i in range(1, 5)], -1)

    loss.frames_net = Oracle()  # type: ignore[assignment]
    output = replace(one, loss=loss).run()
    assert output.metrics["frames"] < 1e-6
