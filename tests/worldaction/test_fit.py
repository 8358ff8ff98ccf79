"""The optimisation loop: stopped anywhere and resumed, it gives the same weights to the bit; it stops where it must."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from worldaction.errors import UserError
from worldaction.fit import (
    AdaptiveClip,
    Figures,
    Fit,
    Loss,
    cosine_decay,
    linear_decay,
    linear_rise,
    random_state,
    set_random_state,
    skip,
)
from worldaction.io.atomic import load_checkpoint
from worldaction.play.store import Episode
from worldaction.play.windows import WindowSampler
from worldaction.signals import STOPS, Interrupted

STEPS = 9


class Job:
    """A small training with everything that has a state: dropout, AdamW, a sampler with its own generator, buffers."""

    def __init__(
        self, checkpoint: Path | None = None, *, save_every: int = 0, steps: int = STEPS, adaptive_clip: float = 0.0
    ) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.data = torch.randn(40, 3)
        self.sampler = WindowSampler([Episode(0, 40)], length=4, seed=1)
        self.fit = Fit(
            self.module,
            torch.optim.AdamW(self.module.parameters(), lr=1e-2),
            steps=steps,
            factor=partial(linear_decay, steps=steps, warmup=2, decay_from=0.5),
            clip=1.0,
            adaptive_clip=adaptive_clip,
            checkpoint=checkpoint,
            save_every=save_every,
            also={"sampler": self.sampler},
        )
        self.reports: list[tuple[int, dict[str, float]]] = []

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        index, _ = self.sampler.sample(None, 16)
        value = (self.module(self.data[index]) - torch.randn(16, 1)).square().mean()
        return value, {"loss": value.detach()}

    def report(self, step: int, figures: Mapping[str, float]) -> None:
        self.reports.append((step, dict(figures)))

    def run(self, loss: Loss | None = None, report: Callable[[int, Mapping[str, float]], None] | None = None) -> None:
        self.fit.run(loss or self.loss, report or self.report)


def state(job: Job) -> dict[str, Tensor]:
    """Weights and the optimiser's moments."""
    found = dict(job.module.state_dict())
    for i, values in job.fit.optimizer.state_dict()["state"].items():
        found |= {f"{i}/{key}": value for key, value in values.items()}
    return found


def assert_same(a: Job, b: Job) -> None:
    left, right = state(a), state(b)
    assert left.keys() == right.keys()
    for key in left:
        assert torch.equal(left[key], right[key]), key


@pytest.fixture(scope="module")
def whole() -> Job:
    job = Job()
    job.run()
    return job


# Resuming -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_a_stop_after_any_step_is_made_good_to_the_bit(stop: int, tmp_path: Path, whole: Job) -> None:
    first = Job(tmp_path / "c.safetensors")

    def interrupt(step: int, figures: Mapping[str, float]) -> None:
        first.report(step, figures)
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"step {stop} of {STEPS}"):
        first.run(report=interrupt)
    second = Job(tmp_path / "c.safetensors")
    torch.manual_seed(12345)  # another process would be anywhere
    second.run()
    assert_same(second, whole)
    assert first.reports + second.reports == whole.reports


def test_the_running_average_of_the_gradients_norm_is_resumed_to_the_bit(tmp_path: Path) -> None:
    # far below what is usual, so that every step is clipped by what the average is
    tight = Job(adaptive_clip=0.3)
    tight.run()
    first = Job(tmp_path / "c.safetensors", save_every=4, adaptive_clip=0.3)
    with pytest.raises(KeyError):
        first.run(lambda step: first.loss(step) if step < 6 else {}[step])
    second = Job(tmp_path / "c.safetensors", adaptive_clip=0.3)
    second.run()
    assert_same(second, tight)
    assert first.reports[:4] + second.reports == tight.reports


