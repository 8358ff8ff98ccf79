"""Dreams and filters through the operations: where an implementation serves, the same results as without it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.imagination import dream
from agents.kernel_weights import kernel_weights
from agents.policies.diffusion import DiffusionPolicy, TunedPolicy
from worldaction.kernels import ops
from worldaction.spec import STATIC, Layout
from worldaction.success import SuccessClassifier
from worldaction.world_model.cores.dreamer_v2 import RSSM
from worldaction.world_model.latent import Latent, Latents
from worldaction.world_model.model import ModelConfig, WorldModel

D, S, C, A, K, N, B, H = 24, 3, 9, 5, 2, 4, 9, 4
ROWS = torch.tensor([4, 0, 9, 2**33, 1, 77, 5, 6, 8])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(11)


def moved(module: nn.Module) -> Any:
    """With parameters that are not those of fresh layers."""
    for parameter in module.requires_grad_(False).parameters():
        parameter.mul_(1.5).add_(0.05 * torch.randn_like(parameter))
    return module.eval()


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(3)
    layout = Layout((STATIC,), robot=0, scene=0, action=A, null_action=(0.0,) * A)
    sizes = {"deter": D, "groups": S, "classes": C, "hidden": 19, "embed": 8, "depth": 2, "image_size": 64}
    losses = ("reconstruction=1,proprio=0", "kl=0.3,free_nats=0")
    config = ModelConfig(cameras=(STATIC,), patch=1, unimix=0.01, burn_in=1, losses=losses, layout=layout, **sizes)
    return moved(WorldModel(config))


def policies() -> list[DiffusionPolicy | TunedPolicy]:
    shape = {"chunk": K, "denoising_steps": N, "width": 32}
    base, tuned = (moved(DiffusionPolicy(D + S * C, A, **shape)) for _ in range(2))
    return [base, *(TunedPolicy(base, tuned, trained_steps=trained) for trained in (1, 2, N))]


def served(monkeypatch: pytest.MonkeyPatch, *modules: str) -> list[Any]:
    """Pretend that a faster implementation serves; the requests that it was asked for."""
    asked: list[Any] = []

    def choose(op: str, request: Any) -> SimpleNamespace:
        asked.append((op, request))
        return SimpleNamespace(name="faster")

    for module in modules:
        monkeypatch.setattr(f"{module}.choose", choose)
    return asked


@pytest.mark.parametrize("index", range(4))
def test_dreams_through_the_operation_are_the_same_dreams(
    index: int, model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, success = policies()[index], moved(SuccessClassifier(D + S * C, 21, 0.1))
    starts = Latent(torch.randn(B, D).tanh(), torch.randint(C, (B, S), dtype=torch.uint8))
    # a threshold at which some dreams succeed and some do not
    threshold = float(success.probability(model.feature(starts)).max())
    options = {"decisions": H, "threshold": threshold, "seed": 5, "rows": ROWS, "min_std": 0.1}
    expected = dream(model, policy, success, starts, **options)
    assert 0 < int((expected.success_step > 0).sum()) < B
    asked = served(monkeypatch, "agents.imagination")
    found = dream(model, policy, success, starts, **options)
    assert [op for op, _ in asked] == ["dream"] * 2
    sizes = {"deter": D, "groups": S, "classes": C, "hidden": 19, "action": A, "horizon": H * K}
    assert asked[-1][1].sizes == sizes | {"width": 32, "chunk": K * A, "blocks": 1, "success": 21}
    assert found.tensors().keys() == expected.tensors().keys()
    for name, one in found.tensors().items():
        other = expected.tensors()[name]
        assert one.shape == other.shape, name
        assert one.dtype == other.dtype, name
        assert torch.allclose(one.float(), other.float(), atol=2e-4), name


def test_networks_of_another_make_dream_step_by_step(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(SuccessClassifier):
        def probability(self, feature: Tensor) -> Tensor:
            return feature[:, 0].sigmoid()

    policy = policies()[0]
    starts = Latent(torch.zeros(2, D), torch.zeros(2, S, dtype=torch.uint8))
    monkeypatch.setattr(ops, "dream", lambda *args, **options: pytest.fail("through the operation"))
    served(monkeypatch, "agents.imagination")
    learning = SuccessClassifier(D + S * C, 21, 0.1).train()
    for success in (moved(Other(D + S * C, 21, 0.1)), learning):
        dream(model, policy, success, starts, decisions=1, threshold=2.0, seed=0, rows=torch.arange(2))


def test_weights_are_laid_out_once_and_again_when_they_change(model: WorldModel) -> None:
    policy, success = policies()[2], moved(SuccessClassifier(D + S * C, 21, 0.1))
    first, again = (kernel_weights(model, policy, success, min_std=0.1) for _ in range(2))
    assert first is not None
    assert again is not None
    assert again.prior is first.prior
    assert all(one is other for one, other in zip(again.deciders, first.deciders, strict=True))
    policy.tuned.denoiser.feature.weight.mul_(2.0)
    changed = kernel_weights(model, policy, success, min_std=0.1)
    assert changed is not None
    assert changed.deciders[0] is first.deciders[0]
    assert torch.equal(changed.deciders[1].belief, 2 * first.deciders[1].belief)


# The filter -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("burn_in", [1, 3])
@pytest.mark.parametrize("blind", [False, True])
def test_windows_are_filtered_alike_through_the_operation_and_so_are_gradients(
    burn_in: int, blind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, time = 4, 5
    core = RSSM(embed=8, action=7, deter=D, groups=S, classes=C, hidden=19, unimix=0.01)
    is_init = torch.zeros(rows, time, dtype=torch.bool)
    is_init[:, 0], is_init[2, 3] = True, True
    uniform = torch.rand(rows, burn_in - 1 + time, S).clamp(1e-6, 1 - 1e-6)
    given = (torch.randn(rows, time, 8), torch.randn(rows, time, 7), is_init, uniform)
    first = torch.tensor([time, 2, 4, 1]) if blind else None

    def taught() -> tuple[Latents, list[Tensor]]:
        found = core.observe(*given, burn_in=burn_in, open_loop_from=first)
        weight = torch.linspace(-1, 1, S * C)
        parts = (found.belief.square(), found.state * weight, found.posterior.log(), found.prior.square())
        loss = torch.stack([part.mean() for part in parts]).sum()
        return found, list(torch.autograd.grad(loss, list(core.parameters())))

    expected, wanted = taught()
    asked = served(monkeypatch, "worldaction.world_model.cores.dreamer_v2")
    found, gradients = taught()
    assert [op for op, _ in asked] == ["scan"]
    for name in ("belief", "state", "posterior", "prior"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-5), name
    for one, other in zip(gradients, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-3)


def test_the_filter_asks_for_the_precision_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    core = RSSM(embed=8, action=7, deter=D, groups=S, classes=C, hidden=19, unimix=0.01)
    asked = served(monkeypatch, "worldaction.world_model.cores.dreamer_v2")
    given = (torch.randn(2, 3, 8), torch.randn(2, 3, 7), torch.zeros(2, 3, dtype=torch.bool), torch.rand(2, 3, S))
    with torch.autocast("cpu", torch.bfloat16):
        found = core.observe(*given)
    core.observe(*given)
    assert [request.dtype for _, request in asked] == [torch.bfloat16, torch.float32]
    assert found.belief.dtype == torch.float32
