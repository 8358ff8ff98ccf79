"""A new environment is one file: the scaffold's works as it stands, and the check names what a study would miss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from tiny_study import environment

from envs.benchmark import Start, benchmark_class, open_benchmark
from envs.general.benchmark import General, find
from envs.general.tools.contract import CHECKS, check, examine
from envs.general.tools.scaffold import new_env
from worldaction.config import EnvConfig, GymConfig
from worldaction.errors import UserError


class Point(gym.Env[Any, Any]):
    """A number is to become positive; right in everything."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    demonstrator = "test_env_tools:Up"
    max_episode_steps = 30

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place = self.start()
        return self.observe(), self.said(False)

    def step(self, action: Any) -> Any:
        self.place = self.place + 0.1 * float(np.asarray(action)[0])
        return self.observe(), 0.0, False, False, self.said(self.place > 0)

    def start(self) -> float:
        return float(self.np_random.uniform(-1, -0.5))

    def observe(self) -> Any:
        return np.array([self.place], np.float32)

    def said(self, done: bool) -> dict[str, Any]:
        return {"is_success": done}


class Up:
    """Demonstrates."""

    def __init__(self, env: Any, rng: np.random.Generator) -> None:
        pass

    def act(self, observation: Any) -> Any:
        return np.ones(1)


class Down(Up):
    """Never arrives."""

    def act(self, observation: Any) -> Any:
        return -np.ones(1)


class NoSeed(Point):
    def start(self) -> float:
        return -float(np.random.default_rng().uniform(0.5, 1))


class OneStart(Point):
    def start(self) -> float:
        return -0.5


class SharedState(Point):
    steps = 0

    def observe(self) -> Any:
        SharedState.steps += 1
        return np.array([self.place + SharedState.steps], np.float32)


class Silent(Point):
    def said(self, done: bool) -> dict[str, Any]:
        return {}


class Endless(Point):
    max_episode_steps = None  # type: ignore[assignment]


class Nobody(Point):
    demonstrator = ""


class Lost(Point):
    demonstrator = "test_env_tools:Down"


class WrongShape(Point):
    def observe(self) -> Any:
        return np.array([self.place, 0.0], np.float32)


class Discrete(Point):
    action_space: Any = gym.spaces.Discrete(2)


class Fails(Point):
    def __init__(self) -> None:
        raise AssertionError


def test_an_environment_that_is_right_passes() -> None:
    found = dict(examine("test_env_tools:Point"))
    assert len(found) == 1 + len(CHECKS)
    assert not any(found.values())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NoSeed", "starts: one seed gave two starts"),
        ("OneStart", "starts: two seeds gave the same start"),
        ("SharedState", "repeats: two copies went different ways"),
        ("Silent", "success: Silent does not say in info"),
        ("Endless", "time limit: there is none; give its class max_episode_steps"),
        ("Nobody", "demonstrator: nobody demonstrates"),
        ("Lost", "demonstrator: no demonstration of Lost in 40 attempts"),
        ("WrongShape", "gymnasium: "),
        ("Discrete", "made: Discrete takes actions of Discrete(2)"),
        ("Fails", "made: --env test_env_tools:Fails cannot be made (AssertionError without a message)"),
        ("Absent", "made: --env test_env_tools:Absent"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_a_study_would_miss_is_named(name: str, sentence: str) -> None:
    found = check(f"test_env_tools:{name}")
    assert any(one.startswith(sentence) for one in found), found
    assert all("\n" not in one for one in found)


def test_who_demonstrates_can_be_said_as_for_a_study() -> None:
    assert check("test_env_tools:Nobody", GymConfig(expert="test_env_tools:Up")) == []


def test_our_own_table_passes_too() -> None:
    assert check("worldaction/PlayTable-v0") == []


def test_the_scaffold_s_environment_passes_and_so_do_its_tests(tmp_path: Path) -> None:
    env, test = new_env("my_env", tmp_path)
    assert (env.name, test.name) == ("my_env.py", "test_my_env.py")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout


def test_the_scaffold_overwrites_nothing_and_refuses_names_that_cannot_be(tmp_path: Path) -> None:
    env, _ = new_env("mine", tmp_path)
    before = env.read_text()
    with pytest.raises(UserError, match=r"mine.py is there already; give another name"):
        new_env("mine", tmp_path)
    assert env.read_text() == before
    for name in ("My-Env", "class", "MyEnv", ""):
        with pytest.raises(UserError, match="give small letters, digits and underscores"):
            new_env(name, tmp_path)


def test_a_class_of_the_same_name_from_another_file_is_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("first", "second"):
        text = new_env(name, tmp_path)[0].read_text()
        (tmp_path / f"{name}.py").write_text(text.replace(f"class {name.capitalize()}(", "class Same("))
    assert [find(f"{name}:Same").__module__ for name in ("first", "second", "first")] == ["first", "second", "first"]


class OwnBenchmark(General):
    """A place whose starts are special, for `--env test_env_tools:OwnBenchmark`."""

    name = "mine"

    @classmethod
    def open(cls, config: EnvConfig, *, renderer: str | None = None) -> General:
        return cls("test_env_tools:Point", config.gym, config.table)

    def starts(self, task: str) -> list[Start]:
        return [Start(seed) for seed in (7, 8)]


def test_a_benchmark_of_one_s_own_is_taken_as_it_is_and_checked_in_the_same_way() -> None:
    config = EnvConfig(env="test_env_tools:OwnBenchmark")
    assert isinstance(open_benchmark(config), OwnBenchmark)
    assert benchmark_class(config.env) is OwnBenchmark
    assert check(config.env) == []
