"""Training as a function: a store in, a frozen model out, the same after an interruption."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worldaction.test_api import LOSSES, TINY, make_store
from worldaction.config import ModelSizes, TrainingConfig, WorldModelConfig, sizes_of
from worldaction.errors import UserError
from worldaction.losses.base import Shapes
from worldaction.play.store import PlayStore
from worldaction.signals import Interrupted
from worldaction.world_model.model import ModelConfig, WorldModel
from worldaction.world_model.train import Training, as_device, train

BRIEF = TrainingConfig(steps=6, batch=2, length=8, save_every=2, open_loop=0.5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PlayStore:
    return make_store(tmp_path_factory.mktemp("train") / "play")


def config(store: PlayStore, **changes: Any) -> ModelConfig:
    return ModelConfig.of(store, **{"losses": LOSSES, **TINY, **changes})


def same(one: WorldModel, other: WorldModel) -> bool:
    weights = other.state_dict()
    return all(torch.equal(value, weights[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("core", ["dreamer_v2", "torchrl_v3"])
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(store: PlayStore, tmp_path: Path, core: str) -> None:
    sizes, checkpoint = config(store, core=core), tmp_path / "checkpoint.safetensors"
    whole = train(store, sizes, BRIEF, seed=3, device="cpu")

    def interrupt(done: int, figures: Mapping[str, float]) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(store, sizes, BRIEF, seed=3, device="cpu", checkpoint=str(checkpoint), report=interrupt)
    resumed = Training(store, sizes, BRIEF, seed=3, device="cpu", checkpoint=checkpoint)
    assert resumed.step == 3
    steps: list[int] = []
    resumed.run(lambda done, figures: steps.append(done))
    assert steps == [4, 5, 6]
    assert same(resumed.model, whole)
    resumed.discard()
    assert not checkpoint.exists()


def test_the_seed_decides_and_every_loss_is_reported(store: PlayStore) -> None:
    seen: list[set[str]] = []
    one = train(store, config(store), BRIEF, device="cpu", report=lambda done, figures: seen.append(set(figures)))
    again, other = (train(str(store.path), config(store), BRIEF, seed=seed, device="cpu") for seed in (0, 1))
    assert same(one, again)
    assert not same(one, other)
    assert len(seen) == 6
    assert {f"loss/{name}" for name in LOSSES} <= seen[0]


def test_the_proprioception_is_standardised_by_the_store(store: PlayStore) -> None:
    model = train(store, config(store), TrainingConfig(steps=1, batch=1, length=4), device="cpu")
    assert float(model.proprio_std.min()) < 1.0
    assert bool(model.proprio_mean.any())


def test_what_cannot_be_trained_is_refused(store: PlayStore) -> None:
    with pytest.raises(UserError, match="no window of 100 frames"):
        train(store, config(store), TrainingConfig(steps=1, length=100), device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA GPU"):
            as_device("cuda")


def test_sizes_are_said_once() -> None:
    """The command line's options, the saved configuration and what losses are built for inherit the same fields."""
    sizes = set(ModelSizes.__dataclass_fields__)
    for cls in (WorldModelConfig, ModelConfig, Shapes):
        assert issubclass(cls, ModelSizes)
        assert not sizes & set(cls.__annotations__)
    assert not set(WorldModelConfig.__annotations__) & set(TrainingConfig.__dataclass_fields__)
    assert ModelConfig(**sizes_of(WorldModelConfig(deter=7))).deter == 7
