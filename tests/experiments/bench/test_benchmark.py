"""The benchmark's command writes what it measured, and ends with an error where ours is wrong."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.bench import benchmark, ours
from experiments.bench.base import Sizes, Workload
from experiments.bench.growth import Cost, peak, slope, slopes
from experiments.bench.ours import Implementation, draws, model, rollouts, start
from worldaction.errors import UserError
from worldaction.kernels import VARIABLE
from worldaction.random import Stream, uniform
from worldaction.world_model.latent import Latent

CPU = torch.device("cpu")
SIZES = Sizes(deter=32, groups=4, classes=4, hidden=16, action=3)


def test_quick_measures_everything_and_writes_it_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    benchmark.main(["--quick", "--rounds", "2", "--out", str(tmp_path / "out")])
    text = (tmp_path / "out/benchmark.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    results = json.loads((tmp_path / "out/benchmark.json").read_text())
    names = [comparison["name"].partition(",")[0] for comparison in results["comparisons"]]
    assert names == ["imagination", "denoising", "dreams with policy", "world-model step", "simulator", "data loading"]
    for comparison in results["comparisons"]:
        assert f"**{comparison['name']}**" in text
        for entry in comparison["entries"]:
            assert len(entry["cpu"]) == len(entry["wall"]) == 2
            assert f"| {entry['name']} |" in text
            assert entry["about"] in text
    assert {cost["axis"] for cost in results["growth"]} == {"batch", "horizon", "width"}
    for picture in ("speeds", "growth"):
        assert Image.open(tmp_path / f"out/{picture}.png").width > 1000
        assert list(csv.DictReader((tmp_path / f"out/{picture}.csv").open()))
    assert "no number to be quoted" in text


def test_parts_can_be_measured_alone(tmp_path: Path) -> None:
    benchmark.main(["--quick", "--rounds", "1", "--only", "loading", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "benchmark.json").read_text())
    assert [comparison["name"] for comparison in results["comparisons"]] == ["data loading"]
    assert not (tmp_path / "growth.png").exists()


def test_a_rollout_of_ours_that_is_wrong_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> list[Implementation]:
        right = rollouts(Workload(SIZES), CPU, compiled=False)[0].run
        return [Implementation("mine", "fp32", lambda w, h, z, a, u: right(w, h, z, a, 0.9 * u))]

    monkeypatch.setattr(ours, "rollouts", broken)
    with pytest.raises(UserError, match="mine fp32 is not right"):
        benchmark.main(["--quick", "--only", "imagination", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "lodaing"], "did you mean 'loading'"),
        (["--rounds", "0"], "--rounds 0: give 1 or more"),
        (["--threads", "-1"], "--threads -1: give 1 or more"),
        (["--peer", "dreamerv4=."], "unknown peer"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        benchmark.main(["--quick", *arguments])


def test_the_random_numbers_of_a_workload_are_those_of_imagination() -> None:
    workload = Workload(SIZES, batch=3, horizon=4)
    rows = torch.arange(3)
    steps = [uniform(7, Stream.PRIOR, rows, step, SIZES.groups) for step in range(4)]
    assert torch.equal(draws(workload, CPU, seed=7), torch.stack(steps, 1))


def test_what_is_raced_is_the_models_own_prior() -> None:
    workload = Workload(SIZES, batch=3, horizon=3)
    core, first, uniforms = model(SIZES, CPU), start(workload, CPU), draws(workload, CPU, seed=0)
    latent = Latent(first.belief, first.code)
    for step in range(workload.horizon):
        latent = core.prior(latent, first.actions[:, step], uniforms[:, step])
    beliefs, codes = rollouts(workload, CPU, compiled=False)[0].run(core.prior_weights(), *first, uniforms)
    torch.testing.assert_close(beliefs[:, -1], latent.belief)
    assert torch.equal(codes[:, -1], latent.code)


def test_peak_memory_is_what_is_held_at_once() -> None:
    assert peak(lambda: torch.zeros(1000), CPU) == 4000
    assert peak(lambda: [torch.zeros(1000).sum() for _ in range(5)], CPU) < 2 * 4000
    held = peak(lambda: [torch.zeros(1000) for _ in range(5)], CPU)
    assert held == 5 * 4000


def test_growth_is_told_as_an_exponent() -> None:
    assert slope([1, 10, 100], [5, 50, 500]) == pytest.approx(1)
    assert slope([1, 2, 4], [3, 3, 3]) == pytest.approx(0)
    costs = [Cost("batch", b, "ours", cpu=1 / b, wall=1.0, memory=100.0 * b) for b in (1, 2, 4)]
    assert slopes(costs)["ours"] == {"batch": pytest.approx(-1), "bytes_a_row": pytest.approx(100)}
