"""What a GPU may replay: the steps of training wait for no device, stay on theirs, and bake nothing in.

A graph is imitated on the CPU: what a step calls is recorded, and called again on the same tensors, without Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from agents.policies.diffusion import DiffusionPolicy
from worldaction.cuda_graph import Graph
from worldaction.errors import UserError
from worldaction.fit import Fit, linear_decay
from worldaction.losses.registry import available, find
from worldaction.losses.tools.contract import noise_batch, tiny_model
from worldaction.play.prefetch import Ahead
from worldaction.spec import NULL_ACTION
from worldaction.world_model.model import WorldModel, total
from worldaction.world_model.train import ModelStep, as_episode_starts

STEPS = 12
LOSSES = ("reconstruction=1,share=0.5", "kl=0.3", "inverse_dynamics=1,hidden=16")


class Recording(TorchDispatchMode):
    """Does what is called, and keeps it. Numbers that are read here, for a check, are not read on a GPU; see below."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class Imitation:
    """A graph on a CPU: the first call is recorded, later ones repeat it and do not call the function."""

    def __init__(self) -> None:
        self.recording: Recording | None = None
        self.result: Any = None

    def __call__(self, function: Callable[[], Any]) -> Any:
        if self.recording is None:
            with Recording() as self.recording:
                self.result = function()
        else:
            self.repeat(self.recording)
        return self.result

    def repeat(self, recording: Recording) -> None:
        with torch.no_grad():
            for func, args, kwargs, kept in recording.calls:
                # a view and a tensor that was written to are what they were; new numbers go where the old ones were
                if not any(alias.alias_info is not None for alias in func._schema.returns):
                    outs, olds = func(*args, **kwargs), kept
                    outs, olds = (outs, olds) if isinstance(kept, (tuple, list)) else ((outs,), (olds,))
                    for new, old in zip(outs, olds, strict=True):
                        if isinstance(old, Tensor):
                            old.detach().copy_(new)
                elif func._schema.is_mutable:
                    func(*args, **kwargs)


class Numbered:
    """Batches of noise, each another one."""

    def __init__(self) -> None:
        self.count = 0

    def sample(self) -> TensorDict:
        self.count += 1
        return as_episode_starts(noise_batch(seed=self.count), NULL_ACTION)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]

    def close(self) -> None:
        """Nothing is open."""


def trained(
    graph: Any, losses: tuple[str, ...] = LOSSES, spoil: Callable[[ModelStep], None] = lambda step: None
) -> Any:
    """Weights after a few steps, and what was logged."""
    torch.manual_seed(3)
    model = tiny_model(losses)
    step = ModelStep(model, Numbered(), steps=STEPS, open_loop=0.8, bf16=False, looks_every=5, graphed=True)
    spoil(step)
    fit = Fit(
        model,
        torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True),
        steps=STEPS,
        factor=partial(linear_decay, steps=STEPS, warmup=3, decay_from=0.5),
        clip=1e9,
        # so low that every step is clipped
        adaptive_clip=0.5,
        graph=graph,
    )
    logged = []

    def report(done: int, figures: Mapping[str, float]) -> None:
        for one in model.each_loss().values():
            one.after_step()
        logged.append(dict(figures))

    fit.run(step.loss, report, draw=step.draw, replayable=step.replayable)
    return model, logged


def assert_same(one: Any, other: Any) -> None:
    for key, value in one[0].state_dict().items():
        assert torch.allclose(value, other[0].state_dict()[key], atol=1e-6), key
    for a, b in zip(one[1], other[1], strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("losses", [LOSSES, ("reconstruction", "kl", "act_jepa")])
def test_replayed_steps_train_as_those_that_are_called(losses: tuple[str, ...]) -> None:
    called, replayed = trained(None, losses), trained(Imitation(), losses)
    assert_same(called, replayed)
    assert len(called[1]) == STEPS
    assert [i for i, figures in enumerate(replayed[1]) if "gradient_share/kl" in figures] == [0, 4, 9]


def test_the_comparison_sees_what_was_baked_in() -> None:
    def bake(step: ModelStep) -> None:
        draw = step.draw

        def baked(number: int) -> TensorDict:
            batch = draw(number)
            step.open_loop = 0.8 * number / STEPS  # a number of the host
            return batch

        step.draw = baked  # type: ignore[method-assign]

    called = trained(None, spoil=bake)
    with pytest.raises(AssertionError):
        assert_same(called, trained(Imitation(), spoil=bake))


def test_graphs_are_refused_without_a_gpu() -> None:
    with pytest.raises(UserError, match=r"not on cpu; leave world_model\.graph off"):
        Graph(torch.device("cpu"))


class Remote(TorchDispatchMode):
    """Fails where a number of the host becomes a tensor, for on a GPU it would be copied there, and waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten.lift_fresh.default, "a tensor was made of numbers of the host"
        return func(*args, **(kwargs or {}))


# Where nothing can be read --------------------------------------------------------------------------------------------


def elsewhere(module: nn.Module) -> nn.Module:
    """A module on a device that has no numbers: what reads one there, or brings one of the host's, fails."""
    return module.to("meta")


def step_of(model: WorldModel, batch: TensorDict, open_loop: float) -> None:
    terms, _, _ = model.losses_of(batch, open_loop=open_loop)
    total(terms).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 100.0)
    for one in model.each_loss().values():
        one.after_step()


