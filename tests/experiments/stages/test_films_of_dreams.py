"""Where no simulator can be filmed, recordings stand beside what policies dream from their first frames on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.report.video import Rollout
from experiments.stages import jury as stage
from experiments.stages.jury import Replays, film_dreams
from worldaction.losses.tools.contract import tiny_model
from worldaction.play.store import PlayStore, Segment, StoreWriter
from worldaction.spec import CALVIN

SIZE, LENGTH = 16, 12
OUTCOMES = (True, None, False)


class Sees:
    """A classifier that sees success from the n-th imagined frame on; never, if n is 0."""

    def __init__(self, at: int) -> None:
        self.at, self.asked = at, 0

    def probability(self, feature: Tensor) -> Tensor:
        self.asked += 1
        return feature.new_full((len(feature),), float(self.asked == self.at))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PlayStore:
    """Three held-out attempts, and one to learn from before them."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("films") / "store"
    with StoreWriter(
        path, image_size=SIZE, source="x", renderer="none", layout=CALVIN, config={"rate": 15.0}
    ) as writer:
        for number, success in enumerate((True, *OUTCOMES)):
            arrays: Any = {key: rng.uniform(-1, 1, (LENGTH, size)) for key, size in CALVIN.vectors.items()}
            arrays |= {c: rng.integers(0, 255, (LENGTH, SIZE, SIZE, 3), np.uint8) for c in CALVIN.cameras}
            split: Any = "validation" if number else "training"
            writer.add_episode(arrays, kind="demo", split=split, segments=[Segment("reach", 1, 10, success=success)])
    return PlayStore.open(path)


@pytest.fixture
def filmed(store: PlayStore, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Rollout], dict[str, Any]]]:
    """What is handed to the maker of films."""
    model: Any = tiny_model(["reconstruction"], image_size=SIZE).requires_grad_(False)

    def film(*, count: int, sees: int = 0, draws: bool = True) -> tuple[list[Rollout], dict[str, Any]]:
        given: list[Any] = [[], {}]
        shown = model if draws else tiny_model(["kl"], image_size=SIZE).requires_grad_(False)
        monkeypatch.setattr(stage, "open_world_model", lambda *_, **__: shown)
        monkeypatch.setattr(stage, "load_classifier", lambda _: Sees(sees))
        monkeypatch.setattr(stage, "rollout_video", lambda *a, **k: given.__setitem__(slice(None), [a[0], k]))
        held = [s for s in store.segments if store.episode_of(s.start).split == "validation"]
        seen = [{key: store.frames[key][s.start].numpy() for key in model.config.observed} for s in held]
        actions = {name: torch.randn(6, 8, CALVIN.action).clamp(-1, 1) for name in ("bc", "ppo")}
        done_at = {"bc": torch.zeros(2, 6, dtype=torch.int64), "ppo": torch.tensor([[3] * 6, [0] * 6])}
        replays = Replays(seen, torch.arange(6) % 3, 5, (0, 1), actions, done_at)
        run = SimpleNamespace(run=None, seed=0, task="reach", store=store, model=model, device=torch.device("cpu"))
        run.study = SimpleNamespace(success=SimpleNamespace(threshold=0.7))
        film_dreams(Path("film.mp4"), run, replays, ("bc", "ppo"), count=count)  # type: ignore[arg-type]
        return given[0], given[1]

    return film


def test_a_row_is_a_recording_and_what_each_policy_dreams_from_its_first_frame(
    filmed: Callable[..., Any], store: PlayStore
) -> None:
    rollouts, options = filmed(count=9)
    assert (options["columns"], options["fps"]) == (3, 15)
    assert [r.label.partition(",")[0] for r in rollouts] == ["recorded", "BC dreamed", "PPO dreamed"] * 3
    assert [r.success for r in rollouts[::3]] == list(OUTCOMES)
    assert rollouts[1].label.endswith("seen by 0 of 2 jurors")
    assert rollouts[2].label.endswith("seen by 1 of 2 jurors")
    first = next(s for s in store.segments if store.episode_of(s.start).split == "validation")
    cameras = [store.frames[camera][first.start : first.stop].numpy() for camera in CALVIN.cameras]
    assert np.array_equal(rollouts[0].frames, np.concatenate(cameras, 2))
    # a dream has its first frame and one for each action
    assert rollouts[1].frames.shape == (9, SIZE, 2 * SIZE, 3)
    assert not np.array_equal(rollouts[1].frames, rollouts[2].frames)


def test_a_dream_ends_where_the_model_that_dreams_sees_success(filmed: Callable[..., Any]) -> None:
    (_, dreamed, _), _ = filmed(count=1, sees=4)
    assert dreamed.success is True
    assert len(dreamed.frames) == 5


def test_no_more_is_filmed_than_asked_for_and_nothing_by_a_model_that_cannot_draw(filmed: Callable[..., Any]) -> None:
    assert len(filmed(count=2)[0]) == 6
    assert filmed(count=0) == ([], {})
    assert filmed(count=2, draws=False) == ([], {})
