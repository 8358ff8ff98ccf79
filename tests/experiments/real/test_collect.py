"""Recorded episodes of a policy are attempts like any other, from start states of their own, whatever interrupts."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_study import finished_run

from agents.policy import Policy
from envs.benchmark import START_STATES, Benchmark, benchmark_of, recorded_start, start_seed
from envs.episodes import LAST_SEED, SEEDS
from envs.tasks import TASKS
from experiments import __main__ as cli
from experiments.guard import guarded
from experiments.real.collect import TAIL, Keeping, _Arena, collect
from experiments.real.starts import LISTS, OF_ROUNDS, round_numbers, start_numbers
from experiments.stages.rollout import evaluate
from worldaction.errors import UserError
from worldaction.interface import ActionScale, RobotCamera, RobotInterface, interface_of
from worldaction.play.store import PlayStore
from worldaction.spec import ACTION, ROBOT, SCENE

NAME = "turn_on_led-seed0-ppo"


def policy() -> Policy:
    return Policy.from_pretrained(finished_run() / "policies" / NAME)


def at_home() -> Benchmark:
    """The policy's own environment."""
    return benchmark_of(policy())


def test_episodes_are_recorded_as_attempts_and_read_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    cli.command(["record", str(finished_run() / "policies" / NAME), "--to", str(store), "--episodes", "3"])
    said = capsys.readouterr().out
    found = PlayStore.open(store)
    successes = sum(s.success is True for s in found.segments)
    assert f"turn_on_led in worldaction/PlayTable-v0: {successes} of 3 episodes succeeded, {len(found)} frames" in said
    assert [(e.kind, e.split) for e in found.episodes] == [("near_miss", "training")] * 3
    assert {(s.task, s.sentence) for s in found.segments} == {("turn_on_led", TASKS["turn_on_led"].description)}
    assert found.meta.config["starts"] == [recorded_start(number).seed for number in range(3)]
    assert found.meta.config["policy"]["name"] == NAME
    assert interface_of(found.meta) == policy().interface
    # all that the study's own play has, drawn alike
    play = PlayStore.open(finished_run() / "artefacts/play/store")
    assert (found.meta.layout, found.meta.renderer, found.meta.source) == (
        play.meta.layout,
        play.meta.renderer,
        play.meta.source,
    )
    cli.command(["data", "inspect", str(store)])
    assert "turn_on_led" in capsys.readouterr().out
    # the policy of a recording does not know it, but in its own environment it acts so again
    env = benchmark_of(policy()).make("turn_on_led")
    observation, _ = env.reset(seed=recorded_start(0).seed)
    for t in range(found.episodes[0].length):
        row = found.frames[t]
        assert np.array_equal(observation[ROBOT], row[ROBOT].numpy())
        assert np.array_equal(observation[SCENE], row[SCENE].numpy())
        observation, *_ = env.step(row[ACTION].numpy())


