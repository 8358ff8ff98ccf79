"""The real table's interface, and what becomes of a simulator that fails, on a simulator that is none."""

from __future__ import annotations

import ast
import gc
import multiprocessing
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from paths import ROOT as CHECKOUT
from stable_baselines3.common.env_checker import check_env as sb3_check

import envs
from envs.calvin.client import PYTHON, ROOT, Settings, Simulator, SimulatorCrashed
from envs.calvin.draws import draw_start
from envs.calvin.env import CalvinEnv
from envs.calvin.server import BrokenMessageError, receive, send
from envs.tasks import TASKS
from worldaction.errors import UserError
from worldaction.play.images import area_mean
from worldaction.spec import CAMERAS, NULL_ACTION

SUPPORT = CHECKOUT / "tests" / "support"
STILL = np.array(NULL_ACTION)
PULL = np.array([0, -1, 0, 0, 0, 0, -1.0])
Maker = Callable[..., CalvinEnv]


def interpreter(folder: Path, fault: str) -> str:
    """A program that takes the place of the simulator's Python."""
    path = folder / fault.replace(":", "-")
    words = " ".join(shlex.quote(str(word)) for word in (sys.executable, SUPPORT / "fake_calvin.py", fault))
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Maker]:
    """Environments around a simulator with a fault."""
    made: list[CalvinEnv] = []

    def build(fault: str = "none:step:0", **options: Any) -> CalvinEnv:
        made.append(CalvinEnv(python=interpreter(tmp_path, fault), **{"image_size": 20, **options}))
        return made[-1]

    yield build
    for env in made:
        env.close()