@pytest.mark.parametrize("name", sorted(available()))
def test_no_loss_waits_for_the_device_or_computes_on_the_host(name: str) -> None:
    losses = ("reconstruction=1,share=0.5,proprio=10", "kl=0.3")
    model = tiny_model(losses if name in ("reconstruction", "kl") else (*losses, name))
    batch = as_episode_starts(noise_batch(), NULL_ACTION)
    assert set(find(name).reads) <= set(batch.keys())
    # a first step finds out what later ones need not ask
    step_of(model, batch, 0.0)
    with Remote():
        step_of(model, batch, 0.5)
    elsewhere(model)
    for open_loop in (0.0, 0.5):
        step_of(model, batch.to("meta"), open_loop)


def test_cloning_waits_for_no_device() -> None:
    policy = DiffusionPolicy(24, 7, chunk=4, denoising_steps=5, width=16, blocks=1)
    elsewhere(policy)
    rows = torch.empty(8, dtype=torch.int64, device="meta")
    loss = policy.loss(
        torch.empty(8, 24, device="meta"),
        torch.empty(8, 4, 7, device="meta"),
        torch.empty(8, policy.chunk_size, device="meta"),
        rows,
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in policy.denoiser.parameters())


# On a GPU -------------------------------------------------------------------------------------------------------------


class Noise:
    """The batches of `Numbered` as a store's, before they begin like episodes."""

    def __init__(self) -> None:
        self.count = 0

    def sample(self) -> TensorDict:
        self.count += 1
        return noise_batch(seed=self.count)

    def state_dict(self) -> dict[str, Any]:
        return {"count": torch.tensor(self.count)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])


def on_gpu(folder: Path | None, *, graphed: bool, bf16: bool, until: int = STEPS) -> list[Tensor]:
    """Weights after the steps of a training as a study has it, which stops at `until`."""
    where = torch.device("cuda")
    torch.manual_seed(3)
    model = tiny_model(LOSSES).to(where)
    ahead = Ahead(Noise(), partial(as_episode_starts, null_action=NULL_ACTION), where)  # type: ignore[arg-type]
    step = ModelStep(model, ahead, steps=STEPS, open_loop=0.8, bf16=bf16, looks_every=5, graphed=True)
    fit = Fit(
        model,
        torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-5, fused=True),
        steps=until,
        factor=partial(linear_decay, steps=STEPS, warmup=3, decay_from=0.5),
        clip=1.0,
        checkpoint=None if folder is None else folder / "checkpoint.safetensors",
        save_every=STEPS // 2,
        also={"batches": ahead},
        graph=Graph(where) if graphed else None,
    )
    with closing(ahead):
        fit.run(step.loss, lambda done, figures: None, draw=step.draw, replayable=step.replayable)
    return [p.detach().cpu() for p in model.parameters()]


@pytest.mark.gpu
@pytest.mark.parametrize("bf16", [False, True])
def test_a_graph_trains_as_the_steps_it_was_recorded_from(bf16: bool) -> None:
    for one, other in zip(on_gpu(None, graphed=False, bf16=bf16), on_gpu(None, graphed=True, bf16=bf16), strict=True):
        assert torch.allclose(one, other, atol=2e-3)


@pytest.mark.gpu
def test_a_graphed_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    on_gpu(tmp_path, graphed=True, bf16=False, until=STEPS // 2)
    resumed = on_gpu(tmp_path, graphed=True, bf16=False)
    for one, other in zip(on_gpu(None, graphed=True, bf16=False), resumed, strict=True):
        assert torch.allclose(one, other, atol=2e-3)
