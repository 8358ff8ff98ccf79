"""The recurrent model's clock: what enters when, what a reset forgets, and what a gradient passes through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.kernels.categorical.reference import probabilities, sample
from worldaction.spec import NULL_ACTION
from worldaction.world_model.cores.dreamer_v2 import RSSM
from worldaction.world_model.latent import Latent, Latents, one_hot, straight_through

B, T, E, A, D, S, C = 3, 6, 10, 7, 16, 4, 6


def make(classes: int = C) -> RSSM:
    torch.manual_seed(0)
    return RSSM(embed=E, action=A, deter=D, groups=S, classes=classes, hidden=12, unimix=0.01)


@pytest.fixture(scope="module")
def rssm() -> RSSM:
    return make()


def inputs(lead: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "embed": torch.randn(B, T, E, generator=generator),
        "previous_action": torch.rand(B, T, A, generator=generator) * 2 - 1,
        "is_init": torch.zeros(B, T, dtype=torch.bool),
        "uniform": torch.rand(B, lead + T, S, generator=generator).clamp(1e-6, 1 - 1e-6),
    }


def same(a: Latents, b: Latents, frame: int | slice) -> bool:
    """Whether two passes agree at some frames."""
    return torch.equal(a.belief[:, frame], b.belief[:, frame]) and torch.equal(a.state[:, frame], b.state[:, frame])


def replaced(values: dict[str, Tensor], key: str, frame: int) -> dict[str, Tensor]:
    """Other numbers at one frame."""
    changed = values[key].clone()
    changed[:, frame] = torch.randn(changed[:, frame].shape, generator=torch.Generator().manual_seed(99)).clamp(-2, 2)
    return values | {key: changed}


# The clock ------------------------------------------------------------------------------------------------------------


def test_an_action_moves_the_belief_of_its_frame_and_none_before(rssm: RSSM) -> None:
    values = inputs()
    base, moved = rssm.observe(**values), rssm.observe(**replaced(values, "previous_action", 3))
    assert same(base, moved, slice(0, 3))
    assert not torch.allclose(base.belief[:, 3], moved.belief[:, 3])
    assert not torch.allclose(base.belief[:, 4:], moved.belief[:, 4:])


def test_a_frame_is_seen_by_its_own_posterior_and_reaches_the_belief_one_frame_later(rssm: RSSM) -> None:
    values = inputs()
    base, moved = rssm.observe(**values), rssm.observe(**replaced(values, "embed", 3))
    assert same(base, moved, slice(0, 3))
    assert torch.equal(base.belief[:, 3], moved.belief[:, 3])
    assert not torch.allclose(base.posterior[:, 3], moved.posterior[:, 3])
    assert torch.equal(base.prior[:, :4], moved.prior[:, :4])
    # z_3 feeds h_4 wherever another class was drawn
    redrawn = (base.state[:, 3] != moved.state[:, 3]).any(-1)
    assert redrawn.any()
    assert ((base.belief[:, 4] != moved.belief[:, 4]).any(-1) == redrawn).all()


def test_is_init_forgets_everything_before_it(rssm: RSSM) -> None:
    values = inputs()
    values["is_init"][:, 3] = True
    base = rssm.observe(**values)
    for key, frame in (("embed", 2), ("previous_action", 2), ("uniform", 2), ("embed", 0)):
        other = replaced(values, key, frame) if key != "uniform" else values | {key: values[key].roll(1, 0)}
        if key == "uniform":
            other[key][:, 3:] = values[key][:, 3:]
        assert same(base, rssm.observe(**other), slice(3, T)), key


def test_is_init_keeps_the_action_of_its_frame(rssm: RSSM) -> None:
    values = inputs()
    values["is_init"][:, 3] = True
    base, moved = rssm.observe(**values), rssm.observe(**replaced(values, "previous_action", 3))
    assert same(base, moved, slice(0, 3))
    assert not torch.allclose(base.belief[:, 3], moved.belief[:, 3])


def test_is_init_begins_as_a_window_begins(rssm: RSSM) -> None:
    values = inputs()
    values["is_init"][:, 3] = True
    base = rssm.observe(**values)
    later = rssm.observe(**{key: value[:, 3:] for key, value in values.items()})
    assert torch.allclose(base.belief[:, 3:], later.belief, atol=1e-6)
    assert torch.equal(base.state[:, 3:], later.state)


def test_is_init_at_the_first_frame_changes_nothing(rssm: RSSM) -> None:
    values = inputs(lead=2)
    base = rssm.observe(**values, burn_in=3)
    values["is_init"][:, 0] = True
    assert same(base, rssm.observe(**values, burn_in=3), slice(0, T))


@pytest.mark.parametrize("burn_in", [1, 2, 4])
def test_observe_is_the_posterior_called_frame_by_frame(rssm: RSSM, burn_in: int) -> None:
    values = inputs(lead=burn_in - 1)
    embed, action, uniform = values["embed"], values["previous_action"], values["uniform"]
    found = rssm.observe(**values, burn_in=burn_in)
    null = torch.tensor(NULL_ACTION).expand(B, -1)
    first_action = action[:, 0] if burn_in == 1 else null
    latent = rssm.first(torch.zeros(B, D), first_action, embed[:, 0], uniform[:, 0])
    for look in range(1, burn_in):
        fed = action[:, 0] if look == burn_in - 1 else null
        latent = rssm.posterior(latent, fed, embed[:, 0], uniform[:, look])
    for frame in range(T):
        if frame:
            latent = rssm.posterior(latent, action[:, frame], embed[:, frame], uniform[:, burn_in - 1 + frame])
        assert torch.allclose(latent.belief, found.belief[:, frame], atol=1e-5)
        assert torch.equal(one_hot(latent.code, C), found.state[:, frame])


def test_the_prior_of_a_frame_is_what_imagination_draws_from(rssm: RSSM) -> None:
    values = inputs()
    found = rssm.observe(**values)
    code = found.state.unflatten(-1, (S, C)).argmax(-1).to(torch.uint8)
    draws = torch.rand(B, S, generator=torch.Generator().manual_seed(5))
    for frame in range(1, T):
        latent = Latent(found.belief[:, frame - 1], code[:, frame - 1])
        imagined = rssm.prior(latent, values["previous_action"][:, frame], draws)
        assert torch.allclose(imagined.belief, found.belief[:, frame], atol=1e-5)
        assert torch.equal(imagined.code, sample(found.prior[:, frame], draws))


# Shapes and values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("burn_in", [1, 3])
def test_from_its_first_imagined_frame_on_a_window_is_what_imagination_makes_of_it(rssm: RSSM, burn_in: int) -> None:
    values, first = inputs(burn_in - 1), torch.tensor([2, 4, T])
    seen = rssm.observe(**values, burn_in=burn_in)
    dreamed = rssm.observe(**values, burn_in=burn_in, open_loop_from=first)
    for row in range(B):
        before = slice(0, int(first[row]))
        assert torch.equal(dreamed.state[row, before], seen.state[row, before])
        latent = Latent(seen.belief[row, [first[row] - 1]], seen.state[row, first[row] - 1].view(1, S, C).argmax(-1))
        for frame in range(int(first[row]), T):
            draws = values["uniform"][[row], burn_in - 1 + frame]
            latent = rssm.prior(latent, values["previous_action"][[row], frame], draws)
            torch.testing.assert_close(dreamed.belief[[row], frame], latent.belief)
            assert torch.equal(dreamed.state[[row], frame], one_hot(latent.code, C))


def test_an_imagined_frame_teaches_the_prior_that_it_was_drawn_from(rssm: RSSM) -> None:
    for first_imagined, taught in ((torch.full((B,), 2), True), (torch.full((B,), T), False)):
        state = rssm.observe(**inputs(), open_loop_from=first_imagined).state[:, 3]
        last = rssm.prior_net[-1].weight
        (gradient,) = torch.autograd.grad((state * torch.arange(S * C)).sum(), last, allow_unused=True)
        assert bool((gradient != 0).any()) is taught


def test_the_taps_have_the_shapes_of_the_contract_and_states_are_exact_one_hots(rssm: RSSM) -> None:
    found = rssm.observe(**inputs())
    assert found.embed.shape == (B, T, E)
    assert found.belief.shape == (B, T, D)
    assert found.state.shape == (B, T, S * C)
    assert found.feature.shape == (B, T, D + S * C)
    for probs in (found.posterior, found.prior):
        assert probs.shape == (B, T, S, C)
        assert torch.allclose(probs.sum(-1), torch.ones(B, T, S), atol=1e-5)
        assert probs.min() >= 0.01 / C
    groups = found.state.unflatten(-1, (S, C))
    assert set(groups.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(groups.sum(-1), torch.ones(B, T, S))


def test_one_hot_names_each_class_of_each_group() -> None:
    code = torch.tensor([[0, 3], [2, 1]], dtype=torch.uint8)
    assert one_hot(code, 4).tolist() == [[1, 0, 0, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 1, 0, 0]]
    assert one_hot(code, 4).dtype == torch.float32


def test_as_many_classes_fit_as_a_byte_can_name() -> None:
    empty = Latent(torch.zeros(1, D), torch.zeros(1, S, dtype=torch.uint8))
    last = make(classes=256).prior(empty, torch.zeros(1, A), torch.full((1, S), 0.9999))
    assert last.code.tolist() == [[255] * S]
    for classes in (1, 257):
        with pytest.raises(UserError, match=f"{classes} classes"):
            make(classes=classes)


def test_rows_of_latents_are_picked_together() -> None:
    latent = Latent(torch.arange(6.0).view(3, 2), torch.arange(3, dtype=torch.uint8).view(3, 1))
    picked = latent.index(torch.tensor([2, 0]))
    assert picked.belief.tolist() == [[4, 5], [0, 1]]
    assert picked.code.tolist() == [[2], [0]]
    assert latent.index(slice(1, 2)).code.tolist() == [[1]]


# Gradients ------------------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_sample_is_that_of_its_probabilities() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(500, S, C, generator=generator, requires_grad=True)
    weight, uniform = torch.randn(500, S * C, generator=generator), torch.rand(500, S, generator=generator)
    probs = probabilities(logits, 0.01)
    drawn = straight_through(probs, uniform)
    assert torch.equal(drawn.detach(), one_hot(sample(probs, uniform), C))
    (found,) = torch.autograd.grad((drawn * weight).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((probs.flatten(-2) * weight).sum(), logits)
    assert torch.equal(found, expected)


def test_a_late_frame_teaches_an_early_embedding_through_the_state() -> None:
    rssm = make()
    values = inputs()
    embed = values["embed"].requires_grad_()
    rssm.observe(**values).belief[:, -1].sum().backward()
    assert embed.grad is not None
    assert (embed.grad[:, :-1].abs().amax(-1) > 0).all()
    assert not embed.grad[:, -1].any()  # z_t is drawn after h_t


def test_a_reset_cuts_the_gradient() -> None:
    rssm = make()
    values = inputs()
    values["is_init"][:, 3] = True
    embed = values["embed"].requires_grad_()
    rssm.observe(**values).feature[:, 3:].square().sum().backward()
    assert embed.grad is not None
    assert not embed.grad[:, :3].any()
    assert embed.grad[:, 3:].any()