def test_what_is_recorded_does_not_depend_on_what_runs_side_by_side_nor_on_a_kill(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    acting, numbers = policy(), start_numbers(7, 4)
    collect(acting, at_home(), one, numbers=numbers, parallel=4)

    def kill(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(acting, at_home(), two, numbers=numbers, parallel=1, progress=kill)
    assert not two.exists()
    done: list[int] = []
    collect(acting, at_home(), two, numbers=numbers, parallel=1, progress=done.append)
    assert done == [1, 1, 1, 1]
    assert PlayStore.open(one).checksums == PlayStore.open(two).checksums
    assert PlayStore.open(one).segments == PlayStore.open(two).segments


def test_a_killed_recording_goes_on_to_more_episodes_and_nothing_else_goes_on_with_it(tmp_path: Path) -> None:
    path, about = tmp_path / "store", {"name": NAME}

    def kill(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(policy(), at_home(), path, numbers=start_numbers(7, 3), parallel=2, about=about, progress=kill)
    stricter = benchmark_of(policy(), max_steps=24)
    drawn = policy()
    drawn.sampler = "deterministic" if drawn.sampler == "stochastic" else "stochastic"
    others = [
        (policy(), stricter, about, 7),
        (drawn, at_home(), about, 7),
        (policy(), at_home(), {"name": "x"}, 7),
        (policy(), at_home(), about, 8),
    ]
    for acting, benchmark, who, seed in others:
        with pytest.raises(UserError, match="another policy, environment or --seed; repeat the command that began it"):
            collect(acting, benchmark, path, numbers=start_numbers(seed, 3), about=who)
    with pytest.raises(UserError, match="has 2 episodes already; give --episodes 2 or more"):
        collect(policy(), at_home(), path, numbers=start_numbers(7, 1), about=about)
    done: list[int] = []
    found = collect(policy(), at_home(), path, numbers=start_numbers(7, 4), about=about, progress=done.append)
    assert (found.episodes, done) == (4, [2, 2])


def test_an_episode_of_the_store_ends_as_one_of_an_evaluation(tmp_path: Path) -> None:
    acting, benchmark, numbers = policy(), at_home(), start_numbers(0, 3)
    found = collect(acting, benchmark, tmp_path / "store", numbers=numbers)

    class Plain:
        def starts(self, task: str) -> object:
            return [recorded_start(number) for number in numbers]

        make = staticmethod(benchmark.make)

    plain = evaluate(acting, Plain(), indices=numbers, parallel=3)  # type: ignore[arg-type]
    assert found.successes == plain.success.sum()
    lengths = [episode.length for episode in PlayStore.open(tmp_path / "store").episodes]
    assert lengths == [s + (TAIL + 1 if done else 0) for s, done in zip(plain.steps, plain.success, strict=True)]


class Count:
    """A simulator of numbers: step n shows n, and the task is done in step 3, once."""

    def __init__(self, *, ends: bool) -> None:
        self.ends, self.n = ends, 0

    def reset(self, *, seed: int | None, options: object = None) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        self.n = 0
        return {"n": np.array([0.0])}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, object]]:
        self.n += 1
        done = self.n == 3
        return {"n": np.array([float(self.n)])}, 0.0, done, False, {"is_success": done, "ended": done and self.ends}


@pytest.mark.parametrize(("ends", "frames"), [(False, 3 + TAIL + 1), (True, 4)])
def test_a_success_is_seen_in_what_is_recorded_and_stays_one(
    ends: bool, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[int, dict[str, np.ndarray], bool]] = []
    env = Keeping.__new__(Keeping)
    env.env, env._keep, env._scale = Count(ends=ends), lambda *of: kept.append(of), None  # type: ignore[assignment]
    env.reset(seed=5)
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(np.zeros(1, np.float32))
        over = terminated or truncated
    assert info["is_success"]
    ((seed, arrays, success),) = kept
    assert (seed, success) == (5, True)
    assert arrays["n"][:, 0].tolist() == list(map(float, range(frames)))


def test_a_table_that_is_told_actions_of_a_robot_s_own_units_is_recorded_with_them(tmp_path: Path) -> None:
    acting = policy()
    camera = RobotCamera("rgb_static", "observation.images.top", 480, 640)
    scale = ActionScale((-2.0,) * 7, (2.0,) * 7)
    interface = RobotInterface("arm", 15.0, (camera,), ("observation.state",), scale)
    acting.interface = interface
    collect(acting, at_home(), tmp_path / "store", numbers=start_numbers(0, 1))
    collect(policy(), at_home(), tmp_path / "plain", numbers=start_numbers(0, 1))
    store, plain = PlayStore.open(tmp_path / "store"), PlayStore.open(tmp_path / "plain")
    assert interface_of(store.meta) == interface
    # the first action, which both give in [-1, 1] whatever the table makes of it
    assert torch.allclose(store.frames[ACTION][0], plain.frames[ACTION][0], atol=1e-6)


def test_recorded_episodes_begin_where_nothing_else_does() -> None:
    numbers = [start_numbers(seed, START_STATES) for seed in (0, LISTS - OF_ROUNDS - 1)]
    numbers += [round_numbers(number + 1, START_STATES) for number in range(OF_ROUNDS)]
    asked = {recorded_start(number).seed for one in numbers for number in one}
    assert len(asked) == START_STATES * len(numbers)
    uses = [*sorted(SEEDS.values()), LAST_SEED]
    ((first, last),) = {(a, b) for a, b in pairwise(uses) for seed in asked if a <= seed < b}
    assert first == SEEDS["dream_starts"]
    # dreams count from the beginning of that range, evaluations have another one
    assert min(asked) - first > 100_000
    assert max(asked) < last
    assert not asked & {start_seed(index, task) for task in range(len(TASKS)) for index in range(START_STATES)}


def test_no_start_states_are_made_but_those_that_are_recorded() -> None:
    numbers = start_numbers(LISTS - OF_ROUNDS - 1, 2)
    assert _Arena(at_home(), numbers, None).starts("turn_on_led") == {n: recorded_start(n) for n in numbers}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--episodes", "0"], "--episodes 0: give 1 to 1000"),
        (
            ["--seed", "500"],
            "--seed 500: there are 498 lists of start states, and others are those of --real.rounds; give 0 to 497",
        ),
        (["--seed", "498"], "--seed 498: .*; give 0 to 497"),
        (["--env", "Pendulum-v1"], "leave out Pendulum-v1"),
    ],
)
def test_what_cannot_be_recorded_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    where = ["record", str(finished_run() / "policies" / NAME), "--to", str(tmp_path / "store"), *arguments]
    assert guarded(lambda: cli.command(where)) == 2
    assert re.search(said, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []
