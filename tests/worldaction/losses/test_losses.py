"""Every loss that can be found keeps to the contract, the contract catches what breaks it, and the values are right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torchrl.objectives import categorical_kl_terms

from worldaction.errors import UserError
from worldaction.kernels.categorical.reference import probabilities
from worldaction.losses import Loss, LossOutput, Shapes, available, parse
from worldaction.losses.base import known_actions
from worldaction.losses.forward_dynamics import ForwardDynamics
from worldaction.losses.inverse_dynamics import InverseDynamics
from worldaction.losses.kl import KL, categorical_kl
from worldaction.losses.reconstruction import Reconstruction
from worldaction.losses.registry import find
from worldaction.losses.tools import contract
from worldaction.spec import ACTION, ACTION_MASK, IS_INIT, NULL_ACTION, PREVIOUS_ACTION, ROBOT, STATIC
from worldaction.world_model.latent import Latents
from worldaction.world_model.model import WorldModel, total
from worldaction.world_model.nets import mlp

# The contract ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(available()))
@pytest.mark.parametrize(
    "check", [contract.check_class, contract.check_shapes, *contract.CHECKS], ids=lambda check: check.__name__
)
def test_loss_keeps_to_the_contract(name: str, check: Any) -> None:
    assert check(find(name)) == []


@pytest.mark.parametrize("name", [n for n in sorted(available()) if find(n).predicts_actions])
def test_actions_cannot_be_told_from_noise(name: str) -> None:
    # beside the contract's own run; short, for a leak is found soon
    assert contract.action_error(find(name), seed=1, steps=100) >= contract.LEAK


VARIANTS = (
    "inverse_dynamics,steps=3",
    "inverse_dynamics,images=true",
    "dynamo,ema=0.9",
    "dynamo,steps=1",
    "latent_action,vocabulary=16",
    "latent_action,difference=true,steps=1",
    "alignment,shuffle=true",
    "taco,steps=1",
    "act_jepa,steps=2",
    "success,binary=none",
)
LOOKS_BACK = ("inverse_dynamics,steps=3", "latent_action,difference=true,steps=1")
"""Those whose way to the actions is another one."""


@pytest.mark.parametrize("text", VARIANTS)
def test_loss_with_other_options_keeps_to_the_contract_too(text: str) -> None:
    spec = parse(text)
    cls = contract.variant(find(spec.target), spec.options)
    checks = [contract.check_class, contract.check_shapes, *contract.CHECKS]
    for check in checks if text in LOOKS_BACK else [one for one in checks if one is not contract.check_leak]:
        assert check(cls) == []


def test_a_variant_differs_in_its_default_options_alone() -> None:
    other = contract.variant(KL, [("free_nats", "2"), ("scale", "3")])
    assert other.Options() == other.Options(scale=3.0, balance=0.8, free_nats=2.0)
    assert KL.Options().free_nats == 0.0
    assert issubclass(other, KL)


def test_the_found_losses_are_those_of_the_zoo() -> None:
    zoo = {"taco", "dynamo", "act_jepa", "infopower", "alignment", "latent_action", "temporal_contrastive", "success"}
    assert {"inverse_dynamics", "forward_dynamics", "kl", "reconstruction"} | zoo <= available().keys()
    assert find("inverse_dynamics").predicts_actions
    assert find("inverse_dynamics").needs == {"embed"}


@pytest.mark.parametrize("name", sorted(available()))
def test_hidden_actions_cannot_change_a_loss_however_many_they_are(name: str) -> None:
    """Longer windows than the contract's, so that losses that look several frames ahead find some known actions."""
    one = contract.trial(find(name))
    with contract.seeded(0):
        batch = one.model.with_targets(contract.noise_batch(4, 24))
        taps = contract.leaves(one.model.filter(batch))
    known = torch.rand(4, 24, generator=torch.Generator().manual_seed(1)) < 0.8
    batch[ACTION_MASK] = known
    other = batch.clone()
    other[ACTION][~known] = 3.0
    other[PREVIOUS_ACTION][:, 1:][~known[:, :-1]] = 3.0
    gradients, values = [], []
    for each in (batch, other):
        mean = replace(one, batch=each, latents=taps).run().mean()
        values.append(mean)
        wanted = [getattr(taps, tap) for tap in find(name).needs] or list(one.loss.parameters())
        gradients.append(torch.autograd.grad(mean, wanted))
    assert torch.equal(*values)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_all_losses_together_train_in_half_precision_to_nearly_the_same_values() -> None:
    """As a study does it with --world-model.bf16."""
    model, batch, found = contract.tiny_model(sorted(available())), contract.noise_batch(), []
    for half in (False, True):
        with contract.seeded(0), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            terms, metrics, _ = model.losses_of(batch)
        model.zero_grad()
        total(terms).backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
        found.append({name: float(metrics[f"loss/{name}"]) for name in available()})
    full, halved = found
    assert all(halved[name] == pytest.approx(full[name], rel=0.1, abs=0.05) for name in available())


