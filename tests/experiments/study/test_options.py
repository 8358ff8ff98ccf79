"""The command line: what it understands, how fast it answers, and what it says to bad input."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paths import DATA
from tensordict import TensorDict
from tiny_study import command, environment, options

from envs import drawing
from envs.playtable import render
from envs.tasks import BLOCK_TASKS as TASKS_OF_BLOCKS
from envs.tasks import EIGHT, TASKS
from experiments import __main__ as program
from experiments.calvin import main
from experiments.guard import guarded
from experiments.study.options import parse_study
from experiments.study.resolve import model_config
from experiments.study.settings import DEFAULT, EIGHT_TASKS, PRESETS, Study
from worldaction.config import ranges_of, to_dict
from worldaction.errors import UserError
from worldaction.io.typed_json import typed
from worldaction.spec import ACTION, CALVIN, CAMERAS, IS_INIT, PREVIOUS_ACTION, ROBOT
from worldaction.world_model.model import WorldModel, total

SAMPLE = DATA / "calvin_sample_native"


# What it understands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_the_printed_settings_of_a_preset_read_back_to_the_same_study(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([name, "--print-config"])
    printed = json.loads(capsys.readouterr().out)
    assert typed(printed, Study, "config.json") == PRESETS[name]


def test_no_preset_means_the_default_one_and_options_change_only_what_they_name() -> None:
    study, resume, only_print = parse_study(["--update.lr", "0.5", "--tasks", "turn_on_led", "open_drawer"])
    assert study == replace(
        PRESETS[DEFAULT], tasks=("turn_on_led", "open_drawer"), update=replace(PRESETS[DEFAULT].update, lr=0.5)
    )
    assert (resume, only_print) == (None, False)


@pytest.mark.parametrize(("asked", "warned"), [([], True), (["--tasks", "all"], True), (["--tasks", *EIGHT], False)])
def test_recorded_play_teaches_no_task_of_blocks_in_a_simulator_that_judges_by_scenes(
    asked: list[str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    env = ["--env", "worldaction/Calvin-v0"]
    with caplog.at_level("WARNING"):
        study, *_ = parse_study(["small", *env, "--play", str(SAMPLE), *asked])
    assert study.tasks == EIGHT
    said = "tasks that cannot be learned from recorded play are left out: push_pink_block_right, "
    assert any(said in message for message in caplog.messages) == warned
    assert set(TASKS_OF_BLOCKS) < set(parse_study(["small", *env])[0].tasks)


def test_recorded_play_alone_means_its_own_tasks_and_no_simulator() -> None:
    study, *_ = parse_study(["small", "--play", str(DATA / "calvin_sample_64")])
    assert (study.env, study.tasks) == ("recorded", ("open_drawer",))
    # all that succeeds is cloned: how few presets clone belongs to their own benchmark
    assert study.clone.demos == 0
    # nothing is asked of start states that do not exist
    assert (study.evaluation.curve_episodes, study.evaluation.sampler_episodes) == (0, 0)
    assert study.table.max_steps % study.policy.chunk == 0


@pytest.mark.parametrize(
    ("asked", "stops"),
    [
        ([], True),
        (["--success.no-stop-on-no-go"], False),
        (["--success.no_stop_on_no_go"], False),
        (["--success.stop-on-no-go"], True),
        (["--env", "worldaction/PlayTable-v0"], False),
    ],
)
def test_where_no_simulator_judges_a_no_go_stops_unless_somebody_says_otherwise(asked: list[str], stops: bool) -> None:
    study, *_ = parse_study(["small", "--play", str(DATA / "calvin_sample_64"), *asked])
    assert study.success.stop_on_no_go == stops


def test_of_a_recording_whose_tasks_succeed_in_one_split_alone_a_world_model_is_trained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    study, *_ = parse_study(["small", "--play", str(SAMPLE)])
    assert study.env != "recorded"
    assert "no task with a success to learn from and another one that is held out" in caplog.text


@pytest.mark.parametrize("play", [["--play", "SET"], ["--play=SET"]])
def test_all_that_play_names_are_sets_until_the_next_option(play: list[str]) -> None:
    first, second = str(DATA / "calvin_sample_64"), str(SAMPLE)
    arguments = [argument.replace("SET", first) for argument in play]
    study = parse_study([*arguments, second, "third", "--seeds", "1", "--env", "worldaction/PlayTable-v0"])[0]
    assert study.plays == (first, second, "third")
    assert study.seeds == (1,)


@pytest.mark.parametrize("option", ["--more-play", "--more_play", "--from-run", "--from_run"])
def test_what_play_and_from_are_kept_as_is_no_option(option: str) -> None:
    said = f"{option} is now {'--play, which takes several' if 'play' in option else '--from'}"
    for argument in ([option, "x"], [f"{option}=x"]):
        with pytest.raises(UserError, match=said):
            parse_study(["debug", "--play", str(SAMPLE), *argument])


def test_what_needs_a_simulator_cannot_be_asked_of_a_recording() -> None:
    asked = ["small", "--play", str(DATA / "calvin_sample_64")]
    with pytest.raises(UserError, match=r"--evaluation\.curve-episodes needs a simulator"):
        parse_study([*asked, "--evaluation.curve-episodes", "3"])
    # said in so many words it is the same
    assert parse_study([*asked, "--env", "recorded"])[0] == parse_study(asked)[0]


def test_losses_named_on_the_command_line_keep_the_options_of_the_preset() -> None:
    study, *_ = parse_study(["debug", "--losses", "reconstruction", "kl=2", "my_losses:Mine=0.1"])
    assert study.losses == ("reconstruction=1,proprio=50,share=0.25", "kl=2,free_nats=1", "my_losses:Mine=0.1")


def test_presets_know_the_tasks_of_the_table() -> None:
    assert set(EIGHT_TASKS) == set(EIGHT)
    assert len(EIGHT_TASKS) == len(EIGHT) == 8
    assert PRESETS["small"].tasks == tuple(TASKS)
    for study in PRESETS.values():
        assert set(study.tasks) <= set(TASKS)


@pytest.mark.parametrize(
    ("arguments", "tasks"),
    [(["debug"], tuple(TASKS)), (["debug", "--env", "Pendulum-v1", "--gym.expert", "sac"], ("Pendulum_v1",))],
)
def test_all_tasks_are_those_of_the_environment(arguments: list[str], tasks: tuple[str, ...]) -> None:
    assert parse_study([*arguments, "--tasks", "all"])[0].tasks == tasks


PENDULUM = ["debug", "--env", "Pendulum-v1", "--gym.expert", "sac"]


def test_the_chunk_has_to_fit_the_time_limit_that_the_environment_chooses() -> None:
    study, *_ = parse_study([*PENDULUM, "--policy.chunk", "5"])
    assert study.table.max_steps == 200
    with pytest.raises(UserError, match="72 steps is no multiple of the chunk of 5"):
        parse_study([*PENDULUM, "--policy.chunk", "5", "--table.max-steps", "72"])


def test_a_dream_is_as_long_as_the_study_says_and_never_longer_than_an_episode() -> None:
    quick, *_ = parse_study(["quick"])
    assert (quick.table.max_steps, quick.dream_steps) == (152, 152)
    assert parse_study(["quick", "--update.horizon", "72"])[0].dream_steps == 72
    assert parse_study(["quick", "--table.max-steps", "48"])[0].dream_steps == 48
    with pytest.raises(UserError, match=r"the dream \(--update.horizon\) of 70 steps is no multiple of the chunk of 4"):
        parse_study(["quick", "--update.horizon", "70"])
    # the preset's was chosen for the table
    assert parse_study(PENDULUM)[0].dream_steps == 200
    assert parse_study([*PENDULUM, "--update.horizon", "40"])[0].dream_steps == 40


def test_arms_of_an_environment_without_cameras_have_none() -> None:
    study, *_ = parse_study([*PENDULUM, "--arms", "base:", "long:policy.chunk=5"])
    assert study.world_model.cameras == ()


@pytest.mark.parametrize("arguments", [["--help"], ["quick", "--help"], ["paper", "--help"]])
def test_help_costs_less_than_a_second(arguments: list[str], tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command(arguments), cwd=tmp_path, env=environment(), capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0
    for word in ("--world-model.steps", "--losses", "--resume", "--print-config", "debug"):
        assert word in result.stdout
    # time of the processor, which does not depend on what else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_help_and_settings_need_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from experiments.study.options import parse_study; parse_study(['small', '--update.lr', '1e-4']); "
        "sys.exit(bool({'torch', 'mujoco', 'matplotlib'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment()).returncode == 0


# Presets of other machines --------------------------------------------------------------------------------------------


def one_step(study: Study) -> dict[str, float]:
    """A step of training of a preset's world model on a batch of noise; the gradient's norm by part of the model."""
    torch.manual_seed(0)
    model = WorldModel(model_config(study, CALVIN))
    # [1, 3] windows: the sizes of the networks stay
    lead, side = (1, 3), study.table.image_size
    batch = {camera: torch.randint(0, 256, (*lead, side, side, 3), dtype=torch.uint8) for camera in CAMERAS}
    batch |= {ROBOT: torch.randn(*lead, 15), ACTION: torch.rand(*lead, 7), PREVIOUS_ACTION: torch.rand(*lead, 7)}
    batch[IS_INIT] = torch.zeros(lead, dtype=torch.bool)
    terms, _, _ = model.losses_of(TensorDict(batch, lead))
    total(terms).backward()
    return {
        name: sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None)
        for name, part in model.named_children()
    }


@pytest.mark.parametrize("name", PRESETS)
def test_the_world_model_of_every_preset_takes_a_step_of_training(name: str) -> None:
    gradients = one_step(PRESETS[name])
    assert gradients.keys() == {"encoder", "rssm", "losses"}
    assert all(0 < value < float("inf") for value in gradients.values())


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], str]:
    """Runs the study on bad input and gives the one line of the error."""

    def run(arguments: list[str]) -> str:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        assert guarded(lambda: main(arguments)) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        # nothing follows the error: the log's lines come before it
        assert len(errors) == 1
        return errors[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "value", "remedy"),
    [
        (["debg"], "'debg'", "did you mean 'debug'"),
        (["debug", "--tasks", "open_drawr"], "'open_drawr'", "did you mean 'open_drawer'"),
        (["debug", "--losses", "reconstrution"], "'reconstrution'", "did you mean 'reconstruction'"),
        (["debug", "--losses", "no_such_module:Loss"], "'no_such_module'", "run from the folder that holds it"),
        (["debug", "--losses", "kl=abc"], "'abc'", "give a number"),
        (["debug", "--losses", "kl=1,free_bits=2"], "'free_bits'", "did you mean"),
        (["debug", "--losses", "kl", "kl=1"], "kl", "once"),
        (["debug", "--tasks", "all", "open_drawer"], "all open_drawer", "leave out all"),
        (["debug", "--reuse", "nowhere"], "--reuse", "is now --cache"),
        (["debug", "--tasks"], "--tasks is empty", "give at least one"),
        (["debug", "--seeds"], "--seeds is empty", "give at least one"),
        (["debug", "--losses"], "--losses is empty", "give at least one"),
        (["debug", "--world-model.cameras"], "--world-model.cameras is empty", "give at least one"),
        (["debug", "--tasks", "open_drawer", "open_drawer"], "open_drawer open_drawer", "name each once"),
        (["debug", "--seeds", "1", "1"], "1 1", "name each once"),
        (["debug", "--update.trained-steps", "6"], "--update.trained-steps 6", "5 denoising steps"),
        (["debug", "--policy.chunk", "5"], "chunk of 5", "change one"),
        (["debug", "--policy.chunk", "0"], "--policy.chunk 0", "give 1 or more"),
        (["debug", "--arms", "base:", "policy.chunk=0"], "--policy.chunk 0", "give 1 or more"),
        (["debug", "--world-model.cameras", "rgb_top"], "'rgb_top'", "--world-model.cameras"),
        (["debug", "--table.image-size", "30"], "image size 30", "patch"),
        (["debug", "--world-model.batch", "0"], "--world-model.batch 0", "give 1 or more"),
        (["debug", "--evaluation.videos", "-1"], "--evaluation.videos -1", "give 0 or more"),
        (["debug", "--evaluation.first", "990"], "--evaluation.episodes 8", "give 1 to 2"),
        (["debug", "--evaluation.sampler-episodes", "999"], "--evaluation.episodes 8", "sampler 999"),
        (["debug", "--evaluation.within", "72", "0"], "--evaluation.within 0", "1 or more"),
        (["debug", "--evaluation.episodes", "1000"], "--evaluation.episodes 1000", "give 1 to 992"),
        (["debug", "--success.threshold", "2"], "--success.threshold 2", "give a number above 0 and below 1"),
        (["debug", "--success.held-out", "1.0"], "--success.held-out 1.0", "give 0 or more and below 1"),
        (["debug", "--update.gamma", "2"], "--update.gamma 2", "give 0 to 1"),
        (["debug", "--clone.ema", "1.5"], "--clone.ema 1.5", "give 0 or more and below 1"),
        (["debug", "--world-model.unimix", "1.5"], "--world-model.unimix 1.5", "give 0 or more and below 1"),
        (["debug", "--update.min-std", "0"], "--update.min-std 0", "give a finite number above 0"),
        (["debug", "--world-model.lr", "-1"], "--world-model.lr -1", "give a finite number above 0"),
        (["debug", "--data.demo-pace", "2"], "--data.demo-pace 2", "give a number above 0, up to 1"),
        (["debug", "--arms", "base:", "update.bc=nan"], "--update.bc nan", "give a finite number of 0 or more"),
        (
            [
                *("small", "--env", "worldaction/Calvin-v0", "--play", str(SAMPLE)),
                *("--tasks", "open_drawer", "push_pink_block_right"),
            ],
            "push_pink_block_right cannot be learned from recorded play: which numbers of a frame are its block's",
            "leave it out of --tasks",
        ),
        (["debug", "--play", "nowhere"], "nowhere", "give the folder or the file of a data set"),
        (["debug", "--play", "."], "has none of the formats", "docs/data.md"),
        (["--resume", "nowhere"], "nowhere", "give the folder of a run"),
        (["--resume"], "--resume needs a value", "such as"),
        (["--resume", "nowhere", "--seeds", "1"], "'--seeds'", "leave it out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_one_line_with_a_remedy_before_anything_is_made(
    refusal: Callable[[list[str]], str], tmp_path: Path, arguments: list[str], value: str, remedy: str
) -> None:
    said = refusal(arguments)
    assert value in said
    assert remedy in said
    assert list(tmp_path.iterdir()) == []


def floats(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Section and name of every option that is a float, or may be one."""
    for name, kind in typing.get_type_hints(type(config)).items():
        if is_dataclass(kind):
            yield from floats(getattr(config, name), f"{name}.")
        elif float in (kind, *typing.get_args(kind)):
            yield prefix, name