def is_running(pid: int) -> bool:
    """A process that is neither gone nor waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int, within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


# ---- the interface


@pytest.mark.filterwarnings("ignore")
def test_it_passes_the_checks_of_gymnasium_and_stable_baselines3(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "none:step:0")
    env = gymnasium.make(envs.CALVIN_ID, render_mode="rgb_array", image_size=40, python=python).unwrapped
    gymnasium_check(env, skip_render_check=True)
    sb3_check(env)
    env.close()


def test_success_ends_the_episode_with_reward_one_and_time_truncates_it(make: Maker) -> None:
    env = make(max_steps=20)
    _, info = env.reset(seed=0)
    assert info == {"success": False, "is_success": False, "task_description": TASKS["open_drawer"].description}
    rewards, ended, cut = [], False, False
    while not ended:
        observation, reward, ended, cut, info = env.step(PULL)
        rewards.append(reward)
        assert info["success"] is info["is_success"] is ended
    assert observation["scene_obs"][1] - env.start_scene[1] > 0.12
    assert (sum(rewards), rewards[-1], cut) == (1, 1, False)
    env.reset(seed=0)
    assert [env.step(STILL)[3] for _ in range(20)] == [False] * 19 + [True]


def test_images_are_means_over_areas_of_what_the_simulator_draws(make: Maker) -> None:
    env = make(image_size=42, render_mode="rgb_array")
    observation, _ = env.reset(seed=3)
    static = env.render()
    assert static is not None
    assert static.shape == (200, 200, 3)
    np.testing.assert_array_equal(observation["rgb_static"], area_mean(static[None], 42)[0])
    gripper = static[:84, :84].reshape(42, 2, 42, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(observation["rgb_gripper"], np.rint(gripper))
    blind = make(cameras=False, render_mode="rgb_array")
    assert set(blind.reset(seed=3)[0]) == {"robot_obs", "scene_obs"}
    np.testing.assert_array_equal(blind.render(), static)


def test_steps_that_begin_together_lead_where_steps_do(make: Maker) -> None:
    one, other = make(cameras=False), make(cameras=False)
    for env in (one, other):
        env.reset(seed=0)
    for _ in range(3):
        other.begin_step(PULL)
        alone, together = one.step(PULL), other.step(PULL)
        np.testing.assert_array_equal(alone[0]["scene_obs"], together[0]["scene_obs"])
        assert alone[1:] == together[1:]
    assert (one.steps, other.steps) == (3, 3)
    other.begin_step(PULL)
    with pytest.raises(UserError, match="begun with another action"):
        other.step(STILL)
    with pytest.raises(UserError, match="at work on 'step'"):
        other.achieved()
    first = one.reset(seed=4)[0]
    np.testing.assert_array_equal(other.reset(seed=4)[0]["scene_obs"], first["scene_obs"])
    other.step(PULL)


@pytest.mark.parametrize(("command", "sent"), [(0.001, 1.0), (0.0, -1.0), (-5.0, -1.0)])
def test_actions_are_clipped_and_the_gripper_opens_above_zero_alone(make: Maker, command: float, sent: float) -> None:
    env = make(cameras=False)
    before = env.reset(seed=0)[0]["robot_obs"]
    after, *_ = env.step(np.array([50, -50, 0.5, 3, -0.5, 0, command]))
    np.testing.assert_allclose(after["robot_obs"][:3] - before[:3], [0.02, -0.02, 0.01], atol=1e-6)
    np.testing.assert_allclose(after["robot_obs"][3:6] - before[3:6], [0.05, -0.025, 0], atol=1e-6)
    assert after["robot_obs"][14] == env.gripper_action == sent


def test_the_start_depends_on_seed_and_task_alone(make: Maker) -> None:
    env = make(cameras=False)
    env.reset(seed=99)
    for _ in range(3):
        env.step(PULL)
    wanted = {"task": "close_drawer"}
    first = env.reset(seed=5, options=wanted)[0]
    again = make(task="turn_on_led", cameras=False).reset(seed=5, options=wanted)[0]
    for name in first:
        np.testing.assert_array_equal(again[name], first[name])
    for seed, options in ((6, wanted), (5, {"task": "move_slider_left"})):
        other = env.reset(seed=seed, options=options)[0]
        assert not np.array_equal(other["robot_obs"], first["robot_obs"])
        assert not np.array_equal(other["scene_obs"], first["scene_obs"])


def test_a_state_can_be_given_whole(make: Maker) -> None:
    env = make(cameras=False)
    start = draw_start(TASKS["turn_off_led"], 17)
    options = {"task": "turn_off_led", "robot_obs": start.robot_obs, "scene_obs": start.scene_obs}
    observation, _ = env.reset(options=options)
    np.testing.assert_array_equal(observation["robot_obs"], start.robot_obs.astype(np.float32))
    np.testing.assert_array_equal(env.start_scene, start.scene_obs)
    assert env.led


@pytest.mark.parametrize("task", TASKS)
def test_drawn_starts_leave_the_task_to_be_done_with_lights_that_fit(task: str) -> None:
    for seed in range(10):
        scene = draw_start(TASKS[task], seed).scene_obs
        assert TASKS[task].possible(scene)
        assert scene[4] == (scene[3] > 0.044)
        assert scene[5] in (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "opendrawer"}, "did you mean 'open_drawer'"),
        ({"tsk": "open_drawer"}, "did you mean 'task'"),
        ({"scene": {"drawr": 0.1}}, "did you mean 'drawer'"),
        ({"scene": {"drawer": 0.3}}, "outside 0..0.22"),
        ({"robot_obs": np.zeros(14), "scene_obs": np.zeros(24)}, "robot_obs must be 15 finite numbers"),
        ({"robot_obs": np.zeros(15), "scene_obs": np.full(24, np.nan)}, "scene_obs must be 24 finite numbers"),
        ({"robot_obs": np.zeros(15), "scene_obs": np.full(24, 0.5)}, "each must be 0 or 1"),
    ],
)
def test_a_wrong_option_is_answered_with_the_remedy(make: Maker, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(cameras=False).reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "led_on"}, "unknown task"),
        ({"renderer": "osmesa"}, "unknown renderer 'osmesa'"),
        ({"scene": "E"}, "unknown scene 'E'"),
        ({"render_mode": "human"}, "rgb_array"),
        ({"image_size": 128}, "outside 1..84"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"patience": 0}, "patience 0"),
    ],
)
def test_a_wrong_argument_is_answered_before_a_simulator_starts(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CalvinEnv(**{"python": "/nowhere", **arguments})


@pytest.mark.parametrize("action", [np.zeros(6), np.full(7, np.nan), np.zeros((1, 7))])
def test_an_action_that_is_not_seven_finite_numbers_is_refused(make: Maker, action: np.ndarray) -> None:
    env = make(cameras=False)
    env.reset(seed=0)
    with pytest.raises(UserError, match="7 finite numbers"):
        env.step(action)


# ---- a simulator that does not start


def test_without_an_interpreter_the_variable_that_names_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(UserError, match=f"set {PYTHON} to its Python"):
        CalvinEnv()
    monkeypatch.setenv(PYTHON, "/no/such/python")
    with pytest.raises(UserError, match="/no/such/python is no program"):
        CalvinEnv()


def test_a_python_without_calvin_env_is_named_with_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ROOT, raising=False)
    with pytest.raises(
        UserError, match=r"^CALVIN does not start: .*No module named 'calvin_env'.*docs/calvin.md"
    ) as said:
        CalvinEnv(python=sys.executable)
    assert "\n" not in str(said.value)
    (tmp_path / "calvin_env").mkdir()
    (tmp_path / "calvin_env" / "__init__.py").touch()
    with pytest.raises(UserError, match="it is no checkout of calvin_env"):
        CalvinEnv(python=sys.executable, root=str(tmp_path))


def test_another_protocol_is_refused(make: Maker) -> None:
    with pytest.raises(UserError, match="speaks protocol -1"):
        make("protocol:hello:1")


def test_a_program_that_is_no_python_is_no_simulator() -> None:
    with pytest.raises(UserError, match="CALVIN does not start: the simulator ended with exit status 0"):
        CalvinEnv(python="true")


# ---- a simulator that fails


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("crash", "ended with exit status 139 on step; it said: .*Segmentation fault, in play"),
        ("hang", "did not answer within 1 s on step; it said: nothing"),
        ("garbage", "sent a header of"),
        ("truncated", "sent a message that ends 93 bytes early"),
        ("flood", "sent a header of 2147483648 bytes"),
        ("late", "sent an answer to request 4, not 5"),
        ("error", "step failed in the simulator with AssertionError: gripper"),
    ],
)
def test_a_failure_is_one_line_and_the_next_reset_starts_another_simulator(
    make: Maker, fault: str, message: str
) -> None:
    env = make(f"{fault}:step:3", cameras=False, patience=1.0)
    process = env.about["pid"]
    first = env.reset(seed=1)[0]
    for _ in range(2):
        env.step(PULL)
    with pytest.raises(SimulatorCrashed, match=message) as info:
        env.step(PULL)
    assert "\n" not in str(info.value)
    assert ends(process)
    with pytest.raises(UserError, match="call reset first"):
        env.step(PULL)
    again = env.reset(seed=1)[0]
    assert env.about["pid"] != process
    np.testing.assert_array_equal(again["scene_obs"], first["scene_obs"])
    env.step(PULL)
    assert (env.episodes, env.crashes) == (2, 1)


def test_a_failing_reset_loses_its_episode_alone(make: Maker) -> None:
    env = make("crash:reset:2", cameras=False)
    env.reset(seed=0)
    with pytest.raises(SimulatorCrashed, match="on reset"):
        env.reset(seed=1)
    env.reset(seed=1)
    assert (env.episodes, env.crashes) == (3, 1)


def test_a_simulator_that_hangs_at_the_start_is_given_up(tmp_path: Path) -> None:
    settings = Settings(python=interpreter(tmp_path, "hang:hello:1"), start_patience=0.5)
    with pytest.raises(UserError, match=r"^CALVIN does not start: .*did not answer within 0.5 s on hello"):
        Simulator(settings)


def test_a_simulator_that_prints_megabytes_neither_blocks_nor_disturbs(make: Maker) -> None:
    env = make("noise:step:1")
    start = env.reset(seed=0)[0]["scene_obs"]
    assert env.step(PULL)[0]["scene_obs"][1] > start[1]


# ---- nobody is left behind


def test_close_and_the_last_reference_end_the_process(make: Maker, tmp_path: Path) -> None:
    env = make()
    process = env.about["pid"]
    assert is_running(process)
    env.close()
    env.close()
    assert not is_running(process)
    simulator = Simulator(Settings(python=interpreter(tmp_path, "none:step:0")))
    process = simulator.about["pid"]
    del simulator
    gc.collect()
    assert not is_running(process)


SCRIPT = """
import sys, time
from envs.calvin.client import Settings, Simulator
simulator = Simulator(Settings(python=sys.argv[1], patience=600))
print(simulator.about["pid"], flush=True)
if sys.argv[2] == "wait":
    time.sleep(600)