@pytest.mark.parametrize("name", ["taco", "inverse_dynamics", "infopower", "latent_action", "act_jepa"])
def test_known_actions_do_change_the_losses_that_read_them(name: str) -> None:
    one = contract.trial(find(name))
    before = one.run().mean()
    one.batch[PREVIOUS_ACTION][:, 1:] *= -1.0
    assert not torch.equal(one.run().mean(), before)


@dataclass(frozen=True)
class Options:
    scale: float = 1.0


class Good(Loss):
    """Keeps to the contract; each class below breaks one thing."""

    name = "good"
    Options = Options
    needs = frozenset({"embed"})

    def __init__(self, options: Any, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.head = nn.Linear(shapes.embed, 1)

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(self.head(latents.embed).squeeze(-1).square())


class WrongShape(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(super().forward(latents, batch, model).value.mean(1))


class NotFinite(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(super().forward(latents, batch, model).value / 0.0)


class EmptyMask(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(super().forward(latents, batch, model).value, batch[IS_INIT] & False)


class FloatMask(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(super().forward(latents, batch, model).value, (~batch[IS_INIT]).float())


class UndeclaredTap(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(super().forward(latents, batch, model).value + latents.belief.mean(-1))


class UnusedTap(Good):
    needs = frozenset({"embed", "prior"})


class Detached(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(self.head(latents.embed.detach()).squeeze(-1))


class IdleParameter(Good):
    def __init__(self, options: Any, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.forgotten = nn.Linear(2, 2)


class LiveMetric(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        value = super().forward(latents, batch, model).value
        return LossOutput(value, metrics={"size": value.mean()})


class OwnClock(Good):
    calls = 0

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        self.calls += 1
        return LossOutput(super().forward(latents, batch, model).value + self.calls)


class WritesBatch(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        batch["target", STATIC].mul_(2.0)
        return super().forward(latents, batch, model)


class ScalesItself(Good):
    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(self.options.scale * super().forward(latents, batch, model).value)


class DivergingTarget(Good):
    def after_step(self) -> None:
        self.head.weight.data.div_(0.0)


@dataclass
class Thawed:
    scale: float = 1.0


class ThawedOptions(Good):
    Options = Thawed


@dataclass(frozen=True)
class Unscaled:
    margin: float = 1.0
    scale: float = 1.0


class ScaleLater(Good):
    Options = Unscaled


@dataclass(frozen=True)
class Tuple:
    scale: float = 1.0
    sizes: tuple[int, ...] = (1, 2)


class TupleOption(Good):
    Options = Tuple


class UnknownTap(Good):
    needs = frozenset({"embed", "belif"})


class BadName(Good):
    name = "my,loss=1"


class TakenName(Good):
    name = "keys"


class SaysItEncodes(Good):
    encodes = True


class Reencodes(Good):
    """Looks at the pictures again, and says nothing of it."""

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        return LossOutput(super().forward(latents, batch, model).value + model.filter(batch).embed.mean(-1))


class ReadsHiddenActions(Good):
    """Predicts no action, and reads them all."""

    def __init__(self, options: Any, shapes: Shapes) -> None:
        super().__init__(options, shapes)
        self.action = nn.Linear(shapes.action, 1)

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        value = super().forward(latents, batch, model).value
        return LossOutput(value * self.action(batch[ACTION]).squeeze(-1).square())


class Predictor(Good):
    """Predicts actions from what `inputs` gives; the same head and error as inverse dynamics."""

    predicts_actions = True
    masked = True

    def __init__(self, options: Any, shapes: Shapes) -> None:
        Loss.__init__(self, options, shapes)
        self.head = mlp([2 * self.width(shapes), 128, shapes.action])

    def width(self, shapes: Shapes) -> int:
        return shapes.embed

    def inputs(self, latents: Latents, batch: TensorDict) -> Tensor:
        return latents.embed

    def known(self, batch: TensorDict) -> Tensor:
        return known_actions(batch)

    def forward(self, latents: Latents, batch: TensorDict, model: WorldModel) -> LossOutput:
        x = self.inputs(latents, batch)
        error = (self.head(torch.cat([x[:, :-1], x[:, 1:]], -1)) - batch[PREVIOUS_ACTION][:, 1:]).abs().mean(-1)
        valid = self.known(batch) if self.masked else torch.ones_like(batch[IS_INIT][:, 1:])
        return LossOutput(F.pad(error, (0, 1)), F.pad(valid, (0, 1)))


class CountsNullAction(Predictor):
    masked = False


class CountsHiddenActions(Predictor):
    def known(self, batch: TensorDict) -> Tensor:
        return ~batch[IS_INIT][:, 1:]


class LeaksThroughLatents(Predictor):
    """What the noise-observation test is for: h_{t+1} was computed from a_t."""

    needs = frozenset({"belief", "state"})

    def width(self, shapes: Shapes) -> int:
        return shapes.feature

    def inputs(self, latents: Latents, batch: TensorDict) -> Tensor:
        return latents.feature


class LeaksThroughState(Predictor):
    needs = frozenset({"state"})

    def width(self, shapes: Shapes) -> int:
        return shapes.groups * shapes.classes

    def inputs(self, latents: Latents, batch: TensorDict) -> Tensor:
        return latents.state


class ReadsTheAnswer(Predictor):
    def width(self, shapes: Shapes) -> int:
        return shapes.embed + shapes.action

    def inputs(self, latents: Latents, batch: TensorDict) -> Tensor:
        return torch.cat([latents.embed, batch[PREVIOUS_ACTION]], -1)


BROKEN = [
    (WrongShape, "neither [B, T]"),
    (NotFinite, "the value is not finite"),
    (EmptyMask, "false everywhere"),
    (FloatMask, "not bool"),
    (UndeclaredTap, "'belief' gets a gradient but is not in needs"),
    (UnusedTap, "'prior' is in needs but gets no gradient"),
    (Detached, "'embed' is in needs but gets no gradient"),
    (IdleParameter, "'forgotten.weight' gets no gradient"),
    (LiveMetric, "metric 'size' is no detached scalar"),
    (OwnClock, "two calls with the same torch seed differ"),
    (WritesBatch, "of the batch was written to"),
    (ScalesItself, "depends on the scale"),
    (DivergingTarget, "not finite"),
    (ThawedOptions, "not frozen"),
    (ScaleLater, "first field of Options is not scale"),
    (TupleOption, "option 'sizes' has no plain default"),
    (UnknownTap, "['belif']"),
    (BadName, "name is 'my,loss=1'"),
    (TakenName, "attribute of torch's ModuleDict"),
    (SaysItEncodes, "encodes is True, and the encoder itself gets no gradient"),
    (Reencodes, "encodes is False, and the encoder itself gets a gradient"),
    (ReadsHiddenActions, "action_mask says that it is not known"),
    (CountsNullAction, "counts at is_init"),
    (CountsHiddenActions, "action_mask says that it is not known"),
    (LeaksThroughLatents, "leak: actions are predicted from noise"),
    (ReadsTheAnswer, "leak: actions are predicted from noise"),
]


@pytest.mark.parametrize(("cls", "problem"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_the_contract_catches(cls: type[Loss], problem: str) -> None:
    found = contract.check(cls)
    assert any(problem in sentence for sentence in found), found


@pytest.mark.parametrize("cls", [Good, Predictor])
def test_the_contract_lets_a_good_loss_pass(cls: type[Loss]) -> None:
    assert contract.check(cls) == []


def test_a_head_on_the_latents_reads_off_the_action_and_the_more_so_on_the_belief() -> None:
    on_belief, on_state = contract.action_error(LeaksThroughLatents), contract.action_error(LeaksThroughState)
    assert on_belief < 0.3
    assert on_belief < on_state < 0.55


def test_the_checks_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    contract.check(Good)
    contract.action_error(Predictor, steps=2, windows=4, batch=2)
    assert torch.equal(before, torch.get_rng_state())


# Averaging ------------------------------------------------------------------------------------------------------------


def test_the_mean_counts_masked_frames_alone() -> None:
    value = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
    mask = torch.tensor([[True, True], [True, False]])
    assert LossOutput(value, mask).mean() == 2.0
    assert LossOutput(value).mean() == 26.5
    assert LossOutput(value, mask & False).mean() == 0.0
    assert LossOutput(torch.tensor(4.0)).mean() == 4.0


def test_what_is_masked_out_may_even_be_nan() -> None:
    value = torch.tensor([[1.0, torch.nan]], requires_grad=True)
    mean = LossOutput(value, torch.tensor([[True, False]])).mean()
    assert mean == 1.0
    mean.backward()
    assert value.grad is not None
    assert value.grad.tolist() == [[1.0, 0.0]]


# Inverse dynamics -----------------------------------------------------------------------------------------------------


class CopyFirst(nn.Module):
    """A hand-set head: the action that a pair of embeddings spells out in the first numbers of its second frame."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.embed = embed

    def forward(self, pair: Tensor) -> Tensor:
        return pair[..., self.embed : self.embed + 7]


def test_the_target_of_two_frames_is_the_action_executed_at_the_first() -> None:
    one = contract.trial(InverseDynamics)
    windows, frames = one.batch.batch_size
    one.loss.head = CopyFirst(one.loss.shapes.embed)
    # frame t + 1 shows a_t
    embed = torch.zeros_like(one.latents.embed)
    embed[:, 1:, :7] = one.batch["action"][:, :-1]
    shown = Latents(embed, one.latents.belief, one.latents.state, one.latents.posterior, one.latents.prior)
    output = one.loss(shown, one.batch, one.model)
    assert output.mask is not None
    inside = torch.ones(windows, frames, dtype=torch.bool)
    inside[:, -1] = False  # the last frame has no successor
    inside[0, frames // 2 - 1] = False  # here the successor belongs to another episode
    assert torch.equal(output.mask, inside)
    assert torch.equal(output.value[inside], torch.zeros(int(inside.sum())))
    # any other action is wrong by its distance
    one.batch[PREVIOUS_ACTION][1, 3] += 0.7
    value = one.loss(shown, one.batch, one.model).value
    assert value[1, 2] == pytest.approx(0.7)
    assert value[1, [0, 1, 3, 4]].abs().max() == 0.0


def test_inverse_dynamics_learns_nothing_from_a_hidden_action() -> None:
    one = contract.trial(InverseDynamics)
    all_known = one.run()
    one.batch[ACTION_MASK] = torch.ones_like(one.batch[IS_INIT])
    assert torch.equal(one.run().mean(), all_known.mean())
    one.batch[ACTION_MASK][1, 3] = False
    output = one.run()
    assert output.mask is not None
    assert all_known.mask is not None
    assert (output.mask != all_known.mask).nonzero().tolist() == [[1, 3]]
    # what stands in the place of the hidden action is without effect
    one.batch[PREVIOUS_ACTION][1, 4] = 5.0
    assert torch.equal(one.run().mean(), output.mean())
    one.batch[ACTION_MASK][:] = False
    assert one.run().mean() == 0.0


def test_inverse_dynamics_is_the_mean_absolute_error_per_dimension() -> None:
    one = contract.trial(InverseDynamics)
    one.loss.head = mlp([2 * one.loss.shapes.embed, 7])
    nn.init.zeros_(one.loss.head[0].weight)
    nn.init.zeros_(one.loss.head[0].bias)
    output = one.run()
    expected = one.batch[PREVIOUS_ACTION][:, 1:].abs().mean(-1)
    assert torch.allclose(output.value[:, :-1], expected)


def test_inverse_dynamics_can_be_made_to_look_at_the_images_alone() -> None:
    one = contract.trial(InverseDynamics)
    shapes = one.loss.shapes
    loss = InverseDynamics(InverseDynamics.Options(images=True), shapes)
    plain, embed = loss(one.latents, one.batch, one.model).value, one.latents.embed
    for part, moves in ((slice(shapes.embed - shapes.proprio, None), False), (slice(0, 1), True)):
        other = embed.clone()
        other[..., part] += 1.0
        value = loss(replace(one.latents, embed=other), one.batch, one.model).value
        assert torch.equal(value, plain) is not moves


def test_images_alone_need_a_camera() -> None:
    shapes = replace(contract.tiny_model().shapes, cameras=())
    with pytest.raises(UserError, match="the model has no cameras"):
        InverseDynamics(InverseDynamics.Options(images=True), shapes)


def test_several_steps_are_the_actions_between_the_two_frames_in_their_order() -> None:
    one = contract.trial(InverseDynamics)
    loss = InverseDynamics(InverseDynamics.Options(steps=3), one.loss.shapes)
    loss.head = mlp([2 * one.loss.shapes.embed, 21])
    nn.init.zeros_(loss.head[0].weight)
    # the guess: what was executed in the second window from frame 2 on
    loss.head[0].bias.data = one.batch[ACTION][1, 2:5].flatten()
    output = loss(one.latents, one.batch, one.model)
    value = output.value.detach()
    assert float(value[1, 2]) == pytest.approx(0.0, abs=1e-6)
    assert float(value[1, 3]) > 0.1
    assert output.mask is not None
    assert output.mask[0].tolist() == [True] + [False] * 3 + [True] + [False] * 3
    assert output.mask[1].tolist() == [True] * 5 + [False] * 3


# KL -------------------------------------------------------------------------------------------------------------------


def two_distributions() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    p, q = torch.randn(2, 5, 6, 4, 8, generator=generator).unbind(0)
    return p, q, probabilities(p, 0.01), probabilities(q, 0.01)


def test_categorical_kl_is_that_of_torch_distributions_summed_over_groups() -> None:
    _, _, p, q = two_distributions()
    expected = kl_divergence(Categorical(probs=p.double()), Categorical(probs=q.double())).sum(-1)
    assert torch.allclose(categorical_kl(p.double(), q.double()), expected, atol=1e-10)
    assert categorical_kl(p, p).abs().max() == 0.0


@pytest.mark.parametrize("free_nats", [0.0, 1.0, 3.0])
def test_balanced_kl_agrees_with_torchrl_in_value_and_gradient(free_nats: float) -> None:
    p_logits, q_logits, _, _ = two_distributions()
    p_logits, q_logits = p_logits.requires_grad_(), q_logits.requires_grad_()
    dynamics, representation = categorical_kl_terms(p_logits, q_logits, free_nats=free_nats, unimix=0.01)
    expected = 0.8 * dynamics + 0.2 * representation
    wanted = torch.autograd.grad(expected, [p_logits, q_logits])

    one = contract.trial(KL)
    loss = KL(KL.Options(balance=0.8, free_nats=free_nats), one.loss.shapes)
    taps = one.latents
    posterior, prior = probabilities(p_logits, 0.01), probabilities(q_logits, 0.01)
    output = loss(Latents(taps.embed, taps.belief, taps.state, posterior, prior), one.batch, one.model)
    assert output.value.shape == (5, 6)
    found = torch.autograd.grad(output.mean(), [p_logits, q_logits])
    assert torch.allclose(output.mean(), expected, atol=1e-5)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_the_prior_keeps_its_gradient_where_the_kl_is_small() -> None:
    _, _, p, _ = two_distributions()
    prior = (0.95 * p + 0.05 / 8).requires_grad_()
    one = contract.trial(KL)
    taps = one.latents
    output = one.loss(Latents(taps.embed, taps.belief, taps.state, p, prior), one.batch, one.model)
    (gradient,) = torch.autograd.grad(output.mean(), prior)
    assert output.metrics["nats"] < 0.1
    assert gradient.abs().max() > 1e-4


# Reconstruction -------------------------------------------------------------------------------------------------------


class Blank(nn.Module):
    """A decoder that draws one grey."""

    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = grey

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        return {STATIC: torch.full((len(feature), 3, 16, 16), self.grey)}


def test_reconstruction_is_half_the_summed_squared_error_plus_the_weighted_body() -> None:
    one = contract.trial(Reconstruction)
    loss = Reconstruction(Reconstruction.Options(proprio=3.0), one.loss.shapes)
    loss.decoder = Blank(0.1)
    output = loss(one.latents, one.batch, one.model)
    pixels = 0.5 * (0.1 - one.batch["target", STATIC]).square().sum((-1, -2, -3))
    body = 0.5 * (loss.proprio_net(one.latents.feature) - one.batch["target", ROBOT]).square().sum(-1)
    assert torch.allclose(output.value, pixels + 3.0 * body, rtol=1e-5)


def test_drawing_a_share_of_the_frames_is_right_on_average() -> None:
    one = contract.trial(Reconstruction)
    loss = Reconstruction(Reconstruction.Options(proprio=0.0, share=0.25), one.loss.shapes)
    loss.decoder = Blank(0.0)
    per_frame = 0.5 * one.batch["target", STATIC].square().sum((-1, -2, -3))
    frames = one.batch.batch_size[1]
    total = torch.zeros_like(per_frame)
    with contract.seeded(3):
        for _ in range(400):
            value = loss(one.latents, one.batch, one.model).value
            drawn = value[0] > 0
            assert drawn.sum() == frames // 4
            assert torch.allclose(value[:, drawn], 4 * per_frame[:, drawn])
            total += value
    assert (total / 400 / per_frame - 1).abs().max() < 0.45  # each frame is drawn 100 times, give or take 8.7


def test_a_null_action_is_no_motion_and_an_open_gripper() -> None:
    assert NULL_ACTION == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def test_forward_dynamics_asks_the_belief_for_the_body_and_for_the_embedding_which_it_does_not_move() -> None:
    one = contract.trial(ForwardDynamics)
    loss = ForwardDynamics(ForwardDynamics.Options(proprio=3.0, embed=2.0), one.loss.shapes)
    output = loss(one.latents, one.batch, one.model)
    assert loss.proprio_net is not None
    body = 0.5 * (loss.proprio_net(one.latents.belief) - one.batch["target", ROBOT]).square().sum(-1)
    image = one.latents.embed[..., : -one.loss.shapes.proprio]
    seen = 0.5 * (loss.embed_net(one.latents.belief) - image).square().sum(-1)
    assert torch.allclose(output.value, 3.0 * body + 2.0 * seen, rtol=1e-5)
    # a target that could be moved would make the encoder forget what is hard to foresee
    blind = replace(one.latents, belief=one.latents.belief.detach())
    assert not any(
        g is not None
        for g in torch.autograd.grad(loss(blind, one.batch, one.model).mean(), [one.latents.embed], allow_unused=True)
    )
