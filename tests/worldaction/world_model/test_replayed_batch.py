"""A training that meets NaN: its batch is replayed to the tensor, and a run can pass over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experiments.__main__ import command
from tests.worldaction.test_api import LOSSES, TINY, make_store
from worldaction.config import TrainingConfig
from worldaction.errors import UserError
from worldaction.fit import NOT_FINITE
from worldaction.play.store import PlayStore
from worldaction.world_model.model import ModelConfig
from worldaction.world_model.replay import replay
from worldaction.world_model.train import Training

BRIEF = TrainingConfig(steps=4, batch=2, length=8, save_every=2)
POISONED = 2
"""The step whose batch is spoilt."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PlayStore:
    return make_store(tmp_path_factory.mktemp("play") / "store")


@pytest.fixture
def diverging(store: PlayStore, tmp_path: Path) -> Callable[[], Training]:
    """A training of which one batch holds an infinity."""

    def build() -> Training:
        config = ModelConfig.of(store, losses=LOSSES, **TINY)
        training = Training(store, config, BRIEF, device="cpu", checkpoint=tmp_path / "checkpoint.safetensors")
        draw = training._step.draw

        def spoilt(step: int) -> object:
            batch = draw(step)
            if step == POISONED:
                batch["robot_obs"] = torch.full_like(batch["robot_obs"], torch.inf)
            return batch

        training._step.draw = spoilt  # type: ignore[method-assign, assignment]
        return training

    return build


def nothing(step: int, figures: object) -> None:
    """No report."""


def test_a_kept_batch_comes_to_the_same_and_its_first_bad_tensor_is_named(
    diverging: Callable[[], Training], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"is not finite at step 2; its batch is in .*worldaction replay"):
        diverging().run(nothing)
    found = replay(tmp_path / NOT_FINITE)
    assert found.step == POISONED
    assert found.found[0] == "batch: robot_obs"
    assert any(line.startswith("module: encoder") for line in found.found)
    with pytest.raises(SystemExit, match="1"):
        command(["replay", str(tmp_path / NOT_FINITE)])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("step      2: loss ")
    assert "first     batch: robot_obs" in said


def test_a_resumed_training_comes_to_the_same_until_it_is_told_to_pass_over_the_batch(
    diverging: Callable[[], Training], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="is not finite at step 2"):
            diverging().run(nothing)
    command(["replay", str(tmp_path / NOT_FINITE), "--skip"])
    assert "step 2 will be passed over" in capsys.readouterr().out
    training = diverging()
    training.run(nothing)
    assert training.step == BRIEF.steps
    assert training.skipped == [POISONED]


def test_a_good_batch_that_is_kept_is_replayed_to_the_bit(
    store: PlayStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the weights, the random numbers and the batch are those of the step."""
    config = ModelConfig.of(store, losses=LOSSES, **TINY)
    training = Training(store, config, BRIEF, device="cpu", checkpoint=tmp_path / "checkpoint.safetensors")
    seen: list[dict[str, float]] = []
    loss = training._step.loss

    def failing(step: int) -> object:
        value, scalars = loss(step)
        seen.append({name: float(scalar) for name, scalar in scalars.items()})
        return (value * (torch.nan if step == POISONED else 1.0), scalars)

    training._step.loss = failing  # type: ignore[method-assign, assignment]
    with pytest.raises(UserError, match="is not finite at step 2"):
        training.run(nothing)
    found = replay(tmp_path / NOT_FINITE)
    assert found.found == []
    assert found.losses == {name.removeprefix("loss/"): v for name, v in seen[-1].items() if name.startswith("loss/")}


def test_a_file_that_is_no_such_batch_is_refused_by_name(tmp_path: Path) -> None:
    from worldaction.io.atomic import save_checkpoint

    save_checkpoint(tmp_path / "a.safetensors", {"module": {}})
    with pytest.raises(UserError, match=r"a\.safetensors is no batch of a world model's training"):
        replay(tmp_path / "a.safetensors")
