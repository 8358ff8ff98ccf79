"""Evaluation: an episode is a function of its start state and its policy, and of nothing that runs beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.policies.diffusion import DiffusionPolicy
from agents.policy import Policy, PolicyState
from envs.benchmark import START_STATES, Start, recorded_start, start_seed
from envs.episodes import ATTEMPTS, SEEDS
from envs.playtable.benchmark import PlayTable
from envs.playtable.env import PlayTableEnv
from envs.playtable.generate import demo_episode, plan
from envs.tasks import TASKS, get_task
from experiments.real.starts import LISTS, OF_ROUNDS, round_numbers, start_numbers
from experiments.stages import improve as learn
from experiments.stages.rollout import NOBODY, Evaluation, evaluate
from experiments.stages.task_run import TaskRun
from experiments.study.checks import check_start_states, start_states
from experiments.study.resolve import model_config
from experiments.study.settings import PRESETS, Study
from worldaction.config import StressConfig, TableConfig
from worldaction.errors import UserError
from worldaction.interface import RobotInterface
from worldaction.spec import CALVIN, CAMERAS, NULL_ACTION, ROBOT
from worldaction.world_model.model import ModelConfig, WorldModel

TASK = "turn_on_led"
NUMBER = list(TASKS).index(TASK)
TABLE = TableConfig(image_size=16, max_steps=12)


def tiny_model() -> WorldModel:
    """An untrained world model, which sees well enough to tell start states apart."""
    torch.manual_seed(0)
    config = ModelConfig(
        cameras=("rgb_static",),
        image_size=16,
        deter=24,
        groups=4,
        classes=4,
        hidden=24,
        embed=24,
        depth=4,
        patch=2,
        unimix=0.01,
        burn_in=2,
        losses=(),
    )
    return WorldModel(config).eval().requires_grad_(False)


class Watched(Policy):
    """An untrained policy that remembers what it did in every episode."""

    def __init__(self, model: WorldModel | None = None, actor: DiffusionPolicy | None = None) -> None:
        model = model or tiny_model()
        torch.manual_seed(1)
        actor = actor or DiffusionPolicy(model.feature_size, 7, chunk=4, denoising_steps=3, width=16)
        super().__init__(model, actor, task=TASK)
        self.actions: dict[int, list[list[float]]] = {}

    def act(self, *args: Any, rows: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, PolicyState]:
        """As the policy's, and noted down by row."""
        action, state = super().act(*args, rows=rows, **kwargs)
        for row, values in zip(rows.tolist(), action.tolist(), strict=True):
            self.actions.setdefault(row, []).append(values)
        return action, state


def episodes(indices: list[int], parallel: int) -> tuple[Evaluation, dict[int, np.ndarray]]:
    """Outcomes, and the actions [T, A] of each start state."""
    policy = Watched()
    result = evaluate(policy, PlayTable(TABLE), indices=indices, parallel=parallel)
    return result, {row: np.array(actions) for row, actions in policy.actions.items() if row != NOBODY}


@pytest.fixture(scope="module")
def one_by_one() -> tuple[Evaluation, dict[int, np.ndarray]]:
    """Five start states, one after the other."""
    return episodes([0, 1, 2, 3, 4], 1)


@pytest.mark.parametrize("parallel", [3, 4, 10])
def test_results_do_not_depend_on_how_many_simulators_run_side_by_side(
    one_by_one: tuple[Evaluation, dict[int, np.ndarray]], parallel: int
) -> None:
    result, actions = episodes([0, 1, 2, 3, 4], parallel)
    assert result.to_dict() == one_by_one[0].to_dict()
    for row, expected in one_by_one[1].items():
        np.testing.assert_array_equal(actions[row], expected)


