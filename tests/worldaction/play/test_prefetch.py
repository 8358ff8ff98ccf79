"""Batches drawn ahead are those that would have been drawn in time, also after a stop; and errors arrive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from worldaction.errors import UserError
from worldaction.play.prefetch import Ahead, Here
from worldaction.play.store import Episode
from worldaction.play.windows import FrameStorage, WindowBatches, WindowSampler

CPU = torch.device("cpu")


def windows(seed: int = 5) -> WindowBatches:
    """Windows of three of sixty numbered frames, five to a batch."""
    from torchrl.data import TensorDictReplayBuffer

    frames = TensorDict({"number": torch.arange(60)}, [60])
    sampler = WindowSampler([Episode(0, 40), Episode(40, 20)], length=3, seed=seed)
    buffer = TensorDictReplayBuffer(storage=FrameStorage(frames), sampler=sampler, batch_size=15)
    return WindowBatches(buffer, batch=5)


def doubled(batch: TensorDict) -> TensorDict:
    return batch.apply(lambda value: 2 * value)


@pytest.fixture
def ahead() -> Iterator[Ahead]:
    made = Ahead(windows(), doubled, CPU, depth=3)
    yield made
    made.close()


def draw(batches: Here | Ahead, count: int) -> list[Tensor]:
    return [batches.sample()["number"] for _ in range(count)]


def test_they_are_the_same_in_the_same_order(ahead: Ahead) -> None:
    for one, other in zip(draw(Here(windows(), doubled), 20), draw(ahead, 20), strict=True):
        assert torch.equal(one, other)


def test_a_resume_goes_on_after_the_batch_that_was_handed_out_last(ahead: Ahead) -> None:
    draw(ahead, 4)
    state = ahead.state_dict()
    expected = draw(ahead, 6)
    # another one, which has drawn ahead something else
    other = Ahead(windows(seed=99), doubled, CPU)
    draw(other, 2)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(draw(other, 6), expected, strict=True))
    other.close()
    # and one that draws in time
    here = Here(windows(seed=7), doubled)
    here.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(draw(here, 6), expected, strict=True))


def test_closing_loses_nothing_and_leaves_no_thread(ahead: Ahead) -> None:
    first = draw(ahead, 3)
    ahead.close()
    ahead.close()
    assert "batches" not in [thread.name for thread in threading.enumerate()]
    expected = draw(Here(windows(), doubled), 6)
    assert all(torch.equal(a, b) for a, b in zip(first + draw(ahead, 3), expected, strict=True))


def test_what_went_wrong_is_raised_where_the_batch_is_asked_for() -> None:
    def refuse(batch: TensorDict, limit: list[int]) -> TensorDict:
        limit[0] -= 1
        if limit[0] < 0:
            raise UserError("the disk is gone")
        return batch

    ahead = Ahead(windows(), partial(refuse, limit=[2]), CPU)
    draw(ahead, 2)
    with pytest.raises(UserError, match="the disk is gone"):
        ahead.sample()
    assert "batches" not in [thread.name for thread in threading.enumerate()]


def test_a_thread_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Ahead(windows(), doubled, CPU)
    monkeypatch.setattr(ahead, "_work", lambda: None)
    with pytest.raises(RuntimeError, match="ended without a word"):
        ahead.sample()


@pytest.mark.gpu
def test_they_arrive_on_the_gpu_whole(tmp_path: Path) -> None:
    ahead = Ahead(windows(), doubled, torch.device("cuda"))
    for one, other in zip(draw(Here(windows(), doubled), 50), draw(ahead, 50), strict=True):
        assert other.is_cuda
        assert torch.equal(one, other.cpu())
    ahead.close()