def numbers(config: Any) -> Iterator[tuple[type, str]]:
    """Class and name of every option that is a number, or may be one."""
    for name, kind in typing.get_type_hints(type(config)).items():
        if is_dataclass(kind):
            yield from numbers(getattr(config, name))
        elif {int, float} & {kind, *typing.get_args(kind)} and typing.get_origin(kind) is not tuple:
            yield type(config), name


def test_every_option_that_is_a_number_has_its_range_on_its_field() -> None:
    assert [name for cls, name in numbers(Study()) if name not in ranges_of(cls)] == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(("section", "name"), list(floats(Study())))
def test_no_option_is_infinite_or_no_number(section: str, name: str, value: str) -> None:
    option = f"--{section}{name}".replace("_", "-")
    with pytest.raises(UserError, match=f"{option} {value}"):
        parse_study(["debug", f"{option}={value}"])


@pytest.mark.parametrize(
    "argument",
    ["--update.max-imagined=2.0", "--update.max-divergence=1e9", "--update.min-time=0", "--world-model.unimix=0"],
)
def test_the_ends_of_a_range_that_mean_never_or_none_are_taken(argument: str) -> None:
    parse_study(["debug", argument])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(refusal: Callable[[list[str]], str], tmp_path: Path) -> None:
    assert "use --device cpu or auto" in refusal(["debug", "--device", "cuda"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["debug", "--world-model.steps", "many"], "--world-model.steps"),
        (["debug", "--table.renderer", "vulkan"], "vulkan"),
        (["debug", "--world-model.stepps", "3"], "--world-model.steps"),
        (["debug", "surplus"], "surplus"),
    ],
)
def test_options_that_do_not_exist_or_have_no_such_value_are_refused_by_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert named in said
    assert "Traceback" not in said


