"""The definition of an imagined step: it equals the recurrent model it comes from, and a GRU written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldaction.kernels.categorical.reference import probabilities, sample
from worldaction.kernels.rollout.reference import gru, prior_rollout, prior_step
from worldaction.world_model.cores.dreamer_v2 import RSSM
from worldaction.world_model.latent import Latent, one_hot

B, H, A, D, S, C = 5, 6, 7, 24, 4, 8


@pytest.fixture(scope="module")
def rssm() -> RSSM:
    torch.manual_seed(0)
    model = RSSM(embed=11, action=A, deter=D, groups=S, classes=C, hidden=20, unimix=0.01).double()
    # norms and biases that are not those of a fresh layer
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    belief = torch.randn(B, D, generator=generator, dtype=torch.float64).tanh()
    code = torch.randint(C, (B, S), generator=generator, dtype=torch.uint8)
    actions = torch.rand(B, H, A, generator=generator, dtype=torch.float64) * 2 - 1
    uniforms = torch.rand(B, H, S, generator=generator, dtype=torch.float64)
    return belief, code, actions, uniforms


def test_the_step_on_indices_equals_the_dense_layers_on_one_hots(rssm: RSSM) -> None:
    belief, code, actions, uniforms = inputs()
    found, drawn = prior_step(rssm.prior_weights(), belief, code, actions[:, 0], uniforms[:, 0], unimix=0.01)

    state = one_hot(code, C).double()
    x = rssm.input_norm(rssm.input_state(state) + rssm.input_action(actions[:, 0]))
    parts = rssm.gates_norm(rssm.gates(torch.cat([torch.nn.functional.elu(x), belief], -1)))
    reset, candidate, update = parts.chunk(3, -1)
    update = (update - 1).sigmoid()
    expected = update * (reset.sigmoid() * candidate).tanh() + (1 - update) * belief
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    logits = rssm.prior_net(expected).unflatten(-1, (S, C))
    assert torch.equal(drawn, sample(probabilities(logits, 0.01), uniforms[:, 0]))


def test_imagining_and_filtering_share_the_belief(rssm: RSSM) -> None:
    belief, code, actions, uniforms = inputs()
    embed = torch.randn(B, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    # one_hot is float32, so the filter runs in single precision
    single = RSSM(embed=11, action=A, deter=D, groups=S, classes=C, hidden=20, unimix=0.01)
    single.load_state_dict(rssm.state_dict())
    latent = Latent(belief.float(), code)
    imagined = single.prior(latent, actions[:, 0].float(), uniforms[:, 0].float())
    filtered = single.posterior(latent, actions[:, 0].float(), embed.float(), uniforms[:, 0].float())
    assert torch.allclose(imagined.belief, filtered.belief, atol=1e-5)
    exact, _ = prior_step(rssm.prior_weights(), belief, code, actions[:, 0], uniforms[:, 0], unimix=0.01)
    assert torch.allclose(imagined.belief.double(), exact, atol=1e-5)


def test_the_rollout_is_the_loop(rssm: RSSM) -> None:
    belief, code, actions, uniforms = inputs()
    weights = rssm.prior_weights()
    beliefs, codes = prior_rollout(weights, belief, code, actions, uniforms, unimix=0.01)
    assert beliefs.shape == (B, H, D)
    assert codes.shape == (B, H, S)
    assert codes.dtype == torch.uint8
    for step in range(H):
        belief, code = prior_step(weights, belief, code, actions[:, step], uniforms[:, step], unimix=0.01)
        assert torch.equal(beliefs[:, step], belief)
        assert torch.equal(codes[:, step], code)


def test_rows_do_not_see_each_other(rssm: RSSM) -> None:
    belief, code, actions, uniforms = inputs()
    weights = rssm.prior_weights()
    beliefs, codes = prior_rollout(weights, belief, code, actions, uniforms, unimix=0.01)
    for row in range(B):
        one = slice(row, row + 1)
        alone = prior_rollout(weights, belief[one], code[one], actions[one], uniforms[one], unimix=0.01)
        assert torch.allclose(alone[0], beliefs[one], rtol=0, atol=1e-12)
        assert torch.equal(alone[1], codes[one])


def test_the_gru_equals_one_written_out_number_by_number() -> None:
    generator = torch.Generator().manual_seed(3)
    width, size = 4, 3

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, h, gates, gain, offset = draw(1, width), draw(1, size), draw(3 * size, width + size), draw(9), draw(9)
    joined = x[0].tolist() + h[0].tolist()
    parts = [sum(w * v for w, v in zip(row, joined, strict=True)) for row in gates.tolist()]
    mean = sum(parts) / 9
    deviation = math.sqrt(sum((p - mean) ** 2 for p in parts) / 9 + 1e-5)
    parts = [(p - mean) / deviation * g + o for p, g, o in zip(parts, gain.tolist(), offset.tolist(), strict=True)]
    expected = []
    for i in range(size):
        reset = 1 / (1 + math.exp(-parts[i]))
        candidate = math.tanh(reset * parts[size + i])
        update = 1 / (1 + math.exp(-(parts[2 * size + i] - 1)))
        expected.append(update * candidate + (1 - update) * h[0, i].item())
    assert gru(x, h, gates, (gain, offset))[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_an_untrained_gru_keeps_most_of_its_memory() -> None:
    zeros = torch.zeros(9)
    kept = gru(torch.zeros(1, 2), torch.ones(1, 3), torch.zeros(9, 5), (zeros, zeros))
    assert kept[0].tolist() == pytest.approx([1 - 1 / (1 + math.e)] * 3)


def test_the_weights_are_those_of_the_model_and_not_copies(rssm: RSSM) -> None:
    weights = rssm.prior_weights()
    assert weights.gates.data_ptr() == rssm.gates.weight.data_ptr()
    assert weights.logits.data_ptr() == rssm.prior_net[3].weight.data_ptr()
    assert torch.equal(weights.state_rows, rssm.input_state.weight.T)