@pytest.mark.parametrize("crash", [1, 3, 4, 5, 8])
def test_a_crash_goes_back_to_the_last_checkpoint_and_ends_the_same(crash: int, tmp_path: Path, whole: Job) -> None:
    first = Job(tmp_path / "c.safetensors", save_every=4)

    def fail(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step == crash:
            raise KeyError("a crash")
        return first.loss(step)

    with pytest.raises(KeyError):
        first.run(fail)
    second = Job(tmp_path / "c.safetensors", save_every=4)
    second.run()
    assert second.reports[0][0] == crash // 4 * 4 + 1
    assert_same(second, whole)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    Job(path, save_every=STEPS).run()
    again = Job(path)
    again.run()
    assert again.reports == []
    assert again.fit.step == STEPS
    again.fit.discard()
    assert not path.exists()
    again.fit.discard()


def crashed(folder: Path) -> Path:
    """The checkpoint after four steps of a training that crashes after six."""
    path = folder / "c.safetensors"
    first = Job(path, save_every=4)
    with pytest.raises(KeyError):
        first.run(lambda step: first.loss(step) if step < 6 else {}[step])
    return path


def test_resuming_tells_the_step_before_the_run(tmp_path: Path) -> None:
    second = Job(crashed(tmp_path))
    second.fit.resume()
    assert second.fit.step == 4


def test_a_checkpoint_of_another_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    other = Job(crashed(tmp_path))
    other.fit.module = nn.Linear(4, 1)
    with pytest.raises(UserError, match=r"c\.safetensors is of another model.*delete it"):
        other.fit.resume()


def test_a_checkpoint_from_a_machine_without_a_gpu_is_taken_up_on_one_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(3)
    saved = random_state()
    expected = torch.rand(4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    restored: dict[int, Tensor] = {}
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.update({device: state}))
    set_random_state(saved)
    assert torch.equal(torch.rand(4), expected)
    set_random_state(saved | {"cuda1": torch.ones(2), "cuda7": torch.ones(2)})
    assert list(restored) == [1]


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_the_step_saves_and_gives_the_handlers_back(number: signal.Signals, tmp_path: Path) -> None:
    before = {n: signal.getsignal(n) for n in STOPS}
    job = Job(tmp_path / "c.safetensors")

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step == 2:
            os.kill(os.getpid(), number)
        return job.loss(step)

    with pytest.raises(Interrupted):
        job.run(loss)
    assert [step for step, _ in job.reports] == [1, 2, 3]
    assert (tmp_path / "c.safetensors").exists()
    assert {n: signal.getsignal(n) for n in before} == before


def test_training_works_outside_the_main_thread(whole: Job) -> None:
    job = Job()
    thread = threading.Thread(target=job.run)
    thread.start()
    thread.join()
    assert_same(job, whole)


# One step -------------------------------------------------------------------------------------------------------------


def descend(clip: float, scale: float) -> tuple[float, float]:
    """How far one step of plain descent moves a parameter whose gradient is `scale`, and the norm that is logged."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    fit = Fit(module, torch.optim.SGD(module.parameters(), lr=1.0), steps=1, factor=lambda step: 1.0, clip=clip)
    logged: dict[str, float] = {}
    fit.run(lambda step: (scale * module.weight.sum(), {}), lambda step, figures: logged.update(figures))
    return -module.weight.item(), logged["gradient_norm"]


def test_the_gradient_itself_is_clipped_and_its_true_norm_is_logged() -> None:
    assert descend(clip=5.0, scale=3.0) == pytest.approx((3.0, 3.0))
    assert descend(clip=5.0, scale=50.0) == pytest.approx((5.0, 50.0), rel=1e-5)
    assert descend(clip=math.inf, scale=50.0) == pytest.approx((50.0, 50.0))


def clipped(norms: Sequence[float], times: float, *, largest: float = math.inf) -> list[float]:
    """Norms of gradients after `AdaptiveClip`."""
    clip, parameter = AdaptiveClip(times, largest=largest, device=torch.device("cpu")), nn.Parameter(torch.zeros(3))
    found = []
    for norm in norms:
        parameter.grad = torch.tensor([0.0, norm, 0.0])
        told, _ = clip([parameter, nn.Parameter(torch.zeros(1))])
        assert told.item() == pytest.approx(norm)
        found.append(float(parameter.grad.norm()))
    return found


def test_only_an_outlier_is_clipped_at_a_multiple_of_what_is_usual() -> None:
    usual = [100.0, 120.0, 90.0, 110.0, 100.0]
    found = clipped([*usual, 5000.0, *usual], 3.0)
    assert found[:5] + found[6:] == pytest.approx(usual + usual)
    assert 290 < found[5] < 310


def test_what_is_usual_follows_a_lasting_change_and_no_gradient_at_all_is_fine() -> None:
    found = clipped([1.0] + 200 * [20.0], 3.0)
    assert found[1] == pytest.approx(3.0, rel=1e-5)
    assert found[-1] == pytest.approx(20.0)
    assert clipped([0.0, 0.0, 7.0], 3.0) == pytest.approx([0.0, 0.0, 7.0])
    assert clipped([50.0, 8.0, 8.0], 3.0, largest=10.0) == pytest.approx([10.0, 8.0, 8.0], rel=1e-5)


def test_gradients_do_not_pile_up() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    fit = Fit(module, torch.optim.SGD(module.parameters(), lr=1.0), steps=4, factor=lambda step: 1.0)
    fit.run(lambda step: (module.weight.sum(), {}), lambda step, figures: None)
    assert module.weight.item() == -4.0


def test_every_group_follows_the_factor_of_its_own_rate() -> None:
    module = nn.Linear(1, 1)
    groups = [{"params": [module.weight], "lr": 1.0}, {"params": [module.bias], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    rates: list[list[float]] = []
    fit = Fit(module, optimizer, steps=3, factor=lambda step: 1.0 / (step + 1))
    fit.run(
        lambda step: (module.weight.sum() + module.bias.sum(), {}),
        lambda step, figures: rates.append([group["lr"] for group in optimizer.param_groups]),
    )
    assert rates == [pytest.approx([1.0 / k, 0.1 / k]) for k in (1, 2, 3)]


# Numbers that are none ------------------------------------------------------------------------------------------------


def diverge(bad: float, folder: Path | None, batch: TensorDict, steps: int = 3) -> Fit:
    """A training whose last step has a loss that is no number."""
    torch.manual_seed(0)
    module = nn.Linear(1, 1, bias=False)
    path = None if folder is None else folder / "c.safetensors"
    fit = Fit(module, torch.optim.SGD(module.parameters(), lr=0.1), steps=steps, factor=lambda _: 1.0, checkpoint=path)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        kl = module.weight.sum() + (bad if step == steps - 1 else 1.0)
        return kl + 1.0, {"metrics/size": torch.tensor(2.0), "loss/reconstruction": torch.tensor(1.0), "loss/kl": kl}

    fit.run(loss, lambda step, figures: None, draw=lambda step: batch)
    return fit


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named_and_its_batch_kept(bad: float, tmp_path: Path) -> None:
    batch = TensorDict({"x": torch.arange(6.0).view(2, 3)}, [2, 3])
    with pytest.raises(UserError, match=r"loss 'kl' is not finite at step 2; its batch is in .*non_finite_batch"):
        diverge(bad, tmp_path, batch)
    kept = load_checkpoint(tmp_path / "non_finite_batch.safetensors")
    assert torch.equal(kept.state["batch"]["x"], batch["x"])
    assert kept.extra["step"] == 2
    # once more, over what is there already
    with pytest.raises(UserError):
        diverge(bad, tmp_path, batch + 1)
    again = load_checkpoint(tmp_path / "non_finite_batch.safetensors")
    assert torch.equal(again.state["batch"]["x"], batch["x"] + 1)


def test_a_batch_that_is_passed_over_is_drawn_and_teaches_nothing(tmp_path: Path) -> None:
    batch = TensorDict({"x": torch.ones(1)}, [1])
    with pytest.raises(UserError, match=r"To go on comes to the same again: worldaction replay .* with --skip"):
        diverge(math.nan, tmp_path, batch)
    skip(tmp_path, 2)
    fit = diverge(math.nan, tmp_path, batch)
    assert fit.skipped == [2]
    assert fit.step == 3
    # a good step is not passed over
    assert fit.module.weight.item() == pytest.approx(diverge(1.0, None, batch, steps=2).module.weight.item())


def test_finite_losses_write_nothing_and_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    batch = TensorDict({"x": torch.ones(1)}, [1])
    diverge(1e30, tmp_path, batch)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="'kl' is not finite at step 2; lower"):
        diverge(math.nan, None, batch)


def test_figures_are_read_when_they_are_looked_at_and_not_before() -> None:
    scalar = torch.tensor(1.0)
    figures = Figures({"loss": scalar})
    scalar.fill_(2.0)
    assert dict(figures) == {"loss": 2.0}


def test_a_gradient_that_is_not_finite_stops_before_it_touches_the_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    fit = Fit(module, torch.optim.SGD(module.parameters(), lr=1.0), steps=3, factor=lambda step: 1.0)
    with pytest.raises(UserError, match="gradient is not finite at step 0"):
        fit.run(lambda step: (module.weight.sqrt().sum(), {}), lambda step, figures: None)
    assert module.weight.item() == 0.0


# Schedules ------------------------------------------------------------------------------------------------------------


def test_linear_decay_rises_stays_and_falls_to_a_tenth() -> None:
    rate: Any = partial(linear_decay, steps=1000, warmup=10, decay_from=0.5)
    assert rate(0) == pytest.approx(0.1)
    assert rate(4) == pytest.approx(0.5)
    assert rate(9) == rate(10) == rate(500) == 1.0
    assert rate(750) == pytest.approx(0.55)
    assert rate(1000) == pytest.approx(0.1)
    assert all(rate(i) >= rate(i + 1) for i in range(10, 1000))


def test_linear_decay_without_rise_or_fall_is_flat() -> None:
    assert [linear_decay(i, steps=5, warmup=0, decay_from=1.0) for i in range(5)] == [1.0] * 5
    assert linear_decay(5, steps=5, warmup=0, decay_from=0.0, final=0.0) == pytest.approx(0.0)


def test_cosine_decay_starts_at_one_and_ends_at_its_floor() -> None:
    assert cosine_decay(0, steps=100) == 1.0
    assert cosine_decay(50, steps=100, final=0.2) == pytest.approx(0.6)
    assert cosine_decay(100, steps=100) == pytest.approx(0.05)


def test_what_is_learned_second_begins_at_a_quarter_and_is_all_there_at_three_quarters() -> None:
    assert [linear_rise(step, steps=8) for step in (0, 2, 4, 6, 8)] == [0.0, 0.0, 0.5, 1.0, 1.0]
