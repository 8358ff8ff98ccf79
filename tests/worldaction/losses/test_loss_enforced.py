"""A training refuses a loss that breaks its contract before it begins, and says how to mend it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from worldaction.errors import UserError
from worldaction.losses import Loss, LossOutput, joined
from worldaction.losses.success import SuccessOptions
from worldaction.losses.tools.contract import check, check_leak, enforce, tiny_model
from worldaction.spec import PREVIOUS_ACTION
from worldaction.world_model.latent import Latents

README = Path(__file__).parents[3] / "README.md"


def changes(latents: Latents) -> torch.Tensor:
    """[B, T - 1]."""
    return (latents.belief[:, 1:] - latents.belief[:, :-1]).square().mean(-1)


BROKEN: dict[str, tuple[Callable[[Latents, TensorDict], Any], str]] = {
    "one_frame_short": (
        lambda latents, batch: LossOutput(changes(latents)),
        r"LossOutput.ahead\(value, joined\(batch\)",
    ),
    "three_frames_short": (lambda latents, batch: LossOutput(changes(latents)[:, 2:]), r"joined\(batch, 3\), steps=3"),
    "mask_of_another_shape": (
        lambda latents, batch: LossOutput(latents.belief.mean(-1), joined(batch)),
        r"mask is torch.bool \[2, 7\]",
    ),
    "mask_of_numbers": (
        lambda latents, batch: LossOutput(latents.belief.mean(-1), torch.ones(2, 8)),
        "mask is torch.float32",
    ),
    "not_finite": (lambda latents, batch: LossOutput(latents.belief.mean(-1) * float("nan")), "not finite"),
    "no_loss_output": (lambda latents, batch: latents.belief.mean(-1), "returns Tensor; return a LossOutput"),
}
GOOD: dict[str, Callable[[Latents, TensorDict], Any]] = {
    "every_frame": lambda latents, batch: LossOutput(latents.belief.mean(-1)),
    "whole_batch": lambda latents, batch: LossOutput(latents.belief.var()),
    "ahead": lambda latents, batch: LossOutput.ahead(changes(latents), joined(batch), steps=1),
}


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Latents, TensorDict], Any]], str]:
    """A user's loss with this `forward`, as `--losses` takes it."""

    def name(forward: Callable[[Latents, TensorDict], Any]) -> str:
        body = {"name": "theirs", "Options": SuccessOptions, "needs": frozenset({"belief"})}
        body |= {"forward": lambda self, latents, batch, model: forward(latents, batch), "__module__": "their_losses"}
        module = ModuleType("their_losses")
        module.Theirs = type("Theirs", (Loss,), body)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "their_losses", module)
        return "their_losses:Theirs"

    return name


@pytest.mark.parametrize("kind", BROKEN)
def test_what_breaks_the_contract_is_refused_with_the_remedy(kind: str, named: Any) -> None:
    forward, message = BROKEN[kind]
    with pytest.raises(UserError, match=message) as raised:
        enforce(tiny_model([named(forward)]), frames=8)
    assert "'theirs'" in str(raised.value)
    assert "worldaction check loss their_losses:Theirs" in str(raised.value)


@pytest.mark.parametrize("kind", GOOD)
def test_what_keeps_to_it_is_run_once_and_nothing_changes(kind: str, named: Any) -> None:
    calls = []

    def forward(latents: Latents, batch: TensorDict) -> Any:
        calls.append(batch.batch_size)
        return GOOD[kind](latents, batch)

    model = tiny_model(["kl", named(forward)])
    before, generator = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    enforce(model, frames=8)
    assert calls == [(2, 8)]
    assert torch.equal(torch.get_rng_state(), generator)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_the_loss_of_the_readme_keeps_to_the_contract() -> None:
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "Mine(" in block
    )
    scope: dict[str, Any] = {"__name__": "my_losses"}
    module = ModuleType("my_losses")
    sys.modules["my_losses"] = module
    try:
        exec(code, scope)
        assert check(scope["Mine"]) == []
    finally:
        del sys.modules["my_losses"]


def test_a_loss_that_predicts_actions_without_saying_so_is_found() -> None:
    class Undeclared(Loss):
        name = "undeclared"
        Options = SuccessOptions
        needs = frozenset({"belief"})

        def __init__(self, options: Any, shapes: Any) -> None:
            super().__init__(options, shapes)
            self.head = torch.nn.Linear(shapes.deter, shapes.action)

        def forward(self, latents: Latents, batch: TensorDict, model: object) -> LossOutput:
            error = (self.head(latents.belief[:, 1:]) - batch[PREVIOUS_ACTION][:, 1:]).abs().mean(-1)
            return LossOutput.ahead(error, joined(batch), steps=1)

    assert "predicts_actions" in check_leak(Undeclared)[0]
    Undeclared.predicts_actions = True
    # and then its leak is found: the action was fed to the belief
    assert "from noise" in check_leak(Undeclared)[0]
