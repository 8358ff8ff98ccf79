"""Every command that the documents show does what they say. A new one fails here until it has an entry in the table."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_study import ROOT, copied, environment, files, finished_run, study, summary

from envs import CALVIN_ID, METAWORLD_ID
from envs.playtable.env import PlayTableEnv
from envs.playtable.tools import fidelity, looks
from envs.tasks import EIGHT
from experiments import __main__ as cli
from experiments import losses, metaworld
from experiments.calvin import main
from experiments.guard import guarded
from experiments.study.options import parse_study
from experiments.study.settings import PRESETS
from worldaction.config import GymConfig, StressConfig
from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json
from worldaction.spec import CAMERAS

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/arm.md",
    "docs/arms.md",
    "docs/baselines.md",
    "docs/benchmarks.md",
    "docs/calvin.md",
    "docs/data.md",
    "docs/environments.md",
    "docs/interruptions.md",
    "docs/kernels.md",
    "docs/losses.md",
    "docs/playtable.md",
    "docs/quickstart.md",
    "docs/recorded.md",
    "docs/reliability.md",
    "docs/python_api.md",
    "docs/scenes.md",
    "docs/stress.md",
    "docs/use_your_policy.md",
)
STUDY = "python -m experiments.calvin"
NAMING = "runs/calvin/quick-.../artefacts/seed0/world_model"


def shown() -> list[str]:
    """Commands of ours in the documents: in blocks of code, and in the middle of a sentence."""
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL) + re.findall(r"^    (.*)$", text, re.MULTILINE)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", text)
        parts = [part for line in lines for part in re.sub(r"\s+#.*", "", line).split("&&")]
        found += [re.sub(r"^(?:\.venv/bin/)?python3?\b", "python", part.strip()) for part in parts]
    ours = (part for part in found if re.match(r"python -m (?!venv)|worldaction [a-z]", part))
    return list(dict.fromkeys(ours))


# What is checked of each ----------------------------------------------------------------------------------------------


def means(preset: str, **changed: Any) -> Callable[[str], None]:
    """The command line stands for a preset with these settings; the runs themselves are in test_study.py."""

    def check(command: str) -> None:
        study, resume, only_print = parse_study(re.sub(f"^({STUDY}|worldaction train)", "", command).split())
        different = {key for key, value in vars(study).items() if value != getattr(PRESETS[preset], key)}
        assert different == changed.keys()
        assert {key: getattr(study, key) for key in changed} == changed
        assert resume is None
        assert only_print == ("--print-config" in command)

    return check


def harder(**switches: Any) -> StressConfig:
    """The switches of `quick`, and these."""
    return replace(PRESETS["quick"].stress, **switches)


def runs_at_a_small_size(command: str) -> None:
    """`finished_run` is this command with smaller numbers."""
    means("debug")(command)
    assert (finished_run() / "report.html").exists()


def fits_pendulum(command: str) -> None:
    """A preset for the environment that everyone has; test_benchmarks.py runs such a study to its end."""
    found = {"tasks": ("Pendulum_v1",), "env": "Pendulum-v1"}
    preset = PRESETS["debug"]
    found["gym"] = GymConfig(expert="sac", success_reward=-0.02)
    found["stress"] = StressConfig()
    found["table"] = replace(preset.table, max_steps=200)
    found["world_model"] = replace(preset.world_model, cameras=(), pose="none")
    study, _, _ = parse_study(command.removeprefix("worldaction train").split())
    assert {key: getattr(study, key) for key in found} == found


def names_a_module(name: str) -> Callable[[str], None]:
    """An example's own environment is looked for where the command says."""

    def check(command: str) -> None:
        with pytest.raises(UserError, match=name):
            parse_study(command.removeprefix("worldaction train").split())

    return check


def learns_from_a_recording(command: str) -> None:
    """A recording of the tests in the place of the example's; test_recorded_study.py runs such a study to its end."""
    arguments = re.sub(f"^({STUDY}|worldaction train)", "", command).split()
    at = arguments.index("--play") + 1
    arguments[at] = str(ROOT / "tests/data/calvin_sample_64")
    study, _, _ = parse_study(arguments)
    assert (study.env, study.tasks, study.stress) == ("recorded", ("open_drawer",), StressConfig())
    assert study.recorded.scale == ("minmax" if "--scale" in arguments else "none")