def test_a_renderer_that_is_missing_is_refused_with_its_package(
    refusal: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise UserError(f"renderer {name!r} does not work here (no library); apt-get install {drawing.PACKAGES[name]}")

    monkeypatch.setattr(drawing, "_gl_context", missing)
    render.renderer.cache_clear()
    said = refusal([*options(workers=1, run_dir="run"), "--table.renderer", "osmesa"])
    render.renderer.cache_clear()
    assert "apt-get install libosmesa6" in said


def test_windows_that_only_attempts_could_be_long_enough_for_are_refused_when_the_play_is_made(
    refusal: Callable[[list[str]], str], tmp_path: Path
) -> None:
    small = {"data__near_misses": 1, "data__demos": 1}
    said = refusal(options(workers=1, run_dir="run", world_model__length=49, **small))
    assert "--world-model.length 49 needs episodes of 49 frames" in said
    assert "take more play" in said or "lower it" in said
    assert not (tmp_path / "run/artefacts/seed0").exists()


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"evaluation__horizon": 41}, "--evaluation.horizon 41 needs episodes of 49 frames"),
        ({"data__frames": 240}, "no episodes of play for validation"),
    ],
)
def test_play_that_will_be_too_short_or_too_little_is_refused_before_it_is_made(
    refusal: Callable[[list[str]], str], tmp_path: Path, changes: dict[str, int], option: str
) -> None:
    said = refusal(options(workers=1, run_dir="run", **changes))
    assert option in said
    assert "take more play" in said or "lower it" in said
    assert list(tmp_path.iterdir()) == []