class Flicker(gym.Env[Any, Any]):
    """Shows noise that is a function of the episode's seed and of the step, for six steps, at the sizes of `quick`."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.random, self.steps = np.random.default_rng(seed), 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._observe(), 0.0, False, self.steps >= 6, {"is_success": False}

    def _observe(self) -> dict[str, np.ndarray]:
        images = {camera: self.random.integers(0, 256, (64, 64, 3), np.uint8) for camera in CAMERAS}
        return images | {ROBOT: self.random.normal(size=15).astype(np.float32)}


@pytest.fixture(scope="module")
def flickering() -> Any:
    """Evaluates an untrained policy of the sizes of `quick`: gives the actions [T, A] by start state."""
    study = PRESETS["quick"]
    torch.manual_seed(0)
    model = WorldModel(replace(model_config(study, CALVIN), losses=())).eval().requires_grad_(False)
    head = DiffusionPolicy(model.feature_size, 7, chunk=4, denoising_steps=10, width=study.policy.width)
    starts = [Start(number) for number in range(START_STATES)]
    benchmark: Any = SimpleNamespace(starts=lambda task: starts, make=lambda task, film: Flicker())

    def actions(indices: list[int], parallel: int) -> dict[int, np.ndarray]:
        policy = Watched(model, head)
        evaluate(policy, benchmark, indices=indices, parallel=parallel)
        return {row: np.array(found) for row, found in policy.actions.items() if row != NOBODY}

    return actions


@pytest.fixture(scope="module")
def flickering_one_by_one(flickering: Any) -> dict[int, np.ndarray]:
    """Actions of thirteen start states, each evaluated alone."""
    found: dict[int, np.ndarray] = flickering(list(range(13)), 1)
    return found


@pytest.mark.parametrize("parallel", [3, 7, 10, 16])
def test_actions_are_the_same_to_the_last_bit_however_many_simulators_run_side_by_side(
    flickering: Any, flickering_one_by_one: dict[int, np.ndarray], parallel: int
) -> None:
    found = flickering(list(range(13)), parallel)
    assert found.keys() == flickering_one_by_one.keys()
    for row, actions in found.items():
        np.testing.assert_array_equal(actions, flickering_one_by_one[row])


def test_actions_are_the_same_to_the_last_bit_whoever_else_is_evaluated(
    flickering: Any, flickering_one_by_one: dict[int, np.ndarray]
) -> None:
    # 2, 12 and 502 want the same row
    found = flickering([502, 12, 7, 2], 4)
    assert len(found) == 4
    for row in (2, 7, 12):
        np.testing.assert_array_equal(found[row], flickering_one_by_one[row])


def test_results_do_not_depend_on_which_other_start_states_are_asked_for(
    one_by_one: tuple[Evaluation, dict[int, np.ndarray]],
) -> None:
    result, actions = episodes([3, 700, 1], 2)
    assert result.index.tolist() == [3, 700, 1]
    for row in (1, 3):
        np.testing.assert_array_equal(actions[row], one_by_one[1][row])


def test_different_start_states_are_different_episodes(one_by_one: tuple[Evaluation, dict[int, np.ndarray]]) -> None:
    _, actions = one_by_one
    for one, other in combinations(actions.values(), 2):
        assert np.abs(one - other).max() > 1e-2


class Replay:
    """Plays recorded actions [T, A] in every episode, whatever it sees."""

    task = TASK
    interface = RobotInterface()

    def __init__(self, actions: np.ndarray) -> None:
        self.actions = torch.from_numpy(actions)
        self.model = SimpleNamespace(
            proprio_mean=torch.zeros(1), config=SimpleNamespace(observed=("rgb_static", "robot_obs"))
        )

    def act(
        self, observation: dict[str, torch.Tensor], state: int | None, *, start: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """The next action for everyone."""
        step = state or 0
        assert bool(start.all()) == (step == 0)
        now = self.actions[step] if step < len(self.actions) else torch.tensor(NULL_ACTION)
        return now.expand(len(rows), -1), step + 1


def test_success_is_counted_once_and_ends_the_episode_while_the_others_go_on() -> None:
    blind = PlayTableEnv(cameras=False)
    demos = ((index, *demo_episode(blind, TASK, start_seed(index, NUMBER), 0.05)) for index in range(20))
    first, arrays = next((index, arrays) for index, arrays, success in demos if success)
    scenes = arrays["scene_obs"]
    done = int(TASKS[TASK].achieved(scenes[0], scenes).argmax())
    assert done > 0
    table = TableConfig(image_size=16, max_steps=len(scenes) + 8)
    told: list[int] = []
    policy: Any = Replay(arrays["action"])
    result = evaluate(
        policy, PlayTable(table), indices=range(first, first + 3), parallel=3, films=2, progress=told.append
    )
    assert result.success[0]
    # frame 0 is the start, so frame n is what step n led to
    assert result.steps[0] == done
    assert not result.success.all()
    assert set(result.steps[~result.success]) == {table.max_steps}
    assert result.rate == result.success.mean()
    # the film has the start and what every step led to, and no more
    assert [len(film) for film in result.frames] == (result.steps[:2] + 1).tolist()
    assert sum(told) == 3


def test_under_a_tight_tolerance_the_step_at_which_calvins_oracle_is_content_is_kept_too() -> None:
    blind = PlayTableEnv(cameras=False)
    demos = ((index, *demo_episode(blind, TASK, start_seed(index, NUMBER), 0.05)) for index in range(20))
    first, arrays = next((index, arrays) for index, arrays, success in demos if success)
    scenes = arrays["scene_obs"]
    done = int(TASKS[TASK].achieved(scenes[0], scenes).argmax())
    # time is up before the part is where the tolerance wants it
    assert not get_task(TASK, tolerance=1.0).achieved(scenes[0], scenes[: done + 2]).any()
    table = TableConfig(image_size=16, max_steps=done + 1)
    policy: Any = Replay(arrays["action"])
    strict = PlayTable(table, StressConfig(tolerance=1.0))
    result = evaluate(policy, strict, indices=[first], parallel=1)
    assert not result.success[0]
    assert result.to_dict()["oracle_steps"] == [done]
    assert "oracle_steps" not in evaluate(policy, PlayTable(table), indices=[first], parallel=1).to_dict()


def test_every_task_has_its_own_start_states() -> None:
    seeds = [start_seed(index, task) for task in range(len(TASKS)) for index in range(START_STATES)]
    assert len(set(seeds)) == len(seeds)


def used_seeds(study: Study, data_seed: int) -> dict[str, set[int]]:
    """Seeds of the table by what a study uses them for."""
    jobs = plan(replace(study.data, seed=data_seed), study.tasks)
    found = {kind: {job.seed for job in jobs if job.kind == kind} for kind in ("play", "near_miss")}
    found["demo"] = {job.seed + attempt for job in jobs if job.kind == "demo" for attempt in range(ATTEMPTS)}
    found["evaluation and curve"] = {
        start_seed(index, task) for task in range(len(TASKS)) for index in range(START_STATES)
    }
    lists = [start_numbers(which, START_STATES) for which in (0, LISTS - OF_ROUNDS - 1)]
    lists.append(round_numbers(1, START_STATES))
    found["recorded policies"] = {recorded_start(number).seed for numbers in lists for number in numbers}
    found["dream starts"] = set(range(SEEDS["dream_starts"], SEEDS["dream_starts"] + study.update.starts))
    return found


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("data_seed", [0, 19])
def test_nothing_that_is_learned_from_begins_at_a_start_state_of_the_evaluation(name: str, data_seed: int) -> None:
    for (kind, seeds), (other, others) in combinations(used_seeds(PRESETS[name], data_seed).items(), 2):
        assert not seeds & others, f"{kind} and {other}"


def test_dreams_start_from_scenes_of_their_own_range(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Noting(gym.Wrapper[Any, Any, Any, Any]):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            assert seed is not None
            asked.append(seed)
            return super().reset(seed=seed, options=options)

    make = gym.make
    monkeypatch.setattr(gym, "make", lambda *args, **kwargs: Noting(make(*args, **kwargs)))
    here: Any = SimpleNamespace(
        task=TASK,
        benchmark=PlayTable(TABLE),
        seed=0,
        model=tiny_model(),
        device=torch.device("cpu"),
        study=SimpleNamespace(update=SimpleNamespace(starts=5)),
    )
    here.first_frames = partial(TaskRun.first_frames, here)
    learned, others = learn.dream_starts(here, measured=3)
    assert asked == list(range(SEEDS["dream_starts"], SEEDS["dream_starts"] + 8))
    assert (len(learned), len(others)) == (5, 3)
    # no scene is in both
    assert len(torch.cat([learned.embed, others.embed]).unique(dim=0)) == 8
    rows = torch.arange(5)
    # not all five: the codes of an untrained model are so few that two may fall together
    assert len(learned.draw(rows, seed=0, rows=rows).belief.unique(dim=0)) >= 3


def test_points_of_the_curve_come_from_the_far_end_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def note(policy: Any, benchmark: Any, *, indices: range, parallel: int) -> Evaluation:
        assert benchmark is here.benchmark
        asked.extend(indices)
        return Evaluation(np.array(indices), np.zeros(len(indices), bool), np.zeros(len(indices), int))

    monkeypatch.setattr(learn, "evaluate", note)
    study = PRESETS["debug"]
    here: Any = SimpleNamespace(
        study=study, policy=lambda actor: actor, task=TASK, benchmark=PlayTable(TABLE), prefix="p"
    )
    ppo: Any = SimpleNamespace(iteration=0, policy=None)
    recorder: Any = SimpleNamespace(log=lambda *args, **kwargs: None)
    learn._real_point(here, ppo, [], recorder)
    assert asked == list(range(START_STATES - study.evaluation.curve_episodes, START_STATES))
    assert not set(asked) & set(range(study.evaluation.episodes))


@pytest.mark.parametrize("name", PRESETS)
def test_no_start_state_has_two_uses(name: str) -> None:
    study = PRESETS[name]
    parts = start_states(study.evaluation, START_STATES)
    assert len(parts.sampler) == study.evaluation.sampler_episodes
    for one, other in combinations(parts, 2):
        assert not set(one) & set(other)


def test_what_is_evaluated_begins_where_the_study_says_and_never_reaches_what_was_looked_at_before() -> None:
    evaluation = replace(PRESETS["quick"].evaluation, first=600, episodes=330, sampler_episodes=50, curve_episodes=20)
    assert start_states(evaluation, 1_000) == (range(600, 930), range(930, 980), range(980, 1_000))
    study = replace(PRESETS["quick"], evaluation=evaluation)
    check_start_states(study, PlayTable(TABLE))
    with pytest.raises(UserError, match=r"episodes 331: give 1 to 330, .* the first is number 600 .* sampler 50"):
        check_start_states(replace(study, evaluation=replace(evaluation, episodes=331)), PlayTable(TABLE))