def goes_on_from_a_run(command: str) -> None:
    """The options exist; tests/experiments/real/test_go_on.py runs such a study to its end."""
    arguments = command.removeprefix("worldaction train ").split()
    assert arguments == ["--play", "my_set", "tried", "--from", "RUN"]
    with pytest.raises(UserError, match="there is no run in RUN"):
        parse_study(arguments)


def moves_to_metaworld(command: str) -> None:
    """The presets of Meta-World."""
    arguments = command.removeprefix("python -m experiments.metaworld").split()
    study, _, _ = parse_study(arguments, metaworld.presets())
    assert study.env == METAWORLD_ID
    assert study.preset == arguments[0]


def has_options(command: str) -> None:
    """A command that takes a simulator, or minutes: its options exist. What it does is tested with its module."""
    program, *arguments = command.removeprefix("python -m ").split()
    module = [program]
    if program == "worldaction":
        verb = [word for word in arguments[:2] if not word.startswith("--")]
        module = ["experiments", *(verb if verb[0] == "table" else verb[:1])]
    result = subprocess.run(
        [sys.executable, "-m", *module, "--help"], env=environment(), cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert all(word in result.stdout for word in arguments if word.startswith("--"))


def compares(arms: int) -> Callable[[str], None]:
    """The command stands for a study with so many arms; a loss of the library in the place of the example's own."""

    def check(command: str) -> None:
        arguments = command.removeprefix("python -m experiments.losses").replace("my_losses:Mine", "dynamo").split()
        asked = losses.parse(arguments)
        assert len(asked.study.arms) == arms
        assert asked.models_only == ("--models-only" in arguments)

    return check


def data_has_options(command: str) -> None:
    """What the commands for data and for the arm do is in their own tests; here, that they have these options."""
    words = command.split()
    options = [word for word in words if word.startswith("--")]
    prints(*options)(" ".join([*words[:3], "--help"]))


def replays(command: str) -> None:
    """A recording that comes with the library in the place of the example's."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        fidelity.main(["--replay", str(fidelity.RECORDINGS[-1])])
    assert "3 of 3" in said.getvalue()


def inspects(command: str) -> None:
    """A play store in the place of the example's set."""
    store = finished_run() / "artefacts/play/store"
    prints("rgb_static", "robot_obs", "frames")(command.replace("path/to/set", str(store)))


def goes_on(command: str) -> None:
    """The example's folder replaced by one that exists."""
    arguments = command.removeprefix(STUDY).split()
    assert arguments[0] == "--resume"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(finished_run(), f"{folder}/run")
        assert guarded(lambda: main([arguments[0], f"{folder}/run"])) == 0


def helps(command: str) -> None:
    """Every part's options are listed."""
    with pytest.raises(SystemExit) as end:
        main(command.removeprefix(STUDY).split())
    assert end.value.code == 0


def prints(*words: str) -> Callable[[str], None]:
    """A command of `worldaction` whose output holds these words."""

    def check(command: str) -> None:
        result = subprocess.run(
            [*python("from experiments.__main__ import main; main()"), *command.split()[1:]],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert all(word in result.stdout for word in words)

    return check


def looks_at_fewer(command: str) -> None:
    """The table of a scene from fewer states, or the images beside a recording that the table itself made."""
    arguments = command.removeprefix("worldaction table looks").split()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        if arguments:
            assert arguments[0] == "--beside"
            record_frames(Path(folder), 2)
            looks.main(["--beside", folder])
            assert all(camera in said.getvalue() for camera in CAMERAS)
        else:
            looks.main(["--states", "100", "--size", "16", "--scenes", "D"])
            assert said.getvalue().splitlines()[1].startswith("D ")
            assert said.getvalue().count("%") == len(looks.STATES)


def record_frames(folder: Path, count: int) -> None:
    """Frames in CALVIN's layout."""
    env = PlayTableEnv(image_size=32, renderer="rays")
    for number in range(count):
        np.savez(folder / f"episode_{number:07d}.npz", **env.reset(seed=number)[0])


def python(script: str) -> list[str]:
    """Python with a script."""
    return [sys.executable, "-c", script]


def knows_the_kind(command: str) -> None:
    """`new` and `check` know the kind of plug-in; what they do with it is tested with each kind."""
    verb, kind = command.split()[1:3]
    prints(verb, kind)(f"worldaction {verb} {kind} --help")


def checks_the_readme_s_loss(command: str) -> None:
    """The example keeps to the contract, as whoever pastes it will see."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (text,) = [block for block in blocks if "class Mine(Loss)" in block]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "my_losses.py").write_text(text)
        arguments = [sys.executable, "-m", *command.split()]
        result = subprocess.run(arguments, env=environment(), cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert "keeps to the contract" in result.stdout


def evaluates(command: str) -> None:
    """The verb has these options; what it does is tested with the judge."""
    prints(*(word for word in command.split() if word.startswith("--")))("worldaction eval --help")


def parses(command: str) -> None:
    """The verb takes these words; what it does is tested in a file of its own."""
    words = command.split()[1:]
    verb = words[:2] if words[0] == "data" else words[:1]
    prints(*(word for word in words if word.startswith("--")))(f"worldaction {' '.join(verb)} --help")


def has_markers(command: str) -> None:
    """This suite; what it leaves out is marked as the document says."""
    assert "markers" in (ROOT / "pyproject.toml").read_text()
    assert "-m 'not slow and not gpu'" in (ROOT / "pyproject.toml").read_text()


TABLE: dict[str, Callable[[str], None]] = {
    STUDY: means("quick"),
    f"{STUDY} debug": runs_at_a_small_size,
    f"{STUDY} quick --seeds 0 1 2": means("quick", seeds=(0, 1, 2)),
    f"{STUDY} quick --tasks open_drawer turn_on_led": means("quick", tasks=("open_drawer", "turn_on_led")),
    f"{STUDY} quick --losses reconstruction kl": means("quick", losses=PRESETS["quick"].losses[:2]),
    f"{STUDY} small --print-config": means("small"),
    f"{STUDY} --resume runs/calvin/quick-...": goes_on,
    f"{STUDY} debug --play path/to/task_D_D": learns_from_a_recording,
    "worldaction train --play my_set --scale minmax": learns_from_a_recording,
    "worldaction train small --play my_set --seeds 0 1 2": learns_from_a_recording,
    "worldaction train quick --play calvin_64": learns_from_a_recording,
    "worldaction train quick --play sets/reacher/hasty-v0": learns_from_a_recording,
    "worldaction train quick --play arm_set --scale minmax --seeds 0 1 2": learns_from_a_recording,
    "worldaction train quick --play arm600 --scale minmax --world-model.steps 5000 --recorded.jurors 1": (
        learns_from_a_recording
    ),
    "worldaction train --play my_set tried --from RUN": goes_on_from_a_run,
    "worldaction train --play tried": learns_from_a_recording,
    "worldaction train --env my_env:MyEnv --play my_demonstrations --gym.camera none": names_a_module("my_env"),
    "worldaction data inspect my_set --sheet sheet.png": data_has_options,
    "worldaction data inspect tried": data_has_options,
    "worldaction data inspect my_set --episodes": data_has_options,
    "worldaction data check": data_has_options,
    "worldaction train --resume RUN": has_options,
    **dict.fromkeys(
        (
            "worldaction arm evaluate",
            "worldaction eval",
            "worldaction export",
            "worldaction serve",
            "worldaction video",
        ),
        lambda command: prints("policy")(f"{command} --help"),
    ),
    "worldaction serve RUN/policies/TASK-seed0-ppo": lambda command: parses(command),
    f"{STUDY} quick --help": helps,
    f"{STUDY} debug --losses reconstruction kl my_losses:Mine=0.1": means(
        "debug", losses=(*PRESETS["debug"].losses[:2], "my_losses:Mine=0.1")
    ),
    f"{STUDY} quick --stress.distractors 0.5": means("quick", stress=harder(distractors=0.5)),
    f"{STUDY} quick --stress.positions 1": means("quick", stress=harder(positions=1)),
    f"{STUDY} quick --stress.colours 0.5": means("quick", stress=harder(colours=0.5)),
    f"{STUDY} quick --stress.pushes 1": means("quick", stress=harder(pushes=1)),
    f"{STUDY} quick --stress.hidden-actions 0.9": means("quick", stress=harder(hidden_actions=0.9)),
    f"{STUDY} quick --stress.hidden-actions 0.9 --world-model.named-by {NAMING}": means(
        "quick",
        stress=harder(hidden_actions=0.9),
        world_model=replace(PRESETS["quick"].world_model, named_by=NAMING),
    ),
    f"{STUDY} quick --clone.demos 5": means("quick", clone=replace(PRESETS["quick"].clone, demos=5)),
    f"{STUDY} quick --stress.tolerance 0.5": means("quick", stress=harder(tolerance=0.5)),
    f"{STUDY} quick --stress.frame-turn 30": means("quick", stress=harder(frame_turn=30)),
    f"{STUDY} quick --stress.frame-scale 0.5 --stress.frame-play": means(
        "quick", stress=harder(frame_scale=0.5, frame_play=True)
    ),
    f"{STUDY} quick --table.scene B": means("quick", table=replace(PRESETS["quick"].table, scene="B")),
    f"{STUDY} quick --env worldaction/Calvin-v0": means("quick", env=CALVIN_ID),
    f"{STUDY} small --env worldaction/Calvin-v0 --play path/to/task_D_D --starts path/to/task_D_D"
    " --evaluation.episodes 20 --evaluation.curve-episodes 5 --evaluation.sampler-episodes 5": means(
        "small",
        env=CALVIN_ID,
        play="path/to/task_D_D",
        starts="path/to/task_D_D",
        tasks=EIGHT,
        stress=StressConfig(),
        evaluation=replace(PRESETS["small"].evaluation, episodes=20, curve_episodes=5, sampler_episodes=5),
    ),
    f"{STUDY} quick --evaluate-in worldaction/Calvin-v0": means("quick", evaluate_in=(CALVIN_ID,)),
    f"{STUDY} quick --evaluate-in worldaction/Calvin-v0 --evaluation.judged-episodes 50": means(
        "quick", evaluate_in=(CALVIN_ID,)
    ),
    "worldaction eval runs/calvin/quick-... --in worldaction/Calvin-v0": evaluates,
    "worldaction eval runs/calvin/quick-... --in worldaction/Calvin-v0 --episodes 50": evaluates,
    "worldaction eval RUN --in worldaction/Calvin-v0": evaluates,
    f"{STUDY} small --evaluation.first 600": means("small", evaluation=replace(PRESETS["small"].evaluation, first=600)),
    f"{STUDY} small-72": means("small-72"),
    f"{STUDY} small --arms reconstruction+kl reconstruction+kl+inverse_dynamics --tasks all --seeds 0 1 2": means(
        "small", arms=("reconstruction+kl", "reconstruction+kl+inverse_dynamics"), seeds=(0, 1, 2)
    ),
    f"{STUDY} quick --arms base: bc0:update.bc=0 bc0.1:update.bc=0.1": means(
        "quick", arms=("base:", "bc0:update.bc=0", "bc0.1:update.bc=0.1")
    ),
    f"{STUDY} quick --update.bc 0.1 --cache runs/calvin/quick-20261121-084500": means(
        "quick", update=replace(PRESETS["quick"].update, bc=0.1), cache="runs/calvin/quick-20261121-084500"
    ),
    "worldaction report runs/calvin/small-20261121-084500 --markdown": lambda command: prints("--markdown")(
        "worldaction report --help"
    ),
    "worldaction train debug --env Pendulum-v1 --gym.expert sac --gym.success-reward -0.02": fits_pendulum,
    "worldaction train quick --env my_package:Reach-v0 --gym.expert my_package:Expert": names_a_module("my_package"),
    "python -m experiments.metaworld quick": moves_to_metaworld,
    "worldaction baselines runs/calvin/quick-...": has_options,
    "worldaction baselines runs/calvin/quick-... --methods dppo sb3_ppo_dream --tasks open_drawer --seeds 0": (
        has_options
    ),
    "worldaction baselines runs/calvin/quick-... --steps 100000": has_options,
    f"{STUDY} quick --policy gaussian --cache RUN": means(
        "quick", policy=replace(PRESETS["quick"].policy, name="gaussian"), cache="RUN"
    ),
    "worldaction baselines runs/calvin/quick-... --markdown": has_options,
    f"{STUDY} quick --kernels reference": means("quick", kernels="reference"),
    f"{STUDY} quick --kernels rollout=cpu,denoise=reference": means("quick", kernels="rollout=cpu,denoise=reference"),
    f"{STUDY} quick --losses reconstruction kl taco": means("quick", losses=(*PRESETS["quick"].losses[:2], "taco")),
    f"{STUDY} quick --losses reconstruction kl inverse_dynamics=100,steps=4,images=true latent_action": means(
        "quick",
        losses=(
            *PRESETS["quick"].losses[:2],
            "inverse_dynamics=100,hidden=256,steps=4,images=true",
            "latent_action",
        ),
    ),
    "worldaction losses --measure": lambda command: prints("--measure")("worldaction losses --help"),
    **dict.fromkeys(
        (
            "worldaction eval RUN/policies/NAME",
            "worldaction eval RUN/policies/NAME --episodes 100 --video",
            "worldaction eval RUN/policies/NAME --env worldaction/Calvin-v0 --out outcomes.json",
            "worldaction eval RUN --in ENV",
            "worldaction video RUN/policies/NAME film.mp4 --episodes 6",
            "worldaction runs",
            "worldaction compare RUN OTHER-RUN",
            "worldaction figure RUN --format pdf",
            "worldaction export RUN/policies/NAME exported --to lerobot",
            "worldaction serve RUN/policies/NAME",
            "worldaction serve RUN/policies/NAME --record tried",
            "worldaction serve RUN/policies/TASK-seed0-ppo --record tried",
            "worldaction record POLICY --to STORE",
            "worldaction record RUN/policies/NAME --to tried",
            "worldaction record RUN/policies/NAME --to tried --episodes 20",
            "worldaction compare RUN NEW-RUN",
            "worldaction serve RUN/policies/NAME --rehearse 30",
            "worldaction serve RUN/policies/TASK-seed0-ppo --rehearse 30",
            "worldaction serve RUN/policies/NAME --rehearse 30 --ahead",
            "worldaction data convert --scale minmax",
        ),
        lambda command: parses(command),
    ),
    "worldaction new loss my_loss": lambda command: prints("name")("worldaction new loss --help"),
    "worldaction check loss my_loss:MyLoss": lambda command: prints("as for --losses")("worldaction check loss --help"),
    "python -m experiments.losses quick --models-only --seeds 0 1 2 --distractors 0 0.3 0.6": compares(
        3 * (1 + len(losses.zoo()))
    ),
    "python -m experiments.losses --resume runs/calvin/quick-20261121-084500": has_options,
    "python -m experiments.losses quick --compare taco dynamo,ema=0.99 my_losses:Mine": compares(4),
    "worldaction replay runs/.../artefacts/seed0/world_model/non_finite_batch.safetensors": has_options,
    "worldaction replay FILE --skip": has_options,
    "worldaction campaign --minutes 0 --strikes 11 --only kills": has_options,
    "worldaction campaign --minutes 0 --strikes 4 --seed 100": has_options,
    "worldaction benchmark": has_options,
    "worldaction benchmark --quick": has_options,
    "worldaction benchmark --peer lumos=../lumos dreamerv3-torch=../dreamerv3-torch r2dreamer=../r2dreamer": (
        has_options
    ),
    "worldaction benchmark --only imagination training": has_options,
    "worldaction benchmark --rounds 15 --threads 4 --device cuda --out runs/speed": has_options,
    "worldaction gpu-check --out runs/gpu_check --parts build,tests,benchmark": has_options,
    "worldaction gpu-check --out runs/gpu_check --parts train": has_options,
    "worldaction build-kernels --arch sm_80 sm_90 sm_100": has_options,
    "worldaction table record": has_options,
    "worldaction table upstream": has_options,
    "worldaction table upstream --out path/to/folder": has_options,
    "worldaction table record --out recording.npz --episodes 5": has_options,
    "worldaction table record --scene A --noise 0.2 --seed 700 --episodes 5 --out recording.npz": has_options,
    "worldaction table experts": has_options,
    "worldaction table experts --starts 40 --noise 0.35 --pace 0.5 --limit 152 --tolerance 1": has_options,
    "worldaction table fidelity --write docs/playtable.md": has_options,
    "worldaction table fidelity --calvin": has_options,
    "worldaction table fidelity --record path/to/task_D_D --out recording.npz": has_options,
    "worldaction table fidelity --replay recording.npz": replays,
    "worldaction data inspect path/to/set": inspects,
    "worldaction data inspect path/to/task_D_D --sheet sheet.png": data_has_options,
    "worldaction data check path/to/task_D_D --replay 20 --manifest sums.json": data_has_options,
    "worldaction data convert path/to/task_D_D play --image-size 64": data_has_options,
    "worldaction data convert play table_lerobot --to lerobot": data_has_options,
    "worldaction data convert play table_calvin --to calvin": data_has_options,
    "worldaction data inspect PATH": data_has_options,
    "worldaction data inspect arm_set --sheet sheet.png": data_has_options,
    "worldaction arm record arm_set --episodes 60 --failures 15 --seed 0": data_has_options,
    "worldaction arm record arm_set --episodes 150 --failures 40 --seed 0": data_has_options,
    "worldaction arm record arm600 --episodes 600 --failures 200 --seed 1": data_has_options,
    "worldaction arm evaluate POLICY --episodes 100 --seed 0": data_has_options,
    "worldaction data convert PATH OUT": data_has_options,
    f"{STUDY} quick --stress.frame-extra 1 --stress.frame-play": means(
        "quick", stress=harder(frame_extra=1, frame_play=True)
    ),
    "worldaction table looks": looks_at_fewer,
    "worldaction table looks --beside path/to/task_D_D": looks_at_fewer,
    "worldaction jury runs/calvin/quick-...": has_options,
    "worldaction verify": lambda command: prints("play store")("worldaction verify --help"),
    "worldaction verify runs/calvin/quick-...": lambda command: prints("play store")("worldaction verify --help"),
    "worldaction campaign --minutes 30 --seed 0": lambda command: prints("--minutes", "--seed", "--only", "--out")(
        "worldaction campaign --help"
    ),
    "worldaction data check --manifest FILE": data_has_options,
    "worldaction doctor": prints("torch", "packages", "renderer rays", "ffmpeg", "cores"),
    "worldaction losses": prints("reconstruction", "kl", "inverse_dynamics", "embed"),
    "worldaction policies": prints("policy ", "diffusion ", "beso ", "steps=3", "flow ", "steps=4", "2210.02747"),
    "worldaction updates": prints("update ", "filtered_bc ", "group=8", "2402.03300"),
    "worldaction check loss my_losses:Mine": checks_the_readme_s_loss,
    **{f"worldaction new {kind} NAME": knows_the_kind for kind in ("policy", "update")},
    **{f"worldaction new {kind} my_{kind}": knows_the_kind for kind in ("policy", "update", "env")},
    "worldaction check env NAME": knows_the_kind,
    "worldaction check env my_file:Mine": knows_the_kind,
    "worldaction baselines RUN --methods NAME": has_options,
    "python -m pytest -n 2": has_markers,
}


@pytest.mark.parametrize("command", sorted({*TABLE, *shown()}))
def test_a_command_of_the_documents_does_what_it_says(command: str) -> None:
    assert command in shown(), "no document shows this command any more: take it out of the table"
    assert command in TABLE, "a new command in the documents: say in the table how it is tested"
    TABLE[command](command)


def test_the_command_worldaction_is_the_one_that_is_tested_here(monkeypatch: pytest.MonkeyPatch) -> None:
    (target,) = re.findall(r'"worldaction = ([\w.:]+)"', (ROOT / "setup.py").read_text())
    module, _, function = target.partition(":")
    called: list[str] = []
    monkeypatch.setattr(cli, "main", lambda: called.append("ours"))
    getattr(importlib.import_module(module), function)()
    assert called == ["ours"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A finished run that may be changed."""
    copied(finished_run(), tmp_path / "run")
    return tmp_path / "run"


def test_a_report_can_be_written_again_from_the_files_of_the_run(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "report.html").unlink()
    cli.command(["report", str(copy)])
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    assert (copy / "report.html").read_text() == (finished_run() / "report.html").read_text()
    assert files(copy) == files(finished_run())


def test_the_tables_of_a_run_come_as_markdown_with_its_numbers(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.command(["report", str(copy), "--markdown"])
    said = capsys.readouterr().out
    assert "turn_on_led" in said
    assert read_json(copy / "summary.json")["settings"] in said
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert len(rows) >= 3
    columns = {line.count("|") for line in rows[:3]}
    assert len(columns) == 1


def test_a_report_of_a_folder_that_is_no_run_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["report", str(tmp_path)], ["report", str(tmp_path / "none"), "--markdown"]):
        assert guarded(lambda arguments=arguments: cli.command(arguments)) == 2  # type: ignore[misc]
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1


def test_the_policy_example_of_the_quick_start_runs_as_it_stands() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/quickstart.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "Policy.from_pretrained" in block]
    folder = finished_run() / "policies" / "turn_on_led-seed0-ppo"
    example = re.sub(r'from_pretrained\("[^"]*"\)', f"from_pretrained({str(folder)!r})", example)
    names: dict[str, Any] = {}
    exec(example, names)  # a text of our own
    names["env"].close()
    assert names["done"]
    assert names["action"].shape == (7,)
    assert np.abs(names["action"]).max() <= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_debug_preset_runs_as_the_readme_shows_it(tmp_path: Path) -> None:
    result = study("debug", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "runs" / "calvin").iterdir()
    assert run.name.startswith("debug-")
    assert summary(run)["tasks"]["turn_on_led"]["n"] == PRESETS["debug"].evaluation.episodes