# Damaged recordings ---------------------------------------------------------------------------------------------------


def truncate(folder: Path) -> None:
    """A copy that was interrupted."""
    path = folder / "training/episode_0000053.npz"
    path.write_bytes(path.read_bytes()[:300])


def remove(folder: Path) -> None:
    """A file that was forgotten."""
    (folder / "training/episode_0000053.npz").unlink()


def shorten_action(folder: Path) -> None:
    """An action of another robot."""
    rewrite(folder / "training/episode_0000053.npz", lambda a: a | {"rel_actions": a["rel_actions"][:6]})


def empty(folder: Path) -> None:
    """A recording in which nothing was recorded."""
    np.save(folder / "training/ep_start_end_ids.npy", np.zeros((0, 2), np.int64))


def remove_camera(folder: Path) -> None:
    """A robot without a camera in its hand."""
    for path in folder.glob("*/episode_*.npz"):
        rewrite(path, lambda a: {key: value for key, value in a.items() if key != "rgb_gripper"})


def rewrite(path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    """Change the arrays of a file."""
    with np.load(path) as arrays:
        changed = change(dict(arrays))
    np.savez(path, **changed)


@pytest.mark.parametrize(
    ("damage", "value", "remedy"),
    [
        (truncate, "training/episode_0000053.npz is damaged", "get the file anew"),
        (remove, "training/episode_0000053.npz is missing", "copy the set again"),
        (shorten_action, "rel_actions is float64 (6,)", "get the file anew"),
        (empty, "lists no episodes", "copy the set again"),
        (remove_camera, "the play data have no 'rgb_gripper'; they have rgb_static", "set --world-model.cameras"),
    ],
)
def test_a_damaged_recording_is_refused_by_file(
    refusal: Callable[[list[str]], str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    damage: Callable[[Path], None],
    value: str,
    remedy: str,
) -> None:
    shutil.copytree(SAMPLE, tmp_path / "set")
    damage(tmp_path / "set")
    # what is damaged is left out with a warning, and of this set then too little is left
    said = refusal([*options(workers=1, run_dir="run", play="set"), "--world-model.cameras", *CAMERAS]) + caplog.text
    assert value in said
    assert remedy in said


def test_settings_that_are_not_settings_are_refused() -> None:
    debug = to_dict(PRESETS["debug"])
    debug["update"]["lrr"] = 1
    with pytest.raises(UserError, match=r"update has an unknown 'lrr'; did you mean 'lr'\?"):
        typed(debug, Study, "config.json")


def test_two_judges_whose_results_would_lie_in_one_place_are_refused() -> None:
    with pytest.raises(UserError, match="two end in the same name"):
        parse_study(["debug", "--evaluate-in", "a/Foo-v0", "b/Foo-v0"])


def test_start_states_that_are_all_spoken_for_are_said_to_be() -> None:
    with pytest.raises(UserError, match=r"left from number 996 .*a sampler 4 \(--evaluation.sampler-episodes\)"):
        parse_study(["debug", "--evaluation.first", "996"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--evaluation.within", "72", "300"], "--evaluation.within 300: beyond the time limit of 152 steps"),
        (["--update.horizon", "500"], "dreams are as long as the time limit of 152 steps at most"),
        (["--clone.demos", "30"], "--clone.demos 30: there are --data.demos 20 of each task"),
        ([], ""),
    ],
)
def test_settings_that_cannot_act_are_told(asked: list[str], said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        parse_study(["quick", *asked])
    assert any(said in message for message in caplog.messages) if said else not caplog.messages


def test_step_limits_without_a_number_are_refused() -> None:
    with pytest.raises(UserError, match=r"--evaluation.within is empty"):
        parse_study(["quick", "--evaluation.within"])


@pytest.mark.parametrize("argument", ["\0", "set\0", "é\ud800"])
def test_what_can_be_no_file_s_name_is_refused_in_one_line(argument: str) -> None:
    said = re.escape(f"{argument!r} holds a NUL byte or an unpaired surrogate; leave it out")
    with pytest.raises(UserError, match=said):
        parse_study(["debug", "--play", argument, "/dev/null"])
    for verb in ("train", "verify", "eval", "record"):
        with pytest.raises(UserError, match=said):
            program.command([verb, argument])


def test_a_name_in_another_encoding_is_a_name() -> None:
    with pytest.raises(UserError, match="there is nothing at"):
        parse_study(["debug", "--play", "\udce9"])