if sys.argv[2] == "ask":
    simulator.render()
"""


def start_script(python: str, what: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", SCRIPT, python, what]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("fault", ["none:step:0", "orphan:step:0"])
def test_a_simulator_ends_with_a_client_that_is_killed(tmp_path: Path, fault: str) -> None:
    client, process = start_script(interpreter(tmp_path, fault), "wait")
    client.kill()
    client.communicate()
    assert ends(process)


def test_a_simulator_that_hangs_ends_with_a_client_that_is_killed(tmp_path: Path) -> None:
    client, process = start_script(interpreter(tmp_path, "hang:render:1"), "ask")
    time.sleep(0.5)
    assert is_running(process)
    client.kill()
    client.communicate()
    assert ends(process)


def test_a_simulator_ends_with_a_client_that_does_not_close_it(tmp_path: Path) -> None:
    client, process = start_script(interpreter(tmp_path, "none:step:0"), "end")
    client.communicate()
    assert client.returncode == 0
    assert ends(process)


def test_ctrl_c_reaches_the_client_alone(make: Maker) -> None:
    env = make(cameras=False)
    assert os.getsid(env.about["pid"]) != os.getsid(0)
    env.reset(seed=0)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    env.step(PULL)


def test_an_interrupted_question_is_not_answered_by_the_next(make: Maker) -> None:
    env = make("hang:step:1", cameras=False)
    env.reset(seed=0)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        env.step(PULL)
    timer.join()
    env.reset(seed=0)
    assert env.crashes == 0


def use(simulator: Simulator, said: Any) -> None:
    """In a forked process."""
    try:
        simulator.render()
    except UserError as error:
        said.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_neither_uses_nor_ends_the_simulator(tmp_path: Path) -> None:
    simulator = Simulator(Settings(python=interpreter(tmp_path, "none:step:0")))
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    child = context.Process(target=use, args=(simulator, said))
    child.start()
    assert "belongs to the process that started it" in said.get(timeout=20)
    child.join()
    assert set(simulator.render()) == set(CAMERAS)
    simulator.close()


# ---- the protocol


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_messages_arrive_as_they_were_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 4)), "b": rng.integers(0, 256, (5, 2, 3), np.uint8), "c": np.zeros((0,))}
    for part in ("first", "second"):
        send(pair[0], {"id": 7, "said": part}, {**arrays, "a": arrays["a"].T})
    for part in ("first", "second"):
        fields, received = receive(pair[1], 5.0)
        assert fields == {"id": 7, "said": part}
        np.testing.assert_array_equal(received["a"], arrays["a"].T)
        for name in ("b", "c"):
            np.testing.assert_array_equal(received[name], arrays[name])


def framed(header: bytes) -> bytes:
    return struct.pack(">I", len(header)) + header


@pytest.mark.parametrize(
    "content",
    [
        framed(b'{"arrays": [["a", "|O", [1]]]}') + bytes(8),
        framed(b'{"arrays": [["a", "<f8", [-1]]]}') + bytes(8),
        framed(b'{"arrays": [["a", "<f8", [1e3]]]}') + bytes(8),
        framed(b'{"arrays": [["a", "<f8", [100000000, 100000000]]]}'),
        framed(b'{"arrays": [["a", "<f8"]]}'),
        framed(b'{"arrays": 3}'),
        framed(b"[]"),
        framed(b"{}"),
        framed(b"\xff\xfe"),
        framed(b'{"arrays": [["a", "<f8", [2]]]}') + bytes(15),
        b"\x00\x00",
    ],
)
def test_bytes_that_are_no_message_are_refused(pair: tuple[socket.socket, socket.socket], content: bytes) -> None:
    pair[0].sendall(content)
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenMessageError):
        receive(pair[1], 5.0)


def test_random_damage_is_never_anything_but_a_broken_message(pair: tuple[socket.socket, socket.socket]) -> None:
    send(pair[0], {"id": 1}, {"a": np.zeros(3)})
    whole = bytearray(pair[1].recv(10_000))
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        one, other = socket.socketpair()
        with one, other:
            one.sendall(damaged[: int(rng.integers(1, len(whole) + 1))])
            one.shutdown(socket.SHUT_WR)
            try:
                fields, arrays = receive(other, 5.0)
            except (BrokenMessageError, TimeoutError):
                continue
            assert isinstance(fields, dict)
            assert all(array.size <= len(whole) for array in arrays.values())


def test_a_message_that_comes_in_drops_is_given_up_in_time(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(struct.pack(">I", 50))
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        receive(pair[1], 0.2)
    assert time.monotonic() - start < 2


def test_the_server_reads_as_python_38_and_needs_numpy_alone_to_be_imported() -> None:
    source = (CHECKOUT / "envs/calvin/server.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert outside == {"numpy"}


def test_importing_the_environment_loads_no_torch() -> None:
    code = "import sys, envs.calvin.env; print([m for m in ('torch', 'pybullet', 'OpenGL') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
