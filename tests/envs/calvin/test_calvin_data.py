"""What goes between CALVIN and us: starts from its data, policies behind its model API, episodes made in its table."""

from __future__ import annotations

import ast
import importlib
import logging
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from paths import ROOT
from test_calvin_env import Maker, interpreter, make

from envs.calvin import evaluation
from envs.calvin.env import CalvinEnv, calvin_table
from envs.calvin.evaluation import fnv1_32, stand_in_for_pyhash
from envs.calvin.record import main as recorder
from envs.calvin.record import record
from envs.calvin.starts import validation_starts
from envs.calvin.upstream import SENTENCES, Predictor, UpstreamModel
from envs.episodes import Job
from envs.playtable.generate import generate_shard
from envs.playtable.tools.replay import load_recording
from envs.tasks import EIGHT, TASKS
from worldaction.config import TableConfig
from worldaction.errors import UserError
from worldaction.play.store import PlayStore
from worldaction.spec import ROBOT

RECORDING = ROOT / "envs/playtable/recordings/calvin_D.npz"

__all__ = ["make"]  # a fixture


# ---- starts


def state(number: int) -> dict[str, np.ndarray]:
    """A recorded frame's vectors, with lights that are 0 or 1."""
    rng = np.random.default_rng(number)
    scene = rng.uniform(0, 0.2, 24)
    scene[4:6] = number % 2
    return {"robot_obs": rng.normal(size=15), "scene_obs": scene, "rel_actions": rng.uniform(-1, 1, 7)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set with windows of two of our tasks, and of one that is not ours."""
    root = tmp_path / "calvin"
    for split, first in (("training", 100), ("validation", 0)):
        folder = root / split
        folder.mkdir(parents=True)
        np.save(folder / "ep_start_end_ids.npy", np.array([[first, first + 9]]))
        for number in range(first, first + 10):
            np.savez_compressed(folder / f"episode_{number:07d}.npz", **state(number))
        tasks = ["open_drawer", "lift_red_block_table", "turn_on_led", "open_drawer"]
        windows = [(first + start, first + start + 3) for start in (0, 1, 4, 6)]
        found = {"language": {"ann": tasks, "task": tasks}, "info": {"episodes": [], "indx": windows}}
        (folder / "lang_annotations").mkdir()
        np.save(folder / "lang_annotations/auto_lang_ann.npy", np.array(found, dtype=object), allow_pickle=True)
    return root


def test_evaluation_starts_at_the_first_frames_of_annotated_windows(root: Path) -> None:
    starts = validation_starts(root, ["turn_on_led", "open_drawer"])
    assert [start.task for start in starts] == ["open_drawer", "turn_on_led", "open_drawer"]
    for start, number in zip(starts, (0, 4, 6), strict=True):
        np.testing.assert_array_equal(start.robot_obs, state(number)["robot_obs"])
        np.testing.assert_array_equal(start.scene_obs, state(number)["scene_obs"])
    (training,) = validation_starts(root, ["turn_on_led"], split="training")
    np.testing.assert_array_equal(training.scene_obs, state(104)["scene_obs"])


def test_a_task_without_a_window_and_a_damaged_frame_are_named(root: Path) -> None:
    with pytest.raises(UserError, match="validation has no annotated window of close_drawer"):
        validation_starts(root, ["close_drawer"])
    with pytest.raises(UserError, match="unknown task"):
        validation_starts(root, ["lift_red_block_table"])
    frame = root / "validation" / "episode_0000004.npz"
    np.savez_compressed(frame, **{**state(4), "scene_obs": np.full(24, 0.5)})
    with pytest.raises(UserError, match=r"episode_0000004.npz: the lights"):
        validation_starts(root, ["turn_on_led"])
    frame.write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(UserError, match=r"episode_0000004.npz is damaged"):
        validation_starts(root, ["turn_on_led"])


def test_the_examples_of_the_document_run_as_they_stand(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLDACTION_CALVIN_PYTHON", interpreter(tmp_path, "none:step:0"))
    text = (ROOT / "docs/calvin.md").read_text()
    first, second, third, fourth = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(first, names := {})  # texts of our own
    assert names["observation"]["rgb_static"].shape == (64, 64, 3)
    exec(second.replace("path/to/task_D_D", str(root)), names := {})
    assert names["env"].episodes == 2
    np.testing.assert_array_equal(names["env"].start_scene, state(6)["scene_obs"])
    names["env"].close()
    modules = [node.module for node in ast.walk(ast.parse(third + fourth)) if isinstance(node, ast.ImportFrom)]
    # what of CALVIN's they import is there with a simulator alone
    theirs = {"calvin_agent.evaluation", "calvin_agent.evaluation.multistep_sequences"}
    ours = {"agents.policy", "envs.calvin.evaluation", "envs.calvin.upstream", "envs.tasks"}
    assert set(modules) == {*ours, *theirs, "itertools"}
    (command,) = re.findall(r"^worldaction table record (.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    recorder([*command.replace("5", "1").split(), "--tasks", "close_drawer"])
    assert len(load_recording("recording.npz").windows) == 1


def test_what_eight_perfect_policies_would_do_is_counted_over_the_eight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chains = [
        ("open_drawer", "turn_on_led", "lift_red_block_table", "close_drawer", "turn_off_led"),
        ("turn_on_led", "push_pink_block_right", "open_drawer", "close_drawer", "turn_off_led"),
        ("lift_blue_block_table", "open_drawer", "turn_on_led", "close_drawer", "turn_off_led"),
        EIGHT[:5],
    ]
    sequences = ModuleType("calvin_agent.evaluation.multistep_sequences")
    vars(sequences)["get_sequences"] = lambda count: [({}, chain) for chain in chains]
    for name in ("calvin_agent", "calvin_agent.evaluation"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, sequences.__name__, sequences)
    *_, counting = re.findall(r"```python\n(.*?)```", (ROOT / "docs/calvin.md").read_text(), re.DOTALL)
    exec(counting, {})
    assert capsys.readouterr().out == "2.0 [0.75, 0.5, 0.25, 0.25, 0.25]\n"


# ---- CALVIN's model API


class Counter:
    """Predicts how often it was asked in this episode, in a form that is out of range on purpose."""

    def __init__(self, name: str, seen: list[Any]) -> None:
        self.name, self.seen = name, seen

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, int]:
        self.seen.append((self.name, observation, deterministic))
        age = 0 if state is None else state + 1
        return np.array([age, -9, 0.5, 0, 0, 0, -0.1 if age else 0.1]), age


def _sees(side: int, seen: list[Any] | None = None) -> Counter:
    """A policy whose world model has learned from images of this side."""
    policy: Any = Counter("", [] if seen is None else seen)
    policy.model = SimpleNamespace(config=SimpleNamespace(image_size=side))
    return cast(Counter, policy)


def observation(side: int = 200) -> dict[str, Any]:
    """As calvin_env gives them."""
    rng = np.random.default_rng(0)
    rgb = {"rgb_static": rng.integers(0, 256, (side, side, 3), np.uint8)}
    rgb["rgb_gripper"] = rng.integers(0, 256, (84, 84, 3), np.uint8)
    return {"rgb_obs": rgb, "depth_obs": {}, "robot_obs": np.linspace(-1, 1, 15), "scene_obs": np.zeros(24)}


def test_the_sentence_or_name_of_a_task_chooses_its_policy() -> None:
    assert set(SENTENCES) == set(TASKS)
    seen: list[Any] = []
    model = UpstreamModel({name: Counter(name, seen) for name in TASKS}, image_size=20, deterministic=True)
    for name, sentence in SENTENCES.items():
        model.reset()
        for goal in (name, sentence):
            action = model.step(observation(), goal)
            assert seen[-1][0] == name
            assert seen[-1][2] is True
        np.testing.assert_array_equal(action, [1, -1, 0.5, 0, 0, 0, -1])


def test_an_instruction_starts_its_policy_afresh_and_gripper_commands_are_one_or_minus_one() -> None:
    model = UpstreamModel({name: Counter(name, []) for name in ("open_drawer", "turn_on_led")})
    ages = [model.step(observation(), "open_drawer")[0] for _ in range(2)]
    model.reset()
    ages.append(model.step(observation(), "open_drawer")[0])
    # another goal without a reset: its policy must not be handed the first one's state
    ages.append(model.step(observation(), "turn_on_led")[0])
    assert ages == [0, 1, 0, 0]
    assert model.step(observation(), "turn_on_led")[6] == -1


def test_images_are_of_the_size_that_the_policies_have_learned_from() -> None:
    seen: list[Any] = []
    UpstreamModel({"open_drawer": _sees(32, seen)}).step(observation(), "open_drawer")
    assert seen[0][1]["rgb_static"].shape == (32, 32, 3)


def test_policies_see_small_images_and_the_robot_and_never_the_scene() -> None:
    seen: list[Any] = []
    UpstreamModel({"open_drawer": Counter("", seen)}, image_size=42).step(observation(), "open_drawer")
    (_, shown, _) = seen[0]
    assert set(shown) == {"rgb_static", "rgb_gripper", ROBOT}
    assert {array.dtype.name for array in shown.values()} == {"uint8", "float32"}
    halves = observation()["rgb_obs"]["rgb_gripper"].reshape(42, 2, 42, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(shown["rgb_gripper"], np.rint(halves))


def test_a_goal_without_a_policy_is_refused_or_the_robot_held() -> None:
    policies = {"open_drawer": Counter("", [])}
    for goal in ("lift the red block", np.zeros((1, 384)), None):
        with pytest.raises(UserError, match=r"^no policy for the goal .*; there are open_drawer"):
            UpstreamModel(policies).step(observation(), goal)
        held = UpstreamModel(policies, otherwise="hold").step(observation(), goal)
        np.testing.assert_array_equal(held, [0, 0, 0, 0, 0, 0, 1])


def wrapped(**changes: Any) -> dict[str, Any]:
    whole = observation()
    return {**whole, **changes, "rgb_obs": {**whole["rgb_obs"], **changes.get("rgb_obs", {})}}


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({"robot_obs": np.zeros(15)}, "lacks 'rgb_obs'"),
        (wrapped(rgb_obs={"rgb_static": np.zeros((1, 3, 200, 200), np.float32)}), "rgb_static is float32"),
        (wrapped(rgb_obs={"rgb_gripper": np.zeros((8, 8, 3), np.uint8)}), "at least 64 pixels"),
        (wrapped(robot_obs=np.zeros(8)), "robot_obs has shape"),
    ],
)
def test_an_observation_of_another_form_is_refused(obs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        UpstreamModel({"open_drawer": Counter("", [])}).step(obs, "open_drawer")


@pytest.mark.parametrize(
    ("policies", "options", "message"),
    [
        ({}, {}, "policies is empty"),
        ({"open": Counter("", [])}, {}, "unknown task 'open'"),
        ({"open_drawer": Counter("", [])}, {"otherwise": "guess"}, "unknown otherwise"),
        (
            {"open_drawer": _sees(32), "turn_on_led": _sees(64)},
            {},
            r"different sizes \(open_drawer 32, turn_on_led 64\)",
        ),
    ],
)
def test_a_wrong_argument_is_answered_with_the_remedy(policies: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        UpstreamModel(policies, **options)


# ---- episodes made in it


def test_a_recording_holds_what_was_commanded_from_the_start_to_success(make: Maker) -> None:
    env = make(cameras=False)
    recording = record(env, ["close_drawer"], episodes=2, noise=0.05, seed=3, source="none")
    assert [window.task for window in recording.windows] == ["close_drawer"] * 2
    assert recording.windows[0].stop == recording.windows[1].start
    for window in recording.windows:
        scenes = recording.scene_obs[window.start : window.stop]
        assert TASKS["close_drawer"].achieved(scenes[0], scenes[-1])
        env.reset(options={"robot_obs": recording.robot_obs[window.start], "scene_obs": scenes[0]})
        for row in range(window.start, window.stop - 1):
            np.testing.assert_allclose(recording.target[row, :3], env.target_position, atol=1e-5)
            env.step(recording.action[row])
        np.testing.assert_allclose(env.scene_obs(), scenes[-1], atol=1e-5)


def test_success_in_the_last_step_of_an_attempt_is_recorded(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    env, settings = make(cameras=False), {"episodes": 1, "noise": 0.05, "seed": 3, "source": "none"}
    whole = record(env, ["close_drawer"], **settings)  # type: ignore[arg-type]
    done = int(TASKS["close_drawer"].achieved(whole.scene_obs[0], whole.scene_obs).argmax())
    assert done == len(whole.action) - 2
    monkeypatch.setattr("envs.calvin.record.LIMIT", done)
    late = record(env, ["close_drawer"], **settings)  # type: ignore[arg-type]
    np.testing.assert_array_equal(late.action, whole.action)


def test_the_recording_that_is_carried_here_holds_five_windows_of_every_task() -> None:
    recording = load_recording(RECORDING)
    assert sorted(window.task for window in recording.windows) == sorted(5 * list(EIGHT))
    for window in recording.windows:
        scenes = recording.scene_obs[window.start : window.stop]
        assert TASKS[window.task].achieved(scenes[0], scenes[-1])
    assert RECORDING.stat().st_size < 300_000


def test_an_expert_that_never_succeeds_ends_the_recording(make: Maker) -> None:
    with pytest.raises(UserError, match="0 of 4 attempts at turn_on_led"):
        record(make(cameras=False), ["turn_on_led"], episodes=1, source="none")


def test_play_is_generated_in_any_table_and_says_in_which(make: Maker, tmp_path: Path) -> None:
    made: list[CalvinEnv] = []

    def build(table: TableConfig) -> CalvinEnv:
        made.append(make(image_size=table.image_size))
        return made[-1]

    jobs = [Job("play", 1, frames=12), Job("near_miss", 2, "close_drawer")]
    generate_shard(tmp_path / "s", jobs, TableConfig(image_size=16), source="calvin simulator", make=build)
    store = PlayStore.open(tmp_path / "s")
    assert (store.meta.source, store.meta.renderer, store.meta.image_size) == ("calvin simulator", "tiny", 16)
    assert [episode.kind for episode in store.episodes] == ["play", "near_miss"]
    assert store.meta.config is not None
    assert store.meta.config["simulator"]["calvin_env"] == "0" * 40
    assert [env.episodes for env in made] == [2]
    with pytest.raises(UserError, match="has ended"):
        made[0].achieved()


def test_a_renderer_that_calvin_has_not_got_is_refused() -> None:
    with pytest.raises(UserError, match="CALVIN cannot draw with 'rays'"):
        calvin_table(TableConfig(renderer="rays"))


def test_the_recorder_says_what_is_wrong_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORLDACTION_CALVIN_PYTHON", raising=False)
    with pytest.raises(SystemExit) as end:
        recorder(["--out", str(tmp_path / "r.npz")])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no CALVIN simulator is known")
    assert said.count("\n") == 1


# ---- CALVIN's own evaluation


class Composing:
    """A simulator that says what it was composed of, or cannot."""

    made: ClassVar[list[Composing]] = []

    def __init__(self, settings: Any) -> None:
        self.closed = False
        self.made.append(self)

    def configuration(self) -> str:
        if len(self.made) > 1:
            raise UserError("the simulator ended")
        return "scene: D"

    def close(self) -> None:
        self.closed = True


def test_the_configuration_is_written_with_the_next_step_said_and_no_simulator_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation, "Simulator", Composing)
    monkeypatch.setattr(Composing, "made", [])
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    evaluation.main(["--out", str(tmp_path / "set")])
    assert (tmp_path / "set" / evaluation.CONFIGURATION).read_text() == "scene: D"
    assert f"give CALVIN's make_env the folder {tmp_path / 'set'}" in capsys.readouterr().err
    (tmp_path / "file").touch()
    # what is there already is left as it is
    (tmp_path / "set" / evaluation.CONFIGURATION).write_text("mine")
    with pytest.raises(SystemExit):
        evaluation.main(["--out", str(tmp_path / "set")])
    assert "already; give another folder" in capsys.readouterr().err
    assert (tmp_path / "set" / evaluation.CONFIGURATION).read_text() == "mine"
    for folder, said in (("other", "error: the simulator ended"), ("file/set", "error: cannot write ")):
        with pytest.raises(SystemExit):
            evaluation.main(["--out", str(tmp_path / folder)])
        assert capsys.readouterr().err.startswith(said)
    # the folder that cannot be written was refused before a third one started
    assert [simulator.closed for simulator in Composing.made] == [True, True]
    assert not list((tmp_path / "other").rglob("*.yaml"))


def test_the_stand_in_for_pyhash_gives_the_values_that_pyhash_and_fnv_publish() -> None:
    # tests/test_fnv1.py and README.md of pyhash
    assert fnv1_32(b"test") == 3698262380
    assert fnv1_32(b"test", seed=3698262380) == fnv1_32(b"test", b"test") == 660137056
    assert fnv1_32("test") == 3910690890
    assert fnv1_32(b"hello world") == 2805756500
    assert fnv1_32(b"hello ") == 406904344
    # test_fnv.c of FNV's authors, whose basis is not 0
    basis = 0x811C9DC5
    published = {b"": 0x811C9DC5, b"a": 0x050C5D7E, b"foobar": 0x31F0B262}
    assert {text: fnv1_32(text, seed=basis) for text in published} == published


def test_a_script_that_imports_pyhash_finds_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyhash", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    stand_in_for_pyhash()
    assert importlib.import_module("pyhash").fnv1_32()("test") == 3910690890
    del sys.modules["pyhash"]


def test_policies_are_reset_at_every_instruction() -> None:
    class Counting(Predictor):
        resets = 0

        def predict(self, *arguments: Any, **options: Any) -> tuple[np.ndarray, None]:
            return np.zeros(7), None

        def reset(self) -> None:
            self.resets += 1

    policy = Counting()
    model = UpstreamModel({"open_drawer": policy})
    for count in (1, 2):
        model.reset()
        assert policy.resets == count
